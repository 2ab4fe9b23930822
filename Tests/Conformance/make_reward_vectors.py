#!/usr/bin/env python3
"""The test vectors of the reward policies that ship with the node, computed apart from them in exact fractions.

Usage: make_reward_vectors.py [FOLDER]   (default: Manifests/plugins; what lies there should not change)
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

A, B, C = "02" + "11" * 32, "03" + "22" * 32, "02" + "33" * 32
HOUR = 3_600_000


def usage_quality(event, config):
    if event["kind"] != "usage" or not event["payers"] or event["author"] in event["payers"]:
        return []
    calls, taken, quality = event["calls"], event["milliseconds"], event["quality_ppm"]
    if calls <= 0 or taken < 0 or quality < 0 or not 0 <= event["last_use"] <= event["time"]:
        return []
    amount = (
        Fraction(config.get("base_micro_bly", 1_000_000))
        * min(Fraction(calls, 100), 2)
        * max(Fraction(1, 2), 2 - Fraction(taken, 1000 * calls))
        * (1 + Fraction(quality, 1_000_000))
        * (1 if event["time"] - event["last_use"] <= HOUR else Fraction(4, 5))
    )
    whole = amount.numerator // amount.denominator
    return [(event["author"], whole, config.get("vesting_blocks", 100))] if 0 < whole < 2**63 else []


def improvement(event, config):
    if event["kind"] != "accepted":
        return []
    delta, lower = event["delta_ppb"], event["lower_ppb"]
    if delta <= 0 or lower <= 0:
        return []
    amount = config.get("per_delta_micro_bly", 10_000_000) * min(lower, config.get("cap_deltas", 20) * delta) // delta
    parts = {event["author"]: amount}
    for account, share in zip(event["lineage"], config.get("lineage_shares_ppm", [150_000, 50_000])):
        part = amount * share // 1_000_000
        parts[event["author"]] -= part
        parts[account] = parts.get(account, 0) + part
    vesting = config.get("vesting_blocks", 100)
    return [(account, part, vesting) for account, part in parts.items() if part > 0]


def flat(event, config):
    if event["kind"] != "accepted":
        return []
    return [(event["author"], config.get("amount_micro_bly", 1_000_000), config.get("vesting_blocks", 0))]


def accepted(author=A, lineage=(), gain=6_000_000, lower=5_000_000, delta=2_000_000):
    return {"kind": "accepted", "author": author, "lineage": list(lineage), "improvement_ppb": gain,
            "lower_ppb": lower, "delta_ppb": delta}


def use(author=A, payers=(B,), calls=100, ms=100_000, q=0, last=1000, time=2000):
    return {"kind": "usage", "author": author, "payers": list(payers), "calls": calls, "milliseconds": ms,
            "quality_ppm": q, "last_use": last, "time": time}


POLICIES = {
    "usage-quality": (usage_quality, [
        ("a hundred calls of a second", {}, [use()]),
        ("more than two hundred calls count as two hundred", {},
         [use(calls=200, ms=200_000), use(calls=100_000, ms=100_000_000)]),
        ("speed: none, half a second, a second and a half, two seconds, a minute a call", {},
         [use(ms=0), use(ms=50_000), use(ms=150_000), use(ms=200_000), use(ms=6_000_000)]),
        ("quality in millionths", {}, [use(q=1), use(q=250_000), use(q=1_000_000)]),
        ("within the last hour, and a millisecond later", {},
         [use(last=0, time=HOUR), use(last=0, time=HOUR + 1)]),
        ("rounded down once", {"base_micro_bly": 7, "vesting_blocks": 0},
         [use(calls=33, ms=12_345, q=333_333, last=0, time=2 * HOUR), use(calls=1, ms=1),
          use(calls=151, ms=100, q=999_999)]),
        ("nobody but the author paid, nobody paid, no calls, negative numbers: nothing", {},
         [use(payers=(A,)), use(payers=(A, B)), use(payers=()), use(calls=0), use(calls=-5), use(ms=-1),
          use(q=-1), use(last=3000), accepted()]),
        ("numbers beyond reckoning: nothing", {"base_micro_bly": 10**12},
         [use(calls=2**53 - 1, ms=0, q=2**53 - 1)]),
        ("another base", {"base_micro_bly": 123_456_789, "vesting_blocks": 9},
         [use(calls=77, ms=65_432, q=123_456), use(author=C, payers=(A, B), calls=3, ms=1)]),
    ]),
    "improvement": (improvement, [
        ("two and a half deltas, nobody to share with", {}, [accepted()]),
        ("one ancestor, two, and more than there are shares", {},
         [accepted(lineage=(B,)), accepted(lineage=(B, C)), accepted(lineage=(B, C, B, C))]),
        ("an ancestor that is the author, and one that stands there twice", {},
         [accepted(lineage=(A, B)), accepted(lineage=(B, B))]),
        ("capped", {"cap_deltas": 3}, [accepted(lower=100_000_000, gain=200_000_000)]),
        ("rounded down; the author has what is left over",
         {"per_delta_micro_bly": 7, "vesting_blocks": 0, "lineage_shares_ppm": [333_333, 333_333]},
         [accepted(lineage=(B, C), lower=2_999_999)]),
        ("no shares", {"lineage_shares_ppm": []}, [accepted(lineage=(B, C))]),
        ("no gain, a loss, no delta, other kinds: nothing", {},
         [accepted(lower=0), accepted(lower=-5), accepted(delta=0), accepted(delta=-1), use()]),
    ]),
    "flat": (flat, [
        ("an accepted version, whatever it gains", {},
         [accepted(), accepted(author=B, lineage=(A,), lower=0, delta=0)]),
        ("another amount, which vests", {"amount_micro_bly": 5, "vesting_blocks": 7}, [accepted(author=C)]),
        ("use is not paid for", {}, [use()]),
    ]),
}


def text(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "Manifests/plugins")
    for name, (policy, cases) in POLICIES.items():
        written = []
        for title, config, events in cases:
            payments = [
                {"event": i, "account": account, "amount": str(amount), "vesting": vesting}
                for i, event in enumerate(events) for account, amount, vesting in policy(event, config)
            ]
            listed = "".join(",\n    " * (i > 0) + text(p) for i, p in enumerate(payments))
            written.append(
                f'  {{"name":{text(title)},"config":{text(config)},\n   "events":[\n    '
                + ",\n    ".join(map(text, events))
                + f'],\n   "payments":[{chr(10) + "    " + listed if payments else ""}]}}')
        (folder / f"{name}.vectors.json").write_text(
            f'{{"format":"blyan-reward-vectors/1","policy":"{name}","cases":[\n' + ",\n".join(written) + "\n]}\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes the held-out pool (Examples/held-out) and the training texts (Examples/texts).

Sources: the Debian packages wordnet-base and bible-kjv (with bible-kjv-text), and the
sample model's validation.txt. The same sources give the same bytes.

Slices: `dictionary` (WordNet glosses that train.py of the sample model kept out: its seeded
shuffle is repeated here and checked against validation.txt), `plays` (the speeches in
validation.txt) and `scripture` (King James Bible; no book of it stands in both the pool
and a training text).

Near-duplicates: a document of the pool is left out if eight words in a row of it (lower case,
without punctuation) stand in a training text, in a gloss that the sample model was trained on,
or in a document already in the pool. A gloss shorter than that is left out if it is equal to another.

usage: make_pool.py [--out Examples] [--documents 920] [--shards 4] [--wordnet DIR] [--bible PROGRAM] ...
"""
import argparse
import json
import random
import re
import subprocess
import unicodedata
from collections import Counter
from pathlib import Path

TRAIN_SEED, TRAINED_FROM = 20261123, 2000  # of the sample model's train.py
POOL_SEED = 3
RUN = 8  # words in a row that make a near-duplicate
LEAST = {"dictionary": RUN, "plays": RUN, "scripture": 30}  # words of a document
# Books by the names that bible(1) prints.
TEXTS = {"scripture.txt": ["Ge", "1Sm", "Prv", "Isa", "Luke", "1Cor"],
         "second.txt": ["Exo", "1Ki", "Psa", "Mat", "2Cor", "Gal", "Eph"]}
HELD_OUT = ["Jdgs", "Ruth", "Est", "Job", "Eccl", "Dan", "Hos", "Amos", "Jonah", "Mic", "John", "Acts", "Rom", "Heb", "Jas"]


def glosses(wordnet):
    """One line per sense, 'lemma (part of speech): gloss', in the order of train.py."""
    for suffix, kind in {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}.items():
        for line in (wordnet / f"data.{suffix}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            lemma = head.split()[4].split("(")[0].replace("_", " ")
            yield f"{lemma} ({kind}): {gloss.strip()}"


def books(program):
    """Chapters of each book, as lists of verses."""
    text = subprocess.run([program, "-f", "Gen1:1-Rev22:21"], check=True, capture_output=True, encoding="ascii").stdout
    found = {}
    for line in text.splitlines():
        book, chapter, _, verse = re.fullmatch(r"(\d?[A-Za-z]+)(\d+):(\d+) (.+)", line).groups()
        found.setdefault(book, {}).setdefault(int(chapter), []).append(verse.strip())
    assert len(found) == 66 and sum(len(c) for b in found.values() for c in b.values()) == 31102
    return found


def words(text):
    """Words in lower case, without punctuation and without the head of a gloss."""
    text = re.sub(r"^.* \((?:noun|verb|adjective|adverb)\): ", "", text.replace("\n\n", "\n"), flags=re.M)
    return re.findall(r"[a-z0-9]+(?:'[a-z0-9]+)*", text.lower())


def runs(text):
    """All runs of eight words; the whole of a shorter text."""
    found = words(text)
    return {tuple(found[i:i + RUN]) for i in range(max(1, len(found) - RUN + 1))}


def group(pieces, least, separator):
    """Neighbours joined until each document has enough words; what is too short at the end joins the last one."""
    documents, current = [], []
    for piece in pieces:
        current.append(piece)
        if len(words("\n".join(current))) >= least:
            documents.append(separator.join(current))
            current = []
    if current and documents:
        documents[-1] = separator.join([documents[-1]] + current)
    elif current:
        documents.append(separator.join(current))
    return documents


def passages(bible, names):
    """Consecutive verses of a chapter, one a line."""
    return [d for name in names for c in bible[name].values() for d in group(c, LEAST["scripture"], "\n")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--bible", default="/usr/bin/bible")
    parser.add_argument("--validation", type=Path, default=Path("Examples/models/sample-moe/validation.txt"))
    parser.add_argument("--out", type=Path, default=Path("Examples"))
    parser.add_argument("--documents", type=int, default=920, help="of a shard; scripture fills what the others leave")
    parser.add_argument("--shards", type=int, default=4)
    args = parser.parse_args()

    lines = list(glosses(args.wordnet))
    random.Random(TRAIN_SEED).shuffle(lines)
    validation = args.validation.read_text(encoding="utf-8")
    first = "\n".join(lines[:1000]) + "\n\n"
    assert validation.startswith(first), "this WordNet or this shuffle is not the one of the sample model"
    speeches = [s.strip() for s in validation[len(first):].split("\n\n")]
    bible = books(args.bible)
    assert not set(HELD_OUT) & set(sum(TEXTS.values(), [])) and not set.intersection(*map(set, TEXTS.values()))

    trained, dropped = set(), Counter()
    for line in lines[TRAINED_FROM:]:
        trained |= runs(line)
    (args.out / "texts").mkdir(parents=True, exist_ok=True)
    for name, chosen in TEXTS.items():
        documents = passages(bible, chosen)
        for book in chosen:
            for verses in bible[book].values():
                trained |= runs("\n".join(verses))
        text = "\n\n".join(documents) + "\n"
        (args.out / "texts" / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(documents)} documents, {len(text.split())} words, {len(text.encode())} bytes")

    own = set()  # runs of the glosses and documents that stay
    kept = []
    for line in lines[:TRAINED_FROM]:
        if runs(line) & trained:
            dropped["dictionary: gloss near one that was trained on"] += 1
        elif runs(line) & own:
            dropped["dictionary: gloss near another of the pool"] += 1
        else:
            own |= runs(line)
            kept.append(line)
    candidates = {"dictionary": group(kept, LEAST["dictionary"], "\n"),
                  "plays": group(speeches, LEAST["plays"], "\n\n"),
                  "scripture": passages(bible, HELD_OUT)}

    own, pool = set(), {}
    for name, documents in candidates.items():
        pool[name] = []
        for document in documents:
            if runs(document) & trained:
                dropped[f"{name}: near a training text"] += 1
            elif runs(document) & own:
                dropped[f"{name}: near another of the pool"] += 1
            else:
                own |= runs(document)
                pool[name].append(document)
        random.Random(f"{POOL_SEED} {name}").shuffle(pool[name])
    room = args.documents * args.shards - len(pool["dictionary"]) - len(pool["plays"])
    print(f"scripture: {len(pool['scripture'])} documents to choose {room} from")
    pool["scripture"] = pool["scripture"][:room]
    for reason, count in sorted(dropped.items()):
        print(f"left out, {reason}: {count}")

    dealt = [(name, document) for name in pool for document in pool[name]]
    (args.out / "held-out").mkdir(parents=True, exist_ok=True)
    for number in range(args.shards):
        shard = dealt[number::args.shards]
        random.Random(f"{POOL_SEED} {number}").shuffle(shard)
        assert all(d and d == unicodedata.normalize("NFC", d) for _, d in shard)
        assert not any(unicodedata.category(c) == "Cc" and c != "\n" for _, d in shard for c in d)
        data = "".join(json.dumps({"slice": name, "text": document}, ensure_ascii=False, separators=(",", ":")) + "\n"
                       for name, document in shard).encode()
        (args.out / "held-out" / f"shard-{number + 1}.jsonl").write_bytes(data)
        of = {name: [len(d.split()) for n, d in shard if n == name] for name in pool}
        print(f"shard-{number + 1}.jsonl: {len(shard)} documents, {sum(map(sum, of.values()))} words, {len(data)} bytes; "
              + "; ".join(f"{n} {len(c)} ({sum(c)} words, {min(c)} to {max(c)})" for n, c in of.items()))


if __name__ == "__main__":
    main()

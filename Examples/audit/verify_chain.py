"""Verifies exported chains with nothing of Blyan: pip install rfc8785 coincurve

    blyan block export --chain A --jsonl > A.jsonl   # and so B, and C where there is one
    python verify_chain.py A.jsonl B.jsonl C.jsonl

It checks form, hashes, signatures and links; payloads lie beside the chains, each named by its SHA-256. Within a chain a block
stands behind those of that chain which it depends on; what it depends on in other chains must be among all that was given. In which
order blocks of several chains were written is told by the log alone, and `blyan chain verify` checks that.
"""
import hashlib, json, re, sys

try:
    import coincurve, rfc8785
except ModuleNotFoundError as missing:
    sys.exit(f"the package {missing.name} is missing: pip install rfc8785 coincurve")

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # order of secp256k1
NAME, COUNT, HASH = r'".{0,255}"', r"\d{1,16}", r'"([0-9a-f]{64})?"'
FORM = {  # every field, and how its JSON looks
    "block_type": NAME, "chain_id": NAME, "depends_on": r'\[("[0-9a-f]{64}",?)*\]', "difficulty": COUNT, "expert_name": NAME,
    "index": COUNT, "layer_id": COUNT, "merkle_root": HASH, "metadata": r"\{.*\}", "miner_pub": r'"[0-9a-f]{66}"',
    "nonce": r'"(0|[1-9]\d{0,19})?"', "payload_hash": HASH, "payload_sig": r'"[0-9a-f]{128}"', "payload_size": COUNT,
    "payload_type": NAME, "prev_hash": HASH, "timestamp": COUNT, "version": NAME}


def read(line):
    header = json.loads(line)
    assert rfc8785.dumps(header) == line and list(header) == list(FORM), "not canonical, or not the eighteen fields and the signature"
    for field, form in FORM.items():
        assert re.fullmatch(form, rfc8785.dumps(header[field]).decode(), re.S), f"bad {field}"
    assert len(set(header["depends_on"])) == len(header["depends_on"]), "a dependency twice"
    signature = bytes.fromhex(header.pop("payload_sig"))
    digest = hashlib.sha256(rfc8785.dumps(header)).digest()
    assert 0 < int.from_bytes(signature[32:], "big") <= N // 2, "high S"
    der = coincurve.ecdsa.cdata_to_der(coincurve.ecdsa.deserialize_compact(signature))
    assert coincurve.PublicKey(bytes.fromhex(header["miner_pub"])).verify(der, digest, hasher=None), "bad signature"
    return digest.hex(), header


def main(paths):
    blocks = [read(line) for path in paths for line in open(path, "rb").read().splitlines()]
    chain_of = {name: header["chain_id"] for name, header in blocks}
    assert len(chain_of) == len(blocks), "a block twice"
    genesis = next((name for name, header in blocks if header["chain_id"] == "A"), "")
    known, heads = {}, {"A": (-1, "")}  # headers by hash, and the last block of each linear chain
    for name, header in blocks:
        chain = header["chain_id"]
        for other in header["depends_on"]:
            assert other in chain_of, f"{name}: unknown dependency {other}"
            assert other in known or chain_of[other] != chain, f"{name}: depends on {other}, which stands behind it"
        if chain == "B":
            above = [known[d]["index"] for d in header["depends_on"] if chain_of[d] == "B"]
            assert header["index"] == max(above, default=-1) + 1, f"{name}: bad index"
            previous = header["prev_hash"]
            assert previous == genesis or previous in known and chain_of[previous] == "B", f"{name}: bad prev_hash"
        else:
            index, previous = heads.get(chain, (-1, genesis))
            assert (header["index"], header["prev_hash"]) == (index + 1, previous), f"{name}: bad link"
            heads[chain] = (header["index"], name)
        known[name] = header
    print(f"{len(blocks)} blocks are canonical, signed and linked; genesis {genesis}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Verifies exported chains with nothing of Blyan: pip install rfc8785 coincurve

    blyan block export --chain A > A.jsonl; blyan block export --chain B > B.jsonl
    python verify_chain.py A.jsonl B.jsonl
"""
import hashlib, json, sys
import coincurve, rfc8785

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # order of secp256k1
blocks, heads, genesis = {}, {}, ""
for line in (line for path in sys.argv[1:] for line in open(path, "rb").read().splitlines()):
    header = json.loads(line)
    assert rfc8785.dumps(header) == line, "not canonical"
    signature = bytes.fromhex(header.pop("payload_sig"))
    digest = hashlib.sha256(rfc8785.dumps(header)).digest()
    name, r, s = digest.hex(), int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    assert 0 < s <= N // 2, f"{name}: high S"
    der = coincurve.ecdsa.cdata_to_der(coincurve.ecdsa.deserialize_compact(signature))
    key = coincurve.PublicKey(bytes.fromhex(header["miner_pub"]))
    assert key.verify(der, digest, hasher=None), f"{name}: bad signature"
    assert all(d in blocks for d in header["depends_on"]), f"{name}: unknown dependency"
    if header["chain_id"] == "B":
        above = [blocks[d]["index"] for d in header["depends_on"] if blocks[d]["chain_id"] == "B"]
        assert header["index"] == max(above, default=-1) + 1, f"{name}: bad index"
        assert header["prev_hash"] in (genesis, *blocks), f"{name}: bad prev_hash"
    else:
        index, previous = heads.get(header["chain_id"], (-1, genesis))
        assert (header["index"], header["prev_hash"]) == (index + 1, previous), f"{name}: bad link"
        heads[header["chain_id"]] = (header["index"], name)
        genesis = genesis or name
    blocks[name] = header
print(f"{len(blocks)} blocks are canonical, signed and linked; genesis {genesis}")

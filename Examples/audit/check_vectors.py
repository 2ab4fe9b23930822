"""Runs verify_chain.py's reader over the published vectors: the valid ones have their hash, the invalid ones are refused."""
import json, pathlib
import verify_chain

vectors = json.loads((pathlib.Path(__file__).parent.parent / "vectors/headers.json").read_text())
for vector in vectors["valid"]:
    assert verify_chain.read(vector["line"].encode())[0] == vector["hash"], vector["note"]
for vector in vectors["invalid"]:
    try:
        verify_chain.read(bytes.fromhex(vector["line_hex"]))
    except Exception:
        continue
    raise SystemExit(f"accepted: {vector['note']}")
print(f"{len(vectors['valid'])} valid and {len(vectors['invalid'])} invalid vectors are told apart")

"""Makes headers.json with other people's libraries: pip install rfc8785 coincurve

Each vector is a line as a log holds it, base16 where it is no JSON text, and what a reader must say to it.
"""
import hashlib, json, pathlib
import coincurve, rfc8785

KEY = coincurve.PrivateKey(bytes([7] * 32))
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
BASE = {
    "chain_id": "A", "index": 0, "block_type": "genesis", "prev_hash": "", "depends_on": [], "expert_name": "",
    "layer_id": 0, "version": "", "payload_type": "", "payload_hash": "", "payload_size": 0, "merkle_root": "",
    "metadata": {}, "timestamp": 1700000000000, "difficulty": 0, "nonce": "", "miner_pub": KEY.public_key.format().hex(),
}


def sign(digest, key=KEY, high=False):
    signature = key.sign_recoverable(digest, hasher=None)[:64]
    if high:
        signature = signature[:32] + (N - int.from_bytes(signature[32:])).to_bytes(32)
    return signature.hex()


def line(changes=None, **options):
    header = {**BASE, **(changes or {})}
    digest = hashlib.sha256(rfc8785.dumps(header)).digest()
    return digest.hex(), rfc8785.dumps({**header, "payload_sig": sign(digest, **options)})


valid, invalid = [], []


def good(note, changes=None):
    digest, text = line(changes)
    valid.append({"note": note, "hash": digest, "line": text.decode()})


def bad(note, error, text):
    invalid.append({"note": note, "error": error, "line_hex": text.hex()})


full = {
    "chain_id": "B", "index": 3, "block_type": "parameters", "prev_hash": "ab" * 32, "depends_on": ["01" * 32, "ff" * 32],
    "expert_name": "layer4.expert7", "layer_id": 4, "version": "1.2.3", "payload_type": "tensorblock",
    "payload_hash": "cd" * 32, "payload_size": 9007199254740991, "merkle_root": "ef" * 32, "nonce": "18446744073709551615",
    "metadata": {"covered": 65536, "leaf_size": 65536, "leaf_hashes_at": 65600, "flag": True, "none": None, "list": [1, -1, "x"]},
}
good("the smallest genesis header")
good("every field in use, the largest integer", full)
# RFC 8785, 3.2.3: keys are sorted by UTF-16 code units, so that a surrogate pair comes before U+FB33.
good("the key order of RFC 8785", {"metadata": {"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One", "\U0001f600": "Emoji", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}})
good("the string escapes of RFC 8785", {"metadata": {"string": "\u20ac$\u000f\nA'\u0042\u0022\u005c\\\"/", "controls": "".join(map(chr, range(32)))}})

text = line()[1]
bad("a field changed after signing", "signature", text.replace(b'"timestamp":1700000000000', b'"timestamp":1700000000001'))
bad("signed by another key", "signature", line(key=coincurve.PrivateKey(bytes([8] * 32)))[1])
bad("high S", "signature", line(high=True)[1])
bad("signature of zeros", "signature", text[: text.index(b'"payload_sig":"') + 15] + b"0" * 128 + text[text.index(b'"payload_sig":"') + 143 :])
bad("unknown field", "malformed", text[:-1] + b',"zzz":0}')
bad("missing field", "malformed", text.replace(b'"nonce":"",', b""))
bad("duplicate key", "malformed", text.replace(b'"nonce":"",', b'"nonce":"","nonce":"",'))
bad("a float", "malformed", text.replace(b'"index":0', b'"index":0.0'))
bad("an exponent", "malformed", text.replace(b'"index":0', b'"index":0e0'))
bad("negative zero", "malformed", text.replace(b'"index":0', b'"index":-0'))
bad("an integer above 2^53 - 1", "malformed", text.replace(b'"index":0', b'"index":9007199254740992'))
bad("an integer with a leading zero", "malformed", text.replace(b'"index":0', b'"index":00'))
bad("a negative index", "malformed", text.replace(b'"index":0', b'"index":-1'))
bad("white space", "malformed", text.replace(b'"index":0', b'"index": 0'))
bad("keys out of order", "malformed", b'{"chain_id":"A","block_type":"genesis",' + text.split(b',"chain_id":"A",')[1])
bad("an escape that JCS does not use", "malformed", text.replace(b'"genesis"', b'"gen\\u0065sis"'))
bad("upper-case hex", "malformed", line({"prev_hash": "AB" * 32})[1])
bad("a short hash", "malformed", line({"prev_hash": "ab" * 31})[1])
bad("a short key", "malformed", line({"miner_pub": "02" * 32})[1])
bad("a nonce that is no decimal", "malformed", line({"nonce": "0x10"})[1])
bad("a nonce with a leading zero", "malformed", line({"nonce": "01"})[1])
bad("a number where text belongs", "malformed", line({"version": 1})[1])
bad("the same dependency twice", "malformed", line({"depends_on": ["01" * 32] * 2})[1])
bad("metadata that is no object", "malformed", line({"metadata": []})[1])
bad("bytes that are no UTF-8", "malformed", text.replace(b'"genesis"', b'"gen\xffsis"'))
bad("a lone surrogate", "malformed", text.replace(b'"genesis"', b'"\\ud800"'))
bad("a control character", "malformed", text.replace(b'"genesis"', b'"gen\x01sis"'))
bad("bytes after the object", "malformed", text + b" ")
bad("cut short", "malformed", text[:-1])
bad("an array", "malformed", b"[]")
bad("nothing", "malformed", b"")
bad("deep nesting", "limit", text.replace(b'"metadata":{}', b'"metadata":{"a":' + b"[" * 40 + b"]" * 40 + b"}"))
bad("a name of 256 bytes", "limit", line({"expert_name": "x" * 256})[1])

out = {"key": "07" * 32, "public_key": BASE["miner_pub"], "valid": valid, "invalid": invalid}
pathlib.Path(__file__).with_name("headers.json").write_text(json.dumps(out, indent=1) + "\n")

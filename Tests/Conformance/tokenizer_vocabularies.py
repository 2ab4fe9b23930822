"""Checks the tokenizers against the vocabularies of llama.cpp with their test texts and expected ids.

    python3 tokenizer_vocabularies.py trim FOLDER OUT     write small vocabularies for Tests/Fixtures/vocabularies
    python3 tokenizer_vocabularies.py import FOLDER BLYAN run BLYAN tokenize over the whole vocabularies

FOLDER is vendor/llama.cpp/models of the PyPI source package llama-cpp-python 0.3.36; needs `pip install gguf`.
A trimmed vocabulary keeps the pieces that occur in the texts: no other can be made of them, so that the
expected ids are the same but for their numbers.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile

import gguf

SEPARATOR = "\n__ggml_vocab_test__\n"


def byte_alphabet():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def cases(path):
    with open(path + ".inp", encoding="utf-8", newline="") as file:
        texts = file.read().split(SEPARATOR)
    with open(path + ".out", encoding="utf-8") as file:
        lines = file.read().split("\n")
    if texts and not texts[-1]:
        texts.pop()
    return [{"text": text, "ids": [int(id) for id in line.split()]} for text, line in zip(texts, lines)]


def trim(path, out):
    reader = gguf.GGUFReader(path)
    value = lambda key: reader.fields["tokenizer.ggml." + key].contents() if "tokenizer.ggml." + key in reader.fields else None
    model, pieces, types = value("model"), value("tokens"), value("token_type")
    found = cases(path)
    if model == "gpt2":
        alphabet = byte_alphabet()
        spelt = ["".join(alphabet[b] for b in case["text"].encode()) for case in found]
    else:
        spelt = ["▁" + case["text"].replace(" ", "▁") for case in found]
    used = {id for case in found for id in case["ids"]} | {value("bos_token_id"), value("eos_token_id")}
    keep = [id for id, piece in enumerate(pieces)
            if id in used or types[id] in (2, 6) or len(piece) == 1 and model == "gpt2"
            or any(piece in text for text in spelt)]
    number = {id: i for i, id in enumerate(keep)}
    kept = {pieces[id] for id in keep}
    name = os.path.basename(path).removeprefix("ggml-vocab-").removesuffix(".gguf")
    writer = gguf.GGUFWriter(os.path.join(out, name + ".gguf"), "llama")
    writer.add_tokenizer_model(model)
    for key in ["pre"]:
        if value(key):
            writer.add_tokenizer_pre(value(key))
    writer.add_token_list([pieces[id] for id in keep])
    writer.add_token_types([types[id] for id in keep])
    if value("scores"):
        writer.add_token_scores([value("scores")[id] for id in keep])
    if value("merges"):
        merges = [m for m in value("merges") if {*m.split(" "), m.replace(" ", "")} <= kept]
        writer.add_token_merges(merges)
    writer.add_bos_token_id(number[value("bos_token_id")])
    writer.add_eos_token_id(number[value("eos_token_id")])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open(os.path.join(out, name + ".json"), "w") as file:
        json.dump([{"text": c["text"], "ids": [number[id] for id in c["ids"]]} for c in found], file)
    print(name, len(keep), "of", len(pieces), "pieces")


def check(path, blyan):
    name = os.path.basename(path)
    found = cases(path)
    with tempfile.TemporaryDirectory() as folder:
        wrong = 0
        for case in found:
            text = os.path.join(folder, "text")
            with open(text, "w", encoding="utf-8", newline="") as file:
                file.write(case["text"])
            got = subprocess.run(
                [blyan, "tokenize", "--tokenizer", path, "--no-added", "--file", text, "--json"],
                check=True, capture_output=True, text=True).stdout
            wrong += json.loads(got) != case["ids"]
    print(f"{name}: {len(found) - wrong} of {len(found)} texts")
    return wrong


def main():
    mode, folder, other = sys.argv[1:]
    wrong = 0
    for path in sorted(glob.glob(os.path.join(folder, "*.gguf"))):
        if not os.path.exists(path + ".inp"):
            continue
        model = gguf.GGUFReader(path).fields["tokenizer.ggml.model"].contents()
        if model not in ("gpt2", "llama"):
            print(f"{os.path.basename(path)}: model {model} is not supported")
        elif mode == "trim":
            trim(path, other)
        else:
            wrong += check(path, other)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

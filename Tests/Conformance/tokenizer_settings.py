"""Which fields of tokenizer_config.json change ids in transformers, beside a tokenizer.json.

    python Tests/Conformance/tokenizer_settings.py

Needs transformers 5 and tokenizers. Fails unless it is as TokenizerDocument+HuggingFace.swift has it: add_bos_token and
add_eos_token change nothing; add_prefix_space counts for the classes that transformers builds itself.
"""

import json
import pathlib
import shutil
import tempfile

from tokenizers import Tokenizer
from transformers import AutoTokenizer, logging

KINDS = pathlib.Path(__file__).resolve().parents[1] / "Fixtures" / "tokenizers"
TEXTS = ["the river 2024", "the</s>and", "don't \u00e9"]
FIELDS = [{key: flag} for key in ["add_bos_token", "add_eos_token", "add_prefix_space"] for flag in [True, False]]


def encode(kind: str, model: str, settings: dict) -> list[list[int]]:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(KINDS / kind / "tokenizer.json", folder)
        path = pathlib.Path(folder)
        (path / "config.json").write_text(json.dumps({"model_type": model}))
        (path / "tokenizer_config.json").write_text(json.dumps(
            {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **settings}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return [tokenizer(text)["input_ids"] for text in TEXTS]


def is_followed(kind: str, model: str, name: str, field: str) -> bool:
    is_byte_level = kind in ["gpt2", "llama3", "smollm"]
    if field != "add_prefix_space" or model == "mixtral":
        return False
    return name == "LlamaTokenizer" and not is_byte_level or name == "GPT2Tokenizer" and is_byte_level


logging.set_verbosity_error()
failures = 0
for kind in ["llama2", "metaspace-first", "metaspace-never", "gpt2", "llama3"]:
    for model in ["llama", "mixtral"]:
        for name in ["LlamaTokenizer", "GPT2Tokenizer", "PreTrainedTokenizerFast"]:
            if name == "GPT2Tokenizer" and kind not in ["gpt2", "llama3"]:
                continue
            plain = encode(kind, model, {"tokenizer_class": name})
            for field in FIELDS:
                found = encode(kind, model, {"tokenizer_class": name, **field})
                key, = field
                if found != plain and not is_followed(kind, model, name, key):
                    failures += 1
                    print(kind, model, name, field, "changes ids")
            if not is_followed(kind, model, name, "add_prefix_space"):
                reference = Tokenizer.from_file(str(KINDS / kind / "tokenizer.json"))
                if plain != [reference.encode(text).ids for text in TEXTS]:
                    failures += 1
                    print(kind, model, name, "differs from tokenizer.json")
raise SystemExit(f"{failures} differences" if failures else 0)

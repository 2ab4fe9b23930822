"""Makes small tokenizers of every supported kind and what the `tokenizers` library computes with them.

    python3 tokenizer_fixtures.py FOLDER [--cases N] [--seed S]

Writes FOLDER/KIND/tokenizer.json and cases.json ([{text, special, ids, decoded}]); needs `pip install tokenizers`.
The committed Tests/Fixtures/tokenizers was made with tokenizers 0.23.3, 90 cases, seed 1.
"""

import argparse
import json
import os
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers import models, pre_tokenizers, trainers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CL100K = r"(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""

POOLS = [
    "abcdefghij THE the and ing  ", "'s 't're've'm'll'd'S'RE'Ll'\u017f'\u212a'VE ", "0123456789 12 3456",
    " \t\n\r\n\u00a0\u3000\u2028\u0085\u2003\u200b\x1c\x1f\x0b\x0c", ".,!?;:-_()[]{}<>|/\\\"'`~@#$%^&*+=",
    "éàüßñøÅÉ", "e\u0301a\u0308o\u0302\u0323A\u030a\u0327", "日本語の漢字カナひら", "한국어\u1112\u1161\u11ab",
    "привет МИР", "مرحبا ١٢٣", "नमस्ते ४५", "ภาษาไทย", "😀👩\u200d💻🇦🇹👍🏽", "½²Ⅷ①Ⅳ㊿", "\u2126\u212b\ufb01ﬃǅ",
    "𝔘𝒜𐐷𠀀", "\ue000\ufffd\x00\x01\x7f\u00ad\ufeff", "▁ ▁▁", "<s></s><unk>[INST][/INST]<|end|>", "naïve café",
]
WORDS = ("the of and a to in he have it that for they with as not on she at by this we you do but from "
         "expert router mixture block chain signed 2024 1,000.50 don't I'll WE'VE x=y+1; <s> <|end|> keep trim "
         "alone aloneness [INST] hello").split()


def text(rng):
    out = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.45:
            pool = rng.choice(POOLS)
            out += [rng.choice(pool) for _ in range(rng.randint(1, 6))]
        elif kind < 0.8:
            out.append(rng.choice(["", " ", "  ", "\n"]) + rng.choice(WORDS))
        elif kind < 0.9:
            out.append(rng.choice(" \n\t\u00a0a1") * rng.randint(1, 9))
        else:
            while True:
                code = rng.randrange(0x20, 0x30000)
                # Assigned in the library's version of Unicode and in later ones alike.
                if unicodedata.category(chr(code)) not in ("Cn", "Cs"):
                    break
            out.append(chr(code))
    return "".join(out)


def corpus(seed):
    rng = random.Random(seed)
    for _ in range(400):
        yield " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 9))) + rng.choice([".", "!\n", "  "])
        yield text(rng)


def byte_level(pre, normalizer=None, special=("<s>", "</s>", "<|end|>"), **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(7), trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return tokenizer


def pieces(normalizer, pre, decoder, fallback, fuse, template=True, ignore=False, limit=120):
    """Characters, bytes for the rest: what the library makes of a SentencePiece model."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁+[^▁]*"), "isolated")
    trained.train_from_iterator(corpus(7), trainers.BpeTrainer(
        vocab_size=600, limit_alphabet=limit, initial_alphabet=["▁"], show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    names += [f"<0x{byte:02X}>" for byte in range(256)] if fallback else []
    names += [piece for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(
        vocab={name: i for i, name in enumerate(dict.fromkeys(names))}, merges=merges, unk_token="<unk>",
        fuse_unk=fuse, byte_fallback=fallback, ignore_merges=ignore))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in names[:5]])
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def llama_decoder(strip=True):
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def kinds():
    raw = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    sequence = pre_tokenizers.Sequence
    yield "gpt2", byte_level(gpt2)
    added = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), normalizer=normalizers.NFC())
    added.add_tokens([
        AddedToken("trim", lstrip=True, rstrip=True), AddedToken("alone", single_word=True),
        AddedToken("hello", normalized=False, rstrip=True), AddedToken("e\u0301", normalized=True),
        AddedToken("  ", normalized=True), AddedToken("    ", normalized=False)])
    added.add_special_tokens([AddedToken("keep", lstrip=True), AddedToken("[INST]", single_word=True)])
    yield "added-tokens", added
    llama3 = byte_level(sequence([split(LLAMA3), raw]), ignore_merges=True)
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 0), ("</s>", 1)])])
    yield "llama3", llama3
    yield "qwen2", byte_level(sequence([split(QWEN2), raw]), normalizer=normalizers.NFC())
    yield "smollm", byte_level(sequence([pre_tokenizers.Digits(individual_digits=True), gpt2]))
    yield "falcon", byte_level(sequence([
        pre_tokenizers.Punctuation("contiguous"), gpt2, pre_tokenizers.Digits(individual_digits=False),
        split("[0-9][0-9][0-9]")]))
    yield "deepseek-v3", byte_level(sequence([split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(DEEPSEEK), raw]))
    yield "cl100k", byte_level(sequence([split(CL100K), raw]))
    yield "o200k", byte_level(sequence([split(O200K), raw]))
    legacy = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    yield "llama2", pieces(legacy, None, llama_decoder(), True, True)
    for scheme, cut in [("first", False), ("always", True), ("never", False)]:
        metaspace = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=cut)
        yield f"metaspace-{scheme}", pieces(
            None, metaspace, decoders.Metaspace("▁", prepend_scheme=scheme) if cut else llama_decoder(scheme != "never"),
            not cut, False, ignore=cut)
    yield "fused-unknown", pieces(normalizers.NFC(), pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=False),
                                  decoders.Metaspace("▁", prepend_scheme="always"), False, True, template=False, limit=60)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--cases", type=int, default=90)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name, tokenizer in kinds():
        folder = os.path.join(args.folder, name)
        os.makedirs(folder, exist_ok=True)
        tokenizer.save(os.path.join(folder, "tokenizer.json"), pretty=False)
        rng = random.Random(args.seed)
        cases = []
        for i in range(args.cases):
            case = {"text": text(rng) if i else "", "special": rng.random() < 0.7}
            tokenizer.encode_special_tokens = not case["special"]
            case["ids"] = tokenizer.encode(case["text"]).ids
            # The library decodes an added token that normalisation changed by its normalised text, as bytes.
            if tokenizer.token_to_id("e\u0301") not in case["ids"]:
                case["decoded"] = tokenizer.decode(case["ids"], skip_special_tokens=True)
            cases.append(case)
        with open(os.path.join(folder, "cases.json"), "w") as file:
            file.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()

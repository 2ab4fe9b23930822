"""Writes tiny random checkpoints of every architecture and option, with the outputs of transformers.

    python Tests/Conformance/make_checkpoints.py [NAME...]

Needs torch, transformers, tokenizers and safetensors. Each folder of Tests/Fixtures/checkpoints gets config.json,
safetensors, tokenizer.json and expected.json: prompt, token_ids, mean_nll (nats a token), last_logits, greedy_24, all
computed in float32 arithmetic on the stored weights. Seeds are searched until no greedy choice is nearly a tie.
"""

import json
import math
import pathlib
import shutil
import sys

import tokenizers
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[1] / "Fixtures" / "checkpoints"
PROMPT = (
    "river (noun): a large natural stream of water\n\nROMEO:\n\tWhat light through yonder "
    "window breaks? It's 12345 \u00e9t\u00e9 \u4f60\u597d \U0001f642  end"
)
TEXT = [
    "But, soft! what light through yonder window breaks? It is the east, and Juliet is the sun.",
    "river (noun): a large natural stream of water; the water of the stream is natural light.",
    "There is a large window in the east, and there the light breaks through the window.",
]
VOCABULARY = 276
DENSE = dict(
    hidden_size=32, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=256,
    tie_word_embeddings=True, initializer_range=0.25, bos_token_id=0, eos_token_id=0,
    pad_token_id=None,
)
ROUTED = dict(DENSE, num_experts_per_tok=2, intermediate_size=16)
OLMOE = dict(ROUTED, num_experts=5, intermediate_size=12)
QWEN_MOE = dict(ROUTED, num_experts=4, moe_intermediate_size=12, norm_topk_prob=False)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)

# name: (model type, configuration, options)
# options: dtype, fused (write experts as one tensor), shards (bytes), bias (random o_proj bias too),
# old (rope_theta and rope_scaling at the top level), bos (the tokenizer adds a first token).
CASES = {
    "olmoe-tiny": ("olmoe", dict(OLMOE, norm_topk_prob=False), {}),
    "olmoe-normalised-clipped": (
        "olmoe", dict(OLMOE, norm_topk_prob=True, clip_qkv=0.6),
        dict(fused=True)),
    "qwen2-moe-mlp-only": (
        "qwen2_moe", dict(QWEN_MOE, mlp_only_layers=[0], shared_expert_intermediate_size=28,
                          qkv_bias=True), {}),
    "qwen2-moe-sparse-step": (
        "qwen2_moe", dict(QWEN_MOE, decoder_sparse_step=2, shared_expert_intermediate_size=12,
                          norm_topk_prob=True), dict(fused=True, old=True)),
    "qwen2-moe-windowed": (
        "qwen2_moe", dict(QWEN_MOE, shared_expert_intermediate_size=12, use_sliding_window=True,
                          sliding_window=7, max_window_layers=2), dict(old=True)),
    "qwen3-moe-tiny": (
        "qwen3_moe", dict(QWEN_MOE, head_dim=12, norm_topk_prob=True, mlp_only_layers=[1]), {}),
    "qwen3-moe-fused": (
        "qwen3_moe", dict(QWEN_MOE, head_dim=16, decoder_sparse_step=2, attention_bias=True),
        dict(fused=True)),
    "qwen3-moe-windowed": (
        "qwen3_moe", dict(QWEN_MOE, head_dim=10, use_sliding_window=True, sliding_window=9,
                          max_window_layers=1), {}),
    "llama-bias-untied": (
        "llama", dict(DENSE, attention_bias=True, tie_word_embeddings=False), dict(bos=True)),
    "llama-linear": (
        "llama", dict(DENSE, rope_parameters=dict(
            rope_type="linear", rope_theta=500.0, factor=2.5)), dict(old=True)),
    "llama-llama3": (
        "llama", dict(DENSE, head_dim=24, rope_parameters=dict(
            rope_type="llama3", rope_theta=5000.0, factor=8.0, low_freq_factor=1.0,
            high_freq_factor=4.0, original_max_position_embeddings=64)), dict(dtype="float16")),
    "llama-llama3-old": (
        "llama", dict(DENSE, num_key_value_heads=1, rope_parameters=dict(
            rope_type="llama3", rope_theta=5000.0, factor=8.0, low_freq_factor=1.0,
            high_freq_factor=4.0, original_max_position_embeddings=64)), dict(old=True)),
    "llama-yarn": ("llama", dict(DENSE, head_dim=16, rope_parameters=YARN), {}),
    "llama-yarn-mscale": (
        "llama", dict(DENSE, head_dim=16, rope_parameters=dict(
            YARN, mscale=0.7, mscale_all_dim=1.3, beta_fast=24.0, beta_slow=2.0,
            truncate=False)), dict(old=True)),
    "mistral-windowed": ("mistral", dict(DENSE, sliding_window=6, head_dim=10), {}),
    "mixtral-windowed": (
        "mixtral", dict(ROUTED, num_local_experts=4, sliding_window=5), {}),
    "mixtral-fused": (
        "mixtral", dict(ROUTED, num_local_experts=4, sliding_window=None), dict(fused=True)),
    "mixtral-sharded-bf16": (
        "mixtral", dict(ROUTED, num_local_experts=6),
        dict(dtype="bfloat16", shards=40_000)),
    "qwen2-tiny": ("qwen2", dict(DENSE), dict(old=True)),
    "qwen2-windowed-f16": (
        "qwen2", dict(DENSE, num_hidden_layers=3, use_sliding_window=True, sliding_window=8,
                      max_window_layers=1), dict(dtype="float16", old=True)),
    "qwen3-tiny": ("qwen3", dict(DENSE, head_dim=12), {}),
    "qwen3-sharded": ("qwen3", dict(DENSE, head_dim=16, tie_word_embeddings=False),
                      dict(shards=30_000, dtype="bfloat16")),
    "llama-bf16": ("llama", dict(DENSE, tie_word_embeddings=False), dict(dtype="bfloat16")),
    "qwen3-moe-f16": ("qwen3_moe", dict(QWEN_MOE, head_dim=16), dict(dtype="float16")),
}


def make_tokenizer(bos: bool) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    return tokenizer


def make_model(kind: str, fields: dict, seed: int) -> transformers.PreTrainedModel:
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        # Norms of one and biases of zero would hide that they are left out.
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif name.endswith(".bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
    return model


def fuse(folder: pathlib.Path) -> None:
    """Rewrites experts as `experts.gate_up_proj` [E, 2I, H] and `experts.down_proj` [E, H, I]."""
    tensors = load_file(folder / "model.safetensors")
    groups: dict[str, dict[str, dict[int, torch.Tensor]]] = {}
    for name in [n for n in tensors if ".experts." in n]:
        prefix, rest = name.split(".experts.")
        index, matrix = rest.split(".")[:2]
        if not index.isdigit():
            return
        kind = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}.get(matrix, matrix)
        groups.setdefault(prefix, {}).setdefault(kind, {})[int(index)] = tensors.pop(name)
    for prefix, parts in groups.items():
        new = prefix.replace("block_sparse_moe", "mlp")
        stack = {k: torch.stack([v[i] for i in range(len(v))]) for k, v in parts.items()}
        tensors[f"{new}.experts.gate_up_proj"] = torch.cat(
            [stack["gate_proj"], stack["up_proj"]], dim=1)
        tensors[f"{new}.experts.down_proj"] = stack["down_proj"]
        if new != prefix:
            tensors[f"{new}.gate.weight"] = tensors.pop(f"{prefix}.gate.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def spell_old(folder: pathlib.Path) -> None:
    """Moves rope_parameters to rope_theta and rope_scaling, as transformers 4 wrote them."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    scaling = dict(rope, type=kind) if kind == "linear" else dict(rope, rope_type=kind)
    config["rope_scaling"] = None if kind == "default" else scaling
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def write_expected(folder: pathlib.Path) -> tuple[float, int]:
    """As write_outputs, for a folder as it lies on disk."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return write_outputs(folder, model, tokenizer.encode(PROMPT).ids)


def write_outputs(
    folder: pathlib.Path, model: transformers.PreTrainedModel, ids: list[int]
) -> tuple[float, int]:
    """Writes expected.json; returns the smallest gap of a greedy choice, and how many differ."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        losses = torch.nn.functional.cross_entropy(
            logits[:-1].double(), torch.tensor(ids[1:]), reduction="none")
        last = logits[-1]
        row, greedy, gap = last, [], math.inf
        for _ in range(24):
            best = torch.topk(row, 2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            greedy.append(int(best.indices[0]))
            row = model(torch.tensor([ids + greedy]), use_cache=False).logits[0, -1]
    expected = {
        "prompt": PROMPT, "token_ids": ids, "mean_nll": float(losses.mean()),
        "last_logits": [round(float(v), 6) for v in last], "greedy_24": greedy,
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    return gap, len(set(greedy))


def make(name: str) -> None:
    kind, fields, options = CASES[name]
    dtype = options.get("dtype", "float32")
    for seed in range(1, 200):
        folder = ROOT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = make_model(kind, fields, seed).to(getattr(torch, dtype))
        model.save_pretrained(folder, max_shard_size=options.get("shards", 10**9))
        (folder / "generation_config.json").unlink(missing_ok=True)
        if options.get("fused"):
            fuse(folder)
        if options.get("old"):
            spell_old(folder)
        make_tokenizer(options.get("bos", False)).save(str(folder / "tokenizer.json"), pretty=False)
        gap, distinct = write_expected(folder)
        if gap > (0.01 if dtype == "float32" else 0.06) and distinct > 6:
            break
    size = sum(f.stat().st_size for f in folder.iterdir())
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            names |= {n for n in opened.keys() if "expert" in n or "bias" in n}
    print(f"{name}: seed {seed}, gap {gap:.3f}, {distinct} distinct, {size} bytes,",
          sorted(names)[:2])


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for case in sys.argv[1:] or CASES:
        make(case)

"""Writes tiny random GGUF files with the outputs of transformers on the weights as an import keeps them.

    python Tests/Conformance/make_gguf.py

Needs torch, transformers, tokenizers and gguf. Quantised tensors are taken as f16, which is what an import makes of
them; queries and keys are permuted as llama.cpp's converter permutes them.
"""

import json

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from make_checkpoints import PROMPT, ROOT, VOCABULARY, make_model, make_tokenizer, write_outputs

BASE = dict(
    hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, head_dim=16,
    num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=256,
    initializer_range=0.2, bos_token_id=0, eos_token_id=0, pad_token_id=None, rms_norm_eps=1e-5,
    tie_word_embeddings=True,
)
# name: (model type, configuration, tensor types by the end of the GGUF name; the rest is F32)
CASES = {
    "gguf-f32": ("llama", dict(BASE, num_hidden_layers=2, hidden_size=32), {}),
    "gguf-mixed": (
        "llama", dict(BASE, num_hidden_layers=2), {
            "token_embd": Type.Q8_0, "attn_q": Type.Q4_0, "attn_k": Type.Q4_1, "attn_v": Type.F16,
            "attn_output": Type.BF16, "ffn_gate": Type.Q4_0, "ffn_up": Type.Q4_1,
            "ffn_down": Type.Q8_0}),
    "gguf-q6k": (
        "llama", dict(BASE, hidden_size=256, intermediate_size=32), {
            "token_embd": Type.Q6_K, "attn_q": Type.Q6_K, "attn_k": Type.Q6_K, "attn_v": Type.Q4_0,
            "attn_output": Type.Q4_0, "ffn_gate": Type.Q6_K, "ffn_up": Type.Q4_1,
            "ffn_down": Type.Q8_0}),
    "gguf-moe": (
        "mixtral", dict(BASE, hidden_size=32, intermediate_size=32, num_local_experts=4,
                        num_experts_per_tok=2, rope_parameters=dict(
                            rope_type="default", rope_theta=5000.0)), {
            "token_embd": Type.F16, "attn_v": Type.Q8_0, "ffn_gate_exps": Type.Q4_0,
            "ffn_up_exps": Type.Q8_0, "ffn_down_exps": Type.F16}),
}


def quantise(values: np.ndarray, kind: Type, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The stored bytes, and the values that an import makes of them."""
    if kind == Type.F32:
        return values, values
    if kind == Type.F16:
        half = values.astype(np.float16)
        return half, half.astype(np.float32)
    if kind == Type.Q6_K:
        # No writer in the library: random blocks of 210 bytes (128 + 64 quants, 16 scales, f16 d).
        random = np.random.default_rng(seed)
        blocks = random.integers(0, 256, (values.size // 256, 210), dtype=np.uint8)
        blocks[:, 208:] = np.full((len(blocks), 1), 4e-5, np.float16).view(np.uint8)
        data = blocks.reshape(*values.shape[:-1], -1)
    else:
        data = gguf.quants.quantize(values, kind)
    restored = gguf.quants.dequantize(data, kind)
    if kind != Type.BF16:
        restored = restored.astype(np.float16)
    return data, restored.astype(np.float32).reshape(values.shape)


def permute(values: np.ndarray, heads: int) -> np.ndarray:
    rows = values.shape[0]
    return (values.reshape(heads, 2, rows // heads // 2, *values.shape[1:])
            .swapaxes(1, 2).reshape(values.shape))


def restore(values: np.ndarray, heads: int) -> np.ndarray:
    rows = values.shape[0]
    return (values.reshape(heads, rows // heads // 2, 2, *values.shape[1:])
            .swapaxes(1, 2).reshape(values.shape))


def spelling(name: str) -> str:
    name = name.removeprefix("model.").removesuffix(".weight")
    for old, new in [
        ("layers.", "blk."), ("embed_tokens", "token_embd"), ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"), ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"), ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"), ("mlp.experts.down_proj", "ffn_down_exps"),
        ("mlp.gate", "ffn_gate_inp"), ("_proj", ""), ("lm_head", "output"),
    ]:
        name = name.replace(old, new)
    return "output_norm" if name == "norm" else name


def write(folder, model, types: dict, seed: int) -> None:
    config = model.config
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.model_type == "mixtral":
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    document = json.loads(make_tokenizer(False).to_str())["model"]
    tokens = sorted(document["vocab"], key=document["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges([" ".join(pair) for pair in document["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)

    def store(name: str, values: np.ndarray) -> np.ndarray:
        kind = types.get(name.split(".")[-1], Type.F32) if values.ndim > 1 else Type.F32
        data, kept = quantise(np.ascontiguousarray(values), kind, seed + len(name))
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind if kind != Type.F32 else None)
        return kept

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values, new = parameter.numpy(), spelling(name)
            if name.endswith("gate_up_proj"):
                half = values.shape[1] // 2
                prefix = new.replace("mlp.experts.gate_up", "ffn_")
                gate = store(prefix + "gate_exps", values[:, :half])
                up = store(prefix + "up_exps", values[:, half:])
                kept = np.concatenate([gate, up], axis=1)
            elif count := heads.get(new.split(".")[-1]):
                kept = restore(store(new, permute(values, count)), count)
            else:
                kept = store(new, values)
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(kept)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    for case, (model_type, fields, kinds) in CASES.items():
        folder = ROOT / case
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 100):
            made = make_model(model_type, fields, number).eval()
            write(folder, made, kinds, number)
            gap, distinct = write_outputs(folder, made, make_tokenizer(False).encode(PROMPT).ids)
            if gap > 0.02 and distinct > 6:
                break
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{case}: seed {number}, gap {gap:.3f}, {distinct} distinct, {size} bytes")

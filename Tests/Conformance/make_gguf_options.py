"""Writes tiny GGUF files with the options of the llama architecture, and dequantised blocks of every type.

    python Tests/Conformance/make_gguf_options.py

Needs torch, transformers, gguf and numpy. Each folder Tests/Fixtures/checkpoints/gguf-NAME gets model.gguf and
expected.json (prompt, token_ids, mean_nll, last_logits, greedy_24): transformers computes them in float32 on the weights as the import stores them
(quantised ones dequantised by the gguf package and rounded to float16). gguf/blocks.json has random blocks of each
quantised type (hex) and the SHA-256 of the float32 values that the gguf package makes of them.
"""

import hashlib
import json
import math
import pathlib

import gguf
import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[1] / "Fixtures"
PROMPT = "river: a stream of water 123 \u00e9"
BASE = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5,
            initializer_range=0.25, vocab_size=258, bos_token_id=0, eos_token_id=0)
Q = gguf.GGMLQuantizationType
LLAMA3 = dict(rope_type="llama3", rope_theta=5000.0, factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
# name: (type of matrices, experts, per-expert tensors as in old files, tied, rope, bias)
CASES = {
    "llama-f16-llama3": (Q.F16, 0, False, True, LLAMA3, False),
    "llama-bf16-bias": (Q.BF16, 0, False, False, None, True),
    "llama-q8_0": (Q.Q8_0, 0, False, True, None, False),
    "llama-q4_0-yarn": (Q.Q4_0, 0, False, False, YARN, False),
    "llama-q4_1": (Q.Q4_1, 0, False, True, None, False),
    "mixtral-q5_1": (Q.Q5_1, 4, False, False, None, False),
    "mixtral-f16-old": (Q.F16, 4, True, False, None, False),
}


def byte_alphabet() -> list[str]:
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(b) if b in shown else chr(next(hidden)) for b in range(256)]


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from (half, pair) to (pair, half), as llama.cpp's converter stores queries and keys."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def stored(weight: np.ndarray, kind: Q) -> tuple[np.ndarray, np.ndarray]:
    """The bytes for the file, and the values that the import makes of them."""
    data = gguf.quants.quantize(weight, kind)
    values = gguf.quants.dequantize(data, kind).astype(np.float32).reshape(weight.shape)
    if kind not in (Q.F32, Q.F16, Q.BF16):
        values = values.astype(np.float16).astype(np.float32)
    return data, values


def make(name: str, seed: int) -> float:
    kind, experts, old, tied, rope, bias = CASES[name]
    torch.manual_seed(seed)
    fields = dict(BASE, tie_word_embeddings=tied)
    if rope:
        fields["rope_parameters"] = rope
    if experts:
        config = transformers.MixtralConfig(
            **fields, num_local_experts=experts, num_experts_per_tok=2, sliding_window=None)
    else:
        config = transformers.LlamaConfig(**fields, attention_bias=bias)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    folder = ROOT / "checkpoints" / f"gguf-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(258)
    theta = config.rope_parameters["rope_theta"]
    writer.add_rope_freq_base(theta)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    if rope is YARN:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(16)
    if rope is LLAMA3:
        base = 1 / theta ** (torch.arange(0, 8, 2).float() / 8)
        scaled = model.model.rotary_emb.inv_freq
        writer.add_tensor("rope_freqs.weight", (base / scaled).numpy().astype(np.float32))
    tokens = ["<|end|>", *byte_alphabet(), "\u0120s"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * 257)
    writer.add_token_merges(["\u0120 s"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)

    def put(target: str, parameter: torch.Tensor, heads: int = 0) -> None:
        weight = parameter.detach().numpy().astype(np.float32)
        if weight.ndim == 1:
            data, values, used = weight, weight, Q.F32
            data = permute(data, heads) if heads else data
        else:
            used = kind
            order = permute(weight, heads) if heads else weight
            data, values = stored(order, kind)
            if heads:
                shape = values.shape
                values = values.reshape(heads, shape[0] // heads // 2, 2, shape[1]).swapaxes(
                    1, 2).reshape(shape)
        writer.add_tensor(target, data, raw_dtype=used)
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))

    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif parameter_name.endswith(".bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
        put("token_embd.weight", model.model.embed_tokens.weight)
        for i, layer in enumerate(model.model.layers):
            at, attention = f"blk.{i}.", layer.self_attn
            put(at + "attn_norm.weight", layer.input_layernorm.weight)
            for short, heads in [("q", 4), ("k", 2), ("v", 0), ("o", 0)]:
                linear = getattr(attention, short + "_proj")
                target = at + ("attn_output" if short == "o" else f"attn_{short}")
                put(target + ".weight", linear.weight, heads)
                if bias:
                    put(target + ".bias", linear.bias, heads)
            put(at + "ffn_norm.weight", layer.post_attention_layernorm.weight)
            if not experts:
                for short in ["gate", "up", "down"]:
                    put(f"{at}ffn_{short}.weight", getattr(layer.mlp, short + "_proj").weight)
                continue
            block = layer.mlp
            router = block.gate.weight
            writer.add_tensor(at + "ffn_gate_inp.weight", router.numpy())
            both = block.experts.gate_up_proj
            matrices = dict(gate=both[:, :64], up=both[:, 64:], down=block.experts.down_proj)
            for short, parameter in matrices.items():
                if old:
                    for e in range(experts):
                        put(f"{at}ffn_{short}.{e}.weight", parameter[e])
                else:
                    put(f"{at}ffn_{short}_exps.weight", parameter)
        put("output_norm.weight", model.model.norm.weight)
        if not tied:
            put("output.weight", model.lm_head.weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    ids = []
    raw = PROMPT.encode()
    at = 0
    while at < len(raw):
        merged = raw[at:at + 2] == b" s"
        ids.append(257 if merged else 1 + raw[at])
        at += 2 if merged else 1
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        losses = torch.nn.functional.cross_entropy(
            logits[:-1].double(), torch.tensor(ids[1:]), reduction="none")
        row, greedy, gap = logits[-1], [], math.inf
        for _ in range(24):
            best = torch.topk(row, 2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            greedy.append(int(best.indices[0]))
            row = model(torch.tensor([ids + greedy]), use_cache=False).logits[0, -1]
    expected = dict(prompt=PROMPT, token_ids=ids, mean_nll=float(losses.mean()),
                    last_logits=[round(float(v), 6) for v in logits[-1]], greedy_24=greedy)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    return gap if len(set(greedy)) > 4 else 0


def make_blocks() -> None:
    random = np.random.default_rng(7)
    cases = {}
    for kind in [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q4_K, Q.Q5_K, Q.Q6_K]:
        size = gguf.GGML_QUANT_SIZES[kind][1]
        blocks = random.integers(0, 256, (6, size), dtype=np.uint8)
        # Scales of either sign and of any size, zero too; none that is no number.
        scales = (random.standard_normal((6, 2)) * [[1], [30], [0.001], [0], [-2], [1e-7]]).astype(
            np.float16).view(np.uint8)
        if kind == Q.Q6_K:
            blocks[:, 208:] = scales[:, :2]
        else:
            blocks[:, :2] = scales[:, :2]
            if kind in (Q.Q4_1, Q.Q5_1, Q.Q4_K, Q.Q5_K):
                blocks[:, 2:4] = scales[:, 2:]
        values = gguf.quants.dequantize(blocks, kind).astype("<f4")
        cases[kind.name] = dict(
            blocks=blocks.tobytes().hex(), sha256=hashlib.sha256(values.tobytes()).hexdigest(),
            first=[float(v) for v in values.reshape(-1)[:4]])
    (ROOT / "gguf" / "blocks.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    (ROOT / "gguf").mkdir(parents=True, exist_ok=True)
    make_blocks()
    for case in CASES:
        for attempt in range(1, 100):
            difference = make(case, attempt)
            if difference > 0.01:
                break
        print(case, attempt, round(difference, 3))

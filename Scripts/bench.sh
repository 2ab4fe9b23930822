#!/usr/bin/env bash
# Measures every figure of the README: one JSON file each in bench-results/.
#
# Beside llama.cpp on the same weights: set LLAMA_BENCH to llama-bench, and give pairs of GGUF files
#   BENCH_F16="a-f16.gguf b-f16.gguf" BENCH_Q8="a-q8_0.gguf b-q8_0.gguf"
# The f16 files are imported as they are and as int8; each is decoded in turn with llama-bench on its own file.
set -euo pipefail
bin=$PWD/.build/release
out=$PWD/bench-results
mkdir -p "$out"
home=$(mktemp -d)/home
trap 'rm -rf "$(dirname "$home")"' EXIT
for name in math chain append load; do
    echo "measuring $name" >&2
    "$bin/blyan-bench" "$name" | tee "$out/$name.json"
done

"$bin/blyan" init --home "$home" >/dev/null
model=$home-weights
echo "measuring import" >&2
python3 - "$model" <<'PY'
import json, pathlib, struct, sys, os
# A random Mixtral of about 150 M parameters in f16: hidden 512, 8 layers, 8 experts, intermediate 1408.
d = pathlib.Path(sys.argv[1]); d.mkdir()
H, L, I, V, E, KV = 512, 8, 1408, 2048, 8, 256
shapes = {"model.embed_tokens.weight": [V, H], "model.norm.weight": [H], "lm_head.weight": [V, H]}
for l in range(L):
    p = f"model.layers.{l}."
    shapes |= {p + "input_layernorm.weight": [H], p + "post_attention_layernorm.weight": [H],
               p + "self_attn.q_proj.weight": [H, H], p + "self_attn.k_proj.weight": [KV, H],
               p + "self_attn.v_proj.weight": [KV, H], p + "self_attn.o_proj.weight": [H, H],
               p + "block_sparse_moe.gate.weight": [E, H]}
    for e in range(E):
        q = p + f"block_sparse_moe.experts.{e}."
        shapes |= {q + "w1.weight": [I, H], q + "w2.weight": [H, I], q + "w3.weight": [I, H]}
at, header = 0, {}
for name, shape in shapes.items():
    n = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
    header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + n]}; at += n
text = json.dumps(header).encode()
with open(d / "model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    while at:  # halves between about -0.06 and 0.06: the exponent's top bits are kept low
        n = min(at, 1 << 22); raw = bytearray(os.urandom(n)); raw[1::2] = bytes(b & 0xAB for b in raw[1::2]); f.write(raw); at -= n
config = dict(architectures=["MixtralForCausalLM"], model_type="mixtral", hidden_size=H, num_hidden_layers=L, intermediate_size=I,
              num_attention_heads=8, num_key_value_heads=4, vocab_size=V, num_local_experts=E, num_experts_per_tok=2, hidden_act="silu",
              max_position_embeddings=4096, rms_norm_eps=1e-5, rope_theta=1e6, tie_word_embeddings=False)
(d / "config.json").write_text(json.dumps(config))
PY
cp Examples/models/sample-moe/tokenizer.json "$model/"
cat "$model"/model.safetensors >/dev/null
"$bin/blyan" import "$model" --name random --json --home "$home" | tee "$out/import.json"
rm -rf "$model"

if [[ -n ${LLAMA_BENCH:-} && -n ${BENCH_F16:-} ]]; then
    read -ra f16 <<<"$BENCH_F16"
    read -ra q8 <<<"${BENCH_Q8:-}"
    for i in "${!f16[@]}"; do
        name=$(basename "${f16[i]}" .gguf)
        "$bin/blyan" import "${f16[i]}" --name "$name" --home "$home"
        "$bin/blyan" import "${f16[i]}" --name "$name-int8" --quantize int8 --home "$home"
        for threads in 1 2; do
            echo "measuring decode of $name, $threads threads" >&2
            "$bin/blyan-bench" decode --home "$home" --model "$name" --gguf "${f16[i]}" --threads "$threads" |
                tee "$out/decode-$name-$threads.json"
            [[ -n ${q8[i]:-} ]] || continue
            "$bin/blyan-bench" decode --home "$home" --model "$name-int8" --gguf "${q8[i]}" --threads "$threads" |
                tee "$out/decode-$name-int8-$threads.json"
        done
    done
fi

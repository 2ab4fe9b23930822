#!/usr/bin/env bash
# Measures every figure of the README: one JSON file each in bench-results/. Nothing else should run meanwhile.
#
# Beside PyTorch and safetensors: where `make conformance` has made .venv-conformance.
# Beside OpenBLAS and oneDNN: where Debian's libopenblas0-pthread and libdnnl2 (libdnnl3 in later releases) are installed.
# Beside llama.cpp: set LLAMA_BENCH to its llama-bench, with llama-quantize beside it.
set -euo pipefail
bin=$PWD/.build/release
out=$PWD/bench-results
mkdir -p "$out"
home=$(mktemp -d)/home
trap 'rm -rf "$(dirname "$home")"' EXIT
for name in math gemm chain append load ledger; do
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
for threads in 1 2; do
    echo "measuring usage, $threads threads" >&2
    "$bin/blyan-bench" usage --home "$home" --threads "$threads" | tee "$out/usage-$threads.json"
done

python=$PWD/.venv-conformance/bin/python
if [[ -x $python ]]; then
    echo "measuring torch.load and safetensors" >&2
    "$python" Scripts/bench_peers.py load "$home-peers" | tee "$out/load-peers.json"
    rm -rf "$home-peers"
fi
"$bin/blyan" import Examples/models/sample-moe --name sample --home "$home" >/dev/null
beside=()
if [[ -x $python ]]; then beside=(--python "$python"); fi
for threads in 1 2; do
    echo "measuring a step of training, $threads threads" >&2
    "$bin/blyan-bench" train --home "$home" --model sample --threads "$threads" "${beside[@]}" | tee "$out/train-$threads.json"
    echo "measuring a chat beside a miner, $threads threads" >&2
    "$bin/blyan-bench" background --home "$home" --model sample --threads "$threads" | tee "$out/background-$threads.json"
done
if [[ -x $python && -n ${LLAMA_BENCH:-} ]]; then
    Scripts/fetch-smollm2.sh >/dev/null
    "$python" Scripts/bench_peers.py models "$home-models"
    for name in smollm2 mixtral; do
        f16=$home-models/$name-f16.gguf q8=$home-models/$name-q8_0.gguf
        "$bin/blyan" import "$f16" --name "$name" --home "$home"
        "$bin/blyan" import "$f16" --name "$name-int8" --quantize int8 --home "$home"
        for threads in 1 2; do
            for pair in "$name $f16 f16" "$name-int8 $q8 int8"; do
                read -r model gguf kind <<<"$pair"
                echo "measuring decode of $name, $kind, $threads threads" >&2
                "$bin/blyan-bench" decode --home "$home" --model "$model" --gguf "$gguf" --threads "$threads" --rounds "${ROUNDS:-5}" |
                    tee "$out/decode-$name-$kind-$threads.json"
            done
        done
        echo "measuring the first token of $name" >&2
        "$python" Scripts/bench_peers.py first-token "$bin/blyan" "$home" "$name-int8" "$q8" |
            tee "$out/first-token-$name.json"
    done
fi

# Gates, in a home whose manifest lists the immune one too, on the fast path: about an hour.
gates=$home-gates
"$bin/blyan" init --home "$gates" >/dev/null
"$bin/blyan" import Examples/models/sample-moe --name sample --home "$gates" >/dev/null
sed -i 's/^  - quick-perplexity$/  - immune\n&/' "$gates/node.yaml"
sed -i 's/^config:$/&\n  always_reference: false/' "$gates/plugins/proof-of-learning.yaml"
"$bin/blyan-bench" climb | tee "$out/climb.json"
for name in similarity canary stream; do
    echo "measuring gates: $name" >&2
    "$bin/blyan-bench" "$name" --home "$gates" | tee "$out/$name.json"
done

"""What Blyan is measured beside, for bench.sh; prints JSON, one object a call.

    bench_peers.py models FOLDER            random-mixtral and smollm2 as GGUF, F16 and Q8_0, in FOLDER
    bench_peers.py load FOLDER              torch.load and safetensors on one f16 tensor of 512 MiB
    bench_peers.py first-token BLYAN HOME MODEL GGUF
                                            process start to first token, cold and warm, beside llama-bench
    bench_peers.py train CHECKPOINT THREADS BATCH SEQUENCE STEPS PART
                                            milliseconds of one optimiser step of one expert in PyTorch

Needs numpy and gguf for `models`, torch and safetensors for `load`, torch and transformers for `train`. LLAMA_BENCH names llama.cpp's llama-bench;
llama-quantize is taken from the folder it lies in.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIXTRAL = dict(hidden=512, layers=8, intermediate=1408, heads=8, kv_heads=4, experts=8, used=2, head=64)


def models(folder):
    """A random Mixtral of about 150 M parameters, and SmolLM2-135M-Instruct as `make demo-smollm2` fetches it."""
    folder.mkdir(parents=True, exist_ok=True)
    quantize = pathlib.Path(os.environ["LLAMA_BENCH"]).with_name("llama-quantize")
    mixtral = folder / "mixtral-f16.gguf"
    write_mixtral(mixtral)
    source = ROOT / "downloads/SmolLM2-135M-Instruct.gguf"
    for given, made, kind in [
        (mixtral, "mixtral-q8_0", "q8_0"), (source, "smollm2-f16", "f16"),
        (folder / "smollm2-f16.gguf", "smollm2-q8_0", "q8_0"),
    ]:
        # --pure: all of it in one type, as it is in Blyan.
        subprocess.run([quantize, "--allow-requantize", "--pure", given, folder / f"{made}.gguf", kind],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(json.dumps({f.name: f.stat().st_size for f in sorted(folder.glob("*.gguf"))}))


def write_mixtral(path):
    import gguf
    import numpy as np
    m = MIXTRAL
    model = json.loads((ROOT / "Examples/models/sample-moe/tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(m["layers"])
    writer.add_context_length(4096)
    writer.add_embedding_length(m["hidden"])
    writer.add_feed_forward_length(m["intermediate"])
    writer.add_head_count(m["heads"])
    writer.add_head_count_kv(m["kv_heads"])
    writer.add_rope_dimension_count(m["head"])
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_expert_count(m["experts"])
    writer.add_expert_used_count(m["used"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    random = np.random.default_rng(1234)

    def add(name, *shape):
        if len(shape) == 1:
            values = np.ones(shape, np.float32)
        else:
            values = (random.standard_normal(shape, np.float32) * shape[-1] ** -0.5).astype(np.float16)
        writer.add_tensor(f"{name}.weight", values)

    hidden, kv, inner, experts = m["hidden"], m["kv_heads"] * m["head"], m["intermediate"], m["experts"]
    add("token_embd", len(tokens), hidden)
    for layer in range(m["layers"]):
        at = f"blk.{layer}."
        add(at + "attn_norm", hidden)
        add(at + "ffn_norm", hidden)
        for name, rows in [("q", hidden), ("k", kv), ("v", kv), ("output", hidden)]:
            add(at + "attn_" + name, rows, hidden)
        add(at + "ffn_gate_inp", experts, hidden)
        add(at + "ffn_gate_exps", experts, inner, hidden)
        add(at + "ffn_up_exps", experts, inner, hidden)
        add(at + "ffn_down_exps", experts, hidden, inner)
    add("output_norm", hidden)
    add("output", len(tokens), hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(folder):
    """Milliseconds to the first element and to the sum of all bytes, each in a process of its own, warm."""
    import safetensors.torch
    import torch
    folder.mkdir(parents=True, exist_ok=True)
    tensor = torch.randn(32768, 8192, generator=torch.Generator().manual_seed(1)).to(torch.float16)
    torch.save({"gate": tensor}, folder / "gate.pt")
    safetensors.torch.save_file({"gate": tensor}, folder / "gate.safetensors")
    del tensor
    program = """
import sys, time, json, torch, safetensors.torch
torch.set_num_threads(1)
path, way = sys.argv[1:]
start = time.perf_counter()
if way == "safetensors": found = safetensors.torch.load_file(path)["gate"]
else: found = torch.load(path, weights_only=True, mmap=way == "torch_mmap")["gate"]
first = found[0, 0].item()
ready = time.perf_counter() - start
found.view(torch.int64).sum().item()
print(json.dumps([ready * 1000, (time.perf_counter() - start) * 1000]))
"""
    out = {}
    for way, file in [("torch_load", "gate.pt"), ("torch_mmap", "gate.pt"), ("safetensors", "gate.safetensors")]:
        runs = []
        for _ in range(5):
            run = subprocess.run([sys.executable, "-c", program, folder / file, way], check=True, capture_output=True)
            runs.append(json.loads(run.stdout))
        out[f"{way}_first_ms"] = round(statistics.median(r[0] for r in runs), 3)
        out[f"{way}_read_ms"] = round(statistics.median(r[1] for r in runs), 3)
    print(json.dumps(out, indent=1))


def train(checkpoint, threads, batch, sequence, steps, part):
    """AdamW on one expert alone: its weights are leaves of their own, put into the layer's fused parameters."""
    import re
    import torch
    import transformers
    threads, batch, sequence, steps = map(int, (threads, batch, sequence, steps))
    layer, expert = map(int, re.fullmatch(r"layer(\d+)\.expert(\d+)", part).groups())
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    experts = model.model.layers[layer].mlp.experts
    fused = {name: getattr(experts, name).data for name in ("gate_up_proj", "down_proj")}
    own = {name: value[expert].clone().requires_grad_(True) for name, value in fused.items()}
    for name in fused:
        delattr(experts, name)
    optimiser = torch.optim.AdamW(own.values(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    times = []
    for _ in range(steps + 2):
        tokens = torch.randint(3, model.config.vocab_size, (batch, sequence + 1), generator=generator)
        start = time.perf_counter()
        for name, value in fused.items():
            parts = [value[:expert], own[name][None], value[expert + 1:]]
            setattr(experts, name, torch.cat(parts))
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own.values(), 1.0)
        optimiser.step()
        times.append(1000 * (time.perf_counter() - start))
    print(json.dumps({"step_ms": statistics.median(times[2:])}))


def evict(*paths):
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def first_token(blyan, home, model, gguf):
    """Whole processes: start, map, (verify,) one token. llama.cpp verifies nothing."""
    prompt = "hello"
    payloads = [p for p in pathlib.Path(home, "payloads").rglob("*") if p.is_file()]
    ours = [blyan, "chat", "--raw", "--max-tokens", "1", "--temperature", "0", "--home", home, "--model", model, prompt]
    theirs = [os.environ["LLAMA_BENCH"], "-m", gguf, "-p", "1", "-n", "0", "-r", "1", "--no-warmup", "-t", "2"]
    samples = {}
    for turn in range(6):
        for name, command, files in [("blyan", ours, payloads), ("llama", theirs, [gguf])]:
            for state in ["cold", "warm"]:
                if state == "cold":
                    evict(*files)
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                if turn > 0:
                    samples.setdefault(f"{name}_first_token_{state}_ms", []).append((time.perf_counter() - start) * 1000)
    print(json.dumps({name: round(statistics.median(values), 1) for name, values in samples.items()}, indent=1))



if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "models":
        models(pathlib.Path(arguments[0]))
    elif what == "load":
        load(pathlib.Path(arguments[0]))
    elif what == "first-token":
        first_token(*arguments)
    elif what == "train":
        train(*arguments)
    else:
        sys.exit(__doc__)

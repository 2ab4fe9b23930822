"""Writes what PyTorch's autograd makes of the tiny checkpoints, and fifty steps of its AdamW.

    python Tests/Conformance/make_gradients.py [NAME...]

Needs torch, transformers, safetensors. Tests/Fixtures/gradients/NAME.safetensors has the tokens of a batch and the
derivative of the mean loss by every weight, under the names that parts have here; of a large one every 13th number.
`steps.safetensors` has batches, losses and the last weights of one expert of the sample model.
"""

import json
import math
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "Tests" / "Fixtures" / "checkpoints"
OUT = ROOT / "Tests" / "Fixtures" / "gradients"
NAMES = [
    "llama-tiny", "mixtral-tiny", "llama-bias-untied", "llama-yarn", "mistral-windowed", "mixtral-windowed", "olmoe-tiny",
    "olmoe-normalised-clipped", "qwen2-tiny", "qwen2-moe-mlp-only", "qwen2-moe-windowed", "qwen3-moe-tiny", "qwen3-tiny",
]
LARGE, STRIDE = 8192, 13


def load(path):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    return model.train(False)


def loss_of(model, tokens):
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def named(config, name):
    """(part, tensor, transform) for each piece of a parameter's derivative."""
    words = name.split(".")
    if name == "model.embed_tokens.weight":
        return [("embedding", "weight", lambda g: g)]
    if name == "model.norm.weight":
        return [("norm", "weight", lambda g: g)]
    if name == "lm_head.weight":
        return [("head", "weight", lambda g: g)]
    layer = int(words[2])
    rest = ".".join(words[3:])
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 0
    if rest == "input_layernorm.weight":
        return [(f"layer{layer}.attention", "norm", lambda g: g)]
    if rest == "post_attention_layernorm.weight":
        return [(f"layer{layer}.*", "norm", lambda g: g)]
    if words[3] == "self_attn":
        tensor = words[4].replace("_proj", "") + ("_bias" if words[5] == "bias" else "")
        return [(f"layer{layer}.attention", tensor, lambda g: g)]
    if rest.endswith("shared_expert_gate.weight"):
        return [(f"layer{layer}.shared", "shared_gate", lambda g: g)]
    if ".shared_expert." in rest:
        return [(f"layer{layer}.shared", words[5].replace("_proj", ""), lambda g: g)]
    if rest.endswith("experts.gate_up_proj"):
        pieces = []
        for e in range(experts):
            half = lambda g: g.shape[1] // 2
            pieces.append((f"layer{layer}.expert{e}", "gate", lambda g, e=e: g[e, : half(g)]))
            pieces.append((f"layer{layer}.expert{e}", "up", lambda g, e=e: g[e, half(g):]))
        return pieces
    if rest.endswith("experts.down_proj"):
        return [(f"layer{layer}.expert{e}", "down", lambda g, e=e: g[e]) for e in range(experts)]
    if rest in ("mlp.gate.weight", "block_sparse_moe.gate.weight"):
        return [(f"layer{layer}.router", "weight", lambda g: g)]
    if words[3] == "mlp":
        return [(f"layer{layer}.expert0", words[4].replace("_proj", ""), lambda g: g)]
    raise SystemExit(f"no name for {name}")


def gradients(name):
    model = load(CHECKPOINTS / name)
    torch.manual_seed(7)
    tokens = torch.randint(3, model.config.vocab_size, (3, 41))
    loss = loss_of(model, tokens)
    loss.backward()
    tensors = {"tokens": tokens.to(torch.int32)}
    norms = {}
    for parameter, value in model.named_parameters():
        gradient = torch.zeros_like(value) if value.grad is None else value.grad
        for part, tensor, piece in named(model.config, parameter):
            flat = piece(gradient).flatten()
            norms[f"{part}/{tensor}"] = float(flat.double().norm())
            sampled = flat[::STRIDE] if flat.numel() > LARGE else flat
            tensors[f"{part}/{tensor}"] = sampled.contiguous().clone()
    save_file(tensors, OUT / f"{name}.safetensors",
              metadata={"loss": repr(loss.item()), "norms": json.dumps(norms), "stride": str(STRIDE), "large": str(LARGE)})
    print(name, loss.item(), len(norms), "derivatives")


def steps():
    path = ROOT / "Examples" / "models" / "sample-moe"
    model = load(path)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    text = (path / "validation.txt").read_text()[:60000]
    stream = torch.tensor(tokenizer(text)["input_ids"])
    torch.manual_seed(11)
    options = dict(steps=50, rate=2e-3, warmup=5, floor=0.1, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.01, clip=1.0)
    batches, losses = [], []
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    # One expert is a slice of a fused parameter: its derivative alone is used.
    layer, expert = 2, 5
    mlp = model.model.layers[layer].mlp
    fused = [mlp.experts.gate_up_proj, mlp.experts.down_proj]
    own = [f.data[expert].clone().requires_grad_(True) for f in fused]
    optimiser = torch.optim.AdamW(own, lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    for f in fused:
        f.requires_grad_(True)
    for step in range(options["steps"]):
        at = torch.randint(len(stream) - 65, (4,))
        tokens = torch.stack([stream[i:i + 65] for i in at])
        for f, o in zip(fused, own):
            f.data[expert] = o.data
            f.grad = None
        loss = loss_of(model, tokens)
        loss.backward()
        for f, o in zip(fused, own):
            o.grad = f.grad[expert].clone()
        torch.nn.utils.clip_grad_norm_(own, options["clip"])
        progress = (step - options["warmup"]) / max(1, options["steps"] - options["warmup"])
        factor = ((step + 1) / options["warmup"] if step < options["warmup"] else
                  options["floor"] + (1 - options["floor"]) * 0.5 * (1 + math.cos(math.pi * min(1, progress))))
        for group in optimiser.param_groups:
            group["lr"] = options["rate"] * factor
        optimiser.step()
        batches.append(tokens.to(torch.int32))
        losses.append(loss.item())
    half = own[0].shape[0] // 2
    save_file({"tokens": torch.stack(batches), "losses": torch.tensor(losses), "gate": own[0].data[:half].contiguous().clone(),
               "up": own[0].data[half:].contiguous().clone(), "down": own[1].data.clone()},
              OUT / "steps.safetensors", metadata={"options": json.dumps(options), "part": f"layer{layer}.expert{expert}"})
    print("steps", losses[0], losses[-1])


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or NAMES + ["steps"]
    for name in wanted:
        steps() if name == "steps" else gradients(name)

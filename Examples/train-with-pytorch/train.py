"""Trains one expert of a Blyan home with PyTorch, submits it, and prints the verdict.

usage: train.py --text FILE [--expert layer3.expert6] [--home DIR] [--blyan PROGRAM] [--format safetensors|pickle] ...

Everything comes from the node: the model's configuration, its current parts, its tokenizer. Exit status 2: judged and
not accepted.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from mixtral import Model


def arguments():
    parser = argparse.ArgumentParser(description="Train one expert with PyTorch, submit it, and see the verdict.")
    parser.add_argument("--text", required=True, help="the text to train on, documents between empty lines")
    parser.add_argument("--expert", default="layer3.expert6", help="the part to train")
    parser.add_argument("--home", default="~/.blyan", help="the home's folder")
    parser.add_argument("--blyan", default="blyan", help="the program")
    parser.add_argument("--wallet", default="node", help="the wallet that signs and is paid")
    parser.add_argument("--format", choices=["safetensors", "pickle"], default="safetensors")
    parser.add_argument("--output", help="keep the trained expert in this file")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step, and as many of the rehearsal")
    parser.add_argument("--sequence", type=int, default=128, help="tokens a sequence")
    parser.add_argument("--rate", type=float, default=5e-4, help="the highest learning rate")
    parser.add_argument("--rehearse", type=int, default=32768,
                        help="tokens that the model makes first, to keep what it says there; 0 = none")
    parser.add_argument("--keep", type=float, default=10, help="how much that keeping weighs")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


class Node:
    """The program on one home."""

    def __init__(self, program, home):
        self.program, self.home = program, str(Path(home).expanduser())

    def run(self, *words, text=None, statuses=(0,)):
        done = subprocess.run([self.program, *words, "--home", self.home], input=text, stdout=subprocess.PIPE, text=True)
        if done.returncode not in statuses:
            raise SystemExit(f"{self.program} {' '.join(words)} ended with status {done.returncode}")
        return done.stdout

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options))


def load(file):
    """Tensors of a part. `torch.load` builds tensors and nothing else, since weights_only is its default."""
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file)


def save(tensors, file, block):
    """Writes the part under the names that it was exported with; safetensors can say which block it was trained from."""
    if file.suffix == ".safetensors":
        save_file(tensors, file, metadata={"blyan_parent": block})
    else:
        torch.save(tensors, file)


def documents(text):
    """Paragraphs, of which every twentieth is held back."""
    found = [part.strip("\n") for part in text.split("\n\n") if part.strip()]
    return [d for i, d in enumerate(found) if i % 20 != 19], found[19::20]


def tokens(node, texts, end):
    """Documents as one stream of tokens, each behind the token that ends a text: so it is judged, too."""
    spelled, number = end
    ids = node.json("tokenize", "--file", "-", "--special", text="".join(spelled + text for text in texts))
    assert ids.count(number) == len(texts), "the text spells a control token"
    return torch.tensor(ids)


def windows(stream, count, length, random):
    starts = torch.randint(len(stream) - length, (count,), generator=random)
    return torch.stack([stream[start:start + length + 1] for start in starts.tolist()])


@torch.no_grad()
def rehearsal(model, count, first, random, length=256):
    """Texts that the model makes of itself at temperature 1: a stand-in for what it was trained on (pseudo-rehearsal,
    A. Robins, Connection Science 7, 1995)."""
    made, cache = torch.full((math.ceil(count / length), 1), first), {}
    while made.shape[1] < length:
        shares = torch.softmax(model.logits(made[:, -1:], cache)[:, -1], -1)
        made = torch.cat([made, torch.multinomial(shares, 1, generator=random)], 1)
    return made.flatten()


@torch.no_grad()
def perplexity(model, stream, length=256):
    rows = stream[:len(stream) // length * length].view(-1, length)
    return torch.cat([model.losses(part) for part in rows.split(16)]).mean().exp().item()


def moved(model, old, batch):
    """How far the model has moved from what it said of a batch, in nats a token (Kullback-Leibler divergence; distillation
    as in Z. Li and D. Hoiem, Learning without Forgetting, 2016)."""
    with torch.no_grad():
        before = F.log_softmax(old.logits(batch[:, :-1]), -1).flatten(0, 1)
    after = F.log_softmax(model.logits(batch[:, :-1]), -1).flatten(0, 1)
    return F.kl_div(after, before, log_target=True, reduction="batchmean")


def train(model, expert, text, rehearsed, options, random):
    """AdamW without decay, the rate rising over the first steps and falling along a cosine, gradients clipped to norm 1."""
    old = Model(model.config, model.parts | {expert: {name: t.clone() for name, t in model.parts[expert].items()}})
    weights = [tensor.requires_grad_() for tensor in model.parts[expert].values()]
    optimizer = torch.optim.AdamW(weights, lr=options.rate, betas=(0.9, 0.95), weight_decay=0)
    warmup = max(1, min(20, options.steps // 5))
    for step in range(options.steps):
        progress = max(0, step - warmup) / max(1, options.steps - warmup)
        share = min(1, (step + 1) / warmup) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * share
        loss = model.losses(windows(text, options.batch, options.sequence, random)).mean()
        total = loss
        if rehearsed is not None:
            own = windows(rehearsed, options.batch, options.sequence, random)
            total = loss + options.keep * moved(model, old, own)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % 20 == 0:
            print(f"step {step + 1} of {options.steps}, loss {loss.item():.3f}", flush=True)
    for tensor in weights:
        tensor.requires_grad_(False)


def compare(model, node, sample):
    """That this forward pass is the node's: a training on other arithmetic would prove nothing."""
    found = node.json("eval", "--prompt-file", "-", text=sample)
    own = model.losses(torch.tensor([found["token_ids"]])).mean().item()
    print(f"loss of a sample: {found['mean_nll']:.5f} by the node, {own:.5f} by PyTorch", flush=True)
    if abs(own - found["mean_nll"]) > 1e-3 * found["mean_nll"]:
        raise SystemExit("this example does not compute what the node computes")


def show(verdict):
    """The verdict as a person reads it; what it rests on is in `verdict["gates"]`."""
    print(f"verdict: {verdict['verdict']} {verdict['reason']}".rstrip())
    for gate in verdict["gates"]:
        print(f"  {gate['name']}: {gate['outcome']} {gate['reason']}".rstrip())
        evidence = gate["evidence"]
        if "improvement_ppb" in evidence and "lower_ppb" in evidence:
            print(f"    improvement {evidence['improvement_ppb'] / 1e7:+.2f} %, at least {evidence['lower_ppb'] / 1e7:+.2f} %,"
                  f" more than {evidence['delta_ppb'] / 1e7:+.2f} % is asked for")
        for name, slice in sorted(evidence.get("slices", {}).items()):
            print(f"    {name}: {slice['improvement_ppb'] / 1e7:+.2f} %, at least {slice['lower_ppb'] / 1e7:+.2f} %,"
                  f" {slice['documents']} documents")
    print(f"receipt: {verdict['verdict_block']}")
    if verdict["version_block"]:
        print(f"version: {verdict['version_block']}")


def main():
    options = arguments()
    suffix = {"safetensors": ".safetensors", "pickle": ".pt"}[options.format]
    if options.output and not options.output.endswith(suffix):
        raise SystemExit(f"{options.output} does not end in {suffix}, by which the node knows the format")
    node = Node(options.blyan, options.home)
    torch.manual_seed(options.seed)
    random = torch.Generator().manual_seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        meta = folder / "meta.json"
        node.run("block", "payload", node.json("model", "list")[0]["model"], "--output", str(meta))
        meta = json.loads(meta.read_text())
        parts, blocks = {}, {}
        for name in [entry["name"] for entry in node.json("expert", "list")]:
            file = folder / (name + suffix)
            blocks[name] = node.json("expert", "export", name, "--format", options.format, "--output", str(file))["block"]
            parts[name] = load(file)
        if options.expert not in parts:
            raise SystemExit(f"the model has no part {options.expert}")
        model = Model(meta["config"], parts)

        training, held_back = documents(Path(options.text).read_text())
        compare(model, node, training[0])
        number = meta["tokenizer"]["endTokens"][0]
        end = next((added["text"], number) for added in meta["tokenizer"]["added"] if added["id"] == number)
        training, held_back = tokens(node, training, end), tokens(node, held_back, end)
        rehearsed = rehearsal(model, options.rehearse, number, random) if options.rehearse else None

        before = perplexity(model, held_back)
        train(model, options.expert, training, rehearsed, options, random)
        print(f"perplexity of text that was held back: {before:.2f} before, {perplexity(model, held_back):.2f} after")

        file = Path(options.output) if options.output else folder / ("trained" + suffix)
        save(parts[options.expert], file, blocks[options.expert])
        # Named, since a pickle cannot tell: if somebody was faster, the node says so instead of comparing with another parent.
        verdict = node.json("expert", "submit", options.expert, str(file), "--parent", blocks[options.expert],
                            "--wallet", options.wallet, statuses=(0, 2))
    show(verdict)
    return 0 if verdict["verdict"] == "accept" else 2


if __name__ == "__main__":
    sys.exit(main())

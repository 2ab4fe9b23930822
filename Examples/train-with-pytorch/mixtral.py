"""The forward pass of a Mixtral, Mistral or Llama in plain PyTorch, on the parts that `blyan expert export` writes."""

import torch
import torch.nn.functional as F


def check(config):
    """Refuses a model whose arithmetic is not that of this file."""
    wrong = [
        name for name, holds in {
            "queryKeyNorm": config["queryKeyNorm"] == "none",
            "rope.scaling": config["rope"]["scaling"] == {"none": {}},
            "sharedIntermediateSize": all(not layer["sharedIntermediateSize"] for layer in config["layers"]),
        }.items() if not holds
    ]
    if wrong:
        raise SystemExit(f"this example computes no model of architecture {config['architecture']} with {', '.join(wrong)}")


class Model:
    """`parts` has the tensors of each part by name; those that are trained require gradients, all others are frozen."""

    def __init__(self, config, parts):
        check(config)
        self.config, self.parts = config, parts
        half = config["headSize"] // 2
        self.frequencies = config["rope"]["theta"] ** (-torch.arange(half, dtype=torch.float32) / half)

    def logits(self, tokens, cache=None):
        """Logits [batch, length, vocabulary] of tokens [batch, length].

        `cache` is a dictionary that keeps keys and values from call to call, for generating a token at a time.
        """
        x = self.parts["embedding"]["weight"][tokens]
        start = cache.get("length", 0) if cache is not None else 0
        for i in range(len(self.config["layers"])):
            x = x + self.attention(i, x, start, cache)
            x = x + self.feed_forward(i, x)
        if cache is not None:
            cache["length"] = start + tokens.shape[1]
        x = self.norm(x, self.parts["norm"]["weight"])
        head = "embedding" if self.config["tiedEmbeddings"] else "head"
        return x @ self.parts[head]["weight"].T

    def losses(self, tokens):
        """The negative log likelihood of every token but the first, one after the other."""
        logits = self.logits(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")

    def norm(self, x, weight):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.config["normEpsilon"])
        return x * scale * weight.flatten()

    def rotate(self, x, start):
        """Rotary positions; the two halves of a head's numbers are the pairs' two coordinates."""
        angles = torch.outer(torch.arange(start, start + x.shape[2], dtype=torch.float32), self.frequencies)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, i, x, start, cache):
        part, config = self.parts[f"layer{i}.attention"], self.config
        batch, length, _ = x.shape
        x = self.norm(x, part["norm"])

        def heads(name, count):
            y = x @ part[name].T
            if f"{name}_bias" in part:
                y = y + part[f"{name}_bias"].flatten()
            return y.view(batch, length, count, config["headSize"]).transpose(1, 2)

        q = self.rotate(heads("q", config["headCount"]), start)
        k = self.rotate(heads("k", config["keyValueHeadCount"]), start)
        v = heads("v", config["keyValueHeadCount"])
        if cache is not None:
            old = cache.get(i)
            k, v = (k, v) if old is None else (torch.cat([old[0], k], 2), torch.cat([old[1], v], 2))
            cache[i] = (k, v)
        repeat = config["headCount"] // config["keyValueHeadCount"]
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        y = y.transpose(1, 2).reshape(batch, length, -1) @ part["o"].T
        return y + part["o_bias"].flatten() if "o_bias" in part else y

    def feed_forward(self, i, x):
        count = self.config["layers"][i]["expertCount"]
        shape, x = x.shape, x.flatten(0, 1)
        if count == 0:
            part = self.parts[f"layer{i}.expert0"]
            return self.expert(part, self.norm(x, part["norm"])).view(shape)
        router = self.parts[f"layer{i}.router"]
        x = self.norm(x, router["norm"])
        shares, chosen = F.softmax(x @ router["weight"].T, -1).topk(self.config["expertsPerToken"], -1)
        if self.config["normalisesExpertWeights"]:
            shares = shares / shares.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for e in range(count):
            rows, place = torch.where(chosen == e)
            if len(rows):
                y = self.expert(self.parts[f"layer{i}.expert{e}"], x[rows])
                out = out.index_add(0, rows, y * shares[rows, place, None])
        return out.view(shape)

    @staticmethod
    def expert(part, x):
        return (F.silu(x @ part["gate"].T) * (x @ part["up"].T)) @ part["down"].T

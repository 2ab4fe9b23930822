"""Writes safetensors fixtures again as pickles, as older versions of transformers saved them.

    python Tests/Conformance/make_pickled_checkpoints.py

Needs torch and safetensors. Each folder of Tests/Fixtures/checkpoints gets the files of its source but the weights.
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[1] / "Fixtures" / "checkpoints"


def begin(name: str, source: str) -> tuple[pathlib.Path, pathlib.Path]:
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in ["config.json", "tokenizer.json", "expected.json"]:
        shutil.copy(ROOT / source / file, folder)
    return folder, ROOT / source


def one_file() -> None:
    """Fused experts, in one zip file."""
    folder, source = begin("pickled-mixtral-fused", "mixtral-fused")
    torch.save(load_file(source / "model.safetensors"), folder / "pytorch_model.bin")


def several_files() -> None:
    """Both containers; transposed matrices, which lie nowhere in the file row after row; an inert tensor."""
    folder, source = begin("pickled-qwen3-sharded", "qwen3-sharded")
    index = json.loads((source / "model.safetensors.index.json").read_text())
    weight_map = {}
    shards = sorted(set(index["weight_map"].values()))
    for number, shard in enumerate(shards):
        tensors = load_file(source / shard)
        if number == 1:
            tensors = {
                name: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor
                for name, tensor in tensors.items()
            }
        if number == 2:
            tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        name = f"pytorch_model-{number + 1:05}-of-{len(shards):05}.bin"
        torch.save(tensors, folder / name, _use_new_zipfile_serialization=number > 0)
        weight_map.update({tensor: name for tensor in tensors})
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": index["metadata"], "weight_map": weight_map}, indent=1) + "\n")


one_file()
several_files()

"""Writes pickles as PyTorch and NumPy write them, and what is in them: expected.json.

usage: make_pickles.py [FOLDER]

The committed ones were made with FOLDER = Tests/Fixtures/pickles. PyTorch puts addresses of its process into some
of them, so that no two runs give the same bytes; without FOLDER they are made in a temporary one, read through
the plugin, and thrown away.
"""

import io
import json
import pickle
import sys
import tempfile
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from pickle_roundtrip import Checks, expected, flat
from plugin import Format

warnings.filterwarnings("ignore")


def main(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    expert = OrderedDict(gate=torch.randn(12, 8), up=torch.randn(12, 8), down=torch.randn(8, 12))
    half = OrderedDict((k, v.half()) for k, v in expert.items())
    base = torch.arange(48.).reshape(6, 8)
    views = {"whole": base, "transposed": base.t(), "row": base[2], "column": base[:, 3], "part": base[1:4, 2:6],
             "cube": base.reshape(2, 3, 8).permute(2, 0, 1), "expanded": torch.ones(1, 3).expand(4, 3)}
    types = {str(d): torch.arange(-6, 6).reshape(3, 4).to(d) for d in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32,
        torch.int64, torch.bool)}
    checkpoint = {"epoch": 3, "lr": 1e-3, "name": "x", "none": None, "flag": True, "big": 1 << 80,
                  "model": torch.nn.Linear(3, 2).state_dict(), "size": torch.Size([1, 2]), "dtype": torch.float16,
                  "list": [torch.ones(2), {"deep": torch.nn.Parameter(torch.eye(2, dtype=torch.bfloat16))}],
                  "zero": torch.tensor(3.5), "empty": torch.empty(0, 4), "bytes": b"abc"}
    states = {"expert": expert, "half": half, "views": views, "types": types, "checkpoint": checkpoint,
              "alone": torch.arange(6.).reshape(2, 3)}
    array = np.arange(48, dtype="f4").reshape(6, 8)
    arrays = {"plain": array, "fortran": np.asfortranarray(array), "half": array.astype("f2"),
              "double": array.astype("f8"), "bytes": array.astype("i1"), "long": array.astype("i8"),
              "cube": array.reshape(2, 3, 8).transpose(2, 0, 1), "scalar": np.float32(3), "zero": np.array(2.5)}
    files = {}
    for name, state in states.items():
        for suffix, zipped in (("zip.pt", True), ("legacy.pt", False)):
            buffer = io.BytesIO()
            torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
            files[f"{name}.{suffix}"] = state, buffer.getvalue()
        for protocol in (2, 4):
            files[f"{name}.{protocol}.pkl"] = state, pickle.dumps(state, protocol)
    for protocol in range(2, 6):
        files[f"arrays.{protocol}.pkl"] = arrays, pickle.dumps(arrays, protocol)
        files[f"array-alone.{protocol}.pkl"] = array, pickle.dumps(array, protocol)
    index = {}
    for name, (state, data) in files.items():
        (folder / name).write_bytes(data)
        index[name] = [{"name": key, "rows": expected(value).shape[0], "columns": expected(value).shape[1],
                        "values": expected(value).ravel().tolist()} for key, value in flat(state)]
    (folder / "expected.json").write_text(json.dumps(index, separators=(",", ":")) + "\n")
    return {name: (state, folder / name) for name, (state, _) in files.items()}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        checks = Checks(Format(".build/release/libPickleLegacy.so"))
        with tempfile.TemporaryDirectory() as folder:
            for name, (state, path) in main(folder).items():
                checks.read(name, state, path.read_bytes())
        print(f"{checks.count} tensors of fresh fixtures read")

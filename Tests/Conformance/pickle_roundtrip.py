"""Round trips between the pickle-legacy plugin and PyTorch and NumPy, both ways.

usage: pickle_roundtrip.py [LIBRARY]        (default: .build/release/libPickleLegacy.so)
"""

import io
import pickle
import sys
import warnings
from collections import OrderedDict

import numpy as np
import torch

from plugin import BF16, F16, F32, I8, Format, Refusal

warnings.filterwarnings("ignore")


def flat(value, name=""):
    """Names as FORMAT.md gives them."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        if np.prod(value.shape):
            yield name or "tensor", value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from flat(item, f"{name}.{i}" if name else str(i))


def expected(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().to(torch.float32).numpy()
    value = np.asarray(value).astype(np.float32)
    return value.reshape(1, -1) if value.ndim < 2 else value.reshape(value.shape[0], -1)


def states():
    torch.manual_seed(1)
    base = torch.randn(6, 8)
    linear = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7))
    yield "dtypes", OrderedDict((str(d), torch.arange(-6, 6).reshape(3, 4).to(d)) for d in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32,
        torch.int64, torch.bool))
    yield "views", {"t": base.t(), "row": base[2], "column": base[:, 3], "part": base[1:4, 2:6], "all": base,
                    "step": base[::2, ::3], "expanded": torch.ones(1, 3).expand(4, 3)}
    yield "shapes", {"zero": torch.tensor(3.5), "one": torch.arange(4.), "four": torch.randn(2, 3, 4, 5),
                     "four-t": torch.randn(2, 3, 4, 5).permute(3, 1, 0, 2), "empty": torch.empty(0, 4)}
    yield "module", linear.state_dict()
    yield "checkpoint", {"epoch": 3, "lr": 1e-3, "name": "x", "none": None, "flag": True, "big": 1 << 80,
                         "model": linear.state_dict(), "list": [torch.ones(2), {"deep": torch.zeros(2, 2)}],
                         "size": torch.Size([1, 2]), "dtype": torch.float16, "set": {1, 2}, "bytes": b"abc"}
    yield "parameter", {"p": torch.nn.Parameter(torch.randn(3, 3, dtype=torch.bfloat16))}
    yield "alone", torch.randn(3, 4)
    yield "aligned", {"gate": torch.randn(64, 32).half(), "up": torch.randn(64, 32).half(),
                      "down": torch.randn(32, 64).half()}


def arrays():
    rng = np.random.default_rng(1)
    base = rng.standard_normal((6, 8)).astype("f4")
    yield "arrays", {str(d): np.arange(-6, 6).reshape(3, 4).astype(d) for d in (
        "f2", "f4", "f8", "i1", "i2", "i4", "i8", "b1")}
    yield "array views", {"t": base.T, "f": np.asfortranarray(base), "part": base[1:4, 2:6], "zero": np.array(2.5),
                          "cube": rng.standard_normal((2, 3, 4)).astype("f4").transpose(2, 0, 1),
                          "scalar": np.float32(3), "text": "é", "empty": np.empty((0, 3))}
    yield "array alone", base


class Checks:
    def __init__(self, plugin):
        self.plugin, self.count, self.viewed = plugin, 0, 0

    def read(self, label, value, data):
        wanted = dict(flat(value))
        tensors = self.plugin.list(data)
        assert [t.name for t in tensors] == list(wanted), (label, [t.name for t in tensors], list(wanted))
        for i, tensor in enumerate(tensors):
            want = expected(wanted[tensor.name])
            assert (tensor.rows, tensor.columns) == want.shape, (label, tensor.name)
            got = self.plugin.decode(data, i, tensor)
            assert np.array_equal(got, want, equal_nan=True), (label, tensor.name, got, want)
            if tensor.rows > 1:
                middle = self.plugin.decode(data, i, tensor, (1, tensor.rows))
                assert np.array_equal(middle, want[1:]), (label, tensor.name)
            if tensor.data_length:
                self.viewed += 1
                raw = data[tensor.data_offset:tensor.data_offset + tensor.data_length]
                kind = {F16: "<f2", F32: "<f4", I8: "i1", BF16: "<u2"}[tensor.dtype]
                seen = np.frombuffer(raw, kind).reshape(want.shape)
                if tensor.dtype == BF16:
                    seen = (seen.astype(np.uint32) << 16).view(np.float32)
                assert np.array_equal(seen.astype(np.float32), want), (label, tensor.name)
            self.count += 1

    def refuse(self, label, data, *words):
        try:
            self.plugin.list(data)
        except Refusal as refusal:
            assert all(w in refusal.text for w in words), (label, refusal.text)
            self.count += 1
            return
        raise AssertionError(f"{label} was read")


def main(path):
    plugin = Format(path)
    checks = Checks(plugin)
    for name, state in states():
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
            checks.read(f"{name}, zip {zipped}", state, buffer.getvalue())
        for protocol in range(2, 6):
            checks.read(f"{name}, raw {protocol}", state, pickle.dumps(state, protocol))
    for name, state in arrays():
        for protocol in range(2, 6):
            checks.read(f"{name}, protocol {protocol}", state, pickle.dumps(state, protocol))

    rng = np.random.default_rng(2)
    f32 = rng.standard_normal((13, 24)).astype("<f4")
    f16 = rng.standard_normal((24, 13)).astype("<f2")
    bf16 = rng.integers(0, 0x7F00, (8, 8)).astype("<u2")
    i8 = rng.integers(-127, 128, (5, 16)).astype("i1")
    scales = rng.random(5).astype("<f4")
    every = [("gate", F32, 13, 24, f32.tobytes(), b""), ("layer.up", F16, 24, 13, f16.tobytes(), b""),
             ("down", BF16, 8, 8, bf16.tobytes(), b""), ("q", I8, 5, 16, i8.tobytes(), scales.tobytes())]
    wanted = {"gate": f32, "layer.up": f16, "q": i8, "q.scale": scales,
              "down": (bf16.astype(np.uint32) << 16).view(np.float32)}
    for container in ("zip", "legacy", "numpy"):
        sources = [s for s in every if container != "numpy" or s[1] != BF16]
        options = '{"container": "%s"}' % container
        data = plugin.encode(sources, options)
        assert data == plugin.encode(sources, options), "the same input gave other bytes"
        if container == "numpy":
            back = pickle.loads(data)
        else:
            back = torch.load(io.BytesIO(data), weights_only=True)
        assert list(back) == [n for n in ("gate", "layer.up", "down", "q", "q.scale") if n in back]
        for name, value in back.items():
            got = value.to(torch.float32).numpy() if isinstance(value, torch.Tensor) else value
            assert np.array_equal(got, wanted[name].reshape(got.shape)), (container, name)
            checks.count += 1
        listed = plugin.list(data)
        assert [t.name for t in listed] == [s[0] for s in sources], container
        for i, tensor in enumerate(listed):
            value = wanted[tensor.name].astype(np.float32)
            if tensor.name == "q":
                assert tensor.quantisation == 1
                value = value * scales[:, None]
            assert np.array_equal(plugin.decode(data, i, tensor), value), (container, tensor.name)
            assert tensor.data_length and (container == "legacy" or tensor.data_offset % 64 == 0)
            checks.count += 1

    class Evil:
        def __reduce__(self):
            import os
            return os.system, ("true",)

    for protocol in range(2, 6):
        checks.refuse("os.system", pickle.dumps({"a": Evil()}, protocol), "system is not on the list")
    buffer = io.BytesIO()
    torch.save({"a": Evil()}, buffer)
    checks.refuse("os.system in a zip", buffer.getvalue(), "system is not on the list")
    checks.refuse("big-endian", pickle.dumps(np.arange(4, dtype=">f4")), "big-endian")
    print(f"{checks.count} checks passed; {checks.viewed} tensors lie in place; torch {torch.__version__}, "
          f"numpy {np.__version__}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".build/release/libPickleLegacy.so")

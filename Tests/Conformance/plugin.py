"""Drives a Blyan format plugin over its C interface, from the header alone."""

import ctypes as C
import hashlib

import numpy as np

F16, I8, F8, BF16, F32 = 1, 2, 3, 4, 5
U8P = C.POINTER(C.c_uint8)


class Error(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("text_length", C.c_uint32), ("text", C.c_char * 512)]


class Bytes(C.Structure):
    _fields_ = [("data", C.c_void_p), ("size", C.c_uint64)]


class Tensor(C.Structure):
    _fields_ = (
        [(n, C.c_uint32) for n in ("struct_size", "dtype", "layout", "quantisation")]
        + [(n, C.c_uint64) for n in ("rows", "columns", "row_stride", "data_offset", "data_length", "scale_offset",
                                     "scale_length", "zero_offset", "zero_length")]
        + [("name_length", C.c_uint32), ("raw_name", C.c_char * 128)])

    @property
    def name(self):
        start = C.addressof(self) + Tensor.raw_name.offset
        return C.string_at(start, self.name_length).decode()


READ = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_uint64, C.c_uint64, C.POINTER(C.c_void_p), C.POINTER(Error))
WRITE = C.CFUNCTYPE(C.c_int32, C.c_void_p, Bytes, C.POINTER(Error))
LEAVES = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_uint64, C.c_void_p, C.c_void_p, C.c_void_p, C.POINTER(Error))
LOG = C.CFUNCTYPE(None, C.c_void_p, C.c_int32, Bytes)
SHA = C.CFUNCTYPE(C.c_int32, C.c_void_p, Bytes, C.c_void_p)
NANOS = C.CFUNCTYPE(C.c_uint64, C.c_void_p)
FLAG = C.CFUNCTYPE(C.c_int32, C.c_void_p)
SERVICE = C.CFUNCTYPE(C.c_void_p, C.c_void_p, C.c_char_p)


class Host(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("abi_major", C.c_uint16), ("abi_minor", C.c_uint16),
                ("context", C.c_void_p), ("log", LOG), ("sha256", SHA), ("monotonic_ns", NANOS),
                ("is_cancelled", FLAG), ("get_service", SERVICE)]


class Payload(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("reserved", C.c_uint32), ("context", C.c_void_p),
                ("size", C.c_uint64), ("read", READ)]


class Source(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("dtype", C.c_uint32), ("rows", C.c_uint64), ("columns", C.c_uint64),
                ("name", Bytes), ("data", Bytes), ("scales", Bytes)]


class Sink(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("reserved", C.c_uint32), ("context", C.c_void_p), ("write", WRITE),
                ("leaves", LEAVES)]


class Encoded(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("reserved", C.c_uint32), ("covered", C.c_uint64),
                ("leaf_size", C.c_uint64), ("leaf_hashes_offset", C.c_uint64)]


LIST = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.POINTER(Payload), C.POINTER(Tensor), C.c_uint32, C.POINTER(C.c_uint32),
                   C.POINTER(Error))
DECODE = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.POINTER(Payload), C.c_uint32, C.c_uint64, C.c_uint64,
                     C.c_void_p, C.POINTER(Error))
ENCODE = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.POINTER(C.POINTER(Source)), C.c_uint32, Bytes, C.POINTER(Sink),
                     C.POINTER(Encoded), C.POINTER(Error))


class DecodeTable(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("reserved", C.c_uint32), ("list", LIST), ("decode", DECODE)]


class EncodeTable(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("reserved", C.c_uint32), ("encode", ENCODE)]


class Plugin(C.Structure):
    _fields_ = [("magic", C.c_uint64), ("struct_size", C.c_uint32), ("abi_major", C.c_uint16),
                ("abi_minor", C.c_uint16), ("kind", C.c_uint32), ("reserved", C.c_uint32), ("name", C.c_char_p),
                ("version", C.c_char_p), ("config_schema", C.c_char_p),
                ("create", C.CFUNCTYPE(C.c_int32, C.POINTER(Host), Bytes, C.POINTER(C.c_void_p), C.POINTER(Error))),
                ("destroy", C.CFUNCTYPE(None, C.c_void_p)),
                ("self_test", C.CFUNCTYPE(C.c_int32, C.c_void_p, C.POINTER(Error))),
                ("get_ability", C.CFUNCTYPE(C.c_void_p, C.c_void_p, C.c_char_p))]


class Refusal(Exception):
    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


def _view(raw):
    buffer = C.create_string_buffer(raw, len(raw)) if raw else None
    return Bytes(C.cast(buffer, C.c_void_p).value if raw else None, len(raw)), buffer


class Format:
    """One loaded format plugin."""

    def __init__(self, path):
        library = C.CDLL(path)
        library.blyan_plugin_entry.restype = C.POINTER(Plugin)
        self.plugin = library.blyan_plugin_entry().contents
        assert self.plugin.magic == 0x474C504E41594C42

        def sha256(_, data, out):
            C.memmove(out, hashlib.sha256(C.string_at(data.data, data.size)).digest(), 32)
            return 0

        self.host = Host(C.sizeof(Host), 1, 0, None, LOG(lambda *_: None), SHA(sha256), NANOS(lambda _: 1),
                         FLAG(lambda _: 0), SERVICE(lambda *_: None))
        self.instance = C.c_void_p()
        config, _keep = _view(b"{}")
        self._call(self.plugin.create, self.host, config, C.byref(self.instance))
        self._call(self.plugin.self_test, self.instance)
        table = self.plugin.get_ability(self.instance, b"blyan.format.decode/1")
        self.decoder = C.cast(table, C.POINTER(DecodeTable)).contents
        table = self.plugin.get_ability(self.instance, b"blyan.format.encode/1")
        self.encoder = C.cast(table, C.POINTER(EncodeTable)).contents

    def _call(self, function, *arguments):
        error = Error(C.sizeof(Error))
        status = function(*arguments, C.byref(error))
        if status != 0:
            raise Refusal(status, C.string_at(C.addressof(error) + 8, error.text_length).decode())

    def _payload(self, data):
        base = C.cast(C.c_char_p(data), C.c_void_p).value

        def read(_, offset, length, out, error):
            if offset > len(data) or length > len(data) - offset:
                return -1
            out[0] = base + offset
            return 0

        return Payload(C.sizeof(Payload), 0, None, len(data), READ(read))

    def list(self, data, capacity=65_536):
        payload, count = self._payload(data), C.c_uint32()
        tensors = (Tensor * capacity)()
        for tensor in tensors:
            tensor.struct_size = C.sizeof(Tensor)
        self._call(self.decoder.list, self.instance, payload, tensors, capacity, count)
        return list(tensors[:count.value])

    def decode(self, data, index, tensor, rows=None):
        begin, end = rows or (0, tensor.rows)
        out = np.empty((end - begin, tensor.columns), np.float32)
        self._call(self.decoder.decode, self.instance, self._payload(data), index, begin, end,
                   out.ctypes.data_as(C.c_void_p))
        return out

    def encode(self, tensors, options=""):
        """tensors: (name, dtype, rows, columns, bytes, scale bytes)."""
        keep, pointers = [], (C.POINTER(Source) * len(tensors))()
        for i, (name, dtype, rows, columns, data, scales) in enumerate(tensors):
            views = [_view(name.encode()), _view(data), _view(scales)]
            source = Source(C.sizeof(Source), dtype, rows, columns, *(v for v, _ in views))
            keep.append((views, source))
            pointers[i] = C.pointer(source)
        written = bytearray()

        def write(_, view, error):
            written.extend(C.string_at(view.data, view.size))
            return 0

        sink = Sink(C.sizeof(Sink), 0, None, WRITE(write), LEAVES(lambda *_: -1))
        encoded = Encoded(C.sizeof(Encoded))
        text, _keep = _view(options.encode())
        self._call(self.encoder.encode, self.instance, pointers, len(tensors), text, sink, encoded)
        assert encoded.covered == len(written) and encoded.leaf_size == 65_536 and encoded.leaf_hashes_offset == 0
        return bytes(written)

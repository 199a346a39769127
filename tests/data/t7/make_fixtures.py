"""Writes the .t7 files of this folder, with struct alone: run it here to have them again, byte for byte.

It follows torch7 814ea4a (File.lua, DiskFile.c, generic/Tensor.c, generic/Storage.c) and shares no code with
the package. `python tests/data/t7/make_fixtures.py`
"""

from __future__ import annotations

import struct
from pathlib import Path

HERE = Path(__file__).parent
NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN, OLD_FUNCTION, LEGACY_FUNCTION, FUNCTION = range(9)
CODES = {
    "Byte": "B",
    "Char": "b",
    "Short": "h",
    "Int": "i",
    "Long": "q",
    "Float": "f",
    "Double": "d",
    "Half": "e",
}


class Binary:
    """torch.DiskFile in binary mode; `longs` have 8 bytes, or 4."""

    def __init__(self, long_size: int = 8) -> None:
        self.data = bytearray()
        self.long_code = "q" if long_size == 8 else "i"

    def int(self, value):
        self.data += struct.pack("<i", value)

    def longs(self, *values):
        self.data += struct.pack(f"<{len(values)}{self.long_code}", *values)

    def double(self, value):
        self.data += struct.pack("<d", value)

    def raw(self, text):
        self.data += text

    def elements(self, kind, values):
        code = self.long_code if kind == "Long" else CODES[kind]
        self.data += struct.pack(f"<{len(values)}{code}", *values)

    # File.lua

    def nil(self):
        self.int(NIL)

    def number(self, value):
        self.int(NUMBER)
        self.double(value)

    def boolean(self, value):
        self.int(BOOLEAN)
        self.int(1 if value else 0)

    def text(self, value):
        self.int(len(value))
        self.raw(value)

    def string(self, value):
        self.int(STRING)
        self.text(value)

    def table(self, index, count):
        self.int(TABLE)
        self.int(index)
        self.int(count)

    def reference(self, kind, index):
        self.int(kind)
        self.int(index)

    def torch(self, index, name, version=b"V 1"):
        self.int(TORCH)
        self.int(index)
        if version:
            self.text(version)
        self.text(name)

    def storage(self, index, kind, values, name=None):
        self.torch(index, name or b"torch.%sStorage" % kind.encode())
        self.longs(len(values))
        self.elements(kind, values)

    def tensor(self, index, name, shape, strides, offset):
        self.torch(index, name)
        self.int(len(shape))
        self.longs(*shape)
        self.longs(*strides)
        self.longs(offset)


class Ascii(Binary):
    """torch.DiskFile in ASCII mode."""

    def line(self, text):
        self.data += text.encode() + b"\n"

    def int(self, value):
        self.line(f"{value:d}")

    def longs(self, *values):
        if values:
            self.line(" ".join(f"{value:d}" for value in values))

    def double(self, value):
        self.line(f"{value:.17g}")

    def raw(self, text):
        if text:
            self.data += text + b"\n"

    def elements(self, kind, values):
        if kind in ("Byte", "Char"):
            self.raw(struct.pack(f"{len(values)}{CODES[kind]}", *values))
        elif kind in ("Float", "Half"):
            self.line(" ".join(f"{value:.9g}" for value in values))
        elif kind == "Double":
            self.line(" ".join(f"{value:.17g}" for value in values))
        else:
            self.longs(*values)


def everything(to):
    """Every kind of object, every type of tensor, references, a table that holds itself."""
    to.table(1, 19)
    to.string(b"number")
    to.number(2.5)
    to.string(b"whole")
    to.number(-3.0)
    to.string(b"true")
    to.boolean(True)
    to.string(b"false")
    to.boolean(False)
    to.string(b"text")
    to.string("caf\u00e9 \n".encode())
    to.string(b"bytes")
    to.string(b"\xff\x00\x80")
    to.string(b"none")  # Lua would leave it out
    to.nil()
    to.string(b"empty")
    to.table(2, 0)
    to.string(b"list")
    to.table(3, 3)
    for key, value in ((2, b"b"), (1, b"a"), (3, b"")):
        to.number(float(key))
        to.string(value)
    to.string(b"same list")
    to.reference(TABLE, 3)
    to.string(b"itself")
    to.reference(TABLE, 1)
    to.string(b"mixed")
    to.table(4, 2)
    to.number(1.0)
    to.string(b"one")
    to.string(b"two")
    to.number(2.0)
    to.string(b"odd keys")
    to.table(5, 2)
    to.boolean(True)
    to.number(1.0)
    to.reference(TABLE, 3)
    to.number(2.0)
    to.string(b"functions")
    to.table(6, 4)
    to.number(1.0)
    to.int(OLD_FUNCTION)
    to.text(b"\x1bLJ old")
    to.table(7, 0)
    to.number(2.0)
    to.reference(LEGACY_FUNCTION, 8)
    to.text(b"\x1bLJ legacy")
    to.table(9, 1)
    to.number(1.0)
    to.number(7.0)
    to.number(3.0)
    to.reference(FUNCTION, 10)
    to.text(b"\x1bLJ recent")
    to.table(11, 1)
    to.number(1.0)
    to.table(12, 2)
    to.string(b"name")
    to.string(b"self")
    to.string(b"value")
    to.reference(FUNCTION, 10)
    to.number(4.0)
    to.reference(FUNCTION, 10)
    to.string(b"shared")  # two tensors on one storage, the second transposed
    to.table(13, 3)
    to.number(1.0)
    to.tensor(14, b"torch.DoubleTensor", (2,), (1,), 5)
    to.storage(15, "Double", [0.5 * i for i in range(8)])
    to.number(2.0)
    to.tensor(16, b"torch.DoubleTensor", (2, 2), (1, 2), 1)
    to.reference(TORCH, 15)
    to.number(3.0)
    to.reference(TORCH, 15)
    to.string(b"expanded")
    to.tensor(17, b"torch.LongTensor", (2, 3), (0, 1), 2)
    to.storage(18, "Long", [9, -1, 2**31 - 1, 3])
    to.string(b"nothing")
    to.tensor(19, b"torch.FloatTensor", (), (), 1)
    to.nil()
    to.string(b"types")
    kinds = [*CODES, "Cuda", "CudaDouble", "CudaHalf", "CudaLong", "Cl"]
    to.table(20, len(kinds))
    index = 21
    for kind in kinds:
        element = {"Cuda": "Float", "Cl": "Float"}.get(kind, kind.removeprefix("Cuda"))
        to.string(kind.encode())
        to.tensor(index, f"torch.{kind}Tensor".encode(), (2,), (1,), 1)
        to.storage(
            index + 1, element, [1, 0] if element != "Char" else [-1, 10], f"torch.{kind}Storage".encode()
        )
        index += 2
    to.string(b"objects")
    to.table(100, 5)
    to.number(1.0)
    to.torch(101, b"nn.Thing", b"V 2")
    to.table(102, 2)
    to.string(b"itself")
    to.reference(TORCH, 101)
    to.number(1.0)
    to.string(b"first")
    to.number(2.0)
    to.torch(103, b"nn.Ancient", b"")  # of before versions: the class stands in the version's place
    to.table(104, 0)
    to.number(3.0)
    to.torch(105, b"tds.Hash")
    to.longs(1)
    to.string(b"key")
    to.number(1.0)
    to.number(4.0)
    to.torch(106, b"tds.Vec")
    to.longs(2)
    to.string(b"a")
    to.boolean(True)
    to.number(5.0)
    to.reference(TORCH, 101)


def network(to):
    """Modules of old and new classes: what loadcaffe, cudnn, fb.resnet.torch and years before 2016 left behind."""
    counter = iter(range(1, 10_000))

    def fields(typename, version=b"V 1", **values):
        to.torch(next(counter), typename, version)
        to.table(next(counter), len(values))
        for name, value in values.items():
            to.string(name.encode())
            value() if callable(value) else put(value)

    def put(value):
        if isinstance(value, bool):
            to.boolean(value)
        elif isinstance(value, (int, float)):
            to.number(float(value))
        else:
            to.string(value)

    def tensor(shape, values, kind="Float", name=None):
        def write():
            strides = [1]
            for size in shape[:0:-1]:
                strides.insert(0, strides[0] * size)
            to.tensor(next(counter), f"torch.{name or kind}Tensor".encode(), shape, strides, 1)
            to.storage(next(counter), kind, values, f"torch.{name or kind}Storage".encode())

        return write

    def modules(*made):
        def write():
            to.table(next(counter), len(made))
            for index, make in enumerate(made, 1):
                to.number(float(index))
                make()

        return write

    def conv(typename, outputs, inputs, kernel, **more):
        count = outputs * inputs * kernel * kernel
        numbers = {
            "nOutputPlane": outputs,
            "nInputPlane": inputs,
            "kW": kernel,
            "kH": kernel,
            "dW": 1,
            "dH": 1,
        }
        weight = tensor(
            (outputs, inputs, kernel, kernel), [i / 64 for i in range(count)], name=more.pop("type", None)
        )
        bias = tensor((outputs,), [float(i) for i in range(outputs)])
        return lambda: fields(typename, weight=weight, bias=bias, **numbers, **more)

    def matrix_conv():
        # nn.SpatialConvolutionMM kept its kernels as a matrix, and `padding` for both sides.
        values = [i / 64 for i in range(36)]
        fields(
            b"nn.SpatialConvolutionMM", weight=tensor((2, 18), values), bias=tensor((2,), [0.5, -0.5]),
            nInputPlane=2, nOutputPlane=2, kW=3, kH=3, dW=2, dH=2, padding=1, name=b"matrix",
        )  # fmt: skip

    def old_norm():
        # V 1 of nn.SpatialBatchNormalization: 1 / sqrt(variance + eps), here of the variances 0.24 and 3.99.
        fields(
            b"nn.SpatialBatchNormalization", eps=0.01, running_mean=tensor((2,), [1.0, 2.0]),
            running_std=tensor((2,), [2.0, 0.5]), affine=False,
        )  # fmt: skip

    def new_norm():
        parts = {name: tensor((2,), [1.0 + i, 2.0 + i]) for i, name in
                 enumerate(("weight", "bias", "running_mean", "running_var"))}  # fmt: skip
        fields(b"cudnn.SpatialBatchNormalization", b"V 2", eps=0.001, **parts)

    def relu():
        fields(b"cudnn.ReLU", inplace=True)

    def linear():
        weight = tensor((4, 2), [float(i) for i in range(8)])
        fields(b"nn.Linear", weight=weight, bias=tensor((4,), [0.0] * 4))

    block = lambda: fields(  # noqa: E731
        b"nn.Sequential",
        modules=modules(
            lambda: fields(
                b"nn.ConcatTable",
                modules=modules(
                    lambda: fields(b"nn.Sequential", modules=modules(new_norm, relu)),
                    lambda: fields(b"nn.Identity"),
                ),
            ),
            lambda: fields(b"nn.CAddTable", inplace=True),
        ),
    )  # fmt: skip
    fields(
        b"nn.Sequential",
        modules=modules(
            conv(b"cudnn.SpatialConvolution", 2, 3, 3, padW=1, padH=1, groups=1, type="Cuda", name=b"conv1"),
            matrix_conv,
            old_norm,
            block,
            lambda: fields(b"nn.SpatialZeroPadding", pad_l=1, pad_r=1, pad_t=1, pad_b=1),
            lambda: fields(b"cudnn.SpatialMaxPooling", kW=3, kH=3, dW=2, dH=2, padW=1, padH=1, ceil_mode=False),
            lambda: fields(b"cudnn.SpatialAveragePooling", kW=7, kH=7, dW=1, dH=1, padW=0, padH=0, ceil_mode=False),
            lambda: fields(b"nn.View", numElements=2),
            linear,
            lambda: fields(b"nn.Dropout", p=0.25),
            lambda: fields(b"nn.LookupTable", weight=tensor((3, 2), [1.0] * 6)),
            lambda: fields(b"my.Layer", secret=b"value"),
        ),
    )  # fmt: skip


def main():
    for name, to in (("binary", Binary()), ("longs_of_32_bits", Binary(4)), ("ascii", Ascii())):
        everything(to)
        (HERE / f"everything_{name}.t7").write_bytes(to.data)
    to = Binary()
    network(to)
    (HERE / "network.t7").write_bytes(to.data)


if __name__ == "__main__":
    main()

"""Torch7's other encodings of a .t7 file, for the tests of the reader: longs of 32 bits (Windows), and ASCII."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import UnsupportedError
from legacy_style.formats.t7.objects import NUMBER
from legacy_style.formats.t7.writer import Encoder, emit


class ShortLongs(Encoder):
    """The binary encoding with longs of 4 bytes."""

    def longs(self, *values: int) -> None:
        try:
            self.put(struct.pack(f"<{len(values)}i", *values))
        except struct.error as error:
            raise UnsupportedError(f"longs of 32 bits cannot hold all of {values}") from error

    def elements(self, values: NDArray[Any]) -> None:
        if values.dtype == np.int64:
            self.longs(*values.tolist())
        else:
            super().elements(values)


class Ascii(Encoder):
    """DiskFile.c's formats: %d, %.9g for float, %.17g for double, a line break after every run of values."""

    def ints(self, *values: int) -> None:
        for value in values:
            self.put(b"%d\n" % value)

    def longs(self, *values: int) -> None:
        if values:
            self.put(b" ".join(b"%d" % value for value in values) + b"\n")

    def double(self, value: float) -> None:
        self.put(b"%.17g\n" % value)

    def number_pairs(self, keys: list[float], values: list[float]) -> None:
        for pair in zip(keys, values, strict=True):
            for value in pair:
                self.ints(NUMBER)
                self.double(value)

    def characters(self, text: bytes) -> None:
        if text:
            self.put(text + b"\n")

    def elements(self, values: NDArray[Any]) -> None:
        if values.dtype.kind == "f":
            digits = "%.17g" if values.dtype == np.float64 else "%.9g"
            self.characters(" ".join(digits % value for value in values.tolist()).encode())
        elif values.itemsize == 1:
            self.characters(values.tobytes())
        else:
            self.longs(*values.tolist())


def dump(value: Any, encoding: type[Encoder]) -> bytes:
    """The bytes of `value` in that encoding."""
    parts: list[bytes | memoryview] = []
    emit(value, encoding(parts.append))
    return b"".join(parts)

"""The primitive values of a .t7 file in their two encodings, after torch7's DiskFile.c.

Binary: little endian, int of 4 bytes, long of 8 (or 4, where Torch7 was built so), double of 8. ASCII: numbers
in decimals, each run of numbers ended by a line break, characters as they are. Nothing is believed that the
file's bytes do not hold: every count is compared with what is left of the file before anything is allocated.
"""

from __future__ import annotations

import re
import struct
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError
from legacy_style.formats.t7.objects import DTYPES, NUMBER

Buffer = Any  # what struct, re and numpy read: bytes or a memory map

_INT = struct.Struct("<i")
_LONG = struct.Struct("<q")
_DOUBLE = struct.Struct("<d")

# A table's entry whose key and value are numbers.
NUMBER_PAIR = np.dtype([("key_kind", "<i4"), ("key", "<f8"), ("value_kind", "<i4"), ("value", "<f8")])

_TOKEN = re.compile(rb"[ \t\n\v\f\r]*([^ \t\n\v\f\r]+)")
_WHOLE = re.compile(rb"[+-]?[0-9]{1,20}")
_MOST_DIGITS = 64  # "%.17g" writes at most 24


class T7Source(Protocol):
    """A position in a file, and the values that are read from there."""

    path: str
    position: int
    size: int

    def integer(self) -> int:
        """An int of 32 bits."""

    def longs(self, count: int) -> list[int]:
        """So many longs."""

    def double(self) -> float:
        """A double."""

    def characters(self, count: int) -> bytes:
        """So many bytes."""

    def elements(self, type_name: str, count: int) -> NDArray[Any]:
        """So many elements of a storage of this type, (count,), read-only."""

    def number_pairs(self, count: int) -> list[tuple[float, float]]:
        """As many of `count` pairs of objects as are two numbers each, or fewer: a faster way to read them."""

    def fail(self, what: str, position: int) -> NoReturn:
        """Raise FormatError with the file's path and the position."""


class _Base:
    def __init__(self, buffer: Buffer, path: str) -> None:
        self.buffer = buffer
        self.path = path
        self.position = 0
        self.size = len(buffer)

    def fail(self, what: str, position: int) -> NoReturn:
        raise FormatError(f"{self.path}: {what} at byte {position}")

    def skip(self, count: int, what: str) -> int:
        """Goes `count` bytes on, and gives the position before; FormatError where the file ends earlier."""
        begin = self.position
        if not 0 <= count <= self.size - begin:
            self.fail(f"promises {count} bytes of {what}, but has {self.size - begin} left", begin)
        self.position = begin + count
        return begin

    def characters(self, count: int) -> bytes:
        begin = self.skip(count, "text")
        return bytes(self.buffer[begin : self.position])


class Binary(_Base):
    """The binary encoding, with longs of `long_size` bytes, 8 or 4."""

    def __init__(self, buffer: Buffer, path: str, long_size: int = 8) -> None:
        super().__init__(buffer, path)
        self.long_size = long_size

    def integer(self) -> int:
        value: int = _INT.unpack_from(self.buffer, self.skip(4, "an int"))[0]
        return value

    def longs(self, count: int) -> list[int]:
        begin = self.skip(count * self.long_size, "longs")
        code = "q" if self.long_size == 8 else "i"
        return list(struct.unpack_from(f"<{count}{code}", self.buffer, begin))

    def double(self) -> float:
        value: float = _DOUBLE.unpack_from(self.buffer, self.skip(8, "a number"))[0]
        return value

    def number_pairs(self, count: int) -> list[tuple[float, float]]:
        count = min(count, (self.size - self.position) // NUMBER_PAIR.itemsize)
        pairs = np.frombuffer(self.buffer, NUMBER_PAIR, count, self.position)
        usual = (pairs["key_kind"] == NUMBER) & (pairs["value_kind"] == NUMBER) & ~np.isnan(pairs["key"])
        found = pairs[: count if usual.all() else int(usual.argmin())]
        self.position += found.nbytes
        return list(zip(found["key"].tolist(), found["value"].tolist(), strict=True))

    def elements(self, type_name: str, count: int) -> NDArray[Any]:
        dtype = np.dtype(DTYPES[type_name])
        short = type_name == "Long" and self.long_size == 4
        stored = np.dtype("<i4") if short else dtype
        begin = self.skip(count * stored.itemsize, f"a storage of {count} {type_name} elements")
        if count == 0:
            return np.empty(0, dtype)
        values: NDArray[Any] = np.frombuffer(self.buffer, stored, count, begin)
        return _read_only(values.astype(dtype)) if short else values


class Ascii(_Base):
    """The ASCII encoding; the size of longs does not matter here."""

    def token(self, what: str) -> bytes:
        """The next word, in front of the line break that ends it."""
        found = _TOKEN.match(self.buffer, self.position, self.size)
        if found is None:
            self.fail(f"ends where {what} should be", self.position)
        if found.end(1) - found.start(1) > _MOST_DIGITS:
            self.fail(f"has no number where {what} should be", found.start(1))
        self.position = found.end()
        word: bytes = found[1]
        return word

    def end_of_line(self) -> None:
        """Passes over the line break that follows a run of numbers or characters."""
        if self.buffer[self.position : self.position + 1] == b"\n":
            self.position += 1

    def whole(self, what: str) -> int:
        begin = self.position
        word = self.token(what)
        if not _WHOLE.fullmatch(word):
            self.fail(f"has {word!r} where {what} should be", begin)
        return int(word)

    def number_pairs(self, count: int) -> list[tuple[float, float]]:
        return []

    def integer(self) -> int:
        value = self.whole("an int")
        self.end_of_line()
        return value

    def longs(self, count: int) -> list[int]:
        self.enough(count)
        values = [self.whole("a long") for _ in range(count)]
        self.end_of_line()
        return values

    def double(self) -> float:
        begin = self.position
        word = self.token("a number")
        self.end_of_line()
        return self.parsed([word], begin)[0]

    def characters(self, count: int) -> bytes:
        text = super().characters(count)
        if count:
            self.end_of_line()
        return text

    def elements(self, type_name: str, count: int) -> NDArray[Any]:
        dtype = np.dtype(DTYPES[type_name])
        if type_name in ("Byte", "Char"):
            # DiskFile.c writes these as they are in both encodings.
            return np.frombuffer(self.characters(count), dtype)
        self.enough(count)
        begin = self.position
        if dtype.kind == "f":
            numbers = self.parsed([self.token("a number") for _ in range(count)], begin)
            with np.errstate(over="ignore"):
                values = np.array(numbers, np.float64).astype(dtype)
        else:
            try:
                values = np.array([self.whole("a number") for _ in range(count)], dtype)
            except OverflowError:
                self.fail(f"has a number too large for a storage of {type_name} elements", begin)
        if count:
            self.end_of_line()
        return _read_only(values)

    def enough(self, count: int) -> None:
        """Refuses a count of numbers that the rest of the file cannot hold: each takes two bytes."""
        left = self.size - self.position
        if not 0 <= count <= (left + 1) // 2:
            self.fail(f"promises {count} numbers, but has {left} bytes left", self.position)

    def parsed(self, words: list[bytes], begin: int) -> list[float]:
        """The words as numbers, "nan", "-nan" and "inf" among them."""
        try:
            return [float(word) for word in words]
        except ValueError:
            self.fail("has something else than numbers behind", begin)


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    values.flags.writeable = False
    return values

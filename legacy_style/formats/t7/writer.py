"""Python objects as a .t7 file that Torch7 loads, after torch7's File.lua, Tensor.c and Storage.c.

The inverse of `reader`: what was read from a file of Torch7's is written back byte for byte. Of other objects,
a tuple is a table like a list, bytes are a string, NumPy's scalars are numbers, and None, which a Lua table
cannot hold, is left out of dicts. Notes: objects get their numbers in the order in which they are written, a
tensor before its storage. An array that is a view is written as Torch7 writes one, with the whole storage that
it is a view of, so that several views of one flat array share their storage in the file too.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legacy_style import files
from legacy_style.errors import UnsupportedError
from legacy_style.formats.t7.objects import (
    BOOLEAN,
    NIL,
    NUMBER,
    OLD_FUNCTION,
    STRING,
    TABLE,
    TDS,
    TORCH,
    TYPE_NAMES,
    Function,
    Pairs,
    Storage,
    TorchObject,
    address,
    root,
)
from legacy_style.formats.t7.source import NUMBER_PAIR

_NUMBERS = (int, float)  # exactly: a bool is none

_Steps = Iterator[Any]
Put = Callable[[bytes | memoryview], Any]


def write(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path`, which appears whole or not at all.

    Raises UnsupportedError where `value` holds something that Torch7 has no type for.
    """
    with files.replacing(path) as file:
        emit(value, Encoder(file.write))


def dump(value: Any) -> bytes:
    """The bytes that `write` writes."""
    parts: list[bytes | memoryview] = []
    emit(value, Encoder(parts.append))
    return b"".join(parts)


def emit(value: Any, encoder: Encoder) -> None:
    """Hand `value` to the encoder, piece by piece."""
    writer = _Writer(encoder)
    # A stack of what is still to be written at each depth, since a deep object would overflow Python's.
    stack: list[_Steps] = [iter((value,))]
    while stack:
        for item in stack[-1]:
            stack.append(writer.object(item))
            break
        else:
            stack.pop()


class Encoder:
    """DiskFile.c's binary encoding, with longs of 8 bytes; hands the bytes to `put`."""

    def __init__(self, put: Put) -> None:
        self.put = put

    def ints(self, *values: int) -> None:
        self.put(struct.pack(f"<{len(values)}i", *values))

    def longs(self, *values: int) -> None:
        self.put(struct.pack(f"<{len(values)}q", *values))

    def double(self, value: float) -> None:
        self.put(struct.pack("<d", value))

    def number_pairs(self, keys: list[float], values: list[float]) -> None:
        pairs = np.full(len(keys), NUMBER, NUMBER_PAIR)
        pairs["key"], pairs["value"] = keys, values
        self.put(pairs.tobytes())

    def characters(self, text: bytes) -> None:
        self.put(text)

    def elements(self, values: NDArray[Any]) -> None:
        if values.size:
            self.put(values.data.cast("B"))


class _Writer:
    """The numbers of the objects written so far, by their place in memory."""

    def __init__(self, encoder: Encoder) -> None:
        self.to = encoder
        self.numbers: dict[tuple[str, int], int] = {}
        self.kept: list[Any] = []  # what has a number stays alive, or its place could be another's

    def object(self, value: Any) -> _Steps:
        """Write one object, and yield those that are to be written inside of it."""
        to = self.to
        if value is None:
            to.ints(NIL)
        elif isinstance(value, (bool, np.bool_)):
            to.ints(BOOLEAN, int(value))
        elif isinstance(value, (int, float, np.integer, np.floating)):
            to.ints(NUMBER)
            to.double(_double(value))
        elif isinstance(value, (str, bytes)):
            to.ints(STRING)
            self.text(value)
        elif isinstance(value, np.ndarray):
            if self.is_new(TORCH, value):
                yield from self.tensor(value)
        elif isinstance(value, Storage):
            owner = root(value.values)
            # A storage is known by its memory, where it has that for itself.
            if self.is_new(TORCH, owner if owner.nbytes == value.values.nbytes else value, "storage"):
                self.storage(value.values)
        elif isinstance(value, TorchObject):
            if self.is_new(TORCH, value):
                yield from self.torch_object(value)
        elif isinstance(value, Function):
            if value.kind == OLD_FUNCTION:
                to.ints(OLD_FUNCTION)
            if value.kind == OLD_FUNCTION or self.is_new(value.kind, value):
                self.text(value.code)
                yield value.upvalues
        elif isinstance(value, (list, tuple, Mapping, Pairs)):
            if self.is_new(TABLE, value):
                yield from self.table(value)
        else:
            raise UnsupportedError(
                f"a {type(value).__name__} cannot be written to a .t7 file: Torch7 has none"
            )

    def is_new(self, kind: int, value: Any, role: str = "") -> bool:
        """Write the kind and the number of `value`; whether it has not been written before in this role.

        An array that owns its memory is a tensor and, in the role "storage", its storage too.
        """
        key = (role, id(value))
        number = self.numbers.get(key)
        if number is None:
            self.kept.append(value)
            self.numbers[key] = len(self.kept)
        self.to.ints(kind, number or len(self.kept))
        return number is None

    def text(self, value: str | bytes) -> None:
        characters = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        self.to.ints(len(characters))
        self.to.characters(characters)

    def table(self, value: Any) -> _Steps:
        if isinstance(value, (list, tuple)):
            items = list(enumerate(value, 1))
        else:
            items = value.items if isinstance(value, Pairs) else list(value.items())
        items = [(key, item) for key, item in items if item is not None]
        self.to.ints(len(items))
        if all(type(key) in _NUMBERS and type(item) in _NUMBERS for key, item in items):
            self.to.number_pairs([_double(key) for key, _ in items], [_double(item) for _, item in items])
            return
        for key, item in items:
            yield key
            yield item

    def torch_object(self, value: TorchObject) -> _Steps:
        self.of_class(value.typename, value.version)
        if value.typename not in TDS:
            yield value.fields
            return
        entries = value.get("items", [])
        if isinstance(entries, (list, tuple)):
            pairs = list(enumerate(entries, 1))
        elif isinstance(entries, (Mapping, Pairs)):
            pairs = entries.items if isinstance(entries, Pairs) else list(entries.items())
        else:
            raise UnsupportedError(f"a {value.typename} has entries in its field 'items', not {entries!r}")
        self.to.longs(len(pairs))
        for key, item in pairs:
            if value.typename == "tds.Hash":
                yield key
            yield item

    def tensor(self, value: NDArray[Any]) -> _Steps:
        value = _writable(value)
        whole = root(value)
        self.of_class(f"torch.{TYPE_NAMES[value.dtype]}Tensor")
        dimensions = value.ndim if value.size else 0
        offset = (address(value) - address(whole)) // value.itemsize if value.size else 0
        self.to.ints(dimensions)
        self.to.longs(*value.shape[:dimensions])
        self.to.longs(*(stride // value.itemsize for stride in value.strides[:dimensions]))
        self.to.longs(offset + 1)
        yield Storage(whole) if whole.size else None

    def storage(self, values: NDArray[Any]) -> None:
        flat = np.ascontiguousarray(values, _dtype(values)).reshape(-1)
        self.of_class(f"torch.{TYPE_NAMES[flat.dtype]}Storage")
        self.to.longs(flat.size)
        self.to.elements(flat)

    def of_class(self, typename: str, version: int = 1) -> None:
        """The version and the name of a class; the name alone as before versions, where that is 0."""
        if version:
            self.text(f"V {version}")
        self.text(typename)


def _writable(value: NDArray[Any]) -> NDArray[Any]:
    """`value`, or a copy in memory of its own where Torch7 could not have such a view."""
    value = value.reshape(1) if value.ndim == 0 else value
    whole = root(value)
    fits = (
        _dtype(value) == value.dtype == whole.dtype
        and whole.flags.c_contiguous
        and all(stride >= 0 and stride % value.itemsize == 0 for stride in value.strides)
        and (address(value) - address(whole)) % value.itemsize == 0
    )
    return value if fits else np.array(value, _dtype(value), order="C")


def _dtype(values: NDArray[Any]) -> np.dtype[Any]:
    """The type that Torch7 has for these elements; booleans become bytes."""
    dtype = values.dtype.newbyteorder("<") if values.dtype != np.bool_ else np.dtype("|u1")
    if dtype not in TYPE_NAMES:
        raise UnsupportedError(f"an array of {values.dtype} cannot be written to a .t7 file: Torch7 has none")
    return dtype


def _double(value: Any) -> float:
    """A number of Lua's, which are all doubles."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if isinstance(value, int) and number != value:
        raise UnsupportedError(f"the number {value} cannot be written to a .t7 file: it has too many digits")
    return number

"""Torch7's serialised objects, read without Torch7, after torch7's File.lua, Tensor.c and Storage.c.

Notes: nothing in a file is ever run. A file does not say how long its longs are, so 8 bytes are tried first
and then 4. Objects are read by a loop and not by recursion, so that deep nesting cannot overflow the stack.
Storages stay in the file, which is mapped into memory, until their elements are used.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import re
from collections.abc import Generator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError
from legacy_style.files import reading
from legacy_style.formats.t7.objects import (
    BOOLEAN,
    DTYPES,
    FUNCTION,
    LEGACY_FUNCTION,
    MOST_DIMENSIONS,
    NIL,
    NUMBER,
    OLD_FUNCTION,
    STRING,
    TABLE,
    TDS,
    TORCH,
    TYPE_NAMES,
    Function,
    Storage,
    TorchObject,
    element_type,
)
from legacy_style.formats.t7.source import Ascii, Binary, Buffer, T7Source
from legacy_style.formats.t7.tables import Table, is_name, resolve

# What can be refused before anything is read: torch.save's first object is number 1, a table or an object.
_BINARY = re.compile(rb"[\x03\x04]\0\0\0\x01\0\0\0")
_ASCII = re.compile(rb"[34]\s+1\s")

# Networks nest some dozens deep, graphs of nodes (nngraph) some thousands.
_DEEPEST = 20_000

# Tensors may be larger than their storage (strides of 0, overlaps), all of a file's together by this factor or
# this many bytes.
_MOST_GROWTH = 20
_SMALL = 1 << 24

_LARGEST = 2**53  # up to which a double holds every whole number
_LONG = 16  # entries from which a table is worth a look for numbers alone: the losses of a training
_LONGEST_NAME = 4096  # of a class
_SMALLEST_PAIR = 8  # bytes that a key and its value take at least

_Step = Generator["_Step", Any, Any]


def looks_like(head: bytes) -> bool:
    """Whether a file that begins with `head` (8 bytes are enough) is a .t7 file of a table or an object."""
    return bool(_BINARY.match(head) or _ASCII.match(head))


def read(path: str | os.PathLike[str], file: BinaryIO | None = None) -> Any:
    """The object in a .t7 file, binary or ASCII (`objects` says what becomes of what).

    `file` is the one at `path` where it is open already.

    Arrays are read-only views of the file, which stays mapped into memory as long as they live. What follows
    the first object is not looked at, as torch.load does it. Raises FormatError where the file is broken,
    OSError where it cannot be opened.
    """
    name = os.fspath(path)
    with reading(name, file) as opened:
        if not os.fstat(opened.fileno()).st_size:
            raise FormatError(f"{name}: is empty; get the file again")
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return parse(mapped, name)


def parse(buffer: Buffer, path: str = "<bytes>") -> Any:
    """The object in the bytes of a .t7 file, as `read`; `path` is for the error messages."""
    if buffer[:1].isdigit():
        return _Reader(Ascii(buffer, path)).read()
    usual, short = (Binary(buffer, path, size) for size in (8, 4))
    try:
        found = _Reader(usual).read()
    except FormatError as error:
        try:
            return _Reader(short).read()
        except FormatError as other_error:
            # The reading that came further says more about what is wrong.
            raise (error if usual.position >= short.position else other_error) from None
    if usual.position < usual.size:
        # Of two readings, the one that uses the whole file is right.
        with contextlib.suppress(FormatError):
            other = _Reader(short).read()
            return other if short.position == short.size else found
    return found


class _Reader:
    """The objects of one file; `known` holds what a reference can mean, by index."""

    def __init__(self, source: T7Source) -> None:
        self.source = source
        self.known: dict[int, Any] = {}
        self.tables: list[Table] = []
        self.holders: list[TorchObject | Function] = []
        self.growth = 0  # bytes by which tensors are larger than their storages

    def read(self) -> Any:
        """The first object, with its tables as lists and dicts."""
        return resolve(self.run(self.object()), self.tables, self.holders)

    def run(self, step: _Step) -> Any:
        """What `step` returns; each step that it yields is run first, and its result sent back."""
        steps, value = [step], None
        while steps:
            try:
                inner = steps[-1].send(value)
            except StopIteration as end:
                steps.pop()
                value = end.value
            else:
                if len(steps) >= _DEEPEST:
                    self.source.fail(f"nests objects deeper than {_DEEPEST} levels", self.source.position)
                steps.append(inner)
                value = None
        return value

    def object(self) -> _Step:
        source = self.source
        begin = source.position
        kind = source.integer()
        if kind == NIL:
            return None
        if kind == NUMBER:
            return number(source.double())
        if kind == STRING:
            return text(source.characters(source.integer()))
        if kind == BOOLEAN:
            return source.integer() == 1
        if kind == OLD_FUNCTION:
            return (yield self.function(kind))
        if kind not in (TABLE, TORCH, LEGACY_FUNCTION, FUNCTION):
            source.fail(f"has an object of the kind {kind}, expected 0 to 8,", begin)
        index = source.integer()
        if index in self.known:
            return self.known[index]
        if kind == TABLE:
            return (yield self.table(index))
        if kind == TORCH:
            return (yield self.torch_object(index))
        return (yield self.function(kind, index))

    def function(self, kind: int, index: int | None = None) -> _Step:
        made = Function(self.source.characters(self.source.integer()), kind=kind)
        self.holders.append(made)
        if index is not None:
            self.known[index] = made
        made.upvalues = yield self.object()
        return made

    def table(self, index: int) -> _Step:
        source = self.source
        begin = source.position
        count = source.integer()
        if not 0 <= count <= (source.size - begin) // _SMALLEST_PAIR:
            source.fail(
                f"promises a table of {count} entries, but has {source.size - begin} bytes left", begin
            )
        table = Table()
        self.known[index] = table
        self.tables.append(table)
        if count >= _LONG:
            table.items += [(number(key), number(value)) for key, value in source.number_pairs(count)]
        for _ in range(count - len(table.items)):
            at = source.position
            key = yield self.object()
            if key is None or (isinstance(key, float) and math.isnan(key)):
                source.fail(f"has a table with the key {'nil' if key is None else 'NaN'}", at)
            value = yield self.object()
            if value is not None:
                table.items.append((key, value))
        return table

    def torch_object(self, index: int) -> _Step:
        begin = self.source.position
        version, typename = 0, self.name()
        # Files of before 2012 have the name of the class here.
        if found := re.fullmatch(r"V ([0-9]{1,9})", typename):
            version, typename = int(found[1]), self.name()
        kind = element_type(typename)
        if kind:
            return (yield (self.tensor if kind[1] == "Tensor" else self.storage)(index, kind[0]))
        made = TorchObject(typename, version=version)
        self.known[index] = made
        self.holders.append(made)
        if typename in TDS:
            yield self.tds(made, typename == "tds.Hash")
            return made
        payload = yield self.object()
        if not isinstance(payload, Table):
            self.source.fail(
                f"has an object of the class {typename!a} without a table of fields; "
                "the class writes itself in a way of its own, which is not known here,",
                begin,
            )
        if not all(is_name(key) for key, _item in payload.items):
            self.source.fail(f"has an object of the class {typename!a} with a field that has no name", begin)
        made.fields = dict(payload.items)
        return made

    def name(self) -> str:
        begin = self.source.position
        length = self.source.integer()
        if not 0 < length <= _LONGEST_NAME:
            self.source.fail(f"has a class name of {length} bytes", begin)
        return text(self.source.characters(length))

    def tds(self, made: TorchObject, pairs: bool) -> _Step:
        """The entries of torch/tds's vector, or of its hash table, as one table in the field "items"."""
        begin = self.source.position
        (count,) = self.source.longs(1)
        if not 0 <= count <= self.source.size - begin:
            self.source.fail(f"promises {count} entries of a tds object", begin)
        table = Table()
        self.tables.append(table)
        made.fields["items"] = table
        for place in range(count):
            key = (yield self.object()) if pairs else place + 1
            table.items.append((key, (yield self.object())))

    def storage(self, index: int, type_name: str) -> _Step:
        begin = self.source.position
        (count,) = self.source.longs(1)
        if not 0 <= count <= self.source.size:
            self.source.fail(f"promises a storage of {count} elements", begin)
        made = Storage(self.source.elements(type_name, count))
        self.known[index] = made
        return made
        yield  # a step like the others

    def tensor(self, index: int, type_name: str) -> _Step:
        source = self.source
        begin = source.position
        dimensions = source.integer()
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            source.fail(f"has a tensor of {dimensions} dimensions, expected 0 to {MOST_DIMENSIONS},", begin)
        shape, strides = source.longs(dimensions), source.longs(dimensions)
        (offset,) = source.longs(1)
        self.known[index] = None  # a tensor that holds itself is broken
        storage = yield self.object()
        if storage is None and not dimensions:
            storage = Storage(np.empty(0, DTYPES[type_name]))
        if not isinstance(storage, Storage) or TYPE_NAMES[storage.values.dtype] != type_name:
            source.fail(f"has a tensor of the shape {shape} without a storage of {type_name} elements", begin)
        self.known[index] = self.view(storage.values, shape, strides, offset - 1, begin)
        return self.known[index]

    def view(
        self, storage: NDArray[Any], shape: list[int], strides: list[int], offset: int, begin: int
    ) -> NDArray[Any]:
        """The elements that a tensor shows of its storage; `offset` counts from 0."""
        if not shape:
            return storage[:0]
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if min(shape) < 1 or min(strides) < 0 or offset < 0 or last >= storage.size:
            self.source.fail(
                f"has a tensor of the shape {shape}, the strides {strides} and the offset {offset + 1}, "
                f"which do not fit its storage of {storage.size} elements,",
                begin,
            )
        self.growth += max(0, math.prod(shape) - storage.size) * storage.itemsize
        if self.growth > max(_SMALL, _MOST_GROWTH * self.source.size):
            self.source.fail(
                f"has a tensor of the shape {shape} on {storage.size} elements; this is no model", begin
            )
        places = [stride * storage.itemsize for stride in strides]
        view: NDArray[Any] = np.ndarray(shape, storage.dtype, storage, offset * storage.itemsize, places)
        return view


def text(characters: bytes) -> str:
    """A Lua string; bytes that are no UTF-8 become lone surrogates (PEP 383)."""
    return characters.decode("utf-8", "surrogateescape")


def number(value: float) -> int | float:
    """An int where that says the same: Lua has doubles only."""
    if value.is_integer() and abs(value) <= _LARGEST and not (value == 0 and math.copysign(1, value) < 0):
        return int(value)
    return value

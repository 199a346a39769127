"""MATLAB's level 5 MAT-files (versions 5 to 7), read in place with numpy alone.

After "MAT-File Format" (The MathWorks, matfile_format.pdf), in its words: data elements with tags, miMATRIX,
array flags. Struct arrays become lists of dicts and cell arrays lists, both in MATLAB's order, column by
column; char arrays become str, numeric ones arrays. Notes: numbers may be stored in a smaller type than
the array's own, and level 7 files are zlib streams whose promised sizes need not be true. Nothing is believed
that the file's bytes do not hold, nesting is bounded, and a variable that is not asked for stays packed.

Why not scipy.io.loadmat: of 3,300 small networks with a few changed bytes, SciPy 1.17.1 died of 26 (a segmentation
fault or a bus error) and hung on 5, and others raised ten kinds of errors, some after 14 seconds and 770 MB. On a
sound VGG-19 of 576 MB it was half as fast, and held 658 MB where this reader holds 83.
"""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Collection
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError, IncompleteError
from legacy_style.files import reading

# A cell or struct array is a list, a struct array one of dicts; None stands for what has no use here
# (functions).
Value = Any

_HEADER = 128
_MI_INT8, _MI_UINT8, _MI_UINT16, _MI_INT32, _MI_UINT32 = 1, 2, 4, 5, 6
_MI_MATRIX, _MI_COMPRESSED, _MI_UTF8, _MI_UTF16, _MI_UTF32 = 14, 15, 16, 17, 18
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {
    _MI_INT8: "latin-1",
    _MI_UINT8: "latin-1",
    _MI_UINT16: "utf-16",
    _MI_UTF8: "utf-8",
    _MI_UTF16: "utf-16",
    _MI_UTF32: "utf-32",
}
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE = 1, 2, 3, 4, 5
# mxDOUBLE_CLASS ... mxUINT64_CLASS
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}

# Networks nest five or six deep and have a few thousand cells and fields, most of them the classes' names.
_DEEPEST = 32
_MOST_ITEMS = 200_000
_MOST_AXES = 32

# Weights hardly compress; thin test networks do. Small variables may grow to 16 MiB, others by this factor.
_MOST_GROWTH = 20
_SMALL = 1 << 24
_CHUNK = 1 << 20


def is_level_5(head: bytes) -> bool:
    """Whether a file that begins with `head` (at least 128 bytes) is a level 5 MAT-file."""
    return _byte_order(head) is not None


def read(path: str, variables: Collection[str], file: BinaryIO | None = None) -> dict[str, Value]:
    """The variables of these names, those that the file has; `file` is the one at `path` where it is open already.

    Numeric arrays are views of the file, in MATLAB's shape (column-major) and read-only; complex and sparse
    ones, functions and objects of classes are None. Raises FormatError where the file is broken.
    """
    with reading(path, file) as opened:
        head = opened.read(_HEADER)
        order = _byte_order(head)
        if order is None:
            raise FormatError(
                f"{path}: is no MAT-file of level 5, which begins with a header of {_HEADER} bytes"
            )
        buffer = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    found: dict[str, Value] = {}
    top = _Source(path, buffer, order, "")
    position = _HEADER
    while position < len(buffer):
        element = top.element(position, len(buffer))
        source = top
        if element.type == _MI_COMPRESSED:
            source = _Source(
                path, _unpack(top, element, variables), order, f" of the variable packed at byte {position}"
            )
            inner = source.element(0, len(source.buffer)) if len(source.buffer) else None
        else:
            inner = element
        if inner is not None:
            if inner.type != _MI_MATRIX:
                source.fail(f"holds an element of type {inner.type}, expected a matrix", inner.begin)
            name, value = source.variable(inner, variables)
            if name in found:
                source.fail(f"holds the variable {name} twice", inner.begin)
            if name in variables:
                found[name] = value
        position = element.after
    return found


class _Element(NamedTuple):
    """A data element: the type in its tag, where its data begin and end, and where the next one begins."""

    type: int
    begin: int
    end: int
    after: int


class _Source:
    """Bytes that hold elements: a file's, or those of one unpacked variable."""

    def __init__(self, path: str, buffer: memoryview, order: str, within: str) -> None:
        self.path = path
        self.buffer = buffer
        self.order = order
        self.within = within
        self.items = 0  # cells and fields so far

    def fail(self, what: str, position: int) -> NoReturn:
        raise FormatError(f"{self.path}: {what} (byte {position}{self.within})")

    def fail_at_end(self, what: str, position: int, end: int) -> NoReturn:
        """Raise for what reaches beyond `end`: where that is the whole file's, it is incomplete."""
        if end == len(self.buffer) and not self.within:
            raise IncompleteError(self.path, f"{what}, byte {position}")
        self.fail(what, position)

    def numbers(self, element: _Element) -> NDArray[Any]:
        """The numbers of a numeric element, as they are stored."""
        kind = _NUMBERS.get(element.type)
        if kind is None:
            self.fail(f"holds an element of type {element.type}, expected numbers", element.begin)
        dtype = np.dtype(self.order + kind)
        if (element.end - element.begin) % dtype.itemsize:
            self.fail(f"holds {element.end - element.begin} bytes of {dtype} numbers", element.begin)
        return np.frombuffer(self.buffer[element.begin : element.end], dtype)

    def element(self, position: int, end: int) -> _Element:
        """The element at `position`, which must end before `end`."""
        if position + 8 > end:
            self.fail_at_end("ends where a data element should follow", position, end)
        first, length = (int(n) for n in np.frombuffer(self.buffer, self.order + "u4", 2, position))
        if first >> 16:
            # A small data element: length and type share four bytes, the data follow in the tag itself.
            kind, length, begin, after = first & 0xFFFF, first >> 16, position + 4, position + 8
            if length > 4:
                self.fail(f"has a small data element of {length} bytes, expected at most 4", position)
        else:
            kind, begin = first, position + 8
            after = begin + length
            if kind != _MI_COMPRESSED:
                after += -length % 8
        if begin + length > end:
            self.fail_at_end(f"has an element of {length} bytes where {end - begin} are left", position, end)
        # Some writers leave out the last element's padding.
        return _Element(kind, begin, begin + length, min(after, end))

    def variable(
        self, element: _Element, wanted: Collection[str] | None = None, depth: int = 0
    ) -> tuple[str, Value]:
        """Name and value of a miMATRIX element; the value is None where the name is not `wanted`."""
        if element.begin == element.end:
            return "", np.empty((0, 0))
        if depth > _DEEPEST:
            self.fail(f"nests cells and structs more than {_DEEPEST} deep", element.begin)
        part = self.element(element.begin, element.end)
        flags = self.numbers(part)
        if part.type != _MI_UINT32 or not flags.size:
            self.fail("has a matrix without array flags", element.begin)
        kind, is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & 0x800)
        if kind > 15:
            # Function handles and objects of newer classes have no dimensions.
            return "", None
        part = self.element(part.after, element.end)
        shape = tuple(int(n) for n in self.numbers(part))
        if part.type != _MI_INT32 or min(shape, default=-1) < 0 or len(shape) > _MOST_AXES:
            self.fail(f"has a matrix of the dimensions {shape}", part.begin)
        part = self.element(part.after, element.end)
        name = self.text(part)
        if wanted is not None and name not in wanted:
            return name, None
        return name, self._value(kind, is_complex, shape, part.after, element.end, depth)

    def text(self, element: _Element) -> str:
        """The characters of an element."""
        encoding = _TEXT.get(element.type)
        if encoding is None:
            self.fail(f"holds an element of type {element.type}, expected characters", element.begin)
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self.order == "<" else "-be"
        return bytes(self.buffer[element.begin : element.end]).decode(encoding, "replace")

    def _value(
        self, kind: int, is_complex: bool, shape: tuple[int, ...], position: int, end: int, depth: int
    ) -> Value:
        if kind in _CLASSES:
            values = self.numbers(part := self.element(position, end))
            if values.size != math.prod(shape):
                self.fail(f"has {values.size} numbers for a matrix of the dimensions {shape}", part.begin)
            return None if is_complex else self._cast(values, kind).reshape(shape, order="F")
        if kind == _CHAR:
            return self.text(self.element(position, end)) if math.prod(shape) else ""
        if kind == _CELL:
            return self._matrices(math.prod(shape), position, end, depth)[0]
        if kind in (_STRUCT, _OBJECT):
            return self._structs(kind, math.prod(shape), position, end, depth)
        return None

    def _cast(self, values: NDArray[Any], kind: int) -> NDArray[Any]:
        """The numbers in their array's own type; a copy only where they were stored in another."""
        return values.astype(self.order + _CLASSES[kind], copy=False)

    def _matrices(self, count: int, position: int, end: int, depth: int) -> tuple[list[Value], int]:
        """The values of `count` matrices in a row, and the position after them."""
        self.items += count
        # Every one has a tag of eight bytes.
        if count * 8 > end - position or self.items > _MOST_ITEMS:
            self.fail(f"promises {count} cells or fields where {end - position} bytes are left", position)
        values = []
        for _ in range(count):
            element = self.element(position, end)
            if element.type != _MI_MATRIX:
                self.fail(f"holds an element of type {element.type}, expected a cell or a field", position)
            values.append(self.variable(element, depth=depth + 1)[1])
            position = element.after
        return values, position

    def _structs(self, kind: int, count: int, position: int, end: int, depth: int) -> list[dict[str, Value]]:
        if kind == _OBJECT:
            position = self.element(position, end).after  # its class
        length_element = self.element(position, end)
        length = self.numbers(length_element)
        names_element = self.element(length_element.after, end)
        names = bytes(self.buffer[names_element.begin : names_element.end])
        if length.size != 1 or int(length[0]) < 1 or len(names) % int(length[0]):
            self.fail("has a struct without readable field names", length_element.begin)
        step = int(length[0])
        fields = [
            names[at : at + step].split(b"\0", 1)[0].decode("latin-1") for at in range(0, len(names), step)
        ]
        values, _ = self._matrices(count * len(fields), names_element.after, end, depth)
        if not fields:
            return []
        return [
            dict(zip(fields, values[at : at + len(fields)], strict=True))
            for at in range(0, len(values), len(fields))
        ]


def _byte_order(head: bytes) -> str | None:
    """ "<" or ">" of a level 5 header; None where it is none."""
    if len(head) < _HEADER:
        return None
    return {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(head[124:128])


def _unpack(top: _Source, element: _Element, variables: Collection[str]) -> memoryview:
    """The bytes of a compressed variable, none where it is not wanted."""
    packed = top.buffer[element.begin : element.end]
    size = len(packed)
    try:
        # Enough for the tag, the flags, the dimensions and the name.
        beginning = memoryview(zlib.decompressobj().decompress(packed[:4096], 2048))
        if len(beginning) < 8:
            top.fail("holds a variable that unpacks to nothing", element.begin)
        length = 8 + int(np.frombuffer(beginning, top.order + "u4", 2)[1])
        peek = _Source(top.path, beginning, top.order, f" of the variable packed at byte {element.begin - 8}")
        name = peek.variable(_Element(_MI_MATRIX, 8, len(beginning), len(beginning)), ())[0]
        if name not in variables:
            return memoryview(b"")
        if length > max(_SMALL, _MOST_GROWTH * size):
            top.fail(
                f"holds a variable of {size} bytes that would unpack to {length}; this is no model",
                element.begin,
            )
        return _inflate(packed, length).data
    except zlib.error as error:
        raise FormatError(f"{top.path}: holds a damaged variable at byte {element.begin}: {error}") from error


def _inflate(packed: memoryview, length: int) -> NDArray[np.uint8]:
    """`length` bytes, or as many as there are, unpacked piece by piece into their place."""
    whole = np.empty(length, np.uint8)
    filled = 0
    stream = zlib.decompressobj()
    for at in range(0, len(packed), _CHUNK):
        pending: bytes | memoryview = packed[at : at + _CHUNK]
        while pending and filled < length:
            piece = stream.decompress(pending, min(_CHUNK, length - filled))
            whole[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
            pending = stream.unconsumed_tail
        if filled == length or stream.eof:
            break
    return whole[:filled]

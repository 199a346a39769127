"""safetensors files of weights, read lazily and written: a JSON header with names, shapes and places, then numbers.

Follows https://huggingface.co/docs/safetensors (format): eight bytes with the header's length, the header, which begins
with "{" and may end with blanks, then the tensors' bytes, little-endian, without holes. The list of layers travels as
prototxt text in the header's `__metadata__`.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError, IncompleteError
from legacy_style.files import reading
from legacy_style.formats.caffe.netparam import Blob

# The official limit is 100 MB; a network of ten thousand tensors takes one.
_LONGEST_HEADER = 1 << 24

_METADATA, _OURS = "__metadata__", "legacy_style"

# Bytes of one number, by type.
_WIDTHS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
_FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins with `head` (nine bytes or more) is one, or claims to be."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000


def read(path: str, file: BinaryIO | None = None) -> tuple[dict[str, Blob], str | None]:
    """Name -> lazy float32 blob, for every tensor of floating-point numbers; and the prototxt, if any.

    `file` is the one at `path` where it is open already. Raises FormatError where the header is broken or does not
    describe every byte once, IncompleteError where the file ends too early.
    """
    with reading(path, file) as opened:
        start = opened.read(9)
        if not is_safetensors(start):
            raise FormatError(f"{path}: is no safetensors file, which begins with a length and {{")
        buffer = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(start[:8], "little")
    if length > _LONGEST_HEADER:
        raise FormatError(f"{path}: has a header of {length} bytes, expected at most {_LONGEST_HEADER}")
    if 8 + length > len(buffer):
        raise IncompleteError(path, f"its header takes {length} bytes, but {len(buffer) - 8} follow")
    header = _header(buffer[8 : 8 + length], path)
    metadata = header.pop(_METADATA, {})
    _check_metadata(metadata, path)
    blobs: dict[str, Blob] = {}
    places = []
    for name, entry in header.items():
        kind, shape, begin, end = _entry(name, entry, path)
        places.append((begin, end, name))
        if kind in _FLOATS:
            values = partial(_values, buffer, kind, 8 + length + begin, shape)
            blobs[name] = Blob(shape, values, math.prod(shape), offset=8 + length + begin)
    _check_places(places, len(buffer) - 8 - length, path)
    if not blobs:
        raise FormatError(f"{path}: holds no tensor of floating-point numbers, expected a network's weights")
    return blobs, metadata.get(_OURS)


def write(
    file: BinaryIO,
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Iterable[tuple[str, NDArray[Any]]],
    prototxt: str,
    *,
    half: bool,
) -> None:
    """Writes the arrays, which are float32 (float16 if `half`) and have these shapes, one after the other.

    The same arrays give the same bytes. `prototxt` is kept unless it is empty.
    """
    kind = "F16" if half else "F32"
    header: dict[str, Any] = {_METADATA: {"format": "pt", **({_OURS: prototxt} if prototxt else {})}}
    begin = 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape) * _WIDTHS[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for _, array in arrays:
        file.write(array.astype(_FLOATS[kind], copy=False).tobytes())


def _header(text: bytes, path: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("it has one name twice")
        return found

    try:
        header = json.loads(text.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its header is no proper JSON: {error}") from error
    if not isinstance(header, dict):
        raise FormatError(
            f"{path}: its header is a {type(header).__name__}, expected names and their tensors"
        )
    return header


def _check_metadata(metadata: Any, path: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{path}: its {_METADATA} is not made of strings")


def _entry(name: str, entry: Any, path: str) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, and where the tensor's bytes begin and end after the header; they are as many as these need."""
    where = f"{path}: the tensor {name!r}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise FormatError(
            f"{where} is described by {str(entry)[:80]}, expected dtype, shape and data_offsets"
        )
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _WIDTHS:
        raise FormatError(f"{where} has the type {str(kind)[:20]!r}, expected one of {', '.join(_WIDTHS)}")
    if not _whole(shape) or len(shape) > 32:
        raise FormatError(f"{where} has the shape {str(shape)[:80]}, expected a list of whole numbers")
    if not _whole(offsets) or len(offsets) != 2:
        raise FormatError(
            f"{where} has the data_offsets {str(offsets)[:80]}, expected where it begins and ends"
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * _WIDTHS[kind]:
        raise FormatError(
            f"{where} has the shape {shape} of {kind}, which takes {math.prod(shape) * _WIDTHS[kind]} bytes, but its"
            f" data_offsets {offsets} are {end - begin} apart"
        )
    return kind, tuple(shape), begin, end


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)


def _check_places(places: list[tuple[int, int, str]], size: int, path: str) -> None:
    """Raise unless the tensors follow one another from the first byte to the last of `size`."""
    position = 0
    for begin, end, name in sorted(places):
        if begin != position:
            what = "overlaps what is" if begin < position else "leaves a hole"
            raise FormatError(
                f"{path}: the tensor {name!r} begins at byte {begin} and {what} before it ({position})"
            )
        position = end
    if position > size:
        raise IncompleteError(path, f"its tensors take {position} bytes, but {size} follow the header")
    if position < size:
        raise FormatError(f"{path}: {size - position} bytes follow the last tensor, expected none")


def _values(buffer: mmap.mmap, kind: str, offset: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    numbers: NDArray[Any] = np.frombuffer(
        memoryview(buffer), _FLOATS[kind], math.prod(shape), offset
    ).reshape(shape)
    if kind == "BF16":
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a double beyond float32's range becomes infinite, as elsewhere
        return numbers.astype(np.float32, copy=False)

"""Binary network files, .caffemodel: read in place, and written.

A file is mapped into memory; opening it reads layers and the headers of their blobs, a blob's numbers stay in
the file until `Blob.data` asks. V0, V1 and V2 files alike become one NetParameter of V2 layers (`upgrade`).

Ports caffe/blob.cpp Blob<Dtype>::FromProto: `double_data` outweighs `data`, num/channels/height/width
outweigh `shape`; a layer's blobs may have either form whatever the version of the layer. The file must not be
overwritten in place while blobs of it are in use.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legacy_style.caffe import upgrade, wire
from legacy_style.caffe.netparam import Blob, NetParameter, blob_shape
from legacy_style.errors import FormatError

# Field numbers of BlobProto.
_LEGACY = {1: "num", 2: "channels", 3: "height", 4: "width"}
_SHAPE = 7
# Field number -> type of its numbers. Gradients (diff, double_diff) are passed over.
_NUMBERS: dict[int, np.dtype[Any]] = {
    5: np.dtype("<f4"),
    6: np.dtype("<f4"),
    8: np.dtype("<f8"),
    9: np.dtype("<f8"),
}
_DATA, _DOUBLE_DATA = 5, 8

# Where numbers lie: position of the first, how many, bytes from one to the next.
Segment = tuple[int, int, int]


def read(path: str | os.PathLike[str]) -> NetParameter:
    """Read a .caffemodel of any version.

    Raises FormatError for a broken file, or one of another kind; OSError where it cannot be opened.
    """
    name = os.fspath(path)
    with Path(name).open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise FormatError(f"{name}: the file is empty, expected a .caffemodel")
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return parse(buffer, path=name)


def parse(buffer: bytes | mmap.mmap, *, path: str = "") -> NetParameter:
    """Read the bytes of a .caffemodel; its blobs keep `buffer` alive. `path` is for error messages."""
    source = wire.Source(buffer, path)
    try:
        message = wire.decode(source, 0, len(buffer), "NetParameter", {"BlobProto": read_blob})
    except FormatError as error:
        raise _explained(error, buffer, path) from error
    return upgrade.net_parameter(message, path)


def _explained(error: FormatError, buffer: bytes | mmap.mmap, path: str) -> FormatError:
    """A better message where the file is plainly of another kind."""
    head = bytes(buffer[:512])
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return FormatError(f"{path}: this is an HDF5 file; save the network as .caffemodel, without .h5")
    if head.lstrip()[:1] == b"<":
        return FormatError(f"{path}: this is a web page, not a .caffemodel; download the file anew")
    if not head.translate(None, bytes(range(32, 127)) + b"\t\n\r"):
        return FormatError(f"{path}: this is text, not a .caffemodel; is it a prototxt?")
    return error


def read_blob(source: wire.Source, start: int, end: int) -> Blob:
    """The BlobProto in bytes `start` to `end`, its numbers left where they are."""
    legacy: dict[int, int] = {}
    dims: list[int] | None = None
    segments: dict[int, list[Segment]] = {_DATA: [], _DOUBLE_DATA: []}
    pos = start
    while pos < end:
        at = pos
        number, wire_type, pos = wire.read_tag(source, pos, end)
        value, begin, pos = wire.read_payload(source, pos, end, number, wire_type)
        if number in _LEGACY and wire_type == wire.VARINT and value is not None:
            legacy[number] = wire.int32(value)
        elif number == _SHAPE and wire_type == wire.LEN:
            shape = wire.decode(source, begin, pos, "BlobShape")
            dims = (dims or []) + shape["dim"]
        elif number in _NUMBERS:
            segment, pos = _segment(source, at, begin, pos, end, number, wire_type)
            if segment is not None and number in segments:
                segments[number].append(segment)
    used = _DOUBLE_DATA if segments[_DOUBLE_DATA] else _DATA
    count = sum(segment[1] for segment in segments[used])
    shape4 = tuple(legacy.get(number) for number in _LEGACY)
    return Blob(
        blob_shape(shape4, dims, count),
        _values(source.buffer, segments[used], _NUMBERS[used]),
        count,
        legacy=bool(legacy),
        has_shape=dims is not None,
        offset=start,
    )


def _segment(
    source: wire.Source, at: int, begin: int, after: int, end: int, number: int, wire_type: int
) -> tuple[Segment | None, int]:
    """Numbers from the tag at `at` on, None if there are none; and the position after them."""
    width = _NUMBERS[number].itemsize
    if wire_type == wire.LEN:
        wire.check_packed(source, begin, after, width)
        count = (after - begin) // width
        return ((begin, count, width) if count else None), after
    if wire_type == (wire.I32 if width == 4 else wire.I64):
        if begin - at != 1:
            # The tag takes more bytes than it need; nothing writes that.
            return (begin, 1, width), after
        count = wire.run_length(source, at, end, width)
        return (begin, count, width + 1), at + count * (width + 1)
    return None, after


def _values(
    buffer: bytes | mmap.mmap, segments: list[Segment], dtype: np.dtype[Any]
) -> Callable[[], NDArray[np.float32]]:
    def values() -> NDArray[np.float32]:
        parts = [np.ndarray(count, dtype, buffer, at, (stride,)) for at, count, stride in segments]
        if len(parts) == 1 and parts[0].strides == (4,):
            whole: NDArray[np.float32] = parts[0].astype(np.float32, copy=False)
            return whole
        return np.concatenate([np.empty(0, np.float32), *parts], dtype=np.float32, casting="same_kind")

    return values

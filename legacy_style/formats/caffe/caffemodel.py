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
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError, IncompleteError, UnsupportedError
from legacy_style.files import reading, replacing
from legacy_style.formats.caffe import messages, upgrade, wire
from legacy_style.formats.caffe.netparam import Blob, Message, NetParameter, blob_shape

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

# The first tag of a network file: its name, V1 layers, V2 layers.
_BEGINNINGS = (b"\x0a", b"\x12", b"\xa2\x06")

# None where there is no madvise, as on Windows.
_DONTNEED: int | None = getattr(mmap, "MADV_DONTNEED", None)

# Where numbers lie: position of the first, how many, bytes from one to the next.
Segment = tuple[int, int, int]


def read(path: str | os.PathLike[str], file: BinaryIO | None = None) -> NetParameter:
    """Read a .caffemodel of any version; `file` is the one at `path` where it is open already.

    Raises FormatError for a broken file or one of another kind, IncompleteError for one that ends too early, OSError
    where it cannot be opened.
    """
    name = os.fspath(path)
    with reading(name, file) as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            raise FormatError(f"{name}: the file is empty, expected a .caffemodel")
        buffer = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return parse(buffer, path=name)


def parse(buffer: bytes | mmap.mmap, *, path: str = "") -> NetParameter:
    """Read the bytes of a .caffemodel; its blobs keep `buffer` alive. `path` is for error messages."""
    source = wire.Source(buffer, path)
    try:
        message = wire.decode(source, 0, len(buffer), "NetParameter", {"BlobProto": read_blob})
    except FormatError as error:
        if source.cut and (source.messages > 1 or bytes(buffer[:2]).startswith(_BEGINNINGS)):
            raise IncompleteError(path, str(error).removeprefix(f"{path}: ")) from error
        raise _explained(error, buffer, path) from error
    return upgrade.net_parameter(message, path)


def _explained(error: FormatError, buffer: bytes | mmap.mmap, path: str) -> FormatError:
    """A better message where the file is plainly of another kind."""
    head = bytes(buffer[:512])
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return FormatError(f"{path}: this is an HDF5 file; save the network as .caffemodel, without .h5")
    if head.lstrip()[:1] == b"<":
        return FormatError(f"{path}: this is a web page, not a .caffemodel; download the file anew")
    if head.strip() and not head.translate(None, bytes(range(32, 127)) + b"\t\n\r"):
        return FormatError(f"{path}: this is text, not a .caffemodel; is it a prototxt?")
    return error


def read_blob(source: wire.Source, start: int, end: int) -> Blob:
    """The BlobProto in bytes `start` to `end`, its numbers left where they are."""
    source.enter_message(start)
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
        release=lambda: _release(source.buffer, start, end),
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
        # A double beyond float32's range becomes infinite, as in C.
        with np.errstate(over="ignore"):
            return np.concatenate([np.empty(0, np.float32), *parts], dtype=np.float32, casting="same_kind")

    return values


def _release(buffer: bytes | mmap.mmap, start: int, end: int) -> None:
    """Give back the memory that holds these bytes of a mapped file; the next access reads them anew."""
    if isinstance(buffer, mmap.mmap) and _DONTNEED is not None:
        begin = start - start % mmap.PAGESIZE
        buffer.madvise(_DONTNEED, begin, end - begin)


def write(path: str | os.PathLike[str], net: NetParameter, version: str = "V2") -> None:
    """Write a network as a .caffemodel with V2 or V1 layers, to a temporary file first.

    Weights are written as float32, one blob at a time. V1 blobs have num/channels/height/width where four
    numbers are enough, V2 blobs `shape`; the leading ones that an old bias (1, 1, 1, C) or the weights
    (1, 1, N, K) of an InnerProduct layer have go with that form, as Caffe compares shapes when it loads them.
    Raises UnsupportedError for a layer that V1 cannot describe, FormatError for a blob whose shape does not
    fit its values.
    """
    if version not in ("V1", "V2"):
        raise UnsupportedError(f'a .caffemodel can be written as "V1" or "V2", not as "{version}"')
    message = messages.net_message(net, version)
    for layer in message["layers"] or message["layer"]:
        blobs = [
            _without_legacy_axes(blob, layer["type"], index) if version == "V2" else blob
            for index, blob in enumerate(layer["blobs"])
        ]
        for index, blob in enumerate(blobs):
            blob.check(f'{net.path}: blob {index} of layer "{layer["name"]}"')
        layer.values["blobs"] = blobs
    with replacing(path) as file:
        for part in wire.encode(message, _encode_blob if version == "V2" else _encode_v1_blob):
            file.write(part.make() if isinstance(part, wire.Payload) else part)


def _without_legacy_axes(blob: Blob, layer_type: str, index: int) -> Blob:
    if blob.legacy and index > 0 and blob.shape[:3] == (1, 1, 1):
        return blob.reshaped(blob.shape[3:])
    if blob.legacy and layer_type == "InnerProduct" and blob.shape[:2] == (1, 1):
        return blob.reshaped(blob.shape[2:])
    return blob


def _encode_blob(blob: Blob) -> list[wire.Part]:
    # In the order of the field numbers: data is 5, shape is 7.
    return [*_encode_data(blob), *wire.encode(_shape_message(blob.shape))]


def _encode_v1_blob(blob: Blob) -> list[wire.Part]:
    if len(blob.shape) > len(_LEGACY):
        return _encode_blob(blob)
    dims = (1,) * (len(_LEGACY) - len(blob.shape)) + blob.shape
    legacy = dict(zip(_LEGACY.values(), dims, strict=True))
    return [*wire.encode(Message("BlobProto", **legacy)), *_encode_data(blob)]


def _shape_message(shape: tuple[int, ...]) -> Message:
    return Message("BlobProto", shape=Message("BlobShape", dim=list(shape)))


def _encode_data(blob: Blob) -> list[wire.Part]:
    if blob.count == 0:
        return []
    size = 4 * blob.count

    def data() -> memoryview:
        return blob.copy().reshape(-1).astype("<f4", copy=False).view(np.uint8).data

    return [wire.header(_DATA, size), wire.Payload(size, data)]

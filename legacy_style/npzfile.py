"""NumPy archives (.npz) of weights, read lazily and without pickle.

Surprises: what np.savez wrote lies in the file as it is and is mapped, not read; what np.savez_compressed
wrote is unpacked when it is asked for. The list of layers travels as prototxt text in the archive's comment,
where np.load does not see it.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from functools import partial
from typing import IO, Any, BinaryIO, Literal, NamedTuple
from zipfile import ZipInfo

import numpy as np
from numpy.typing import NDArray

from legacy_style import archives
from legacy_style.caffe.netparam import Blob
from legacy_style.errors import FormatError, UnsupportedError

# What a zip's comment can hold, and what ours begins with.
LONGEST_COMMENT = 65535
_MARK = "# legacy_style: the layers of these weights\n"

_UNPACKING = (zipfile.BadZipFile, zlib.error, EOFError, OSError)


def read(path: str) -> tuple[dict[str, Blob], str | None]:
    """Array name -> lazy float32 blob, for every array of floating-point numbers; and the prototxt, if any.

    Raises FormatError where the archive or an array's header is broken or promises more than there is.
    """
    blobs: dict[str, Blob] = {}
    members = archives.members(path)
    with zipfile.ZipFile(path) as archive:
        comment = archive.comment.decode("utf-8", "replace")
        for name, info in members.items():
            if not name.endswith(".npy"):
                continue
            try:
                with archive.open(info) as member:
                    header = _header(member, info.file_size, f"{path}: {name}")
            except _UNPACKING as error:
                raise FormatError(f"{path}: {name} cannot be unpacked: {error}") from error
            if header.dtype.kind == "f":
                blobs[name.removesuffix(".npy")] = _blob(path, info, header)
    if not blobs:
        raise FormatError(f"{path}: holds no array of floating-point numbers, expected a network's weights")
    return blobs, comment.removeprefix(_MARK) if comment.startswith(_MARK) else None


def write(file: BinaryIO, arrays: Iterable[tuple[str, NDArray[Any]]], prototxt: str) -> None:
    """Writes the arrays one after the other, as np.savez has them, and `prototxt` unless it is empty.

    The same arrays give the same bytes.

    Raises UnsupportedError where the prototxt is too long for an archive's comment.
    """
    comment = (_MARK + prototxt).encode() if prototxt else b""
    if len(comment) > LONGEST_COMMENT:
        raise UnsupportedError(
            f"the network's list of layers takes {len(comment)} bytes, and an .npz has room for "
            f"{LONGEST_COMMENT}; "
            "write a .pth or a .caffemodel"
        )
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays:
            # A ZipInfo of one's own is dated 1980, so that equal networks give equal files.
            with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), version=(1, 0), allow_pickle=False)
        archive.comment = comment


class _Header(NamedTuple):
    """Shape, order and type of one array, the bytes that come before its numbers, and how many these are."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    length: int
    size: int


def _header(member: IO[bytes], size: int, where: str) -> _Header:
    """The array's header, held against the `size` of the whole member."""
    try:
        version = np.lib.format.read_magic(member)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(member)
        else:
            raise ValueError(f"its format version is {version}, expected (1, 0) or (2, 0)")
    # NumPy evaluates the header as a Python literal, which fails in as many ways as Python can be misspelt.
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise FormatError(f"{where} has no readable header: {error}") from error
    length = member.tell()
    if dtype.hasobject or min(shape, default=0) < 0:
        raise FormatError(
            f"{where} has the type {dtype} and the shape {shape}, expected numbers and no negative size"
        )
    expected = math.prod(shape) * dtype.itemsize
    if expected != size - length:
        raise FormatError(
            f"{where} has the shape {shape} of {dtype}, which takes {expected} bytes, but {size - length} "
            "follow"
        )
    return _Header(shape, "F" if fortran else "C", dtype, length, math.prod(shape))


def _blob(path: str, info: ZipInfo, header: _Header) -> Blob:
    if info.compress_type == zipfile.ZIP_STORED and header.size:
        values = partial(_map, path, header, archives.data_offset(path, info) + header.length)
    else:
        values = partial(_unpack, path, info, header)
    return Blob(header.shape, values, header.size)


def _map(path: str, header: _Header, offset: int) -> NDArray[np.float32]:
    values = np.memmap(path, header.dtype, "r", offset, header.shape, header.order)
    return np.ascontiguousarray(values, dtype=np.float32)


def _unpack(path: str, info: ZipInfo, header: _Header) -> NDArray[np.float32]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(info) as member:
            numbers = np.frombuffer(member.read()[header.length :], dtype=header.dtype)
        values = numbers.reshape(header.shape, order=header.order)
    except (*_UNPACKING, ValueError) as error:
        raise FormatError(f"{path}: {info.filename} cannot be unpacked: {error}") from error
    return np.ascontiguousarray(values, dtype=np.float32)

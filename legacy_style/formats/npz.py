"""NumPy archives (.npz) of weights, read lazily and without pickle.

Notes: what np.savez wrote lies in the file as it is and is mapped, not read; what np.savez_compressed
wrote is unpacked when it is asked for. The list of layers travels as prototxt text in the archive's comment,
where np.load does not see it.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import re
import zipfile
import zlib
from collections.abc import Iterable
from functools import partial
from typing import IO, Any, BinaryIO, Literal, NamedTuple
from zipfile import ZipInfo

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError, UnsupportedError
from legacy_style.files import reading
from legacy_style.formats import zipcheck
from legacy_style.formats.caffe.netparam import Blob

# What a zip's comment can hold, and what ours begins with.
LONGEST_COMMENT = 65535
_MARK = "# legacy_style: the layers of these weights\n"

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_DESCR = re.compile(r"""["']descr["']\s*:\s*["']([<>|=]?(?:f[248]|[iu][1248]))["']""")
_ORDER = re.compile(r"""["']fortran_order["']\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""["']shape["']\s*:\s*\(([\d\sL,]{0,300})\)""")


def read(path: str, file: BinaryIO | None = None) -> tuple[dict[str, Blob], str | None]:
    """Array name -> lazy float32 blob, for every array of floating-point numbers; and the prototxt, if any.

    `file` is the one at `path` where it is open already; its bytes stay mapped as long as a blob needs them.

    Raises FormatError where the archive or an array's header is broken or promises more than there is.
    """
    blobs: dict[str, Blob] = {}
    with reading(path, file) as opened, contextlib.ExitStack() as stack:
        members = zipcheck.members(path, opened)
        archive = stack.enter_context(zipfile.ZipFile(opened))
        buffer = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        comment = archive.comment.decode("utf-8", "replace")
        for name, info in members.items():
            if not name.endswith(".npy"):
                continue
            try:
                with archive.open(info) as member:
                    header = _header(member, info.file_size, f"{path}: {name}")
            except zipcheck.UNREADABLE as error:
                raise FormatError(f"{path}: {name} cannot be unpacked: {error}") from error
            if header.dtype.kind == "f":
                blobs[name.removesuffix(".npy")] = _blob(path, opened, buffer, info, header)
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
    """The array's header, held against the `size` of the whole member.

    It is a Python dict written out, but of three plain entries, so that it can be read without Python's
    parser.
    """
    magic = member.read(10)
    if magic[:8] == _MAGIC + b"\x02\x00":
        # Version 2 counts the header in four bytes.
        magic += member.read(2)
    length = int.from_bytes(magic[8:], "little")
    if magic[:8] not in (_MAGIC + b"\x01\x00", _MAGIC + b"\x02\x00") or length > _LONGEST_HEADER:
        raise FormatError(f"{where} begins {magic!r}, expected a NumPy array of the format version 1 or 2")
    text = member.read(length).decode("latin-1")
    descr, order, dims = _DESCR.search(text), _ORDER.search(text), _SHAPE.search(text)
    if not (descr and order and dims):
        raise FormatError(
            f"{where} has the header {text[:80]!r}, expected the type, order and shape of plain numbers"
        )
    dtype = np.dtype(descr[1])
    try:
        # Python 2 wrote long numbers as 3L.
        shape = tuple(int(number.strip().rstrip("L")) for number in dims[1].split(",") if number.strip())
    except ValueError as error:
        raise FormatError(f"{where} has the shape ({dims[1]}), expected whole numbers") from error
    count = math.prod(shape)
    left = size - len(magic) - length
    if count * dtype.itemsize != left:
        raise FormatError(
            f"{where} has the shape {shape} of {dtype}, which takes {count * dtype.itemsize} bytes, but "
            f"{left} follow"
        )
    return _Header(shape, "F" if order[1] == "True" else "C", dtype, len(magic) + length, count)


def _blob(path: str, file: BinaryIO, buffer: mmap.mmap, info: ZipInfo, header: _Header) -> Blob:
    begin = zipcheck.data_offset(path, info, file)
    if info.compress_type == zipfile.ZIP_STORED and header.size:
        values = partial(_map, buffer, header, begin + header.length)
    else:
        values = partial(_unpack, path, buffer, info, header, begin)
    return Blob(header.shape, values, header.size)


def _map(buffer: mmap.mmap, header: _Header, offset: int) -> NDArray[np.float32]:
    values = np.frombuffer(buffer, header.dtype, header.size, offset).reshape(
        header.shape, order=header.order
    )
    return np.ascontiguousarray(values, dtype=np.float32)


def _unpack(path: str, buffer: mmap.mmap, info: ZipInfo, header: _Header, begin: int) -> NDArray[np.float32]:
    data = buffer[begin : begin + info.compress_size]
    try:
        if info.compress_type == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size)
        if zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("wrong CRC-32")
        numbers = np.frombuffer(data[header.length :], dtype=header.dtype)
        values = numbers.reshape(header.shape, order=header.order)
    except zipcheck.UNREADABLE as error:
        raise FormatError(f"{path}: {info.filename} cannot be unpacked: {error}") from error
    return np.ascontiguousarray(values, dtype=np.float32)

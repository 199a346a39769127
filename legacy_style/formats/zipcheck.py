"""Zip archives (.pth, .npz), checked before anything in them is believed.

Notes: a zip's directory may promise anything, so what it promises is held against the file's own size
first. A zip bomb, members that overlap and members beyond the end are refused before memory is filled.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from typing import BinaryIO
from zipfile import ZipInfo

from legacy_style.errors import FormatError, IncompleteError
from legacy_style.files import reading

# What zipfile raises at broken archives; RuntimeError for what it cannot do, ValueError for names that
# are no text.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    OverflowError,
)

SIGNATURE = b"PK\x03\x04"

# Weights hardly compress: real ones lose a tenth. Thin or half empty networks lose more, so small files may
# grow to 16 MiB, others by this factor.
MOST_GROWTH = 20
_SMALL = 1 << 24

_LOCAL_HEADER = 30


def members(path: str, file: BinaryIO | None = None, *, stored_only: bool = False) -> dict[str, ZipInfo]:
    """Every member by name, in file order; `file` is the one at `path` where it is open already.

    Raises FormatError where the archive is truncated or broken, repeats a name, or would unpack to more than
    MOST_GROWTH times the file's size; with `stored_only` also where anything is compressed at all.
    """
    try:
        with reading(path, file) as opened, zipfile.ZipFile(opened) as archive:
            size = os.fstat(opened.fileno()).st_size
            infos = archive.infolist()
    except UNREADABLE as error:
        raise IncompleteError(
            path, f"it begins like a zip archive, .pth or .npz, but has no directory at its end, {error}"
        ) from error
    found: dict[str, ZipInfo] = {}
    for info in infos:
        if info.filename in found:
            raise FormatError(f"{path}: the archive holds {info.filename!r} twice, expected every name once")
        if info.flag_bits & 1:
            raise FormatError(f"{path}: {info.filename!r} is encrypted, expected a plain archive")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(
                f"{path}: {info.filename!r} is packed by method {info.compress_type}, expected 0 or 8"
            )
        if stored_only and (info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size):
            raise FormatError(
                f"{path}: {info.filename!r} is compressed, expected it as it is, as torch.save writes it; "
                "load the file in PyTorch and save it again"
            )
        found[info.filename] = info
    total = sum(info.file_size for info in infos)
    limit = size if stored_only else max(_SMALL, MOST_GROWTH * size)
    if total > limit or sum(info.compress_size for info in infos) > size:
        raise FormatError(
            f"{path}: would unpack to {total} bytes although the file has {size}; this is no model but a "
            "zip bomb "
            "or a damaged archive"
        )
    return found


def data_offset(path: str, info: ZipInfo, file: BinaryIO | None = None) -> int:
    """The byte where the member's data begin; FormatError where they do not lie within the file."""
    with reading(path, file) as opened:
        size = os.fstat(opened.fileno()).st_size
        # A directory that lies about its own place moves its members before the file's beginning.
        opened.seek(max(info.header_offset, 0))
        header = opened.read(_LOCAL_HEADER) if info.header_offset >= 0 else b""
    if len(header) < _LOCAL_HEADER or not header.startswith(SIGNATURE):
        raise FormatError(
            f"{path}: no header of {info.filename!r} at byte {info.header_offset}, where it should be"
        )
    lengths: tuple[int, int] = struct.unpack_from("<HH", header, 26)  # of the name and of the extra field
    offset = info.header_offset + _LOCAL_HEADER + sum(lengths)
    if offset + info.compress_size > size:
        raise FormatError(
            f"{path}: {info.filename!r} takes the bytes from {offset} to {offset + info.compress_size}, "
            f"but the file ends at {size}"
        )
    return offset

"""The chunks of a PNG file: the ones that make the pixels, and whether all rows are there.

Follows the PNG specification (third edition), 5 (chunks), 7.3 and 8.1 (passes of an interlaced image). libpng, which
the original used, warns of damage in chunks that hold no pixels and goes on (pngrutil.c, png_crc_finish); Pillow
refuses, and limits the size of texts and profiles. So Pillow gets a file without them. Damage that libpng stops at, and
Pillow passes over, is found here (`damage`).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}  # and not tRNS, for transparency is dropped
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PALETTE = 3
# Of an interlaced image: first column and row, and from one to the next, of each pass.
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip

_LARGEST_EXIF = 1 << 16
_LARGEST_PROFILE = 1 << 22  # unpacked; those of displays and cameras take some kilobytes
_PIECE = 1 << 14  # of them counted at a time


@dataclass
class Scanned:
    """A PNG's chunks: `cleaned` is the file with those alone that make pixels, and EXIF's; `packed` its image data.

    `palette` is the number of bytes of the palette in front of the image data, `wrong_sum` the first chunk of pixels
    whose checksum is wrong, "" if there is none; `unknown` the first chunk that says that pixels cannot be understood
    without it, and is not known, or whose name is none.
    """

    cleaned: bytes
    header: bytes
    packed: list[bytes]
    palette: int = 0
    wrong_sum: str = ""
    unknown: bytes = b""
    profile: bytes | None = None
    primaries: int = 0


def scan(data: bytes) -> Scanned | None:
    """The chunks of a whole PNG file; None where it does not begin with a header that makes sense."""
    kept: list[bytes] = []
    found = Scanned(b"", b"", [])
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        whole = len(body) == length
        check = data[position + 8 + length : position + 12 + length]
        if not kept and kind != b"IHDR":
            return None
        if kind in _KEPT:
            # A last chunk that is cut off has its checksum mended: the rows are counted instead.
            kept.append(_chunk(kind, body))
            if len(check) == 4 and check != kept[-1][-4:] and not found.wrong_sum:
                found.wrong_sum = kind.decode()
            if kind == b"IHDR":
                found.header = body
            elif kind == b"PLTE" and not found.packed:
                found.palette = length
            elif kind == b"IDAT":
                found.packed.append(body)
            elif kind == b"IEND":
                break
        elif not found.unknown and (not kind.isalpha() or kind[:1].isupper()):
            found.unknown = kind
        elif whole and check == struct.pack(">I", zlib.crc32(kind + body)):
            if kind == b"eXIf" and length <= _LARGEST_EXIF:
                kept.insert(1, _chunk(kind, body))  # Pillow wants it before the image data
            elif kind == b"iCCP" and found.profile is None:
                found.profile = _profile(body)
            elif kind == b"cICP" and length == 4:
                found.primaries = body[0]
        if not whole:
            break
        position += 12 + length
    else:
        kept.append(_chunk(b"IEND", b""))
    # Ways to compress and to filter, of which there is one each, and to interlace, of which there are two.
    if len(found.header) != 13 or found.header[10:12] != b"\0\0" or found.header[12] > 1:
        return None
    found.cleaned = SIGNATURE + b"".join(kept)
    return found


def damage(scanned: Scanned) -> str:
    """What is wrong with the chunks that make pixels, "" where nothing is."""
    if missing := missing_rows(scanned):
        (height,) = struct.unpack_from(">I", scanned.header, 4)
        return f"{missing} of its {height} rows are missing at its end"
    if scanned.unknown:
        return f"its chunk {scanned.unknown!r} is needed to understand it, and is not known"
    if scanned.wrong_sum:
        return f"the checksum of its {scanned.wrong_sum} chunk is wrong"
    if scanned.header[9] == _PALETTE and (not scanned.palette or scanned.palette % 3):
        return f"its palette takes {scanned.palette} bytes, and three are a colour"
    return ""


def missing_rows(scanned: Scanned) -> int:
    """How many rows the image data do not reach, of an interlaced image at least so many."""
    passes = _passes(scanned.header)
    wanted = sum(rows * size for rows, size in passes)
    missing = wanted - _unpacked(b"".join(scanned.packed), wanted)
    # The last pass of an interlaced image has every second row of it, and the longest ones.
    return -(-max(missing, 0) // passes[-1][1]) if passes else 0


def _passes(header: bytes) -> list[tuple[int, int]]:
    """Rows and bytes a row, with the filter's, of every pass."""
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * _CHANNELS.get(color, 0)
    grid = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in grid]
    return [(rows, 1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0]


def _unpacked(packed: bytes, most: int) -> int:
    """How many bytes the image data unpack to, counted up to `most`, without zlib's header and checksum."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    count, rest = 0, packed[2:]
    try:
        while rest and count < most and not unpacker.eof:
            count += len(unpacker.decompress(rest, _PIECE))
            rest = unpacker.unconsumed_tail
    except zlib.error:
        return count
    return count


def _profile(body: bytes) -> bytes | None:
    """The ICC profile of an iCCP chunk, None where it is none or is larger than any that says something."""
    _, _, packed = body.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        return None
    return profile if profile[36:40] == b"acsp" else None


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))

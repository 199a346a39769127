"""Whether colours are of a wide gamut (Display P3, Adobe RGB, …), by an ICC profile or PNG's coding of primaries.

Follows ICC.1:2022, 7.2 (header), 7.3 (tags), 9.2.46 (colorants), 10.15 (text); ITU-T H.273, table 2 (primaries).
Nothing is converted: the originals took every file's numbers for sRGB's.
"""

from __future__ import annotations

import re
import struct

_MOST_TAGS = 200
# A gamut's triangle in the plane of chromaticities counts as wide from this multiple of sRGB's area on: Display P3's
# and Adobe RGB's have 1.3 times that.
_WIDE = 1.1
# sRGB's, of its profile's colorants, which are adapted to D50.
_SRGB_AREA = 0.1091
_NAMES = re.compile("P3|Adobe ?RGB|ProPhoto|ROMM|2020|2100|Wide ?Gamut|ACES", re.IGNORECASE)
_PRIMARIES = {9: "ITU-R BT.2020", 11: "DCI-P3", 12: "Display P3"}


def wide_primaries(code: int) -> str:
    """The name of the primaries that PNG's cICP chunk means, "" where they are no wider than sRGB's."""
    return _PRIMARIES.get(code, "")


def wide_gamut(profile: bytes) -> str:
    """What an ICC profile calls itself, if its gamut is wide; "" if not, or if nothing can be told."""
    if len(profile) < 132 or profile[36:40] != b"acsp" or profile[16:20] != b"RGB ":
        return ""
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = {}
    for index in range(min(count, _MOST_TAGS)):
        entry = profile[132 + 12 * index : 144 + 12 * index]
        if len(entry) == 12:
            begin, size = struct.unpack(">II", entry[4:])
            tags[entry[:4]] = profile[begin : begin + size]
    title = _text(tags.get(b"desc", b"")) or "without a name"
    corners = [_chromaticity(tags.get(name, b"")) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    points = [corner for corner in corners if corner is not None]
    wide = _area(points) > _WIDE * _SRGB_AREA if len(points) == 3 else bool(_NAMES.search(title))
    return title if wide else ""


def _chromaticity(tag: bytes) -> tuple[float, float] | None:
    if len(tag) < 20 or tag[:4] != b"XYZ ":
        return None
    x, y, z = (number / 65536 for number in struct.unpack_from(">3i", tag, 8))
    total = x + y + z
    return (x / total, y / total) if total > 0 else None


def _area(points: list[tuple[float, float]]) -> float:
    (ax, ay), (bx, by), (cx, cy) = points
    return abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2


def _text(tag: bytes) -> str:
    """The text of a `desc` tag, of version 2 (ASCII) or 4 (the first of several languages)."""
    if tag[:4] == b"desc" and len(tag) > 12:
        (length,) = struct.unpack_from(">I", tag, 8)
        return tag[12 : 12 + min(length, 100)].split(b"\0")[0].decode("latin-1").strip()
    if tag[:4] == b"mluc" and len(tag) >= 28:
        length, begin = struct.unpack_from(">II", tag, 20)
        return tag[begin : begin + min(length, 200)].decode("utf-16-be", "replace").strip("\0 ")
    return ""

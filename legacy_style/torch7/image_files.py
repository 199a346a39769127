"""Image files of any kind, opened for every program by one function, with one set of errors and remarks.

The kind is told by the content. What holds no pixels decides nothing: a PNG opens whatever its texts and profiles are
(`png`). Pixels that are missing are an error, or, in a JPEG that Torch7's libjpeg completed, a remark that says how
many rows they are. Kinds that cannot be read are named for what they are (`kinds`).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from legacy_style.errors import FormatError, IncompleteError, LegacyStyleError, OptionError, UnsupportedError
from legacy_style.torch7 import color_profile, kinds, libtiff, png

Notice = Callable[[str], None]

# Pillow's own limit, where it stops warning and refuses. As doubles, three to a pixel, such an image takes 4 GiB.
DEFAULT_MAX_PIXELS = 178_956_970

# A JPEG that breaks off: libjpeg, which the original used, goes on as if end-of-image markers followed for ever
# (jdatasrc.c, fill_input_buffer). 64 KiB of them suffice to end any segment.
_END_OF_IMAGE = b"\xff\xd9"
_END_OF_IMAGE_MARKERS = _END_OF_IMAGE * 2**15
_FILLING = b"\x55" * 2**12  # stands for missing bytes: more than the blocks of a row's height take
_JPEG_MAGIC = b"\xff\xd8\xff"

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_ROWS = 257  # its tag, ImageLength

# A block of 8x8 pixels takes a bit or more, so a large JPEG that is much shorter has hardly begun: it would be decoded
# for many seconds, to a sheet of gray.
_LARGE_JPEG = 1 << 24  # pixels
_LEAST_SHARE = 10  # one in so many blocks must have a bit

_SENSELESS = "its header makes no sense"

_ORIENTATION = 0x0112  # EXIF
# What the numbers mean: how the picture is to be turned to stand upright.
_TURNS = {
    2: "mirrored", 3: "turned by 180 degrees", 4: "mirrored top to bottom", 5: "mirrored and turned by 270 degrees",
    6: "turned by 90 degrees", 7: "mirrored and turned by 90 degrees", 8: "turned by 270 degrees",
}  # fmt: skip


@dataclass
class Opened:
    """An image whose pixels are not decoded yet; `data` is what Pillow reads it from, `orientation` 1 if upright."""

    image: Image.Image
    name: str
    data: bytes
    orientation: int

    def upright(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Pixels (H, W) or (H, W, C) turned as the file's EXIF orientation says."""
        if self.orientation >= 5:
            rows = rows.swapaxes(0, 1)
        if self.orientation in (3, 4, 7, 8):
            rows = rows[::-1]
        return rows[:, ::-1] if self.orientation in (2, 3, 6, 7) else rows


@contextlib.contextmanager
def opened(
    path: str | os.PathLike[str],
    *,
    max_pixels: int | None = None,
    complete_jpeg: bool = False,
    exif_rotate: bool = False,
    notice: Notice | None = None,
) -> Iterator[Opened]:
    """Open an image file; what is raised while it is decoded within the block becomes one of our errors.

    `complete_jpeg` accepts a JPEG that breaks off, as libjpeg does; `notice` gets a sentence on that, on an EXIF
    orientation unless it is obeyed (`exif_rotate`: the caller calls `upright`), and on colours of a wide gamut. Raises
    OptionError for a missing file and for more than `max_pixels` pixels (the number of --max-pixels, in programs that
    have it), before anything is decoded; FormatError for a file that cannot be read or is broken; UnsupportedError for
    a kind that is not read.
    """
    name = os.fspath(path)
    data = _read(name)
    kinds.refuse(data, name)
    with pillow_to_ourselves():
        try:
            is_png = data.startswith(png.SIGNATURE)
            scanned = png.scan(data) if is_png else None
            if is_png and scanned is None:
                raise FormatError(_broken(name, "PNG", _SENSELESS))
            given = data if scanned is None else scanned.cleaned
            is_jpeg = data.startswith(_JPEG_MAGIC)
            with Image.open(
                io.BytesIO(given + _END_OF_IMAGE_MARKERS if is_jpeg and complete_jpeg else given)
            ) as image:
                _check_size(image, name, max_pixels)
                if is_jpeg:
                    _check_jpeg_holds(image, name, len(data))
                if scanned is not None and (damage := png.damage(scanned)):
                    raise FormatError(_broken(name, "PNG", damage))
                if missing := _rows_without_tiles(image):
                    raise FormatError(
                        _broken(name, "TIFF", f"{missing} of its {_tiff_rows(image)} rows are missing")
                    )
                if image.format == "TIFF":
                    _decode_tiff(image, name, notice)
                orientation = orientation_of(image)
                if notice is not None:
                    profile = image.info.get("icc_profile") if scanned is None else scanned.profile
                    _remark(name, notice, image, orientation, profile, scanned, exif_rotate=exif_rotate)
                    if is_jpeg:
                        _remark_missing_rows(name, notice, image, data)
                yield Opened(image, name, given, orientation if exif_rotate else 1)
        except LegacyStyleError:
            raise
        except MemoryError:
            raise OptionError(f"{name}: not enough memory to load this image; scale it down first") from None
        # Pillow's decoders let through whatever goes wrong in them, from struct.error to KeyError.
        except Exception as error:
            raise _explained(name, data, error) from error


def check(path: str | os.PathLike[str]) -> None:
    """Raise as `opened` does where a file is missing, a folder, empty, or may not be read; it is not decoded.

    What is no file on a disk is left alone: a pipe can be read but once.
    """
    name = os.fspath(path)
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        mode = stat.S_IFREG
    if not name or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        _read(name, 1)


def _read(name: str, most: int = -1) -> bytes:
    try:
        if not name:  # Path("") would be the current folder
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with Path(name).open("rb") as file:
            data = file.read(most)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OptionError(f"{name}: {error.strerror}; give the name of an image that is there") from None
    except IsADirectoryError:
        raise FormatError(f"{name}: a folder, not an image; give the name of a file in it") from None
    except PermissionError:
        raise FormatError(f"{name}: cannot be read; ask its owner for permission, or copy it") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise FormatError(f"{name}: cannot be read ({error})") from None
    if not data:
        raise FormatError(f"{name}: an empty file (0 bytes), not an image; save or download it again")
    return data


_pillow_lock = threading.RLock()


@contextlib.contextmanager
def pillow_to_ourselves() -> Iterator[None]:
    """Without Pillow's warnings and its limit on pixels (`opened` has its own); both are put back."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, name: str, max_pixels: int | None) -> None:
    width, height = image.size
    pixels, limit = width * height, DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    if pixels > limit:
        lift = "" if max_pixels is None else f", or lift the limit with --max-pixels {pixels}"
        raise OptionError(
            f"{name}: {width}x{height} is {pixels} pixels, more than the limit of {limit}; scale the image down{lift}"
        )


def _check_jpeg_holds(image: Image.Image, name: str, size: int) -> None:
    """Raise IncompleteError for a large JPEG that cannot hold a fair part of its pixels."""
    blocks = -(-image.width // 8) * -(-image.height // 8)
    if image.width * image.height >= _LARGE_JPEG and 8 * size * _LEAST_SHARE < blocks:
        raise IncompleteError(name, f"{size} bytes cannot hold {image.width}x{image.height} pixels")


def _decode_tiff(image: Image.Image, name: str, notice: Notice | None) -> None:
    """Decode a TIFF; what libtiff has to say is the reason of our error, or else a remark."""
    with libtiff.heard() as lines:
        try:
            image.load()
        except (OSError, ValueError, SyntaxError) as error:
            reason = lines[-1].rstrip(". ") if lines else str(error)
            raise FormatError(_broken(name, "TIFF", reason)) from error
    if lines and notice is not None:
        notice(f"{name}: {lines[-1].rstrip('. ')}; part of the picture may be missing")


def _rows_without_tiles(image: Image.Image) -> int:
    """How many rows the strips and tiles of a TIFF leave out: Pillow makes them black."""
    boxes = [box for _, box, *_ in cast(Any, image).tile] if image.format == "TIFF" else []
    covered = np.zeros(_tiff_rows(image) if boxes else 0, bool)
    for _, top, _, bottom in boxes:
        covered[top:bottom] = True
    return int((~covered).sum())


def _tiff_rows(image: Image.Image) -> int:
    """The rows of a TIFF as it is stored; `image.height` is that of the picture turned upright."""
    return int(cast(Any, image).tag_v2[_TIFF_ROWS])


def turning(orientation: int) -> str:
    """An EXIF orientation in words."""
    return f"its EXIF orientation ({orientation}: to be {_TURNS[orientation]})"


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none. Pillow turns a TIFF upright by itself."""
    if image.format == "TIFF" or (
        image.format == "PNG" and "exif" not in image.info
    ):  # which would decode it
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever goes wrong in a damaged EXIF block, the pixels do not depend on it
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


def _remark(
    name: str,
    notice: Notice,
    image: Image.Image,
    orientation: int,
    profile: object,
    scanned: png.Scanned | None,
    *,
    exif_rotate: bool,
) -> None:
    if orientation != 1 and not exif_rotate:
        notice(f"{name}: {turning(orientation)} is ignored, as it always was; --exif-rotate obeys it")
    wide = color_profile.wide_gamut(profile) if isinstance(profile, bytes) and image.mode != "CMYK" else ""
    wide = wide or ("" if scanned is None else color_profile.wide_primaries(scanned.primaries))
    if wide:
        notice(
            f"{name}: its colour profile ({wide}) is ignored, so its colours are taken for sRGB's and come out duller;"
            " convert it to sRGB first"
        )


def _needs_no_more(data: bytes) -> bool:
    """Whether Pillow can do with a JPEG as it is."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError:
        return False
    return True


def _remark_missing_rows(name: str, notice: Notice, image: Image.Image, data: bytes) -> None:
    """Say of a JPEG that it ends too early, and of one that ends properly, if rows are missing all the same."""
    image.load()
    rows = np.asarray(image).reshape(image.height, -1)
    ends = data.rstrip(b"\0").endswith(_END_OF_IMAGE)
    if not ends:
        first = _first_unknown_row(data, rows)
        ends = first == image.height and _needs_no_more(data)  # there is something else behind the image
    if ends:
        if not _is_gray(rows[-1:])[0]:
            return
        first = _first_unknown_row(data[: data.rfind(_END_OF_IMAGE)], rows)
    missing = int(_is_gray(rows[first:]).sum())
    if missing:
        what = f": {missing} of its {image.height} rows are missing and come out gray"
    elif first < image.height:
        # Of a progressive JPEG all rows come at once, the coarse ones first.
        what = ": some of it comes out gray or blurred"
    elif ends:
        return
    else:
        what = ", but none of its rows is missing"
    notice(
        f"{name}: the {'image data end' if ends else 'file ends'} too early{what}; download or copy it again"
    )


def _is_gray(rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows (n, numbers) are of the gray that libjpeg puts where data are missing, or of its inverse."""
    gray: NDArray[np.bool_] = (rows - np.uint8(127) <= 1).all(axis=1)
    return gray


def _first_unknown_row(data: bytes, rows: NDArray[np.uint8]) -> int:
    """The first row of a JPEG that depends on what follows these bytes; as many as it has rows if none does.

    `rows`: what it is where nothing follows but the end of the image.
    """
    begun = data.rstrip(b"\xff")  # that may be half a marker, which the filling would make one of
    with Image.open(io.BytesIO(begun + _FILLING + _END_OF_IMAGE_MARKERS)) as image:
        different = (np.asarray(image).reshape(rows.shape) != rows).any(axis=1)
    return int(different.argmax()) if different.any() else len(different)


def _explained(name: str, data: bytes, error: Exception) -> LegacyStyleError:
    if kinds.is_avif(data) and features.check("avif"):
        if kinds.is_cut(data):
            return IncompleteError(name, "its last part is missing")
        return FormatError(f"{name}: a broken AVIF image ({error}); save or download it again")
    what = kinds.name(data)
    if what:
        return UnsupportedError(f"{name}: {what}")
    magics = {"JPEG": (_JPEG_MAGIC,), "PNG": (png.SIGNATURE[:4],), "TIFF": _TIFF_MAGIC}
    kind = next((each for each, magic in magics.items() if data.startswith(magic)), None)
    if kind == "TIFF" and isinstance(error, UnidentifiedImageError):
        return FormatError(f"{name}: a broken TIFF, or one of a kind that is not read here; save it as a PNG")
    if kind is None and isinstance(error, UnidentifiedImageError):
        return FormatError(
            f"{name}: not an image (begins with {data[:8]!r}); give a JPEG or a PNG, or convert it to one"
        )
    reason = _SENSELESS if isinstance(error, UnidentifiedImageError) else str(error)
    return FormatError(_broken(name, kind or "image", reason))


def _broken(name: str, kind: str, reason: str) -> str:
    return f"{name}: a broken {kind} ({reason}); save or download it again"

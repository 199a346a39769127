"""Torch7's image package, bit for bit: load, scale, save, and YUV.

Ports torch/image 5aa1881: init.lua (load, scale, save, rgb2yuv, yuv2rgb), generic/image.c
(scaleLinear_rowcol), generic/png.c, jpeg.c and ppm.c. An image is a float64 array of shape (3, H, W), red,
green, blue, nominally in [0,1].

Notes. Alpha is dropped, never blended, and EXIF orientation is ignored unless somebody asks for it. 'bilinear'
is an area average when it shrinks, and keeps its positions and sums in float32. Saving truncates to bytes and
never rounds, so an image that is loaded and saved comes back up to one level darker. Kinds that the original could
not load (GIF, BMP, TIFF, WebP, gray with alpha) or garbled (palettes with transparency, 16-bit PGM) are loaded as one
would expect; see docs/fidelity.md.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legacy_style.errors import OptionError, UnsupportedError
from legacy_style.files import reason, write_whole
from legacy_style.torch7 import png16
from legacy_style.torch7.image_files import Notice, Opened, opened, pillow_to_ourselves

Array = NDArray[np.float64]

# What image.save knows by name, spelled exactly so (init.lua, `filetypes`), and Pillow's names for them.
_SAVED_AS = {
    **dict.fromkeys(("jpg", "jpeg", "JPG", "JPEG"), "JPEG"),
    **dict.fromkeys(("png", "PNG"), "PNG"),
    **dict.fromkeys(("ppm", "PPM"), "PPM"),
}
_TIFF_BITS = 258  # its tag, BitsPerSample
_ROWS = 256  # of an image, worked on at a time

_JPEG_QUALITY = 75  # init.lua, saveJPG


def load(
    path: str | os.PathLike[str],
    *,
    max_pixels: int | None = None,
    exif_rotate: bool = False,
    notice: Notice | None = None,
) -> Array:
    """Load a file of any kind that Pillow reads as RGB in [0,1], (3, H, W) (init.lua, `image.load(path, 3)`).

    The kind is told by the content. A value is byte*(1/255), or v*(1/65535) where the file has 16 bits. A
    JPEG that breaks off is accepted, as in the original. `exif_rotate` turns the picture upright, `notice` gets what
    is remarkable about the file. Raises as `image_files.opened` does, and UnsupportedError for numbers without a
    known range.
    """
    with opened(
        path, max_pixels=max_pixels, complete_jpeg=True, exif_rotate=exif_rotate, notice=notice
    ) as file:
        return _to_double(*_numbers(file))


def load_scaled(
    path: str | os.PathLike[str],
    size: float,
    *,
    enlarge: bool = True,
    max_pixels: int | None = None,
    exif_rotate: bool = False,
    notice: Notice | None = None,
) -> Array:
    """`scale(load(path), size)`, bit for bit, in the memory of the file's bytes and the result.

    Without `enlarge` an image that is no larger than `size` is left as it is.
    """
    with opened(
        path, max_pixels=max_pixels, complete_jpeg=True, exif_rotate=exif_rotate, notice=notice
    ) as file:
        channels, white = _numbers(file)
        height, width = channels.shape[:2]
        if not enlarge and max(width, height) <= size:
            return _to_double(channels, white)
        return _scaled(
            lambda channel, rows: np.multiply(_plane(channels[rows], channel), 1 / white, dtype=np.float64),
            1 if channels.ndim == 2 else 3,
            height,
            *scaled_size(width, height, size),
        )


def scaled_size(width: int, height: int, size: float) -> tuple[int, int]:
    """Width and height after scaling the longer side to `size` (init.lua, `image.scale(src, size)`).

    Truncated, not rounded, and at least 1. Raises OptionError where `size` is not a finite number.
    """
    longest = max(width, height)
    new_width, new_height = width * size / longest, height * size / longest
    if not (np.isfinite(new_width) and np.isfinite(new_height)):
        raise OptionError(
            f"an image cannot be scaled to size {size}; give a number of pixels, for example 512"
        )
    return max(int(new_width), 1), max(int(new_height), 1)


def scale(image: Array, size: float) -> Array:
    """`image` with its longer side scaled to `size`, (3, H', W'); raises as `scaled_size` and `scale_to`."""
    return scale_to(image, *scaled_size(image.shape[2], image.shape[1], size))


def scale_to(image: Array, width: int, height: int) -> Array:
    """`image` scaled to (3, height, width), 'bilinear' (generic/image.c, scaleBilinear).

    Rows are scaled first, then columns. Raises OptionError where the result does not fit into memory.
    """
    return _scaled(
        lambda channel, rows: image[channel, rows].astype(np.float64), 3, image.shape[1], width, height
    )


def _scaled(
    pixels: Callable[[int, slice], Array], channels: int, tall: int, width: int, height: int
) -> Array:
    """(3, height, width) from an image `tall` pixels high, of whose 3 channels, or of the 1 that all are, `pixels`
    gives rows as (n, W).
    """
    too_large = OptionError(
        f"not enough memory for an image of {width:.14g}x{height:.14g} pixels; choose a smaller size"
    )
    if 3 * 8 * width * height > sys.maxsize:
        raise too_large
    try:
        scaled = np.empty((3, height, width))
        for channel in range(channels):
            narrow = np.empty((tall, width))
            for top in range(0, tall, _ROWS):
                rows = slice(top, top + _ROWS)
                # Turned, for numbers side by side are taken together.
                narrow[rows] = _scale_rows(np.ascontiguousarray(pixels(channel, rows).T), width).T
            scaled[channel] = _scale_rows(narrow, height)
        scaled[channels:] = scaled[0]
    except MemoryError:
        raise too_large from None
    return scaled


def check_name(path: str | os.PathLike[str]) -> None:
    """Raise OptionError unless `save` knows the kind of file that `path` is the name of."""
    _format_to_save(os.fspath(path))


def check_can_save(path: str | os.PathLike[str]) -> None:
    """Raise OptionError unless `save` can be expected to write `path`; nothing is written or created.

    The original finds out at its first `image.save`, after all the work.
    """
    name = os.fspath(path)
    _format_to_save(name)
    reason = None
    try:
        target = _target(name)
        if target.is_dir():
            reason = "it is a folder; add a file name"
        elif not target.parent.is_dir():
            reason = f"the folder {target.parent} does not exist; create it, or choose another"
        elif not os.access(target.parent, os.W_OK | os.X_OK):
            reason = f"the folder {target.parent} is not writable; choose another"
        elif target.exists() and not os.access(target, os.W_OK):
            reason = "the file exists and is not writable; choose another name"
    except (OSError, ValueError) as error:  # the name is too long, or has a zero byte
        reason = f"{error}; choose another name"
    if reason:
        raise OptionError(f"{name}: could not be opened for writing: {reason}")


def save(path: str | os.PathLike[str], image: NDArray[np.floating]) -> None:
    """Write RGB (3, H, W), clamped to [0,1] and truncated to bytes (init.lua, `image.save`).

    The extension tells the format. NaN becomes 0. JPEG has quality 75 and 4:2:0 subsampling. The file appears
    whole or not at all. Raises OptionError where it cannot be written.
    """
    name = os.fspath(path)
    image_format = _format_to_save(name)
    encoded = io.BytesIO()
    try:
        with pillow_to_ourselves():
            Image.fromarray(to_bytes(image)).save(encoded, image_format, quality=_JPEG_QUALITY)
        write_whole(name, encoded.getvalue())
    except OSError as error:
        raise OptionError(f"{name}: could not be written: {reason(error)}") from error


def rgb2yuv(image: Array) -> Array:
    """RGB to YUV, both (3, H, W) (init.lua, `image.rgb2yuv`).

    Within two units in the last place: Torch7's sums used fused multiply-add where its processor had it.
    """
    r, g, b = image
    return np.stack(
        [
            0.299 * r + 0.587 * g + 0.114 * b,
            -0.14713 * r - 0.28886 * g + 0.436 * b,
            0.615 * r - 0.51499 * g - 0.10001 * b,
        ]
    )


def yuv2rgb(image: Array) -> Array:
    """YUV to RGB, both (3, H, W) (init.lua, `image.yuv2rgb`); inverts `rgb2yuv` to about five digits."""
    y, u, v = image
    return np.stack([y + 1.13983 * v, y - 0.39465 * u - 0.58060 * v, y + 2.03211 * u])


def _numbers(file: Opened) -> tuple[NDArray[Any], float]:
    """The numbers of an opened image as they are to be seen, and the number that is white; see `_channels`."""
    channels, white = _channels(file.image, file.name, file.data)
    return file.upright(channels), white


def _channels(image: Image.Image, name: str, data: bytes) -> tuple[NDArray[Any], float]:
    """The numbers of an opened image, (H, W) for gray or (H, W, >= 3), and the number that is white."""
    if png16.is_flattened(image):
        return png16.channels(image, data), 65535
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO"):
        # The original takes libjpeg's first three channels, inverted inks, for red, green, blue. Pillow
        # inverts them.
        return 255 - np.asarray(image)[..., :3], 255
    if image.mode in ("L", "RGB"):
        return np.asarray(image), 255
    if image.mode in ("RGBA", "RGBX"):
        return np.asarray(image)[..., :3], 255
    if image.mode in ("1", "LA"):
        return np.asarray(image.convert("L")), 255
    if image.mode.startswith("I") or image.mode == "F":
        numbers, white = np.asarray(image), 1.0 if image.mode == "F" else _white(image)
        low, high = numbers.min(), numbers.max()
        if not (low >= 0 and high <= white):
            raise UnsupportedError(
                f"{name}: its numbers go from {low} to {high}, and which of them is white is unknown;"
                " convert the image to 8 or 16 bits"
            )
        return numbers, white
    # Transparency is dropped here as elsewhere, and would make Pillow warn or convert it.
    image.info.pop("transparency", None)
    return np.asarray(image.convert("RGB")), 255


def _white(image: Image.Image) -> float:
    """White in an image of mode I or I;16: a TIFF may have from 9 to 16 bits, the others are spread over 16."""
    bits = cast(Any, image).tag_v2[_TIFF_BITS][0] if image.format == "TIFF" else 16
    return float(2 ** min(bits, 16) - 1)


def _plane(channels: NDArray[Any], channel: int) -> NDArray[Any]:
    """One channel, (H, W), of (H, W) or (H, W, 3) numbers."""
    return channels if channels.ndim == 2 else channels[..., channel]


def _to_double(channels: NDArray[Any], white: float) -> Array:
    """(H, W) or (H, W, 3) numbers up to `white` to (3, H, W) in [0,1], by multiplying, as in the original."""
    image = np.empty((3, *channels.shape[:2]))
    for channel in range(3):
        np.multiply(_plane(channels, channel), 1 / white, out=image[channel], dtype=np.float64)
    return image


def _scale_rows(plane: Array, n: int) -> Array:
    """An (H, W) plane scaled to (n, W) (generic/image.c, scaleLinear_rowcol)."""
    length = plane.shape[0]
    if n > length:
        return _enlarge_rows(plane, n)
    return _shrink_rows(plane, n) if n < length else plane


def _enlarge_rows(plane: Array, n: int) -> Array:
    """Linear interpolation with the corners aligned, at float32 positions."""
    last = plane.shape[0] - 1
    position = np.arange(n, dtype=np.float32) * (np.float32(last) / np.float32(n - 1))
    position[-1] = last
    index = position.astype(np.intp)
    fraction = position - index.astype(np.float32)
    left: Array = np.take(plane, index, 0) * _along(1 - fraction)
    right: Array = np.take(plane, np.minimum(index + 1, last), 0) * _along(fraction)
    return left + right


def _shrink_rows(plane: Array, n: int) -> Array:
    """The mean over what each target pixel covers, with fractions of pixels at its ends, summed in float32.

    All target pixels take their first source pixel, then all their second and so on. Where one has fewer than
    others, zeros are added, which change nothing.
    """
    length = plane.shape[0]
    edges = np.arange(n + 1, dtype=np.float32) * (np.float32(length) / np.float32(n))
    index = edges.astype(np.intp)
    fraction = edges - index.astype(np.float32)
    start, end = index[:-1], index[1:]
    end_weight = np.where(end < length, fraction[1:], np.float32(0))
    total: NDArray[np.float32] = np.zeros(1, np.float32)  # becomes a plane
    weights = np.zeros(n, np.float32)
    for tap in range(int((end - start).max()) + 1):
        source = start + tap
        weight = np.where(source < end, np.float32(1), np.where(source == end, end_weight, np.float32(0)))
        if tap == 0:
            weight = 1 - fraction[:-1]
        pixels = np.take(plane, np.minimum(source, length - 1), 0)
        pixels *= _along(weight)
        pixels += total
        total = pixels.astype(np.float32)
        weights += weight
    return (total / weights[:, None]).astype(np.float64)


def _along(weight: NDArray[np.float32]) -> Array:
    return weight.astype(np.float64)[:, None]


def _format_to_save(name: str) -> str:
    match = re.search(r"\.([A-Za-z]+)\Z", name)  # init.lua: '%.(%a+)$'
    extension = match[1] if match else "nil"
    if extension in _SAVED_AS:
        return _SAVED_AS[extension]
    words = f"unknown image type: {extension}"
    if extension in ("pgm", "PGM"):
        words = "can only save 1xHxW or HxW images as PGM, and this one has colours"
    raise OptionError(f"{name}: {words}; end the name in one of .{' .'.join(_SAVED_AS)}, spelled so")


def _target(name: str) -> Path:
    """The file that `name` means in the end: a link must stay one, as when the original writes through it."""
    return Path(os.path.realpath(name))


def to_bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(3, H, W) to bytes, (H, W, 3): clamped, times 255, truncated; NaN, as by C's cast, to 0."""
    height = image.shape[1]
    result = np.empty((height, image.shape[2], 3), np.uint8)
    for top in range(0, height, _ROWS):  # a large image needs no second one of doubles
        rows = slice(top, top + _ROWS)
        known = np.nan_to_num(image[:, rows].astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
        result[rows] = (np.clip(known, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return result

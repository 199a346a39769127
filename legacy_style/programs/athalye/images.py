"""The images of anishathalye/neural-style: reading, resizing, colours and saving, in bytes as PIL has them.

Ports anishathalye/neural-style d0a1148, neural_style.py (imread, imresize, imsave, main's sizes) and
stylize.py (preserve_colors); and, as the flavour "2017", TONYCHANBB/Chinese_painting-style 0755ae8 with
scipy 1.2's misc/pilutil.py. Images are arrays (H, W, C) of 0..255, red first. Notes: every resizing goes
through bytes, "current" by cutting off to 0..255 and truncating, "2017" by stretching the contrast to 0..255;
style images are always resized, even to their own size; alpha is dropped, CMYK is taken for RGB, palettes
(only in "current") for gray.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legacy_style.engine import colors
from legacy_style.errors import OptionError, UnsupportedError
from legacy_style.files import reason, write_whole
from legacy_style.torch7 import image_files
from legacy_style.torch7.image_files import Notice

Array = NDArray[Any]

Flavour = Literal["current", "2017"]

_JPEG_QUALITY = 95

# Rec. 601 luma, as stylize.py has it.
_LUMA = (0.299, 0.587, 0.114)


@dataclass
class AthalyeImages:
    """Content, styles, and what --initial names or None, read and resized."""

    content: Array
    styles: list[Array]
    initial: Array | None


def load_images(
    content: str,
    styles: Sequence[str],
    initial: str | None,
    *,
    width: int | None,
    style_scales: Sequence[float] | None,
    flavour: Flavour,
    exif_rotate: bool = False,
    notice: Notice | None = None,
) -> AthalyeImages:
    """Read all images, make the content `width` wide, and each style its scale times as wide as the content.

    Raises what `read` does, and OptionError for impossible sizes.
    """
    reading = partial(_stored, flavour=flavour, exif_rotate=exif_rotate, notice=notice)
    picture = reading(content)
    pictures = [reading(style) for style in styles]
    if flavour == "2017":
        for name, image in zip((content, *styles), (picture, *pictures), strict=True):
            check_channels(name, image)
    if style_scales is not None and len(style_scales) < len(styles):
        raise OptionError(
            f"--style-scales: {len(style_scales)} numbers for {len(styles)} style images; give as many"
        )
    if width is not None:
        # In this order: 44 rows of 69 columns at --width 69 become 43.
        height = math.floor(picture.shape[0] / picture.shape[1] * width)
        picture = _first_resize(picture, height, width, flavour)
    else:
        picture = _in_floats(picture, flavour)
    for i, style in enumerate(pictures):
        factor = (1.0 if style_scales is None else style_scales[i]) * picture.shape[1] / style.shape[1]
        pictures[i] = _first_resize(style, *scaled_size(style, factor), flavour)
    height, width = picture.shape[:2]
    start = None if initial is None else _first_resize(reading(initial), height, width, flavour)
    return AthalyeImages(picture, pictures, start)


def read(path: str, flavour: Flavour, *, exif_rotate: bool = False, notice: Notice | None = None) -> Array:
    """The numbers of an image file, (H, W, C), unscaled, float32 ("2017": float64); gray three times.

    C is 3, but for gray with alpha, which has 2 and fails later. Raises as `image_files.opened` does.
    """
    return _in_floats(_stored(path, flavour, exif_rotate=exif_rotate, notice=notice), flavour)


def _stored(path: str, flavour: Flavour, *, exif_rotate: bool = False, notice: Notice | None = None) -> Array:
    """What `read` gives, in the numbers of the file: bytes of a photograph take a quarter or an eighth."""
    with image_files.opened(path, exif_rotate=exif_rotate, notice=notice) as file:
        image = file.image
        if flavour == "2017" and image.mode in ("1", "P"):
            transparent = "transparency" in image.info
            image = image.convert("L" if image.mode == "1" else "RGBA" if transparent else "RGB")
        numbers = file.upright(np.array(image))
    if numbers.ndim == 2:
        return np.dstack((numbers, numbers, numbers))
    return numbers[:, :, :3] if numbers.shape[2] == 4 else numbers


def _in_floats(stored: Array, flavour: Flavour) -> Array:
    return stored.astype(np.float64 if flavour == "2017" else np.float32)


def _first_resize(stored: Array, height: int, width: int, flavour: Flavour) -> Array:
    """`resize` of an image as it was read, bit for bit, without all its pixels as floats."""
    if stored.dtype != np.uint8:
        return resize(_in_floats(stored, flavour), height, width, flavour)
    if flavour == "2017":  # which does not take what it has read for bytes
        low, high = (np.float64(end()) for end in (stored.min, stored.max))
        stored = _stretched_between(np.arange(256, dtype=np.float64), low, high)[stored]
    return resize(stored, height, width, flavour)


def scaled_size(image: Array, factor: float) -> tuple[int, int]:
    """Height and width of `image` at `factor` times its size, truncated: 98 columns times 64/98 are 63."""
    sizes = [length * factor for length in image.shape[:2]]
    if not all(1 <= size < 2**31 for size in sizes):
        raise OptionError(
            f"a style image would become {sizes[1]:g}x{sizes[0]:g} pixels; change its --style-scales"
        )
    return int(sizes[0]), int(sizes[1])


def resize(image: Array, height: int, width: int, flavour: Flavour) -> Array:
    """`image` at another size, uint8: bicubic ("2017": bilinear), averaging when it shrinks."""
    if not (1 <= height < 2**31 and 1 <= width < 2**31):
        raise OptionError(f"an image of {width}x{height} pixels cannot be made; choose another --width")
    if flavour == "2017":
        check_channels("an image", image)
        return np.array(Image.fromarray(_stretched(image)).resize((width, height), Image.Resampling.BILINEAR))
    cut = image if image.dtype == np.uint8 else to_bytes(image)
    return np.array(Image.fromarray(cut).resize((width, height), Image.Resampling.BICUBIC))


def _stretched(image: Array) -> Array:
    """Bytes, of which the darkest is 0 and the lightest 255 (pilutil.py, bytescale); bytes stay the same."""
    if image.dtype == np.uint8:
        return image
    return _stretched_between(image, image.min(), image.max())


def _stretched_between(image: Array, low: np.floating, high: np.floating) -> NDArray[np.uint8]:
    span = (high - low) or 1
    stretched: Array = ((image - low) * (255 / span)).clip(0, 255) + 0.5
    return stretched.astype(np.uint8)


def check_channels(name: str, image: Array) -> None:
    """Raise UnsupportedError for gray with alpha, which both versions fail on, if at different times."""
    if image.shape[2] != 3:
        raise UnsupportedError(
            f"{name} has {image.shape[2]} channels, gray and alpha; save it as RGB or gray"
        )


def check_can_save(path: str) -> str:
    """The format that the extension of `path` stands for; OptionError where no image can be written there."""
    image_format = Image.registered_extensions().get(Path(path).suffix.lower())
    if image_format not in Image.SAVE:
        raise OptionError(
            f"{path}: no image format is called {Path(path).suffix!r}; end the name in .jpg or .png"
        )
    folder = Path(path).resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OptionError(
            f"{path}: the folder {folder} does not exist or is not writable; create or choose another"
        )
    if Path(path).is_dir():
        raise OptionError(f"{path}: is a folder; add a file name")
    return image_format


def save(path: str, image: Array) -> None:
    """Write (H, W, 3), cut off to 0..255 and truncated, never rounded; the extension tells the format.

    The file appears whole or not at all. Raises OptionError where it cannot be written.
    """
    image_format = check_can_save(path)
    encoded = io.BytesIO()
    try:
        picture = Image.fromarray(to_bytes(image))
        picture.save(encoded, image_format, quality=_JPEG_QUALITY)
        write_whole(Path(path).resolve(), encoded.getvalue())
    except OSError as error:
        raise OptionError(f"{path}: could not be written: {reason(error)}") from error
    except ValueError as error:  # a format that cannot hold this image
        raise OptionError(f"{path}: could not be written: {error}") from error


def to_bytes(image: Array) -> NDArray[np.uint8]:
    """(H, W, 3), cut off to 0..255 and truncated, never rounded."""
    return np.clip(image, 0, 255).astype(np.uint8)


def preserve_colors(content: Array, styled: Array) -> Array:
    """The luminance of `styled` with the colours of `content`, (H, W, 3) both, by way of YCbCr; uint8."""
    gray = np.dot(np.clip(styled, 0, 255), _LUMA).astype(np.float32).astype(np.uint8)
    luminance = Image.fromarray(np.dstack((gray, gray, gray))).convert("YCbCr").getchannel("Y")
    colours = Image.fromarray(np.clip(content, 0, 255).astype(np.uint8)).convert("YCbCr")
    merged = Image.merge("YCbCr", (luminance, colours.getchannel("Cb"), colours.getchannel("Cr")))
    return np.array(merged.convert("RGB"))


def before_transfer(mode: str, loaded: AthalyeImages) -> AthalyeImages:
    """The images that the style transfer is given under --color-transfer (see `engine.colors.before`)."""
    content, styles = colors.before(mode, _unit(loaded.content), [_unit(style) for style in loaded.styles])
    return AthalyeImages(_levels(content), [_levels(style) for style in styles], loaded.initial)


def after_transfer(mode: str, content: Array, styled: Array) -> Array:
    """`styled` with the colours that --color-transfer takes from `content`, (H, W, 3) both."""
    return _levels(colors.after(mode, _unit(content), _unit(styled)))


def _unit(image: Array) -> NDArray[np.float64]:
    """(H, W, 3) of 0..255 as (3, H, W) of 0..1."""
    return np.asarray(image.transpose(2, 0, 1) / np.float64(255))


def _levels(image: NDArray[np.float64]) -> Array:
    """The inverse of `_unit`."""
    return np.asarray(image.transpose(1, 2, 0) * 255)

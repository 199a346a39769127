"""All 16 bits of the PNG files that Pillow flattens to 8: colour, and gray with alpha.

The original's libpng (torch/image 5aa1881, generic/png.c) kept them. Pillow's decoder picks one byte of each
number, by what it calls the raw mode; other raw modes of the same width pick other bytes, so Pillow itself
can undo filters and interlacing for us.
"""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# What Pillow would use -> what gives the high and the low bytes, in two passes. Gray with alpha is as wide as
# 8-bit RGBA, whose raw mode gives all four bytes at once.
_RAW_MODES = {
    "RGB;16B": ("RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
    "LA;16B": ("RGBA",),
}


def is_flattened(image: Image.Image) -> bool:
    """Whether `image`, opened and not yet loaded, is a 16-bit PNG of which Pillow would return 8 bits."""
    return image.format == "PNG" and _tile(image)[3] in _RAW_MODES


def channels(image: Image.Image, data: bytes) -> NDArray[np.uint16]:
    """The numbers 0..65535 of a flattened image, (H, W) for gray, (H, W, 3) for colour, without the alpha.

    `data` is the whole file. Raises what Pillow raises where the file is broken.
    """
    passes = [_decode(data, raw_mode) for raw_mode in _RAW_MODES[_tile(image)[3]]]
    if len(passes) == 1:
        high, low = passes[0][..., 0], passes[0][..., 1]  # (H, W, 4): both bytes of gray, both of alpha
    else:
        high, low = passes[0][..., :3], passes[1][..., :3]
    number: NDArray[np.uint16] = high * np.uint16(256) + low
    return number


def _decode(data: bytes, raw_mode: str) -> NDArray[np.uint16]:
    with Image.open(io.BytesIO(data)) as image:
        # A plain tuple, as Pillow 10 has it, will do for later versions too.
        cast(Any, image).tile = [(*_tile(image)[:3], raw_mode)]
        return np.asarray(image).astype(np.uint16)


def _tile(image: Image.Image) -> tuple[Any, ...]:
    """Decoder, box, offset, and raw mode: what Pillow is going to do (PIL.ImageFile)."""
    (tile,) = cast(Any, image).tile
    return tuple(tile)

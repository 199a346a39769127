"""Maps of regions: pictures whose colours name regions, as people paint them over a photograph.

A region is a colour that covers a thousandth of the map at least, somewhere three pixels wide and high. Shades that
differ by 24 of 255 at most in each channel are one colour, so a map may be a JPEG. Every other pixel, the
antialiased edges above all, belongs to the nearest region of the picture; so do lines of one or two pixels.

The names are those of ProGamerGov's neural_style_seg.lua, whose option -color_codes knew these nine colours and no
others; here any colour is one.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]  # scipy ships no types

from legacy_style.errors import OptionError
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7.cmdline import split_list, tonumber
from legacy_style.torch7.image_files import Notice

Color = tuple[int, int, int]
"""Red, green, blue, 0..255."""

NAMES: dict[str, Color] = {
    "blue": (0, 0, 255),
    "green": (0, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "yellow": (255, 255, 0),
    "grey": (128, 128, 128),
    "lightblue": (0, 255, 255),
    "purple": (255, 0, 255),
}

TOLERANCE = 24
"""How far two shades of one colour may be apart in a channel; neural_style_seg.lua took a tenth, 25.5."""

WHOLE = "none"
"""In place of a style image's map: the image is one region, and gives its style to all of the content's."""

_LEAST = 0.001
"""The part of the map that a region has at least."""

_MOST = 12
"""Regions of a map; photographs come to 16 and more."""


@dataclass(frozen=True)
class RegionMap:
    """The colours of a map's regions, largest first, and for each pixel the number of its region, (H, W)."""

    colors: tuple[Color, ...]
    labels: NDArray[np.intp]


def load(
    path: str | os.PathLike[str], *, max_pixels: int, exif_rotate: bool, notice: Notice | None
) -> RegionMap:
    """Read a map from an image file; raises OptionError where it has no regions, or too many, and as image.load."""
    image = torch_image.load(path, max_pixels=max_pixels, exif_rotate=exif_rotate, notice=notice)
    return read(np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0), os.fspath(path))


def read(pixels: NDArray[np.uint8], name: str) -> RegionMap:
    """The regions of a map (H, W, 3); `name` is what errors call it."""
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    values, which, counts = np.unique(packed, return_inverse=True, return_counts=True)
    shades = np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.int32)  # (shades, 3)
    region_of, left = np.full(len(shades), -1), counts.copy()
    colors: list[Color] = []
    least = max(_LEAST * packed.size, 1)
    while left.sum() >= least:
        center = shades[int(left.argmax())]
        near = (np.abs(shades - center).max(1) <= TOLERANCE) & (left > 0)
        if left[near].sum() >= least and _is_wide(near[which].reshape(packed.shape)):
            region_of[near] = len(colors)
            red, green, blue = (int(value) for value in center)
            colors.append((red, green, blue))
        left[near] = 0
        if len(colors) > _MOST:
            raise OptionError(
                f"{name}: more than {_MOST} colours, where a map has one for each region; paint regions in one colour"
                " each, without shades"
            )
    if not colors:
        raise OptionError(f"{name}: no area of one colour; paint each region in a colour of its own")
    labels = region_of[which].reshape(packed.shape)
    nearest = ndimage.distance_transform_edt(labels < 0, return_distances=False, return_indices=True)
    return RegionMap(tuple(colors), labels[tuple(nearest)])


def _is_wide(area: NDArray[np.bool_]) -> bool:
    """Whether three by three pixels lie in `area` (H, W); as many as there are in a smaller map."""
    block = np.ones([min(3, length) for length in area.shape], bool)
    return bool(ndimage.binary_erosion(area, block).any())


def find(color: Color, among: tuple[Color, ...]) -> int | None:
    """Which of the colours `color` is, give or take TOLERANCE; None where it is none of them."""
    distances = [max(abs(a - b) for a, b in zip(color, other, strict=True)) for other in among]
    nearest = min(range(len(among)), key=distances.__getitem__)
    return nearest if distances[nearest] <= TOLERANCE else None


def parse_color(text: str) -> Color | None:
    """One of NAMES, or #rrggbb; None for anything else."""
    if text in NAMES:
        return NAMES[text]
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:], 16)


def parse_styles(text: str, count: int) -> tuple[str | Color | None, ...]:
    """What --style-regions says of each of `count` style images: a file, a colour, or None; nothing where it is ''."""
    words = split_list(text)
    if words and len(words) != count:
        raise OptionError(
            f"--style-regions has {len(words)} elements for {count} style images; give each its map, its one colour or"
            " none, for example sky.png,none"
        )
    return tuple(None if word == WHOLE else parse_color(word) or word for word in words)


def parse_weights(text: str) -> dict[Color, float]:
    """The weights of --content-region-weights, by colour."""
    weights = {}
    for word in split_list(text):
        name, _, value = word.partition("=")
        color, number = parse_color(name), tonumber(value)
        if color is None or number is None or not 0 <= number < math.inf:
            raise OptionError(
                f"--content-region-weights: {word!r} is no colour with a weight of 0 or more; give for example"
                " red=0.2,#0000ff=3"
            )
        weights[color] = number
    return weights


def describe(color: Color) -> str:
    """`#ff0000 (red)`, or without a name where it has none."""
    text = "#{:02x}{:02x}{:02x}".format(*color)
    number = find(color, tuple(NAMES.values()))
    return text if number is None else f"{text} ({list(NAMES)[number]})"

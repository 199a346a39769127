"""Which part of the image a tile needs, so that its part of every loss and gradient is exactly the whole image's.

A tile owns a rectangle of the image and, at every loss, the positions below that rectangle; the rectangles of all tiles
partition every layer. For its own positions a tile needs a halo: the receptive field of the deepest loss. Layers run on
the halo as they run on a whole image, padding included; what that makes wrong stays so close to the rim that no loss
looks at it, because the halo is as wide as the receptive field. Where the rim is the image's own border, padding and
the last windows of pooling are those of the whole image. Crops begin at multiples of the strides still to come, so that
pooling windows keep their places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from legacy_style.torch7.nn import Layer, Window

Interval = tuple[int, int]
"""First position and the one after the last, along one axis."""

Rectangle = tuple[Interval, Interval]
"""Rows and columns."""


@dataclass(frozen=True)
class Axis:
    """One tile along one axis: `held` of the image, and for each step the crop of its output and its own positions.

    `crops[i]`: what to keep of step i's output, counted within it, or None for all. `owned[i]`: the tile's own
    positions of step i's *input*, counted within it: where a loss stands, they are what it may look at. Only the first
    `depth` steps have anything to do with this tile. `where`: the same positions, counted in the whole.
    """

    held: Interval
    crops: tuple[Interval | None, ...]
    owned: tuple[Interval, ...]
    where: tuple[Interval, ...]
    lengths: tuple[int, ...]  # of every step's input
    depth: int

    def moved(self, by: int) -> Axis:
        """The same tile of an image of which more, or less, lies before it."""
        return replace(self, held=(self.held[0] + by, self.held[1] + by))


def sizes(windows: Sequence[Window], n: int) -> list[int]:
    """The length of every step's input, and of the last one's output, for an image axis of n."""
    result = [n]
    for window in windows:
        result.append(window.size(result[-1]))
    return result


def total_stride(windows: Sequence[Window]) -> int:
    return math.prod(window.stride for window in windows)


def axis(windows: Sequence[Window], losses: Sequence[bool], n: int, own: Interval) -> Axis:
    """Plan one tile along an axis of n pixels, of which it owns `own`; its start is a multiple of the total stride.

    `windows[i]` and `losses[i]` tell of step i what it looks at and whether it is a loss (which looks at its own
    input).
    """
    length = sizes(windows, n)
    strides = [total_stride(windows[:i]) for i in range(len(windows) + 1)]
    owned = [
        (min(own[0] // stride, size), size if own[1] >= n else min(own[1] // stride, size))
        for stride, size in zip(strides, length, strict=True)
    ]
    # From the last step back to the image: what of each input the tile's own losses need.
    need: list[Interval | None] = [None] * (len(windows) + 1)
    for i in range(len(windows) - 1, -1, -1):
        need[i] = _union(_covered(windows[i], need[i + 1], length[i]), owned[i] if losses[i] else None)
    depth = max((i + 1 for i, interval in enumerate(need[:-1]) if interval is not None), default=0)
    image = need[0] or (own[0], own[0])

    remaining = [total_stride(windows[i:]) for i in range(len(windows) + 1)]
    start, stop = image[0] // remaining[0] * remaining[0], image[1]
    held, crops, inside, lengths = (start, stop), list[Interval | None](), list[Interval](), list[int]()
    for i, window in enumerate(windows[:depth]):
        lengths.append(stop - start)
        inside.append((owned[i][0] - start, owned[i][1] - start))
        # The halo must be real pixels: a window that is cut by a rim that is not the image's gives garbage there only.
        produced = window.size(stop - start)
        start //= window.stride
        stop = start + produced
        crop = None
        following = need[i + 1]
        if window.stride > 1 and following is not None:
            low, high = following
            low = low // remaining[i + 1] * remaining[i + 1]
            crop = (low - start, high - start)
            start, stop = low, high
        crops.append(crop)
    return Axis(held, tuple(crops), tuple(inside), tuple(owned[:depth]), tuple(lengths), depth)


def _covered(window: Window, outputs: Interval | None, n: int) -> Interval | None:
    """The input positions that these outputs look at."""
    if outputs is None or outputs[0] >= outputs[1]:
        return None
    low = outputs[0] * window.stride - window.pad
    high = (outputs[1] - 1) * window.stride - window.pad + window.extent
    # One at least, also where all is padding: layers take no feature maps without pixels.
    low = min(max(low, 0), n - 1)
    return (low, max(min(high, n), low + 1))


def _union(a: Interval | None, b: Interval | None) -> Interval | None:
    if b is None or b[0] >= b[1]:
        return a
    return b if a is None else (min(a[0], b[0]), max(a[1], b[1]))


def cut(n: int, pieces: int, multiple: int) -> list[Interval]:
    """0..n in at most `pieces` intervals of about the same length, each beginning at a multiple of `multiple`."""
    units = max(n // multiple, 1)
    pieces = max(min(pieces, units), 1)
    starts = [units * i // pieces * multiple for i in range(pieces)] + [n]
    return list(pairwise(starts))


@dataclass(frozen=True)
class Tile:
    """One tile of an image: its plans along both axes."""

    vertical: Axis
    horizontal: Axis


def local(steps: Sequence[Layer | object]) -> bool:
    """Whether every layer looks at a bounded window, so that the image may be cut."""
    return all(step.windows is not None for step in steps if isinstance(step, Layer))

"""The median filter over a finished image. Ports jcjohnson/fast-neural-style 813c834, utils.lua, median_filter.

Notes: the result is smaller by r - 1 along each axis, for only whole windows count; of an even number of values the
median is the lower one of the two in the middle.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

_ELEMENTS = 2**22
"""About so many values of windows are sorted at a time."""

# Pairs to put in order so that the fifth of nine values is their median (Smith, Implementing median filters in XC4000E
# FPGAs, 1996).
_NINE = (
    *((1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3)),
    *((5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2)),
)


def median_filter(image: Array, r: int) -> Array:
    """The median of each r x r window of each channel: (C, H, W) to (C, H - r + 1, W - r + 1)."""
    if r == 3:
        return _median_of_nine(image)
    rows = image.shape[1] - r + 1
    windows = np.lib.stride_tricks.sliding_window_view(image, (r, r), (1, 2))  # (C, rows, columns, r, r)
    result = np.empty(windows.shape[:3], image.dtype)
    step = max(_ELEMENTS // (windows.shape[0] * windows.shape[2] * r * r), 1)
    middle = (r * r - 1) // 2
    for first, last in pairwise([*range(0, rows, step), rows]):
        flat = windows[:, first:last].reshape(image.shape[0], last - first, -1, r * r)
        result[:, first:last] = np.partition(flat, middle, axis=-1)[..., middle]
    return result


def _median_of_nine(image: Array) -> Array:
    height, width = image.shape[1] - 2, image.shape[2] - 2
    values = [image[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    for low, high in _NINE:
        a, b = values[low], values[high]
        values[low], values[high] = np.minimum(a, b), np.maximum(a, b)
    return values[4]

"""Where an optical flow can be trusted: the certainty masks of the original's consistencyChecker.

Ports manuelruder/artistic-videos 40e7447, consistencyChecker.cpp, to the byte. A pixel counts if following the flow
there and the opposite flow back leads near to where it began (Sundaram, Brox and Keutzer 2010, eq. 5) and it does
not lie on a motion boundary (eq. 6); then the mask is smoothed. Notes: everything is float32, but for the right
sides of the two comparisons; a pixel that leaves the image counts 0 before smoothing, one whose way back misses
counts -255.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from legacy_style import files
from legacy_style.errors import OptionError
from legacy_style.programs.artistic_video.flo import Flow

Plane = NDArray[np.float32]
Mask = NDArray[np.uint8]

_RELIABLE, _BOUNDARY, _INCONSISTENT = 255.0, 0.0, -255.0

_SMOOTHING = 0.8  # sigma of the Gaussian; twice that, rounded up, is its radius

_CENTRAL_DIFFERENCE = np.array([-0.5, 0.0, 0.5], np.float32)


def certainty(there: Flow, back: Flow) -> Mask:
    """How far the flow `there` can be trusted, (H, W), 0..255, judged by the opposite flow `back`; both (2, H, W).

    Raises OptionError where the two differ in size.
    """
    if there.shape != back.shape:
        raise OptionError(
            f"the two flows are {there.shape[2]}x{there.shape[1]} and {back.shape[2]}x{back.shape[1]} pixels; give two"
            " flows between frames of one size"
        )
    height, width = there.shape[1:]
    if min(height, width) < 2:  # nothing has four neighbours
        return np.zeros((height, width), np.uint8)
    u, v = there
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        x, y = columns + u, rows + v
        left, top = _whole(x), _whole(y)
        leaves = (left < 0) | (left + 1 >= width) | (top < 0) | (top + 1 >= height)
        back_u, back_v = _sample(back, x, y, left, top)
        miss_x, miss_y = x + back_u - columns, y + back_v - rows
        length = u * u + v * v
        misses = miss_x * miss_x + miss_y * miss_y >= _share(length + back_u * back_u + back_v * back_v, 0.5)
        boundary = _edges(there) > _share(length, 0.002)
    reliable = np.full((height, width), _RELIABLE, np.float32)
    reliable[boundary] = _BOUNDARY
    reliable[misses] = _INCONSISTENT
    reliable[leaves] = 0
    kernel = _gaussian(_SMOOTHING)
    smooth = _filter(_filter(reliable, kernel, axis=1), kernel, axis=0)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def write(path: str, mask: Mask) -> None:
    """Write a mask (H, W) as a binary PGM, whole or not at all; raises OptionError where that fails."""
    height, width = mask.shape
    try:
        files.write_whole(path, f"P5\n{width} {height}\n255\n".encode() + mask.tobytes())
    except OSError as error:
        raise OptionError(f"{path}: could not be written: {files.reason(error)}") from error


def _whole(position: Plane) -> NDArray[np.int64]:
    """Rounded down; what is no number, or beyond every image, becomes -1, which lies outside."""
    floor = np.floor(position)
    return np.where(np.abs(floor) < 2**30, floor, -1).astype(np.int64)


def _sample(
    flow: Flow, x: Plane, y: Plane, left: NDArray[np.int64], top: NDArray[np.int64]
) -> tuple[Plane, Plane]:
    """`flow` between its pixels: weights and products in double, each of the three sums rounded to float32."""
    height, width = flow.shape[1:]
    across = (x - left.astype(np.float32)).astype(np.float64)
    down = (y - top.astype(np.float32)).astype(np.float64)
    left, top = np.clip(left, 0, width - 2), np.clip(top, 0, height - 2)

    def between(plane: Plane) -> Plane:
        upper = ((1 - across) * plane[top, left] + across * plane[top, left + 1]).astype(np.float32)
        lower = ((1 - across) * plane[top + 1, left] + across * plane[top + 1, left + 1]).astype(np.float32)
        middle: Plane = ((1 - down) * upper + down * lower).astype(np.float32)
        return middle

    return between(flow[0]), between(flow[1])


def _share(squares: Plane, least: float) -> NDArray[np.float64]:
    """0.01 * squares + least, in double; `least` was a float."""
    right: NDArray[np.float64] = 0.01 * squares.astype(np.float64) + float(np.float32(least))
    return right


def _edges(flow: Flow) -> Plane:
    """The squared gradients of u and v, added up."""
    total = np.zeros(flow.shape[1:], np.float32)
    for axis in (1, 0):
        for component in flow:
            slope = _filter(component, _CENTRAL_DIFFERENCE, axis)
            total += slope * slope
    return total


def _gaussian(sigma: float) -> Plane:
    single = np.float32(sigma)
    radius = math.ceil(np.float32(2) * single)
    variance, scale = float(single * single), float(single) * math.sqrt(2 * math.pi)
    weights = np.array(
        [math.exp(i * i / (-2 * variance)) / scale for i in range(-radius, radius + 1)], np.float32
    )
    total = np.float32(0)
    for weight in weights:
        total += weight
    kernel: Plane = weights * np.float32(1 / float(total))
    return kernel


def _filter(plane: Plane, kernel: Plane, axis: int) -> Plane:
    """Correlation along one axis, mirrored at the borders (-1 is 0 again), added up from the left in float32."""
    length, radius = plane.shape[axis], len(kernel) // 2
    total = np.zeros_like(plane)
    for offset in range(-radius, radius + 1):
        source = np.arange(length) + offset
        source = np.where(source < 0, -1 - source, source)
        source = np.where(source >= length, 2 * length - 1 - source, source)
        total += kernel[offset + radius] * np.take(plane, np.clip(source, 0, length - 1), axis)
    return total

"""Moving an image along an optical flow.

Ports manuelruder/artistic-videos 40e7447, warpImage, and torch/image 5aa1881, image.warp (bilinear, offset mode).
Notes: positions and weights are float32, the image is float64; a pixel whose source lies outside, be it by a fraction,
is outside.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import OptionError
from legacy_style.programs.artistic_video.flo import Flow

Array = NDArray[np.float64]

MEAN_PIXEL_RGB = (123.68 / 256, 116.779 / 256, 103.939 / 256)
"""What pixels get that come from outside the image: the mean pixel, in [0,1]."""

Outside = Literal["mean pixel", "border"]


def warp(image: Array, flow: Flow, outside: Outside = "mean pixel") -> Array:
    """The image that `flow` (2, H, W) fetches from `image` (3, H, W): at (y, x) what lies at (y + v, x + u).

    `outside` is what stands where that is not in the image. Positions that are not numbers are outside too. Raises
    OptionError where the sizes differ.
    """
    height, width = image.shape[1:]
    if flow.shape[1:] != (height, width):
        raise OptionError(
            f"the flow is {flow.shape[2]}x{flow.shape[1]} pixels, the image {width}x{height}; make the flow from the"
            " frames in the size in which they are stylised"
        )
    y, x = _positions(flow)
    missing = is_outside(flow)
    bottom, right = np.float32(height - 1), np.float32(width - 1)
    y = np.clip(np.nan_to_num(y, nan=0.0), 0, bottom)
    x = np.clip(np.nan_to_num(x, nan=0.0), 0, right)
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    down, across = y - top.astype(np.float32), x - left.astype(np.float32)
    up, back = (top + 1).astype(np.float32) - y, (left + 1).astype(np.float32) - x
    low, far = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    warped: Array = (
        image[:, top, left] * (back * up)
        + image[:, top, far] * (across * up)
        + image[:, low, left] * (back * down)
        + image[:, low, far] * (across * down)
    )
    if outside == "mean pixel":
        warped[:, missing] = np.array(MEAN_PIXEL_RGB)[:, None]
    return warped


def is_outside(flow: Flow) -> NDArray[np.bool_]:
    """Which pixels, (H, W), come from outside the image or from nowhere (not a number)."""
    height, width = flow.shape[1:]
    y, x = _positions(flow)
    with np.errstate(invalid="ignore"):
        inside: NDArray[np.bool_] = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    return ~inside


def _positions(flow: Flow) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.mgrid[0 : flow.shape[1], 0 : flow.shape[2]].astype(np.float32)
    return rows + flow[1], columns + flow[0]

"""The exact test of -original_colors: are the colours of a picture those of its content image?

The original writes Y of the result with U and V of the scaled content (neural_style.lua,
`original_colors`; torch/image 5aa1881, yuv2rgb), clamps, and truncates to bytes. So at each pixel one
number, Y, has to explain three bytes: byte b in 1..254 says that Y + k lies in [b/255, (b+1)/255), b = 0
and 255 also allow whatever was clamped, and k, the channel's share of U and V, is known. The three
intervals must meet. No network is needed, and no tolerance beyond float64's rounding; nor does it matter
whether bytes were truncated or rounded, since that only moves Y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from legacy_style.compare.metrics import Bytes
from legacy_style.torch7 import image

# Levels. rgb2yuv and yuv2rgb round to about 1e-16; a level is 4e-3.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class OriginalColors:
    """`passed`: all pixels have the content's U and V; else `failing`, a fraction, and `worst`, in levels.

    `same_size` is False where the content does not scale to the picture's size; nothing was tested then.
    """

    passed: bool
    failing: float
    worst: float
    same_size: bool = True


def original_colors_test(picture: Bytes, content: NDArray[np.float64]) -> OriginalColors:
    """Test bytes (H, W, 3) against the content image, RGB in [0,1] and not yet scaled, (3, h, w)."""
    height, width = picture.shape[:2]
    scaled = image.scale(content, max(height, width))
    if scaled.shape[1:] != (height, width):
        return OriginalColors(passed=False, failing=1.0, worst=float("inf"), same_size=False)
    colors = image.rgb2yuv(scaled)
    colors[0] = 0
    shares = image.yuv2rgb(colors) * 255  # what U and V add to each channel, levels
    levels = picture.transpose(2, 0, 1).astype(np.float64)
    lowest = np.where(levels == 0, -np.inf, levels) - shares
    highest = np.where(levels == 255, np.inf, levels + 1) - shares
    gap = lowest.max(axis=0) - highest.min(axis=0)
    failing = float((gap > _ROUNDING).mean())
    return OriginalColors(passed=failing == 0, failing=failing, worst=max(float(gap.max()), 0.0))

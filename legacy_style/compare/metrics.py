"""How far two pictures are apart, pixel by pixel: levels, PSNR, SSIM, histograms, CIE colour difference.

Formulas: PSNR and SSIM as in Wang, Bovik, Sheikh, Simoncelli (2004); CIELAB for sRGB under D65 and
CIEDE2000 as in Sharma, Wu, Dalal (2005). Notes: pictures are compared as the bytes that their files
hold (H, W, 3), so what image.save truncated is what counts; SSIM's outer five pixels, where its window
does not fit, are left out of the mean.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]  # scipy ships no types

from legacy_style.errors import OptionError
from legacy_style.torch7 import image as torch7_image

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]

# Wang et al. (2004): a Gaussian window of 11x11 pixels with sigma 1.5, and two constants against
# division by 0.
_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

# IEC 61966-2-1: linear sRGB to CIE XYZ, and the white of D65 for the 2 degree observer.
_XYZ_OF_RGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


# Levels. rgb2yuv and yuv2rgb round to about 1e-16; a level is 4e-3.
_YUV_ROUNDING = 1e-9


@dataclass(frozen=True)
class Pixels:
    """Measures of two pictures of one size; levels are of 255.

    `ssim` is None for pictures under 11 pixels on a side, `psnr` infinite for equal ones. `histogram` has the
    distance of red, green and blue. `color_*` are CIEDE2000 units, of which about 1 is just noticeable.
    """

    width: int
    height: int
    max_difference: int
    mean_difference: float
    differing: float  # fraction of pixels
    psnr: float
    ssim: float | None
    histogram: tuple[float, float, float]
    color_mean: float
    color_p95: float
    color_max: float


def load_bytes(path: str | os.PathLike[str]) -> Bytes:
    """The picture in `path` as bytes (H, W, 3); raises as `torch7.image.load`."""
    return to_bytes(torch7_image.load(path))


def to_bytes(image: Array) -> Bytes:
    """RGB in [0,1], (3, H, W), as loaded or scaled, to the nearest bytes (H, W, 3)."""
    return np.ascontiguousarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def to_image(picture: Bytes) -> Array:
    """Bytes (H, W, 3) to RGB in [0,1], (3, H, W), as `torch7.image.load` would have them."""
    image: Array = picture.transpose(2, 0, 1) * (1 / 255)
    return image


def compare(a: Bytes, b: Bytes) -> Pixels:
    """All measures of two pictures; raises OptionError where their sizes differ."""
    if a.shape != b.shape:
        raise OptionError(
            f"pictures of {size_of(a)} and {size_of(b)} pixels cannot be compared pixel by pixel;"
            " scale one of them first"
        )
    difference = np.abs(a.astype(np.int16) - b.astype(np.int16))
    colors = delta_e(a, b)
    return Pixels(
        width=a.shape[1],
        height=a.shape[0],
        max_difference=int(difference.max()),
        mean_difference=float(difference.mean()),
        differing=float((difference.max(axis=2) > 0).mean()),
        psnr=psnr(a, b),
        ssim=ssim(a, b),
        histogram=histogram_distance(a, b),
        color_mean=float(colors.mean()),
        color_p95=float(np.percentile(colors, 95)),
        color_max=float(colors.max()),
    )


def size_of(picture: Bytes) -> str:
    """'512x384', the width first."""
    return f"{picture.shape[1]}x{picture.shape[0]}"


def psnr(a: Bytes, b: Bytes) -> float:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal pictures."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(a: Bytes, b: Bytes) -> float | None:
    """Mean structural similarity of the three channels, 1 for equal pictures; None under 11 pixels."""
    if min(a.shape[:2]) <= 2 * _SSIM_RADIUS:
        return None
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(np.mean([_ssim_plane(x[..., c], y[..., c]) for c in range(3)]))


def _ssim_plane(a: Array, b: Array) -> float:
    def local_mean(plane: Array) -> Array:
        mean: Array = ndimage.gaussian_filter(plane, _SSIM_SIGMA, radius=_SSIM_RADIUS)
        return mean

    mean_a, mean_b = local_mean(a), local_mean(b)
    var_a = local_mean(a * a) - mean_a**2
    var_b = local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    above = (2 * mean_a * mean_b + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    below = (mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2)
    inner = slice(_SSIM_RADIUS, -_SSIM_RADIUS)
    return float((above / below)[inner, inner].mean())


def histogram_distance(a: Bytes, b: Bytes) -> tuple[float, float, float]:
    """Earth mover's distance, in levels, of the histograms of red, green and blue; sizes may differ."""
    red, green, blue = (
        float(np.abs(_cumulative(a[..., c]) - _cumulative(b[..., c])).sum()) for c in range(3)
    )
    return red, green, blue


def _cumulative(plane: Bytes) -> Array:
    return np.cumsum(np.bincount(plane.ravel(), minlength=256)) / plane.size


def lab(picture: Bytes) -> Array:
    """sRGB bytes (..., 3) to CIELAB under D65, (..., 3)."""
    levels = np.arange(256) / 255
    linear = np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)[picture]
    ratio = linear @ _XYZ_OF_RGB.T / _WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def delta_e(a: Bytes, b: Bytes) -> Array:
    """CIEDE2000 of each pixel of two pictures of one size, (H, W)."""
    return ciede2000(lab(a), lab(b))


def ciede2000(a: Array, b: Array) -> Array:
    """CIEDE2000 of CIELAB colours (..., 3), with all weights 1.

    Source: Sharma, Wu, Dalal (2005), equations 2 to 22, under the paper's names.
    """
    l1, a1, b1 = np.moveaxis(a, -1, 0)
    l2, a2, b2 = np.moveaxis(b, -1, 0)
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    g = 0.5 * (1 - np.sqrt(c7 / (c7 + 25.0**7)))
    c1, h1 = _chroma_and_hue((1 + g) * a1, b1)
    c2, h2 = _chroma_and_hue((1 + g) * a2, b2)
    gray = c1 * c2 == 0  # then hue means nothing

    dl, dc = l2 - l1, c2 - c1
    dh = np.where(gray, 0, (h2 - h1 + 180) % 360 - 180)
    # Of two opposite hues the paper takes +180 for h2 > h1; modulo says -180, whose sine is the other one.
    dh = np.where(~gray & (h2 - h1 == 180), 180.0, dh)
    d_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh) / 2)

    l_mean, c_mean = (l1 + l2) / 2, (c1 + c2) / 2
    total = h1 + h2
    around = np.where(total < 360, total + 360, total - 360)  # their mean lies across 0 degrees
    h_mean = np.where(gray, total, np.where(np.abs(h1 - h2) <= 180, total, around) / 2)

    t = 1 - 0.17 * _cos(h_mean - 30) + 0.24 * _cos(2 * h_mean)
    t += 0.32 * _cos(3 * h_mean + 6) - 0.20 * _cos(4 * h_mean - 63)
    from_50 = (l_mean - 50) ** 2
    s_l = 1 + 0.015 * from_50 / np.sqrt(20 + from_50)
    s_c = 1 + 0.045 * c_mean
    s_h = 1 + 0.015 * c_mean * t
    r_c = 2 * np.sqrt(c_mean**7 / (c_mean**7 + 25.0**7))
    r_t = -np.sin(np.radians(60 * np.exp(-(((h_mean - 275) / 25) ** 2)))) * r_c

    light, chroma, hue = dl / s_l, dc / s_c, d_hue / s_h
    squares: Array = light**2 + chroma**2 + hue**2 + r_t * chroma * hue
    return np.sqrt(np.maximum(squares, 0))


def _chroma_and_hue(a: Array, b: Array) -> tuple[Array, Array]:
    return np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360


def _cos(degrees: Array) -> Array:
    return np.cos(np.radians(degrees))


@dataclass(frozen=True)
class OriginalColors:
    """`passed`: all pixels have the content's U and V; else `failing`, a fraction, and `worst`, in levels.

    `same_size` is False where the content does not scale to the picture's size; nothing was tested then.
    """

    passed: bool
    failing: float
    worst: float
    same_size: bool = True

    @property
    def text(self) -> str:
        if self.passed:
            return "U and V are the content's, exactly"
        if not self.same_size:
            return "the content does not scale to its size"
        return f"{self.failing:.2%} of the pixels have other U and V, off by {self.worst:.3g} levels"


def original_colors_test(picture: Bytes, content: Array) -> OriginalColors:
    """Test exactly whether a picture's colours are its content image's, as after -original_colors.

    `picture`: bytes (H, W, 3); `content`: RGB in [0,1] and not yet scaled, (3, h, w).

    The original writes Y of the result with U and V of the scaled content (neural_style.lua,
    `original_colors`; torch/image 5aa1881, yuv2rgb), clamps, and truncates to bytes. So at each pixel one
    number, Y, has to explain three bytes: byte b in 1..254 says that Y + k lies in [b/255, (b+1)/255), b = 0
    and 255 also allow whatever was clamped, and k, the channel's share of U and V, is known. The three
    intervals must meet. No network is needed, and no tolerance beyond float64's rounding; nor does it matter
    whether bytes were truncated or rounded, since that only moves Y.
    """
    height, width = picture.shape[:2]
    scaled = torch7_image.scale(content, max(height, width))
    if scaled.shape[1:] != (height, width):
        return OriginalColors(passed=False, failing=1.0, worst=float("inf"), same_size=False)
    colors = torch7_image.rgb2yuv(scaled)
    colors[0] = 0
    shares = torch7_image.yuv2rgb(colors) * 255  # what U and V add to each channel, levels
    levels = picture.transpose(2, 0, 1).astype(np.float64)
    lowest = np.where(levels == 0, -np.inf, levels) - shares
    highest = np.where(levels == 255, np.inf, levels + 1) - shares
    gap = lowest.max(axis=0) - highest.min(axis=0)
    failing = float((gap > _YUV_ROUNDING).mean())
    return OriginalColors(passed=failing == 0, failing=failing, worst=max(float(gap.max()), 0.0))

"""Colour transfer between two images, before or after a style transfer.

From Gatys et al., Preserving Color in Neural Artistic Style Transfer (2016). Its section 3 gives the style image
the colours of the content image: x -> A x + b for every pixel x (R, G, B), so that mean and covariance become those
of the content. Any A with A S_style A^T = S_content does that. The three that people use differ by a rotation, and
are named as in the script that is chained before neural_style (linear-color-transfer.py): `pca` (symmetric square
roots, the paper's choice from "image analogies"), `chol` (the paper's Cholesky factors) and `sym` (the A that is
itself symmetric, the map of optimal transport). Its section 4 works on luminance alone; `lab` gives the result of any
style transfer the content's colours, by CIE's L*a*b*. `before` and `after` are what a program calls.

Images are RGB in [0,1], (3, H, W), float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import OptionError

Array = NDArray[np.float64]

MODES = ("pca", "chol", "sym")

EPSILON = 1e-5
"""Added to the variances, so that a gray image has an inverse; linear-color-transfer.py's value."""

# NTSC's YIQ, which the paper names for luminance.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])

# sRGB's primaries and white D65 (IEC 61966-2-1), and CIE's constants of L*a*b*.
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _XYZ.sum(1)
_LAB_EDGE = 6 / 29


def match(image: Array, reference: Array, mode: str = "pca") -> Array:
    """`image` with the mean and covariance of the colours of `reference`, cut to [0,1] (the paper's equations 5 and 6).

    Raises OptionError for a mode that is not one of MODES.
    """
    flat, _ = _centred(image)
    other, other_mean = _centred(reference)
    matrix = transform(_covariance(flat), _covariance(other), mode)
    matched = (matrix @ flat + other_mean).reshape(image.shape)
    return np.clip(matched, 0.0, 1.0)


def transform(covariance: Array, wanted: Array, mode: str) -> Array:
    """The (3, 3) matrix A with A `covariance` A^T = `wanted`."""
    if mode == "chol":
        return np.asarray(np.linalg.solve(np.linalg.cholesky(covariance).T, np.linalg.cholesky(wanted).T).T)
    root = _root(covariance)
    if mode == "pca":
        return np.asarray(np.linalg.solve(root, _root(wanted)).T)
    if mode == "sym":
        inverse = np.linalg.inv(root)
        return np.asarray(inverse @ _root(root @ wanted @ root) @ inverse)
    raise OptionError(f"there is no colour transfer {mode!r}; give one of {', '.join(MODES)}")


def luminance(image: Array) -> Array:
    """The luminance of `image` as a gray image, (3, H, W): what section 4 hands to the style transfer."""
    return np.repeat(np.tensordot(_YIQ[0], image, 1)[None], 3, axis=0)


def match_luminance(image: Array, reference: Array) -> Array:
    """A gray `image` with the mean and deviation of a gray `reference` (the paper's equation 10), not cut."""
    deviation = float(image.std())
    scale = float(reference.std()) / deviation if deviation > 0 else 1.0
    return np.asarray((image - image.mean()) * scale + reference.mean())


def with_luminance(colors: Array, gray: Array) -> Array:
    """The luminance of `gray` with the colours (I and Q) of `colors`; not cut."""
    yiq = np.tensordot(_YIQ, colors, 1)
    yiq[0] = np.tensordot(_YIQ[0], gray, 1)
    return np.asarray(np.tensordot(np.linalg.inv(_YIQ), yiq, 1))


def with_lightness(colors: Array, generated: Array) -> Array:
    """The lightness L* of `generated` with a* and b* of `colors`; in [0,1]."""
    lab = to_lab(np.clip(colors, 0, 1))
    lab[0] = to_lab(np.clip(generated, 0, 1))[0]
    return np.clip(from_lab(lab), 0.0, 1.0)


def to_lab(image: Array) -> Array:
    """RGB (sRGB's) to L*, a*, b*, (3, H, W): 0..100 and about -128..127."""
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    x, y, z = (
        np.where(t > _LAB_EDGE**3, np.cbrt(t), t / (3 * _LAB_EDGE**2) + 4 / 29)
        for t in np.tensordot(_XYZ, linear, 1) / _WHITE[:, None, None]
    )
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def from_lab(lab: Array) -> Array:
    """The inverse of `to_lab`, not cut; colours that sRGB has not come out below 0 or above 1."""
    y = (lab[0] + 16) / 116
    curved = np.stack([y + lab[1] / 500, y, y - lab[2] / 200])
    xyz = np.where(curved > _LAB_EDGE, curved**3, 3 * _LAB_EDGE**2 * (curved - 4 / 29))
    linear = np.tensordot(np.linalg.inv(_XYZ), xyz * _WHITE[:, None, None], 1)
    return np.asarray(
        np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)
    )


RECOLOR: dict[str, Callable[[Array, Array], Array]] = {"luminance": with_luminance, "lab": with_lightness}
"""What gives a result its content's colours back: (content, result) -> result."""


TRANSFERS = ("match", *MODES, *RECOLOR)
"""What --color-transfer takes; `match` is `pca`, the paper's choice."""


def before(mode: str, content: Array, styles: Sequence[Array]) -> tuple[Array, list[Array]]:
    """The content and style images that a style transfer is to be given, for one of TRANSFERS."""
    if mode == "luminance":
        gray = luminance(content)
        return gray, [match_luminance(luminance(style), gray) for style in styles]
    if mode == "lab":
        return content, list(styles)
    return content, [match(style, content, "pca" if mode == "match" else mode) for style in styles]


def after(mode: str, content: Array, result: Array) -> Array:
    """The result of a style transfer, with the colours of the content image where the mode takes them from there."""
    return RECOLOR[mode](content, result) if mode in RECOLOR else result


def _centred(image: Array) -> tuple[Array, Array]:
    """The pixels about their mean, (3, H*W), and that mean, (3, 1)."""
    flat = image.reshape(3, -1)
    mean = flat.mean(1, keepdims=True)
    return flat - mean, mean


def _covariance(flat: Array) -> Array:
    return np.asarray(flat @ flat.T / flat.shape[1] + EPSILON * np.eye(3))


def _root(covariance: Array) -> Array:
    """The symmetric square root."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)

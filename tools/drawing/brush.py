"""A brush and the noise that its hairs follow, with numpy and Pillow alone.

A stroke is a path with a width. It is sampled on a mesh finer than the pixels, along the path and across it,
so whatever is a function of those two (hairs, ink that runs out, ridges of paint) bends with the path.
Coordinates are pixels, (x, y); arrays are float32 (H, W).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]
Points = NDArray[np.float64]


def value_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float]) -> Field:
    """Smooth noise, (H, W), mean 0 and variance near 1, with `cells` lumps down and across."""
    rows, columns = (max(2, round(count)) + 3 for count in cells)
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    box = (1.0, 1.0, columns - 1.0, rows - 1.0)
    size = (shape[1], shape[0])
    noise = np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC, box=box))
    even: Field = noise / np.float32(0.72)  # the interpolation takes that much of the deviation
    return even


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cells: tuple[float, float],
    octaves: int = 5,
    gain: float = 0.5,
) -> Field:
    """Octaves of `value_noise`, each twice as fine and `gain` times as strong; variance near 1."""
    total = np.zeros(shape, np.float32)
    power = 0.0
    for octave in range(octaves):
        weight = gain**octave
        total += np.float32(weight) * value_noise(rng, shape, (cells[0] * 2**octave, cells[1] * 2**octave))
        power += weight**2
    total /= np.float32(power**0.5)
    return total


def blur(field: Field, radius: float) -> Field:
    """Smooths by shrinking and enlarging again, which is quick for any radius (pixels)."""
    height, width = field.shape
    small = (max(2, round(width / radius)), max(2, round(height / radius)))
    shrunk = Image.fromarray(field).resize(small, Image.Resampling.BOX)
    return np.asarray(shrunk.resize((width, height), Image.Resampling.BICUBIC))


def sample(field: Field, points: Points) -> Field:
    """The field's values at the pixels nearest to points (..., 2), clamped to the edge."""
    x = np.clip(points[..., 0].astype(np.int64), 0, field.shape[1] - 1)
    y = np.clip(points[..., 1].astype(np.int64), 0, field.shape[0] - 1)
    return field[y, x]


def smooth_path(corners: Points, count: int) -> Points:
    """A Catmull-Rom curve through corners (n, 2), resampled at `count` equal steps of its length."""
    padded = np.concatenate([2 * corners[:1] - corners[1:2], corners, 2 * corners[-1:] - corners[-2:-1]])
    before, start, end, after = (padded[k : len(padded) - 3 + k, None] for k in range(4))
    t = np.linspace(0, 1, 16, endpoint=False)[:, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    line = np.concatenate([curve.reshape(-1, 2), corners[-1:]])
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    even = np.linspace(0, length[-1], count)
    return np.stack([np.interp(even, length, line[:, 0]), np.interp(even, length, line[:, 1])], axis=1)


def mesh(paths: Points, width: NDArray[np.floating], across: int) -> Points:
    """Sample points of strokes: paths (..., n, 2) and widths (..., n) give (..., n, across, 2)."""
    tangent = np.gradient(paths, axis=-2)
    tangent /= np.maximum(np.hypot(tangent[..., 0], tangent[..., 1]), 1e-9)[..., None]
    normal = np.stack([-tangent[..., 1], tangent[..., 0]], axis=-1)
    offset = np.linspace(-0.5, 0.5, across, dtype=width.dtype) * width[..., None]
    points: Points = paths[..., None, :] + normal[..., None, :] * offset[..., None]
    return points


def hair_tile(rng: np.random.Generator) -> Field:
    """What the hairs of a brush leave, mean 0: streaks along the first axis. `hairs` cuts pieces from it."""
    fine = value_noise(rng, (1024, 512), (30, 260))
    coarse = value_noise(rng, (1024, 512), (22, 90))
    return (0.6 * fine + 0.6 * coarse).astype(np.float32)


def hairs(rng: np.random.Generator, tile: Field, along: int, across: int) -> Field:
    """One piece of a tile, (along, across), from a random place."""
    first, second = rng.integers(0, tile.shape)
    rows, columns = np.arange(along) + first, np.arange(across) + second
    piece: Field = tile[(rows % tile.shape[0])[:, None], columns % tile.shape[1]]
    return piece

"""A sheet of paper for ink: pigments, washes and strokes on it.

Pigments are kept apart, each as an optical density (H, W), and the paper shines through them as light
through coloured glass (Beer-Lambert), so washes darken where they overlap, as ink does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from drawing.brush import Field, Points, fractal_noise, hair_tile, hairs, mesh, smooth_path

# How much of red, green and blue light each pigment takes.
_ABSORBS = {
    "ink": (1.06, 1.0, 0.93),
    "indigo": (1.25, 0.66, 0.28),
    "ochre": (0.16, 0.58, 1.1),
    "vermilion": (0.1, 1.5, 1.75),
}
_PAPER = (0.955, 0.925, 0.85)


class Sheet:
    """The paper while it is painted: one density per pigment, and the random numbers in use."""

    def __init__(self, shape: tuple[int, int], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = shape
        self.pigments = {name: np.zeros(shape, np.float32) for name in _ABSORBS}
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        self.x = (columns / shape[1]).astype(np.float32)
        self.y = (rows / shape[0]).astype(np.float32)
        self.unit = shape[1] / 1280  # brush sizes follow the picture's
        self._hairs = hair_tile(self.rng)

    def noise(self, cells: tuple[float, float], octaves: int = 5) -> Field:
        """Fractal noise all over the sheet."""
        return fractal_noise(self.rng, self.shape, cells, octaves)

    def add(self, pigment: str, density: NDArray[np.floating]) -> None:
        """Adds a wash, (H, W); what is below zero adds nothing."""
        self.pigments[pigment] += np.maximum(density, 0).astype(np.float32)

    def hide(self, cover: Field) -> None:
        """Takes away what was painted, as far as `cover` (H, W) in [0,1] says: something stands before it."""
        for field in self.pigments.values():
            field *= 1 - np.float32(0.97) * cover

    def _lay(self, pigment: str, points: Points, density: Field) -> None:
        """Adds strokes sampled at points (..., 2): each pixel takes the mean of the samples in it."""
        columns = points[..., 0].astype(np.int64).ravel()
        rows = points[..., 1].astype(np.int64).ravel()
        inside = (columns >= 0) & (columns < self.shape[1]) & (rows >= 0) & (rows < self.shape[0])
        if not inside.any():
            return
        rows, columns = rows[inside], columns[inside]
        top, left = rows.min(), columns.min()
        box = (int(rows.max() - top + 1), int(columns.max() - left + 1))
        index = (rows - top) * box[1] + columns - left
        weight = np.broadcast_to(density, points.shape[:-1]).ravel()[inside]
        total = np.bincount(index, weight, box[0] * box[1])
        count = np.bincount(index, minlength=box[0] * box[1])
        mean = (total / np.maximum(count, 1)).reshape(box).astype(np.float32)
        self.pigments[pigment][top : top + box[0], left : left + box[1]] += mean

    def stroke(
        self,
        pigment: str,
        corners: ArrayLike,
        width: ArrayLike,
        density: float,
        dryness: float,
        runs_out: float = 0.0,
    ) -> None:
        """One stroke through corners (n, 2); `width` in pixels, at equal steps. A dry brush leaves gaps."""
        places, widths = np.asarray(corners, np.float64), np.asarray(width, np.float64)
        reach = float(np.hypot(*np.diff(places, axis=0).T).sum())
        along, across = max(4, int(reach * 1.5)), max(3, int(widths.max() * 1.6))
        s = np.linspace(0, 1, along)
        widths = np.interp(s, np.linspace(0, 1, len(widths)), widths)
        load = 1 + hairs(self.rng, self._hairs, along, across) - dryness - 2 * runs_out * s[:, None]
        rim = 0.85 + 0.3 * np.linspace(-1, 1, across) ** 4  # ink gathers at the sides
        ink = density * rim * np.clip(load, 0, 1.3)
        self._lay(pigment, mesh(smooth_path(places, along), widths, across), ink.astype(np.float32))

    def render(self, paper: Field) -> Image.Image:
        """The sheet as an RGB image of half its size, on paper of brightness `paper` (H, W)."""
        channels = []
        for channel in range(3):
            density = sum(_ABSORBS[name][channel] * field for name, field in self.pigments.items())
            channels.append(_PAPER[channel] * paper * np.exp(-density))
        pixels = (np.clip(np.stack(channels, axis=2), 0, 1) * 255 + 0.5).astype(np.uint8)
        return Image.fromarray(pixels).resize(
            (self.shape[1] // 2, self.shape[0] // 2), Image.Resampling.LANCZOS
        )


def step(x: Field) -> Field:
    """0 far below zero, 1 far above it."""
    smooth: Field = 0.5 + 0.5 * np.tanh(0.5 * x)
    return smooth

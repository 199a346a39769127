"""A mosaic of small stones in fans that overlap like scales, with gold glass among lapis and terracotta.

Everything is a function of the pixel: which fan, which ring in it, which stone in the ring, where on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drawing.brush import Field, blur, fractal_noise

_STONE = 1 / 46  # a stone's side as a part of the picture's height
_RADIUS = 9  # stones from a fan's centre to its rim
# Colours of the rings from the rim inwards, one row per kind of fan; sRGB in [0,1].
_LAPIS, _DEEP, _SKY, _JADE = (0.1, 0.18, 0.5), (0.05, 0.07, 0.24), (0.3, 0.56, 0.74), (0.1, 0.45, 0.42)
_GOLD, _IVORY, _CLAY, _WINE = (0.86, 0.62, 0.16), (0.92, 0.87, 0.74), (0.78, 0.34, 0.16), (0.45, 0.09, 0.13)
_FANS = (
    (_DEEP, _GOLD, _LAPIS, _LAPIS, _SKY, _IVORY, _GOLD, _WINE, _GOLD),
    (_DEEP, _IVORY, _JADE, _JADE, _GOLD, _DEEP, _SKY, _IVORY, _CLAY),
    (_DEEP, _GOLD, _CLAY, _WINE, _CLAY, _GOLD, _IVORY, _LAPIS, _GOLD),
    (_DEEP, _SKY, _DEEP, _LAPIS, _GOLD, _CLAY, _GOLD, _IVORY, _JADE),
)
_GROUT = (0.2, 0.17, 0.15)


def draw(size: tuple[int, int], seed: int) -> Image.Image:
    """The mosaic, `size` (width, height) in pixels; the same seed gives the same picture."""
    shape = (size[1] * 2, size[0] * 2)
    rng = np.random.default_rng(seed)
    stone = _STONE * shape[0]
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    # Set by hand: no line is quite true.
    y = (
        rows / stone
        + 0.12 * fractal_noise(rng, shape, (30, 38), 3)
        + 0.5 * fractal_noise(rng, shape, (3, 4), 2)
    )
    x = (
        columns / stone
        + 0.12 * fractal_noise(rng, shape, (30, 38), 3)
        + 0.5 * fractal_noise(rng, shape, (3, 4), 2)
    )
    fan, distance, turn = _fans(x, y)

    ring = np.floor(distance)
    around = np.maximum(np.round(2 * np.pi * (ring + 0.5)), 3)
    place = turn / (2 * np.pi) * around + _chance(fan, ring, np.zeros_like(ring))
    number = np.floor(place)
    across, along = distance - ring - 0.5, place - number - 0.5  # where on the stone, -0.5 to 0.5

    kind = (_chance(fan, np.zeros_like(fan), np.ones_like(fan)) * len(_FANS)).astype(np.int64)
    outward = np.clip(_RADIUS - 1 - ring, 0, _RADIUS - 1).astype(np.int64)
    colour = np.array(_FANS, np.float32)[kind, outward]
    chances = [_chance(fan, ring, number + 1000 * k) for k in range(1, 7)]
    tint = np.stack(chances[:3], axis=2) - 0.5
    colour = colour * (0.84 + 0.34 * chances[3][..., None]) + 0.09 * tint

    edge = 0.5 - np.maximum(
        np.abs(across) * (1.02 + 0.16 * chances[4]), np.abs(along) * (1.02 + 0.16 * chances[5])
    )
    edge += 0.018 * fractal_noise(rng, shape, (90, 112), 2)
    stands = np.clip((edge - 0.03) / 0.05, 0, 1)
    relief = np.clip(edge / 0.16, 0, 1) ** 0.5 * stands
    relief += (
        stands * ((chances[4] - 0.5) * across + (chances[5] - 0.5) * along) * 1.1
    )  # no two stones lie level
    relief += 0.035 * fractal_noise(rng, shape, (120, 150), 3)
    gold = (np.abs(colour - np.array(_GOLD)).sum(axis=2) < 0.42) & (stands > 0.5)
    veins = 1 + 0.07 * fractal_noise(rng, shape, (70, 88), 4)
    surface = colour * veins[..., None] * stands[..., None] + np.array(_GROUT) * (1 - stands[..., None])
    pixels = (np.clip(_light(surface, relief, gold), 0, 1) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def _fans(x: Field, y: Field) -> tuple[Field, Field, Field]:
    """The fan that covers each place (in stones), the distance from its centre and the direction there.

    Rows of fans are half a radius apart and staggered; a lower row lies over the one above it.
    """
    fan = np.zeros_like(x)
    distance = np.full_like(x, _RADIUS - 0.01)
    turn = np.zeros_like(x)
    step = _RADIUS / 2
    for row in range(-1, int(y.max() / step) + 4):
        centre_y = row * step
        shift = _RADIUS if row % 2 else 0
        column = np.round((x - shift) / (2 * _RADIUS))
        right, down = x - (column * 2 * _RADIUS + shift), y - centre_y
        reach = np.hypot(right, down)
        inside = reach < _RADIUS
        fan = np.where(inside, row * 64 + column + 8, fan)
        distance = np.where(inside, reach, distance)
        turn = np.where(inside, np.arctan2(down, right) + np.pi, turn)
    return fan, distance, turn


def _chance(a: Field, b: Field, c: Field) -> Field:
    """A number in [0,1) that looks random and depends on three whole numbers alone."""
    mixed = a.astype(np.int64) * 73856093 ^ b.astype(np.int64) * 19349663 ^ c.astype(np.int64) * 83492791
    bits = mixed.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits ^= bits >> np.uint64(29)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    chance: Field = ((bits >> np.uint64(40)) / np.float64(2**24)).astype(np.float32)
    return chance


def _light(surface: Field, relief: Field, gold: NDArray[np.bool_]) -> Field:
    """The stones (H, W, 3) lit from the upper left; gold glass throws the light back."""
    down, right = np.gradient(0.6 * relief + 0.4 * blur(relief, 3))
    normal = np.stack([-2.6 * right, -2.6 * down, np.ones_like(relief)])
    normal /= np.sqrt((normal**2).sum(axis=0))
    facing = np.clip(np.tensordot(np.array([-0.5, -0.6, 0.62]), normal, axes=1), 0, 1)
    glint = np.clip(np.tensordot(np.array([-0.28, -0.33, 0.9]), normal, axes=1), 0, 1) ** 30
    shine = glint * np.where(gold, 0.5, 0.12)
    lit: Field = surface * (0.45 + 0.9 * facing)[..., None] + shine[..., None] * np.array([1.0, 0.93, 0.75])
    return lit

"""What stands in the ink-wash landscape: a boat, reeds, pines, birds, the seal. Places here are pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from drawing.brush import fractal_noise
from drawing.sheet import Sheet


def boat(sheet: Sheet, x: float, y: float, length: float) -> None:
    """A boat with an awning, a fisherman in a straw hat, and the ripples that they make."""

    def brush(pigment: str, corners: ArrayLike, width: ArrayLike, density: float, dryness: float) -> None:
        sheet.stroke(
            pigment, np.array([x, y]) + length * np.array(corners), length * np.array(width), density, dryness
        )

    brush(
        "ink", ((-0.62, -0.06), (-0.3, 0.05), (0.25, 0.06), (0.62, -0.08)), (0.02, 0.1, 0.11, 0.02), 1.7, 0.1
    )
    brush("ink", ((-0.2, 0.0), (-0.14, -0.2), (0.08, -0.22), (0.16, 0.0)), (0.04, 0.05, 0.05, 0.04), 1.5, 0.2)
    brush("ochre", ((-0.14, -0.06), (0.1, -0.06)), (0.14, 0.14), 0.5, 0.1)
    brush("ink", ((0.36, 0.0), (0.35, -0.12), (0.37, -0.22)), (0.1, 0.12, 0.05), 1.5, 0.1)
    brush("ink", ((0.27, -0.22), (0.37, -0.31), (0.47, -0.21)), (0.03, 0.07, 0.03), 1.7, 0.0)
    brush("ink", ((0.4, -0.12), (0.7, -0.3), (0.98, -0.4)), (0.02, 0.015, 0.012), 1.2, 0.0)
    brush("ink", ((0.98, -0.4), (0.99, -0.1), (0.985, 0.1)), (0.01, 0.01, 0.01), 0.6, 0.0)
    for k in range(5):
        reach, drop = 0.55 - 0.08 * k, 0.13 + 0.05 * k
        ripple = ((-reach, drop), (0, drop + 0.015), (reach, drop - 0.005))
        brush("ink", ripple, (0.015, 0.045, 0.015), 0.5 - 0.07 * k, 0.6)


def reeds(sheet: Sheet) -> None:
    """Reeds in the shallows at the foot of the bank."""
    height, width = sheet.shape
    for _ in range(70):
        x, y = sheet.rng.normal(0.43, 0.035) * width, height * sheet.rng.uniform(0.96, 1.02)
        tall, sway = sheet.rng.uniform(60, 170) * sheet.unit, sheet.rng.normal(0.25, 0.3)
        blade = ((x, y), (x + 0.3 * sway * tall, y - 0.6 * tall), (x + sway * tall, y - tall))
        sheet.stroke("ink", blade, np.array([3, 4.5, 0.8]) * sheet.unit, 1.1, dryness=0.35, runs_out=0.2)


def pine(sheet: Sheet, x: float, y: float, tall: float, lean: float) -> None:
    """A pine that stands at (x, y): a crooked trunk, roots, branches that reach sideways, needles in fans."""
    rng = sheet.rng
    t = np.linspace(0, 1, 9)
    bend = np.cumsum(rng.normal(0, 0.045, 9)) + lean * t**1.5 + 0.05 * np.sin(t * 7)
    trunk = np.stack([x + bend * tall, y - t * tall], axis=1)
    thick = np.interp(t, [0, 0.15, 1], [0.075, 0.05, 0.012]) * tall
    sheet.stroke("ochre", trunk, thick, 0.5, dryness=0.0)
    sheet.stroke("ink", trunk, thick, 0.75, dryness=0.35)
    for side in (-0.45, 0.45):
        bark = trunk + np.stack([side * thick, np.zeros(9)], axis=1)
        sheet.stroke("ink", bark, thick * 0.22, 1.4, dryness=0.5)
    for reach, drop in ((-0.09, 0.03), (-0.05, 0.05), (0.06, 0.05), (0.11, 0.035)):
        root = np.array([x, y]) + tall * np.array([(0, -0.06), (reach * 0.4, -0.01), (reach, drop)])
        sheet.stroke("ink", root, np.array([0.03, 0.02, 0.006]) * tall, 1.0, dryness=0.3)
    fans = []
    for k in range(9):
        where = 0.34 + 0.66 * (k + 0.3) / 9
        joint = np.array([np.interp(where, t, trunk[:, 0]), np.interp(where, t, trunk[:, 1])])
        fans += _branch(sheet, joint, -1 if k % 2 else 1, tall, (1.12 - where) / 0.78)
    crown = np.concatenate(
        [trunk[-1] + tall * rng.normal(0, (0.05, 0.025), (8, 2)), np.full((8, 1), 0.045 * tall)], axis=1
    )
    _needles(sheet, [*fans, *crown])


def _branch(
    sheet: Sheet, joint: NDArray[np.float64], side: int, tall: float, scale: float
) -> list[NDArray[np.float64]]:
    """Draws a branch from `joint` and returns the fans along it."""
    rng = sheet.rng
    length = tall * (0.36 * scale + 0.06)
    u = np.linspace(0, 1, 6)
    fall = rng.uniform(-0.02, 0.16) * np.sin(u * 3) - 0.16 * u + rng.normal(0, 0.02, 6)
    branch = joint + length * np.stack([side * rng.uniform(0.8, 1.2) * u, fall], axis=1)
    sheet.stroke("ink", branch, np.array([0.022, 0.016, 0.006]) * tall, 1.5, dryness=0.3)
    along = np.repeat(np.linspace(0.3, 1.05, 5), 2)
    at_x = np.interp(along, u, branch[:, 0]) + tall * rng.normal(0, 0.02, 10)
    at_y = np.interp(along, u, branch[:, 1]) + tall * rng.normal(-0.012, 0.012, 10)
    return list(np.stack([at_x, at_y, tall * rng.uniform(0.035, 0.055, 10)], axis=1))


def _needles(sheet: Sheet, fans: list[NDArray[np.float64]]) -> None:
    """Fans of needles (x, y, radius): a pale wash under each, then the needles one by one."""
    layer = Image.new("L", (sheet.shape[1], sheet.shape[0]))
    pen = ImageDraw.Draw(layer)
    for x, y, radius in fans:
        wash = np.array([x, y]) + radius * np.array([(-1.1, -0.1), (0, -0.45), (1.1, -0.1)])
        thick = radius * np.array([0.3, 1.0, 0.3])
        sheet.stroke("indigo", wash, thick, 0.1, dryness=0.1)
        sheet.stroke("ink", wash, thick, 0.09, dryness=0.3)
        for angle in np.linspace(-0.2, np.pi + 0.2, 21) + sheet.rng.normal(0, 0.07, 21):
            reach = radius * sheet.rng.uniform(0.75, 1.15)
            tip = (x + reach * 1.25 * np.cos(angle), y - reach * 0.85 * np.sin(angle))
            pen.line(
                (x, y, *tip), fill=int(sheet.rng.integers(110, 255)), width=max(1, round(1.6 * sheet.unit))
            )
    sheet.add("ink", 1.15 * np.asarray(layer, np.float32) / 255)


def birds(sheet: Sheet) -> None:
    """A skein of birds, each two quick strokes."""
    height, width = sheet.shape
    for k in range(9):
        size = (15 - 0.7 * k) * sheet.unit * sheet.rng.uniform(0.85, 1.15)
        x = (0.535 + 0.024 * k + sheet.rng.normal(0, 0.004)) * width
        y = (0.275 - 0.012 * abs(k - 2.5) * 1.6 + sheet.rng.normal(0, 0.005)) * height
        for side in (-1, 1):
            lift = sheet.rng.uniform(0.4, 0.8)
            wing = (
                (x, y),
                (x + side * size * 0.55, y - size * lift),
                (x + side * size * 1.25, y - size * lift * 0.55),
            )
            sheet.stroke("ink", wing, np.array([2.6, 3.2, 0.8]) * sheet.unit, 1.2, dryness=0.15)


# The strokes of the seal's characters, shan (mountain) over shui (water), in parts of its side.
_SHAN = (((0.5, 0.12), (0.5, 0.42)), ((0.2, 0.22), (0.2, 0.42), (0.8, 0.42), (0.8, 0.22)))
_SHUI = (
    ((0.5, 0.52), (0.5, 0.9), (0.42, 0.86)),
    ((0.2, 0.62), (0.38, 0.64), (0.2, 0.84)),
    ((0.78, 0.58), (0.58, 0.7)),
    ((0.58, 0.66), (0.82, 0.86)),
)


def seal(sheet: Sheet) -> None:
    """A red seal at the lower right, its characters cut out, worn as stone wears."""
    height, width = sheet.shape
    side = int(86 * sheet.unit)
    layer = Image.new("L", (side, side))
    pen = ImageDraw.Draw(layer)
    pen.rounded_rectangle((0, 0, side - 1, side - 1), radius=side // 9, fill=255)
    for line in (*_SHAN, *_SHUI):
        pen.line([(side * x, side * y) for x, y in line], fill=0, width=max(2, side // 13), joint="curve")
    worn = np.clip(1.0 + 0.25 * fractal_noise(sheet.rng, (side, side), (14, 14), 3), 0, 1.3)
    top, left = int(0.80 * height), int(0.915 * width)
    stamp = np.asarray(layer, np.float32) / 255 * np.where(worn < 0.5, 0.3, worn)
    sheet.pigments["vermilion"][top : top + side, left : left + side] += np.float32(1.15) * stamp.astype(
        np.float32
    )

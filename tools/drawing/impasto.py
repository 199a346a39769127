"""Swirling impasto: a wheat field with cypresses under a turning sky, in thick strokes that catch the light.

Every stroke follows a flow field, is loaded with two colours and leaves a relief; the relief is lit at the
end. A stroke hides what lies under it, so the order of painting is the order of assignment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drawing.brush import Field, Points, blur, fractal_noise, hair_tile, mesh, sample

# Places are parts of the picture's height, from the top left corner; colours are sRGB in [0,1].
_SUN = (0.9, 0.25)
# Whirls: x, y, radius, strength (clockwise when positive), how far a lamp burns in it.
_WHIRLS = (
    (*_SUN, 0.2, 1.5, 0.105),
    (0.5, 0.25, 0.14, -1.3, 0.032),
    (0.68, 0.43, 0.085, 1.1, 0.02),
    (0.30, 0.09, 0.075, 1.0, 0.028),
    (1.19, 0.12, 0.08, -1.0, 0.03),
    (0.09, 0.36, 0.1, -1.0, 0.03),
    (0.66, 0.07, 0.06, 0.9, 0.02),
)
_SKY = (
    (0.04, 0.07, 0.27),
    (0.07, 0.17, 0.48),
    (0.11, 0.33, 0.66),
    (0.26, 0.55, 0.78),
    (0.5, 0.76, 0.76),
    (0.84, 0.9, 0.74),
)
_GLOW = ((0.99, 0.97, 0.78), (0.99, 0.87, 0.32), (0.97, 0.68, 0.13), (0.95, 0.82, 0.42), (0.75, 0.85, 0.62))
_FAR = ((0.16, 0.2, 0.44), (0.22, 0.33, 0.58), (0.3, 0.48, 0.6), (0.42, 0.6, 0.62))
_NEAR = ((0.06, 0.22, 0.22), (0.12, 0.36, 0.28), (0.3, 0.5, 0.25), (0.58, 0.66, 0.25))
_WHEAT = ((0.5, 0.27, 0.05), (0.78, 0.5, 0.08), (0.93, 0.7, 0.15), (0.98, 0.85, 0.35), (0.55, 0.56, 0.15))
_CYPRESS = ((0.02, 0.06, 0.08), (0.04, 0.15, 0.13), (0.1, 0.26, 0.14), (0.3, 0.4, 0.13), (0.22, 0.2, 0.08))
_POPPY = ((0.75, 0.06, 0.05), (0.93, 0.2, 0.08), (0.98, 0.42, 0.2))


@dataclass
class _Scene:
    """What is where, (H, W) each: the direction to paint in (radians), a tone in [0,1], the region."""

    angle: Field
    tone: Field
    region: NDArray[np.int8]
    glow: Field
    unit: float  # pixels in one part of the height


def draw(size: tuple[int, int], seed: int) -> Image.Image:
    """The painting, `size` (width, height) in pixels; the same seed gives the same picture."""
    shape = (size[1] * 2, size[0] * 2)
    rng = np.random.default_rng(seed)
    scene = _scene(rng, shape)
    ground = np.array([_SKY[2], _FAR[0], _NEAR[0], _WHEAT[0], _CYPRESS[0]], np.float32)[scene.region]
    canvas = ground + np.minimum(scene.glow, 1)[..., None] * (np.array(_GLOW[1], np.float32) - ground)
    relief = np.zeros(shape, np.float32)
    tile = hair_tile(rng)
    for count, length, width, accent in (
        (1300, 0.11, 0.030, 0.0),
        (4300, 0.085, 0.0165, 0.0),
        (5600, 0.055, 0.0105, 0.25),
        (3000, 0.036, 0.0075, 0.6),
    ):
        starts = rng.random((count, 2)) * (shape[1] * 1.04, shape[0] * 1.04) - 0.02 * shape[0]
        depth = sample(scene.region.astype(np.float32), starts) * 0.6 + rng.random(count)
        starts = starts[np.argsort(depth, kind="stable")]
        for part in np.array_split(starts, max(1, count // 60)):
            _paint(rng, scene, canvas, relief, tile, part, length, width, accent)
    _poppies(rng, scene, canvas, relief, tile)
    lit = _light(canvas, relief)
    pixels = (np.clip(lit, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def _scene(rng: np.random.Generator, shape: tuple[int, int]) -> _Scene:
    height, width = shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = columns / height, rows / height
    wander = fractal_noise(rng, shape, (4, 5), 3)
    stream = 0.55 * y + 0.05 * np.sin(x * 7 + 3 * y) + 0.012 * wander
    glow = np.zeros(shape, np.float32)
    for at_x, at_y, radius, strength, lamp in _WHIRLS:
        distance = np.hypot(x - at_x, y - at_y)
        stream += strength * 0.6 * radius * np.exp(-((distance / radius) ** 2))
        glow = np.maximum(
            glow, np.exp(-((distance / lamp / 1.1) ** 2)) + 0.55 * np.exp(-((distance / lamp / 2.0) ** 2))
        )
    down, right = np.gradient(stream)
    angle = np.arctan2(-right, down)
    tone = 0.5 + 0.42 * np.sin(stream * 62 + 0.9 * wander) + 0.16 * fractal_noise(rng, shape, (14, 18), 3)
    tone = tone * 0.75 + 0.2 * y
    region = np.zeros(shape, np.int8)

    far = 0.6 + 0.035 * np.sin(x * 5.2 + 0.6) + 0.02 * np.sin(x * 11 + 2)
    near = 0.67 + 0.03 * np.sin(x * 4 + 3.4) + 0.018 * np.sin(x * 9)
    field = 0.735 + 0.012 * np.sin(x * 6 + 1)
    for number, line in ((1, far), (2, near)):
        inside = y > line
        along = np.arctan(np.gradient(line, axis=1) * height) + 0.5 * np.sin((y - line) * 60 + x * 16)
        angle = np.where(inside, along, angle)
        tone = np.where(inside, 0.5 + 0.45 * np.sin((y - line) * 95 + x * 9 + wander), tone)
        region[inside] = number
    inside = y > field
    away = np.arctan2(y - 0.6, x - 0.82) + 0.3 * np.sin(x * 9 + y * 13) + 0.15 * wander
    rows_of_wheat = 0.5 + 0.4 * np.sin(np.arctan2(y - 0.6, x - 0.82) * 46 + wander) + 0.12 * wander
    angle, tone = np.where(inside, away, angle), np.where(inside, rows_of_wheat, tone)
    region[inside] = 3
    for foot, top, bottom, girth in ((0.19, 0.03, 1.2, 0.105), (0.35, 0.4, 1.15, 0.06)):
        t = np.clip((y - top) / (bottom - top), 0, 1)
        spine = foot + 0.018 * np.sin(t * 9 + foot * 20)
        flame = girth * np.clip(
            1.5 * t**0.75 * np.sqrt(1 - t) + 0.15 * np.sin(t * 30 + x * 34) * t**0.5, 0.02, None
        )
        inside = (np.abs(x - spine) < flame) & (y > top) & (y < bottom)
        lean = -np.pi / 2 + 0.55 * np.sin(y * 30 + (x - spine) * 40) - (x - spine) * 5.0
        angle, tone = (
            np.where(inside, lean, angle),
            np.where(inside, 0.5 + 0.45 * np.sin((x - spine) * 130 + y * 26), tone),
        )
        region[inside] = 4
    glow = np.where(region == 0, glow, 0)
    return _Scene(
        angle.astype(np.float32),
        np.clip(tone, 0, 1).astype(np.float32),
        region,
        glow.astype(np.float32),
        height,
    )


def _palette(colours: tuple[tuple[float, float, float], ...], tone: Field) -> NDArray[np.float64]:
    """The colour at `tone` in [0,1] of a row of colours; (N,) gives (N, 3)."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(tone, stops, [colour[k] for colour in colours]) for k in range(3)], axis=-1)


def _colours(rng: np.random.Generator, scene: _Scene, points: Points, accent: float) -> NDArray[np.float64]:
    """What the brush is loaded with at points (N, 2): two colours each, (N, 2, 3)."""
    region = sample(scene.region.astype(np.float32), points).astype(np.int8)
    loads = []
    highlight = 0.24 * (rng.random(len(points)) < accent)
    for shift in (-0.07, 0.1):
        tone = sample(scene.tone, points) + rng.normal(0, 0.09, len(points)) + shift + highlight
        tone = np.clip(tone, 0, 1).astype(np.float32)
        colour = np.empty((len(points), 3))
        for number, palette in enumerate((_SKY, _FAR, _NEAR, _WHEAT, _CYPRESS)):
            colour[region == number] = _palette(palette, tone[region == number])
        glow = sample(scene.glow, points)
        heat = np.clip(1.1 - glow + rng.normal(0, 0.11, len(points)) + 1.6 * shift, 0, 1).astype(np.float32)
        mix = np.clip((glow - 0.16) * 2.6, 0, 1)[:, None]
        loads.append(colour * (1 - mix) + _palette(_GLOW, heat) * mix)
    pair = np.stack(loads, axis=1)
    pair *= rng.normal(1, 0.05, (len(points), 1, 3))
    return pair


def _paint(
    rng: np.random.Generator,
    scene: _Scene,
    canvas: Field,
    relief: Field,
    tile: Field,
    starts: Points,
    length: float,
    width: float,
    accent: float,
) -> None:
    """Strokes that begin at starts (N, 2), later ones over earlier ones."""
    steps = 9
    reach = length * scene.unit * rng.uniform(0.6, 1.25, len(starts)) / (steps - 1)
    path = np.empty((len(starts), steps, 2))
    path[:, 0] = starts
    home = sample(scene.region.astype(np.float32), starts)
    alive = np.ones(len(starts))
    for k in range(1, steps):
        direction = sample(scene.angle, path[:, k - 1])
        move = np.stack([np.cos(direction), np.sin(direction)], axis=1) * (reach * alive)[:, None]
        path[:, k] = path[:, k - 1] + move
        left = sample(scene.region.astype(np.float32), path[:, k]) != home
        alive = np.where(left, 0.15, alive)  # a stroke stops at the edge of what it paints
    widths = width * scene.unit * rng.uniform(0.75, 1.25, len(starts))
    _put(rng, canvas, relief, tile, path, widths, _colours(rng, scene, path[:, steps // 2], accent))


def _put(
    rng: np.random.Generator,
    canvas: Field,
    relief: Field,
    tile: Field,
    path: Points,
    widths: NDArray[np.float64],
    loads: NDArray[np.float64],
) -> None:
    """Lays strokes along paths (N, n, 2), widths (N,) in pixels, loaded with colours (N, 2, 3)."""
    height, width = relief.shape
    reach = np.hypot(*np.moveaxis(np.diff(path, axis=1), 2, 0)).sum(axis=1).max()
    along, across = max(6, int(reach * 1.25)), max(4, int(widths.max() * 1.25))
    at = np.linspace(0, path.shape[1] - 1.001, along)
    low, part = at.astype(np.int64), (at % 1)[None, :, None]
    fine = path[:, low] * (1 - part) + path[:, low + 1] * part
    s, u = np.linspace(0, 1, along), np.linspace(-1, 1, across)
    # float32 from here on: this is where the time goes.
    taper = np.clip(s / 0.1, 0, 1) ** 0.5 * np.clip((1 - s) / 0.22, 0, 1) ** 0.6
    points = mesh(fine.astype(np.float32), (widths[:, None] * (0.2 + 0.8 * taper)).astype(np.float32), across)
    offset = rng.integers(0, (tile.shape[0] - along, tile.shape[1] - across), (len(path), 2))
    groove = tile[
        (offset[:, :1] + np.arange(along))[:, :, None], (offset[:, 1:] + np.arange(across))[:, None, :]
    ]
    thick = rng.uniform(0.5, 1.0, len(path))[:, None, None]
    ridge = 0.55 * np.abs(u) ** 3 * (1 - 0.5 * s[:, None]) + 0.5 * np.clip((s[:, None] - 0.78) / 0.2, 0, 1)
    body = (thick * (0.65 + ridge) + 0.26 * groove) * (0.15 + 0.85 * taper[:, None])
    mix = np.clip(0.5 + 0.55 * groove, 0, 1)
    # Where the brush runs dry, the paint below shows between the hairs.
    covers = groove > (-2.4 + 2.2 * np.clip(s - 0.6, 0, 1) / 0.4)[None, :, None]
    columns, rows = points[..., 0].astype(np.int32), points[..., 1].astype(np.int32)
    covers &= (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = rows[covers].astype(np.int64) * width + columns[covers]
    for channel in range(3):
        first, second = loads[:, :, channel].astype(np.float32).T[:, :, None, None]
        canvas.reshape(-1, 3)[index, channel] = (first + (second - first) * mix)[covers]
    flat = relief.reshape(-1)
    flat[index] = 0.25 * flat[index] + body[covers]


def _poppies(rng: np.random.Generator, scene: _Scene, canvas: Field, relief: Field, tile: Field) -> None:
    """Dabs of red in the wheat, in drifts, smaller towards the horizon."""
    height, width = relief.shape
    drift = fractal_noise(rng, relief.shape, (9, 7), 3)
    spots = np.stack([rng.uniform(0, width, 900), height * rng.uniform(0.76, 1.0, 900)], axis=1)
    wheat = sample(scene.region.astype(np.float32), spots) == 3
    spots = spots[wheat & (sample(drift, spots) > rng.uniform(0.0, 1.7, 900))]
    spots = spots[np.argsort(spots[:, 1], kind="stable")]
    near = (spots[:, 1] / height - 0.72) / 0.28
    turn = rng.uniform(-1.2, 1.2, len(spots))
    size = scene.unit * (0.006 + 0.011 * near) * rng.uniform(0.6, 1.3, len(spots))
    step = np.stack([np.cos(turn), np.sin(turn)], axis=1) * size[:, None]
    path = spots[:, None] + step[:, None] * np.linspace(-0.6, 0.6, 5)[None, :, None]
    tone = rng.random(len(spots)).astype(np.float32)
    loads = np.stack([_palette(_POPPY, tone * 0.7), _palette(_POPPY, np.clip(tone + 0.2, 0, 1))], axis=1)
    _put(rng, canvas, relief, tile, path, size * 0.95, loads)


def _light(canvas: Field, relief: Field) -> Field:
    """The canvas (H, W, 3) under a lamp at the upper left: slopes shaded, crests glinting."""
    soft = 0.55 * relief + 0.45 * blur(relief, 2.5)
    down, right = np.gradient(soft)
    slope = 2.1
    normal = np.stack([-slope * right, -slope * down, np.ones_like(soft)])
    normal /= np.sqrt((normal**2).sum(axis=0))
    lamp = np.array([-0.52, -0.62, 0.59])
    facing = np.tensordot(lamp, normal, axes=1)
    half = lamp + np.array([0, 0, 1.0])
    half /= np.hypot.reduce(half)
    glint = np.clip(np.tensordot(half, normal, axes=1), 0, 1) ** 26
    hollow = np.clip(soft - blur(soft, 9), -0.6, 0.6)
    shade = 0.42 + 0.98 * np.clip(facing, 0, 1) + 0.16 * hollow
    return (canvas * shade[..., None] + 0.13 * glint[..., None] * (0.5 + 0.5 * canvas)).astype(np.float32)

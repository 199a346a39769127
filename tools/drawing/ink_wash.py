"""An ink-wash landscape in the manner of Chinese painting: ridges in mist, pines, a boat, a seal.

Painted from far to near, as on paper. Places are parts of the picture's width (x) or height (y), from the top
left corner; whatever follows the sheet's unit was tried at 1280 pixels across.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from drawing import ink_motifs as motifs
from drawing.brush import Field, blur, fractal_noise, value_noise
from drawing.sheet import Sheet, step


def draw(size: tuple[int, int], seed: int) -> Image.Image:
    """The landscape, `size` (width, height) in pixels; the same seed gives the same picture."""
    sheet = Sheet((size[1] * 2, size[0] * 2), seed)
    _sun(sheet)
    _mountains(sheet)
    _water(sheet)
    _bank(sheet)
    motifs.reeds(sheet)
    motifs.birds(sheet)
    paper = _fibres(sheet)
    motifs.seal(sheet)
    return sheet.render(paper)


def _sun(sheet: Sheet) -> None:
    distance = np.hypot((sheet.x - 0.7) * sheet.shape[1], (sheet.y - 0.165) * sheet.shape[0]) / sheet.unit
    disc = step((62 - distance) / 1.6)
    rim = np.exp(-(((distance - 60) / 5) ** 2))
    uneven = 1 + 0.3 * sheet.noise((7, 9))
    sheet.add("vermilion", (0.42 * disc + 0.2 * rim) * np.clip(uneven, 0.3, 2))
    sheet.add("ochre", 0.1 * np.exp(-((distance / 190) ** 2)))


class _Range(NamedTuple):
    """Mountains at one distance."""

    peaks: tuple[tuple[float, float, float], ...]  # centre, height, half width
    foot: float  # the line that they stand on
    ink: float  # density on the crest
    reach: float  # how far down the wash runs before the mist takes it
    rough: float  # 0 for a soft silhouette, 1 for rock
    indigo: float
    ochre: float


_RANGES = (
    _Range(
        ((0.06, 0.1, 0.1), (0.36, 0.2, 0.12), (0.62, 0.1, 0.1), (0.9, 0.2, 0.14)),
        0.46,
        0.12,
        0.1,
        0.2,
        0.22,
        0.0,
    ),
    _Range(
        ((0.2, 0.2, 0.05), (0.33, 0.26, 0.05), (0.69, 0.2, 0.06), (0.96, 0.36, 0.07)),
        0.54,
        0.36,
        0.15,
        0.5,
        0.26,
        0.03,
    ),
    _Range(
        ((0.44, 0.4, 0.045), (0.5, 0.5, 0.05), (0.57, 0.33, 0.04), (0.05, 0.3, 0.08), (0.79, 0.18, 0.05)),
        0.63,
        0.85,
        0.22,
        0.8,
        0.16,
        0.1,
    ),
    _Range(
        (
            (0.385, 0.22, 0.05),
            (0.3, 0.13, 0.05),
            (0.91, 0.36, 0.055),
            (0.985, 0.24, 0.05),
            (0.64, 0.12, 0.05),
        ),
        0.71,
        1.3,
        0.2,
        1.0,
        0.08,
        0.2,
    ),
)


def _mountains(sheet: Sheet) -> None:
    for mountains in _RANGES:
        crest, slope = _crest(sheet, mountains)
        stands = np.clip((mountains.foot - crest) / 0.15, 0, 1) ** 1.5  # low saddles are lost in the mist
        depth = sheet.y - crest  # below the crest
        inside = step(depth / (0.0072 - 0.0045 * mountains.rough)) * stands
        sheet.hide(inside * np.clip(1.15 - depth / 0.5, 0, 1))
        _wash(sheet, mountains, crest, slope, inside)
        if mountains.rough >= 0.8:
            before = sheet.pigments["ink"].copy()
            _texture_strokes(sheet, mountains, crest, slope)
            sheet.pigments["ink"] = before + (sheet.pigments["ink"] - before) * inside
            _moss(sheet, crest, mountains.foot, mountains.ink)


def _wash(sheet: Sheet, mountains: _Range, crest: Field, slope: Field, inside: Field) -> None:
    """Ink that pales downwards into mist, modelled as rock, with a broken line along the crest."""
    rough, below = mountains.rough, np.clip(sheet.y - crest, 0, None)
    mist = np.clip(1 + 0.45 * sheet.noise((5, 4), 4), 0.2, 2)
    blotch = np.clip(1 + 0.3 * sheet.noise((9, 12), 5), 0.3, 2)
    wash = inside * blotch * np.exp(-below / (mountains.reach * mist))
    rock = _rock(sheet, sheet.y - crest, slope) if rough >= 0.5 else np.ones(sheet.shape, np.float32)
    broken = np.clip(0.6 + 0.6 * value_noise(sheet.rng, (1, sheet.shape[1]), (1, 60)), 0, 1.5)
    line = np.exp(-(((sheet.y - crest - 0.002) / (0.003 + 0.0012 * rough)) ** 2))
    outline = line * broken * rough * np.clip((mountains.foot - crest) / 0.1, 0, 1)
    warm = np.clip(sheet.noise((5, 6), 3) + 0.6, 0, 1.6) * np.exp(-below / (mountains.reach * 1.4))
    sheet.add("ink", mountains.ink * (wash * (0.5 + 1.15 * rough * (rock - 0.68)) + 0.7 * outline))
    sheet.add("indigo", mountains.indigo * wash * (1.2 - 0.4 * rock))
    sheet.add("ochre", mountains.ochre * inside * warm)


def _crest(sheet: Sheet, mountains: _Range) -> tuple[Field, Field]:
    """Where the crest runs, (W,), and its slope (pixels down for one to the right)."""
    x = sheet.x[0]
    wobble = fractal_noise(sheet.rng, (1, len(x)), (1, 5), 5)[0] * 0.012
    height = np.full_like(x, -0.2)
    for centre, tall, half in mountains.peaks:
        t = np.abs(x + wobble - centre) / half
        height = np.maximum(height, tall * (0.72 * np.exp(-(t**2.6)) + 0.28 * np.exp(-((t / 1.9) ** 2))))
    jagged = fractal_noise(sheet.rng, (1, len(x)), (1, 20), 6, 0.55)[0]
    height += jagged * (0.003 + 0.11 * mountains.rough * np.clip(height, 0.02, 0.25))
    crest = (mountains.foot - height).astype(np.float32)
    slope = np.gradient(blur(np.tile(crest, (4, 1)), 18 * sheet.unit)[0]) * sheet.shape[0]
    return crest, slope.astype(np.float32)


def _rock(sheet: Sheet, depth: Field, slope: Field) -> Field:
    """Facets of rock: ridged noise, drawn out downwards and leaning with the slope, (H, W), about 0 to 2."""
    lean = sheet.noise((6, 8), 3)
    gentle = blur(np.tile(slope, (4, 1)), 50 * sheet.unit)[0]
    facets = np.zeros(sheet.shape, np.float32)
    for cells, weight in ((22.0, 0.6), (48.0, 0.4), (100.0, 0.25)):
        noise = value_noise(sheet.rng, sheet.shape, (cells * 0.42, cells))
        shift = np.clip(sheet.x + lean * 0.018 + np.clip(gentle * 1.5, -1, 1) * depth * -0.22, 0, 0.9999)
        drop = np.clip(sheet.y + lean * 0.012, 0, 0.9999)
        warped = noise[(drop * sheet.shape[0]).astype(np.int64), (shift * sheet.shape[1]).astype(np.int64)]
        facets += np.float32(weight) * (1 - np.abs(warped))
    light = np.clip(0.5 - np.clip(slope, -2, 2) * 0.16, 0.2, 1.0)  # the light comes from the left
    rock: Field = (0.35 + facets * (0.8 + 0.7 * (1 - light)[None, :])).astype(np.float32)
    return rock


def _texture_strokes(sheet: Sheet, mountains: _Range, crest: Field, slope: Field) -> None:
    """Hemp-fibre strokes: from the crest down the flanks, drier and paler with depth."""
    height, width = sheet.shape
    for _ in range(900):
        column = int(sheet.rng.integers(width))
        down = float(sheet.rng.exponential(mountains.reach * 0.5))
        if crest[column] > mountains.foot - 0.05:
            continue
        length = sheet.rng.uniform(24, 80) * sheet.unit * (0.6 + down * 2)
        lean = np.clip(slope[column], -2.2, 2.2) * 0.42
        start = np.array([column, (crest[column] + down + 0.004) * height])
        steps = np.array([0, 0.35, 0.7, 1.0]) * length
        aside = np.cumsum(np.diff(steps) * (lean + sheet.rng.normal(0, 0.14, 3)))
        corners = start + np.stack([np.concatenate([[0], aside]), steps], axis=1)
        thick = np.array([1.5, 5, 4, 1]) * sheet.unit * sheet.rng.uniform(0.5, 1.5)
        pale = float(np.exp(-down / mountains.reach))
        sheet.stroke("ink", corners, thick, 0.75 * pale * mountains.ink, dryness=0.5, runs_out=0.5)


def _moss(sheet: Sheet, crest: Field, foot: float, ink: float) -> None:
    """Moss dots along the crest, in groups, as a painter sets them last."""
    groups = np.clip(value_noise(sheet.rng, (1, len(crest)), (1, 24))[0], 0, 2)
    columns = sheet.rng.choice(len(crest), 460, p=groups / groups.sum())
    for column in columns:
        if crest[column] > foot - 0.04:
            continue
        size = sheet.rng.uniform(2.5, 7) * sheet.unit
        y = crest[column] * sheet.shape[0] + sheet.rng.normal(2, 5) * sheet.unit
        corners = ((column - size * 0.5, y), (column, y - size * 0.5), (column + size * 0.5, y + 1))
        sheet.stroke("ink", corners, (size * 0.6, size, size * 0.5), ink * 0.9, dryness=0.1)


def _water(sheet: Sheet) -> None:
    """Reflections of what stands above the shore, ripples, and a boat with a fisherman."""
    height, width = sheet.shape
    shore = int(0.735 * height)
    ripple = sheet.noise((90, 6), 3)
    rows = np.arange(shore, height)
    mirror = np.clip(2 * shore - rows - 4, 0, height - 1)
    fade = np.exp(-(rows - shore) / (0.14 * height))[:, None].astype(np.float32)
    shift = (ripple[shore:] * 9 * sheet.unit).astype(np.int64)
    columns = np.clip(np.arange(width)[None, :] + shift, 0, width - 1)
    for name in ("ink", "indigo", "ochre"):
        field = blur(sheet.pigments[name], 5 * sheet.unit)
        reflection = field[mirror[:, None], columns] * fade * np.clip(0.8 + 0.5 * ripple[shore:], 0, 1.4)
        sheet.pigments[name][shore:] = sheet.pigments[name][shore:] * fade * 0.6 + reflection * 1.1
    sheet.pigments["indigo"][shore:] += np.float32(0.05) * np.clip(1 + ripple[shore:], 0, 2)
    for _ in range(90):
        y = shore + (height - shore) * sheet.rng.random() ** 1.2
        near = (y - shore) / (height - shore)
        x, length = sheet.rng.uniform(0.15, 1) * width, sheet.rng.uniform(40, 170) * sheet.unit * (0.5 + near)
        rise = sheet.rng.normal(0, 2.0 * sheet.unit, 4)
        corners = np.stack([x + np.linspace(0, length, 4), y + rise], axis=1)
        thick = np.array([1, 3, 2.5, 0.8]) * sheet.unit * (0.6 + near)
        sheet.stroke("ink", corners, thick, 0.1 + 0.2 * near, dryness=0.7, runs_out=0.4)
    motifs.boat(sheet, 0.755 * width, 0.845 * height, 78 * sheet.unit)


def _bank(sheet: Sheet) -> None:
    """The near bank at the lower left: three rocks in dark ink, and two pines on them."""
    height, width = sheet.shape
    jag = fractal_noise(sheet.rng, (1, width), (1, 14), 6, 0.6)[0]
    x = sheet.x[0]
    ground = np.ones(width, np.float32)
    for left, top, ink in ((0.66, 0.93, 0.5), (0.47, 0.84, 0.8), (0.34, 0.75, 1.15)):
        rise = np.clip(x / left, 0, 3) ** 3.2 + 0.03 * np.floor(x * 17 + 0.4 * jag)
        line = (top + 0.2 * rise + 0.014 * np.roll(jag, int(left * 900 * sheet.unit))).astype(np.float32)
        ground = np.minimum(ground, line)
        depth = sheet.y - line
        inside, below = step(depth / 0.0012), np.clip(depth, 0, None)
        rock = _rock(sheet, depth, np.full(width, 0.9, np.float32))
        shade = np.clip((rock - 0.8) * 1.7, 0.04, 1.8) * np.exp(-below / 0.22)
        edge = np.exp(-(((depth - 0.004) / 0.005) ** 2))
        sheet.hide(inside)
        sheet.add("ink", ink * inside * (1.5 * shade + 0.9 * edge))
        sheet.add("ochre", 0.3 * inside * np.exp(-below / 0.2))
        sheet.add("indigo", 0.12 * inside * shade)
        _axe_cuts(sheet, line, left, ink)
        _moss(sheet, line, 1.05, ink)
    for place, tall, lean in ((0.105, 0.6, 0.16), (0.235, 0.37, 0.3)):
        column = int(place * width)
        motifs.pine(sheet, column, float(ground[column] + 0.012) * height, tall * height, lean)


def _axe_cuts(sheet: Sheet, line: Field, left: float, ink: float) -> None:
    """Strokes of a broad, dry brush down the face of a rock whose top is `line` (W,)."""
    height, width = sheet.shape
    for _ in range(110):
        x = sheet.rng.uniform(-0.05, left) * width
        y = (line[min(max(int(x), 0), width - 1)] + sheet.rng.exponential(0.07)) * height
        length, turn = sheet.rng.uniform(30, 110) * sheet.unit, sheet.rng.normal(0.9, 0.3)
        bulge = 8 * sheet.unit
        middle = (x + length / 2, y + length * turn / 2 - bulge)
        thick = np.array([4, 17, 10, 3]) * sheet.unit * sheet.rng.uniform(0.4, 1.4)
        sheet.stroke("ink", ((x, y), middle, (x + length, y + length * turn)), thick, 1.1 * ink, 0.6, 0.7)


def _fibres(sheet: Sheet) -> Field:
    """The paper's brightness (H, W), near 1; ink settles in its grain, so this grains the pigments too."""
    height, width = sheet.shape
    grain = value_noise(sheet.rng, sheet.shape, (height / 3.2, width / 3.2))
    cloud = sheet.noise((4, 5), 5)
    weft = value_noise(sheet.rng, sheet.shape, (height / 5, width / 40))
    weave = weft + value_noise(sheet.rng, sheet.shape, (height / 40, width / 5))
    settled = np.clip(1 + 0.16 * grain + 0.05 * weave + 0.1 * cloud, 0.3, 2)
    for name, field in sheet.pigments.items():
        pooled = np.clip(field - blur(field, 14 * sheet.unit), 0, 0.5)
        sheet.pigments[name] = field * settled + np.float32(0.35) * pooled
    layer = Image.new("L", (width, height))
    pen = ImageDraw.Draw(layer)
    s = np.linspace(0, 1, 6)
    for _ in range(900):
        start, turn = (
            sheet.rng.random(2) * (width, height),
            sheet.rng.uniform(0, np.pi) + sheet.rng.normal(0, 0.4) * s,
        )
        along = np.stack([np.cos(turn), np.sin(turn)], axis=1) * s[:, None]
        fibre = start + sheet.rng.uniform(10, 46) * sheet.unit * along
        pen.line(
            fibre.ravel().tolist(),
            fill=int(sheet.rng.integers(40, 200)),
            width=max(1, round(1.4 * sheet.unit)),
        )
    aspect = width / height
    rim = np.minimum(np.minimum(sheet.x, 1 - sheet.x) * aspect, np.minimum(sheet.y, 1 - sheet.y))
    sheet.add("ochre", np.clip(0.03 + 0.02 * cloud, 0, 1) + 0.06 * np.exp(-rim / 0.05))
    fibres = np.asarray(layer, np.float32) / 255
    paper: Field = (1 + 0.012 * grain + 0.006 * weave + 0.012 * cloud - 0.05 * fibres).astype(np.float32)
    return paper

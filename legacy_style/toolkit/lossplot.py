"""Losses over iterations as a picture of their own, from the record that --metadata keeps: .svg, or .png by Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import escape
from PIL import Image, ImageDraw, ImageFont

from legacy_style.errors import FormatError, OptionError

WIDTH, HEIGHT = 960, 600
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 230, 30, 60

# Okabe and Ito's colours, which people tell apart whatever their colour vision; then the same with dashes.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_GRID, _INK = "#dddddd", "#333333"


@dataclass(frozen=True)
class LossCurve:
    """`points`: (iteration, loss), in order."""

    label: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class _Line:
    points: Sequence[tuple[float, float]]
    color: str
    width: int
    dashed: bool = False


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    anchor: str  # start, middle, end
    text: str
    color: str = _INK


def curves(name: str, record: Mapping[str, Any], *, layers: bool = False) -> list[LossCurve]:
    """The total loss in a record; with `layers` that of every layer too. Raises FormatError where it has none."""
    try:
        losses = record["losses"]
        at = [int(each) for each in losses["evaluation"]]
        named = {Path(name).name: losses["total"]}
        if layers:
            options = record["options"]
            for kind in ("content", "style"):
                columns = list(zip(*losses[kind], strict=True))
                names = labels(str(options.get(f"{kind}_layers", "")), len(columns), kind)
                named |= dict(zip(names, columns, strict=True))
        return [
            LossCurve(label, [(n, float(value)) for n, value in zip(at, values, strict=True)])
            for label, values in named.items()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{name}: its record holds no losses that can be drawn ({error!r})") from error


def labels(layers: str, count: int, kind: str) -> list[str]:
    """The names of `count` losses of a kind, content or style, on `layers`, as -content_layers lists them."""
    names = [name for name in layers.split(",") if name]
    if len(names) != count:
        names = [f"{number}" for number in range(1, count + 1)]
    return [f"{kind} {name}" for name in names]


def has_points(curves: Sequence[LossCurve]) -> bool:
    """Whether there is a loss that can be drawn: finite, and above 0."""
    return any(_drawable(curve) for curve in curves)


def _drawable(curve: LossCurve) -> list[tuple[int, float]]:
    """The points, with logarithms of losses."""
    return [(at, math.log10(loss)) for at, loss in curve.points if loss > 0 and math.isfinite(loss)]


def draw(curves: Sequence[LossCurve], path: str) -> bytes:
    """The content of an .svg or .png file, as the extension of `path` says; OptionError for another one."""
    check_name(path)
    lines, texts = _layout(curves)
    return _svg(lines, texts) if path.lower().endswith(".svg") else _png(lines, texts)


def check_name(path: str) -> None:
    """Raise OptionError unless `path` is the name of an .svg or a .png file, in a folder that is there."""
    if Path(path).suffix.lower() not in (".svg", ".png"):
        raise OptionError(f"{path}: a plot is an .svg or a .png file; end the name in one of them")
    if not Path(path).parent.is_dir():
        raise OptionError(
            f"{path}: the folder {Path(path).parent} does not exist; create it, or choose another"
        )


def _layout(curves: Sequence[LossCurve]) -> tuple[list[_Line], list[_Text]]:
    """What is drawn, in pixels: the grid, a curve each with its label, the axes' words."""
    drawable = [_drawable(curve) for curve in curves]
    points = [point for each in drawable for point in each]
    if not points:
        raise OptionError("there is no loss above 0 to draw")
    first, last = min(at for at, _ in points), max(at for at, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    if high - low < 0.1:
        low, high = low - 0.05, high + 0.05
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + (right - _LEFT) * (at - first) / max(last - first, 1)

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - low) / (high - low)

    lines, texts = [], []
    for tick in log_ticks(low, high):
        lines.append(_Line([(_LEFT, y(tick)), (right, y(tick))], _GRID, 1))
        texts.append(_Text(_LEFT - 8, y(tick) + 5, "end", f"{10**tick:.3g}"))
    for tick in iteration_ticks(first, last):
        texts.append(_Text(x(tick), bottom + 22, "middle", str(tick)))
    texts.append(_Text((_LEFT + right) / 2, HEIGHT - 12, "middle", "iteration"))
    texts.append(_Text(_LEFT, _TOP - 10, "start", "weighted loss, logarithmic"))
    for number, (curve, some) in enumerate(zip(curves, drawable, strict=True)):
        color, dashed = _COLORS[number % len(_COLORS)], number >= len(_COLORS)
        lines.append(_Line([(x(at), y(value)) for at, value in some], color, 2, dashed))
        row = _TOP + 12 + 22 * number
        lines.append(_Line([(right + 12, row - 5), (right + 36, row - 5)], color, 3, dashed))
        texts.append(_Text(right + 44, row, "start", curve.label))
    return lines, texts


def log_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Logarithms of round numbers between two logarithms: powers of ten, then with 2 and 5, then finer."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    found: list[float] = []
    for steps in (
        (1.0,),
        (1.0, 2.0, 5.0),
        tuple(1 + i / 2 for i in range(18)),
        tuple(1 + i / 20 for i in range(180)),
    ):
        found = [decade + math.log10(step) for decade in decades for step in steps]
        found = [tick for tick in found if low - 1e-9 <= tick <= high + 1e-9]
        if len(found) >= 3:
            break
    return found[:: -(-len(found) // most)]


def iteration_ticks(first: int, last: int) -> list[int]:
    """The first iteration, and round numbers of iterations after it."""
    if last == first:
        return [first]
    rough = (last - first) / 5
    unit = 10 ** max(math.floor(math.log10(rough)), 0)
    step = int(next(unit * each for each in (1, 2, 5, 10) if unit * each >= rough))
    return [first, *(at for at in range(step, last + 1, step) if at - first > step / 2)]


def _svg(lines: Sequence[_Line], texts: Sequence[_Text]) -> bytes:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="14" role="img"><title>Losses over iterations</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for line in lines:
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.points)
        dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
        parts.append(
            f'<polyline points="{way}" fill="none" stroke="{line.color}" stroke-width="{line.width}"{dashes}/>'
        )
    parts += [
        f'<text x="{text.x:.1f}" y="{text.y:.1f}" text-anchor="{text.anchor}" fill="{text.color}">'
        f"{escape(text.text)}</text>"
        for text in texts
    ]
    return ("\n".join([*parts, "</svg>"]) + "\n").encode()


def _png(lines: Sequence[_Line], texts: Sequence[_Text]) -> bytes:
    image = Image.new("RGB", (WIDTH, HEIGHT), "#ffffff")
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=14)
    for line in lines:
        pieces = list(zip(line.points, line.points[1:], strict=False))
        for number, (begin, end) in enumerate(pieces):
            if not line.dashed or number % 2 == 0 or len(pieces) == 1:
                canvas.line([begin, end], fill=line.color, width=line.width)
    for text in texts:
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
        canvas.text((text.x, text.y), text.text, fill=text.color, font=font, anchor=anchor)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()

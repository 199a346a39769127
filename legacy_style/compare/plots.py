"""Two plots as inline SVG, coloured by the page's own CSS: losses over iterations, and losses per layer.

Both have logarithmic losses, a title and a description in words. Colours are CSS classes (report.css),
so light and dark follow the reader's setting; shapes differ too, so colour alone never tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from legacy_style.compare.verdicts import number
from legacy_style.toolkit.lossplot import iteration_ticks, log_ticks

WIDTH = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 34
_MAX_POINTS = 240


@dataclass(frozen=True)
class Curve:
    """Total loss by evaluation; `main` is drawn strongly."""

    label: str
    points: Sequence[tuple[int, float]]
    main: bool


@dataclass(frozen=True)
class LayerLoss:
    """One layer's weighted loss: ours, the other seeds', and the expected picture's (None: unknown)."""

    layer: str
    ours: float
    others: Sequence[float]
    expected: float | None


def loss_plot(
    name: str, curves: Sequence[Curve], printed: Sequence[tuple[int, float]], expected: float | None
) -> Markup:
    """Total loss by iteration; printed losses are rings, the expected picture's is a dashed line."""
    values = [loss for curve in curves for _at, loss in curve.points] + [loss for _at, loss in printed]
    values = [
        value for value in (*values, *([expected] if expected else [])) if value > 0 and math.isfinite(value)
    ]
    last = max((at for curve in curves for at, _loss in curve.points), default=1)
    if not values:
        return Markup()
    height = 250
    scale_y = _Log(min(values), max(values), height - _BOTTOM, _TOP)
    right = WIDTH - _RIGHT

    def x(at: float) -> float:
        return _LEFT + (right - _LEFT) * (at - 1) / max(last - 1, 1)

    parts = [_grid_y(scale_y, right)]
    parts += [
        f'<text class="tick" x="{x(at):.1f}" y="{height - 16}" text-anchor="middle">{at}</text>'
        for at in iteration_ticks(1, last)
    ]
    parts.append(
        f'<text class="axis" x="{(_LEFT + right) / 2}" y="{height - 2}" text-anchor="middle">iteration</text>'
    )
    if expected and expected > 0:
        y = scale_y(expected)
        parts.append(f'<line class="expected" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for curve in sorted(curves, key=lambda each: each.main):
        path = " ".join(
            f"{'M' if index == 0 else 'L'}{x(at):.1f} {scale_y(loss):.1f}"
            for index, (at, loss) in enumerate(_thinned(curve.points))
            if loss > 0 and math.isfinite(loss)
        )
        parts.append(f'<path class="{"ours" if curve.main else "other"}" d="{path}"/>')
    parts += [
        f'<circle class="ring" cx="{x(at):.1f}" cy="{scale_y(loss):.1f}" r="2.6"/>'
        for at, loss in _thinned(printed, 60)
        if at <= last and loss > 0
    ]
    main = next(curve for curve in curves if curve.main)
    words = f"Total loss of {main.label}: {number(main.points[0][1])} at the first, "
    words += f"{number(main.points[-1][1])} at the last of {last} iterations."
    if expected:
        words += f" The expected picture has {number(expected)}."
    return _svg(f"Total loss over iterations, {name}", words, height, parts)


def layer_plot(name: str, layers: Sequence[LayerLoss]) -> Markup:
    """A line per layer: ours a disc, other seeds small strokes, the expected picture's loss a diamond."""
    values = [
        value
        for layer in layers
        for value in (layer.ours, *layer.others, layer.expected or 0)
        if value > 0 and math.isfinite(value)
    ]
    if not values:
        return Markup()
    left, ratio_width, step, top = 72, 50, 30, 22
    right, height = WIDTH - ratio_width, top + step * len(layers) + 34
    x = _Log(min(values), max(values), left + 8, right - 8)
    parts = []
    for tick in x.ticks(4):
        parts.append(
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{height - 30}"/>'
        )
        parts.append(_text("tick", x(tick), height - 16, number(tick)))
    parts.append(_text("axis", (left + right) / 2, height - 2, "weighted loss"))
    parts.append(_text("axis", WIDTH - 4, 12, "ours / expected", "end"))
    words = []
    for index, layer in enumerate(layers):
        y = top + step * (index + 0.5)
        parts.append(
            f'<text class="layer" x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{escape(layer.layer)}</text>'
        )
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_layer_marks(layer, x, y))
        if layer.expected:
            ratio = layer.ours / layer.expected
            parts.append(
                f'<text class="ratio" x="{WIDTH - 4}" y="{y + 4:.1f}" text-anchor="end">{ratio:.2f}</text>'
            )
            words.append(f"{layer.layer} {number(layer.ours)}, expected {number(layer.expected)}")
        else:
            words.append(f"{layer.layer} {number(layer.ours)}")
    return _svg(f"Loss per layer, {name}", "; ".join(words) + ".", height, parts)


def _layer_marks(layer: LayerLoss, x: _Log, y: float) -> str:
    marks = []
    if layer.expected and layer.expected > 0 and layer.ours > 0:
        marks.append(
            f'<line class="span" x1="{x(layer.expected):.1f}" x2="{x(layer.ours):.1f}" y1="{y}" y2="{y}"/>'
        )
    marks += [
        f'<line class="other" x1="{x(each):.1f}" x2="{x(each):.1f}" y1="{y - 6}" y2="{y + 6}"/>'
        for each in layer.others
        if each > 0
    ]
    if layer.ours > 0:
        marks.append(f'<circle class="disc" cx="{x(layer.ours):.1f}" cy="{y}" r="4"/>')
    if layer.expected and layer.expected > 0:
        at = x(layer.expected)
        marks.append(f'<path class="diamond" d="M{at:.1f} {y - 8}l8 8l-8 8l-8 -8z"/>')
    return "".join(marks)


class _Log:
    """A logarithmic scale from the values `low`..`high` to the places `start`..`end`."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if high / low < 1.2:  # a flat curve is no cliff
            low, high = low / 1.1, high * 1.1
        self.low, self.high = math.log10(low), math.log10(high)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * part

    def ticks(self, most: int) -> list[float]:
        return [10**tick for tick in log_ticks(self.low, self.high, most)]


def _grid_y(scale: _Log, right: float) -> str:
    parts = []
    for tick in scale.ticks(6):
        y = scale(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        )
    return "".join(parts)


def _thinned(points: Sequence[tuple[int, float]], at_most: int = _MAX_POINTS) -> list[tuple[int, float]]:
    """At most about `at_most` points, the first and the last among them."""
    step = max(1, len(points) // at_most)
    return [*points[:-1:step], *points[-1:]]


def _text(css: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, description: str, height: float, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )

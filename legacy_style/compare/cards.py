"""One row of the report: a tile on the wall, and an article with pictures, plots and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from legacy_style.compare import metrics, pictures, plots, tables
from legacy_style.compare.metrics import Bytes
from legacy_style.compare.results import Kind, Outcome, Run
from legacy_style.compare.wording import esc, number
from legacy_style.errors import LegacyStyleError
from legacy_style.torch7 import image as torch7_image

SYMBOLS: dict[Kind, str] = {"identical": "=", "equivalent": "≈", "different": "≠", "not comparable": "?"}
_LARGE, _SMALL, _THUMBNAIL = 640, 400, 200  # longest side, pixels
_TINY = 96  # pixels; enlarging such pictures smoothly would show what is not there


def css_class(kind: Kind) -> str:
    """The class that carries a verdict's colour."""
    return kind.replace(" ", "-")


class Card:
    """One row of the comparison; `shared` are caveats that the page's head has said already."""

    def __init__(self, number: int, outcome: Outcome, shared: Sequence[str]) -> None:
        self.id = f"row-{number}"
        self.outcome = outcome
        self.kind = outcome.verdict.kind
        self.reasons = [each for each in outcome.verdict.because if each not in shared]
        self.expected = _load(outcome.expected)
        self.ours = _load(outcome.shown.picture if outcome.shown else "")
        if self.expected is not None and self.ours is not None and self.expected.shape != self.ours.shape:
            height, width = self.ours.shape[:2]
            scaled = torch7_image.scale_to(metrics.to_image(self.expected), width, height)
            self.expected = metrics.to_bytes(scaled)

    def tile(self) -> str:
        """A list item: both pictures, small, and the verdict; a link to the article."""
        name = self.outcome.row.name
        pair = _thumbnail(self.expected, f"Expected: {name}", "no picture expected")
        pair += _thumbnail(self.ours, f"Ours: {name}", "not run")
        measured = "" if self.kind == "different" else _measured(self.outcome)
        words = measured or (self.reasons or self.outcome.verdict.because)[0]
        return (
            f'<li><a class="{css_class(self.kind)}" href="#{self.id}"><span class="pair">{pair}</span>'
            f"<strong>{esc(name)}</strong>"
            f"<small>{SYMBOLS[self.kind]} {self.kind}: {esc(words)}</small></a></li>"
        )

    def article(self) -> str:
        """Everything about the row."""
        row = self.outcome.row
        because = "".join(f"<li>{esc(each)}</li>" for each in self.reasons)
        origin = [f"made with {row.model}" if row.model else ""]
        origin += [f"options {row.certainty}" if row.certainty else "", row.note]
        about = "; ".join(filter(None, origin))
        return (
            f'<article id="{self.id}" class="{css_class(self.kind)}" aria-labelledby="{self.id}-title">'
            f'<header><h3 id="{self.id}-title">{esc(row.name)}</h3>'
            f'<span class="badge">{SYMBOLS[self.kind]} {self.kind}</span></header>'
            + (f'<ul class="because">{because}</ul>' if because else "")
            + (f'<p class="note">{esc(about[:1].upper() + about[1:])}.</p>' if about else "")
            + f'<div class="show main-pictures">{"".join(self._main_pictures())}</div>'
            + f'<div class="show side-pictures">{"".join(self._side_pictures())}</div>'
            + f'<div class="plots">{"".join(_charts(self.outcome))}</div>'
            + tables.measure_table(self.outcome)
            + tables.layer_table(self.outcome)
            + self._again()
            + '<p class="top"><a href="#overview">Back to the overview</a></p></article>'
        )

    def _main_pictures(self) -> Iterator[str]:
        """Expected, ours, and where they differ."""
        outcome, shown, name = self.outcome, self.outcome.shown, self.outcome.row.name
        if outcome.row.expected:
            scaled = f", {outcome.scaled}" if outcome.scaled else ""
            yield _figure(self.expected, f"Expected picture of {name}", f"<b>Expected</b>{esc(scaled)}")
        if self.ours is None or shown is None:
            return
        seed = "" if shown.seed is None else f", seed {shown.seed}"
        which = f", the median of {len(outcome.runs)}" if len(outcome.runs) > 1 else ""
        yield _figure(self.ours, f"Our picture for {name}", f"<b>Ours</b>{seed}{which}")
        if self.expected is None or shown.pixels is None:
            return
        mean = number(shown.pixels.color_mean)
        yield _figure(
            pictures.difference_map(self.ours, self.expected),
            f"Map of the colour differences of {name}, {mean} CIEDE2000 on average",
            f'<b>Difference</b><br><span class="ramp"></span> 0 to {pictures.DIFFERENCE_RANGE:.0f} CIEDE2000,'
            f" {mean} on average",
            css="difference",
        )

    def _side_pictures(self) -> Iterator[str]:
        """Content, styles, and the other seeds."""
        outcome, name = self.outcome, self.outcome.row.name
        yield _figure(_load(outcome.content), f"Content image of {name}", "<b>Content</b>", _SMALL)
        for count, style in enumerate(outcome.styles, 1):
            which = f"Style {count}" if len(outcome.styles) > 1 else "Style"
            caption = f"<b>{which}</b>, {esc(Path(style).stem)}"
            yield _figure(_load(style), f"{which} image of {name}", caption, _SMALL)
        for run in outcome.runs:
            if run is not outcome.shown:
                seed = f"seed {run.seed}"
                yield _figure(
                    _load(run.picture), f"Our picture for {name}, {seed}", f"<b>Ours</b>, {seed}", _SMALL
                )

    def _again(self) -> str:
        shown, took = self.outcome.shown, ""
        if shown is not None:
            when = ", in an earlier run" if shown.resumed else ""
            took = f'<p class="note">It took {number(shown.seconds)} s{when}.</p>'
        return (
            f'<details class="more"><summary>Run {esc(self.outcome.row.name)} again</summary>'
            f"<pre>{esc(self.outcome.command)}</pre>{took}</details>"
        )


def _load(path: str) -> Bytes | None:
    """A picture to show, or None where it is not to be had (any more)."""
    if not path:
        return None
    try:
        return metrics.load_bytes(path)
    except LegacyStyleError:
        return None


def _thumbnail(picture: Bytes | None, alt: str, none: str) -> str:
    if picture is None:
        return f'<span class="none">{esc(none)}</span>'
    return f'<img alt="{esc(alt)}" src="{pictures.data_uri(picture, _THUMBNAIL, 72)}">'


def _figure(picture: Bytes | None, alt: str, caption: str, longest: int = _LARGE, css: str = "") -> str:
    """A picture that a click enlarges; `caption` is HTML already."""
    if picture is None:
        shown = '<div class="none">not at hand</div>'
    else:
        height, width = picture.shape[:2]
        if max(height, width) <= _TINY:
            picture = picture.repeat(4, axis=0).repeat(4, axis=1)
        shown = (
            '<details class="zoom"><summary title="Enlarge or shrink">'
            f'<img width="{width}" height="{height}" alt="{esc(alt)}"'
            f' src="{pictures.data_uri(picture, longest)}"></summary></details>'
        )
    return f'<figure class="{css}">{shown}<figcaption>{caption}</figcaption></figure>'


def _measured(outcome: Outcome) -> str:
    """The one measure that says most, for the tile."""
    for name in ("objective", "last total", "totals", "first total", "first losses"):
        for measure in outcome.verdict.measures:
            if measure.name == name and measure.value is not None:
                if name in ("objective", "last total"):
                    return f"loss {number(measure.value)} times the expected"
                return f"{name} apart by {measure.value:.1e}"
    return ""


def _charts(outcome: Outcome) -> Iterator[str]:
    """The two plots, each with its key."""
    shown = outcome.shown
    if shown is None:
        return
    expected = outcome.expected_objective
    printed = [(each.iteration, each.total) for each in outcome.row.printed]
    several = len(outcome.runs) > 1
    keys = [("ours", True), ("other seeds", several), ("expected", expected is not None)]
    curves = [
        plots.Curve(
            "our run" if run.seed is None else f"seed {run.seed}",
            [(each.iteration, each.total) for each in run.losses],
            run is shown,
        )
        for run in outcome.runs
        if run.losses
    ]
    if curves:
        plot = plots.loss_plot(outcome.row.name, curves, printed, expected.total if expected else None)
        yield _chart("Total loss", plot, _LINE_MARKS, [*keys, ("as printed", bool(printed))])
    layers = list(_layers(outcome, shown))
    if layers:
        yield _chart("Loss per layer", plots.layer_plot(outcome.row.name, layers), _LAYER_MARKS, keys)


_LINE_MARKS = {
    "ours": '<path class="ours" d="M1 6H25"/>',
    "other seeds": '<path class="other" d="M1 6H25"/>',
    "expected": '<line class="expected" x1="1" x2="25" y1="6" y2="6"/>',
    "as printed": '<circle class="ring" cx="13" cy="6" r="3"/>',
}
_LAYER_MARKS = {
    "ours": '<circle class="disc" cx="13" cy="6" r="4"/>',
    "other seeds": '<line class="other" x1="13" x2="13" y1="0" y2="12"/>',
    "expected": '<path class="diamond" d="M13 1l5 5-5 5-5-5z"/>',
}


def _chart(title: str, plot: str, marks: dict[str, str], keys: Sequence[tuple[str, bool]]) -> str:
    key = "".join(
        f'<span class="key"><svg class="plot" viewBox="0 0 26 12" aria-hidden="true">{marks[name]}</svg>'
        f"{name}</span>"
        for name, shown in keys
        if shown
    )
    return f"<figure><h4>{title}</h4>{plot}<figcaption>{key}</figcaption></figure>"


def _layers(outcome: Outcome, shown: Run) -> Iterator[plots.LayerLoss]:
    if shown.objective is None:
        return
    others = [run.objective for run in outcome.runs if run is not shown and run.objective is not None]
    expected = outcome.expected_objective
    for kind, names in (("content", outcome.content_layers), ("style", outcome.style_layers)):
        for index, layer in enumerate(names):
            yield plots.LayerLoss(
                layer,
                getattr(shown.objective, kind)[index],
                [getattr(each, kind)[index] for each in others],
                getattr(expected, kind)[index] if expected else None,
            )

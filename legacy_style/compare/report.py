"""The report: one HTML file with everything in it, to be looked at first and read second, and a JSON beside it.

No script, no network, nothing that loads: pictures are data: URIs, plots inline SVG, enlarging is <details>. Text
from files and command lines goes through `esc` wherever it is put into the page.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from legacy_style import metadata
from legacy_style.compare import metrics, pictures, plots
from legacy_style.compare.results import KINDS, Kind, Measure, Outcome, Run, as_json
from legacy_style.compare.wording import esc, number
from legacy_style.errors import LegacyStyleError
from legacy_style.torch7 import image as torch7_image

FORMAT = "legacy-style comparison 1"

_SYMBOLS: dict[Kind, str] = {"identical": "=", "equivalent": "≈", "different": "≠", "not comparable": "?"}
_MEANINGS: dict[Kind, str] = {
    "identical": "every pixel is the same",
    "equivalent": "the objective says: as good",
    "different": "a measure is out of bounds",
    "not comparable": "and it is said why",
}
_LARGE, _SMALL, _THUMBNAIL = 640, 400, 200  # longest side, pixels
_CSS = Path(__file__).with_name("report.css")
# Nothing may be loaded, and no script runs, whatever a file's text contains.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class About:
    """What the report says of itself: title, the manifest's path, the command that made it, when (local time)."""

    title: str
    manifest: str
    command: str
    made: datetime.datetime


def write(path: Path, outcomes: Sequence[Outcome], about: About) -> Path:
    """Write the HTML to `path` and the JSON beside it, whose path is returned."""
    metadata.write_whole(path, html(outcomes, about).encode())
    beside = path.with_suffix(".json")
    metadata.write_whole(beside, (json.dumps(summary(outcomes, about), indent=1, ensure_ascii=False) + "\n").encode())
    return beside


def summary(outcomes: Sequence[Outcome], about: About) -> dict[str, object]:
    """Everything that was found, as JSON holds it."""
    return {
        "format": FORMAT,
        "about": about.title,
        "manifest": about.manifest,
        "command": about.command,
        "made": about.made.isoformat(timespec="seconds"),
        "versions": metadata.versions(),
        "counts": _counts(outcomes),
        "rows": [as_json(outcome) for outcome in outcomes],
    }


def html(outcomes: Sequence[Outcome], about: About) -> str:
    """The whole page."""
    shared = _shared_caveats(outcomes)
    cards = [_Card(number, outcome, shared) for number, outcome in enumerate(outcomes, 1)]
    ordered = sorted(cards, key=lambda card: KINDS.index(card.outcome.verdict.kind))
    body = [
        '<a class="skip" href="#rows">Skip to the rows</a>',
        _head(outcomes, about, shared),
        '<main><section aria-labelledby="overview"><h2 id="overview">At a glance</h2>',
        '<ul class="wall">' + "".join(card.tile() for card in ordered) + "</ul></section>",
        '<section id="rows" aria-labelledby="rows-title"><h2 id="rows-title">Row by row</h2>',
        *(card.article() for card in ordered),
        "</section></main>",
        _foot(about),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<link rel="icon" href="data:,">'
        f"<title>{esc(_headline(outcomes))} · {esc(about.title)}</title>"
        f"<style>{_CSS.read_text(encoding='utf-8')}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _headline(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in _counts(outcomes).items() if count)


def _counts(outcomes: Sequence[Outcome]) -> dict[Kind, int]:
    return {kind: sum(each.verdict.kind == kind for each in outcomes) for kind in KINDS}


def _shared_caveats(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What was said of more than half of the rows is said once, on top."""
    every = [caveat for outcome in outcomes for caveat in outcome.caveats]
    return tuple(dict.fromkeys(each for each in every if every.count(each) > max(len(outcomes) / 2, 1)))


def _head(outcomes: Sequence[Outcome], about: About, shared: Sequence[str]) -> str:
    networks = {each.network for each in outcomes if each.network}
    named = ", ".join(
        f"{network.name or 'a network that the manifest does not know'} ({Path(network.file).name}, SHA-256"
        f" {network.sha256[:12]}…)"
        for network in sorted(networks, key=lambda each: each.file)
    )
    cards = "".join(
        f'<li><a class="{_css(kind)}" href="#{_first(outcomes, kind)}"><b>{count}</b>'
        f'<strong>{_SYMBOLS[kind]} {kind}</strong><br><span>{_MEANINGS[kind]}</span></a></li>'
        for kind, count in reversed(_counts(outcomes).items())
    )
    caveats = ""
    if shared:
        items = "".join(f"<li>{esc(each)}</li>" for each in shared)
        caveats = (
            f'<div class="banner"><strong>Not judged in full.</strong> For most rows:<ul>{items}</ul>'
            "Their objectives and pixels are shown, and decide nothing; exact tests still count.</div>"
        )
    when = about.made.strftime("%d %B %Y, %H:%M")
    return (
        f'<header><h1>{esc(about.title)}</h1><p class="facts">{len(outcomes)} rows, compared on {esc(when)} with'
        f" {esc(named) or 'no network'}.</p>{caveats}"
        f'<ul class="counts" aria-label="Verdicts">{cards}</ul></header>'
    )


def _first(outcomes: Sequence[Outcome], kind: Kind) -> str:
    return next((f"row-{number}" for number, each in enumerate(outcomes, 1) if each.verdict.kind == kind), "overview")


def _foot(about: About) -> str:
    made_by = " ".join(f"{name} {version[:12]}" for name, version in metadata.versions().items())
    return (
        f"<footer><p>Made from {esc(about.manifest)} by</p><pre>{esc(about.command)}</pre>"
        f"<p>{esc(made_by)}</p></footer>"
    )


def _css(kind: Kind) -> str:
    return kind.replace(" ", "-")


class _Card:
    """One row of the comparison, as a tile on the wall and as an article below it."""

    def __init__(self, number: int, outcome: Outcome, shared: Sequence[str]) -> None:
        self.id = f"row-{number}"
        self.outcome = outcome
        self.shared = shared
        self.name = outcome.row.name
        self.shown = outcome.shown
        self.expected = _load(outcome.expected)
        self.ours = _load(self.shown.picture if self.shown else "")
        if self.expected is not None and self.ours is not None and self.expected.shape != self.ours.shape:
            height, width = self.ours.shape[:2]
            self.expected = metrics.to_bytes(torch7_image.scale_to(metrics.to_image(self.expected), width, height))

    def tile(self) -> str:
        kind = self.outcome.verdict.kind
        parts = [
            _tile_picture(self.expected, f"Expected: {self.name}", "no picture expected"),
            _tile_picture(self.ours, f"Ours: {self.name}", "not run"),
        ]
        reasons = [each for each in self.outcome.verdict.because if each not in self.shared]
        measured = "" if kind == "different" else _measured(self.outcome)
        words = measured or (reasons or self.outcome.verdict.because)[0]
        return (
            f'<li><a class="{_css(kind)}" href="#{self.id}"><span class="pair">{"".join(parts)}</span>'
            f"<strong>{esc(self.name)}</strong><small>{_SYMBOLS[kind]} {kind}"
            f"{': ' + esc(words) if words else ''}</small></a></li>"
        )

    def article(self) -> str:
        outcome, kind = self.outcome, self.outcome.verdict.kind
        reasons = [each for each in outcome.verdict.because if each not in self.shared]
        because = "".join(f"<li>{esc(each)}</li>" for each in reasons)
        about = "; ".join(
            each
            for each in (
                f"made with {outcome.row.model}" if outcome.row.model else "",
                f"options {outcome.row.certainty}" if outcome.row.certainty else "",
                outcome.row.note,
            )
            if each
        )
        return (
            f'<article id="{self.id}" class="{_css(kind)}" aria-labelledby="{self.id}-title"><header>'
            f'<h3 id="{self.id}-title">{esc(self.name)}</h3>'
            f'<span class="badge">{_SYMBOLS[kind]} {kind}</span></header>'
            + (f'<ul class="because">{because}</ul>' if because else "")
            + (f'<p class="note">{esc(about[:1].upper() + about[1:])}.</p>' if about else "")
            + self.pictures()
            + self.plots()
            + _measure_table(outcome)
            + _layer_table(outcome)
            + self.again()
            + '<p class="top"><a href="#overview">Back to the overview</a></p></article>'
        )

    def pictures(self) -> str:
        outcome, shown = self.outcome, self.shown
        large = []
        if outcome.row.expected:
            scaled = f", {outcome.scaled}" if outcome.scaled else ""
            large.append(_figure(self.expected, f"Expected picture of {self.name}", "Expected", scaled, _LARGE))
        if self.ours is not None and shown is not None:
            seed = "" if shown.seed is None else f", seed {shown.seed}"
            if len(outcome.runs) > 1:
                seed += f", the median of {len(outcome.runs)}"
            large.append(_figure(self.ours, f"Our picture for {self.name}", "Ours", seed, _LARGE))
        if self.ours is not None and self.expected is not None and shown is not None and shown.pixels is not None:
            mean = f"{shown.pixels.color_mean:.3g}"
            scale = f'<br><span class="ramp"></span> 0 to {pictures.DIFFERENCE_RANGE:.0f} CIEDE2000, {mean} on average'
            changes = pictures.difference_map(self.ours, self.expected)
            alt = f"Map of the colour differences of {self.name}, {mean} CIEDE2000 on average"
            large.append(_figure(changes, alt, "Difference", "", _LARGE, "difference", scale))
        small = [_figure(_load(outcome.content), f"Content image of {self.name}", "Content", "", _SMALL)]
        for count, style in enumerate(outcome.styles, 1):
            which = f"Style {count}" if len(outcome.styles) > 1 else "Style"
            small.append(_figure(_load(style), f"{which} image of {self.name}", which, f", {Path(style).stem}", _SMALL))
        small += [
            _figure(_load(run.picture), f"Our picture for {self.name}, seed {run.seed}", f"Seed {run.seed}", "", _SMALL)
            for run in outcome.runs
            if run is not shown
        ]
        return (
            f'<div class="show main-pictures">{"".join(large)}</div>'
            f'<div class="show side-pictures">{"".join(small)}</div>'
        )

    def plots(self) -> str:
        outcome, shown = self.outcome, self.shown
        if shown is None:
            return ""
        printed = [(each.iteration, each.total) for each in outcome.row.printed]
        expected = outcome.expected_objective
        curves = [
            plots.Curve(
                "our run" if run.seed is None else f"seed {run.seed}",
                [(each.iteration, each.total) for each in run.losses],
                run is shown,
            )
            for run in outcome.runs
            if run.losses
        ]
        found = []
        if curves:
            keys = [_key('<path class="ours" d="M1 6H25"/>', "ours")]
            if len(curves) > 1:
                keys.append(_key('<path class="other" d="M1 6H25"/>', "other seeds"))
            if expected:
                keys.append(_key('<line class="expected" x1="1" x2="25" y1="6" y2="6"/>', "expected picture"))
            if printed:
                keys.append(_key('<circle class="ring" cx="13" cy="6" r="3"/>', "as printed"))
            plot = plots.loss_plot(self.name, curves, printed, expected.total if expected else None)
            found.append(f"<figure><h4>Total loss</h4>{plot}<figcaption>{''.join(keys)}</figcaption></figure>")
        layers = list(_layers(outcome, shown))
        if layers:
            keys = [_key('<circle class="disc" cx="13" cy="6" r="4"/>', "ours")]
            if len(outcome.runs) > 1:
                keys.append(_key('<line class="other" x1="13" x2="13" y1="0" y2="12"/>', "other seeds"))
            if any(layer.expected is not None for layer in layers):
                keys.append(_key('<path class="diamond" d="M13 1l5 5-5 5-5-5z"/>', "expected picture"))
            plot = plots.layer_plot(self.name, layers)
            found.append(f"<figure><h4>Loss per layer</h4>{plot}<figcaption>{''.join(keys)}</figcaption></figure>")
        return f'<div class="plots">{"".join(found)}</div>'

    def again(self) -> str:
        shown = self.shown
        took = ""
        if shown is not None:
            took = f"<p class=\"note\">It took {number(shown.seconds)} s{', in an earlier run' if shown.resumed else ''}.</p>"
        return (
            f'<details class="more"><summary>Run {esc(self.name)} again</summary>'
            f"<pre>{esc(self.outcome.command)}</pre>{took}</details>"
        )


def _load(path: str) -> metrics.Bytes | None:
    """A picture to show, or None where it is not to be had (any more)."""
    if not path:
        return None
    try:
        return metrics.load_bytes(path)
    except LegacyStyleError:
        return None


def _tile_picture(picture: metrics.Bytes | None, alt: str, none: str) -> str:
    if picture is None:
        return f'<span class="none">{esc(none)}</span>'
    return f'<img alt="{esc(alt)}" src="{pictures.data_uri(picture, _THUMBNAIL, 72)}">'


def _figure(
    picture: metrics.Bytes | None, alt: str, name: str, more: str, longest: int, kind: str = "", extra: str = ""
) -> str:
    """A picture with its caption; `extra` is HTML already."""
    if picture is None:
        shown = '<div class="none">not at hand</div>'
    else:
        height, width = picture.shape[:2]
        # Enlarging tiny pictures smoothly would show what is not there.
        enlarged = picture.repeat(3, 0).repeat(3, 1) if max(height, width) <= 96 else picture
        uri = pictures.data_uri(np.ascontiguousarray(enlarged), longest)
        shown = (
            f'<details class="zoom"><summary title="Enlarge or shrink"><img width="{width}" height="{height}"'
            f' alt="{esc(alt)}" src="{uri}"></summary></details>'
        )
    return f'<figure class="{kind}">{shown}<figcaption><b>{esc(name)}</b>{esc(more)}{extra}</figcaption></figure>'


def _key(mark: str, words: str) -> str:
    return f'<span class="key"><svg class="plot" viewBox="0 0 26 12" aria-hidden="true">{mark}</svg>{words}</span>'


def _measured(outcome: Outcome) -> str:
    """The one measure that says most, for the tile."""
    for name in ("objective", "last total", "totals", "first total", "first losses"):
        for measure in outcome.verdict.measures:
            if measure.name == name and measure.value is not None:
                if name in ("objective", "last total"):
                    return f"loss {number(measure.value)} of the expected"
                return f"{name} apart by {measure.value:.1e}"
    return ""


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


def _measure_table(outcome: Outcome) -> str:
    if not outcome.verdict.measures:
        return ""
    rows = "".join(
        f"<tr><td>{esc(measure.text)}</td>"
        f'<td class="num">{"" if measure.value is None else number(measure.value)}</td>'
        f'<td class="num">{"" if measure.limit is None else number(measure.limit)}</td>{_result(measure)}</tr>'
        for measure in outcome.verdict.measures
    )
    decided = sum(measure.passed is not None for measure in outcome.verdict.measures)
    return (
        f'<details class="more"><summary>{len(outcome.verdict.measures)} measures, of which {decided} decided</summary>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Measures"><table><caption>Measures</caption><thead><tr>'
        '<th scope="col">What was found</th><th scope="col" class="num">Value</th><th scope="col" class="num">Limit</th>'
        f'<th scope="col">Result</th></tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _result(measure: Measure) -> str:
    if measure.passed is None:
        return '<td class="info">– informs</td>'
    return '<td class="yes">✓ passed</td>' if measure.passed else '<td class="no">✗ failed</td>'


def _layer_table(outcome: Outcome) -> str:
    shown = outcome.shown
    if shown is None or shown.objective is None:
        return ""
    ours, expected = shown.objective, outcome.expected_objective
    lines = []
    for kind, names in (("content", outcome.content_layers), ("style", outcome.style_layers)):
        for index, layer in enumerate(names):
            gram = (None, None)
            if kind == "style":
                gram = (ours.gram[index], expected.gram[index] if expected else None)
            lines.append((f"{kind} {layer}", getattr(ours, kind)[index], getattr(expected, kind)[index] if expected else None, *gram))
    lines.append(("total", ours.total, expected.total if expected else None, None, None))
    lines.append(("TV, not in the total", ours.tv, expected.tv if expected else None, None, None))
    rows = "".join(
        f'<tr><th scope="row">{esc(name)}</th>' + "".join(f'<td class="num">{"" if value is None else number(value)}</td>' for value in values) + "</tr>"
        for name, *values in lines
    )
    heads = ("Loss", "Expected", "Gram distance", "Expected")
    return (
        '<details class="more"><summary>Losses and Gram distances, layer by layer</summary>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Losses per layer"><table>'
        "<caption>Weighted losses, and relative distances of the Gram matrices from their targets</caption><thead><tr>"
        '<th scope="col">Layer</th>' + "".join(f'<th scope="col" class="num">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )

"""The report: one HTML file with everything in it, to be looked at first, and a JSON beside it.

No script, no network, nothing that loads: pictures are data: URIs, plots inline SVG, enlarging is
<details>. Text from files and command lines goes through `esc` wherever it is put into the page.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from legacy_style.compare.cards import SYMBOLS, Card, css_class
from legacy_style.compare.results import KINDS, Kind, Outcome, as_json
from legacy_style.compare.wording import esc
from legacy_style.files import write_whole
from legacy_style.programs.neural_style import record as metadata

FORMAT = "legacy-style comparison 1"

_MEANINGS: dict[Kind, str] = {
    "identical": "every pixel is the same",
    "equivalent": "the objective says: as good",
    "different": "a measure is out of bounds",
    "not comparable": "and it is said why",
}
_CSS = Path(__file__).with_name("report.css")
# Nothing may be loaded, and no script runs, whatever a file's text contains.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class About:
    """What the report says of itself: title, manifest, the command that made it, when (local time)."""

    title: str
    manifest: str
    command: str
    made: datetime.datetime


def write(path: Path, outcomes: Sequence[Outcome], about: About) -> Path:
    """Write the HTML to `path` and the JSON beside it, whose path is returned."""
    write_whole(path, html(outcomes, about).encode())
    beside = path.with_suffix(".json")
    write_whole(beside, (json.dumps(summary(outcomes, about), indent=1, ensure_ascii=False) + "\n").encode())
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
    cards = [Card(number, outcome, shared) for number, outcome in enumerate(outcomes, 1)]
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
        f"<style>{_CSS.read_text(encoding='utf-8')}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
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
        f'<li><a class="{css_class(kind)}" href="#{_first(outcomes, kind)}"><b>{count}</b>'
        f"<strong>{SYMBOLS[kind]} {kind}</strong><br><span>{_MEANINGS[kind]}</span></a></li>"
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
        f'<header><h1>{esc(about.title)}</h1><p class="facts">{len(outcomes)} rows, compared on {esc(when)}'
        f" with {esc(named) or 'no network'}.</p>{caveats}"
        f'<ul class="counts" aria-label="Verdicts">{cards}</ul></header>'
    )


def _first(outcomes: Sequence[Outcome], kind: Kind) -> str:
    return next(
        (f"row-{number}" for number, each in enumerate(outcomes, 1) if each.verdict.kind == kind), "overview"
    )


def _foot(about: About) -> str:
    made_by = " ".join(f"{name} {version[:12]}" for name, version in metadata.versions().items())
    return (
        f"<footer><p>Made from {esc(about.manifest)} by</p><pre>{esc(about.command)}</pre>"
        f"<p>{esc(made_by)}</p></footer>"
    )

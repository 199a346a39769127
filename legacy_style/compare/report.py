"""The report: one HTML file with everything in it, to be looked at first, a JSON beside it, and JUnit XML.

No script, no network, nothing that loads: pictures are data: URIs, plots inline SVG, enlarging is <details>. The page
is report.html, a Jinja2 template that escapes every text from files and command lines.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from legacy_style.compare import metrics, plots
from legacy_style.compare.metrics import Bytes
from legacy_style.compare.verdicts import KINDS, Kind, MeasuredObjective, Outcome, as_json, number
from legacy_style.errors import LegacyStyleError
from legacy_style.files import write_whole
from legacy_style.programs.neural_style import record
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
_TINY = 96  # pixels; enlarging such pictures smoothly would show what is not there

# The map of differences: CIEDE2000 at its bright end, and colours from none to that, evenly spaced: dark, so that
# equal pictures give a calm, dark map.
_DIFFERENCE_RANGE = 50.0
_RAMP = np.array(
    [
        (18, 18, 34),
        (58, 28, 92),
        (128, 38, 110),
        (204, 66, 82),
        (246, 132, 48),
        (252, 208, 92),
        (255, 252, 220),
    ]
)

# What XML 1.0 cannot hold, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
        "versions": record.versions(),
        "counts": _counts(outcomes),
        "rows": [as_json(outcome) for outcome in outcomes],
    }


def html(outcomes: Sequence[Outcome], about: About) -> str:
    """The whole page."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "css_class": lambda kind: kind.replace(" ", "-")}
    counts = _counts(outcomes)
    shared = _shared_caveats(outcomes)
    cards = [_Card(index, outcome, shared) for index, outcome in enumerate(outcomes, 1)]
    networks = sorted({each.network for each in outcomes if each.network}, key=lambda each: each.file)
    return environment.get_template("report.html").render(
        about=about,
        headline=", ".join(f"{count} {kind}" for kind, count in counts.items() if count),
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        networks=", ".join(
            f"{each.name or 'a network that the manifest does not know'} ({Path(each.file).name},"
            f" SHA-256 {each.sha256[:12]}…)"
            for each in networks
        ),
        shared=shared,
        counts=list(reversed(counts.items())),
        first={kind: next((card.id for card in cards if card.kind == kind), "overview") for kind in KINDS},
        symbols=_SYMBOLS,
        meanings=_MEANINGS,
        cards=sorted(cards, key=lambda card: KINDS.index(card.kind)),
        made_by=" ".join(f"{name} {version[:12]}" for name, version in record.versions().items()),
    )


def write_junit(path: Path, outcomes: Sequence[Outcome], suite: str) -> None:
    """Write the verdicts as JUnit XML, which continuous integration shows: one test suite, a test case per row.

    A row that is different is a failure, one that is not comparable is skipped, with its reasons.
    """
    counts = _counts(outcomes)
    root = ElementTree.Element(
        "testsuite",
        name=_clean(suite),
        tests=str(len(outcomes)),
        failures=str(counts["different"]),
        skipped=str(counts["not comparable"]),
        errors="0",
    )
    for outcome in outcomes:
        seconds = sum(run.seconds for run in outcome.runs)
        case = ElementTree.SubElement(
            root, "testcase", classname="compare", name=_clean(outcome.row.name), time=f"{seconds:.3f}"
        )
        because = [_clean(each) for each in outcome.verdict.because]
        if outcome.verdict.kind == "different":
            failure = ElementTree.SubElement(case, "failure", message=because[0])
            failure.text = "\n".join(because)
        elif outcome.verdict.kind == "not comparable":
            ElementTree.SubElement(case, "skipped", message="; ".join(because))
        output = ElementTree.SubElement(case, "system-out")
        measures = [_clean(measure.text) for measure in outcome.verdict.measures]
        output.text = "\n".join([outcome.verdict.kind, *measures, _clean(outcome.command)])
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def difference_map(a: Bytes, b: Bytes) -> Bytes:
    """Where two pictures of one size look different, (H, W, 3): CIEDE2000 from dark (0) to bright."""
    position = np.clip(metrics.delta_e(a, b) / _DIFFERENCE_RANGE, 0, 1) * (len(_RAMP) - 1)
    lower = np.minimum(position.astype(int), len(_RAMP) - 2)
    part = (position - lower)[..., np.newaxis]
    mixed = _RAMP[lower] * (1 - part) + _RAMP[lower + 1] * part
    colors: Bytes = np.rint(mixed).astype(np.uint8)
    return colors


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)


def _counts(outcomes: Sequence[Outcome]) -> dict[Kind, int]:
    return {kind: sum(each.verdict.kind == kind for each in outcomes) for kind in KINDS}


def _shared_caveats(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What was said of more than half of the rows is said once, on top."""
    every = [caveat for outcome in outcomes for caveat in outcome.caveats]
    return tuple(dict.fromkeys(each for each in every if every.count(each) > max(len(outcomes) / 2, 1)))


def _data_uri(picture: Bytes, longest: int, quality: int = 84) -> str:
    """A picture (H, W, 3) as a JPEG in a data: URI, at most `longest` pixels on its longer side."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def _load(path: str) -> Bytes | None:
    """A picture to show, or None where it is not to be had (any more)."""
    try:
        return metrics.load_bytes(path) if path else None
    except LegacyStyleError:
        return None


class _Figure:
    """A picture (None: not at hand) that a click enlarges: title and text below it, and what it is in words."""

    def __init__(
        self,
        picture: Bytes | None,
        alt: str,
        title: str,
        about: str = "",
        longest: int = _LARGE,
        css: str = "",
    ) -> None:
        self.alt, self.title, self.about, self.css, self.uri = alt, title, about, css, ""
        if picture is not None:
            self.height, self.width = picture.shape[:2]
            enlarged = 4 if max(picture.shape[:2]) <= _TINY else 1
            self.uri = _data_uri(picture.repeat(enlarged, axis=0).repeat(enlarged, axis=1), longest)


@dataclass
class _Thumbnail:
    name: str
    thumbnail: str


class _Card:
    """One row as the template shows it; `shared` are caveats that the page's head has said already."""

    def __init__(self, index: int, outcome: Outcome, shared: Sequence[str]) -> None:
        self.id = f"row-{index}"
        self.outcome = outcome
        self.name = outcome.row.name
        self.kind = outcome.verdict.kind
        self.reasons = [each for each in outcome.verdict.because if each not in shared]
        self._ours = _load(outcome.shown.picture if outcome.shown else "")
        self._expected = _load(outcome.expected)
        if self._expected is not None and self._ours is not None and self._expected.shape != self._ours.shape:
            height, width = self._ours.shape[:2]
            scaled = torch7_image.scale_to(metrics.to_image(self._expected), width, height)
            self._expected = metrics.to_bytes(scaled)

    @property
    def expected(self) -> _Thumbnail:
        return self._thumbnail("Expected", self._expected)

    @property
    def ours(self) -> _Thumbnail:
        return self._thumbnail("Ours", self._ours)

    def _thumbnail(self, whose: str, picture: Bytes | None) -> _Thumbnail:
        return _Thumbnail(
            f"{whose}: {self.name}", "" if picture is None else _data_uri(picture, _THUMBNAIL, 72)
        )

    @property
    def words(self) -> str:
        """What the tile says: the one measure that says most, or the first reason."""
        if self.kind != "different":
            measured = {
                each.name: each.value for each in self.outcome.verdict.measures if each.value is not None
            }
            for name in ("objective", "last total"):
                if name in measured:
                    return f"loss {number(measured[name])} times the expected"
            for name in ("totals", "first total", "first losses"):
                if name in measured:
                    return f"{name} apart by {measured[name]:.1e}"
        return (self.reasons or self.outcome.verdict.because)[0]

    @property
    def origin(self) -> str:
        """Where the expectation comes from, as a sentence without its full stop."""
        row = self.outcome.row
        parts = [
            f"made with {row.model}" if row.model else "",
            f"options {row.certainty}" if row.certainty else "",
        ]
        text = "; ".join(filter(None, (*parts, row.note)))
        return text[:1].upper() + text[1:]

    @property
    def main_pictures(self) -> Iterator[_Figure]:
        """Expected, ours, and where they differ."""
        outcome, shown = self.outcome, self.outcome.shown
        if outcome.row.expected:
            scaled = f", {outcome.scaled}" if outcome.scaled else ""
            yield _Figure(self._expected, f"Expected picture of {self.name}", "Expected", scaled)
        if self._ours is None or shown is None:
            return
        seed = "" if shown.seed is None else f", seed {shown.seed}"
        which = f", the median of {len(outcome.runs)}" if len(outcome.runs) > 1 else ""
        yield _Figure(self._ours, f"Our picture for {self.name}", "Ours", seed + which)
        if self._expected is None or shown.pixels is None:
            return
        mean = number(shown.pixels.color_mean)
        yield _Figure(
            difference_map(self._ours, self._expected),
            f"Map of the colour differences of {self.name}, {mean} CIEDE2000 on average",
            "Difference",
            f"0 to {_DIFFERENCE_RANGE:.0f} CIEDE2000, {mean} on average",
            css="difference",
        )

    @property
    def side_pictures(self) -> Iterator[_Figure]:
        """Content, styles, and the other seeds."""
        outcome = self.outcome
        yield _Figure(_load(outcome.content), f"Content image of {self.name}", "Content", longest=_SMALL)
        for count, style in enumerate(outcome.styles, 1):
            which = f"Style {count}" if len(outcome.styles) > 1 else "Style"
            alt = f"{which} image of {self.name}"
            yield _Figure(_load(style), alt, which, f", {Path(style).stem}", _SMALL)
        for run in outcome.runs:
            if run is not outcome.shown:
                alt = f"Our picture for {self.name}, seed {run.seed}"
                yield _Figure(_load(run.picture), alt, "Ours", f", seed {run.seed}", _SMALL)

    @cached_property
    def loss_plot(self) -> Markup | None:
        outcome, shown = self.outcome, self.outcome.shown
        curves = [
            plots.Curve(
                "our run" if run.seed is None else f"seed {run.seed}",
                [(each.iteration, each.total) for each in run.losses],
                run is shown,
            )
            for run in outcome.runs
            if run.losses
        ]
        if not curves:
            return None
        printed = [(each.iteration, each.total) for each in outcome.row.printed]
        expected = outcome.expected_objective
        return plots.loss_plot(self.name, curves, printed, expected.total if expected else None)

    @cached_property
    def layer_plot(self) -> Markup | None:
        outcome, shown = self.outcome, self.outcome.shown
        if shown is None or shown.objective is None:
            return None
        others = [run.objective for run in outcome.runs if run is not shown and run.objective is not None]
        expected = outcome.expected_objective
        layers = [
            plots.LayerLoss(
                layer,
                getattr(shown.objective, kind)[index],
                [getattr(each, kind)[index] for each in others],
                getattr(expected, kind)[index] if expected else None,
            )
            for kind, names in (("content", outcome.content_layers), ("style", outcome.style_layers))
            for index, layer in enumerate(names)
        ]
        return plots.layer_plot(self.name, layers) if layers else None

    @property
    def layers(self) -> Iterator[tuple[str, tuple[float | None, ...]]]:
        """The lines of the table of layers: loss, expected loss, Gram distance, expected Gram distance."""
        outcome, shown, expected = self.outcome, self.outcome.shown, self.outcome.expected_objective
        if shown is None or shown.objective is None:
            return
        ours, theirs = shown.objective, expected or MeasuredObjective((), (), 0.0, 0.0, ())
        for index, layer in enumerate(outcome.content_layers):
            yield f"content {layer}", (ours.content[index], _at(theirs.content, index), None, None)
        for index, layer in enumerate(outcome.style_layers):
            losses = (ours.style[index], _at(theirs.style, index))
            yield f"style {layer}", (*losses, ours.gram[index], _at(theirs.gram, index))
        yield "total", (ours.total, theirs.total if expected else None, None, None)
        yield "TV, not in the total", (ours.tv, theirs.tv if expected else None, None, None)


def _at(values: Sequence[float], index: int) -> float | None:
    return values[index] if values else None

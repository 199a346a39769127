"""What a comparison finds, as plain data: measures, runs, verdicts. All of it goes into the JSON."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from legacy_style.compare.manifest import Printed, Row
from legacy_style.compare.metrics import OriginalColors, Pixels

Kind = Literal["identical", "equivalent", "different", "not comparable"]
KINDS: tuple[Kind, ...] = ("different", "not comparable", "equivalent", "identical")


@dataclass(frozen=True)
class MeasuredObjective:
    """A picture as a network sees it; losses are weighted, as printed.

    `total` has no TV in it, as in the original; `tv` is the value of the TV term whose gradient the original
    adds. `gram` is the relative distance of each style layer's Gram matrix from its target (Frobenius norm).
    """

    content: tuple[float, ...]
    style: tuple[float, ...]
    tv: float
    total: float
    gram: tuple[float, ...]


@dataclass(frozen=True)
class Measure:
    """One test and what came of it; `passed` is None where it only informs. `text` is a sentence."""

    name: str
    text: str
    value: float | None = None
    limit: float | None = None
    passed: bool | None = None


@dataclass(frozen=True)
class Verdict:
    """`because`: one sentence each, what decided."""

    kind: Kind
    because: tuple[str, ...]
    measures: tuple[Measure, ...] = ()


@dataclass(frozen=True)
class Run:
    """One picture that was made for a row, and what was measured on it.

    `picture` is a path; `seed` None where the command line itself fixes the start. `resumed`: it lay
    there from an earlier, stopped comparison. Objectives and pixels are None where they could not be
    measured.
    """

    picture: str
    seed: int | None
    losses: tuple[Printed, ...]
    seconds: float
    resumed: bool = False
    objective: MeasuredObjective | None = None
    pixels: Pixels | None = None
    colors: OriginalColors | None = None


@dataclass(frozen=True)
class UsedNetwork:
    """The network that was used; `name` is the manifest's, '' where the manifest does not know the file."""

    file: str
    sha256: str
    name: str


@dataclass(frozen=True)
class Outcome:
    """All about one row. `expected` and `inputs` are paths, '' and () where files are missing.

    `caveats` say why the row cannot be judged in full, `command` runs it again.
    """

    row: Row
    command: str
    network: UsedNetwork | None = None
    expected: str = ""
    content: str = ""
    styles: tuple[str, ...] = ()
    content_layers: tuple[str, ...] = ()
    style_layers: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    expected_objective: MeasuredObjective | None = None
    expected_colors: OriginalColors | None = None
    scaled: str = ""
    caveats: tuple[str, ...] = ()
    error: str = ""
    verdict: Verdict = field(default_factory=lambda: Verdict("not comparable", ("not judged",)))

    @property
    def shown(self) -> Run | None:
        """The run to look at: of several seeds the one with the median total."""
        if not self.runs:
            return None
        by_total = sorted(self.runs, key=lambda run: run.objective.total if run.objective else math.inf)
        return by_total[(len(by_total) - 1) // 2]


def as_json(value: Any) -> Any:
    """Dataclasses as what `json.dumps` takes; numbers that are not finite become strings ("inf")."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: as_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [as_json(each) for each in value]
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def number(value: float) -> str:
    """Three or four digits: 0.0123, 12.3, 1234, 12.3 k, 4.56 M."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
    size = abs(value)
    if size == 0:
        return "0"
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if size >= limit:
            scaled = value / {" G": 1e9, " M": 1e6, " k": 1e3}[unit]
            return f"{scaled:.3g}{unit}" if abs(scaled) < 999.5 else f"{scaled:.0f}{unit}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}" if size < 1000 else f"{value:.0f}"

"""From measures to a verdict: identical, equivalent, different, or not comparable.

Pixels cannot tell whether a picture is right: the start is random, and L-BFGS from noise is chaotic. So
what decides is what the row has tolerances for: the objective, in the first place, with content and
style inside the range of the seeds; then printed losses and pixels, where a recording makes them exact.
A caveat (another network, another size, fewer iterations) turns those into information; the exact test
of the colours stays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from legacy_style.compare.manifest import Printed, Row
from legacy_style.compare.metrics import OriginalColors, Pixels

Kind = Literal["identical", "equivalent", "different", "not comparable"]
KINDS: tuple[Kind, ...] = ("different", "not comparable", "equivalent", "identical")

# Losses are printed with six decimals.
_PRINTED_ROUNDING = 1e-6


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


def judge(outcome: Outcome) -> Verdict:
    """The verdict on one row, from everything else in `outcome`."""
    row = outcome.row
    if outcome.error:
        # A command line that fails under the right network is itself a difference.
        return Verdict(
            "not comparable" if outcome.caveats else "different", (*outcome.caveats, outcome.error)
        )
    measures = list(_measures(outcome))
    failed = [measure.text for measure in measures if measure.passed is False]
    if failed:
        return Verdict("different", tuple(failed), tuple(measures))
    passed = [measure.text for measure in measures if measure.passed]
    if outcome.caveats:
        return Verdict("not comparable", (*outcome.caveats, *passed), tuple(measures))
    if not outcome.runs:
        return Verdict("not comparable", ("nothing was run",), tuple(measures))
    pixels = [run.pixels for run in outcome.runs]
    if row.expected and all(each is not None and each.max_difference == 0 for each in pixels):
        return Verdict("identical", ("every pixel is the same", *passed), tuple(measures))
    if not passed:
        reason = "nothing decided: the row has no tolerance for what could be measured"
        return Verdict("not comparable", (reason,), tuple(measures))
    return Verdict("equivalent", tuple(passed), tuple(measures))


def _measures(outcome: Outcome) -> Iterator[Measure]:
    """Every measure of a row; those that a caveat robs of their force come with `passed` None."""
    yield from _color_measures(outcome)
    full = not outcome.caveats
    for measure in (*_objective_measures(outcome), *_printed_measures(outcome), *_pixel_measures(outcome)):
        yield measure if full else Measure(measure.name, measure.text, measure.value, measure.limit)


def _color_measures(outcome: Outcome) -> Iterator[Measure]:
    if outcome.expected_colors is not None:
        yield _colors("colours of the expected picture", outcome.expected_colors)
    for run in outcome.runs:
        if run.colors is not None:
            yield _colors(f"colours of our picture{_seed(run)}", run.colors)


def _colors(name: str, colors: OriginalColors) -> Measure:
    return Measure(name, f"{name}: {colors.text}", colors.failing, 0.0, colors.passed)


def _objective_measures(outcome: Outcome) -> Iterator[Measure]:
    expected, tolerances = outcome.expected_objective, outcome.row.tolerances
    ours = [run.objective for run in outcome.runs if run.objective is not None]
    if expected is None or not ours:
        return
    total = median(each.total for each in ours)
    ratio = total / expected.total if expected.total else float(total > 0)
    limit = None if tolerances.objective is None else 1 + tolerances.objective
    which = "total loss" if len(ours) == 1 else f"total loss (median of {len(ours)} seeds)"
    text = f"{which}: ours is {ratio:.4g} of the expected picture's"
    yield _at_most("objective", text, ratio, limit)
    for name in ("content", "style"):
        yield _inside(name, ours, expected, tolerances.distance)


def _at_most(name: str, text: str, value: float, limit: float | None) -> Measure:
    if limit is None:
        return Measure(name, text, value)
    return Measure(name, f"{text} (at most {limit:.5g})", value, limit, value <= limit)


def _inside(
    name: str, ours: Sequence[MeasuredObjective], expected: MeasuredObjective, widening: float | None
) -> Measure:
    """Whether the expected picture's content or style loss is inside the range of the seeds, widened."""
    losses = [sum(getattr(each, name)) for each in ours]
    wanted = sum(getattr(expected, name))
    low, high = min(losses), max(losses)
    found = f"{low:.4g}" if len(ours) == 1 else f"{low:.4g} to {high:.4g}"
    text = f"{name} loss: ours is {found}, the expected picture's {wanted:.4g}"
    if wanted < low:
        excess = low / wanted - 1 if wanted else math.inf
    else:
        excess = max(wanted / high - 1, 0.0) if high else float(wanted > 0)
    if widening is None:
        return Measure(f"{name} distance", text, excess)
    text += f" ({excess:.1%} outside, at most {widening:.0%})" if excess else " (inside)"
    return Measure(f"{name} distance", text, excess, widening, excess <= widening)


def _printed_measures(outcome: Outcome) -> Iterator[Measure]:
    row, tolerances = outcome.row, outcome.row.tolerances
    if not row.printed or not outcome.runs:
        return
    for run in outcome.runs:
        at = {losses.iteration: losses for losses in run.losses}
        pairs = [(at[each.iteration], each) for each in row.printed if each.iteration in at]
        reached, last = max(at, default=0), row.printed[-1]
        if last.iteration > reached:
            text = f"printed losses{_seed(run)}: ours end at iteration {reached}, not {last.iteration}"
            yield Measure("printed losses", text, float(reached), float(last.iteration), passed=False)
        first = [(ours, printed) for ours, printed in pairs if printed.iteration == 1]
        for name, limit, chosen, apart in (
            ("first losses", tolerances.first_losses, first, _losses_apart),
            ("first total", tolerances.first_total, first, _totals_apart),
            ("losses", tolerances.losses, pairs, _losses_apart),
            ("totals", tolerances.totals, pairs, _totals_apart),
        ):
            if limit is not None and chosen:
                worst, iteration = max((apart(*pair), pair[1].iteration) for pair in chosen)
                text = f"printed {name}{_seed(run)}: apart by {worst:.2g} at iteration {iteration}"
                yield _at_most(name, text, worst, limit)
        if last.iteration in at:
            ratio = at[last.iteration].total / last.total
            text = f"total loss at iteration {last.iteration}{_seed(run)}: {ratio:.4g} of the printed one"
            yield _at_most("last total", text, ratio, tolerances.last_total and 1 + tolerances.last_total)


def _losses_apart(ours: Printed, printed: Printed) -> float:
    """The largest relative difference of the layers' losses; infinite where they are not as many."""
    pairs = [(ours.content, printed.content), (ours.style, printed.style)]
    if any(len(a) != len(b) for a, b in pairs):
        return math.inf
    numbers = [(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)]
    return max((_relative(a, b) for a, b in numbers), default=0.0)


def _totals_apart(ours: Printed, printed: Printed) -> float:
    return _relative(ours.total, printed.total)


def _relative(ours: float, printed: float) -> float:
    difference = max(abs(ours - printed) - _PRINTED_ROUNDING, 0.0)
    if math.isnan(difference):
        return math.inf
    if difference == 0:
        return 0.0
    return difference / abs(printed) if printed else math.inf


def _pixel_measures(outcome: Outcome) -> Iterator[Measure]:
    tolerances = outcome.row.tolerances
    for run in outcome.runs:
        pixels = run.pixels
        if pixels is None:
            continue
        mean, largest = pixels.mean_difference, float(pixels.max_difference)
        text = f"mean difference of the pixels{_seed(run)}: {mean:.3g} levels"
        yield _at_most("mean difference", text, mean, tolerances.mean_difference)
        text = f"largest difference of a pixel{_seed(run)}: {largest:.0f} levels"
        yield _at_most("largest difference", text, largest, tolerances.max_difference)
        similar = "" if pixels.ssim is None else f", SSIM {pixels.ssim:.4f}"
        text = (
            f"CIEDE2000{_seed(run)}: {pixels.color_mean:.3g} on average, PSNR {pixels.psnr:.4g} dB{similar}"
        )
        yield Measure("perceived difference", text, pixels.color_mean)


def _seed(run: Run) -> str:
    return "" if run.seed is None else f" (seed {run.seed})"

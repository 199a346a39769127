"""From measures to a verdict: identical, equivalent, different, or not comparable.

Pixels cannot tell whether a picture is right: the start is random, and L-BFGS from noise is chaotic. So
what decides is what the row has tolerances for: the objective, in the first place, with content and
style inside the range of the seeds; then printed losses and pixels, where a recording makes them exact.
A caveat (another network, another size, fewer iterations) turns those into information; the exact test
of the colours stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from legacy_style.compare.manifest import Printed
from legacy_style.compare.metrics import OriginalColors
from legacy_style.compare.results import Measure, MeasuredObjective, Outcome, Run, Verdict

# Losses are printed with six decimals.
_PRINTED_ROUNDING = 1e-6


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
    if colors.passed:
        text = f"{name}: U and V are the content's, exactly"
    elif not colors.same_size:
        text = f"{name}: the content does not scale to its size"
    else:
        text = (
            f"{name}: {colors.failing:.2%} of the pixels have other U and V, off by {colors.worst:.3g} levels"
        )
    return Measure(name, text, colors.failing, 0.0, colors.passed)


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

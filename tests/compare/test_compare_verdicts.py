"""From measures to verdicts, case by case, with numbers made by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from legacy_style.compare.manifest import Printed, Row, Tolerances
from legacy_style.compare.metrics import OriginalColors, Pixels
from legacy_style.compare.verdicts import MeasuredObjective, Outcome, Run, judge


def objective(content: float, style: float) -> MeasuredObjective:
    return MeasuredObjective((content,), (style / 2, style / 2), 1.0, content + style, (0.1, 0.2))


def printed(iteration: int, content: float, style: float) -> Printed:
    return Printed(iteration, (content,), (style / 2, style / 2), content + style)


USUAL = Tolerances()
SAME = Pixels(8, 8, 0, 0.0, 0.0, math.inf, 1.0, (0, 0, 0), 0.0, 0.0, 0.0)
APART = dataclasses.replace(SAME, max_difference=9, mean_difference=2.5, psnr=30.0, ssim=0.5)


def run(content: float, style: float, pixels: Pixels | None = APART, **more: Any) -> Run:
    losses = (printed(1, 1000, 1000), printed(2, content, style))
    return Run("out.png", None, losses, 1.0, objective=objective(content, style), pixels=pixels, **more)


def outcome(*runs: Run, tolerances: Tolerances = USUAL, **more: Any) -> Outcome:
    row = Row("row", (), expected="expected.png", tolerances=tolerances, printed=more.pop("printed", ()))
    return Outcome(row, "command", runs=runs, expected_objective=objective(100, 200), **more)


def test_the_same_pixels_are_identical() -> None:
    assert judge(outcome(run(100, 200, SAME))).kind == "identical"


def test_no_worse_an_objective_is_equivalent() -> None:
    verdict = judge(outcome(run(110, 210)))
    assert verdict.kind == "equivalent"
    assert verdict.because[0] == "total loss: ours is 1.067 of the expected picture's (at most 1.1)"


def test_a_worse_objective_is_different() -> None:
    verdict = judge(outcome(run(115, 240)))
    assert verdict.kind == "different"
    assert verdict.because == ("total loss: ours is 1.183 of the expected picture's (at most 1.1)",)


def test_a_better_objective_with_another_balance_is_different() -> None:
    verdict = judge(outcome(run(60, 200)))
    assert verdict.kind == "different"
    assert verdict.because == (
        "content loss: ours is 60, the expected picture's 100 (66.7% outside, at most 25%)",
    )
    assert judge(outcome(run(60, 200), tolerances=Tolerances(distance=None))).kind == "equivalent"


def test_the_expected_picture_may_be_anywhere_in_the_range_of_the_seeds() -> None:
    assert judge(outcome(run(60, 200), run(140, 160), run(110, 220))).kind == "equivalent"
    verdict = judge(outcome(run(60, 200), run(70, 190), run(65, 220)))
    assert verdict.kind == "different"
    assert verdict.because == (
        "content loss: ours is 60 to 70, the expected picture's 100 (42.9% outside, at most 25%)",
    )


def test_the_median_seed_decides_on_the_objective() -> None:
    assert judge(outcome(run(90, 190), run(100, 200), run(110, 900))).kind == "equivalent"
    verdict = judge(outcome(run(90, 190), run(110, 900), run(110, 900)))
    assert verdict.kind == "different"
    assert "median of 3 seeds" in verdict.because[0]


@pytest.mark.parametrize(
    ("tolerance", "kind"),
    [
        ({"mean_difference": 2.5}, "equivalent"),
        ({"mean_difference": 2.4}, "different"),
        ({"max_difference": 9}, "equivalent"),
        ({"max_difference": 8}, "different"),
    ],
)
def test_pixels_decide_where_the_row_says_so(tolerance: dict[str, float], kind: str) -> None:
    assert judge(outcome(run(100, 200), tolerances=Tolerances(**tolerance))).kind == kind


RECORDED = (printed(1, 1000, 1001), printed(2, 100, 190))


@pytest.mark.parametrize(
    ("tolerance", "kind", "word"),
    [
        ({"first_losses": 1.1e-3}, "equivalent", ""),
        ({"first_losses": 0.9e-3}, "different", "first losses"),
        ({"first_total": 0.6e-3}, "equivalent", ""),
        ({"first_total": 0.4e-3}, "different", "first total"),
        ({"losses": 0.06}, "equivalent", ""),
        ({"losses": 0.05}, "different", "losses: apart by 0.053 at iteration 2"),
        ({"totals": 0.04}, "equivalent", ""),
        ({"totals": 0.03}, "different", "totals: apart by 0.034 at iteration 2"),
        ({"last_total": 0.04}, "equivalent", ""),
        ({"last_total": 0.03}, "different", "total loss at iteration 2: 1.034 of the printed one"),
    ],
)
def test_printed_losses_decide_where_the_row_says_so(
    tolerance: dict[str, float], kind: str, word: str
) -> None:
    verdict = judge(outcome(run(100, 200), tolerances=Tolerances(**tolerance), printed=RECORDED))
    assert verdict.kind == kind
    if word:
        assert word in verdict.because[0]


def test_a_run_that_ends_before_the_last_printed_loss_is_different() -> None:
    verdict = judge(outcome(run(100, 200), printed=(*RECORDED, printed(3, 90, 180))))
    assert verdict.kind == "different"
    assert verdict.because == ("printed losses: ours end at iteration 2, not 3",)


def test_another_number_of_layers_is_different() -> None:
    recorded = (Printed(1, (1000.0,), (1000.0,), 2000.0),)
    verdict = judge(outcome(run(100, 200), tolerances=Tolerances(first_losses=1.0), printed=recorded))
    assert verdict.kind == "different"


def test_printed_losses_decide_without_a_picture() -> None:
    made = outcome(run(100, 200, None), tolerances=Tolerances(losses=0.06), printed=RECORDED)
    made = dataclasses.replace(made, expected_objective=None)
    assert judge(made).kind == "equivalent"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_losses_that_are_not_finite_are_different(loss: float) -> None:
    assert judge(outcome(run(loss, 200))).kind == "different"
    tolerances = Tolerances(objective=None, distance=None, losses=0.06)
    assert judge(outcome(run(loss, 200), tolerances=tolerances, printed=RECORDED)).kind == "different"


def test_a_caveat_takes_the_force_of_everything_but_exact_tests() -> None:
    verdict = judge(outcome(run(900, 900), caveats=("another network",)))
    assert verdict.kind == "not comparable"
    assert verdict.because == ("another network",)
    assert verdict.measures and all(measure.passed is None for measure in verdict.measures)

    passed, failed = OriginalColors(True, 0.0, 0.0), OriginalColors(False, 0.25, 3.0)
    verdict = judge(outcome(run(900, 900, colors=passed), caveats=("another network",)))
    assert verdict.kind == "not comparable"
    assert verdict.because[1] == "colours of our picture: U and V are the content's, exactly"
    verdict = judge(outcome(run(900, 900, colors=failed), caveats=("another network",)))
    assert verdict.kind == "different"
    assert verdict.because == (
        "colours of our picture: 25.00% of the pixels have other U and V, off by 3 levels",
    )


def test_an_expected_picture_that_fails_its_own_test_is_different() -> None:
    failed = OriginalColors(False, 1.0, math.inf, same_size=False)
    verdict = judge(outcome(run(100, 200), expected_colors=failed))
    assert verdict.kind == "different"
    assert "colours of the expected picture: the content does not scale to its size" in verdict.because


def test_an_error_is_different_unless_a_caveat_explains_it() -> None:
    assert judge(outcome(error="it failed: no such layer")).kind == "different"
    verdict = judge(outcome(error="it failed: no such layer", caveats=("another network",)))
    assert verdict.kind == "not comparable"
    assert verdict.because == ("another network", "it failed: no such layer")


def test_a_row_that_decides_nothing_is_not_comparable() -> None:
    tolerances = Tolerances(objective=None, distance=None)
    verdict = judge(outcome(run(100, 200), tolerances=tolerances))
    assert verdict.kind == "not comparable"
    assert "no tolerance" in verdict.because[0]
    assert judge(outcome()).because == ("nothing was run",)

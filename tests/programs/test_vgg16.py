"""The original with the real VGG-16: three recorded runs, to the tolerances of their README."""

import numpy as np
import pytest
import vgg16_cases
from recorded_runs import Evaluation
from recordings import needs_shared


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", vgg16_cases.CASES)
def test_a_run_with_real_weights_is_as_recorded(name, tmp_path):
    assert not vgg16_cases.replay(name, tmp_path)


@needs_shared
def test_all_recorded_cases_are_held():
    assert {path.name for path in vgg16_cases.RECORDED.iterdir() if path.is_dir()} == set(vgg16_cases.CASES)


@pytest.mark.parametrize(("count", "lost"), [(100_000, 1e-5), (1_570_000, 1e-3), (6_300_000, 8e-3)])
def test_a_sum_in_float32_loses_what_the_original_lost(count, lost):
    """As the recordings' README measured it on uniform random numbers, to its one digit."""
    random = np.random.RandomState(1)
    difference = np.float32(random.rand(count)) - np.float32(random.rand(count))
    exact = np.square(difference, dtype=np.float64).mean()
    assert vgg16_cases._mean_square(difference) / exact - 1 == pytest.approx(-lost, rel=0.25)


def test_totals_are_compared_up_to_their_iteration():
    demand = vgg16_cases.Demand(totals=((2, 1e-5), (3, 1e-2)), last=0.1)
    theirs = [Evaluation(iteration, [100.0]) for iteration in (1, 2, 3, 4)]

    def compared(*totals):
        ours = [Evaluation(iteration, [total]) for iteration, total in enumerate(totals, 1)]
        return [each.what[:11] for each in vgg16_cases._compare_totals(ours, theirs, demand)]

    assert compared(100.0005, 100, 100.5, 109) == []
    assert compared(100, 100.01, 102, 90) == ["iteration 2", "iteration 3"]
    assert compared(100, 100, 100, 111) == ["the last to"]

"""Every recorded run of the original, through the real command line: expectations.py says what must agree."""

import os
import subprocess
import sys
from pathlib import Path

import expectations
import pytest
import recorded_runs
from recorded_runs import Evaluation, Outcome, evaluations, perform, recorded
from recordings import RECORDED, SHIPPED, needs_shared
from replay import SLOW

CHECKOUT = Path(__file__).parents[2]
ROOTS = {"shipped": SHIPPED, "recorded": RECORDED}

CASES = [
    pytest.param(root, name, id=f"{label}-{name}", marks=[pytest.mark.slow] if name in SLOW else [])
    for label, root in ROOTS.items()
    if root.is_dir()
    for name in recorded(root)
]


@pytest.mark.parametrize(("root", "name"), CASES)
def test_a_run_is_as_recorded_or_deviates_on_purpose(root, name, tmp_path):
    assert not expectations.replay(recorded(root)[name], tmp_path)


@needs_shared
def test_all_160_recorded_runs_are_replayed():
    assert len(recorded(RECORDED)) >= 160
    assert {case.values[1] for case in CASES if case.values[0] == RECORDED} == set(recorded(RECORDED))


@needs_shared
def test_every_expectation_is_about_a_recorded_run_and_an_image_of_it():
    runs = recorded(RECORDED)
    for table in (expectations.COURSES, expectations.DEVIATIONS, expectations.REFUSALS, expectations.PIXELS):
        assert set(table) <= set(runs)
    for name, images in expectations.PIXELS.items():
        assert set(images) <= set(runs[name].images), name
    failing = {name for name, run in runs.items() if run.status and name not in expectations.DEVIATIONS}
    assert failing == set(expectations.REFUSALS)


# One that runs, one that fails late, one that is refused: as a process of its own, as users start it.
@pytest.mark.parametrize("name", ["niter1", "m_missing", "cli_unknown_opt"])
def test_a_process_of_its_own_does_the_same(name, tmp_path):
    root = RECORDED if RECORDED.is_dir() else SHIPPED
    run = recorded(root)[name]
    recorded_runs.lend(root, run.words, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "legacy_style", *run.words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    outcome = Outcome(done.returncode, done.stdout.split("\n")[:-1], done.stderr, tmp_path)
    assert not expectations.differences(run, outcome)


@needs_shared
def test_a_step_that_overshot_is_taken_back(tmp_path):
    """Before iteration 8, L-BFGS goes astray by 13 orders of magnitude; the original is back at the 9th."""
    run = recorded(RECORDED)["wc_odd"]
    ours, theirs = (
        {each.iteration: each.losses[-1] for each in evaluations(lines)}
        for lines in (perform(run, tmp_path).lines, run.lines)
    )
    assert min(ours[8], theirs[8]) > 1e15
    for iteration in (9, 10):
        assert ours[iteration] == pytest.approx(theirs[iteration], rel=1e-4)


# The comparison itself: each of these must be seen, and at its own stage.


@pytest.fixture
def outcome():
    """What `base` would have done if it had done exactly what was recorded."""
    run = recorded(SHIPPED)["base"]
    return Outcome(0, list(run.lines), "", SHIPPED / "nowhere")


def test_an_exit_status_is_compared(outcome):
    assert [each.stage for each in recorded_runs.compare_status(1, outcome)] == ["exit status"]
    assert not list(recorded_runs.compare_status(0, outcome))


@pytest.mark.parametrize("line", [0, 21, 60, -1])
def test_a_line_that_differs_is_named(outcome, line):
    lines = list(outcome.lines)
    assert not list(recorded_runs.compare_stdout(lines, outcome))
    lines[line] = lines[line].rstrip("\t") + "!"
    (difference,) = recorded_runs.compare_stdout(lines, outcome)
    assert difference.stage == "stdout"
    assert repr(lines[line]) in difference.what


def test_lines_that_are_missing_or_too_many_are_seen(outcome):
    shorter = Outcome(0, outcome.lines[:-1], "", outcome.folder)
    assert list(recorded_runs.compare_stdout(outcome.lines, shorter))
    assert not list(recorded_runs.compare_stdout(outcome.lines, shorter, beginning=True))
    assert list(recorded_runs.compare_stdout(shorter.lines, outcome, beginning=True))


def test_losses_are_compared_one_by_one_at_first_and_to_the_total_afterwards(outcome):
    lines = [line.replace("5032.424622", "5032.524622") for line in outcome.lines]
    assert [each.stage for each in recorded_runs.compare_first_losses(lines, outcome, 1e-5)] == ["losses"]
    assert not list(recorded_runs.compare_first_losses(lines, outcome, 1e-4))
    assert not list(recorded_runs.compare_course(lines, outcome, 2, 1e-5))
    lines = [line.replace("33254337.500000", "33255337.500000") for line in outcome.lines]
    assert list(recorded_runs.compare_course(lines, outcome, 2, 1e-5))
    assert not list(recorded_runs.compare_course(lines, outcome, 1, 1e-5))


def test_a_run_that_does_not_go_downhill_is_seen(outcome):
    (smallest,) = [each.losses[-1] for each in evaluations(outcome.lines) if each.iteration == 20]
    lines = [line.replace(f"{smallest:f}", f"{smallest / 2:f}") for line in outcome.lines]
    assert lines != outcome.lines
    assert list(recorded_runs.compare_depth(lines, outcome, 1.5))
    assert not list(recorded_runs.compare_depth(outcome.lines, outcome, 1.5))


def test_nan_is_a_loss_like_any_other():
    assert evaluations(["Iteration 1 / 3\t", "  Content 1 loss: nan\t"])[0].losses[0] != 0
    assert recorded_runs.same_loss(float("nan"), float("nan"), 0)
    assert not recorded_runs.same_loss(float("nan"), 1.0, 1e-5)
    assert not recorded_runs.same_loss(1.0, float("nan"), 1e-5)


def test_evaluations_are_read_from_what_is_printed():
    lines = [
        "Iteration 7 / 20\t",
        "  Content 1 loss: 2.500000\t",
        "  Total loss: 1e+20\t",
        "Iteration 8 / 20\t",
    ]
    assert evaluations(lines) == [Evaluation(7, [2.5, 1e20]), Evaluation(8, [])]


def test_pixels_are_counted(tmp_path):
    run = recorded(SHIPPED)["base"]
    here = Outcome(0, [], "", tmp_path / "here")
    there = type(run)(run.name, run.words, 0, ["out.png"], tmp_path)
    for folder in (here.folder, there.folder):
        folder.mkdir(parents=True)
        recorded_runs.draw_stand_in(folder / "out.png", 0)
    assert not list(recorded_runs.compare_pixels(there, here, "out.png", 0, 0))
    recorded_runs.draw_stand_in(here.folder / "out.png", 1)
    assert list(recorded_runs.compare_pixels(there, here, "out.png", 1, 1))
    assert list(recorded_runs.compare_pixels(there, here, "out.png", 255, 0.1))
    assert not list(recorded_runs.compare_pixels(there, here, "out.png", 255, 1))

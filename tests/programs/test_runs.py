"""Every recorded run of the original, through the real command line: expectations.py says what must agree."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import expectations
import numpy as np
import pytest
import recorded_runs
from PIL import Image
from recorded_runs import Evaluation, Outcome, evaluations, recorded
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
def test_a_run_is_as_recorded_or_deviates_on_purpose(root, name, tmp_path, record_property):
    assert not expectations.replay(recorded(root)[name], tmp_path)
    record_property("held", "recorded runs of neural_style.lua, some of them twice")


@needs_shared
def test_all_160_recorded_runs_are_replayed():
    assert len(recorded(RECORDED)) >= 160
    assert {case.values[1] for case in CASES if case.values[0] == RECORDED} == set(recorded(RECORDED))


@needs_shared
def test_every_expectation_is_about_a_recorded_run_and_an_image_of_it():
    runs = recorded(RECORDED)
    for table in (expectations.NOT_MEASURED, expectations.DEVIATIONS, expectations.REFUSALS):
        assert set(table) <= set(runs)
    for name, image in expectations.PIXELS:
        assert image in runs[name].images
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
    lines = [line.replace("5032.424622", "5032.624622") for line in outcome.lines]
    assert [each.stage for each in recorded_runs.compare_first_losses(lines, outcome, 1e-5)] == ["losses"]
    assert not list(recorded_runs.compare_first_losses(lines, outcome, 1e-4))
    assert not list(recorded_runs.compare_course(lines, outcome, [1e-5, 1e-5]))
    lines = [line.replace("33254337.500000", "33255337.500000") for line in outcome.lines]
    assert list(recorded_runs.compare_course(lines, outcome, [1e-5, 1e-5]))
    assert not list(recorded_runs.compare_course(lines, outcome, [1e-5, 1e-4]))
    assert not list(recorded_runs.compare_course(lines, outcome, [1e-5]))


def test_a_run_that_does_not_go_downhill_is_seen(outcome):
    totals = [each.losses[-1] for each in evaluations(outcome.lines)]
    lines = [line.replace(f"{min(totals):f}", f"{min(totals) / 2:f}") for line in outcome.lines]
    assert lines != outcome.lines
    assert list(recorded_runs.compare_depth(lines, outcome, 0.9))
    assert not list(recorded_runs.compare_depth(lines, outcome, 0.5))
    assert not list(recorded_runs.compare_depth(outcome.lines, outcome, 1))
    first = outcome.lines[: outcome.lines.index("Iteration 2 / 20\t")]
    assert list(recorded_runs.compare_depth(outcome.lines, replace(outcome, lines=first), 0.5))


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


def test_a_few_values_of_a_small_image_may_differ_by_a_level(tmp_path):
    run = replace(recorded(SHIPPED)["base"], images=["out.png"], root=tmp_path)
    here = Outcome(0, [], "", tmp_path / "here")
    image = np.full((6, 8, 3), 128, np.uint8)
    for folder in (here.folder, run.folder):
        folder.mkdir(parents=True)
        Image.fromarray(image).save(folder / "out.png")
    for count in range(5):
        image.flat[:count] = 129
        Image.fromarray(image).save(here.folder / "out.png")
        found = list(recorded_runs.compare_pixels(run, here, "out.png", 1, 0.002, 3))
        assert bool(found) == (count > 3)
        assert bool(list(recorded_runs.compare_pixels(run, here, "out.png", 0, 0, 3))) == (count > 0)

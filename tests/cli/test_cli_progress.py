"""legacy_style.cli.progress: what the live line says, that it fits its terminal, and that it goes away."""

import io
import os
import pty
import re
import time
import types

import forked
import pytest

from legacy_style.cli import progress
from legacy_style.cli.progress import ProgressLine, describe, duration, fit
from legacy_style.programs.progress import WorkDone

PROGRAM = """
import sys, time, types
from legacy_style.programs.progress import WorkDone
engine = types.ModuleType("legacy_style.programs.neural_style.story")
def stylize(options, *, log, notice, on_progress, on_saved, kept):
    for t in range(1, 4):
        losses = types.SimpleNamespace(total=1e6)
        work = WorkDone((1,), t, 3.0)
        on_progress(
            types.SimpleNamespace(iteration=t, num_iterations=3.0, losses=losses, seconds=0.2 * t, work=work)
        )
        time.sleep(0.11)
    log("Iteration 3 / 3")
engine.stylize, engine.list_layers, engine.plan = stylize, None, None
sys.modules["legacy_style.programs.neural_style.story"] = engine
from legacy_style.cli.neural_style import main
sys.exit(main(sys.argv[1:]))
"""


def at(iteration, seconds, total=1234.5, of=100.0):
    losses = types.SimpleNamespace(total=total)
    work = WorkDone((1,), iteration, of)
    return types.SimpleNamespace(
        iteration=iteration, num_iterations=of, losses=losses, seconds=seconds, work=work
    )


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves, and terminals of 40 columns."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(progress, "columns", lambda stream: 40)
    return now


def screen(text):
    """What a terminal shows of text that only moves with carriage returns."""
    shown = ""
    for piece in text.split("\r"):
        shown = piece + shown[len(piece) :]
    return shown.rstrip(" ")


def test_the_line_names_iteration_loss_pace_and_time_left():
    parts = ["Iteration 3 / 100", "loss 1234", "0.5 s/iteration", "49 s left"]
    assert describe(at(3, 2.0), at(1, 1.0), 48.5) == parts


def test_a_resumed_run_is_timed_from_its_own_first_evaluation():
    assert describe(at(501, 4.0, of=600.0), at(500, 2.0), 198)[2:] == ["2 s/iteration", "3 min 18 s left"]


def test_before_there_is_a_second_evaluation_the_first_one_is_the_pace():
    assert describe(at(1, 3.0), at(1, 3.0), None)[2:] == ["3 s/iteration", "4 min 57 s left"]


@pytest.mark.parametrize("of", [float("inf"), float("nan"), 0.0])
def test_no_time_is_left_where_there_is_no_end(of):
    assert describe(at(3, 2.0, of=of), at(1, 1.0), None)[2:] == ["0.5 s/iteration"]


@pytest.mark.parametrize(
    ("total", "shown"), [(1e7 / 3, "3333333"), (0.00012345, "0.0001234"), (float("nan"), "nan")]
)
def test_losses_of_any_size(total, shown):
    assert describe(at(3, 2.0, total), at(1, 1.0), None)[1] == f"loss {shown}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.2, "1 s"), (59.5, "1 min 00 s"), (3599.9, "1 h 00 min"), (90000, "1 d 01 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_line_that_does_not_fit_loses_its_last_parts(clock):
    stream = io.StringIO()
    ProgressLine(stream, shown=True).update(at(3, 2.0))
    assert screen(stream.getvalue()) == "Iteration 3 / 100  loss 1234"


@pytest.mark.parametrize(
    ("width", "text"),
    [(9, "abc  d  e"), (8, "abc  d"), (6, "abc  d"), (5, "abc"), (3, "abc"), (2, "ab"), (0, ""), (-1, "")],
)
def test_the_line_is_as_wide_as_the_terminal_allows(width, text):
    assert fit(["abc", "d", "e"], width) == text


def test_a_shorter_line_covers_the_longer_one_before_it(clock):
    stream = io.StringIO()
    line = ProgressLine(stream, shown=True)
    line.update(at(3, 2.0))
    clock.seconds += 1
    line.update(at(4, 3.0, total=1.0))
    assert screen(stream.getvalue()) == "Iteration 4 / 100  loss 1"
    line.clear()
    assert screen(stream.getvalue()) == ""
    assert stream.getvalue().endswith("\r")


def test_it_is_drawn_at_most_ten_times_a_second(clock):
    stream = io.StringIO()
    line = ProgressLine(stream, shown=True)
    for iteration in range(1, 101):
        line.update(at(iteration, iteration))
        clock.seconds += 0.01
    assert 9 <= stream.getvalue().count("\r") <= 11


def test_where_it_is_not_shown_nothing_is_written(clock):
    stream = io.StringIO()
    line = ProgressLine(stream, shown=False)
    line.update(at(1, 1.0))
    line.clear()
    assert stream.getvalue() == ""


def test_columns_of_something_that_is_no_terminal():
    assert progress.columns(io.StringIO()) == 80


@pytest.mark.parametrize("words", [[], ["--no-progress"]])
def test_on_a_terminal_the_line_is_shown_and_gone_at_the_end(words):
    ours, theirs = pty.openpty()
    answer = forked.run("-c", PROGRAM, *words, stderr=theirs)
    os.close(theirs)
    try:
        shown = os.read(ours, 10000).decode()
    except OSError:  # Linux, where nothing was written and the other end is closed
        shown = ""
    os.close(ours)
    assert (answer.returncode, answer.stdout) == (0, "Iteration 3 / 3\n")
    if words:
        assert shown == ""
    else:
        assert re.search("\rIteration 3 / 3  loss 1000000  0.2 s/iteration  0 s left", shown)
        assert screen(shown) == ""


def test_away_from_a_terminal_there_is_no_line():
    answer = forked.run("-c", PROGRAM)
    assert (answer.returncode, answer.stderr) == (0, "")

"""legacy_style.compare.runner: what is left of its processes, threads and settings when it returns or fails."""

import os
import threading

import pytest

from legacy_style.compare import runner
from legacy_style.errors import OptionError


class Task:
    """Stands for a row; what happens to it, a worker process decides by its name."""

    def __init__(self, name):
        self.name = name


def work(task):
    """In a worker process."""
    runner._queue.put(task.name)
    if task.name == "dies":
        os._exit(1)
    if task.name == "fails":
        raise ZeroDivisionError
    return task.name.upper()


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(runner, "_work", work)

    def go(names, tell):
        return runner._in_processes([Task(name) for name in names], 2, tell)  # type: ignore[misc]

    return go


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    """No thread that listens to workers which are gone, and no setting of theirs."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    assert [each.name for each in threading.enumerate() if "_listen" in each.name] == []
    assert "OMP_NUM_THREADS" not in os.environ


def test_every_tick_has_been_told_when_it_returns_and_the_order_is_kept(run):
    told = []
    assert run(["a", "b", "c", "d"], told.append) == ["A", "B", "C", "D"]
    assert sorted(told) == ["a", "b", "c", "d"]


def test_an_error_of_a_worker_passes_through(run):
    with pytest.raises(ZeroDivisionError):
        run(["a", "fails"], [].append)


def test_a_worker_that_dies_is_told_with_what_to_do(run):
    with pytest.raises(OptionError, match=r"a worker process died.* fewer --jobs: what was finished is kept"):
        run(["dies", "a"], [].append)

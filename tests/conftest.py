"""What concerns every test: what a run has to say at its end, and running all of it as another processor would."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Workers that run tests side by side share the processors: one thread each, before PyTorch is loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from other_processor import OtherProcessor
from recorded_runs import draw_stand_in


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--processor",
        type=int,
        metavar="SEED",
        help="compute in the order of another processor (tests/other_processor.py), one for each number",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes, so that no worker is left alone with it at the end.

    pytest-xdist's worksteal first gives each of n workers an nth of the tests, in their order.
    """
    slow = [each for each in items if each.get_closest_marker("slow")]
    rest = [each for each in items if not each.get_closest_marker("slow")]
    count, workers = len(items), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    lengths = [(count + worker) // workers for worker in range(workers)]
    offsets = [offset for length in lengths for offset in range(length)]
    first = dict(zip(sorted(range(count), key=offsets.__getitem__), slow, strict=False))
    others = iter(rest)
    items[:] = [first[at] if at in first else next(others) for at in range(count)]


@pytest.fixture(autouse=True)
def processor(request: pytest.FixtureRequest) -> Iterator[int | None]:
    """The number of --processor, which this thread computes as; a process that a test starts has to enter it itself."""
    seed = request.config.getoption("--processor")
    with OtherProcessor(seed) if seed is not None else contextlib.nullcontext():
        yield seed


@pytest.fixture
def two_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """content.png and style.png lie in the current folder, which is the test's own."""
    monkeypatch.chdir(tmp_path)
    draw_stand_in(tmp_path / "content.png", 0)
    draw_stand_in(tmp_path / "style.png", 3)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests noted with `record_property`: "held" is a kind of recording, "said" a line."""
    reports = [each for some in terminalreporter.stats.values() for each in some]
    calls = [each for each in reports if getattr(each, "when", "") == "call"]
    notes = [note for each in calls for note in each.user_properties]
    for what, count in Counter(what for name, what in notes if name == "held").items():
        terminalreporter.write_line(f"{count} {what} held")
    for name, line in notes:
        if name == "said":
            terminalreporter.write_line(line)

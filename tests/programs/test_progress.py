"""The time that is left of runs whose parts are of different sizes, end early, or are far between."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from legacy_style.programs.progress import Pace, WorkDone


def lefts(works: list[WorkDone], seconds: list[float]) -> Iterator[float | None]:
    """What was said to be left at each time, an iteration taking that many seconds."""
    pace, now = Pace(), 1000.0
    for work, spent in zip(works, seconds, strict=True):
        now += spent
        pace.update(work, now)
        yield pace.left


def test_stages_take_time_as_their_pixels_do() -> None:
    """128:3, 256:2: an iteration of the second takes four times as long, which is known in the first."""
    works = [WorkDone((1,), done, 11) for done in (1, 2, 3)] + [WorkDone((2,), done, 11) for done in (7, 11)]
    assert list(lefts(works, [1, 1, 1, 4, 4])) == [None, 9, 8, 4, 0]


def test_frames_that_end_early_and_what_lies_between_them_count() -> None:
    """Of 100 evaluations a frame makes 3, and 10 seconds pass before the next: 13 seconds a frame."""
    works = [WorkDone((frame,), 100 * frame + each, 1000) for frame in range(4) for each in (1, 2, 3)]
    found = list(lefts(works, [11, 1, 1] * 4))
    assert found[9] == pytest.approx(13 / 100 * (1000 - 301))
    assert found[-1] == pytest.approx(15 / 102 * (1000 - 303))


def test_a_machine_that_gets_slower_is_noticed_within_two_parts() -> None:
    works = [WorkDone((part,), 10 * part + each, 40) for part in range(4) for each in range(1, 11)]
    found = list(lefts(works, [1] * 10 + [2] * 30))
    assert found[29] == pytest.approx(20)


@pytest.mark.parametrize("total", [math.inf, math.nan, 1.0])
def test_where_nobody_can_know_nothing_is_said(total: float) -> None:
    assert list(lefts([WorkDone((), 1, total), WorkDone((), 2, total)], [1, 1])) == [None, None]
    assert Pace().left is None

"""What a run tells the pages, and what it costs the run."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import threading

import numpy as np
import pytest
from PIL import Image

from legacy_style.errors import OptionError
from legacy_style.programs.progress import WorkDone
from legacy_style.watch import watcher as module
from legacy_style.watch.watcher import Watcher, encode

LOSSES = {"total": 3.0, "content": 1.0, "style": 2.0}


def never() -> np.ndarray:
    raise AssertionError("nobody is there to see the picture")


def gray(level: float):
    return lambda: np.full((8, 12, 3), 255 * level, np.uint8)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Watcher:
    monkeypatch.setattr(module, "_EVENT_SECONDS", 0.0)
    monkeypatch.setattr(module, "_HEARTBEAT", 0.01)
    made = Watcher()
    made.begin("a cat")
    return made


def test_without_a_browser_no_picture_is_taken(watcher: Watcher) -> None:
    for iteration in range(1, 20):
        assert not watcher.update(iteration, 20, LOSSES, never)
    watcher.end("done", "here", never)
    assert watcher.picture() is None


def test_with_a_browser_pictures_are_taken_and_take_a_hundredth_of_the_time(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = watcher.events()
    next(events)
    clock = itertools.count(0.0, 0.25)  # each look at the clock is a quarter of a second later
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    taken = []

    def picture() -> np.ndarray:
        taken.append(1)
        return np.zeros((2, 2, 3), np.uint8)

    for iteration in range(1, 1000):
        watcher.update(iteration, 1000, LOSSES, picture)
    # Taking one is a quarter of a second on that clock, so there may be one in 25 seconds.
    assert len(taken) == pytest.approx(1000 * 0.25 / 25, abs=1)


def test_the_picture_is_that_of_the_iteration(watcher: Watcher) -> None:
    events = watcher.events()
    next(events)
    watcher.update(1, 20, LOSSES, gray(0.5))
    assert next(events)["picture"] == 1
    with Image.open(io.BytesIO(watcher.picture() or b"")) as image:
        assert image.size == (12, 8)
        assert np.asarray(image).mean() == pytest.approx(127, abs=1)


def test_each_browser_hears_of_every_loss_once(watcher: Watcher) -> None:
    first = watcher.events()
    assert next(first)["points"] == []
    watcher.update(1, 20, LOSSES, gray(0))
    watcher.update(2, 20, {**LOSSES, "total": math.inf}, gray(0))
    event = next(first)
    assert event["points"] == [[1, 3.0, 1.0, 2.0], [2, None, 1.0, 2.0]]
    assert event["names"] == ["total", "content", "style"]
    second = watcher.events()
    event = next(second)
    assert event["fresh"]
    assert len(event["points"]) == 2
    watcher.update(3, 20, LOSSES, gray(0))
    for each in (first, second):
        event = next(each)
        assert not event["fresh"]
        assert [point[0] for point in event["points"]] == [3]
    json.dumps(event, allow_nan=False)


def test_a_long_run_s_losses_are_thinned_for_who_comes_late(watcher: Watcher) -> None:
    for iteration in range(1, 10_001):
        watcher.update(iteration, 1e4, LOSSES, never)
    points = next(watcher.events())["points"]
    assert 1000 < len(points) <= 2000
    assert points[0][0] == 1


def test_a_new_run_begins_anew(watcher: Watcher) -> None:
    events = watcher.events()
    next(events)
    watcher.update(1, 20, LOSSES, gray(1))
    watcher.ask("stop")
    watcher.begin("a dog", lambda: np.full((2, 2, 3), 9, np.uint8))
    event = next(events)
    assert (event["run"], event["title"], event["picture"], event["points"]) == (2, "a dog", 0, [])
    assert event["fresh"] and event["before"] and not event["stopping"]
    assert not watcher.update(1, 20, LOSSES, gray(1))
    assert watcher.before() is not None


def test_time_left_is_that_of_the_pace(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    watcher.update(11, 31, LOSSES, never)  # a run that was resumed
    assert next(watcher.events())["left"] is None
    now = 104.0
    watcher.update(13, 31, LOSSES, never)
    event = next(watcher.events())
    assert (event["pace"], event["left"]) == (2.0, 36.0)
    watcher.update(14, math.inf, LOSSES, never)
    assert next(watcher.events())["left"] is None


def test_time_left_is_that_of_all_pictures_and_stages(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    for picture in (1, 2):
        watcher.begin(f"picture {picture}", follows=picture > 1)
        assert next(watcher.events())["share"] == pytest.approx((picture - 1) / 3)
        for iteration in (1, 2, 3, 4):
            now += 1 if iteration < 3 else 4
            done = 10 * (picture - 1) + (iteration if iteration < 3 else 2 + 4 * (iteration - 2))
            watcher.update(iteration, 4, LOSSES, never, work=WorkDone((picture, iteration // 3), done, 30))
        watcher.end("done", "")
    event = next(watcher.events())
    assert (event["share"], event["left"]) == (pytest.approx(2 / 3), pytest.approx(10))
    watcher.begin("another one")
    assert next(watcher.events())["left"] is None


def test_what_was_asked_of_a_frame_is_asked_of_the_next_one(watcher: Watcher) -> None:
    watcher.update(1, 20, LOSSES, never)
    watcher.ask("save")
    watcher.ask("stop")
    watcher.saved("frame_1.png")
    watcher.begin("the next frame", follows=True)
    event = next(watcher.events())
    assert (event["stopping"], event["saved"], event["follows"]) == (True, ["frame_1.png"], True)
    assert watcher.update(1, 20, LOSSES, never, lambda: "frame_2_1.png")
    assert next(watcher.events())["saved"] == ["frame_1.png", "frame_2_1.png"]
    watcher.end("stopped", "")
    watcher.begin("the next picture of a batch", follows=True)
    event = next(watcher.events())
    assert (event["stopping"], event["saved"]) == (False, [])


def test_what_cannot_be_saved_does_not_end_the_run(watcher: Watcher) -> None:
    def keep() -> str:
        raise OptionError("out.png: the disk is full")

    watcher.update(1, 20, LOSSES, never)
    watcher.ask("save")
    assert not watcher.update(2, 20, LOSSES, never, keep)
    event = next(watcher.events())
    assert (event["remark"], event["state"], event["saved"]) == ("out.png: the disk is full", "running", [])


def test_a_run_without_an_end_is_told_too(watcher: Watcher) -> None:
    for iterations in (math.inf, math.nan):
        watcher.update(1, iterations, LOSSES, never)
        event = next(watcher.events())
        assert (event["share"], event["left"], event["iterations"]) == (0, None, None)
        json.dumps(event, allow_nan=False)


def test_buttons_ask_a_running_run_alone(watcher: Watcher) -> None:
    watcher.ask("save")
    watcher.ask("save")
    assert watcher.wants_save()
    assert not watcher.wants_save()
    watcher.end("done", "")
    watcher.ask("save")
    watcher.ask("stop")
    assert not watcher.wants_save()
    assert not next(watcher.events())["stopping"]


def test_the_last_event_brings_the_picture_and_close_waits_for_it(watcher: Watcher) -> None:
    told = []
    there = threading.Event()

    def browser() -> None:
        for event in watcher.events():
            told.append(event)
            there.set()

    thread = threading.Thread(target=browser)
    thread.start()
    assert there.wait(30)
    watcher.end("done", "The picture is out.png", gray(1))
    watcher.close()
    thread.join(30)
    last = told[-1]
    assert (last["state"], last["message"]) == ("done", "The picture is out.png")
    data = base64.b64decode(last["last"].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert np.asarray(image).mean() > 250


def test_close_does_not_wait_for_nobody_and_not_for_ever(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.end("done", "")
    watcher.close()
    monkeypatch.setattr(module, "_FAREWELL", 0.05)
    hanging = watcher.events()
    next(hanging)
    watcher.close()
    hanging.close()


def test_a_large_picture_is_made_small() -> None:
    with Image.open(io.BytesIO(encode(np.zeros((300, 3000, 3), np.uint8)))) as image:
        assert image.size == (1024, 102)

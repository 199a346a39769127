"""The page of a run in a real browser: what it shows, its buttons, and that looking at it changes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest

from legacy_style.watch import page
from legacy_style.watch.server import Server
from legacy_style.watch.watcher import Watcher

STATE = "document.getElementById('state').textContent"
SHOWN = "!document.getElementById('after').hidden && !document.getElementById('before').hidden"
# Brightness of the middle of an image on the page.
LEVEL = (
    "(() => { const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;"
    " const context = canvas.getContext('2d'); context.drawImage(document.getElementById('%s'), 0, 0, 1, 1);"
    " return context.getImageData(0, 0, 1, 1).data[0] })()"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    if chromium.find() is None:
        pytest.skip(f"NO BROWSER: the page was not looked at; install one of {', '.join(chromium.NAMES)}")
    with chromium.browser() as started:
        yield started


class Run:
    """A run whose picture gets brighter, and that goes on until the test lets it end, or the page does."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.iteration = 0
        self.over = threading.Event()
        self.stopped = False
        self.thread = threading.Thread(target=self._work, daemon=True)
        watcher.begin("a cat in the style of <b>a rug</b>", lambda: np.full((200, 300, 3), 250, np.uint8))
        watcher.stage("Capturing content targets")
        self.thread.start()

    def _work(self) -> None:
        while not self.over.wait(0.02):
            self.iteration += 1
            picture = np.full((200, 300, 3), min(2 * self.iteration, 200), np.uint8)
            losses = {"total": 1e6 / self.iteration, "content": 100.0, "style": 1e6 / self.iteration - 99}
            self.stopped = self.watcher.update(self.iteration, 1e5, losses, partial(np.copy, picture))
            if self.watcher.wants_save():
                self.watcher.saved(f"./out_{self.iteration}.png")
            if self.stopped:
                break
        state = "stopped" if self.stopped else "done"
        self.watcher.end(state, "The picture is out.png", lambda: np.full((200, 300, 3), 255, np.uint8))
        self.watcher.close()

    def end(self) -> None:
        self.over.set()
        self.thread.join(30)


@pytest.fixture
def started() -> Iterator[tuple[Run, str]]:
    watcher = Watcher()
    with Server(page.routes(watcher)) as server:
        run = Run(watcher)
        yield run, server.address
        run.end()


def press(browser: chromium.Browser, key: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)


def test_the_picture_grows_and_the_numbers_are_told(
    browser: chromium.Browser, started: tuple[Run, str]
) -> None:
    run, address = started
    browser.visit(address, width=1280)
    browser.wait_for(SHOWN)
    first = browser.evaluate(LEVEL % "after")
    browser.wait_for(f"{LEVEL % 'after'} > {first} + 20")
    assert browser.evaluate(LEVEL % "before") > 240
    assert (
        browser.evaluate("document.getElementById('title').textContent")
        == "a cat in the style of <b>a rug</b>"
    )
    assert browser.evaluate(STATE) == "Painting"
    assert " of 100000" in browser.evaluate("document.getElementById('iteration').textContent")
    assert browser.evaluate("document.getElementById('stage').textContent") == "Capturing content targets"
    assert browser.evaluate("document.getElementById('left').textContent").split()[1] in ("s", "min", "h")
    assert browser.evaluate("document.querySelectorAll('#curves path').length") == 3
    spoken = browser.evaluate("document.getElementById('curves').getAttribute('aria-label')")
    assert spoken.startswith("The total loss went from 1,000,000 to ")
    run.end()
    browser.wait_for(f"{STATE} === 'Finished. The picture is out.png'")
    browser.wait_for(f"{LEVEL % 'after'} > 250")
    assert browser.complaints(address) == []


def test_save_now_and_stop_by_keyboard_alone(browser: chromium.Browser, started: tuple[Run, str]) -> None:
    run, address = started
    browser.visit(address, width=1280)
    browser.wait_for("!document.getElementById('save').disabled && " + SHOWN)
    order = []
    for _ in range(4):
        press(browser, "Tab", 9)
        order.append(browser.evaluate("document.activeElement.id || document.activeElement.className"))
    assert order == ["skip", "split", "save", "stop"]
    browser.evaluate("document.getElementById('save').focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, text="\r")
    browser.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", windowsVirtualKeyCode=13)
    browser.wait_for("document.querySelectorAll('#saved li').length === 1")
    assert "Saved ./out_" in browser.evaluate(STATE)
    assert not run.stopped
    browser.wait_for("!document.getElementById('stop').disabled")
    browser.evaluate("document.getElementById('stop').click()")
    browser.wait_for(f"{STATE} === 'Stopped, and kept. The picture is out.png'")
    assert run.stopped
    assert browser.evaluate("document.getElementById('stop').disabled")


def test_the_slider_uncovers_the_photograph(browser: chromium.Browser, started: tuple[Run, str]) -> None:
    _, address = started
    browser.visit(address, width=1280)
    browser.wait_for(SHOWN)
    browser.evaluate("document.getElementById('split').focus()")
    clip = "getComputedStyle(document.getElementById('after')).clipPath"
    before = browser.evaluate(clip)
    for _ in range(3):
        press(browser, "ArrowRight", 39)
    assert browser.evaluate(clip) != before
    assert browser.evaluate("document.getElementById('split').getAttribute('aria-valuetext')") == "3 percent"
    box = browser.evaluate(
        "(() => { const box = document.getElementById('before').getBoundingClientRect();"
        " return [box.x, box.y, box.width, box.height] })()"
    )
    x, y = box[0] + 0.75 * box[2], box[1] + box[3] / 2
    browser.call(
        "Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", buttons=1, clickCount=1
    )
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)
    assert browser.evaluate("Number(document.getElementById('split').value)") == pytest.approx(75, abs=1)


def test_a_second_browser_may_watch_and_closing_both_changes_nothing(
    browser: chromium.Browser, started: tuple[Run, str]
) -> None:
    run, address = started
    browser.visit(address, width=1280)
    browser.wait_for(SHOWN)
    with chromium.browser() as other:
        other.visit(address, width=390)
        other.wait_for(SHOWN)
        assert other.evaluate("run.points.length") > 0
        assert other.evaluate("run.points[0][0]") == browser.evaluate("run.points[0][0]") == 1
    browser.visit("about:blank", width=1280)
    _wait(lambda: run.watcher.viewers == 0)
    here = run.iteration
    _wait(lambda: run.iteration > here + 5)
    assert not run.stopped
    browser.visit(address, width=1280)  # and it may come back
    browser.wait_for(SHOWN)
    assert browser.evaluate("run.points[0][0]") == 1


def _wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lost_connection_is_told_and_comes_back(
    browser: chromium.Browser, started: tuple[Run, str]
) -> None:
    """As where a machine slept: the old connection is silent for ever."""
    run, address = started
    browser.visit(address, width=1280)
    browser.wait_for(SHOWN)
    browser.evaluate("source.dispatchEvent(new Event('error'))")
    browser.wait_for(f"{STATE} === 'Painting'")
    browser.evaluate("source.close(); heard = 0; window.old = source")
    browser.wait_for("source !== window.old && run.points.length > 0")
    here = run.iteration
    browser.wait_for(f"run.points[run.points.length - 1][0] > {here}")
    assert browser.evaluate("run.points[0][0]") == 1
    assert browser.evaluate("document.getElementById('stop').disabled") is False


def test_a_frame_takes_the_place_of_the_one_before_when_it_is_there(browser: chromium.Browser) -> None:
    watcher = Watcher()
    with Server(page.routes(watcher)) as server:
        for number, level in ((1, 40), (2, 200)):
            picture = np.full((20, 30, 3), level, np.uint8)
            watcher.begin(f"frame {number}", partial(np.copy, picture // 2), follows=number > 1)
            if number == 1:
                browser.visit(server.address, width=800)
            browser.wait_for(f"document.getElementById('title').textContent === 'frame {number}'")
            if number > 1:
                assert browser.evaluate(SHOWN)
                assert browser.evaluate(LEVEL % "after") == pytest.approx(40, abs=2)
            watcher.update(1, 10, {"total": 1.0}, partial(np.copy, picture))
            browser.wait_for(f"Math.abs({LEVEL % 'after'} - {level}) < 3")
            browser.wait_for(f"Math.abs({LEVEL % 'before'} - {level // 2}) < 3")
        assert browser.evaluate("run.points.length") == 1
        watcher.end("done", "")
        watcher.close()


VIEWS = {
    "desktop": (1280, False),
    "phone": (390, False),
    "small": (360, True),
    "narrow": (320, True),
    "dark": (1280, True),
}


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_fits(
    browser: chromium.Browser, started: tuple[Run, str], view: str, tmp_path: Path
) -> None:
    _, address = started
    width, dark = VIEWS[view]
    browser.visit(address, width=width, dark=dark)
    browser.wait_for(SHOWN)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('body *')].filter(each => !each.closest('.skip, svg'))"
        f".filter(each => each.getBoundingClientRect().right > {width} + 1).map(each => each.outerHTML.slice(0, 80))"
    )
    assert browser.evaluate(wide) == []
    color = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(color.strip("rgb()").split(",")[0]) < 64) == dark


def test_a_screen_reader_finds_names_for_everything(
    browser: chromium.Browser, started: tuple[Run, str]
) -> None:
    _, address = started
    browser.visit(address, width=1280)
    browser.wait_for(SHOWN)
    browser.wait_for("document.querySelectorAll('#curves path').length")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    by_role: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            by_role.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "slider", "progressbar", "image", "heading", "region", "complementary"):
        assert by_role.get(role), f"{role} not in {sorted(by_role)}"
        assert all(by_role[role]), role
    assert {"Save now", "Stop and keep"} <= set(by_role["button"])
    assert by_role["status"]


def test_a_program_that_is_gone_is_told(browser: chromium.Browser) -> None:
    watcher = Watcher()
    with Server(page.routes(watcher)) as server:
        watcher.begin("a cat")
        browser.visit(server.address, width=800)
        browser.wait_for(f"{STATE} === 'Painting'")
        watcher.end("failed", "out.png: could not be written: the disk is full")
        watcher.close()
    browser.wait_for(f"{STATE} === 'It did not work. out.png: could not be written: the disk is full'")

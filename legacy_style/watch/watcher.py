"""What a run tells the pages that show it, and what they ask of it.

The run calls `update` after every iteration, which costs it microseconds while no browser is there. A picture is taken
only where one is, at most once a second, and so seldom that taking and encoding it need less than a hundredth of the
time; it is encoded in the thread of the browser that gets it. Browsers may come and go at any time.
"""

from __future__ import annotations

import base64
import io
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from legacy_style.engine.memory import peak_memory
from legacy_style.errors import DivergenceError, OptionError
from legacy_style.programs.progress import Pace, Pixels, WorkDone

LARGEST = 1024
"""The longer side of a picture on the page."""

State = Literal["waiting", "running", "done", "stopped", "interrupted", "failed"]

_PICTURE_SECONDS = 1.0  # between two pictures, at least
_SHARE = 0.01  # of the time may go into pictures
_EVENT_SECONDS = 0.25  # between two events to one browser
_HEARTBEAT = 5.0  # seconds of silence after which an event is sent all the same: so a lost browser is noticed
_QUALITY = 92  # of its JPEG
_MOST_POINTS = 2000  # of a curve
_RECENT = 20  # iterations that the pace is taken from
_FAREWELL = 5.0  # seconds that a run which has ended waits for browsers to hear of it


@dataclass
class _WatchedRun:
    """What is known of the run that is shown; `number` tells one from the next."""

    number: int
    title: str = ""
    state: State = "waiting"
    stage: str = ""
    message: str = ""
    iteration: int = 0
    iterations: float = 0
    names: list[str] = field(default_factory=list)
    points: list[list[float]] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    remark: str = ""
    work: WorkDone | None = None
    # The last iterations, and when they were done.
    recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    follows: bool = False
    before: Callable[[], Pixels] | None = None
    stop: bool = False

    def pace(self) -> float:
        """Seconds an iteration, of the last ones; 0 where nobody can know yet."""
        if len(self.recent) < 2:
            return 0.0
        (first, began), (last, now) = self.recent[0], self.recent[-1]
        return (now - began) / (last - first) if last > first else 0.0


class Watcher:
    """One run after another, for any number of browsers. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._run = _WatchedRun(0)
        self._version = 0
        self._viewers = 0
        self._save = False
        self._closed = False
        self._extra: dict[str, Any] = {}
        self._pixels: Pixels | None = None
        self._picture = 0  # number of the picture that `_pixels` holds
        self._encoded: tuple[int, bytes] = (0, b"")
        self._before: tuple[int, bytes] = (-1, b"")
        self._cost = 0.0
        self._next_picture = 0.0
        self._pace = Pace()

    # ---- what a run calls

    def begin(
        self,
        title: str,
        before: Callable[[], Pixels] | None = None,
        *,
        follows: bool = False,
    ) -> None:
        """A run begins; `before` gives the photograph that it paints, and is called when a browser asks for it.

        `follows`: whether it goes on with the work of the run before, as the next picture of a batch or the next frame
        of a video does. What was asked of that one and is not done yet is then asked of this one.
        """
        with self._changed:
            goes_on = follows and self._run.state == "running"
            self._run = _WatchedRun(
                self._run.number + 1,
                title,
                "running",
                before=before,
                follows=follows,
                stop=goes_on and self._run.stop,
                saved=self._run.saved if goes_on else [],
                work=self._run.work if follows else None,
            )
            self._pixels, self._save, self._next_picture = None, goes_on and self._save, 0.0
            if not follows:
                self._pace = Pace()
            self._tell()

    def stage(self, text: str) -> None:
        """Say what the run is doing now."""
        with self._changed:
            self._run.stage = text
            self._tell()

    def worked(self, work: WorkDone) -> None:
        """Say how far the whole is, between two calls of `update`."""
        with self._changed:
            self._run.work = work
            self._pace.update(work, time.monotonic())
            self._tell()

    def update(
        self,
        iteration: int,
        iterations: float,
        losses: Mapping[str, float],
        picture: Callable[[], Pixels],
        keep: Callable[[], str] | None = None,
        work: WorkDone | None = None,
    ) -> bool:
        """An iteration is done, of `iterations`; `picture` gives the image, `keep` saves it and names the file.

        `work`: how far the whole is, of which this run is a part; without it, iterations are all there is to do.
        Gives whether somebody wants the run to stop.
        """
        with self._changed:
            run, now = self._run, time.monotonic()
            work = work or WorkDone((), iteration, iterations)
            run.recent.append((iteration, now))
            run.names = list(losses)
            run.iteration, run.iterations, run.work = iteration, iterations, work
            run.points.append([iteration, *losses.values()])
            self._pace.update(work, now)
            wanted = self._viewers > 0 and now >= self._next_picture
            self._tell()
        if wanted:
            self._take(picture)
        if keep is not None and self.wants_save():
            try:
                self.saved(keep())
            except (OptionError, DivergenceError) as error:
                self.remark(str(error))
        return run.stop

    def wants_save(self) -> bool:
        """Whether somebody wants the picture as it is to be saved: true once for each time that somebody asked."""
        with self._changed:
            wanted, self._save = self._save, False
        return wanted

    def saved(self, name: str) -> None:
        """A file was written."""
        with self._changed:
            self._run.saved.append(name)
            self._tell()

    def remark(self, text: str) -> None:
        """Something went wrong that does not end the run."""
        with self._changed:
            self._run.remark = text
            self._tell()

    def end(self, state: State, message: str, picture: Callable[[], Pixels] | None = None) -> None:
        """The run is over; `message` says where its picture is, or why there is none."""
        with self._changed:
            self._run.state, self._run.message = state, message
            viewed = self._viewers > 0
        pixels = picture() if picture is not None and viewed else None
        with self._changed:
            if pixels is not None:
                self._pixels = pixels
                self._picture += 1
            self._tell()

    def close(self) -> None:
        """No run follows: wait, for seconds at most, until the browsers that are there have heard of the end."""
        with self._changed:
            self._closed = True
            self._tell()
            self._changed.wait_for(lambda: self._viewers == 0, _FAREWELL)

    def _take(self, picture: Callable[[], Pixels]) -> None:
        """Keep the picture of now for the browsers."""
        began = time.monotonic()
        pixels = picture()
        spent = time.monotonic() - began
        with self._changed:
            self._pixels = pixels
            self._picture += 1
            self._next_picture = began + max(_PICTURE_SECONDS, (spent + self._cost) / _SHARE)
            self._tell()

    def _tell(self) -> None:
        self._version += 1
        self._changed.notify_all()

    # ---- what a page calls

    @property
    def viewers(self) -> int:
        """How many browsers take events now."""
        return self._viewers

    def ask(self, what: Literal["save", "stop"]) -> None:
        """Ask the run to save its picture, or to stop, after the iteration that it is in."""
        with self._changed:
            if self._run.state == "running":
                if what == "save":
                    self._save = True
                else:
                    self._run.stop = True
                self._tell()

    def show(self, **extra: Any) -> None:
        """Something else that events are to tell, as JSON can hold it."""
        with self._changed:
            self._extra |= extra
            self._tell()

    def events(self) -> Iterator[dict[str, Any]]:
        """What there is to know, then what has changed, for one browser, until `close` or until it goes away."""
        with self._changed:
            self._viewers += 1
        seen, number, sent = -1, -1, 0
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._version != seen, _HEARTBEAT)  # noqa: B023 - called at once
                    seen, run, closed = self._version, self._run, self._closed
                    sent = sent if run.number == number else 0
                    event, sent, number = self._event(run, sent), len(run.points), run.number
                if closed and run.state not in ("waiting", "running"):
                    event["last"] = self._last_picture()
                yield event
                if closed:
                    return
                time.sleep(_EVENT_SECONDS)
        finally:
            with self._changed:
                self._viewers -= 1
                self._changed.notify_all()

    def _event(self, run: _WatchedRun, sent: int) -> dict[str, Any]:
        step = -(-(len(run.points) - sent) // _MOST_POINTS) or 1
        work = run.work
        return {
            "run": run.number,
            "title": run.title,
            "state": run.state,
            "stage": run.stage,
            "message": run.message,
            "iteration": run.iteration,
            "iterations": run.iterations if math.isfinite(run.iterations) else None,
            "share": min(work.done / work.total, 1.0) if work and 0 < work.total < math.inf else 0.0,
            "pace": run.pace(),
            "left": self._pace.left,
            "memory": peak_memory(),
            "names": run.names,
            "follows": run.follows,
            "fresh": sent == 0,  # these points are the first ones
            "points": [_finite(point) for point in run.points[sent::step]],
            "saved": run.saved,
            "remark": run.remark,
            "stopping": run.stop,
            "picture": self._picture if self._pixels is not None else 0,
            "before": run.before is not None,
            **self._extra,
        }

    def picture(self) -> bytes | None:
        """The last picture that was taken, as a JPEG; None where there is none yet."""
        with self._encoding:
            with self._changed:
                number, pixels = self._picture, self._pixels
            if pixels is None:
                return None
            if self._encoded[0] != number:
                began = time.monotonic()
                self._encoded = number, encode(pixels)
                self._cost = time.monotonic() - began
            return self._encoded[1]

    def before(self) -> bytes | None:
        """The photograph that is painted, as a JPEG; None where there is none."""
        with self._encoding:
            with self._changed:
                run = self._run
            if run.before is None:
                return None
            if self._before[0] != run.number:
                self._before = run.number, encode(run.before())
            return self._before[1]

    def _last_picture(self) -> str:
        """As an address that holds it: nobody will answer for another."""
        found = self.picture()
        return "" if found is None else "data:image/jpeg;base64," + base64.b64encode(found).decode()


def encode(pixels: Pixels, largest: int = LARGEST) -> bytes:
    """A JPEG of a picture, no longer or wider than `largest` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((largest, largest), Image.Resampling.BOX, reducing_gap=None)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()


def _finite(point: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in point]

"""The live line on stderr, and what a run shows on it: iteration, total loss, seconds an iteration, time left.

There is nothing of it in the original. It is drawn over itself with a carriage return and blanks, so it needs
no terminal capabilities, and is never as wide as the terminal, where it would wrap and could not be removed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from legacy_style.programs.progress import Pace

if TYPE_CHECKING:
    from legacy_style.programs.neural_style.output import Painting

_SECONDS_BETWEEN_DRAWINGS = 0.1
_FALLBACK_COLUMNS = 80


class LiveLine:
    """The line on one stream; does nothing where `shown` is false. Call `clear` before any other output."""

    def __init__(self, stream: TextIO, shown: bool) -> None:
        self.shown = shown
        self._stream = stream
        self._length = 0
        self._drawn = -math.inf

    def show(self, parts: Callable[[], list[str]]) -> None:
        """Draw as many of `parts`, what matters most first, as there is room for, at most ten times a second."""
        now = time.monotonic()
        if not self.shown or now - self._drawn < _SECONDS_BETWEEN_DRAWINGS:
            return
        self._drawn = now
        text = fit(parts(), columns(self._stream) - 1)
        self._stream.write("\r" + text.ljust(self._length))
        self._stream.flush()
        self._length = len(text)

    def clear(self) -> None:
        """Remove the line, leaving the cursor where it began."""
        if self._length:
            self._stream.write("\r" + " " * self._length + "\r")
            self._stream.flush()
            self._length = 0


class ProgressLine(LiveLine):
    """The line of a run, or of many, one after the other."""

    def __init__(self, stream: TextIO, shown: bool) -> None:
        super().__init__(stream, shown)
        self._pace = Pace()
        self._first: Painting | None = None  # of this stage

    def update(self, progress: Painting) -> None:
        """Draw the line for an evaluation that is done."""
        if not self.shown:
            return
        if self._first is None or self._first.work.part != progress.work.part:
            self._first = progress
        first = self._first
        self._pace.update(progress.work, time.monotonic())
        self.show(lambda: describe(progress, first, self._pace.left))


def fit(parts: list[str], width: int) -> str:
    """As many of the parts as there is room for, with two blanks between; the first one cut if need be."""
    text = parts[0][: max(width, 0)]
    for part in parts[1:]:
        if len(text) + 2 + len(part) > width:
            break
        text += f"  {part}"
    return text


def describe(progress: Painting, first: Painting, left: float | None) -> list[str]:
    """The parts of the line, what matters most first.

    `first` is the first evaluation of its stage in this process, which the pace is counted from; `left`: seconds.
    """
    parts = [
        f"Iteration {progress.iteration} / {progress.num_iterations:.14g}",
        f"loss {_loss(progress.losses.total)}",
    ]
    done = progress.iteration - first.iteration
    # The first evaluation is slower than the others, so its time only counts until there is another.
    if done or left is None:
        pace = (progress.seconds - first.seconds) / done if done else progress.seconds
        parts.append(f"{pace:.3g} s/iteration" if pace < 100 else f"{pace:.0f} s/iteration")
    if left is None:
        work = progress.work
        left = progress.seconds * progress.iteration * (work.total - work.done) / work.done
    if math.isfinite(left) and left >= 0:
        parts.append(f"{duration(left)} left")
    return parts


def duration(seconds: float) -> str:
    """A time as people say it, in its two largest units."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def columns(stream: TextIO) -> int:
    """The width of the stream's terminal now; 80 where it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _FALLBACK_COLUMNS
    except (OSError, ValueError):
        return _FALLBACK_COLUMNS


def _loss(total: float) -> str:
    return f"{total:.0f}" if math.isfinite(total) and abs(total) >= 1000 else f"{total:.4g}"

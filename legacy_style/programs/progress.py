"""What every program tells of a run while it goes on, to a live line, a page or a plot; and the time that is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # --help needs no NumPy
    import numpy as np
    from numpy.typing import NDArray

Pixels: TypeAlias = "NDArray[np.uint8]"
"""(H, W, 3), RGB."""

_PARTS = 2  # the one that a run is in, and the one before it


@dataclass(frozen=True)
class WorkDone:
    """How far a run is: `done` of `total` units that take about the same time each, in the part of that number.

    Parts are the stages, pictures or frames of a run, and their numbers tell them apart. A part that ended before its
    time counts as if it had done all of its units.
    """

    part: tuple[int, ...]
    done: float
    total: float


@dataclass(frozen=True, kw_only=True)
class RunStep:
    """One iteration that is done, of `iterations`; `title`: what is painted, of a run that paints one after the other.

    `losses`: by name, the one that says most first. `picture()` is what there is now, and `keep()` writes it and gives
    the name of the file. `before()` is the photograph that is painted, where there is one.
    """

    iteration: int
    iterations: float
    losses: Mapping[str, float]
    work: WorkDone
    picture: Callable[[], Pixels] = field(compare=False, repr=False)
    keep: Callable[[], str] = field(compare=False, repr=False)
    title: str = ""
    before: Callable[[], Pixels] | None = field(default=None, compare=False, repr=False)


OnStep = Callable[[RunStep], object]
"""Is called after every iteration; the run ends where it returns something true."""


class Pace:
    """The time that is left of a run: its last two parts say how long a unit of work takes, with all between them."""

    def __init__(self) -> None:
        self._begun: deque[tuple[WorkDone, float]] = deque(maxlen=_PARTS)  # of parts, their first iteration
        self._now: tuple[WorkDone, float] | None = None

    def update(self, work: WorkDone, now: float) -> None:
        """An iteration is done at the time `now`, in seconds."""
        if not self._begun or self._begun[-1][0].part != work.part:
            self._begun.append((work, now))
        self._now = work, now

    @property
    def left(self) -> float | None:
        """Seconds; None where nobody can know yet."""
        if self._now is None:
            return None
        (first, began), (work, now) = self._begun[0], self._now
        if not first.done < work.done <= work.total < float("inf"):
            return None
        return (work.total - work.done) * (now - began) / (work.done - first.done)

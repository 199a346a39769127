"""`--watch` and `--plot`: the page of a run and the picture of its losses, for every program."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from legacy_style.cli.process import Interrupts
from legacy_style.errors import LegacyStyleError, OptionError
from legacy_style.files import reason, write_whole
from legacy_style.programs.progress import Pixels, RunStep

if TYPE_CHECKING:
    from legacy_style.watch.watcher import Watcher

AnyStep = TypeVar("AnyStep", bound=RunStep)

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Of losses by their names: (iteration, loss), in order."""


@contextlib.contextmanager
def watched(port: int | None, notice: Callable[[str], None]) -> Iterator[Watcher | None]:
    """A page at `port` (0: any) for the runs of the block; None where that is None."""
    if port is None:
        yield None
        return
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise OptionError("--watch shows a run of one process, not of several; leave it out under torchrun")
    from legacy_style.watch import page
    from legacy_style.watch.server import Server
    from legacy_style.watch.watcher import Watcher

    watcher = Watcher()
    with Server(page.routes(watcher), port) as server:
        notice(f"watch it at {server.address}")
        try:
            yield watcher
        finally:
            watcher.close()


@contextlib.contextmanager
def told_end(watcher: Watcher | None, kept: Callable[[], str] = str) -> Iterator[None]:
    """Tell the page where an error ends the run of the block, which goes on its way; `kept` names what was saved."""
    try:
        yield
    except KeyboardInterrupt:
        if watcher is not None:
            watcher.end("interrupted", f"The picture is {kept()}" if kept() else "")
        raise
    except Exception as error:
        if watcher is not None:
            known = isinstance(error, LegacyStyleError)
            watcher.end("failed", str(error) if known else "The program's terminal says why")
        raise


@contextlib.contextmanager
def plotted(path: str | None, curves: Callable[[], Curves], notice: Callable[[str], None]) -> Iterator[None]:
    """Draw the losses of the block's run into the file `path`, where that is named, however the run ends.

    Of several processes, the first one draws. Raises OptionError where `path` cannot be the name of a plot.
    """
    if not path:
        yield
        return
    from legacy_style.toolkit import lossplot  # loads Pillow

    lossplot.check_name(path)
    is_whole = False
    try:
        yield
        is_whole = True
    finally:
        found = [lossplot.LossCurve(name, points) for name, points in curves().items()]
        if lossplot.has_points(found):
            try:
                write_whole(path, lossplot.draw(found, path))
            except OSError as error:
                if is_whole:
                    raise
                notice(f"{path}: {reason(error)}")  # and the run ends as it was about to
        elif is_whole and (os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0"):
            notice(f"there is no loss above 0 to draw, so that {path} is not written")


class Show:
    """A run that tells of its steps, on the page `watcher` where there is one, and as the curves of a plot."""

    def __init__(self, watcher: Watcher | None) -> None:
        self._watcher = watcher
        self._title = ""
        self._stopped = False
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self._last = self._before = 0  # iteration of this picture; how many those before it had

    def begin(self, title: str, before: Callable[[], Pixels] | None = None) -> None:
        """The run begins, or its next picture."""
        if self._watcher is not None:
            self._watcher.begin(title, before, follows=self._title != "")
        self._title = title

    def remember(self, iteration: int, losses: Mapping[str, float]) -> None:
        """Take the losses of an iteration for the plot; it may be of an earlier process's part of the run.

        Where iterations begin anew, as they do with each frame, their curve goes on behind the last ones.
        """
        if iteration <= self._last:
            self._before += self._last
        self._last = iteration
        for name, loss in losses.items():
            self.curves.setdefault(name, []).append((self._before + iteration, loss))

    def follow(self, step: RunStep) -> bool:
        """A step is done; gives whether somebody wants the run to stop."""
        self.remember(step.iteration, step.losses)
        if self._watcher is None:
            return False
        if step.title not in ("", self._title):
            self.begin(step.title, step.before)
        self._stopped = self._watcher.update(
            step.iteration, step.iterations, step.losses, step.picture, step.keep, step.work
        )
        return self._stopped

    def after(self, first: Callable[[AnyStep], object]) -> Callable[[AnyStep], bool]:
        """What calls `first` and then `follow`."""

        def both(step: AnyStep) -> bool:
            first(step)
            return self.follow(step)

        return both

    def end(self, message: str, picture: Callable[[], Pixels] | None = None) -> None:
        """The run is over, and `message` says what there is of it."""
        if self._watcher is not None:
            self._watcher.end("stopped" if self._stopped else "done", message, picture)


@contextlib.contextmanager
def shown(
    port: int | None, plot: str | None, interrupts: Interrupts, notice: Callable[[str], None]
) -> Iterator[Show]:
    """The run of the block on a page at `port` (0: any; None: on none), and in the file `plot` if that is named."""
    with watched(port, notice) as watcher, told_end(watcher, lambda: interrupts.saved):
        show = Show(watcher)
        with plotted(plot, lambda: show.curves, notice):
            yield show

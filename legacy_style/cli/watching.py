"""`--watch`: the page of a run, for every program that can be watched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from legacy_style.errors import LegacyStyleError, OptionError

if TYPE_CHECKING:
    from legacy_style.watch.watcher import Watcher


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

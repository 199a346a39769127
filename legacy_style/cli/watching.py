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
def watched(
    port: int | None, title: str, content: str, notice: Callable[[str], None]
) -> Iterator[Watcher | None]:
    """A page at `port` (0: any) for the run of the block; None where that is None.

    `content` is the photograph that it paints. Whatever ends the block is told there, with what it says.
    """
    if port is None:
        yield None
        return
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise OptionError("--watch shows a run of one process, not of several; leave it out under torchrun")
    from legacy_style.torch7 import image
    from legacy_style.watch import page
    from legacy_style.watch.server import Server
    from legacy_style.watch.watcher import Watcher

    watcher = Watcher()
    with Server(page.routes(watcher), port) as server:
        notice(f"watch it at {server.address}")
        watcher.begin(title, lambda: image.to_bytes(image.load(content)))
        try:
            yield watcher
        except KeyboardInterrupt as interrupt:
            kept = getattr(interrupt, "path", "")
            watcher.end("interrupted", f"The picture is {kept}" if kept else "No picture was saved")
            raise
        except Exception as error:
            known = isinstance(error, LegacyStyleError)
            watcher.end("failed", str(error) if known else "The program's terminal says why")
            raise
        finally:
            watcher.close()

"""A run of neural_style.lua on a page: what its progress tells the watcher, and what the watcher asks of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.progress import Pixels
from legacy_style.torch7 import image
from legacy_style.watch.watcher import LARGEST, Watcher

if TYPE_CHECKING:
    from legacy_style.programs.neural_style.output import Painting, Result

# The first words of the lines that say what the program does, among those that it prints.
_STAGES = ("Stage", "Successfully", "Setting", "Capturing", "Running")


def begin(watcher: Watcher, options: Options, *, follows: bool = False) -> None:
    """Tell the page that a run begins; `follows` as in `Watcher.begin`."""
    photo, style = Path(options.content_image).name, Path(options.style_image).name
    watcher.begin(
        f"{photo} in the style of {style}",
        photograph(options.content_image, exif_rotate=options.exif_rotate, max_pixels=options.max_pixels),
        follows=follows,
    )


def photograph(path: str, **loading: Any) -> Callable[[], Pixels]:
    """What gives the photograph that is painted, in the size of a page; `loading`: options of `image.load_scaled`."""
    return lambda: image.to_bytes(image.load_scaled(path, LARGEST, enlarge=False, **loading))


def say(watcher: Watcher, line: str, place: str = "") -> None:
    """Tell the page what the run does, where a line that it prints says that; `place` stands before it."""
    if line.startswith(_STAGES):
        watcher.stage(place + line.strip())


def follow(watcher: Watcher, progress: Painting) -> bool:
    """Tell the page of an iteration, do what it asks for, and give whether the run is to stop."""
    losses = progress.losses
    return watcher.update(
        progress.iteration,
        progress.num_iterations,
        {"total": losses.total, "content": sum(losses.content), "style": sum(losses.style)},
        lambda: image.to_bytes(progress.picture()),
        progress.keep,
        progress.work,
    )


def finish(watcher: Watcher, result: Result, message: str) -> bool:
    """Tell the page that a run is over, and give whether it was stopped before its time."""
    watcher.end("stopped" if result.stopped else "done", message, lambda: image.to_bytes(result.image))
    return result.stopped

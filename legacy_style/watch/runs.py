"""A run of neural_style.lua on a page: what its progress tells the watcher, and what the watcher asks of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from legacy_style.errors import OptionError
from legacy_style.programs.neural_style.options import Options
from legacy_style.torch7 import image
from legacy_style.watch.watcher import Watcher

if TYPE_CHECKING:
    from legacy_style.programs.neural_style.output import Painting, Result

# The first words of the lines that say what the program does, among those that it prints.
_STAGES = ("Stage", "Successfully", "Setting", "Capturing", "Running")


def begin(watcher: Watcher, options: Options) -> None:
    """Tell the page that a run begins."""
    photo, style = Path(options.content_image).name, Path(options.style_image).name
    turn, most = options.exif_rotate, options.max_pixels
    watcher.begin(
        f"{photo} in the style of {style}",
        lambda: image.to_bytes(image.load(options.content_image, exif_rotate=turn, max_pixels=most)),
    )


def say(watcher: Watcher, line: str) -> None:
    """Tell the page what the run does, where a line that it prints says that."""
    if line.startswith(_STAGES):
        watcher.stage(line.strip())


def follow(watcher: Watcher, progress: Painting) -> bool:
    """Tell the page of an iteration, do what it asks for, and give whether the run is to stop."""
    losses = progress.losses
    told = {"total": losses.total, "content": sum(losses.content), "style": sum(losses.style)}
    stop = watcher.update(
        progress.iteration, progress.num_iterations, told, lambda: image.to_bytes(progress.picture())
    )
    if watcher.wants_save():
        try:
            watcher.saved(progress.keep())
        except OptionError as error:
            watcher.remark(str(error))
    return stop


def finish(watcher: Watcher, result: Result, message: str) -> bool:
    """Tell the page that a run is over, and give whether it was stopped before its time."""
    watcher.end("stopped" if result.stopped else "done", message, lambda: image.to_bytes(result.image))
    return result.stopped

"""`th artistic_video.lua` and `th artistic_video_multiPass.lua`: reads the command line, runs it, prints what they
print.

Notes: stdout is an interface, as that of `legacy_style.cli.neural_style`, and everything of ours goes to stderr;
torch is imported only after the command line has parsed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from legacy_style.cli import lua_program, process
from legacy_style.cli.progress import LiveLine, duration
from legacy_style.cli.watching import shown
from legacy_style.programs import common_options
from legacy_style.programs.artistic_video import options
from legacy_style.torch7 import cmdline

if TYPE_CHECKING:
    from legacy_style.programs.artistic_video.single import FrameProgress

_MEMORY_ADVICE = "choose smaller frames, a smaller -style_scale, or -optimizer adam"


def main(words: Sequence[str]) -> int:
    """Run artistic_video.lua on `words` and return the exit status."""
    return serve(options.SINGLE, words)


def serve(script: str, words: Sequence[str], called: str | None = None) -> int:
    """Run `script`, one of the two, on `words` and return the exit status; `called` is what its usage calls it."""
    name = script.removesuffix(".lua")
    return process.run(
        lambda interrupts: _main(script, words, called or sys.argv[0], interrupts),
        name,
        output="-output_folder",
        memory_advice=_MEMORY_ADVICE,
    )


def _main(script: str, words: Sequence[str], called: str, interrupts: process.Interrupts) -> int:
    name = script.removesuffix(".lua")
    try:
        parsed = options.parse(script, words, partial(process.say, name))
    except cmdline.UsageError as error:
        lua_program.print_usage_error(name, error, words, options.ORIGINAL[script], options.EXTENSIONS)
        return process.FAILED
    if parsed is None:
        lua_program.print_help(called, options.ORIGINAL[script], options.EXTENSIONS)
        return 0
    values, given = parsed
    if values["version"]:
        lua_program.print_version(name, script)
        return 0
    _run(script, values, given, interrupts)
    return 0


def _run(script: str, values: options.Values, given: frozenset[str], interrupts: process.Interrupts) -> None:
    from legacy_style.engine import machine
    from legacy_style.programs.artistic_video import multi_pass, settings, single

    interrupts.check()
    machine.keep_freed_memory()
    live = FrameLine(sys.stderr, shown=not values["no_progress"] and sys.stderr.isatty())
    port, plot = common_options.port(values["watch"]), str(values["plot"])
    with (
        lua_program.Terminal(script.removesuffix(".lua"), interrupts, live.update, live) as terminal,
        shown(port, plot, interrupts, terminal.notice) as show,
    ):
        said = {"log": terminal.log, "notice": terminal.notice, "on_saved": terminal.on_saved}
        on_progress = show.after(terminal.on_progress)
        show.begin(f"{Path(str(values['content_pattern'])).name}, painted")
        if script == options.MULTI_PASS:
            end = multi_pass.run(settings.multi_pass(values, given), **said, on_progress=on_progress)
        else:
            end = single.run(settings.single(values, given), **said, on_progress=on_progress)
        show.end(end)


class FrameLine(LiveLine):
    """The live line on stderr: frame, iteration, loss, time left."""

    def __init__(self, stream: TextIO, shown: bool) -> None:
        super().__init__(stream, shown)
        self._began = time.monotonic()
        self._first: int | None = None

    def update(self, progress: FrameProgress) -> None:
        """Draw the line for an evaluation that is done."""
        if self._first is None:
            self._first = progress.frame
        self.show(lambda: self._describe(progress))

    def _describe(self, progress: FrameProgress) -> list[str]:
        assert self._first is not None
        parts = [
            f"Frame {progress.frame} / {progress.frames}",
            f"iteration {progress.iteration} / {progress.iterations:.14g}",
            f"loss {progress.losses['total']:.4g}",
        ]
        done = progress.frame - self._first
        if done:
            pace = (self._drawn - self._began) / done
            left = duration((progress.frames - progress.frame + 1) * pace)
            parts += [f"{pace:.3g} s/frame", f"{left} left"]
        return parts

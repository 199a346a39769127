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
from typing import TYPE_CHECKING, TextIO

from legacy_style.cli import lua_program, process
from legacy_style.cli.progress import columns, duration, fit
from legacy_style.programs.artistic_video import options
from legacy_style.torch7 import cmdline

if TYPE_CHECKING:
    from legacy_style.programs.artistic_video.single import Progress

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
        heading = "Options of this version, which may stand before and between the others:"
        sys.stdout.write(f"{options.usage(script, called)}\n{heading}\n{options.extensions()}\n")
        return 0
    values, given = parsed
    if values["version"]:
        from legacy_style import __version__

        lua_program.print_line(f"{name} {__version__} (legacy-style, a port of {script})")
        return 0
    _run(script, values, given, interrupts)
    return 0


def _run(script: str, values: options.Values, given: frozenset[str], interrupts: process.Interrupts) -> None:
    from legacy_style.engine import machine
    from legacy_style.programs.artistic_video import multi_pass, settings, single

    interrupts.check()
    machine.keep_freed_memory()
    live = FrameLine(sys.stderr, shown=not values["no_progress"] and sys.stderr.isatty())

    def log(line: str) -> None:
        live.clear()
        lua_program.print_line(line)

    def notice(line: str) -> None:
        live.clear()
        process.say(script.removesuffix(".lua"), line)

    def on_progress(progress: Progress) -> None:
        interrupts.check()
        live.update(progress)

    try:
        if script == options.MULTI_PASS:
            multi_pass.run(
                settings.multi_pass(values, given), log=log, notice=notice, on_progress=on_progress
            )
        else:
            single.run(settings.single(values, given), log=log, notice=notice, on_progress=on_progress)
    finally:
        live.clear()


class FrameLine:
    """The live line on stderr: frame, iteration, loss, time left. Does nothing where `shown` is false."""

    def __init__(self, stream: TextIO, shown: bool) -> None:
        self._stream, self._shown = stream, shown
        self._length = 0
        self._began = self._drawn = time.monotonic()
        self._first: int | None = None

    def update(self, progress: Progress) -> None:
        """Draw the line for an evaluation that is done, at most ten times a second."""
        if self._first is None:
            self._first = progress.frame
        now = time.monotonic()
        if not self._shown or now - self._drawn < 0.1:
            return
        self._drawn = now
        parts = [
            f"Frame {progress.frame} / {progress.frames}",
            f"iteration {progress.iteration} / {progress.num_iterations:.14g}",
            f"loss {progress.losses.total:.4g}",
        ]
        done = progress.frame - self._first
        if done:
            pace = (now - self._began) / done
            parts += [
                f"{pace:.3g} s/frame",
                f"{duration((progress.frames - progress.frame + 1) * pace)} left",
            ]
        text = fit(parts, columns(self._stream) - 1)
        self._stream.write("\r" + text.ljust(self._length))
        self._stream.flush()
        self._length = len(text)

    def clear(self) -> None:
        """Remove the line, leaving the cursor where it began."""
        if self._length:
            self._stream.write("\r" + " " * self._length + "\r")
            self._stream.flush()
            self._length = 0

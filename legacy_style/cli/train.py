"""`th train.lua …`: reads the command line, runs programs.fast_neural_style.train, prints what the original prints.

torch is imported only after the command line has parsed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from legacy_style.cli import lua_program, process
from legacy_style.cli.progress import LiveLine, duration
from legacy_style.torch7 import cmdline

if TYPE_CHECKING:
    from legacy_style.programs.fast_neural_style.train import TrainingProgress

NAME = "train"


def main(words: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the program on `words` (the command line without its name) and return the exit status."""
    words = sys.argv[1:] if words is None else words
    program = sys.argv[0] if program is None else program
    return process.run(
        lambda interrupts: _main(words, program, interrupts),
        NAME,
        output="-checkpoint_name",
        unsaved="",
        memory_advice="choose a smaller -batch_size or --crop, or a thinner -arch",
    )


def _main(words: Sequence[str], program: str, interrupts: process.Interrupts) -> int:
    from legacy_style.programs.fast_neural_style import train_options

    try:
        parsed = train_options.parse(words)
    except cmdline.UsageError as error:
        lua_program.print_usage_error(NAME, error, words, train_options.ORIGINAL, train_options.EXTENSIONS)
        return process.FAILED
    if parsed is None:
        lua_program.print_help(program, train_options.ORIGINAL, train_options.EXTENSIONS)
        return 0
    options, action = parsed
    if action == "version":
        lua_program.print_version(NAME)
        return 0
    if action == "print-options":
        lua_program.print_options(options, train_options.ORIGINAL)
        return 0
    settings = train_options.settings(options)
    from legacy_style.engine import machine
    from legacy_style.programs.fast_neural_style.train import train

    machine.keep_freed_memory()
    live = TrainingLine(sys.stderr, shown=not options["no_progress"] and sys.stderr.isatty())
    with lua_program.Terminal(NAME, interrupts, live.update, live) as terminal:
        train(settings, log=terminal.log, notice=terminal.notice, on_progress=terminal.on_progress)
    return 0


class TrainingLine(LiveLine):
    """The line on stderr: iteration, loss, images a second, time left."""

    _first: TrainingProgress | None = None
    _began = 0.0
    _images = 0

    def update(self, done: TrainingProgress) -> None:
        """Draw the line for an iteration that is done."""
        if self._first is None:
            self._first, self._began = done, time.monotonic()
        else:
            self._images += done.images
        self.show(lambda: self._describe(done))

    def _describe(self, done: TrainingProgress) -> list[str]:
        assert self._first is not None
        parts = [f"Iteration {done.iteration} / {done.num_iterations:.14g}", f"loss {done.loss:.4g}"]
        seconds = time.monotonic() - self._began
        iterations = done.iteration - self._first.iteration
        if iterations and seconds:
            left = (done.num_iterations - done.iteration) * seconds / iterations
            parts += [f"{self._images / seconds:.3g} images/s", f"{duration(left)} left"]
        return parts

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
from legacy_style.cli.watching import shown

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

    parsed = lua_program.read(NAME, train_options, words, program)
    if isinstance(parsed, int):
        return parsed
    options, _ = parsed
    settings = train_options.settings(options)
    from legacy_style.engine import machine
    from legacy_style.programs.fast_neural_style.train import train

    machine.keep_freed_memory()
    live = TrainingLine(sys.stderr, shown=not options["no_progress"] and sys.stderr.isatty())
    kept: list[str] = []
    with (
        lua_program.Terminal(NAME, interrupts, live.update, live) as terminal,
        shown(settings.watch, settings.plot, interrupts, terminal.notice) as show,
    ):

        def on_resumed(losses: Sequence[float]) -> None:
            for number, loss in enumerate(losses, 1):
                show.remember(number, {"loss": loss})

        show.begin("A network is being trained")
        train(
            settings,
            log=terminal.log,
            notice=terminal.notice,
            on_progress=show.after(terminal.on_progress),
            on_saved=kept.append,
            on_resumed=on_resumed,
        )
        show.end(f"The network is {kept[-1]}" if kept else "No network was saved")
    return 0


class TrainingLine(LiveLine):
    """The line on stderr: iteration, loss, images a second, time left."""

    first: TrainingProgress | None = None
    _began = 0.0
    _images = 0

    def update(self, done: TrainingProgress) -> None:
        """Draw the line for an iteration that is done."""
        if self.first is None:
            self.first, self._began = done, time.monotonic()
        else:
            self._images += done.images
        self.show(lambda: self._describe(done))

    def _describe(self, done: TrainingProgress) -> list[str]:
        assert self.first is not None
        parts = [f"Iteration {done.iteration} / {done.iterations:.14g}", f"loss {done.losses['loss']:.4g}"]
        seconds = time.monotonic() - self._began
        iterations = done.iteration - self.first.iteration
        if iterations and seconds:
            left = (done.iterations - done.iteration) * seconds / iterations
            parts += [f"{self._images / seconds:.3g} images/s", f"{duration(left)} left"]
        return parts

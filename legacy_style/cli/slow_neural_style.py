"""`th slow_neural_style.lua …`: reads the command line and prints what programs.fast_neural_style.slow has to say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from legacy_style.cli import lua_program, process
from legacy_style.cli.watching import shown

NAME = "slow_neural_style"


def main(words: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the program on `words` (the command line without its name) and return the exit status."""
    words = sys.argv[1:] if words is None else words
    program = sys.argv[0] if program is None else program
    return process.run(
        lambda interrupts: _main(words, program, interrupts),
        NAME,
        memory_advice="choose a smaller -image_size or -style_image_size",
    )


def _main(words: Sequence[str], program: str, interrupts: process.Interrupts) -> int:
    from legacy_style.programs.fast_neural_style import slow_options

    parsed = lua_program.read(NAME, slow_options, words, program)
    if isinstance(parsed, int):
        return parsed
    settings = slow_options.settings(parsed[0])
    from legacy_style.engine import machine
    from legacy_style.programs.fast_neural_style import slow
    from legacy_style.watch.runs import photograph

    machine.keep_freed_memory()
    notice = partial(process.say, NAME)
    with shown(settings.watch, settings.plot, interrupts, notice) as show:
        content, style = (Path(path).name for path in (settings.content_image, settings.style_image))
        show.begin(
            f"{content} in the style of {style}",
            photograph(settings.content_image, exif_rotate=settings.exif_rotate),
        )
        saved = slow.run(
            settings,
            log=lua_program.print_line,
            notice=notice,
            on_step=show.after(lambda step: interrupts.check()),
        )
        show.end(f"The picture is {saved}" if saved else "No picture was saved")
    return 0

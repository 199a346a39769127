"""`th slow_neural_style.lua …`: reads the command line and prints what programs.fast_neural_style.slow has to say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from legacy_style.cli import lua_program, process
from legacy_style.cli.watching import shown
from legacy_style.torch7 import cmdline

NAME = "slow_neural_style"


def main(words: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the program on `words` (the command line without its name) and return the exit status."""
    words = sys.argv[1:] if words is None else words
    program = sys.argv[0] if program is None else program
    return process.run(lambda interrupts: _main(words, program, interrupts), NAME)


def _main(words: Sequence[str], program: str, interrupts: process.Interrupts) -> int:
    from legacy_style.programs.fast_neural_style import slow_options

    try:
        parsed = slow_options.parse(words)
    except cmdline.UsageError as error:
        lua_program.print_usage_error(NAME, error, words, slow_options.ORIGINAL, slow_options.EXTENSIONS)
        return process.FAILED
    if parsed is None:
        lua_program.print_help(program, slow_options.ORIGINAL, slow_options.EXTENSIONS)
        return 0
    options, action = parsed
    if action == "version":
        lua_program.print_version(NAME)
    elif action == "print-options":
        lua_program.print_options(options, slow_options.ORIGINAL)
    else:
        settings = slow_options.settings(options)
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

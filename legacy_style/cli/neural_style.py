"""The program itself: reads the command line, runs `stylize`, prints what the original prints.

Notes: stdout is an interface, flushed line by line, with the tabs that Torch's `th` adds after what Lua
prints; everything of ours goes to stderr. torch is imported only after the command line has parsed. Usage
after an error goes to stdout, the message to stderr without a line end, as in the original.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from legacy_style.cli import lua_program, process
from legacy_style.cli.progress import ProgressLine
from legacy_style.cli.watching import watched
from legacy_style.programs.neural_style import options as option_table
from legacy_style.programs.neural_style.options import CommandLine
from legacy_style.torch7 import cmdline

if TYPE_CHECKING:
    from legacy_style.programs.neural_style.output import Painting

NAME = "neural_style"


def main(words: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the program on `words` (the command line without its name) and return the exit status.

    `program` is what its usage calls it. Both are those of this process where they are not given.
    """
    words = sys.argv[1:] if words is None else words
    program = sys.argv[0] if program is None else program
    return process.run(lambda interrupts: _main(words, program, interrupts), NAME)


def _main(words: Sequence[str], program: str, interrupts: process.Interrupts) -> int:
    try:
        command = option_table.parse(words)
    except cmdline.UsageError as error:
        lua_program.print_usage_error(
            NAME, error, words, option_table.ORIGINAL, option_table.EXTENSIONS, option_table.advice
        )
        return process.FAILED
    if command is None:
        sys.stdout.write(help_text(program))
        return 0
    if command.action == "version":
        from legacy_style import __version__

        lua_program.print_line(f"{NAME} {__version__} (legacy-style, a port of neural_style.lua)")
    elif command.action == "print-options":
        lua_program.print_line(option_table.as_json(command.options))
    else:
        _work(command, interrupts)
    return 0


def _work(command: CommandLine, interrupts: process.Interrupts) -> None:
    """Do what needs torch, which is imported only here, for seconds."""
    if command.action == "list-layers":
        from legacy_style.programs.neural_style.story import list_layers

        for line in list_layers(command.options):
            lua_program.print_line(line)
    elif command.action == "print-plan":
        from legacy_style.programs.neural_style.story import plan

        lua_program.print_line(plan(command.options))
    else:
        _run(command, interrupts)


def _run(command: CommandLine, interrupts: process.Interrupts) -> None:
    from legacy_style.programs.neural_style.story import stylize
    from legacy_style.watch import runs

    interrupts.check()
    live = ProgressLine(sys.stderr, shown=command.progress and sys.stderr.isatty())

    def notice(line: str) -> None:
        live.clear()
        process.say(NAME, line)

    options = command.options
    photo, style = (Path(name).name for name in (options.content_image, options.style_image))
    try:
        with watched(
            command.watch, f"{photo} in the style of {style}", options.content_image, notice
        ) as watcher:

            def log(line: str) -> None:
                live.clear()
                lua_program.print_line(line)
                if watcher is not None:
                    runs.say(watcher, line)

            def on_progress(progress: Painting) -> bool:
                interrupts.check()
                live.update(progress)
                return watcher is not None and runs.follow(watcher, progress)

            result = stylize(options, log=log, notice=notice, on_progress=on_progress)
            if watcher is not None:
                runs.finish(watcher, result, f"The picture is {options.output_image}", options.num_iterations)
    finally:
        live.clear()


def help_text(program: str) -> str:
    """The original's usage to the letter, then our options under a heading of their own."""
    heading = "Options of this version, which may stand before and between the others:"
    extensions = "\n".join(cmdline.describe(option_table.EXTENSIONS))
    return f"{cmdline.usage(option_table.ORIGINAL, program)}\n{heading}\n{extensions}\n"

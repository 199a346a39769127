"""The program itself: reads the command line, runs `stylize`, prints what the original prints.

Notes: stdout is an interface, flushed line by line, with the tabs that Torch's `th` adds after what Lua
prints; everything of ours goes to stderr. torch is imported only after the command line has parsed. Usage
after an error goes to stdout, the message to stderr without a line end, as in the original.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from legacy_style.cli import lua_program, process
from legacy_style.cli.progress import ProgressLine
from legacy_style.cli.watching import watched
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import forks
from legacy_style.programs.neural_style import options as option_table
from legacy_style.programs.neural_style.options import CommandLine
from legacy_style.torch7 import cmdline

NAME = "neural_style"


def main(words: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the program on `words` (the command line without its name) and return the exit status.

    `program` is what its usage calls it. Both are those of this process where they are not given.
    """
    words = sys.argv[1:] if words is None else words
    program = sys.argv[0] if program is None else program
    return process.run(
        lambda interrupts: _main(words, program, interrupts), NAME, memory_advice=option_table.MEMORY_ADVICE
    )


def _main(words: Sequence[str], program: str, interrupts: process.Interrupts) -> int:
    try:
        command = option_table.parse(words)
    except cmdline.UsageError as error:
        lua_program.print_usage_error(
            NAME,
            error,
            words,
            option_table.ORIGINAL,
            option_table.EXTENSIONS,
            partial(forks.advice, words=words),
        )
        return process.FAILED
    if command is None:
        lua_program.print_help(program, option_table.ORIGINAL, option_table.EXTENSIONS)
        return 0
    if command.action == "version":
        lua_program.print_version(NAME)
    elif command.action == "print-options":
        lua_program.print_line(option_table.as_json(command.options))
    else:
        return _work(command, interrupts)
    return 0


def _work(command: CommandLine, interrupts: process.Interrupts) -> int:
    """Do what needs torch, which is imported only here, for seconds."""
    if command.action == "list-layers":
        from legacy_style.programs.neural_style.story import list_layers

        for line in list_layers(command.options):
            process.echo(line)
    elif command.action == "print-plan":
        from legacy_style.programs.neural_style.story import plan

        lua_program.print_line(plan(command.options))
    else:
        return _run(command, interrupts)
    return 0


def _run(command: CommandLine, interrupts: process.Interrupts) -> int:
    from legacy_style.cli import batch
    from legacy_style.cli.easel import Easel
    from legacy_style.engine import machine
    from legacy_style.programs.neural_style import batch as batches
    from legacy_style.programs.notices import once

    interrupts.check()
    machine.keep_freed_memory()
    options, plot = command.options, command.plot
    many = bool(command.batch or command.output_dir)
    if many and plot:
        raise OptionError(f"--plot {plot} draws one run: give --metadata, and draw with legacy-style plot")
    live = ProgressLine(sys.stderr, shown=command.progress and sys.stderr.isatty())
    with (
        lua_program.Terminal(NAME, interrupts, live.update, live) as terminal,
        watched(command.watch, terminal.notice) as watcher,
    ):
        easel = Easel(interrupts, live, once(terminal.notice) if many else terminal.notice, watcher)
        if not many:
            easel.paint(options, terminal.log, plot)
            return 0
        jobs = batches.jobs(options, command.batch, command.output_dir)
        outcomes = batch.run(jobs, command.output_dir, easel.paint_one_of, terminal.log)
        return process.FAILED if any(each.state == "failed" for each in outcomes) else 0

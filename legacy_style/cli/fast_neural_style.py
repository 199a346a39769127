"""`th fast_neural_style.lua …`: reads the command line, runs the program, prints what the original prints.

As with neural_style, stdout is an interface, flushed line by line, with the tabs that Torch's `th` adds; everything of
ours goes to stderr, and torch is imported only after the command line has parsed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from legacy_style.cli import lua_program, process
from legacy_style.programs.fast_neural_style import options as option_table
from legacy_style.torch7 import cmdline

NAME = "fast_neural_style"
SCRIPT = "fast_neural_style.lua"

_INTRODUCTION = f"""
Paints a photograph, or a folder of them, with a network that was trained for one style: a .t7 file of 2016 or one that
th train.lua wrote. For example:

  th {SCRIPT} -model candy.t7 -input_image photo.jpg -output_image painted.png
  th {SCRIPT} -model candy.t7 -input_dir frames -output_dir painted -image_size 0 -median_filter 0

What the options mean:
"""


def main(words: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the program on `words` (the command line without its name) and return the exit status.

    `program` is what its usage calls it. Both are those of this process where they are not given.
    """
    words = sys.argv[1:] if words is None else words
    program = sys.argv[0] if program is None else program
    return process.run(
        lambda interrupts: _main(words, program, interrupts),
        NAME,
        memory_advice="choose a smaller -image_size",
    )


def _main(words: Sequence[str], program: str, interrupts: process.Interrupts) -> int:
    parsed = lua_program.read(
        NAME, option_table, words, program, script=SCRIPT, advice=option_table.advice, help_text=help_text
    )
    if isinstance(parsed, int):
        return parsed
    options, action = parsed
    if action == "list-layers":
        from legacy_style.programs.fast_neural_style import run

        for line in run.list_layers(str(options["model"])):
            lua_program.print_line(line)
        return 0
    settings = option_table.settings(options)
    interrupts.check()
    from legacy_style.engine import machine
    from legacy_style.programs.fast_neural_style import run

    interrupts.check()
    machine.keep_freed_memory()
    run.run(settings, log=lua_program.print_line, notice=partial(process.say, NAME), check=interrupts.check)
    return 0


def help_text(program: str) -> str:
    """The original's usage to the letter, then what it is about and our options under headings of their own."""
    width = max(len(key) for key, _ in option_table.HELP)
    meanings = "\n".join(f"  {key:<{width}} {text}" for key, text in option_table.HELP)
    extensions = "\n".join(cmdline.describe(option_table.EXTENSIONS))
    return (
        f"{cmdline.usage(option_table.ORIGINAL, program)}{_INTRODUCTION}\n{meanings}\n\n"
        f"Options of this version:\n\n{extensions}\n"
    )

"""`th print_options.lua -model FILE`: the options that a network was trained with.

Ports jcjohnson/fast-neural-style 813c834, print_options.lua. Note: options come in the order of train.lua's own, then
any others by name; the original's came in the order of a hash table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from legacy_style.cli import lua_program, process
from legacy_style.torch7 import cmdline
from legacy_style.torch7.cmdline import Option

NAME = "print_options"

ORIGINAL = (Option("-model", "models/instance_norm/candy.t7"),)


def main(words: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run print_options.lua on `words` and return the exit status."""
    return run(words, program, NAME, "Loading model from {}\t", "{}: {}\t")


def run(words: Sequence[str] | None, program: str | None, name: str, first: str, line: str) -> int:
    """Print `first`, with the file in its place, then `line` for each option, with its name and its value."""
    words = sys.argv[1:] if words is None else words
    program = sys.argv[0] if program is None else program
    return process.run(lambda interrupts: _print(name, words, program, first, line), name)


def _print(name: str, words: Sequence[str], program: str, first: str, line: str) -> int:
    try:
        given = cmdline.parse(ORIGINAL, words)
    except cmdline.UsageError as error:
        lua_program.print_usage_error(name, error, words, ORIGINAL)
        return process.FAILED
    if given is None:
        sys.stdout.write(cmdline.usage(ORIGINAL, program))
        return 0
    path = str(given.get("-model", ORIGINAL[0].default))
    if first:
        lua_program.print_line(first.format(path))
    for key, value in _options(path).items():
        lua_program.print_line(line.format(key, _text(value)))
    return 0


def _options(path: str) -> dict[str, object]:
    """The options in a checkpoint, train.lua's own first; raises FormatError."""
    from legacy_style.errors import FormatError
    from legacy_style.formats import t7
    from legacy_style.programs.fast_neural_style import train_options

    content = t7.read(path)
    options = content.get("opt") if isinstance(content, Mapping) else None
    if not isinstance(options, Mapping):
        raise FormatError(f"{path}: holds no options; give a checkpoint that th train.lua wrote")
    known = [option.key[1:] for option in train_options.ORIGINAL]
    others = sorted(str(key) for key in options if key not in known)
    return {key: options[key] for key in [*known, *others] if key in options}


def _text(value: object) -> str:
    """A value as Lua prints it, the elements of a list with commas between; what is no text or number by its kind."""
    if isinstance(value, list):
        return ",".join("a table" if isinstance(each, list) else _text(each) for each in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.14g}"
    if isinstance(value, bool | str):
        return cmdline.tostring(value)
    return "a table" if isinstance(value, Mapping) else type(value).__name__

"""`legacy-style sheet --grid`: one picture for every combination of the values of some options."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from legacy_style.cli import batch, process
from legacy_style.cli.easel import Easel
from legacy_style.cli.progress import ProgressLine
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import options as option_table
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.notices import once
from legacy_style.torch7 import cmdline

_EXAMPLE = "give for example --grid style_weight=50,100,500"
_NOT_HERE = ("output_image", "checkpoint", "resume")
_KNOWN = {
    option.key.lstrip("-").replace("-", "_"): option
    for option in (*option_table.ORIGINAL, *option_table.EXTENSIONS)
    if option.key.lstrip("-").replace("-", "_") in vars(Options)
}


def paint(axes: Sequence[str], words: Sequence[str], folder: str) -> tuple[list[Path], int]:
    """Paint what is not there yet; gives the pictures, and how many of them could not be painted.

    `axes`: NAME=V,V texts; `words`: a command line of neural_style.lua. Each picture has its record with it.
    """
    command = option_table.parse(words)
    if command is None or command.action != "run" or command.batch or command.output_dir:
        raise OptionError("--grid: behind the two dashes stand the options of one run of neural_style.lua")
    jobs = combinations(command.options, [_axis(text) for text in axes], folder)
    live = ProgressLine(sys.stderr, shown=command.progress and sys.stderr.isatty())

    def log(line: str) -> None:
        live.clear()
        process.echo(line)

    def notice(line: str) -> None:
        live.clear()
        process.say("legacy-style", line)

    try:
        easel = Easel(process.Interrupts(), live, once(notice), None)
        outcomes = batch.run(jobs, folder, easel.paint_one_of, log)
    finally:
        live.clear()
    made = [Path(each.path) for each in outcomes if each.state != "failed"]
    return made, len(outcomes) - len(made)


def combinations(options: Options, axes: Sequence[tuple[str, list[str]]], folder: str) -> list[Options]:
    """The options of every combination of values, the last axis changing fastest. Raises OptionError."""
    result = []
    for values in itertools.product(*(values for _, values in axes)):
        words = [
            word for (name, _), value in zip(axes, values, strict=True) for word in (_KNOWN[name].key, value)
        ]
        parsed = cmdline.parse(tuple(_KNOWN.values()), words) or {}
        changes = {key.lstrip("-").replace("-", "_"): value for key, value in parsed.items()}
        parts = [f"{name}_{Path(value).stem}" for (name, _), value in zip(axes, values, strict=True)]
        path = str(Path(folder) / ("_".join(parts) + ".png"))
        result.append(options.changed(**changes, output_image=path, metadata=True))
    return result


def _axis(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    name = name.lstrip("-").replace("-", "_")
    found = [value for value in values.split(",") if value]
    if not equals or not found:
        raise OptionError(f"--grid {text}: there are no values; {_EXAMPLE}")
    if name not in _KNOWN or name in _NOT_HERE or isinstance(_KNOWN[name].default, bool):
        raise OptionError(f"--grid {text}: {name!r} is no option that can have several values; {_EXAMPLE}")
    if len(set(found)) < len(found):
        raise OptionError(f"--grid {text}: a value stands there twice; {_EXAMPLE}")
    return name, found

"""What entry points of Torch7 programs share: lines as `th` printed them, usage, help, and options as JSON.

Notes: stdout is an interface, flushed line by line; everything of ours goes to stderr. After an error in the words
the usage goes to stdout and the message to stderr without a line end, as in the original; what we know to write
instead is a line of its own behind it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from legacy_style.cli import hints, process
from legacy_style.cli.progress import LiveLine
from legacy_style.torch7 import cmdline
from legacy_style.torch7.cmdline import Option, Value

Done = TypeVar("Done")
"""What a program tells of its progress."""


def print_line(line: str) -> None:
    """One line to stdout, whole and at once, for those who read it while the program runs."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Terminal(Generic[Done]):
    """Where a program speaks while it runs: the original's lines, remarks of ours, a live line that gives way to both.

    `name` stands before remarks. To be used as a context, at whose end the live line is gone.
    """

    def __init__(
        self, name: str, interrupts: process.Interrupts, update: Callable[[Done], None], live: LiveLine
    ) -> None:
        self.name, self.interrupts, self.update, self.live = name, interrupts, update, live

    def __enter__(self) -> Terminal[Done]:
        return self

    def __exit__(self, *_: object) -> None:
        self.live.clear()

    def log(self, line: str) -> None:
        self.live.clear()
        print_line(line)

    def notice(self, line: str) -> None:
        self.live.clear()
        process.say(self.name, line)

    def on_progress(self, done: Done) -> None:
        self.interrupts.check()
        self.update(done)

    def on_saved(self, path: str) -> None:
        self.interrupts.saved = path


class OptionTable(Protocol):
    """A program's module of options."""

    @property
    def ORIGINAL(self) -> Sequence[Option]: ...  # a module's constant

    @property
    def EXTENSIONS(self) -> Sequence[Option]: ...

    def parse(self, words: Sequence[str]) -> tuple[dict[str, Value], str] | None: ...


def read(
    name: str,
    table: OptionTable,
    words: Sequence[str],
    program: str,
    *,
    script: str = "",
    advice: Callable[[str], str | None] | None = None,
    help_text: Callable[[str], str] | None = None,
) -> tuple[dict[str, Value], str] | int:
    """The options that `words` give, and what is to be done with them; or, where all is said already, the exit status.

    Wrong words, help, `--version` and `--print-options` are answered here; `help_text` in place of the usual one.
    """
    try:
        parsed = table.parse(words)
    except cmdline.UsageError as error:
        print_usage_error(name, error, words, table.ORIGINAL, table.EXTENSIONS, advice)
        return process.FAILED
    if parsed is None and help_text:
        sys.stdout.write(help_text(program))
    elif parsed is None:
        print_help(program, table.ORIGINAL, table.EXTENSIONS)
    elif parsed[1] == "version":
        print_version(name, script)
    elif parsed[1] == "print-options":
        print_options(parsed[0], table.ORIGINAL)
    else:
        return parsed
    return 0


def print_usage_error(
    name: str,
    error: cmdline.UsageError,
    words: Sequence[str],
    original: Sequence[Option],
    extensions: Sequence[Option] = (),
    advice: Callable[[str], str | None] | None = None,
) -> None:
    """What CmdLine:error prints, whose print('') gives a tab under `th`; then what to use instead, where it is known.

    `advice` says that for an option of another program.
    """
    message = str(error)
    print_line("\t")
    sys.stderr.write(process.plain(message))
    sys.stderr.flush()
    print_line("\t")
    sys.stdout.write(cmdline.usage(original))
    sys.stdout.flush()
    known = advice(message.removeprefix("invalid argument: ")) if advice else None
    keys = [option.key for option in (*original, *extensions)]
    hint = known or hints.after_usage_error(message, words, keys)
    if hint:
        sys.stderr.write("\n")
        process.say(name, hint)


def print_help(program: str, original: Sequence[Option], extensions: Sequence[Option]) -> None:
    """The original's usage to the letter, then our options under a heading of their own."""
    ours = "\n".join(cmdline.describe(extensions))
    heading = "Options of this version, which may stand before and between the others:"
    sys.stdout.write(f"{cmdline.usage(original, program)}\n{heading}\n{ours}\n")


def print_options(options: Mapping[str, Value], original: Sequence[Option]) -> None:
    """The original's options as one JSON object on one line; what JSON has no number for is text."""
    print_line(json.dumps({option.key[1:]: _plain(options[option.key[1:]]) for option in original}))


def print_version(name: str, script: str = "") -> None:
    """The version of this package, and which program was asked, a port of `script`."""
    from legacy_style import __version__

    print_line(f"{name} {__version__} (legacy-style, a port of {script or name + '.lua'})")


def _plain(value: Value) -> Value | int:
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) <= 2**53 else value
    return str(value) if isinstance(value, float) else value

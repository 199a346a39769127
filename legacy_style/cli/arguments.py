"""Command lines that argparse reads: what our own options share, and what a shortened word means.

As argparse has it, an option may be shortened to what tells it from all others. Note: an option of ours counts only
where no older one begins with the word, so that `--t 100` stays --tv-weight though there is a --tile.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

from legacy_style.cli import process
from legacy_style.errors import OptionError
from legacy_style.programs import common_options


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line behind the usage, whatever was typed."""

    def error(self, message: str) -> NoReturn:
        super().error(process.plain(message))


def add_run_options(group: argparse._ActionsContainer, due: str) -> None:
    """Add --tile, --print-plan, --checkpoint, --resume, --watch and --plot; `due` says when a checkpoint is written."""
    group.add_argument(
        "--tile",
        type=_side,
        default=0,
        metavar="SIDE",
        help="side of the tiles that a large image is worked in (default 0: chosen where it needs tiles)",
    )
    group.add_argument(
        "--print-plan", action="store_true", help="print what the run would do and need, and do nothing"
    )
    group.add_argument(
        "--checkpoint", metavar="FILE", help=f"keep the state of the run in this file {due}, and on Ctrl-C"
    )
    group.add_argument("--resume", metavar="FILE", help="a file of --checkpoint to go on from")
    group.add_argument(
        "--watch", nargs="?", const=0, type=_port, metavar="PORT", help=_lower(common_options.WATCH.help)
    )
    group.add_argument("--plot", metavar="FILE", help=_lower(common_options.PLOT.help))


def _lower(text: str) -> str:
    return text[0].lower() + text[1:].removesuffix("; -1: do not")


def _port(text: str) -> int | None:
    try:
        return common_options.port(float(text))
    except (ValueError, OptionError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no port; give 0 to 65535, or nothing for any"
        ) from None


def _side(text: str) -> int:
    side = int(text)
    if side < 0:
        raise argparse.ArgumentTypeError(f"{side} is less than 0; give for example 512")
    return side


def expand(words: Sequence[str], older: Iterable[str], all_names: Iterable[str]) -> Iterator[str]:
    """`words`, with those in full that are short for one of the `older` options alone."""
    older, known = list(older), set(all_names)
    for word in words:
        name, equals, value = word.partition("=")
        meant = [each for each in older if each.startswith(name)] if len(name) > 2 else []
        yield meant[0] + equals + value if len(meant) == 1 and name not in known else word


def names(parser: argparse.ArgumentParser) -> list[str]:
    """The long names of a parser's options, those of its commands included."""
    found = {}
    for action in parser._actions:
        found.update(dict.fromkeys(name for name in action.option_strings if name.startswith("--")))
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found.update(dict.fromkeys(names(command)))
    return list(found)

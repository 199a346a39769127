"""`legacy-style …` as its users call it, in this process."""

from __future__ import annotations

import sys

import click
from click.testing import CliRunner, Result

from legacy_style.cli.legacy_style import main


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def _door(words: tuple[str, ...]) -> None:
    sys.exit(main(words))


def legacy_style(*words: object) -> Result:
    """What the command with these words prints, and its exit status; an error that is no sentence is raised."""
    return CliRunner().invoke(_door, [str(word) for word in words], catch_exceptions=False)

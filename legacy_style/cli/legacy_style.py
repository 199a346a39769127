"""`legacy-style COMMAND …`: the door to everything around the programs.

COMMANDS is the list of what there is. A command is loaded when it is called, so `--help` answers at once. It is a
click command, or a function that takes the words after the command's name; either returns its exit status, or None
for 0, and leaves errors to this door.
"""

from __future__ import annotations

import difflib
import importlib
import io
import sys
from collections.abc import Callable, Sequence

import click

from legacy_style import __version__
from legacy_style.cli import hints, process

NAME = "legacy-style"

# Name: (module and attribute, below legacy_style.cli; what it does, for --help).
COMMANDS = {
    "studio": ("tools.studio:main", "Paint photographs from a page in the browser."),
    "paint": ("tools.paint:paint", "Paint a photograph, or a folder of them, in about a second each."),
    "video": ("video:video", "Paint a video, steadily, with its sound."),
    "flow": ("video:flow", "Make optical flow and masks for artistic_video.lua."),
    "consistency": ("video:consistency", "Make the mask of where a flow can be trusted."),
    "models": ("tools.models:main", "List the model files that are known, fetch them, check them."),
    "inspect": ("tools.inspect:main", "Show what is in a model file."),
    "diff": ("tools.inspect:diff", "Compare the weights of two model files."),
    "convert": ("tools.convert:main", "Convert a model file to another format, and prove it equal."),
    "normalise": ("tools.normalise:main", "Rescale a network to mean activations of 1, as Gatys et al. did."),
    "style-dataset": (
        "tools.style_dataset:style_dataset",
        "Make the HDF5 file that th train.lua reads from folders of images.",
    ),
    "compare": ("tools.compare:main", "Compare pictures with what was published, recorded or made before."),
    "colors": ("tools.colors:main", "Give an image the colours of another one."),
    "plot": ("tools.plot:main", "Draw the losses of pictures that were made with --metadata."),
    "sheet": ("tools.sheet:main", "Put many results on one sheet, or paint a grid of settings."),
    "benchmark": (
        "tools.benchmark:main",
        "Measure how fast this machine is, and how much memory a run takes.",
    ),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words` name (this process's own if not given), and return the exit status."""
    given = sys.argv[1:] if words is None else list(words)
    return process.run(
        lambda interrupts: _call(given), NAME, output="", memory_advice="choose a smaller image", unsaved=""
    )


def _call(words: list[str]) -> int:
    """Not by click's own main, which has other exit statuses for interrupts and broken pipes."""
    try:
        with _GROUP.make_context(NAME, words, obj=tuple(words)) as context:
            return int(_GROUP.invoke(context) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        _show(error)
        if hint := hints.of_words(words):
            process.say(NAME, hint)
        return error.exit_code


def _show(error: click.ClickException) -> None:
    """What click shows of an error, whose last line is one whatever was typed."""
    shown = io.StringIO()
    error.show(shown)
    usage, label, _ = shown.getvalue().partition("Error: ")
    print(f"{usage}{label}{process.plain(error.format_message())}", file=sys.stderr, flush=True)


class _Commands(click.Group):
    """The group of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        found = getattr(importlib.import_module(f"legacy_style.cli.{module}"), attribute)
        return found if isinstance(found, click.Command) else _as_command(name, found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, 1) or ["--help"]
            ctx.fail(f"there is no command {args[0]!r}; try {NAME} {near[0]}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _as_command(name: str, function: Callable[[list[str]], int]) -> click.Command:
    """A command whose function reads its words itself, --help too."""

    @click.command(name, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> int:
        return function(list(words))

    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def _GROUP() -> None:
    """What belongs to the Torch7 style programs: their model files, comparisons and measurements.

    The programs themselves: th neural_style.lua -help, neural-style-athalye --help. Every command below has a
    --help of its own.
    """


if __name__ == "__main__":
    sys.exit(main())

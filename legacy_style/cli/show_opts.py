"""`th scripts/show_opts.lua -model FILE`: the options that a network was trained with, as a command line has them.

Ports jcjohnson/fast-neural-style 813c834, scripts/show_opts.lua.
"""

from __future__ import annotations

from collections.abc import Sequence

from legacy_style.cli import print_options


def main(words: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the script on `words` (the command line without its name) and return the exit status."""
    return print_options.run(words, program, "show_opts", "", "-{}\t{}\t")

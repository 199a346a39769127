"""`th SCRIPT.lua …`: stands where Torch's launcher stood, and serves the scripts in SCRIPTS by their name alone.

With any other script, or none, it hands over to the next `th` on PATH, which may be the real one. So it does with the
names that many projects gave to a script of theirs; they are served where there is no other `th`.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from legacy_style.cli import process

# Script: module below legacy_style.cli. Its `main` gets the words after the script's name.
SCRIPTS = {
    "neural_style.lua": "neural_style",
    "fast_neural_style.lua": "fast_neural_style",
    "artistic_video.lua": "artistic_video",
    "artistic_video_multiPass.lua": "artistic_video_multi_pass",
    "train.lua": "train",
    "slow_neural_style.lua": "slow_neural_style",
    "print_options.lua": "print_options",
    "show_opts.lua": "show_opts",
}

COMMON = {"train.lua", "print_options.lua", "show_opts.lua"}

# Scripts of forks, which are not served, and what does their work; the command line is translated.
ADVICE = {
    "neural_style_multires.lua": "neural_style.lua has --stages for a list of sizes",
    "neural_style_seg.lua": "neural_style.lua has --content-regions and --style-regions for the two segmentations",
}


def main() -> int:
    """Run `th`; returns the exit status, or does not return where another `th` takes over."""
    words = sys.argv[1:]
    script = Path(words[0]).name if words else ""
    module = SCRIPTS.get(script)
    if module is None or (script in COMMON and next_on_path(sys.argv[0], os.environ.get("PATH", ""))):
        return process.run(lambda interrupts: hand_over(words), "th")
    status: int = importlib.import_module(f"legacy_style.cli.{module}").main(words[1:])
    return status


def hand_over(words: Sequence[str]) -> int:
    """Become the next `th` on PATH; where there is none, say what is served here."""
    other = next_on_path(sys.argv[0], os.environ.get("PATH", ""))
    if other is not None:
        sys.stdout.flush()
        os.execv(other, [other, *words])
    process.say("th", refusal(words))
    return process.FAILED


def refusal(words: Sequence[str]) -> str:
    """Why `words` cannot be run here, and what can."""
    asked = f"{words[0]} is not served" if words else "no script was named"
    advice = ADVICE.get(Path(words[0]).name, "") if words else ""
    if advice:
        from legacy_style.programs.neural_style import forks

        translated = shlex.join(forks.translated(words[1:]))
        advice = f". Instead, {advice}: th neural_style.lua {translated}".rstrip()
    first = next(iter(SCRIPTS))
    return (
        f"{asked}, and there is no other th on PATH; this th runs {', '.join(SCRIPTS)} (th {first} -help)"
        + advice
    )


def next_on_path(this: str, path: str) -> str | None:
    """The first executable `th` after our own on PATH, or the first of all where ours is not on it.

    Only those after ours, so that the `th` of two installations of this package never call each other in
    turn.
    """
    candidates = [Path(folder or ".") / "th" for folder in path.split(os.pathsep)]
    candidates = [each for each in candidates if each.is_file() and os.access(each, os.X_OK)]
    own = [Path(this).exists() and each.samefile(this) for each in candidates]
    after = len(own) - own[::-1].index(True) if True in own else 0
    return next((str(each) for each in candidates[after:]), None)

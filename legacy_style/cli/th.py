"""`th neural_style.lua …`: stands where Torch's launcher stood, and serves that one script.

With any other script, or none, it hands over to the next `th` on PATH, which may be the real one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from legacy_style.cli import neural_style, process

SCRIPT = "neural_style.lua"


def main() -> int:
    """Run `th`; returns the exit status, or does not return where another `th` takes over."""
    words = sys.argv[1:]
    if words and Path(words[0]).name == SCRIPT:
        return neural_style.main(words[1:])
    return process.run(lambda interrupts: hand_over(words), "th")


def hand_over(words: Sequence[str]) -> int:
    """Become the next `th` on PATH; where there is none, say what is served here."""
    other = next_on_path(sys.argv[0], os.environ.get("PATH", ""))
    if other is not None:
        sys.stdout.flush()
        os.execv(other, [other, *words])
    asked = f"{words[0]} is not served" if words else "no script was named"
    print(
        f"th: {asked}: this th runs only {SCRIPT} (th {SCRIPT} -help), and there is no other th on PATH",
        file=sys.stderr,
    )
    return process.FAILED


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

"""Every entry point: the only place that prints usage, exits, or catches the root of the errors.

`neural_style` is the program, `th` stands for Torch's launcher, and `main` here is the checkout's script
neural_style.py, a name that two programs had: the options say which of the two is meant.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from legacy_style.programs.neural_style import options

# The options of anishathalye/neural-style and its 2017 fork; argparse also takes what they begin with.
_ATHALYE = """
    beta1 beta2 checkpoint-iterations checkpoint-output content content-weight content-weight-blend eps
    flavour initial initial-noiseblend iterations learning-rate network output overwrite pooling
    preserve-colors print-iterations progress-plot progress-write seed style-blend-weights
    style-layer-weight-exp style-scales style-weight styles tv-weight width
"""


def main() -> int:
    """`python neural_style.py …`, in either dialect; returns the exit status."""
    name = "athalye" if is_athalye(sys.argv[1:]) else "neural_style"
    status: int = importlib.import_module(f"legacy_style.cli.{name}").main()
    return status


def is_athalye(words: Sequence[str]) -> bool:
    """Whether a command line is one of anishathalye/neural-style: options of its, none of the original's.

    Words that both programs know (`--help`) or neither (`--image_size`) decide nothing; then it is ours.
    """
    if any(option.key in words for option in options.ORIGINAL):
        return False
    ours = {option.key for option in options.EXTENSIONS}
    names = {word.partition("=")[0] for word in words if word.startswith("--")} - ours
    return any(len(name) > 2 and known.startswith(name[2:]) for name in names for known in _ATHALYE.split())

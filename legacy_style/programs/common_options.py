"""Options of ours that several programs have, each declared once."""

from __future__ import annotations

import math

from legacy_style.errors import OptionError
from legacy_style.torch7.cmdline import Option, Value

VERSION = Option("--version", False, "Print the version, then exit")
PRINT_OPTIONS = Option(
    "--print-options", False, "Print the options as one JSON object, then exit; nothing is opened"
)
NO_PROGRESS = Option("--no-progress", False, "No live line on stderr, even if it is a terminal")
WATCH = Option(
    "--watch",
    -1.0,
    "Show the run on a page for a browser on this machine, [at a port]; -1: do not",
    implied=0.0,
)
PLOT = Option("--plot", "", "Draw the losses into this file, an .svg or a .png")


def port(value: Value) -> int | None:
    """The port that --watch names, 0 for any; None where there is to be no page. Raises OptionError."""
    number = float(value)
    if number == -1:
        return None
    if not math.isfinite(number) or number != int(number) or not 0 <= number < 2**16:
        raise OptionError(f"--watch takes a whole number of 0 to 65535, the port, not {number:.14g}.")
    return int(number)

"""`python -m legacy_style …`: the program, under another name."""

from __future__ import annotations

import sys

from legacy_style.cli import neural_style

if __name__ == "__main__":
    sys.exit(neural_style.main(program="python -m legacy_style"))

"""What is said to the user: remarks, which a program hands to a `notice` of its caller, and why something failed."""

from __future__ import annotations

import os
from collections.abc import Callable

from legacy_style import files
from legacy_style.errors import LegacyStyleError


def once(notice: Callable[[str], None]) -> Callable[[str], None]:
    """`notice` for lines that it was not told before: each of many pictures, or stages, would tell them again."""
    told: set[str] = set()

    def tell(line: str) -> None:
        if line not in told:
            told.add(line)
            notice(line)

    return tell


def why(error: Exception, *, elsewhere: str = "choose another place", memory_advice: str) -> str | None:
    """One sentence or two for an error that a user can cause, None for any other.

    `elsewhere`: what to do where a disk is full, besides making room; `memory_advice` where memory is.
    """
    if isinstance(error, LegacyStyleError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{files.reason(error, elsewhere)}"
    # torch raises RuntimeError where an allocation fails, on the CPU and on a GPU, and where a number is too large.
    words = str(error).lower()
    if isinstance(error, RuntimeError) and "without overflow" in words:
        return "a weight or the learning rate is far too large: single precision ends at 3.4e38; choose a smaller one"
    refused = isinstance(error, RuntimeError) and ("allocate memory" in words or "out of memory" in words)
    if isinstance(error, MemoryError) or refused:
        return f"not enough memory; {memory_advice}"
    return None

"""Remarks to the user, which every program hands to a `notice` of its caller."""

from __future__ import annotations

from collections.abc import Callable


def once(notice: Callable[[str], None]) -> Callable[[str], None]:
    """`notice` for lines that it was not told before: each of many pictures, or stages, would tell them again."""
    told: set[str] = set()

    def tell(line: str) -> None:
        if line not in told:
            told.add(line)
            notice(line)

    return tell

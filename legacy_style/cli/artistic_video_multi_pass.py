"""`th artistic_video_multiPass.lua`, which shares all but its options and its story with artistic_video.lua."""

from __future__ import annotations

from collections.abc import Sequence

from legacy_style.cli import artistic_video
from legacy_style.programs.artistic_video import options


def main(words: Sequence[str]) -> int:
    """Run artistic_video_multiPass.lua on `words` and return the exit status."""
    return artistic_video.serve(options.MULTI_PASS, words)

"""How steady a painted video is: what changes between a frame and its warped predecessor where nothing moved in
between.

The measure of Ruder, Dosovitskiy and Brox (2016, section 5.3): the mean squared difference over the pixels whose
flow can be trusted, and here of all pairs of frames without a cut. Colours count from 0 to 1, so 0 is perfectly
steady.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from legacy_style.programs.artistic_video.consistency import Mask
from legacy_style.programs.artistic_video.flo import Flow
from legacy_style.programs.artistic_video.warp import is_outside, warp
from legacy_style.programs.video.motion import FlowBetween, motion
from legacy_style.programs.video.source import Picture


@dataclass
class SteadinessMeter:
    """Adds up over pairs of frames; `value` is nan before the first."""

    squares: float = 0.0
    weight: float = 0.0

    def add(self, before: Picture, now: Picture, flow: Flow, mask: Mask) -> None:
        """Take in two painted frames; flow and mask are those of the unpainted ones, from `now` back."""
        fetched = warp(before.transpose(2, 0, 1) / 255, flow)
        squares = np.square(now.transpose(2, 0, 1) / 255 - fetched).mean(axis=0)
        # The mask is smoothed, so it is not quite 0 where something comes from outside.
        weights = np.where(is_outside(flow), 0, mask / 255)
        self.squares += float((squares * weights).sum())
        self.weight += float(weights.sum())

    @property
    def value(self) -> float:
        return self.squares / self.weight if self.weight else float("nan")


def measure(pairs: Iterable[tuple[Picture, Picture]], flow: FlowBetween) -> float:
    """The mean squared difference of a painted video; `pairs` are its source's frames and its own."""
    meter = SteadinessMeter()
    before: tuple[Picture, Picture] | None = None
    for content, painted in pairs:
        if before is not None:
            moved = motion(flow, before[0], content)
            if not moved.is_cut:
                meter.add(before[1], painted, moved.flow, moved.mask)
        before = content, painted
    return meter.value

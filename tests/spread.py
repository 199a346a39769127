"""How far two correct processors may be apart in each recording: reads what measure_spread.py has measured.

A tolerance is one of these distances, or the least that stands beside the comparison, whichever is larger. They
were measured with roundings that count eight times, so two real processors stay well within them, and a
mistake, which does not shrink with the roundings, shows. A run is compared evaluation by evaluation for as long
as roundings stay small in it; once they have grown beyond `CHAOS`, losses say nothing more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from recordings import SHIPPED

SPREAD = SHIPPED / "spread.json"
VIDEO_SPREAD = SHIPPED.parent / "artistic-videos" / "spread.json"

MARGIN = 3
"""So many times the largest measured distance is allowed. Where it is more than roundings, a unit has switched; which
one switches, and when, is chance, and the original is one more processor."""

CHAOS = 1e-2
"""Relative to the total loss: where roundings have moved a loss this far, it is compared no more."""

LEVELS, SHARE = 2, 0.05
"""An image that roundings change by more levels, or in a larger share of its values, is not compared."""


_SAME = (1, 0.001)
"""What images of videos may differ by in any case: the original with two threads differs by as much."""


@dataclass(frozen=True)
class RunSpread:
    """`losses`: relative to the total, by printed evaluation, never less than at an earlier one, as far as they say
    anything; `printed`: how many there are; `downhill`: how far the total went down with any roundings, where it
    went down by 1 without, as logarithms; `images`: largest difference in levels of 256 and share of values that
    differ, by name, of those that are compared."""

    losses: list[float]
    printed: int
    downhill: float
    images: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class EvaluationSpread:
    """Losses relative to themselves, and gradients (relative L2)."""

    losses: float
    gradient: float


@dataclass(frozen=True)
class TraceSpread:
    """By evaluation; x after one own step, in units of the largest, and after the last, in Caffe units."""

    evaluations: dict[int, EvaluationSpread]
    first_step: float
    last_step: float


@dataclass(frozen=True)
class VideoSpread:
    """By frame and evaluation: losses relative to themselves, and gradients relative to their largest value; images
    as in RunSpread. Of a descent, as many evaluations as say anything."""

    losses: dict[str, float]
    gradients: dict[str, float]
    images: dict[str, tuple[int, float]]


@lru_cache
def _measured(path: Path = SPREAD) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(path.read_text())
    return measured


def of_run(name: str) -> RunSpread:
    """Of a recorded run that was measured; KeyError otherwise."""
    return _run(_measured()[f"run:{name}"])


def of_video_run(name: str) -> RunSpread:
    """Of a recorded run of artistic_video.lua that was measured; KeyError otherwise."""
    return _run(_measured(VIDEO_SPREAD)[f"run:{name}"], _SAME)


def of_video_trace(name: str) -> VideoSpread:
    """Of a recorded trace of artistic_video.lua; KeyError where there is none."""
    found = _measured(VIDEO_SPREAD)[f"trace:{name}"]
    losses: dict[str, float] = {}
    largest: dict[
        str, float
    ] = {}  # so far, of each descent: what roundings have moved, later evaluations inherit
    for where, each in found["losses"].items():
        descent = where.rpartition(" ")[0]
        largest[descent] = max(each, 0 if descent.endswith("recorded") else largest.get(descent, 0))
        if largest[descent] <= CHAOS:
            losses[where] = MARGIN * largest[descent]
    gradients = {where: MARGIN * each for where, each in found["gradients"].items()}
    return VideoSpread(losses, gradients, _images(found["images"], _SAME))


def _images(
    found: dict[str, tuple[int, float]], least: tuple[int, float] = (0, 0)
) -> dict[str, tuple[int, float]]:
    """Levels and shares of the images that are compared; `least`: what is allowed where less was measured."""
    return {
        image: (max(levels, least[0]), max(MARGIN * share, least[1]))
        for image, (levels, share) in found.items()
        if levels <= LEVELS and share <= SHARE
    }


def _run(found: dict[str, Any], least: tuple[int, float] = (0, 0)) -> RunSpread:
    losses: list[float] = []
    for each in found["losses"]:
        largest = max([each, *losses[-1:]])
        if largest > CHAOS:
            break
        losses.append(largest)
    images = _images(found["images"], least)
    return RunSpread([MARGIN * each for each in losses], len(found["losses"]), found["downhill"], images)


def of_trace(name: str) -> TraceSpread:
    """Of a recorded trace; KeyError where there is none."""
    found = _measured()[f"trace:{name}"]
    evaluations = {
        int(number): EvaluationSpread(MARGIN * each["losses"], MARGIN * each["gradient"])
        for number, each in found["evaluations"].items()
    }
    return TraceSpread(evaluations, MARGIN * found["first step"], MARGIN * found["last step"])

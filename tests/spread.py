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
from typing import Any

from recordings import SHIPPED

SPREAD = SHIPPED / "spread.json"

MARGIN = 3
"""So many times the largest measured distance is allowed. Where it is more than roundings, a unit has switched; which
one switches, and when, is chance, and the original is one more processor."""

CHAOS = 1e-2
"""Relative to the total loss: where roundings have moved a loss this far, it is compared no more."""

LEVELS, SHARE = 2, 0.05
"""An image that roundings change by more levels, or in a larger share of its values, is not compared."""


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


@lru_cache
def _measured() -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(SPREAD.read_text())
    return measured


def of_run(name: str) -> RunSpread:
    """Of a recorded run that was measured; KeyError otherwise."""
    found = _measured()[f"run:{name}"]
    losses: list[float] = []
    for each in found["losses"]:
        largest = max([each, *losses[-1:]])
        if largest > CHAOS:
            break
        losses.append(largest)
    images = {
        image: (levels, MARGIN * share)
        for image, (levels, share) in found["images"].items()
        if levels <= LEVELS and share <= SHARE
    }
    return RunSpread([MARGIN * each for each in losses], len(found["losses"]), found["downhill"], images)


def of_trace(name: str) -> TraceSpread:
    """Of a recorded trace; KeyError where there is none."""
    found = _measured()[f"trace:{name}"]
    evaluations = {
        int(number): EvaluationSpread(MARGIN * each["losses"], MARGIN * each["gradient"])
        for number, each in found["evaluations"].items()
    }
    return TraceSpread(evaluations, MARGIN * found["first step"], MARGIN * found["last step"])

"""Differences between arrays of ours and recorded ones, as the sentences that a stage reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from recorded_runs import Difference

Array = np.ndarray[Any, Any]


def equal(stage: str, ours: Any, theirs: Array) -> Iterator[Difference]:
    ours = np.asarray(ours).reshape(theirs.shape)
    if not np.array_equal(ours, theirs):
        yield Difference(
            stage, f"{np.mean(ours != theirs):.1%} differ, by up to {np.abs(ours - theirs).max()}"
        )


def close(
    stage: str, what: str, ours: Array | torch.Tensor, theirs: Array, tolerance: float
) -> Iterator[Difference]:
    """Relative L2 difference."""
    distance = apart(np.asarray(ours).reshape(theirs.shape), theirs)
    if not distance <= tolerance:
        yield Difference(stage, f"{what}: {distance:.1e} apart (relative L2), allowed {tolerance:.1e}")


def apart(ours: Array, theirs: Array) -> float:
    """Relative L2 difference."""
    distance = _norm(ours - theirs)
    return distance / _norm(theirs) if distance else 0.0


def within(stage: str, what: str, ours: Array, theirs: Array, tolerance: float) -> Iterator[Difference]:
    """Largest difference, in units of the largest value."""
    apart = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not apart <= tolerance:
        yield Difference(stage, f"{what}: {apart:.1e} of the largest value apart, allowed {tolerance}")


def _norm(array: Array) -> float:
    return float(np.linalg.norm(np.asarray(array, np.float64)))

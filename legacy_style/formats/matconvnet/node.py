"""A layer as a MatConvNet file has it; fields hold one number for all axes, one per axis, or one per side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


@dataclass
class Node:
    """The fields of a layer's struct (SimpleNN) or of its block (DAG), and its weights in order."""

    name: str
    type: str
    inputs: list[str]
    outputs: list[str]
    fields: dict[str, Any]
    weights: list[NDArray[Any]]

    def pair(self, name: str) -> Pair:
        """(down, across) of a field that has one number for both, two, or none: 1."""
        values = self._integers(name) or [1]
        return max(values[0], 1), max(values[-1], 1)

    def quad(self, name: str) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of a field that has one number for all, four, or none: 0."""
        values = self._integers(name) or [0]
        four = values if len(values) == 4 else [values[0]] * 4
        return max(four[0], 0), max(four[1], 0), max(four[2], 0), max(four[3], 0)

    def number(self, name: str, default: float) -> float:
        """A field's first number; `default` where it has none, or none that is finite."""
        values = self._numbers(name)
        return float(values[0]) if values.size and math.isfinite(values[0]) else default

    def _integers(self, name: str) -> list[int]:
        values = self._numbers(name)
        return [int(n) for n in values] if np.isfinite(values).all() else []

    def _numbers(self, name: str) -> NDArray[Any]:
        """The numbers of a field, none where it is missing or something else."""
        values = self.fields.get(name)
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
            return values.ravel()
        return np.empty(0)

"""Plain values that options are turned into, without torch, so that a command line is read in no time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Distance = Literal["L2", "L1", "SmoothL1"]
StyleTarget = Literal["gram", "mean"]


@dataclass(frozen=True)
class Layers:
    """The layers that a loss looks at, by the names that were given (`16`, `3-2`), and how much each weighs."""

    weights: Mapping[str, float]


@dataclass(frozen=True)
class Architecture:
    """What `architecture.build` makes a network from: the options of train.lua of the same names."""

    arch: str = "c9s1-32,d64,d128,R128,R128,R128,R128,R128,u64,u32,c9s1-3"
    padding_type: str = "reflect-start"
    use_instance_norm: bool = True
    tanh_constant: float = 150.0
    tv_strength: float = 1e-6


@dataclass(frozen=True)
class Crops:
    """How squares are cut from photographs: their side in pixels, and a photograph's shorter side in units of that."""

    size: int
    smallest: float = 1.0
    largest: float = 2.5

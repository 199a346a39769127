"""How fast a trained network runs here: the program's forward pass and the plain modules, in turn.

Plain is the network as one would write it: torch.nn.Sequential in PyTorch's own layout, under no_grad. Both run in this
process, whose allocator keeps freed memory, which helps the plain modules too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from legacy_style.engine import machine
from legacy_style.formats import t7
from legacy_style.programs.fast_neural_style import architecture, network
from legacy_style.programs.fast_neural_style.forward import Forward
from legacy_style.programs.fast_neural_style.values import Architecture


@dataclass(frozen=True)
class Speed:
    """Seconds a pass, medians; `times`: how many times as fast as the plain modules, and as those in channels-last."""

    ours: float
    plain: float
    channels_last: float
    times: float
    times_channels_last: float


def default_network() -> nn.Module:
    """The network of train.lua's defaults, with random weights."""
    # Padded by what five residual blocks crop, at a quarter of the size.
    return nn.Sequential(nn.ReflectionPad2d(40), *architecture.build(Architecture())).eval()


def measure(model: str | None, height: int, width: int, rounds: int) -> Speed:
    """Time `rounds` passes of each way on the CPU; `model`: a checkpoint, or None for `default_network`."""
    machine.keep_freed_memory()
    net = default_network() if model is None else network.from_checkpoint(t7.read(model), model).network
    x = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0)).mul_(60)
    ways: list[Callable[[], Tensor]] = [
        _pass(Forward(net, torch.device("cpu")), x),
        _pass(net, x),
        _pass(net, x.contiguous(memory_format=torch.channels_last)),
    ]
    rows = []
    with torch.no_grad():
        for _ in range(rounds + 1):
            rows.append([seconds(way) for way in ways])
    rows = rows[1:]  # the first round warms up caches and allocators
    ours, plain, channels_last = (statistics.median(column) for column in zip(*rows, strict=True))
    times = [statistics.median(row[other] / row[0] for row in rows) for other in (1, 2)]
    return Speed(ours, plain, channels_last, *times)


def _pass(way: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    return lambda: way(x)


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began

"""Instance norm of channels-last feature maps on the CPU, in place, with what stands behind it in the same step.

PyTorch's own makes a copy in another layout first, and passes over the maps once for each of: mean and variance, norm,
ReLU, sum. Here the maps are read twice and written once, a block of rows that fits into the cache at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_ELEMENTS = 2**18
"""About so many values are worked on at a time."""


def instance_norm_(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, relu: bool = False, plus: Tensor | None = None
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias of each map of x (1, C, H, W), channels-last, into x.

    The variance is biased. weight, bias: (C,). Afterwards `relu` sets what is negative to 0, or `plus`, of the shape of
    x, is added. Moments are float32 within a block of rows and float64 over all blocks.
    """
    mean, variance = _moments(x)
    scale = weight.double() / (variance + eps).sqrt()
    # The mean first: of nearly equal values, the differences are exact.
    center = mean.to(x.dtype)
    shift = bias.double() - (mean - center) * scale
    center, factor, offset = (each.to(x.dtype).view(1, -1, 1, 1) for each in (center, scale, shift))
    for rows in _blocks(x):
        block = x[:, :, rows]
        block -= center
        torch.addcmul(offset, block, factor, out=block)
        if relu:
            block.relu_()
        if plus is not None:
            block += plus[:, :, rows]
    return x


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each map, (C,), float64 (Chan, Golub and LeVeque's sum over parts).

    Not PyTorch's batch norm statistics, whose running float32 sums are a digit less exact than Tensor.sum.
    """
    counts, means, squares = [], [], []
    for rows in _blocks(x):
        flat = x[0, :, rows].flatten(1).T  # (pixels, C), contiguous
        mean = flat.sum(0) / len(flat)
        deviation = flat - mean
        counts.append(len(flat))
        means.append(mean)
        squares.append(deviation.mul_(deviation).sum(0))
    shares = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    each = torch.stack(means).double()
    mean = (shares * each).sum(0)
    within = torch.stack(squares).double().sum(0) / sum(counts)
    return mean, within + (shares * (each - mean).square()).sum(0)


def _blocks(x: Tensor) -> Iterator[slice]:
    height = x.shape[2]
    step = max(_ELEMENTS // (x.shape[1] * x.shape[3]), 1)
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))

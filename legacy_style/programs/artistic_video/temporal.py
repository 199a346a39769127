"""The loss that holds a frame to its warped predecessors.

Ports manuelruder/artistic-videos 40e7447, nn.WeightedContentLoss (Ruder, Dosovitskiy and Brox 2016, eq. 7). Notes:
with s = sqrt(weights), the loss is the mean of (s x - s target)^2 over all 3HW values, known or not; its gradient
lacks the last factor s, a slip that every published video was made with.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from legacy_style.engine.losses import NORM_EPSILON, Loss
from legacy_style.engine.tiles import Rectangle

Criterion = Literal["mse", "smoothl1"]


class TemporalLoss(Loss):
    """An image loss: strength * mean((s x - s target)^2), with the gradient strength * 2/N * (s x - s target).

    `target` (3, H, W): the warped predecessor in Caffe units; `weights` (1 or 3, H, W): how far it is known, 0..1. With
    criterion "smoothl1", squares are those of small differences alone: .5 d^2 below 1, |d| - .5 above, whose gradient
    is d between -1 and 1. With `normalize`, the gradient is divided by its L1 norm before the strength is applied.
    """

    def __init__(
        self,
        name: str,
        target: Tensor,
        weights: Tensor,
        *,
        strength: float,
        criterion: Criterion = "mse",
        normalize: bool = False,
    ) -> None:
        super().__init__(name)
        self.roots = weights.sqrt().expand(target.shape).unsqueeze(0)  # s, (1, 3, H, W)
        self.target = target.unsqueeze(0) * self.roots
        self.strength, self.criterion, self.normalize = strength, criterion, normalize
        self._total: float | Tensor = 0.0
        self._norm: float | Tensor = 0.0

    def begin(self) -> None:
        self._total = self._norm = 0.0

    def accumulate(self, x: Tensor, where: Rectangle) -> None:
        difference = self._difference(x, where)
        # Summed in double, as all our losses are.
        if self.criterion == "mse":
            self._total = self._total + difference.square().sum(dtype=torch.float64)
        else:
            size = difference.abs()
            values = torch.where(size < 1, 0.5 * size * size, size - 0.5)
            self._total = self._total + values.sum(dtype=torch.float64)
        if self.normalize:
            self._norm = self._norm + self._slope(difference).abs().sum(dtype=torch.float64)

    def sums(self) -> list[Tensor]:
        """The sum of squares, and with `normalize` the L1 norm of the gradient without its strength."""
        return [each for each in (self._total, self._norm) if isinstance(each, Tensor)]

    def finish(self, sums: list[Tensor]) -> bool:
        total, *norm = sums
        self.value = self.strength * total / self.target.numel()
        if norm:
            self._norm = norm[0]
        return False

    def backward(self, x: Tensor, grad: Tensor, where: Rectangle) -> None:
        slope = self._slope(self._difference(x, where))
        scale = self.strength / (self._norm + NORM_EPSILON) if self.normalize else self.strength
        grad.add_(slope.mul_(scale))

    def _difference(self, x: Tensor, where: Rectangle) -> Tensor:
        """s x - s target, of x's shape."""
        (top, bottom), (left, right) = where
        part = (..., slice(top, bottom), slice(left, right))
        return x * self.roots[part] - self.target[part]

    def _slope(self, difference: Tensor) -> Tensor:
        """The derivative of the mean by s x; overwrites `difference`."""
        count = self.target.numel()
        if self.criterion == "mse":
            return difference.mul_(2.0 / count)
        return difference.clamp_(-1, 1).div_(count)

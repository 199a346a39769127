"""The loss that holds a frame to its warped predecessors.

Ports manuelruder/artistic-videos 40e7447, nn.WeightedContentLoss (Ruder, Dosovitskiy and Brox 2016, eq. 7). Notes:
with s = sqrt(weights), the loss is the mean of (s x - s target)^2 over all 3HW values, known or not; its gradient
lacks the last factor s, a slip that every published video was made with.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Criterion = Literal["mse", "smoothl1"]

NORM_EPSILON = 1e-8  # added to the L1 norm under -normalize_gradients


class TemporalLoss:
    """strength * mean((s x - s target)^2), and the gradient strength * 2/N * (s x - s target).

    `target` (3, H, W): the warped predecessor in Caffe units; `weights` (1 or 3, H, W): how far it is known, 0..1.
    With criterion "smoothl1", squares are those of small differences alone: .5 d^2 below 1, |d| - .5 above, whose
    gradient is d between -1 and 1. With `normalize`, the gradient is divided by its L1 norm before the strength is
    applied. `loss` is the value at the last image.
    """

    def __init__(
        self,
        target: Tensor,
        weights: Tensor,
        *,
        strength: float,
        criterion: Criterion = "mse",
        normalize: bool = False,
    ) -> None:
        self.roots = weights.sqrt().expand(target.shape).unsqueeze(0)  # s, (1, 3, H, W)
        self.target = target.unsqueeze(0) * self.roots
        self.strength, self.criterion, self.normalize = strength, criterion, normalize
        self.loss = 0.0

    def backward(self, x: Tensor, grad: Tensor) -> None:
        """Set `loss` at the image x (1, 3, H, W) and add the gradient there to `grad`, in place."""
        difference = x * self.roots - self.target
        count = difference.numel()
        if self.criterion == "mse":
            # Summed in double, as all our losses are.
            self.loss = self.strength * difference.square().sum(dtype=torch.float64).item() / count
            slope = difference.mul_(2.0 / count)
        else:
            size = difference.abs()
            values = torch.where(size < 1, 0.5 * size * size, size - 0.5)
            self.loss = self.strength * values.sum(dtype=torch.float64).item() / count
            slope = difference.clamp_(-1, 1).div_(count)
        scale = self.strength
        if self.normalize:
            scale /= slope.abs().sum(dtype=torch.float64).item() + NORM_EPSILON
        grad.add_(slope, alpha=scale)

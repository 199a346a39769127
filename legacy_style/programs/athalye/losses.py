"""The losses in which anishathalye/neural-style differs from neural_style.lua. Ports d0a1148, stylize.py."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from legacy_style.engine.losses import Loss, StyleLoss, pixels_around
from legacy_style.engine.tiles import Rectangle


class SeparateStyleLoss(StyleLoss):
    """A StyleLoss that adds up blend_weight_i * mean((G - G_i)^2): each style image keeps its own target.

    Where weights add up to 1, the gradient is that of the blended target, and the value larger by what the
    style images differ among themselves.
    """

    def __init__(self, name: str, strength: float) -> None:
        super().__init__(name, strength)
        self.targets: list[tuple[float, Tensor]] = []  # blend_weight_i, G_i

    def keep(self, gram: Tensor) -> None:
        self.targets.append((self.blend_weight, gram))

    def compare(self, gram: Tensor) -> tuple[Tensor, Tensor]:
        differences = [(weight, gram - target) for weight, target in self.targets]
        squares = torch.stack([weight * difference.square().sum() for weight, difference in differences])
        return squares.sum(), torch.stack([weight * difference for weight, difference in differences]).sum(0)

    def forget(self) -> None:
        self.targets = []


class MeanTVLoss(Loss):
    """strength * (mean of squared differences downwards + mean of those to the right), and its gradient.

    An image loss. Unlike TVLoss, it counts every pair of neighbours, and its strength does not depend on the image's
    size.
    """

    reach = 1

    def __init__(self, name: str, strength: float) -> None:
        super().__init__(name)
        self.strength = strength
        self._sums: list[Tensor] = []  # of squares and of pairs downwards, then to the right

    def accumulate(self, x: Tensor, where: Rectangle) -> None:
        self._sums = []
        for _, difference in _differences(x, where):
            squares = difference.square().sum(dtype=torch.float64)
            self._sums += [squares, torch.full_like(squares, difference.numel())]

    def sums(self) -> list[Tensor]:
        return self._sums

    def finish(self, sums: list[Tensor]) -> bool:
        # An image of one row has no mean.
        self._counts = [torch.where(count > 0, count, math.nan) for count in sums[1::2]]
        down, right = (
            self.strength * squares / count for squares, count in zip(sums[::2], self._counts, strict=True)
        )
        self.value = down + right
        return False

    def backward(self, x: Tensor, grad: Tensor, where: Rectangle) -> None:
        for (axis, difference), count in zip(_differences(x, where), self._counts, strict=True):
            difference *= 2 * self.strength / count
            own = _own(grad, where, axis)
            n = difference.shape[axis]
            own.narrow(axis, 1, n).add_(difference)
            own.narrow(axis, 0, n).sub_(difference)


def _differences(x: Tensor, where: Rectangle) -> Iterator[tuple[int, Tensor]]:
    """The axis, and the differences to the lower neighbours of all own pixels that have one; then to the right ones."""
    return ((axis, _own(x, where, axis).diff(dim=axis)) for axis in (2, 3))


def _own(x: Tensor, where: Rectangle, axis: int) -> Tensor:
    """The own pixels of x and, along `axis`, one more where there is one."""
    above, left = pixels_around(where, MeanTVLoss.reach)
    (top, bottom), (first, last) = where
    height, width = bottom - top + (axis == 2), last - first + (axis == 3)
    return x[:, :, above : above + height, left : left + width]

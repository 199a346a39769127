"""The modules of an image transformation network that torch.nn does not have, as torch.nn modules.

Ports jcjohnson/fast-neural-style 813c834 (InstanceNormalization, ShaveImage, TotalVariation) and torch/nn 8726825
(MulConstant, ConcatTable, CAddTable, View). All other modules of such a network are torch.nn's own: Conv2d for
nn.SpatialConvolution, ConvTranspose2d for nn.SpatialFullConvolution, ReflectionPad2d, ReplicationPad2d, Upsample,
ReLU, Tanh, Identity. Modules keep Torch7's structure, so that `model[10][0][0][3]` is what Lua calls
`model:get(11):get(1):get(1):get(4)`. Feature maps are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.torch7 import nn

INSTANCE_NORM_EPS = 1e-5
"""What nn.InstanceNormalization adds to a variance where its file does not say otherwise."""


class CrossMapLRN(torch.nn.Module):
    """Local response normalisation over channels, as nn.SpatialCrossMapLRN has it."""

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self._layer = nn.cross_map_lrn("", size, alpha, beta, k)

    def forward(self, x: Tensor) -> Tensor:
        return self._layer.forward(x)


class InstanceNormalization(torch.nn.Module):
    """Each map of each image minus its mean, over its standard deviation (biased), times `weight`, plus `bias`.

    weight, bias: (channels,). A new one has random weights from [0, 1), as Torch7's norms have. Unlike
    torch.nn.InstanceNorm2d it accepts a map of one pixel, which becomes `bias`, and works alike in training and
    evaluation.
    """

    def __init__(self, channels: int, eps: float = INSTANCE_NORM_EPS) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = torch.nn.Parameter(torch.rand(channels))
        self.bias = torch.nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] == 1:  # F.instance_norm refuses it
            return (x - x) * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return F.instance_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps:g}"


class BatchNormalization(torch.nn.BatchNorm2d):
    """A batch norm that sums as Torch7 did.

    PyTorch's CPU kernel for maps that lie channels last adds up in single precision, value by value: means are then
    30 times less exact, the gradients of weights 50 times, and a training leaves the original's after ten iterations.
    Contiguous maps are summed in double precision, as in Torch7.
    """

    def forward(self, input: Tensor) -> Tensor:
        inexact = self.training and input.device.type == "cpu"
        return super().forward(input.contiguous() if inexact else input)


class ShaveImage(torch.nn.Module):
    """Crop `size` pixels from each side."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x if self.size == 0 else x[:, :, self.size : -self.size, self.size : -self.size]

    def extra_repr(self) -> str:
        return str(self.size)


class TotalVariation(torch.nn.Module):
    """The identity; its backward pass adds the gradient of a total variation loss, which itself is never computed.

    As in the original, the loss is half the squared differences to the right and lower neighbours of all pixels but
    those of the last row and column, summed over the batch, times `strength`.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        if self.strength == 0 or not torch.is_grad_enabled():
            return x
        result: Tensor = _TotalVariation.apply(x, self.strength)  # type: ignore[no-untyped-call]
        return result

    def extra_repr(self) -> str:
        return f"{self.strength:g}"


class _TotalVariation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        corner = x[:, :, :-1, :-1]
        right = corner - x[:, :, :-1, 1:]
        down = corner - x[:, :, 1:, :-1]
        total = torch.zeros_like(x)
        total[:, :, :-1, :-1] += right + down
        total[:, :, :-1, 1:] -= right
        total[:, :, 1:, :-1] -= down
        return grad + total.mul_(ctx.strength), None


class MulConstant(torch.nn.Module):
    """Multiply by a number."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return x * self.constant

    def extra_repr(self) -> str:
        return f"{self.constant:g}"


class ConcatTable(torch.nn.ModuleList):
    """Hands its input to each of its modules; returns the list of their outputs."""

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        super().__init__(modules)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [module(x) for module in self]


class CAddTable(torch.nn.Module):
    """The sum of a list of tensors of one shape."""

    def forward(self, xs: list[Tensor]) -> Tensor:
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        return total


class View(torch.nn.Module):
    """Each image of a batch as a vector, columns fastest, channels slowest."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


_TORCH7_NAMES: Mapping[type[torch.nn.Module], str] = {
    torch.nn.Conv2d: "SpatialConvolution",
    torch.nn.ConvTranspose2d: "SpatialFullConvolution",
    torch.nn.BatchNorm2d: "SpatialBatchNormalization",
    torch.nn.MaxPool2d: "SpatialMaxPooling",
    torch.nn.AvgPool2d: "SpatialAveragePooling",
    torch.nn.ReflectionPad2d: "SpatialReflectionPadding",
    torch.nn.ReplicationPad2d: "SpatialReplicationPadding",
    torch.nn.ZeroPad2d: "SpatialZeroPadding",
    torch.nn.Upsample: "SpatialUpSamplingNearest",
    torch.nn.Softmax: "SoftMax",
}


def torch7_name(module: torch.nn.Module) -> str:
    """What Torch7's nn calls the class of a module."""
    known = (_TORCH7_NAMES[kind] for kind in type(module).__mro__ if kind in _TORCH7_NAMES)
    return next(known, type(module).__name__)

"""The layers of nn that a Caffe network is made of, each with an explicit gradient with respect to its input.

Ports torch/nn 8726825: SpatialConvolution, ReLU, SpatialMaxPooling, SpatialAveragePooling, SpatialCrossMapLRN, Tanh,
Sigmoid, View, Linear, Dropout, SoftMax; and adds what Caffe has and loadcaffe had not: grouped and dilated convolution,
deconvolution, PReLU, negative slopes, AbsVal, Power, LRN within channels, BatchNorm and Scale.

As in nn, a layer has `forward(x)` and `backward(x, y, grad)`, which is updateGradInput: weights are never trained.
`grad` belongs to the layer once it is handed over. Notes: ReLU works in place, so what stands before it sees its
output afterwards; Dropout does nothing, as in evaluation; pooling follows Caffe's sizes (ceil) unless told otherwise.
Feature maps are (1, C, H, W) float32, channels-last where the device likes that; a fully connected layer has (1, N).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.torch7.windows import Window as Window

Pair = tuple[int, int]
"""(vertical, horizontal), as in PyTorch; nn's constructors and printouts have the horizontal number first."""

aten = torch.ops.aten


POINT = (Window(), Window())


class Layer:
    """One layer; `name` is Caffe's, `windows` what it looks at, (vertical, horizontal), None for everything."""

    windows: tuple[Window, Window] | None = POINT

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.device = torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError(f"{type(self).__name__} has no forward")

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        """The gradient with respect to x, given that with respect to y; `grad` may be overwritten."""
        raise AssertionError(f"{type(self).__name__} has no backward")

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Move the weights to `device`, and compute there in `dtype`."""
        self.device = device


class SpatialConvolution(Layer):
    """Convolution, perhaps with the ReLU that follows it (`rectify`) in the same step.

    weight: (out, in / groups, kH, kW), bias: (out,) or None. Whoever knows faster ways on a device sets `forwards` and
    `backwards` after `to`.
    """

    rectify = False

    def __init__(
        self,
        name: str,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: Pair = (1, 1),
        pad: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> None:
        super().__init__(name)
        self.weight, self.bias = weight, bias
        self.stride, self.pad, self.dilation, self.groups = stride, pad, dilation, groups
        self.windows = (
            Window(weight.shape[2], stride[0], pad[0], dilation[0]),
            Window(weight.shape[3], stride[1], pad[1], dilation[1]),
        )
        # The second argument is whether to rectify.
        self.forwards: Callable[[Tensor, bool], Tensor] | None = None
        # The second argument is y where the gradient counts only where y > 0.
        self.backwards: Callable[[Tensor, Tensor | None], Tensor] | None = None

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().to(device, dtype)
        layout = torch.channels_last
        self.weight = self.weight.to(device, dtype).contiguous(memory_format=layout)
        self.bias = None if self.bias is None else self.bias.to(device, dtype)
        self.forwards = self.backwards = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if self.forwards is not None:
            return self.forwards(x, self.rectify)
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.pad, self.dilation, self.groups)
        return y.relu_() if self.rectify else y

    def backward(self, x: Tensor, y: Tensor, grad: Tensor, *, masked: bool = False) -> Tensor:
        """`masked`: whether `grad` is 0 already where y is not above 0."""
        rectify = self.rectify and not masked
        if self.backwards is not None:
            return self.backwards(grad, y if rectify else None)
        if rectify:
            grad = mask(grad, y)
        result: Tensor = aten.convolution_backward(
            grad.to(self.weight.dtype),
            x.to(self.weight.dtype),
            self.weight,
            None,
            self.stride,
            self.pad,
            self.dilation,
            False,
            [0, 0],
            self.groups,
            [True, False, False],
        )[0]
        return result

    def __str__(self) -> str:
        out, inside = self.weight.shape[0], self.weight.shape[1] * self.groups
        text = f"nn.SpatialConvolution({inside} -> {out}, {self.weight.shape[3]}x{self.weight.shape[2]}"
        if self.stride != (1, 1) or self.pad != (0, 0):
            text += f", {self.stride[1]},{self.stride[0]}"
        if self.pad != (0, 0):
            text += f", {self.pad[1]},{self.pad[0]}"
        return text + (")" if self.bias is not None else ") without bias")


def mask(grad: Tensor, y: Tensor) -> Tensor:
    """`grad` where y > 0, elsewhere 0, in place."""
    result: Tensor = aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)
    return result


class SpatialFullConvolution(Layer):
    """Deconvolution, the transpose of a convolution; weight: (in, out / groups, kH, kW), as Caffe and nn have it."""

    windows = None

    def __init__(
        self,
        name: str,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: Pair,
        pad: Pair,
        dilation: Pair,
        groups: int,
    ) -> None:
        super().__init__(name)
        self.weight, self.bias = weight, bias
        self.stride, self.pad, self.dilation, self.groups = stride, pad, dilation, groups

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().to(device, dtype)
        self.weight = self.weight.to(device, dtype)
        self.bias = None if self.bias is None else self.bias.to(device, dtype)

    def size(self, axis: int, n: int) -> int:
        """The length of an output axis (0: vertical, 1: horizontal) for an input axis of n."""
        extent = (self.weight.shape[2 + axis] - 1) * self.dilation[axis] + 1
        return (n - 1) * self.stride[axis] - 2 * self.pad[axis] + extent

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(
            x.to(self.weight.dtype),
            self.weight,
            self.bias,
            self.stride,
            self.pad,
            0,
            self.groups,
            self.dilation,
        )

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        return F.conv2d(grad, self.weight, None, self.stride, self.pad, self.dilation, self.groups)

    def __str__(self) -> str:
        inside, out = self.weight.shape[0], self.weight.shape[1] * self.groups
        text = f"nn.SpatialFullConvolution({inside} -> {out}, {self.weight.shape[3]}x{self.weight.shape[2]}"
        text += f", {self.stride[1]},{self.stride[0]}"
        if self.pad != (0, 0):
            text += f", {self.pad[1]},{self.pad[0]}"
        return text + (")" if self.bias is not None else ") without bias")


class ReLU(Layer):
    """max(x, 0) in place, as nn.ReLU(true): y *is* x afterwards."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        return mask(grad, y)

    def __str__(self) -> str:
        return "nn.ReLU"


class Pooling(Layer):
    """What both kinds of pooling share; `ceil` rounds sizes up, as Caffe does."""

    kind = ""

    def __init__(
        self, name: str, kernel: Pair, stride: Pair, pad: Pair = (0, 0), *, ceil: bool = True
    ) -> None:
        super().__init__(name)
        self.kernel, self.stride, self.pad, self.ceil = kernel, stride, pad, ceil
        self.windows = (
            Window(kernel[0], stride[0], pad[0], ceil=ceil),
            Window(kernel[1], stride[1], pad[1], ceil=ceil),
        )

    def __str__(self) -> str:
        text = f"nn.Spatial{self.kind}Pooling({self.kernel[1]}x{self.kernel[0]}, {self.stride[1]},{self.stride[0]}"
        return text + (f", {self.pad[1]},{self.pad[0]})" if self.pad != (0, 0) else ")")


class SpatialMaxPooling(Pooling):
    """The largest value of each window; among equals the first counts for the gradient.

    `rectified`: whether x is what a ReLU left. Whoever knows a faster way back on a device then sets `backwards`, which
    takes x and the gradient by y, and does the ReLU's part of the way too.
    """

    kind = "Max"
    rectified = False
    backwards: Callable[[Tensor, Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self._pool(x)[0]

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        return (self.backwards or self.by_indices)(x, grad)

    def by_indices(self, x: Tensor, grad: Tensor) -> Tensor:
        """`backward`. Which element was largest is found again: to remember it would take a quarter of all memory."""
        result: Tensor = aten.max_pool2d_with_indices_backward(
            grad, x, self.kernel, self.stride, self.pad, (1, 1), self.ceil, self._pool(x)[1]
        )
        return result

    def _pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, indices = aten.max_pool2d_with_indices(x, self.kernel, self.stride, self.pad, (1, 1), self.ceil)
        return y, indices


class SpatialAveragePooling(Pooling):
    """The mean of each window; padding counts as zeros, what lies beyond it does not count."""

    kind = "Average"

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel, self.stride, self.pad, self.ceil)

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        result: Tensor = aten.avg_pool2d_backward(
            grad, x, self.kernel, self.stride, self.pad, self.ceil, True, None
        )
        return result


class GlobalPooling(Layer):
    """Pooling over the whole feature map (Caffe's global_pooling); `maximum` or the mean."""

    windows = None

    def __init__(self, name: str, *, maximum: bool) -> None:
        super().__init__(name)
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        if not self.maximum:
            return x.mean((2, 3), keepdim=True)
        flat = x.flatten(2)
        y, self._indices = flat.max(2, keepdim=True)
        return y.unsqueeze(3)

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        if not self.maximum:
            return (grad / (x.shape[2] * x.shape[3])).expand_as(x).clone()
        return torch.zeros_like(x).flatten(2).scatter_(2, self._indices, grad.flatten(2)).view(x.shape)

    def __str__(self) -> str:
        return f"nn.Global{'Max' if self.maximum else 'Average'}Pooling"


class Linear(Layer):
    """y = W x + b of all of x, (1, N); weight: (out, in), bias: (out,) or None."""

    windows = None

    def __init__(self, name: str, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(name)
        self.weight, self.bias = weight, bias

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().to(device, dtype)
        # Float32 at least, as losses are: products of so many values need the digits.
        dtype = torch.promote_types(dtype, torch.float32)
        self.weight = self.weight.to(device, dtype)
        self.bias = None if self.bias is None else self.bias.to(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        return grad @ self.weight

    def __str__(self) -> str:
        return f"nn.Linear({self.weight.shape[1]} -> {self.weight.shape[0]})"


class View(Layer):
    """Feature maps (1, C, H, W) as (1, C*H*W), in Caffe's order: columns fastest, channels slowest."""

    windows = None

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        return grad.view(x.shape)

    def __str__(self) -> str:
        return "nn.View(-1)"


class Dropout(Layer):
    """Nothing, as in evaluation; the original left it in training mode, where it drew random masks."""

    def __init__(self, name: str, p: float) -> None:
        super().__init__(name)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        return grad

    def __str__(self) -> str:
        return f"nn.Dropout({self.p:f})"


class Differentiable(Layer):
    """A layer that takes its gradient from autograd: one whose own gradient would not pay off.

    `label` is how it prints; `function` maps x to y without changing x; `weights` are moved with the layer and handed
    to the function after x.
    """

    def __init__(
        self,
        name: str,
        label: str,
        function: Callable[..., Tensor],
        *weights: Tensor,
        windows: tuple[Window, Window] | None = POINT,
    ) -> None:
        super().__init__(name)
        self.label, self.function, self.weights, self.windows = label, function, weights, windows

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().to(device, dtype)
        self.weights = tuple(weight.to(device, dtype) for weight in self.weights)

    def forward(self, x: Tensor) -> Tensor:
        # Behind the first convolution, x may be more exact than the weights.
        return self.function(x, *(weight.to(x.dtype) for weight in self.weights))

    def backward(self, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
        with torch.enable_grad():
            source = x.detach().requires_grad_()
            (result,) = torch.autograd.grad(self.forward(source), source, grad)
        return result

    def __str__(self) -> str:
        return self.label


def cross_map_lrn(name: str, size: int, alpha: float, beta: float, k: float) -> Differentiable:
    """x * (k + alpha / size * sum of squares over `size` neighbouring channels)^-beta (nn.SpatialCrossMapLRN)."""

    def function(x: Tensor) -> Tensor:
        # PyTorch has none for bfloat16.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.local_response_norm(wide, size, alpha, beta, k).to(x.dtype)

    return Differentiable(name, "nn.SpatialCrossMapLRN", function)


def within_channel_lrn(name: str, size: int, alpha: float, beta: float) -> Differentiable:
    """x * (1 + alpha * mean of squares over size x size pixels)^-beta (caffe/layers/lrn_layer.cpp, WithinChannel)."""
    pad = (size - 1) // 2

    def function(x: Tensor) -> Tensor:
        return x * (1 + alpha * F.avg_pool2d(x * x, size, 1, pad)) ** -beta

    window = Window(size, 1, pad)
    return Differentiable(name, "nn.SpatialWithinMapLRN", function, windows=(window, window))


def tanh(name: str) -> Differentiable:
    return Differentiable(name, "nn.Tanh", torch.tanh)


def sigmoid(name: str) -> Differentiable:
    return Differentiable(name, "nn.Sigmoid", torch.sigmoid)


def absolute(name: str) -> Differentiable:
    return Differentiable(name, "nn.Abs", torch.abs)


def leaky_relu(name: str, slope: float) -> Differentiable:
    """max(x, 0) + slope * min(x, 0) (caffe/layers/relu_layer.cpp)."""
    return Differentiable(name, f"nn.LeakyReLU({slope:g})", lambda x: F.leaky_relu(x, slope))


def prelu(name: str, slopes: Tensor) -> Differentiable:
    """max(x, 0) + slope * min(x, 0) with one slope for all channels or one each, (1,) or (C,)."""
    return Differentiable(name, "nn.PReLU", F.prelu, slopes)


def power(name: str, exponent: float, scale: float, shift: float) -> Differentiable:
    """(shift + scale * x)^exponent (caffe/layers/power_layer.cpp)."""
    return Differentiable(name, "nn.Power", lambda x: (shift + scale * x) ** exponent)


def affine(name: str, label: str, scale: Tensor, shift: Tensor) -> Differentiable:
    """scale * x + shift, one of each per channel, (C,): BatchNorm with its stored statistics, Scale, Bias."""
    return Differentiable(
        name,
        label,
        lambda x, a, b: x * a.view(1, -1, *[1] * (x.dim() - 2)) + b.view(1, -1, *[1] * (x.dim() - 2)),
        scale,
        shift,
    )


def softmax(name: str) -> Differentiable:
    return Differentiable(name, "nn.SoftMax", lambda x: F.softmax(x, 1), windows=None)

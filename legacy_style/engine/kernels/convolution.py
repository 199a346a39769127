"""How a convolution is computed: one choice by device, type and shape, and what each choice promises.

Largest errors against float64, relative and root mean square, of float32: `direct` 0.4e-6 to 1.2e-6, `winograd` 0.7e-6
to 1.2e-6 (64 to 512 channels), `taps`, which sums in float64, less than `direct`. In bfloat16 a rounding is 2^-9.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.engine.kernels import winograd
from legacy_style.torch7 import nn
from legacy_style.torch7.nn import Pair

Way = Literal["general", "direct", "taps", "winograd"]
"""`general`: PyTorch's, either way. `direct`: the gradient is a convolution too, of the kernels turned by 180 degrees
and transposed in their channels. `taps`: the gradient to few channels is one product and shifted sums. `winograd`: a
quarter of the multiplications.
"""

_FEW = 4
"""Up to so many output channels, a convolution is faster, and more exact, as one matrix product and shifted sums."""


def choose(
    device: torch.device,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    *,
    stride: Pair = (1, 1),
    pad: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Way:
    """The way for kernels of `shape` (out, in / groups, kH, kW)."""
    kernel = shape[2:]
    if (stride, dilation, groups) != ((1, 1), (1, 1), 1) or pad[0] >= kernel[0] or pad[1] >= kernel[1]:
        return "general"
    if winograd.fits(device, dtype, shape, pad):
        return "winograd"
    return "taps" if shape[1] <= _FEW and device.type == "cpu" else "direct"


def install(layer: nn.SpatialConvolution) -> None:
    """Let `layer`, which is in place, compute in the way that is chosen for it."""
    weight = layer.weight
    kernel = (weight.shape[2], weight.shape[3])
    way = choose(
        weight.device,
        weight.dtype,
        (weight.shape[0], weight.shape[1], *kernel),
        stride=layer.stride,
        pad=layer.pad,
        dilation=layer.dilation,
        groups=layer.groups,
    )
    layer.forwards = layer.backwards = None
    if way == "winograd":
        kernels = winograd.transform_kernels(weight)
        layer.forwards = partial(winograd.convolve, kernels, layer.bias)
        layer.backwards = partial(winograd.convolve, kernels, None, turned=True)
    elif way != "general":
        turned = weight.flip(2, 3).transpose(0, 1)
        pad = (kernel[0] - 1 - layer.pad[0], kernel[1] - 1 - layer.pad[1])
        if way == "taps":
            layer.backwards = partial(_by_taps, turned, pad)
        else:
            layer.backwards = partial(_direct, turned.contiguous(memory_format=torch.channels_last), pad)


def _direct(weight: Tensor, pad: Pair, x: Tensor, positive: Tensor | None) -> Tensor:
    return F.conv2d(x if positive is None else nn.mask(x, positive), weight, padding=pad)


def _by_taps(weight: Tensor, pad: Pair, x: Tensor, positive: Tensor | None) -> Tensor:
    """`_direct` for a weight (K, C, kH, kW) of few K: the products for every tap, then their sum where they fall."""
    if positive is not None:
        x = nn.mask(x, positive)
    k, c, down, right = weight.shape
    h, w = x.shape[2:]
    matrix = weight.permute(2, 3, 0, 1).reshape(1, -1, c)
    taps = torch.bmm(matrix.expand(h, -1, -1), x[0].transpose(0, 1)).view(h, down, right, k, w)
    # Tap (i, j) of the window at (y, x) reads the pixel (y + i - pad, x + j - pad).
    result = x.new_zeros((1, k, h + 2 * pad[0] - down + 1, w + 2 * pad[1] - right + 1), dtype=torch.float64)
    for i in range(down):
        for j in range(right):
            rows, columns = _overlap(h, i - pad[0], result.shape[2]), _overlap(w, j - pad[1], result.shape[3])
            result[0, :, rows[1], columns[1]] += taps[rows[0], i, j, :, columns[0]].transpose(0, 1)
    return result.to(x.dtype)


def _overlap(size: int, shift: int, count: int) -> tuple[slice, slice]:
    """The part of range(size) that `shift` moves down into range(count), before and after."""
    first, last = max(0, shift), min(size, count + shift)
    return slice(first, last), slice(first - shift, last - shift)

"""How a convolution is computed: one choice by device, type and shape, and what each choice promises.

Largest errors against float64, relative and root mean square, of float32: `direct` 0.4e-6 to 1.2e-6, `winograd` 0.7e-6
to 1.2e-6 (64 to 512 channels), `taps`, which sums in float64, less than `direct`, `split` 2e-5. In bfloat16 a rounding
is 2^-9; `tf32` rounds to 2^-11, and a layer's error is 3e-4.

What a precision promises of the image's gradient, with the bundled network: float32 1e-4 against float64, whatever the
device; tf32 what PyTorch's default for convolutions gives; bfloat16 nothing but its rounding in each layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.engine.kernels import fused, grams, split, winograd
from legacy_style.engine.kernels.packed import Packed
from legacy_style.torch7 import nn
from legacy_style.torch7.nn import Pair

Way = Literal["general", "direct", "taps", "columns", "winograd", "split", "tf32"]
"""`general`: PyTorch's, either way. `direct`: the gradient is a convolution too, of the kernels turned by 180 degrees
and transposed in their channels. `taps`: the gradient to few channels is one product and shifted sums. `columns`: from
few channels, and back to them, in one product of copies. `winograd`: a quarter of the multiplications, for all but
small maps. `split`: float32 by TF32 units, three products for one. `tf32`: by the same, one product.
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
    tf32: bool = False,
) -> Way:
    """The way for kernels of `shape` (out, in / groups, kH, kW). `tf32`: whether factors may be rounded to that."""
    kernel = shape[2:]
    if (stride, dilation, groups) != ((1, 1), (1, 1), 1) or pad[0] >= kernel[0] or pad[1] >= kernel[1]:
        return "general"
    if winograd.fits(device, dtype, shape, pad):
        return "winograd"
    if device.type == "cuda" and dtype == torch.float32 and shape[1] * kernel[0] * kernel[1] <= shape[0]:
        return "columns"
    if dtype == torch.float32 and min(shape[:2]) > _FEW and split.has_units(device):
        return "tf32" if tf32 else "split"
    return "taps" if shape[1] <= _FEW and device.type == "cpu" else "direct"


def install(layer: nn.SpatialConvolution, *, tf32: bool = False, narrow: torch.dtype | None = None) -> None:
    """Let `layer`, which is in place, compute in the way that is chosen for it.

    With `narrow`, the layers behind it compute in that: from few channels, it rounds its result to it at once.
    """
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
        tf32=tf32,
    )
    layer.forwards = layer.backwards = None
    if way == "winograd":
        kernels = winograd.transform_kernels(weight)
        forwards = partial(winograd.convolve, kernels, layer.bias)
        backwards = partial(winograd.convolve, kernels, None, turned=True)
        small = Packed(weight, layer.bias, layer.pad)
        small_backwards = partial(_masked, Packed(weight, None, layer.pad, turned=True))
        layer.forwards = partial(_rectified, partial(_by_size, small, forwards), None)
        layer.backwards = partial(_by_size, small_backwards, backwards)
    elif way == "columns":
        matrix = weight.contiguous().view(weight.shape[0], -1)
        layer.forwards = partial(
            _rectified, partial(_by_columns, matrix, layer.bias, kernel, layer.pad), narrow
        )
        layer.backwards = partial(_into_columns, matrix.to(narrow or weight.dtype), kernel, layer.pad)
    elif way != "general":
        turned = weight.flip(2, 3).transpose(0, 1)
        pad = (kernel[0] - 1 - layer.pad[0], kernel[1] - 1 - layer.pad[1])
        if way == "split":
            ours, theirs = split.split_kernels(weight), split.split_kernels(turned)
            layer.forwards = partial(_then_bias, partial(split.convolve, ours, pad=layer.pad), layer.bias)
            layer.backwards = partial(_split_backward, theirs, pad)
        elif way == "tf32":
            ours, theirs = _channels_last(weight), _channels_last(turned)
            rounded = partial(split.convolve_rounded, ours, pad=layer.pad)
            layer.forwards = partial(_then_bias, rounded, layer.bias)
            layer.backwards = partial(_masked, partial(split.convolve_rounded, theirs, pad=pad))
        elif weight.device.type == "cuda":
            layer.forwards = partial(
                _then_bias, partial(_convolve, _channels_last(weight), layer.pad), layer.bias
            )
            layer.backwards = partial(_masked, partial(_convolve, _channels_last(turned), pad))
        else:
            narrow = narrow if way == "taps" else None
            layer.forwards = partial(_rectified, Packed(weight, layer.bias, layer.pad), narrow)
            if way == "taps" and narrow is None:
                layer.backwards = partial(_by_taps, turned, pad)
            else:
                weight = weight.to(narrow or weight.dtype)
                layer.backwards = partial(_masked, Packed(weight, None, pad, turned=True))


def _by_size(
    small: Callable[..., Tensor], large: Callable[..., Tensor], x: Tensor, *positive: Tensor | None
) -> Tensor:
    """Winograd's kernels are four times as large as plain ones: of small maps, reading them takes most of the time."""
    return (large if winograd.pays(x.shape[2], x.shape[3]) else small)(x, *positive)


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _masked(convolve: Callable[[Tensor], Tensor], x: Tensor, positive: Tensor | None) -> Tensor:
    return convolve(x if positive is None else nn.mask(x, positive))


def _convolve(weight: Tensor, pad: Pair, x: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=pad)


def _split_backward(kernels: Tensor, pad: Pair, x: Tensor, positive: Tensor | None) -> Tensor:
    return split.convolve(kernels, x, pad, positive)


def _rectified(
    convolve: Callable[[Tensor], Tensor], narrow: torch.dtype | None, x: Tensor, rectify: bool
) -> Tensor:
    """The result in `narrow`, where it is to be that, and then the ReLU."""
    y = convolve(x)
    y = y if narrow is None else y.to(narrow)
    return y.relu_() if rectify else y


def _then_bias(convolve: Callable[[Tensor], Tensor], bias: Tensor | None, x: Tensor, rectify: bool) -> Tensor:
    """Bias and ReLU afterwards, because cuDNN's bias is a pass of its own as well."""
    return fused.add_bias(convolve(x), bias, rectify=rectify)


def _by_columns(matrix: Tensor, bias: Tensor | None, kernel: Pair, pad: Pair, x: Tensor) -> Tensor:
    """All that a pixel looks at as one row, and one matrix product, of which the bias is a part.

    Not the ReLU: cuBLAS's makes 0 of what is no number, and a run that went astray would not be noticed.
    """
    height, width = x.shape[2] + 2 * pad[0] - kernel[0] + 1, x.shape[3] + 2 * pad[1] - kernel[1] + 1
    rows = F.unfold(x, kernel, padding=pad)[0].T  # (H' W', C kH kW)
    y = rows @ matrix.T if bias is None else torch.addmm(bias, rows, matrix.T)
    return y.view(1, height, width, -1).permute(0, 3, 1, 2)


def _into_columns(matrix: Tensor, kernel: Pair, pad: Pair, x: Tensor, positive: Tensor | None) -> Tensor:
    """The gradient of `_by_columns`, float32 at least: each pixel of the result gathers what was taken from it."""
    if positive is not None:
        x = nn.mask(x, positive)
    k, h, w = x.shape[1:]
    flat = x.permute(0, 2, 3, 1).reshape(-1, k)
    size = h - 2 * pad[0] + kernel[0] - 1, w - 2 * pad[1] + kernel[1] - 1
    return F.fold(grams.wide_product(matrix.T, flat.T)[None], size, kernel, padding=pad)


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

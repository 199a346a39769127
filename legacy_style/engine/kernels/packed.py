"""Convolutions on the CPU with kernels that are put into oneDNN's own order once, not in each call.

In each call that costs as much as reading and writing all kernels: nearly half of the time where maps are small or
the products fast. oneDNN's own ReLU, which it would do in the same step, makes 0 of what is no number, and a run that
went astray would not be noticed; so it is not used.
"""

from __future__ import annotations

import functools
import platform

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.torch7.nn import Pair


class Packed:
    """x (1, C, H, W) convolved with stride 1 by `weight` (K, C, kH, kW), plus `bias`; with `turned`, by its kernels
    turned by 180 degrees and transposed in their channels, (C, K, kH, kW).

    The first call puts them in order for maps of its size, and so does each whose maps have another size than those
    before it: what fits one size may be a hundred times slower with another.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, pad: Pair, *, turned: bool = False) -> None:
        self.bias, self.pad = bias, pad
        self._weight, self._turned = weight, turned
        self._ready: Tensor | None = None
        self._size: torch.Size | None = None  # that they are ready for
        self._ordered = can_order(weight)

    def __call__(self, x: Tensor) -> Tensor:
        if self._ready is None or (self._ordered and self._size != x.shape):
            self._ready, self._size = self._prepare(x), x.shape
        if not self._ordered:
            return F.conv2d(x, self._ready, self.bias, padding=self.pad)
        return _convolve(self._ready, self.bias, self.pad, x)

    def _prepare(self, x: Tensor) -> Tensor:
        weight = self._weight.flip(2, 3).transpose(0, 1) if self._turned else self._weight
        weight = weight.contiguous(memory_format=torch.channels_last)
        if not self._ordered:
            return weight
        return _order(weight, self.pad, x)


def can_order(weight: Tensor) -> bool:
    """Whether oneDNN is there, and computes fast in the type of `weight`."""
    mkldnn = torch.ops.mkldnn
    if weight.device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    if not torch._C._has_mkldnn or not hasattr(mkldnn, "_reorder_convolution_weight"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(mkldnn._is_mkldnn_bf16_supported()) and _works(weight.dtype)
    return weight.dtype == torch.float32 and _works(weight.dtype)


@functools.cache
def _works(dtype: torch.dtype) -> bool:
    """Try it on small whole numbers, with which every convolution is exact."""
    numbers = torch.arange(64 * 64 * 9) % 3 - 1.0
    weight = numbers.view(64, 64, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    x = numbers[: 64 * 20].view(1, 64, 4, 5).to(dtype).contiguous(memory_format=torch.channels_last)
    bias, pad = torch.ones(64, dtype=dtype), (1, 1)
    try:
        return torch.equal(
            _convolve(_order(weight, pad, x), bias, pad, x), F.conv2d(x, weight, bias, padding=pad)
        )
    except (RuntimeError, TypeError):  # another PyTorch's operation of that name
        return False


def _order(weight: Tensor, pad: Pair, x: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight, pad, (1, 1), (1, 1), 1, list(x.shape)
    )
    return result


def _convolve(ordered: Tensor, bias: Tensor | None, pad: Pair, x: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, ordered, bias, pad, (1, 1), (1, 1), 1, "none", [], ""
    )
    return result

"""Convolutions that give several pixels at a time as channels, which are put in their places afterwards.

Two uses on the CPU. A convolution to a few channels leaves most of a vector register empty; computed for a block of
pixels at a time, with a kernel that is as much larger, it fills the register (`to_few`). And a 3x3 convolution behind
nearest upsampling multiplies each source pixel by the same numbers again and again; with the kernel's columns and rows
summed beforehand it takes 16 products instead of 36 (`behind_upsampling`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 4
"""Up to so many output channels, and from 5x5 kernels on, `to_few` is the faster way."""

_DOWN, _RIGHT = 4, 2  # a block: 3 channels of 4x2 pixels are 24 of AVX2's 8 or AVX-512's 16 lanes


def suits_few(weight: Tensor) -> bool:
    """Whether `to_few` is the faster way for this weight (K, C, kH, kW)."""
    return weight.shape[0] <= FEW and min(weight.shape[2:]) >= 5


def block_kernels(weight: Tensor) -> Tensor:
    """The kernels of `to_few`: (8 K, C, kH + 3, kW + 1), channels-last."""
    k, c, height, width = weight.shape
    kernels = weight.new_zeros((k, _DOWN, _RIGHT, c, height + _DOWN - 1, width + _RIGHT - 1))
    for i in range(_DOWN):
        for j in range(_RIGHT):
            kernels[:, i, j, :, i : i + height, j : j + width] = weight
    return kernels.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def to_few(kernels: Tensor, bias: Tensor | None, x: Tensor, pad: tuple[int, int]) -> Tensor:
    """x (1, C, H, W) convolved with stride 1 and zero padding by `block_kernels(weight)`: (1, K, H', W')."""
    k = kernels.shape[0] // (_DOWN * _RIGHT)
    height = x.shape[2] + 2 * pad[0] - kernels.shape[2] + _DOWN
    width = x.shape[3] + 2 * pad[1] - kernels.shape[3] + _RIGHT
    more = -height % _DOWN, -width % _RIGHT
    if any(more):  # whole blocks, of which the surplus is cut off again
        x, pad = F.pad(x, (pad[1], pad[1] + more[1], pad[0], pad[0] + more[0])), (0, 0)
    y = F.conv2d(x, kernels, None, (_DOWN, _RIGHT), pad)
    down, right = y.shape[2:]
    y = y.view(1, k, _DOWN, _RIGHT, down, right).permute(0, 1, 4, 2, 5, 3)
    y = y.reshape(1, k, down * _DOWN, right * _RIGHT)[:, :, :height, :width]
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def upsampled_kernels(weight: Tensor) -> Tensor:
    """The kernels of `behind_upsampling` for a weight (K, C, 3, 3): (4 K, C, 2, 2), channels-last."""
    exact = weight.double()
    # An even row 2i of the result reads the source's rows i-1, i, i; an odd one i, i, i+1. Columns alike.
    rows = [
        torch.stack([exact[:, :, 0], exact[:, :, 1] + exact[:, :, 2]], 2),
        torch.stack([exact[:, :, 0] + exact[:, :, 1], exact[:, :, 2]], 2),
    ]
    kernels = [
        torch.stack(pair, 3)
        for row in rows
        for pair in (
            (row[..., 0], row[..., 1] + row[..., 2]),
            (row[..., 0] + row[..., 1], row[..., 2]),
        )
    ]
    return torch.cat(kernels).to(weight.dtype).contiguous(memory_format=torch.channels_last)


def behind_upsampling(kernels: Tensor, bias: Tensor | None, x: Tensor, *, border: str) -> Tensor:
    """x (1, C, H, W), made twice as large by nearest upsampling, padded by 1 and convolved: (1, K, 2 H, 2 W).

    `border`: how it is padded, "zero", "replicate" or "reflect". The last two are the same here, for the pixels next to
    a border are pairs of equal ones.
    """
    _, _, h, w = x.shape
    k = kernels.shape[0] // 4
    padded = F.pad(x, (1, 1, 1, 1)) if border == "zero" else F.pad(x, (1, 1, 1, 1), "replicate")
    y = F.conv2d(padded, kernels).permute(0, 2, 3, 1)[0]  # (H + 1, W + 1, 4 K)
    result = x.new_empty((h, 2, w, 2, k))
    for phase in range(4):
        down, right = divmod(phase, 2)
        part = y[down : down + h, right : right + w, phase * k : (phase + 1) * k]
        if bias is None:
            result[:, down, :, right] = part
        else:
            torch.add(part, bias, out=result[:, down, :, right])
    return result.view(1, 2 * h, 2 * w, k).permute(0, 3, 1, 2)

"""How a Gram matrix, and what times feature maps is its gradient, are computed: one choice by device and type.

Feature maps are flat here, (N, C): N pixels. Largest errors of a Gram matrix of rectified maps against float64,
relative: `plain` 1e-7, on the CPU; `split` 1e-6, with TF32's rounding emulated, to which the sums of the units come;
`mixed` is as exact for what it is given. A sum over many pixels is cut into blocks, which are added up in float64: one
float32 sum over a large image loses digits that the difference of two Gram matrices needs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

from legacy_style.engine.kernels import split

Way = Literal["plain", "split", "mixed", "narrow"]
"""`plain`: float32 as the device has it. `split`: float32 by TF32 units. `mixed`: products of bfloat16, summed in
float32. `narrow`: as `mixed` on the way back alone, for the CPU, which gives no such sum but rounded.
"""

_BLOCK = 256
"""Pixels whose products are summed in float32, no more than the BLAS of the original took at a time. MKL adds up
thousands in a row, and then G - T near the optimum, and with it the gradient, is ten times less exact than the
original's.
"""

_BATCH = 2**18
"""Elements of the blocks' products that are held at a time; they fit into the cache."""

_BLOCK_ON_GPU = 8192
"""GPUs split the sum themselves, and would wait for small blocks."""

_BLOCK_IN_UNITS = 1024
"""Matrix units cut off what they add up, always downwards: the more products, the more of their sum is lost. And each
block is work for another multiprocessor.
"""


def choose(device: torch.device, dtype: torch.dtype) -> Way:
    """The way for maps of that type."""
    if dtype == torch.bfloat16 and device.type == "cpu":
        return "narrow"
    if dtype == torch.bfloat16 and hasattr(torch.ops.aten.bmm, "dtype"):
        return "mixed"
    return "split" if dtype != torch.float64 and split.has_units(device) else "plain"


def products(flat: Tensor) -> Tensor:
    """F F^T, (C, C) float64, of `flat` = F^T (N, C), not normalised.

    Source: Gatys, Ecker, Bethge (2015), eq. 3; neural_style.lua, GramMatrix.
    """
    way = choose(flat.device, flat.dtype)
    if way in ("plain", "narrow"):
        return _plain(flat)
    if way == "mixed":
        return _in_blocks(flat, flat.shape[1], _summed_in_float32)
    flat = _precise(flat)
    channels = flat.shape[1]
    with split.allowed("matmul"):
        total = _added_up(_in_blocks(split.halves(rows), channels, torch.bmm) for rows in split.bands(flat))
    # What the low halves give among each other is 2^-22 of the whole.
    crossed = total[:, channels:]
    return total[:, :channels] + crossed + crossed.T


def product(flat: Tensor, matrix: Tensor, *, tf32: bool = False) -> Tensor:
    """flat @ matrix, of (N, C) and a symmetric (C, C); float32 at least, but for `mixed` and `narrow`.

    `tf32`: whether factors may be rounded to that.
    """
    way = choose(flat.device, flat.dtype)
    if way == "plain":
        flat = _precise(flat)
        return flat @ matrix.to(flat.dtype)
    out = torch.zeros_like(_precise(flat) if way == "split" else flat)
    add_product(out, flat, matrix, 1.0, tf32=tf32)
    return out


def add_product(grad: Tensor, flat: Tensor, matrix: Tensor, scale: float, *, tf32: bool = False) -> None:
    """grad += scale * (flat @ matrix), `grad` being (N, C) too, in place; the others as in `product`."""
    way = choose(flat.device, flat.dtype)
    if way in ("plain", "split"):
        flat = _precise(flat)
    if grad.dtype != flat.dtype:
        grad.add_(product(flat, matrix, tf32=tf32).to(grad.dtype), alpha=scale)
    elif way != "split":
        grad.addmm_(flat, matrix.to(flat.dtype), alpha=scale)
    else:
        with split.allowed("matmul"):
            if tf32:
                grad.addmm_(flat, matrix.to(flat.dtype), alpha=scale)
            else:
                _add_split_product(grad, flat, matrix.to(flat.dtype), scale)


def wide_product(first: Tensor, second: Tensor) -> Tensor:
    """first @ second, float32 at least, whatever the two are."""
    if choose(first.device, first.dtype) == "mixed":
        return _summed_in_float32(first[None], second[None])[0]
    return _precise(first) @ _precise(second)


def _add_split_product(grad: Tensor, flat: Tensor, matrix: Tensor, scale: float) -> None:
    high = split.high(matrix)
    both, low = torch.cat([high, high]), matrix - high
    for rows, part in zip(split.bands(flat), split.bands(grad), strict=True):
        halves = split.halves(rows)
        part.addmm_(halves, both, alpha=scale).addmm_(halves[:, : len(matrix)], low, alpha=scale)
        del halves  # before there are the next


def _precise(flat: Tensor) -> Tensor:
    """In float32 at least."""
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _summed_in_float32(first: Tensor, second: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.bmm.dtype(first, second, torch.float32)
    return result


def _in_blocks(flat: Tensor, channels: int, bmm: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The products of the first `channels` columns of `flat` (N, W) with all: (channels, W), float64."""
    count = len(flat) // _BLOCK_IN_UNITS
    whole = flat[: count * _BLOCK_IN_UNITS].view(count, _BLOCK_IN_UNITS, flat.shape[1])
    rest = flat[None, count * _BLOCK_IN_UNITS :]
    return _added_up(
        bmm(blocks[:, :, :channels].transpose(1, 2), blocks).sum(0, dtype=torch.float64)
        for blocks in (whole, rest)
        if blocks.numel() or not flat.numel()
    )


def _added_up(matrices: Iterable[Tensor]) -> Tensor:
    return functools.reduce(Tensor.add_, matrices)


def _plain(flat: Tensor) -> Tensor:
    """In float32 at least, of which there is no more than the products of a batch take."""
    pixels, channels = flat.shape
    total = flat.new_zeros((channels, channels), dtype=torch.float64)
    block = _BLOCK if flat.device.type == "cpu" else _BLOCK_ON_GPU
    count = pixels // block
    blocks = flat[: count * block].view(count, block, channels)
    # Of the symmetric matrix, the lower left quarter need not be computed; small matrices are not worth it.
    half = channels // 2 if channels >= 64 else channels
    for some in torch.split(blocks, max(_BATCH // channels**2, 1)):
        some = _precise(some)
        first, second = some[:, :, :half], some[:, :, half:]
        total[:half] += torch.bmm(first.transpose(1, 2), some).sum(0, dtype=torch.float64)
        total[half:, half:] += torch.bmm(second.transpose(1, 2), second).sum(0, dtype=torch.float64)
    total[half:, :half] = total[:half, half:].T
    rest = _precise(flat[count * block :])
    return total.add_(rest.T @ rest)

"""Kernels in Triton that read and write large maps once where PyTorch's operations take several passes.

For `fused`, which has a plain twin of each. Maps are flat, (N, C) in memory: N pixels of C channels. Triton's language
has no types for mypy, so its decorator and the kernels under it are left out of that.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import TritonError as TritonError  # for `fused`

_PIXELS, _CHANNELS = 32, 64
"""What one program works on."""


@triton.jit  # type: ignore[untyped-decorator]
def _add_bias(y, bias, pixels, channels, RECTIFY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < pixels)[:, None] & (columns < channels)[None, :]
    places = y + rows[:, None] * channels + columns[None, :]
    value = tl.load(places, mask=inside).to(tl.float32)
    value += tl.load(bias + columns, mask=columns < channels).to(tl.float32)[None, :]
    if RECTIFY:
        value = tl.where(value < 0, 0.0, value)  # what is no number stays
    tl.store(places, value.to(y.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _split(  # type: ignore[no-untyped-def]
    x,
    positive,
    parts,
    pixels,
    channels,
    MASKED: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < pixels)[:, None] & (columns < channels)[None, :]
    places = rows[:, None] * channels + columns[None, :]
    value = tl.load(x + places, mask=inside)
    if MASKED:
        value = tl.where(tl.load(positive + places, mask=inside) <= 0, 0.0, value)
    high = (value.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    first = parts + rows[:, None] * (PARTS * channels) + columns[None, :]
    tl.store(first, high, mask=inside)
    tl.store(first + channels, value - high, mask=inside)
    if PARTS == 3:
        tl.store(first + 2 * channels, high, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _unpool(  # type: ignore[no-untyped-def]
    x,
    grad,
    result,
    height,
    width,
    half_width,
    windows,
    channels,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # of the pooled map
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < windows)[:, None] & (columns < channels)[None, :]
    top, left = rows // half_width * 2, rows % half_width * 2
    right, below = (left + 1 < width)[:, None] & inside, (top + 1 < height)[:, None] & inside
    corner = (top * width + left)[:, None] * channels + columns[None, :]
    down = width * channels
    a = tl.load(x + corner, mask=inside).to(tl.float32)
    b = tl.load(x + corner + channels, mask=right, other=float("-inf")).to(tl.float32)
    c = tl.load(x + corner + down, mask=below, other=float("-inf")).to(tl.float32)
    d = tl.load(x + corner + down + channels, mask=right & below, other=float("-inf")).to(tl.float32)
    # As PyTorch finds it: the first of equal ones, or the last that is no number.
    best = a
    is_b = (b > best) | (b != b)
    best = tl.where(is_b, b, best)
    is_c = (c > best) | (c != c)
    best = tl.where(is_c, c, best)
    is_d = (d > best) | (d != d)
    best = tl.where(is_d, d, best)
    value = tl.load(grad + rows[:, None] * channels + columns[None, :], mask=inside).to(tl.float32)
    value = tl.where(best <= 0, 0.0, value)  # the ReLU
    kind = result.dtype.element_ty
    tl.store(result + corner, tl.where(is_b | is_c | is_d, 0.0, value).to(kind), mask=inside)
    tl.store(result + corner + channels, tl.where(is_b & ~is_c & ~is_d, value, 0.0).to(kind), mask=right)
    tl.store(result + corner + down, tl.where(is_c & ~is_d, value, 0.0).to(kind), mask=below)
    tl.store(result + corner + down + channels, tl.where(is_d, value, 0.0).to(kind), mask=right & below)


def _grid(pixels: int, channels: int) -> tuple[int, int]:
    return triton.cdiv(pixels, _PIXELS), triton.cdiv(channels, _CHANNELS)


_SHAPE: dict[str, Any] = {"ROWS": _PIXELS, "COLUMNS": _CHANNELS}


def add_bias(y: Tensor, bias: Tensor, *, rectify: bool) -> None:
    """`fused.add_bias` of y (N, C), contiguous."""
    _add_bias[_grid(*y.shape)](y, bias, *y.shape, RECTIFY=rectify, **_SHAPE)


def split(x: Tensor, positive: Tensor | None, parts: Tensor) -> None:
    """`fused.split` of x and `positive` (N, C) into `parts` (N, 2C or 3C), contiguous."""
    other, count = x if positive is None else positive, parts.shape[1] // x.shape[1]
    masked = positive is not None
    _split[_grid(*x.shape)](x, other, parts, *x.shape, MASKED=masked, PARTS=count, **_SHAPE)


def unpool(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient by x (1, C, H, W), of that by its 2x2 maxima, (1, C, H', W'), and 0 where those are not above 0;
    channels-last.
    """
    (_, channels, height, width), half_width = x.shape, grad.shape[3]
    windows = grad.shape[2] * half_width
    result = torch.empty_like(x)
    grid = _grid(windows, channels)
    _unpool[grid](x, grad, result, height, width, half_width, windows, channels, **_SHAPE)
    return result

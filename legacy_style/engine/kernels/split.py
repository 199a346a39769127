"""Float32 convolutions by TF32 matrix units: each factor as a sum of two TF32 numbers, three of the four products.

TF32 has float32's exponent and 10 of its 23 bits. With x = high + low and w likewise, x w = high(x) high(w) + low(x)
high(w) + high(x) low(w) but for low(x) low(w), 2^-20 of it at most. The three are one convolution of three times the
channels, which adds them up in float32. Leads: Ootomo and Yokota, Recovering single precision accuracy from Tensor
Cores (2022); CUTLASS's 3xTF32. A layer's error against float64 is 6e-6 to 2e-5 (relative, on an H100), that of float32
6e-7, of TF32 alone 3e-4: the units cut off what they add up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.engine.kernels import fused

BAND = 2**26
"""Elements of the three parts of a map that are held at a time, 268 MB: larger maps are worked in bands of rows."""


def has_units(device: torch.device) -> bool:
    """Whether a device multiplies TF32 numbers: NVIDIA's from Ampere on. To PyTorch, AMD's are `cuda` too."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@contextlib.contextmanager
def allowed(what: Literal["conv", "matmul"] = "conv") -> Iterator[None]:
    """cuDNN's convolutions, or cuBLAS's products, may round what they multiply to TF32 in here."""
    # As in machine.float32: PyTorch 2.9 and later refuse to tell the older setting beside the newer one.
    matmul: Any = torch.backends.cuda.matmul
    owner: Any = torch.backends.cudnn if what == "conv" else matmul
    name: str = "allow_tf32"
    value: bool | str = True
    if hasattr(matmul, "fp32_precision"):
        name, value = "fp32_precision", "tf32"
        owner = owner.conv if what == "conv" else owner
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def convolve_rounded(weight: Tensor, x: Tensor, pad: tuple[int, int]) -> Tensor:
    """x (1, C, H, W) convolved with stride 1 by weight (K, C, kH, kW), both rounded to TF32 where that is fast."""
    with allowed():
        return F.conv2d(x, weight, padding=pad)


def split_kernels(weight: Tensor) -> Tensor:
    """Kernels (K, C, kH, kW) as `convolve` takes them: (K, 3C, kH, kW), channels-last, to be met by `_split`."""
    some = high(weight)
    parts = torch.cat([some, some, weight - some], 1)
    return parts.contiguous(memory_format=torch.channels_last)


def convolve(kernels: Tensor, x: Tensor, pad: tuple[int, int], positive: Tensor | None = None) -> Tensor:
    """x (1, C, H, W) convolved with stride 1 by `split_kernels(weight)`: (1, K, H', W'), channels-last.

    With `positive`, x counts as 0 where that is not above 0, and may be overwritten.
    """
    _, c, h, w = x.shape
    k, _, down, right = kernels.shape
    rows = max(BAND // (3 * c * w) - down + 1, 1)
    height, width = h + 2 * pad[0] - down + 1, w + 2 * pad[1] - right + 1
    if rows >= height:
        return convolve_rounded(kernels, _split(x, positive, 0, h), pad)
    result = x.new_empty((1, height, width, k)).permute(0, 3, 1, 2)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        parts = _split(x, positive, top - pad[0], bottom - pad[0] + down - 1)
        result[:, :, top:bottom] = convolve_rounded(kernels, parts, (0, pad[1]))
        del parts  # before there are the next
    return result


def high(x: Tensor) -> Tensor:
    """What TF32 can hold of x, float32."""
    return torch.bitwise_and(x.view(torch.int32), fused.HIGH).view(torch.float32)


def bands(flat: Tensor) -> Sequence[Tensor]:
    """The rows of `flat` (N, C), so many at a time that their `halves` are BAND elements or a few more."""
    return torch.split(flat, max(BAND // (2 * flat.shape[1]) // 1024, 1) * 1024)


def halves(flat: Tensor) -> Tensor:
    """`flat` (N, C) as high and low: (N, 2C)."""
    pixels, channels = flat.shape
    parts = flat.new_empty((pixels, 2 * channels))
    if pixels:
        x, both = (each.view(1, pixels, 1, -1).permute(0, 3, 1, 2) for each in (flat.contiguous(), parts))
        fused.split(x, None, both)
    return parts


def _split(x: Tensor, positive: Tensor | None, top: int, bottom: int) -> Tensor:
    """The rows of x from top to bottom, zeros beyond it, as `fused.split` has them: (1, 3C, rows, W), channels-last."""
    _, c, h, w = x.shape
    first, last = max(top, 0), min(bottom, h)
    parts = x.new_empty((1, bottom - top, w, 3 * c)).permute(0, 3, 1, 2)
    parts[:, :, : first - top] = 0
    parts[:, :, last - top :] = 0
    inner = parts[:, :, first - top : last - top]
    fused.split(x[:, :, first:last], None if positive is None else positive[:, :, first:last], inner)
    return parts

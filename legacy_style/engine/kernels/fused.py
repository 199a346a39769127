"""Several passes over large maps in one: bias and ReLU; a mask and split numbers; back through pooling and ReLU.

On a GPU with Triton they are kernels of `tritons`, elsewhere PyTorch's operations one after the other. Maps are
(1, C, H, W), channels-last.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.torch7 import nn

_TYPES = (torch.float32, torch.bfloat16)


@functools.cache
def works(device: torch.device) -> bool:
    """Whether Triton builds kernels for a device, which takes a C compiler besides."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None and _builds(device)


def _builds(device: torch.device) -> bool:
    """Build each kernel, and try it: one that failed later would end the run."""
    try:
        kernels = _kernels()
    except (ImportError, OSError, RuntimeError):
        return False
    x = torch.arange(-16.0, 16.0, device=device).view(1, 4, 4, 2).permute(0, 3, 1, 2)
    flat, parts, pooled = _flat(x), x.new_empty(16, 6), F.max_pool2d(x, 2)
    y, rectified = flat.clone(), flat.relu()
    largest = torch.zeros_like(x)
    largest[:, :, 1::2, 1::2] = pooled.relu()
    try:
        with _where(x):
            kernels.add_bias(y, torch.ones_like(y[0]), rectify=True)
            kernels.split(flat, flat, parts)
            found = kernels.unpool(x, pooled)
    except (kernels.TritonError, OSError, RuntimeError, subprocess.SubprocessError):
        return False
    split_right = torch.cat([rectified, torch.zeros_like(flat), rectified], 1)
    return (
        torch.equal(y, (flat + 1).relu()) and torch.equal(parts, split_right) and torch.equal(found, largest)
    )


@functools.cache
def _kernels() -> Any:
    """The module, which only Triton can read."""
    from legacy_style.engine.kernels import tritons

    return tritons


def add_bias(y: Tensor, bias: Tensor | None, *, rectify: bool) -> Tensor:
    """y plus `bias` (C,), where there is one, and, with `rectify`, no less than 0: in place."""
    if bias is not None and _suits(y):
        with _where(y):
            _kernels().add_bias(_flat(y), bias, rectify=rectify)
        return y
    if bias is not None:
        y.add_(bias.view(1, -1, 1, 1))
    return y.relu_() if rectify else y


HIGH = -(1 << 13)
"""As a mask: the sign, the exponent, and the first 10 bits of the mantissa of a float32; all that TF32 has."""


def split(x: Tensor, positive: Tensor | None, parts: Tensor) -> None:
    """x, float32, as high and low into `parts` (1, 2C, H, W), what TF32 holds and the rest; or (1, 3C, H, W), the first
    once more.

    With `positive`, x counts as 0 where that is not above 0, and may be overwritten.
    """
    if _suits(x) and _suits(parts) and (positive is None or _suits(positive)):
        with _where(x):
            _kernels().split(_flat(x), None if positive is None else _flat(positive), _flat(parts))
        return
    if positive is not None:
        x = nn.mask(x, positive)
    high, low, *again = torch.split(parts, x.shape[1], 1)
    torch.bitwise_and(x.view(torch.int32), HIGH, out=high.view(torch.int32))
    torch.sub(x, high, out=low)
    for each in again:
        each.copy_(high)


def install(layer: nn.SpatialMaxPooling) -> None:
    """Let `layer`, which is in place, find its way back in one pass, and through the ReLU in front of it, where that is
    built for.
    """
    plain = ((2, 2), (2, 2), (0, 0), True)
    fits = (layer.kernel, layer.stride, layer.pad, layer.ceil) == plain
    layer.backwards = (
        partial(_unpool, layer.by_indices) if fits and layer.rectified and works(layer.device) else None
    )


def _unpool(by_indices: Callable[[Tensor, Tensor], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    if not (_suits(x) and _suits(grad)):
        return nn.mask(by_indices(x, grad), x)
    with _where(x):
        result: Tensor = _kernels().unpool(x, grad)
    return result


def _suits(x: Tensor) -> bool:
    dense = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and x.numel() > 0
    return dense and x.dtype in _TYPES and works(x.device)


def _where(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current GPU."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _flat(x: Tensor) -> Tensor:
    """(N, C), in place."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])

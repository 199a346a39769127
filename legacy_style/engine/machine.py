"""How the computation is laid out on this machine: memory, and float32 on CUDA.

PyTorch's own number of threads is kept (one per core; OMP_NUM_THREADS is respected), and feature maps are channels-last
(oneDNN and cuDNN convolve them without reordering). No TF32 on CUDA but where `kernels.split` asks for it: its 10-bit
mantissa alone would not be float32. Freed memory stays in the process of a command of ours (`keep_freed_memory`); a
library call changes no setting of the process that outlives it. Denormals are left alone: none occur, the smallest
feature map values and gradients other than 0 being about 1e-6 and 1e-12 (VGG-16 from noise, gradients normalised or
not).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch

from legacy_style.engine.kernels import split
from legacy_style.errors import OptionError

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Self = TypeVar("_Self", bound="Computing")

# What asking for glibc's functions raises where there is another C library; TypeError: Windows names none.
_NO_GLIBC = (OSError, AttributeError, TypeError)

# mallopt(3) of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


_kept = False


def keep_freed_memory() -> None:
    """Keep freed memory in the process: feature maps of the same sizes come and go, and fresh pages cost a tenth of a
    run. For commands of ours alone, because nothing can put the settings of the C library back.
    """
    global _kept
    _kept = True
    _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def spare_memory() -> None:
    """Give freed memory back to the system at once: tiles of many sizes would leave holes that nothing fits into.

    Where `keep_freed_memory` was not called, the C library does so of itself.
    """
    if _kept:
        _mallopt({_M_MMAP_MAX: 2**16, _M_MMAP_THRESHOLD: 2**20, _M_TRIM_THRESHOLD: 2**26})
    return_freed_memory()


def return_freed_memory() -> None:
    """Give the pages of freed memory back to the system, once, where loading has left many."""
    with contextlib.suppress(*_NO_GLIBC):
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(values: Mapping[int, int]) -> None:
    with contextlib.suppress(*_NO_GLIBC):
        libc = ctypes.CDLL(None)
        for parameter, value in values.items():
            libc.mallopt(parameter, value)


class Computing(Protocol):
    """Something that computes; `autotune` lets cuDNN time its algorithms first (-cudnn_autotune)."""

    @property
    def autotune(self) -> bool: ...


def in_float32(
    method: Callable[Concatenate[_Self, _Parameters], _Result],
) -> Callable[Concatenate[_Self, _Parameters], _Result]:
    """A method whose convolutions and products on CUDA are in float32; PyTorch's settings are put back after it."""

    @functools.wraps(method)
    def wrapped(self: _Self, /, *args: _Parameters.args, **more: _Parameters.kwargs) -> _Result:
        with float32(autotune=self.autotune):
            return method(self, *args, **more)

    return wrapped


@contextlib.contextmanager
def float32(*, autotune: bool) -> Iterator[None]:
    """Convolutions and products on CUDA in float32; `autotune` as in Computing. PyTorch's settings are put back."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    # PyTorch 2.9 and later have a setting for each operation, and refuse to tell the older ones beside it.
    newer = hasattr(matmul, "fp32_precision")
    settings: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", autotune)]
    if newer:
        settings += [(matmul, "fp32_precision", "ieee"), (cudnn.conv, "fp32_precision", "ieee")]  # type: ignore[attr-defined]
    else:
        settings += [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
    before = [getattr(owner, name) for owner, name, _ in settings]
    try:
        for owner, name, value in settings:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)


def dtype(precision: str, devices: Sequence[torch.device]) -> torch.dtype:
    """The type that layers compute in, which for tf32 is float32; raises OptionError for a precision that a device has
    no instructions for.
    """
    if precision == "tf32":
        for device in devices:
            if not split.has_units(device):
                what = f"GPU {device.index}" if device.type == "cuda" else "this processor"
                raise OptionError(
                    f"--precision tf32: {what} has no TF32, which is NVIDIA's from Ampere on; leave the option out"
                )
    if precision != "bfloat16":
        return torch.float32
    for device in devices:
        if device.type == "cuda":
            with torch.cuda.device(device):
                fast, what = torch.cuda.is_bf16_supported(including_emulation=False), f"GPU {device.index}"
        else:
            fast, what = _has_fast_bfloat16(), "this processor"
        if not fast:
            needed = "" if device.type == "cuda" else " (avx512_bf16, amx_bf16 or Arm's bf16)"
            raise OptionError(
                f"--precision bfloat16: {what} has no instructions for bfloat16{needed}, so it would be slower than"
                " float32; leave the option out"
            )
    return torch.bfloat16


def _has_fast_bfloat16() -> bool:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})

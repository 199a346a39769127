"""How the computation is laid out on this machine: threads, devices, tiles.

Chosen once, here: PyTorch's own number of threads (one per core; OMP_NUM_THREADS is respected), channels-last feature
maps (oneDNN and cuDNN convolve them without reordering), no TF32 on CUDA (its 10-bit mantissa would not be float32).
Freed memory stays in the process (`set_up_cpu`). Denormals are left alone: none occur, the smallest feature map values
and gradients other than 0 being about 1e-6 and 1e-12 (VGG-16 from noise, gradients normalised or not).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from legacy_style.errors import OptionError

# What asking for glibc's functions raises where there is another C library; TypeError: Windows names none.
_NO_GLIBC = (OSError, AttributeError, TypeError)

# mallopt(3) of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


def set_up_cpu() -> None:
    """Keep freed memory in the process: feature maps of the same sizes come and go, and fresh pages cost a tenth of a
    run.
    """
    _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def spare_memory() -> None:
    """Give freed memory back to the system at once: tiles of many sizes would leave holes that nothing fits into."""
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


def set_up_cuda(*, autotune: bool) -> None:
    """Float32 convolutions and products on CUDA; `autotune` lets cuDNN time its algorithms (-cudnn_autotune)."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = autotune


def dtype(precision: str, devices: Sequence[torch.device]) -> torch.dtype:
    """What layers compute in; raises OptionError for bfloat16 where a device has no instructions for it."""
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

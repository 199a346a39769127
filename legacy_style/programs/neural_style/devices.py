"""Which devices this machine has of those that a command line names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from legacy_style.errors import OptionError

Log = Callable[[str], None]


def choose_devices(gpus: Sequence[int], notice: Log) -> list[torch.device]:
    """The GPUs of these numbers, counted from 0; the CPU where none is named, and, told once, where CUDA is not."""
    if not gpus:
        return [torch.device("cpu")]
    if not torch.cuda.is_available():
        notice("No CUDA device here: running on the CPU (-gpu -1 says so beforehand)")
        return [torch.device("cpu")]
    missing = [gpu for gpu in gpus if not 0 <= gpu < torch.cuda.device_count()]
    if missing:
        raise OptionError(
            f"-gpu {','.join(map(str, gpus))}: there is no GPU {missing[0]}, only 0 to {torch.cuda.device_count() - 1}"
        )
    return [torch.device("cuda", gpu) for gpu in gpus]

"""Which devices this machine has of those that a command line names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from legacy_style.errors import OptionError

Notice = Callable[[str], None]

CPU = torch.device("cpu")


def choose(gpus: Sequence[int], notice: Notice, option: str = "-gpu") -> list[torch.device]:
    """The GPUs of these numbers, counted from 0; the CPU where none is named, and, told once, where CUDA is not.

    `option`: what named them. Raises OptionError for a number that no GPU has.
    """
    if not gpus:
        return [CPU]
    if not torch.cuda.is_available():
        notice(f"No CUDA device here: running on the CPU ({option} -1 says so beforehand)")
        return [CPU]
    count = torch.cuda.device_count()
    missing = [gpu for gpu in gpus if not 0 <= gpu < count]
    if missing:
        raise OptionError(
            f"{option} {','.join(map(str, gpus))}: there is no GPU {missing[0]}, only 0 to {count - 1}"
        )
    return [torch.device("cuda", gpu) for gpu in gpus]


def choose_one(gpu: int | None, notice: Notice, option: str = "-gpu") -> torch.device:
    """The GPU of that number, or the CPU for None; as `choose`."""
    return choose([] if gpu is None else [gpu], notice, option)[0]


def default() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else CPU


def of_option(gpu: int | None, notice: Notice) -> torch.device:
    """The device of --gpu: the default for None, the CPU for -1; else as `choose`."""
    if gpu is None:
        return default()
    return choose_one(gpu if gpu >= 0 else None, notice, "--gpu")

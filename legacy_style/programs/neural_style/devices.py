"""Which devices a command line names, for one process and for several."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch

from legacy_style.engine import machine
from legacy_style.engine.processes.group import Ranks
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style.options import Options
from legacy_style.torch7.cmdline import split_list, tonumber

Log = Callable[[str], None]


def choose_devices(options: Options, notice: Log) -> tuple[list[torch.device], list[int]]:
    """The devices that -gpu names, and their numbers counted from 1; the CPU, said once, where there is no CUDA.

    As in the original, a comma means several, and a single number means the CPU if it is -1 or less.
    """
    several = "," in options.gpu
    numbers = [tonumber(part) for part in (split_list(options.gpu) if several else [options.gpu])]
    if (
        not numbers
        or None in numbers
        or not all(math.isfinite(number) for number in numbers if number is not None)
    ):
        raise OptionError(
            f"-gpu {options.gpu!r} is not a GPU's number; give 0, or 0,1 for two, or -1 for the CPU"
        )
    gpus = [int(number + 1) for number in numbers if number is not None]
    machine.set_up_cpu()
    if not several and (numbers[0] or 0) + 1 <= 0:
        return [torch.device("cpu")], []
    if not torch.cuda.is_available():
        notice("No CUDA device here: running on the CPU (-gpu -1 says so beforehand)")
        return [torch.device("cpu")], []
    missing = [gpu - 1 for gpu in gpus if not 0 <= gpu - 1 < torch.cuda.device_count()]
    if missing:
        raise OptionError(
            f"-gpu {options.gpu}: there is no GPU {missing[0]}, only 0 to {torch.cuda.device_count() - 1}"
        )
    machine.set_up_cuda(autotune=options.cudnn_autotune and options.backend == "cudnn")
    return [torch.device("cuda", gpu - 1) for gpu in gpus], gpus


def own_options(options: Options, ranks: Ranks) -> Options:
    """`options` as this process has them: of the GPUs in -gpu, its own; without -gpu, that of its number.

    Raises OptionError where there are not enough, or where options do not go with several processes.
    """
    if ranks.size == 1:
        return options
    if options.multigpu_strategy:
        raise OptionError(
            "-multigpu_strategy splits the layers of one process among its GPUs; here each process has a GPU"
            " and a part of the image: leave it out, or start one process without torchrun"
        )
    own = copy.copy(options)
    for name in ("checkpoint", "resume"):
        if getattr(options, name):
            setattr(own, name, f"{getattr(options, name)}.{ranks.rank}of{ranks.size}")
    if "," in options.gpu:
        gpus = [name for name in options.gpu.split(",") if name]
        if len(gpus) < ranks.local_size:
            raise OptionError(
                f"-gpu {options.gpu} names {len(gpus)} GPUs for {ranks.local_size} processes on this machine;"
                " give one for each, or leave it out"
            )
        own.gpu = gpus[ranks.local]
    elif not options.is_explicit("gpu"):
        own.gpu = str(ranks.local)
    elif ranks.local_size > 1 and (tonumber(options.gpu) or 0) >= 0 and torch.cuda.is_available():
        raise OptionError(
            f"-gpu {options.gpu} names one GPU for {ranks.local_size} processes on this machine; give one for"
            f" each, as in -gpu {','.join(map(str, range(ranks.local_size)))}, or leave it out"
        )
    return own

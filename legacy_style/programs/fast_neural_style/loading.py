"""What train.lua and slow_neural_style.lua load: loss networks and checkpoints.

Notes: besides a .t7 file, as in the original, every
model file that neural_style.lua takes is a loss network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from legacy_style.errors import OptionError, UnsupportedError
from legacy_style.formats import model_files, t7
from legacy_style.programs.fast_neural_style import network
from legacy_style.programs.fast_neural_style.loss_network import from_netparameter

DEFAULT_LOSS_NETWORK = "models/vgg16.t7"

_HEAD = 8  # bytes that tell a .t7 file


def loss_network(path: str, notice: Callable[[str], None]) -> torch.nn.Sequential:
    """The network in a .t7 file, or in any model file that neural_style.lua takes.

    The bundled VGG-16 stands in for the default, a VGG-16, where that is not there; it is said. Raises OptionError,
    FormatError, UnsupportedError.
    """
    if path == DEFAULT_LOSS_NETWORK and not Path(path).is_file():
        notice(f"No {path} here: using the bundled VGG-16 instead (-loss_network names another network)")
        path = str(model_files.bundled())
    try:
        with Path(path).open("rb") as file:
            if not t7.looks_like(file.read(_HEAD)):
                return from_netparameter(model_files.load(path, file))
            return sequential(network.from_t7(t7.read(path, file), path), path)
    except OSError as error:
        raise OptionError(
            f"-loss_network {path}: {error.strerror}; give a VGG-16, for example {model_files.bundled()}, which comes"
            " with this program"
        ) from error


def checkpoint(path: str) -> torch.nn.Sequential:
    """The network of a checkpoint of train.lua; raises OptionError, FormatError, UnsupportedError."""
    try:
        content = t7.read(path)
    except OSError as error:
        raise OptionError(
            f"-resume_from_checkpoint {path}: {error.strerror or error}; give a .t7 file that th train.lua wrote"
        ) from error
    return sequential(network.from_checkpoint(content, path).network, path)


def sequential(modules: torch.nn.Module, path: str) -> torch.nn.Sequential:
    """The same network; raises UnsupportedError where it is no nn.Sequential."""
    if not isinstance(modules, torch.nn.Sequential):
        raise UnsupportedError(f"{path}: its network is no nn.Sequential; give a file of fast-neural-style")
    return modules

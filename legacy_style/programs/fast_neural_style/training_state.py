"""All of a training in one file (`--state`), from which it goes on bit for bit (`--resume`).

It holds the weights and the running averages of the norms, Adam's moments, the learning rate, the number of the
iteration and the losses so far. Batches need nothing: their number and the seed say what is in them. Files are read
with `weights_only=True`: they hold tensors and plain values, no code.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from legacy_style import files
from legacy_style.errors import FormatError, OptionError
from legacy_style.programs.fast_neural_style import trainer as training
from legacy_style.programs.fast_neural_style.train_options import MAY_CHANGE, TrainingSettings
from legacy_style.torch7.optim import AdamState

FORMAT = "legacy-style training 1"

_CONTENT = {"options", "seed", "iteration", "learning_rate", "padding", "weights", "adam", "history"}


def collect(trainer: training.Trainer) -> dict[str, Any]:
    """All of a training as it is now, but for the losses so far; nothing in it changes when the training goes on."""
    first = trainer.model[0]
    reflect_start = trainer.settings.architecture.padding_type == "reflect-start"
    padding = first.padding if isinstance(first, torch.nn.ReflectionPad2d) and reflect_start else ()
    return {
        "format": FORMAT,
        "options": dict(trainer.settings.options),
        "seed": trainer.seed,
        "iteration": trainer.iteration,
        "learning_rate": trainer.learning_rate,
        "padding": list(padding),
        "weights": {name: each.detach().clone() for name, each in trainer.model.state_dict().items()},
        "adam": {"t": trainer.adam.t, "m": _copy(trainer.adam.m), "v": _copy(trainer.adam.v)},
    }


def write(path: str, content: dict[str, Any], history: training.History) -> None:
    """Keep what `collect` gave, with the losses until then; raises OptionError where the file cannot be written."""
    losses = asdict(history)
    losses["train_loss_history"] = losses["train_loss_history"][: content["iteration"]]
    parts = losses["style_loss_history"]
    losses["style_loss_history"] = {name: part[: content["iteration"]] for name, part in parts.items()}
    try:
        with files.replacing(path) as file:
            torch.save({**content, "history": losses}, file)
    except OSError as error:
        raise OptionError(f"--state {path}: could not be written: {files.reason(error)}") from error


def read(path: str) -> dict[str, Any]:
    """The content of a file of `write`. Raises OptionError where it cannot be read, FormatError where it is none."""
    try:
        with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            broken = archive.testzip()  # torch reads over wrong checksums
            file.seek(0)
            content = None if broken else torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise OptionError(f"--resume {path}: there is no such file; give the one of --state") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        OSError,
    ) as error:
        raise FormatError(
            f"{path}: not the state of a training, or a broken one; give the file of --state"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= _CONTENT:
        raise FormatError(
            f"{path}: not the state of a training of this version, {FORMAT!r}; give the file of --state"
        )
    return content


def check_same(path: str, content: dict[str, Any], settings: TrainingSettings) -> None:
    """Raise OptionError, saying what changed, where the options are not those that the training was begun with."""
    changes = [
        f"{name} was {content['options'].get(name)!r} and is {value!r}"
        for name, value in settings.options.items()
        if name not in MAY_CHANGE and content["options"].get(name) != value
    ]
    if changes:
        raise OptionError(
            f"--resume {path}: this is not the training of that file: {'; '.join(changes)}. Give the options that it"
            " was begun with, or begin anew from its weights with -resume_from_checkpoint"
        )


def restore(content: dict[str, Any], trainer: training.Trainer) -> None:
    """Put a new trainer with the same options where the other one was."""
    if content["padding"]:
        trainer.model.insert(0, torch.nn.ReflectionPad2d(tuple(content["padding"])))
    trainer.model.load_state_dict(content["weights"])
    moments = content["adam"]
    device = trainer.device
    if moments["m"] is not None:
        trainer.adam = AdamState(moments["t"], moments["m"].to(device), moments["v"].to(device))
    trainer.iteration, trainer.learning_rate = content["iteration"], content["learning_rate"]
    trainer.history = training.History(**content["history"])


def _copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.clone()

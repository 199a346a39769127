"""All of a training in one file (`--state`), from which it goes on bit for bit (`--resume`).

It holds the weights and the running averages of the norms, Adam's moments, the learning rate, the number of the
iteration and the losses so far. Batches need nothing: their number and the seed say what is in them. Files are read
with `weights_only=True`: they hold tensors and plain values, no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from legacy_style import files
from legacy_style.engine import checkpoint
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
        with Path(path).open("rb") as file:
            content, damage = checkpoint.unpacked(file)
    except OSError as error:
        raise OptionError(f"--resume {path}: {files.reason(error)}; give the file of --state") from error
    if damage:
        raise _not_one(path, f"not the state of a training, or a broken one: it is {damage}")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= _CONTENT:
        raise _not_one(path, f"not the state of a training of this version, {FORMAT!r}")
    what = _wrong(content)
    if what:
        raise _not_one(path, f"not the state of a training any more: its {what} cannot be")
    return content


def _wrong(content: Mapping[str, Any]) -> str:
    """Which part of a state is not of its kind, "" if none is."""
    padding, weights, moments, history = (content[name] for name in ("padding", "weights", "adam", "history"))
    if not isinstance(content["options"], dict):
        return "options"
    for name in ("seed", "iteration"):
        if type(content[name]) is not int or content[name] < 0:
            return name
    if type(content["learning_rate"]) is not float:
        return "learning rate"
    if not (isinstance(padding, list) and len(padding) in (0, 4) and all(type(n) is int for n in padding)):
        return "padding"
    if not isinstance(weights, dict) or not all(isinstance(each, torch.Tensor) for each in weights.values()):
        return "weights"
    if not isinstance(moments, dict) or not moments.keys() >= {"t", "m", "v"}:
        return "optimiser's state"
    if type(moments["t"]) is not int or moments["t"] < 0:
        return "optimiser's number of steps"
    return "" if isinstance(history, dict) and _is_history(history) else "losses"


def _is_history(history: Mapping[str, Any]) -> bool:
    parts = history.get("style_loss_history")
    lists = [each for name, each in history.items() if name != "style_loss_history"]
    return (
        history.keys() == {each.name for each in fields(training.History)}
        and isinstance(parts, dict)
        and all(
            isinstance(some, list) and all(type(n) in (int, float) for n in some)
            for some in (*lists, *parts.values())
        )
    )


def _not_one(path: str, what: str) -> FormatError:
    return FormatError(f"{path}: {what}; give the file of --state")


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


def restore(path: str, content: dict[str, Any], trainer: training.Trainer) -> None:
    """Put a new trainer with the same options where the other one was.

    Raises FormatError where the tensors are not those of its network.
    """
    if content["padding"]:
        trainer.model.insert(0, torch.nn.ReflectionPad2d(tuple(content["padding"])))
    moments, parameters = content["adam"], trainer.parameters
    kept = {name: moments[name] for name in ("m", "v")}
    fit = [
        isinstance(each, torch.Tensor) and (each.dtype, each.shape) == (parameters.dtype, parameters.shape)
        for each in kept.values()
    ]
    if not all(fit) and any(each is not None for each in kept.values()):
        raise _not_one(
            path, "not the state of a training any more: its optimiser's state does not fit its network"
        )
    try:
        trainer.model.load_state_dict(content["weights"])
    except RuntimeError as error:
        raise _not_one(
            path, "not the state of a training any more: its weights are not those of its network"
        ) from error
    if kept["m"] is not None:
        trainer.adam = AdamState(moments["t"], *(each.to(trainer.device) for each in kept.values()))
    trainer.iteration, trainer.learning_rate = content["iteration"], content["learning_rate"]
    trainer.history = training.History(**content["history"])


def _copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.clone()

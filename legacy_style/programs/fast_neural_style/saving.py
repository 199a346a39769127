"""The checkpoints of train.lua: NAME.json with the losses so far, and NAME.t7 with the network too.

Ports jcjohnson/fast-neural-style 813c834, train.lua and utils.lua (write_json), and lua-cjson 718f272's way to write
numbers (%.14g) and strings (`\\/`). Notes: both files have the same names every time; an empty table is `{}`; a
number that is not finite ended the original, and is an error here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from legacy_style import files
from legacy_style.errors import DivergenceError, OptionError
from legacy_style.formats import t7
from legacy_style.programs.fast_neural_style import network
from legacy_style.programs.fast_neural_style.train_options import ORIGINAL, TrainingSettings
from legacy_style.programs.fast_neural_style.trainer import History


def write_checkpoint(settings: TrainingSettings, model: torch.nn.Module, history: History) -> None:
    """Write NAME.json and NAME.t7, and the folder that they are in.

    Raises OptionError where they cannot be written, DivergenceError where a loss is not finite any more.
    """
    name = settings.checkpoint_name
    table: dict[str, Any] = {"opt": options_table(settings), **asdict(history)}
    if settings.task != "style":
        del table["style_loss_history"]
    text = lua_json(table)
    try:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(f"{name}.json", text.encode("utf-8", "surrogateescape"))
        t7.write(f"{name}.t7", {**table, "model": _with_gradients(model)})
    except OSError as error:
        raise OptionError(f"-checkpoint_name {name}: could not be written: {files.reason(error)}") from error


def _with_gradients(model: torch.nn.Module) -> t7.TorchObject:
    """The network with the gradients of the last iteration, without which Torch7 could not train it further."""
    tree = network.to_t7(model)
    gradients = (None if each.grad is None else each.grad.cpu().numpy().copy() for each in model.parameters())
    for module in _modules(tree):
        for name in ("weight", "bias"):
            gradient = next(gradients) if name in module.fields else None
            if gradient is not None:
                module.fields[f"grad{name.title()}"] = gradient
    return tree


def _modules(tree: t7.TorchObject) -> Iterator[t7.TorchObject]:
    """A module and all in it, in the order of getParameters."""
    yield tree
    for child in tree.get("modules", []):
        yield from _modules(child)


def options_table(settings: TrainingSettings) -> dict[str, Any]:
    """The original's options as a checkpoint has them: layers and weights are lists."""
    table: dict[str, Any] = {option.key[1:]: settings.options[option.key[1:]] for option in ORIGINAL}
    for kind, layers in (("content", settings.content), ("style", settings.style)):
        table[f"{kind}_layers"] = list(layers.weights)
        table[f"{kind}_weights"] = list(layers.weights.values())
    return table


def lua_json(value: Any) -> str:
    """`value` as lua-cjson writes it: numbers with 14 digits, no blanks; raises DivergenceError for one not finite."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{lua_json(str(key))}:{lua_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(lua_json, value)) + "]" if value else "{}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("/", "\\/")
    if not math.isfinite(value):
        raise DivergenceError(
            "Cannot serialise number: must not be NaN or Infinity: a loss is not finite, so there is no checkpoint;"
            " choose a smaller -learning_rate, and -num_val_batches 1 or more"
        )
    return f"{value:.14g}"

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

import numpy as np
import torch
from torch import nn

from legacy_style import files
from legacy_style.errors import DivergenceError, OptionError, UnsupportedError
from legacy_style.formats import t7
from legacy_style.formats.t7 import TorchObject
from legacy_style.programs.fast_neural_style import layers, shapes
from legacy_style.programs.fast_neural_style.train_options import ORIGINAL, TrainingSettings
from legacy_style.programs.fast_neural_style.trainer import History

_FLOAT_TENSOR = "torch.FloatTensor"


def write_checkpoint(settings: TrainingSettings, model: nn.Module, history: History) -> None:
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


def _with_gradients(model: nn.Module) -> TorchObject:
    """The network with the gradients of the last iteration, without which Torch7 could not train it further."""
    tree = to_t7(model)
    gradients = (None if each.grad is None else each.grad.cpu().numpy().copy() for each in model.parameters())
    for module in _modules(tree):
        for name in ("weight", "bias"):
            gradient = next(gradients) if name in module.fields else None
            if gradient is not None:
                module.fields[f"grad{name.title()}"] = gradient
    return tree


def _modules(tree: TorchObject) -> Iterator[TorchObject]:
    """A module and all in it, in the order of getParameters."""
    yield tree
    for child in tree.get("modules", []):
        yield from _modules(child)


def options_table(settings: TrainingSettings) -> dict[str, Any]:
    """The original's options as a checkpoint has them: layers and weights are lists."""
    table: dict[str, Any] = {option.key[1:]: settings.options[option.key[1:]] for option in ORIGINAL}
    for kind, weighted in (("content", settings.content), ("style", settings.style)):
        table[f"{kind}_layers"] = list(weighted.weights)
        table[f"{kind}_weights"] = list(weighted.weights.values())
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


def to_t7(module: nn.Module) -> TorchObject:
    """A network as train.lua saves it: cleared, in single precision, with empty gradients.

    All weights are views of one array, as after getParameters. Raises UnsupportedError for a module that Torch7 lacks.
    """
    with torch.no_grad():
        parameters = [each.detach().cpu().float().numpy() for each in module.parameters()]
    flat = np.concatenate([each.ravel() for each in parameters]) if parameters else np.zeros(0, np.float32)
    ends = np.cumsum([each.size for each in parameters])
    views = [
        flat[end - each.size : end].reshape(each.shape) for each, end in zip(parameters, ends, strict=True)
    ]
    return _NetworkWriter(iter(views)).write(module)


class _NetworkWriter:
    """Writes modules as Torch7 has them; `weights` gives the parameters in the order of getParameters."""

    def __init__(self, weights: Iterator[np.ndarray[Any, Any]]) -> None:
        self.weights = weights

    def write(self, module: nn.Module) -> TorchObject:
        if isinstance(module, nn.Sequential):
            return _object("Sequential", modules=[self.write(each) for each in module])
        if isinstance(module, layers.ConcatTable):
            return _object("ConcatTable", output={}, modules=[self.write(each) for each in module])
        weights = {name: next(self.weights) for name, _ in module.named_parameters()}
        if set(weights) - {"weight", "bias"}:
            raise UnsupportedError(f"{type(module).__name__} cannot be written as a Torch7 module")
        gradients = {f"grad{name.title()}": _empty() for name in weights}
        name, fields = layers.torch7_name(module), _fields(module)
        version = 2 if isinstance(module, nn.BatchNorm2d) else 1
        return _object(name, version, **fields, **weights, **gradients)


def _object(name: str, version: int = 1, **fields: Any) -> TorchObject:
    common = {"_type": _FLOAT_TENSOR, "output": _empty(), "gradInput": _empty(), "train": True}
    return TorchObject(f"nn.{name}", {**common, **fields}, version)


def _empty() -> np.ndarray[Any, Any]:
    return np.zeros(0, np.float32)


def _fields(module: nn.Module) -> dict[str, Any]:
    """The fields that Torch7's class for a module has besides weights and gradients."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return _convolution_fields(module)
    if isinstance(module, nn.BatchNorm2d):
        return _norm_fields(module)
    if isinstance(module, layers.InstanceNormalization):
        channels = module.channels
        inner = _object(
            "SpatialBatchNormalization",
            2,
            **_norm_fields(nn.BatchNorm2d(channels, module.eps)),
            **_ones(channels),
        )
        return {"eps": module.eps, "nOutput": channels, "prev_N": 1, "bn": inner}
    if isinstance(module, nn.ReLU):
        return {"threshold": 0, "val": 0, "inplace": module.inplace}
    if isinstance(module, layers.MulConstant):
        return {"constant_scalar": module.constant, "inplace": False}
    if isinstance(module, layers.TotalVariation):
        return {"strength": module.strength, "x_diff": _empty(), "y_diff": _empty()}
    if isinstance(module, layers.ShaveImage):
        return {"size": module.size}
    if isinstance(module, nn.ReflectionPad2d | nn.ReplicationPad2d):
        return {f"pad_{side}": size for side, size in zip("lrtb", module.padding, strict=True)}
    if isinstance(module, nn.Upsample) and module.mode == "nearest":
        sizes = {name: np.ones(4, np.int64) for name in ("inputSize", "outputSize")}
        return {"scale_factor": shapes.upsampling(module), **sizes}
    if isinstance(module, layers.CAddTable):
        return {"gradInput": {}}
    if isinstance(module, nn.Identity | nn.Tanh):
        return {}
    raise UnsupportedError(f"{type(module).__name__} cannot be written as a Torch7 module")


def _convolution_fields(module: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    if module.groups != 1 or tuple(module.dilation) != (1, 1) or isinstance(module.padding, str):
        raise UnsupportedError("a convolution with groups or dilation cannot be written as a Torch7 module")
    fields: dict[str, Any] = {"nInputPlane": module.in_channels, "nOutputPlane": module.out_channels}
    pairs = {"k": module.kernel_size, "d": module.stride, "pad": module.padding}
    if isinstance(module, nn.ConvTranspose2d):
        pairs["adj"] = module.output_padding
        fields["ones"] = _empty()
    for key, (vertical, horizontal) in pairs.items():
        fields[f"{key}H"], fields[f"{key}W"] = vertical, horizontal
    return {**fields, "finput": _empty(), "fgradInput": _empty()}


def _norm_fields(module: nn.BatchNorm2d) -> dict[str, Any]:
    assert module.running_mean is not None and module.running_var is not None
    statistics = {
        "running_mean": module.running_mean.detach().cpu().float().numpy(),
        "running_var": module.running_var.detach().cpu().float().numpy(),
    }
    return {
        "eps": module.eps,
        "momentum": module.momentum,
        "affine": module.affine,
        **statistics,
        "save_mean": _empty(),
        "save_std": _empty(),
    }


def _ones(channels: int) -> dict[str, np.ndarray[Any, Any]]:
    zeros = {name: np.zeros(channels, np.float32) for name in ("bias", "gradWeight", "gradBias")}
    return {"weight": np.ones(channels, np.float32), **zeros}

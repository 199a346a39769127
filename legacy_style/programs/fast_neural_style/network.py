"""Torch7 networks as torch.nn modules: the trees of a .t7 file, and nothing but data. `saving` is the way back.

Ports the constructors of torch/nn 8726825 and of jcjohnson/fast-neural-style 813c834. Handles what checkpoints of
fast-neural-style and the loss networks of scripts/convert_network.lua are made of, their cudnn.* twins, and what files
of 2015 hold (nn.SpatialConvolutionMM, weights as matrices, batch norms of version 1). Notes: modules keep Torch7's
structure and order, so parameters come in the order of getParameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from legacy_style.errors import FormatError, UnsupportedError
from legacy_style.formats import t7
from legacy_style.formats.t7 import TorchObject
from legacy_style.programs.fast_neural_style import layers, preprocess

_DEEPEST = 100  # nested modules; networks have about ten

_NORM_EPS = 1e-5  # of nn.SpatialBatchNormalization, where a file has none


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network; `options`: those of its training; `bare`: the file holds the network alone."""

    network: nn.Module
    preprocessing: preprocess.Preprocessing
    options: Mapping[str, Any]
    bare: bool


def from_checkpoint(content: object, path: str) -> TrainedNetwork:
    """The network of a file that train.lua wrote, or convert_network.lua, whose files hold a network and no options.

    `content` is what formats.t7 reads from `path`. Raises FormatError, UnsupportedError.
    """
    if isinstance(content, TorchObject):
        return TrainedNetwork(from_t7(content, path), preprocess.by_name(preprocess.DEFAULT), {}, bare=True)
    model = content.get("model") if isinstance(content, Mapping) else None
    options = content.get("opt") if isinstance(content, Mapping) else None
    if not isinstance(model, TorchObject) or not isinstance(options, Mapping):
        raise FormatError(
            f"{path}: not a checkpoint of fast-neural-style, which is a table with the keys 'model' and 'opt'"
            f" ({_what(content)}); give a file that th train.lua wrote"
        )
    named = options.get("preprocessing") or preprocess.DEFAULT
    try:
        preprocessing = preprocess.by_name(named if isinstance(named, str) else _what(named))
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from None
    return TrainedNetwork(from_t7(model, path), preprocessing, options, bare=False)


def from_t7(tree: TorchObject, path: str = "network") -> nn.Module:
    """A Torch7 network as torch.nn modules, in evaluation mode, with weights of its own.

    Raises UnsupportedError for a class that is not known here, FormatError for fields that make no sense; `path` is the
    file, for the messages.
    """
    return _build(tree, path, ()).eval()


def _build(tree: object, path: str, place: tuple[int, ...]) -> nn.Module:
    where = f"{path}: module {'-'.join(map(str, place))}" if place else path
    if len(place) > _DEEPEST:
        raise FormatError(f"{path}: modules are nested more than {_DEEPEST} deep")
    if not isinstance(tree, TorchObject):
        raise FormatError(f"{where}: {_what(tree)} where a module of nn should be")
    kind = tree.typename.removeprefix("nn.").removeprefix("cudnn.")
    if kind in ("Sequential", "ConcatTable"):
        children = [
            _build(each, path, (*place, number)) for number, each in enumerate(_children(tree, where), 1)
        ]
        if kind == "Sequential":
            return nn.Sequential(*children)
        if len(children) < 2:
            raise FormatError(f"{where}: {tree.typename} has {len(children)} modules, not two or more")
        return layers.ConcatTable(children)
    if kind not in _BUILDERS:
        raise UnsupportedError(
            f"{where}: {tree.typename} is not a module that this program can run; it runs nn's"
            f" {', '.join(sorted(('Sequential', 'ConcatTable', *_BUILDERS)))}"
        )
    try:
        return _BUILDERS[kind](tree)
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        missing = f"it has no field {error}" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{where}: {tree.typename} is broken: {missing}") from error


def _children(tree: TorchObject, where: str) -> list[object]:
    modules = tree.get("modules")
    if isinstance(modules, list):
        return modules
    if isinstance(modules, Mapping) and not modules:
        return []
    raise FormatError(f"{where}: {tree.typename} has no list of modules")


def _what(thing: object) -> str:
    if isinstance(thing, TorchObject):
        return str(thing.typename)
    if isinstance(thing, Mapping):
        return f"a table with {', '.join(map(repr, list(thing)[:6])) or 'nothing in it'}"
    return "a list" if isinstance(thing, list) else f"a {type(thing).__name__}"


def _tensor(tree: TorchObject, name: str, *shape: int) -> Tensor:
    """A copy of a field as float32 of that shape."""
    array = tree.fields[name]
    if not isinstance(array, np.ndarray) or array.size != np.prod(shape):
        found = tuple(array.shape) if isinstance(array, np.ndarray) else _what(array)
        raise ValueError(f"{name} is {found}, and {shape} is expected")
    return torch.from_numpy(np.array(array, np.float32).reshape(shape))


def _whole(tree: TorchObject, name: str, default: int | None = None) -> int:
    number = tree.fields[name] if default is None else tree.get(name, default)
    if isinstance(number, bool) or not isinstance(number, int | float) or number != int(number):
        raise ValueError(f"{name} is {t7.shown(number)}, not a whole number")
    return int(number)


def _pair(tree: TorchObject, name: str, default: int | None = None, *, least: int = 0) -> tuple[int, int]:
    """Vertical, horizontal."""
    pair = _whole(tree, f"{name}H", default), _whole(tree, f"{name}W", default)
    if min(pair) < least:
        raise ValueError(f"{name}H and {name}W are {pair[0]} and {pair[1]}, not {least} or more")
    return pair


def _load(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    module.load_state_dict({name: each for name, each in tensors.items() if each is not None}, strict=False)
    return module


def _planes(tree: TorchObject) -> tuple[int, int]:
    """Channels in, channels out."""
    return _whole(tree, "nInputPlane"), _whole(tree, "nOutputPlane")


def _convolution(tree: TorchObject) -> nn.Module:
    (inputs, outputs), kernel, groups = _planes(tree), _pair(tree, "k", least=1), _whole(tree, "groups", 1)
    # A matrix in nn.SpatialConvolutionMM.
    weight = _tensor(tree, "weight", outputs, inputs // groups, *kernel)
    bias = None if tree.get("bias") is None else _tensor(tree, "bias", outputs)
    stride, pad = _pair(tree, "d", least=1), _pair(tree, "pad", _whole(tree, "padding", 0))
    dilation = _pair(tree, "dilation", 1, least=1)
    module = nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups, bias is not None)
    return _load(module, weight=weight, bias=bias)


def _full_convolution(tree: TorchObject) -> nn.Module:
    (inputs, outputs), kernel = _planes(tree), _pair(tree, "k", least=1)
    stride, pad, more = _pair(tree, "d", least=1), _pair(tree, "pad", 0), _pair(tree, "adj", 0)
    if more[0] >= stride[0] or more[1] >= stride[1]:
        raise ValueError(f"adjH and adjW are {more[0]} and {more[1]}, not less than its strides")
    weight = _tensor(tree, "weight", inputs, outputs, *kernel)
    bias = None if tree.get("bias") is None else _tensor(tree, "bias", outputs)
    module = nn.ConvTranspose2d(inputs, outputs, kernel, stride, pad, more, bias=bias is not None)
    return _load(module, weight=weight, bias=bias)


def _batch_norm(tree: TorchObject) -> nn.Module:
    mean = tree.fields["running_mean"]
    channels, eps = np.asarray(mean).size, float(tree.get("eps", _NORM_EPS))
    affine = tree.get("weight") is not None
    if "running_var" in tree.fields:
        variance = _tensor(tree, "running_var", channels)
    else:  # version 1 kept 1 / sqrt(variance + eps)
        variance = _tensor(tree, "running_std", channels).double().pow(-2).sub(eps).float()
    module = layers.BatchNormalization(channels, eps, float(tree.get("momentum", 0.1)), affine)
    return _load(
        module,
        running_mean=_tensor(tree, "running_mean", channels),
        running_var=variance,
        weight=_tensor(tree, "weight", channels) if affine else None,
        bias=_tensor(tree, "bias", channels) if affine else None,
    )


def _instance_norm(tree: TorchObject) -> nn.Module:
    channels = np.asarray(tree.fields["weight"]).size
    module = layers.InstanceNormalization(channels, float(tree.get("eps", layers.INSTANCE_NORM_EPS)))
    return _load(module, weight=_tensor(tree, "weight", channels), bias=_tensor(tree, "bias", channels))


def _relu(tree: TorchObject) -> nn.Module:
    threshold, value = float(tree.get("threshold", 0)), float(tree.get("val", 0))
    inplace = bool(tree.get("inplace", False))
    return (
        nn.ReLU(inplace) if (threshold, value) == (0, 0) else nn.Threshold(threshold, value, inplace=inplace)
    )


def _padding(tree: TorchObject) -> tuple[int, int, int, int]:
    left, right, top, bottom = (_whole(tree, f"pad_{side}") for side in "lrtb")
    return left, right, top, bottom


def _pooling(tree: TorchObject) -> nn.Module:
    kernel, stride, pad = _pair(tree, "k", least=1), _pair(tree, "d", least=1), _pair(tree, "pad", 0)
    ceil = bool(tree.get("ceil_mode", False))
    if tree.typename.endswith("MaxPooling"):
        return nn.MaxPool2d(kernel, stride, pad, ceil_mode=ceil)
    counted = bool(tree.get("count_include_pad", True))
    return nn.AvgPool2d(kernel, stride, pad, ceil, counted)


def _cross_map_lrn(tree: TorchObject) -> nn.Module:
    size = _whole(tree, "size", 5)
    if size < 1:
        raise ValueError(f"size is {size}, not 1 or more")
    alpha, beta, k = (
        float(tree.get(name, given)) for name, given in (("alpha", 1e-4), ("beta", 0.75), ("k", 1.0))
    )
    return layers.CrossMapLRN(size, alpha, beta, k)


def _linear(tree: TorchObject) -> nn.Module:
    outputs, inputs = np.asarray(tree.fields["weight"]).shape
    bias = None if tree.get("bias") is None else _tensor(tree, "bias", outputs)
    module = nn.Linear(inputs, outputs, bias is not None)
    return _load(module, weight=_tensor(tree, "weight", outputs, inputs), bias=bias)


def _upsampling(tree: TorchObject) -> nn.Module:
    scale = _whole(tree, "scale_factor")
    if scale < 1:
        raise ValueError(f"scale_factor is {scale}, not 1 or more")
    return nn.Upsample(scale_factor=scale)


_BUILDERS: Mapping[str, Callable[[TorchObject], nn.Module]] = {
    "SpatialConvolution": _convolution,
    "SpatialConvolutionMM": _convolution,
    "SpatialDilatedConvolution": _convolution,
    "SpatialFullConvolution": _full_convolution,
    "SpatialBatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "ReLU": _relu,
    "Tanh": lambda tree: nn.Tanh(),
    "Sigmoid": lambda tree: nn.Sigmoid(),
    "Identity": lambda tree: nn.Identity(),
    "SpatialCrossMapLRN": _cross_map_lrn,
    "MulConstant": lambda tree: layers.MulConstant(float(tree.fields["constant_scalar"])),
    "TotalVariation": lambda tree: layers.TotalVariation(float(tree.fields["strength"])),
    "ShaveImage": lambda tree: layers.ShaveImage(_whole(tree, "size")),
    "CAddTable": lambda tree: layers.CAddTable(),
    "SpatialReflectionPadding": lambda tree: nn.ReflectionPad2d(_padding(tree)),
    "SpatialReplicationPadding": lambda tree: nn.ReplicationPad2d(_padding(tree)),
    "SpatialZeroPadding": lambda tree: nn.ZeroPad2d(_padding(tree)),
    "SpatialUpSamplingNearest": _upsampling,
    "SpatialMaxPooling": _pooling,
    "SpatialAveragePooling": _pooling,
    "View": lambda tree: layers.View(),
    "Linear": _linear,
    "Dropout": lambda tree: nn.Dropout(float(tree.get("p", 0.5))),
    "SoftMax": lambda tree: nn.Softmax(1),
}

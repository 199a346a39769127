"""A network in a .t7 file as a NetParameter: Torch7's layers under Caffe's names where Caffe has the same.

The way back from loadcaffe e691592, for files that it has made, and for any other network of nn. A layer that
Caffe does not have, or has not with these numbers, keeps the name of its Torch7 class as its type ("nn.View",
"nn.InstanceNormalization"), and its weights: it can be looked at and converted, and only who runs it gets an
error. Notes: a plain VGG whose layers have no names gets Oxford's. A pooling layer of Torch7's rounds its size
down unless it was told otherwise, Caffe's up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError
from legacy_style.formats import vgg
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter, float32
from legacy_style.formats.t7 import nn, reader
from legacy_style.formats.t7.nn import T7Layer
from legacy_style.formats.t7.objects import Function, TorchObject

_Made = tuple[str, dict[str, Message]] | None


def read(path: str | os.PathLike[str], file: BinaryIO | None = None) -> NetParameter:
    """The network of a .t7 file; its weights stay in the file until they are asked for.

    `file` is the one at `path` where it is open already.

    Errors: those of `reader.read`, `nn.network` and `nn.layers`.
    """
    name = os.fspath(path)
    content = reader.read(name, file)
    net = from_module(nn.network(content, name), name)
    net.notes = notes(content)
    return net


def from_module(module: TorchObject, path: str = "network") -> NetParameter:
    """The layers of an nn module; FormatError where it is broken."""
    found = nn.layers(module, path)
    names = _oxford_names(found)
    layers = []
    for index, layer in enumerate(found):
        following = found[index + 1].kind if index + 1 < len(found) else ""
        if layer.kind in ("View", "Reshape") and following == "Linear":
            # Caffe's inner products flatten what they get.
            names[layer.name] = names.get(layer.inputs[0], layer.inputs[0])
            continue
        try:
            layers.append(_layer(layer, names))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
    return NetParameter(layers=layers, version="", path=path)


def notes(content: Any) -> list[str]:
    """What else the file holds: functions, and how a fast-neural-style checkpoint was trained (`name: value`)."""
    functions = sum(isinstance(item, Function) for item in nn.reachable(content))
    told = [f"{functions} Lua functions, which are never run"] if functions else []
    options = content.get("opt") if isinstance(content, dict) else None
    if not isinstance(options, dict):
        return told
    texts = {}
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(name, str) and all(isinstance(each, (str, int, float)) for each in values):
            texts[name] = ",".join(map(str, values))
    return told + [f"{name}: {text}" for name, text in sorted(texts.items())]


def _layer(layer: T7Layer, names: dict[str, str]) -> LayerParameter:
    made = _MAKERS.get(layer.kind, _nothing)(layer)
    kind, params = made or (layer.kind if "." in layer.kind else f"nn.{layer.kind}", {})
    name = names.get(layer.name, layer.name)
    return LayerParameter(
        name,
        kind,
        [names.get(each, each) for each in layer.inputs],
        [name],
        [_blob(values) for values in layer.weights.values()],
        params,
        unknown={} if made else _numbers(layer),
    )


def _numbers(layer: T7Layer) -> dict[int | str, list[Any]]:
    """The numbers of a module that Caffe does not have, by name: its paddings, its sizes."""
    fields = layer.module.fields.items()
    return {name: [value] for name, value in fields if isinstance(name, str) and type(value) in (int, float)}


def _blob(values: NDArray[Any]) -> Blob:
    return Blob(values.shape, partial(_single, values), values.size)


def _single(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


def _nothing(_layer: T7Layer) -> _Made:
    return None


def _convolution(layer: T7Layer) -> _Made:
    stride, pad = layer.pair("dH", "dW", 1), layer.pair("padH", "padW", layer.whole("padding"))
    dilation, groups = layer.pair("dilationH", "dilationW", 1), layer.whole("groups", 1)
    kernel, transposed = layer.pair("kH", "kW", 0), layer.kind == "SpatialFullConvolution"
    if min(*stride, *dilation) < 1 or min(pad) < 0 or "weight" not in layer.weights:
        return None
    if transposed and (layer.whole("adjH") or layer.whole("adjW")):
        return None  # Caffe has no such
    values: dict[str, Any] = {"num_output": layer.whole("nOutputPlane")}
    if "bias" not in layer.weights:
        values["bias_term"] = False
    if max(pad):
        values["pad"] = nn.sequence(pad)
    values["kernel_size"] = nn.sequence(kernel)
    if groups > 1:
        values["group"] = groups
    if max(stride) > 1:
        values["stride"] = nn.sequence(stride)
    if max(dilation) > 1:
        values["dilation"] = nn.sequence(dilation)
    message = Message("ConvolutionParameter", **values)
    return "Deconvolution" if transposed else "Convolution", {"convolution_param": message}


def _linear(layer: T7Layer) -> _Made:
    weight = layer.weights.get("weight")
    if weight is None or weight.ndim != 2:
        return None
    values: dict[str, Any] = {"num_output": weight.shape[0]}
    if "bias" not in layer.weights:
        values["bias_term"] = False
    return "InnerProduct", {"inner_product_param": Message("InnerProductParameter", **values)}


def _pooling(layer: T7Layer) -> _Made:
    kernel, stride = layer.pair("kH", "kW", 1), layer.pair("dH", "dW", 1)
    pad = layer.pair("padH", "padW", 0)
    average = layer.kind == "SpatialAveragePooling"
    # A mean is over the window as it lies on the map in Caffe, the padding included.
    uncommon = average and (layer.module.get("divide") is False or max(pad) > 0)
    if min(*kernel, *stride) < 1 or min(pad) < 0 or pad[0] != pad[1] or uncommon:
        return None
    values: dict[str, Any] = {"pool": "AVE" if average else "MAX"}
    for name, (down, across) in (("kernel", kernel), ("stride", stride)):
        if down == across:
            values["kernel_size" if name == "kernel" else name] = down
        else:
            values |= {f"{name}_h": down, f"{name}_w": across}
    if pad[0]:
        values["pad"] = pad[0]
    if layer.module.get("ceil_mode") is not True:
        values["round_mode"] = "FLOOR"
    return "Pooling", {"pooling_param": Message("PoolingParameter", **values)}


def _relu(layer: T7Layer) -> _Made:
    return ("ReLU", {}) if layer.number("threshold") == layer.number("val") == 0 else None


def _leaky_relu(layer: T7Layer) -> _Made:
    message = Message("ReLUParameter", negative_slope=float32(layer.number("negval", 0.01)))
    return "ReLU", {"relu_param": message}


def _power(layer: T7Layer) -> _Made:
    name = "scale" if layer.kind == "MulConstant" else "shift"
    constant = float32(layer.number("constant_scalar"))
    return "Power", {"power_param": Message("PowerParameter", **{name: constant})}


def _lrn(layer: T7Layer) -> _Made:
    values = {name: float32(layer.number(name, given)) for name, given in _LRN_DEFAULTS.items()}
    message = Message("LRNParameter", local_size=layer.whole("size", 5), **values)
    return "LRN", {"lrn_param": message}


# SpatialCrossMapLRN.lua
_LRN_DEFAULTS = {"alpha": 1e-4, "beta": 0.75, "k": 1.0}


def _batch_norm(layer: T7Layer) -> _Made:
    message = Message("BatchNormParameter", eps=float32(layer.number("eps", 1e-5)))
    return "nn.SpatialBatchNormalization", {"batch_norm_param": message}


def _dropout(layer: T7Layer) -> _Made:
    return "Dropout", {
        "dropout_param": Message("DropoutParameter", dropout_ratio=float32(layer.number("p", 0.5)))
    }


def _join(layer: T7Layer) -> _Made:
    if layer.kind in ("CAddTable", "CMulTable", "CMaxTable"):
        operation = {"CAddTable": "SUM", "CMulTable": "PROD", "CMaxTable": "MAX"}[layer.kind]
        return "Eltwise", {"eltwise_param": Message("EltwiseParameter", operation=operation)}
    # The second axis is that of the channels, counted from 1 and over batches, or over single images.
    dimension = layer.whole("dimension", 2) + (1 if layer.whole("nInputDims") == 3 else 0)
    return ("Concat", {}) if dimension == 2 else None


_MAKERS: dict[str, Callable[[T7Layer], _Made]] = {
    **dict.fromkeys(nn.CONVOLUTIONS, _convolution),
    **dict.fromkeys(("SpatialMaxPooling", "SpatialAveragePooling"), _pooling),
    **dict.fromkeys(("SpatialBatchNormalization", "BatchNormalization"), _batch_norm),
    **dict.fromkeys(("MulConstant", "AddConstant"), _power),
    **dict.fromkeys(("CAddTable", "CMulTable", "CMaxTable", "JoinTable", "Concat"), _join),
    "Dropout": _dropout,
    "LeakyReLU": _leaky_relu,
    "Linear": _linear,
    "PReLU": lambda layer: ("PReLU", {}),
    "ReLU": _relu,
    "Sigmoid": lambda layer: ("Sigmoid", {}),
    "SoftMax": lambda layer: ("Softmax", {}),
    "SpatialCrossMapLRN": _lrn,
    "SpatialSoftMax": lambda layer: ("Softmax", {}),
    "Tanh": lambda layer: ("TanH", {}),
}


def _oxford_names(layers: list[T7Layer]) -> dict[str, str]:
    """Place -> Oxford's name (conv1_1, relu1_1, pool1), for a plain VGG whose layers have no names."""
    if any(layer.name != layer.place for layer in layers) or not _is_vgg(layers):
        return {}
    names = {}
    block, number, linear = 1, 0, 5
    for layer in layers:
        if layer.kind == "SpatialConvolution":
            number += 1
            names[layer.name] = f"conv{block}_{number}"
        elif layer.kind == "SpatialMaxPooling":
            names[layer.name] = f"pool{block}"
            block, number = block + 1, 0
        elif layer.kind == "Linear":
            linear += 1
            names[layer.name] = f"fc{linear}"
        elif layer.kind == "ReLU":
            names[layer.name] = f"relu{linear}" if linear > 5 else f"relu{block}_{number}"
        elif layer.kind == "Dropout":
            names[layer.name] = f"drop{linear}"
        elif layer.kind == "SoftMax":
            names[layer.name] = "prob"
    return names


def _is_vgg(layers: list[T7Layer]) -> bool:
    """Whether this is a chain of 3x3 convolutions, each with its ReLU, in Oxford's blocks, and what follows."""
    body = [layer for layer in layers if layer.kind not in ("View", "Reshape")]
    end = next((index for index, layer in enumerate(body) if layer.kind == "Linear"), len(body))
    kinds = [layer.kind for layer in body]
    if any(len(layer.inputs) != 1 for layer in layers) or kinds[:1] != ["SpatialConvolution"]:
        return False
    if not set(kinds[end:]) <= {"Linear", "ReLU", "Dropout", "SoftMax"}:
        return False
    sizes = [0]
    for index, layer in enumerate(body[:end]):
        if layer.kind == "SpatialConvolution":
            if (layer.whole("kH"), layer.whole("kW")) != (3, 3) or kinds[index + 1 : index + 2] != ["ReLU"]:
                return False
            sizes[-1] += 1
        elif layer.kind == "SpatialMaxPooling":
            sizes.append(0)
        elif layer.kind != "ReLU" or kinds[index - 1] != "SpatialConvolution":
            return False
    sizes = sizes if sizes[-1] else sizes[:-1]
    return any(vgg.begins(sizes, blocks) for blocks in vgg.OXFORD_BLOCKS)

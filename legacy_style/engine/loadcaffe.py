"""A network of layers from a NetParameter, whatever file that came from.

Ports loadcaffe e691592 (loadcaffe.lua, loadcaffe.cpp, generic converters for V1 and V2): layers are chained in file
order, their bottoms and tops are ignored, and everything is read from the model, never from the prototxt. Notes: a
padding counts as given per axis only if both axes have one (`pad_h: 0, pad_w: 1` is unpadded); a V2 Softmax ends the
network. Where loadcaffe gave up or dropped layers (groups, V1 blobs with shapes, V2's TanH and more), the layers run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from legacy_style.errors import FormatError, LegacyStyleError, UnsupportedError, WeightMismatchError
from legacy_style.formats.caffe import phases
from legacy_style.formats.caffe.geometry import pair
from legacy_style.formats.caffe.netparam import LayerParameter, Message, NetParameter
from legacy_style.torch7 import nn

# loadcaffe printed nothing for an Input layer's absence in V1 and two lines for anything that it did not know.
_SILENT = {"Input", "Split", ""}

_JOINS = {"Concat", "Eltwise"}


@dataclass
class Module:
    """One layer to be built: `build()` reads its weights and makes it; `size_line` is what loadcaffe prints.

    `obstacle` says why it cannot be run, as far as is known without its weights; "" if it can.
    """

    name: str
    kind: str
    build: Callable[[], nn.Layer]
    size_line: str | None = None
    obstacle: str = ""


def modules(net: NetParameter, wanted: Collection[str] = ()) -> tuple[list[Module], list[str]]:
    """The chain of `net` and the lines that loadcaffe prints about it; no weights are read yet.

    Where the network has branches and layers are `wanted`, the chain is the one that leads to these; UnsupportedError
    where none leads to all of them. A layer that cannot be run is in the chain all the same and raises UnsupportedError
    when it is built, so that a network is usable up to it.
    """
    lines: list[str] = []
    layers: list[LayerParameter] = []
    passed_over = _passed_over(net)
    for index, layer in enumerate(net.layers):
        if layer.type == "Softmax" and layer.v1_type is None and net.version == "V2":
            break
        if index not in passed_over:
            if not _in_training_only(layer):
                layers.append(layer)
        elif layer.type not in _SILENT:
            kind = layer.v1_type if layer.v1_type is not None else layer.type
            lines += [
                f"MODULE {layer.name} UNDEFINED",
                f"warning: module '{layer.name} [type {kind}]' not found",
            ]
    chain: list[Module] = []
    flat = False
    for layer in _leading_to(wanted, layers, net) if wanted else layers:
        if layer.type in ("InnerProduct", "Flatten") and not flat:
            flat = True
            view_name = layer.name if layer.type == "Flatten" else "torch_view"
            chain.append(Module(view_name, "Flatten", partial(nn.View, view_name)))
        if layer.type != "Flatten":
            chain.append(_module(layer, net))
    return chain, lines + [module.size_line for module in chain if module.size_line is not None]


def layer_names(net: NetParameter) -> list[str]:
    """The names of the layers that give features, in network order; some may lie behind one that cannot be run."""
    return [module.name for module in modules(net)[0]]


def usable_names(net: NetParameter, *, read: bool = False) -> list[str]:
    """The names that losses may be attached to: of layers that are reached through layers that can be run.

    Of those on different branches, only one branch's can be used at a time. With `read`, the weights are read, and
    layers whose weights do not fit count as ones that cannot be run.
    """
    found = {module.name: module for module in modules(net)[0]}
    made = {top for layer in net.layers for top in layer.tops if layer.bottoms}
    lost: set[str] = set()  # blobs that cannot be computed
    names = []
    for layer in net.layers:
        module = found.get(layer.name)
        runs = all(bottom not in lost for bottom in layer.bottoms)
        if module is not None and runs:
            runs = _builds(module) if read else not module.obstacle
            names += [layer.name] if runs else []
        (lost.difference_update if runs else lost.update)(made.intersection(layer.tops))
    # A view that loadcaffe puts before the first inner product is no layer of Caffe's, and runs if that does.
    own = {layer.name for layer in net.layers}
    chain = list(found)
    views = [name for name, after in pairwise(chain) if name not in own and after in names]
    return [name for name in chain if name in names or name in views]


def _builds(module: Module) -> bool:
    try:
        module.build()
    except LegacyStyleError:
        return False
    return True


def _leading_to(
    wanted: Collection[str], layers: Sequence[LayerParameter], net: NetParameter
) -> Sequence[LayerParameter]:
    """The layers between the image and all of `wanted`; all layers where the network has no branches."""
    parents = _parents(layers, net)
    if all(parent == index - 1 for index, parent in enumerate(parents)):
        return layers
    path: set[int] = set()
    for index, layer in enumerate(layers):
        if layer.name in wanted:
            while index >= 0 and index not in path:
                path.add(index)
                index = parents[index]
    chain = sorted(path)
    for before, after in zip([-1, *chain], chain, strict=False):
        if parents[after] != before:
            raise UnsupportedError(
                f"{net.path}: the layers {layers[before].name} and {layers[after].name} lie on different branches of"
                " the network; choose layers that follow one another"
            )
    return [layers[index] for index in chain]


def _parents(layers: Sequence[LayerParameter], net: NetParameter) -> list[int]:
    """For each layer, which one computes what it takes, -1 for the image; where nothing tells, the one before it."""
    copies = {top: layer.bottoms[0] for layer in net.layers if layer.type == "Split" for top in layer.tops}
    passed_over = _passed_over(net)
    sources = set(net.inputs) | {
        top for index, layer in enumerate(net.layers) if index in passed_over for top in layer.tops
    }
    makers = dict.fromkeys(sources - set(copies), -1)
    parents = []
    for index, layer in enumerate(layers):
        bottom = layer.bottoms[0] if layer.bottoms else ""
        while bottom in copies:
            bottom = copies[bottom]
        parents.append(makers.get(bottom, index - 1))
        makers.update(dict.fromkeys(layer.tops, index))
    return parents


def _passed_over(net: NetParameter) -> set[int]:
    """The positions of the layers that only feed, measure or copy."""
    copies = {index for index, layer in enumerate(net.layers) if layer.type in ("Split", "")}
    return phases.outside_inference(net) | copies


def _in_training_only(layer: LayerParameter) -> bool:
    included = [rule["phase"] for rule in layer.include if rule.has("phase")]
    excluded = any(rule.has("phase") and rule["phase"] == "TEST" for rule in layer.exclude)
    return layer.phase == "TRAIN" or excluded or (bool(included) and "TEST" not in included)


def _module(layer: LayerParameter, net: NetParameter) -> Module:
    where = f"{net.path}: layer {layer.name}"
    obstacle = _obstacle(layer)

    def build() -> nn.Layer:
        if obstacle:
            raise UnsupportedError(f"{where} {obstacle}")
        try:
            return _MAKERS[layer.type](layer, where)
        except LegacyStyleError:
            raise
        except RuntimeError as error:
            raise WeightMismatchError(f"{where}: {error}") from error

    return Module(layer.name, layer.type, build, _size_line(layer), obstacle)


def _obstacle(layer: LayerParameter) -> str:
    """Why the layer cannot be run, "" if it can: what follows its name in a sentence."""
    if layer.type in _JOINS or len(layer.bottoms) > 1:
        return (
            f"({layer.type}) joins {len(layer.bottoms)} branches; networks run only up to there,"
            " so choose layers before it (legacy-style inspect shows them)"
        )
    if layer.type not in _MAKERS and layer.type.startswith("nn."):
        return (
            f"is Torch7's {layer.type}, which no network of Caffe's has: it is read and converted, but not run;"
            " choose layers before it"
        )
    if layer.type not in _MAKERS:
        return f"has the type {layer.type}, which cannot be run; choose layers before it"
    if layer.type == "Pooling":
        return _pooling_obstacle(layer.param("pooling_param"))
    if layer.type == "LRN" and layer.param("lrn_param")["local_size"] < 1:
        return "normalises over no channels at all, which cannot be run; choose layers before it"
    return ""


def _pooling_obstacle(message: Message) -> str:
    if message["pool"] not in ("MAX", "AVE"):
        return f"pools by {message['pool']}, which cannot be run; choose layers before it"
    kernel, pad = pair(message, "kernel", 1), pair(message, "pad", 0)
    if not message["global_pooling"] and any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
        # As in Torch7: "pad should be smaller than half of kernel size".
        return (
            f"pads windows of {kernel} by {pad}, more than half, which cannot be run; choose layers before it"
        )
    return ""


def _size_line(layer: LayerParameter) -> str | None:
    """`conv1_1: 64 3 3 3`: number, channels, width, height of the weights, as loadcaffe prints it."""
    if layer.type not in ("Convolution", "Deconvolution", "InnerProduct") or not layer.blobs:
        return None
    shape = (1,) * (4 - len(layer.blobs[0].shape)) + tuple(layer.blobs[0].shape)
    return f"{layer.name}: {shape[0]} {shape[1]} {shape[3]} {shape[2]}" if len(shape) == 4 else None


def _tensor(layer: LayerParameter, index: int, where: str) -> Tensor:
    """A copy of one blob, float32 and finite, in its own shape."""
    if index >= len(layer.blobs):
        raise WeightMismatchError(f"{where} has {len(layer.blobs)} blobs, expected at least {index + 1}")
    blob = layer.blobs[index]
    blob.check(f"{where}, blob {index},")
    values = torch.from_numpy(blob.copy())
    if not torch.isfinite(values).all():
        raise FormatError(
            f"{where}, blob {index}, holds weights that are not finite; get the model file again"
        )
    return values


def _vector(layer: LayerParameter, index: int, where: str, size: int | None = None) -> Tensor:
    values = _tensor(layer, index, where).flatten()
    if size is not None and values.numel() != size:
        raise WeightMismatchError(f"{where}, blob {index}, has {values.numel()} values, expected {size}")
    return values


def _weight_4d(layer: LayerParameter, where: str) -> Tensor:
    weight = _tensor(layer, 0, where)
    if weight.dim() != 4:
        raise WeightMismatchError(
            f"{where}, blob 0, has the shape {tuple(weight.shape)}, expected four dimensions"
        )
    return weight


def _convolution(layer: LayerParameter, where: str) -> nn.Layer:
    message = layer.param("convolution_param")
    groups = message["group"] or 1
    weight = _weight_4d(layer, where)
    stride, pad, dilation = pair(message, "stride", 1), pair(message, "pad", 0), pair(message, "dilation", 1)
    transposed = layer.type == "Deconvolution"
    count = weight.shape[1] * groups if transposed else weight.shape[0]
    bias = _vector(layer, 1, where, count) if len(layer.blobs) > 1 else None
    kernel = pair(message, "kernel", 0)
    if kernel != (0, 0) and kernel != tuple(weight.shape[2:]):
        raise WeightMismatchError(
            f"{where} says {kernel} kernels but has weights of shape {tuple(weight.shape)}"
        )
    if transposed:
        return nn.SpatialFullConvolution(
            layer.name, weight, bias, stride=stride, pad=pad, dilation=dilation, groups=groups
        )
    if weight.shape[0] % groups:
        raise WeightMismatchError(
            f"{where} has {weight.shape[0]} outputs, which {groups} groups cannot share"
        )
    return nn.SpatialConvolution(
        layer.name, weight, bias, stride=stride, pad=pad, dilation=dilation, groups=groups
    )


def _inner_product(layer: LayerParameter, where: str) -> nn.Layer:
    weight = _tensor(layer, 0, where)
    weight = weight.reshape(-1, weight.shape[-1]) if weight.dim() != 2 else weight
    if layer.param("inner_product_param")["transpose"]:
        weight = weight.T.contiguous()
    bias = _vector(layer, 1, where, weight.shape[0]) if len(layer.blobs) > 1 else None
    return nn.Linear(layer.name, weight, bias)


def _pooling(layer: LayerParameter, where: str) -> nn.Layer:
    message = layer.param("pooling_param")
    maximum = message["pool"] == "MAX"
    if message["global_pooling"]:
        return nn.GlobalPooling(layer.name, maximum=maximum)
    kind = nn.SpatialMaxPooling if maximum else nn.SpatialAveragePooling
    kernel, stride, pad = pair(message, "kernel", 1), pair(message, "stride", 1), pair(message, "pad", 0)
    return kind(layer.name, kernel, stride, pad, ceil=message["round_mode"] == "CEIL")


def _lrn(layer: LayerParameter, where: str) -> nn.Layer:
    message = layer.param("lrn_param")
    if message["norm_region"] == "WITHIN_CHANNEL":
        return nn.within_channel_lrn(layer.name, message["local_size"], message["alpha"], message["beta"])
    return nn.cross_map_lrn(
        layer.name, message["local_size"], message["alpha"], message["beta"], message["k"]
    )


def _relu(layer: LayerParameter, where: str) -> nn.Layer:
    slope = layer.param("relu_param")["negative_slope"]
    return nn.leaky_relu(layer.name, slope) if slope else nn.ReLU(layer.name)


def _power(layer: LayerParameter, where: str) -> nn.Layer:
    message = layer.param("power_param")
    return nn.power(layer.name, message["power"], message["scale"], message["shift"])


def _batch_norm(layer: LayerParameter, where: str) -> nn.Layer:
    """Mean, variance and the factor that both were summed with (caffe/layers/batch_norm_layer.cpp)."""
    mean, variance, factor = (_vector(layer, index, where) for index in range(3))
    total = factor[0].item()
    unit = 0.0 if total == 0 else 1 / total
    scale = (variance * unit + layer.param("batch_norm_param")["eps"]).rsqrt()
    return nn.affine(layer.name, "nn.SpatialBatchNormalization", scale, -mean * unit * scale)


def _torch7_batch_norm(layer: LayerParameter, where: str) -> nn.Layer:
    """With the running averages, as nn.SpatialBatchNormalization computes when it is not trained."""
    weight, bias, mean, variance = (_vector(layer, index, where) for index in range(4))
    scale = weight * (variance + layer.param("batch_norm_param")["eps"]).rsqrt()
    return nn.affine(layer.name, layer.type, scale, bias - mean * scale)


def _scale(layer: LayerParameter, where: str) -> nn.Layer:
    scale = _vector(layer, 0, where)
    shift = _vector(layer, 1, where, scale.numel()) if len(layer.blobs) > 1 else torch.zeros_like(scale)
    return nn.affine(layer.name, "nn.Scale", scale, shift)


def _bias(layer: LayerParameter, where: str) -> nn.Layer:
    shift = _vector(layer, 0, where)
    return nn.affine(layer.name, "nn.Bias", torch.ones_like(shift), shift)


_MAKERS: dict[str, Callable[[LayerParameter, str], nn.Layer]] = {
    "Convolution": _convolution,
    "Deconvolution": _convolution,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
    "ReLU": _relu,
    "PReLU": lambda layer, where: nn.prelu(layer.name, _vector(layer, 0, where)),
    "TanH": lambda layer, where: nn.tanh(layer.name),
    "Sigmoid": lambda layer, where: nn.sigmoid(layer.name),
    "AbsVal": lambda layer, where: nn.absolute(layer.name),
    "Power": _power,
    "LRN": _lrn,
    "BatchNorm": _batch_norm,
    "Scale": _scale,
    "Bias": _bias,
    "Dropout": lambda layer, where: nn.Dropout(layer.name, layer.param("dropout_param")["dropout_ratio"]),
    "Softmax": lambda layer, where: nn.softmax(layer.name),
    "nn.SpatialBatchNormalization": _torch7_batch_norm,
}

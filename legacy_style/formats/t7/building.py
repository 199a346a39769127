"""A NetParameter as the nn.Sequential that loadcaffe would have made of it, ready to be written as a .t7 file.

The modules, their fields and the order of these are those of files that fast-neural-style's
convert_network.lua wrote (nn backend, single precision, gradients cleared), so that the same network gives the
same bytes. Notes: a network with branches, or with layers that nn has under no name, is not written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import UnsupportedError
from legacy_style.formats.caffe.geometry import pair
from legacy_style.formats.caffe.netparam import LayerParameter, NetParameter
from legacy_style.formats.caffe.phases import outside_inference
from legacy_style.formats.t7.objects import Storage, TorchObject

_TYPE = "torch.FloatTensor"
_Fields = dict[str, Any]


def left_out(net: NetParameter) -> set[int]:
    """The positions of layers of which no module is made: inputs, losses, and Flatten, for which a View stands."""
    others = {index for index, layer in enumerate(net.layers) if layer.type in ("Split", "Flatten")}
    return outside_inference(net) | others


def sequential(net: NetParameter) -> TorchObject:
    """The modules of `net` in file order; its weights are read, as copies.

    Raises UnsupportedError at the first layer that joins branches or that nn does not have.
    """
    modules: list[TorchObject] = []
    flat = False
    passed_over = left_out(net)
    made = {*net.inputs, *(top for layer in net.layers for top in layer.tops)}
    latest = set(net.inputs).union(  # the blobs that hold what the modules so far give
        *(layer.tops for index, layer in enumerate(net.layers) if index in outside_inference(net))
    )
    for index, layer in enumerate(net.layers):
        behind = latest.issuperset(made.intersection(layer.bottoms[:1]))
        if index in passed_over and layer.type != "Flatten":
            latest.update(layer.tops if layer.type == "Split" and behind else ())
            continue
        if len(layer.bottoms) > 1 or not behind:
            what = "joins branches" if len(layer.bottoms) > 1 else "lies on a branch"
            raise UnsupportedError(
                f"{net.path}: layer {layer.name} ({layer.type}) {what}, and only a chain of layers can be written as a"
                " .t7 file; choose an earlier layer with --until"
            )
        latest = set(layer.tops)
        if layer.type in ("InnerProduct", "Flatten") and not flat:
            flat = True
            modules.append(_view("torch_view" if layer.type == "InnerProduct" else layer.name))
        if layer.type != "Flatten":
            modules.append(_module(layer, net.path))
    fields: _Fields = {"gradInput": _empty(), "modules": modules, "_type": _TYPE, "output": _empty()}
    return TorchObject("nn.Sequential", fields)


def _module(layer: LayerParameter, path: str) -> TorchObject:
    make = _MAKERS.get(layer.type)
    if make is None:
        raise UnsupportedError(
            f"{path}: layer {layer.name} has the type {layer.type}, which cannot be written as a .t7 file; "
            "choose an earlier layer with --until"
        )
    return make(layer, f"{path}: layer {layer.name}")


def _empty() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


def _blob(layer: LayerParameter, index: int, where: str) -> NDArray[np.float32]:
    layer.blobs[index].check(f"{where}, blob {index},")
    return layer.blobs[index].copy()


def _with_bias(fields: _Fields, layer: LayerParameter, where: str) -> _Fields:
    """`fields` with the bias of the layer in its place, or as noBias() leaves them."""
    if len(layer.blobs) < 2:
        return {name: value for name, value in fields.items() if name not in ("bias", "gradBias")}
    return fields | {"bias": _blob(layer, 1, where).reshape(-1)}


def _weight(layer: LayerParameter, where: str, axes: int) -> NDArray[np.float32]:
    if not layer.blobs:
        raise UnsupportedError(f"{where} has no weights, which a .t7 file cannot do without")
    weight = _blob(layer, 0, where)
    if axes == 2:
        return weight.reshape(-1, weight.shape[-1])
    if weight.ndim != axes:
        raise UnsupportedError(f"{where} has weights of the shape {weight.shape}, expected {axes} axes")
    return weight


def _convolution(layer: LayerParameter, where: str) -> TorchObject:
    message = layer.param("convolution_param")
    if (message["group"] or 1) > 1:
        raise UnsupportedError(f"{where} has groups, which nn's convolutions do not have")
    weight = _weight(layer, where, 4)
    stride, pad, dilation = pair(message, "stride", 1), pair(message, "pad", 0), pair(message, "dilation", 1)
    transposed = layer.type == "Deconvolution"
    outputs, inputs = weight.shape[1::-1] if transposed else weight.shape[:2]
    fields: _Fields = {
        "padW": pad[1],
        "dW": stride[1],
        "nInputPlane": inputs,
        "output": _empty(),
        "name": layer.name,
        "gradBias": _empty(),
        "bias": None,
        "kW": weight.shape[3],
        "gradInput": _empty(),
        "weight": weight,
        "_type": _TYPE,
        "gradWeight": _empty(),
        "kH": weight.shape[2],
        "padH": pad[0],
        "dH": stride[0],
        "nOutputPlane": outputs,
    }
    fields = _with_bias(fields, layer, where)
    if transposed:
        return TorchObject("nn.SpatialFullConvolution", fields | {"adjW": 0, "adjH": 0})
    if dilation == (1, 1):
        return TorchObject("nn.SpatialConvolution", fields)
    return TorchObject(
        "nn.SpatialDilatedConvolution", fields | {"dilationH": dilation[0], "dilationW": dilation[1]}
    )


def _pooling(layer: LayerParameter, where: str) -> TorchObject:
    message = layer.param("pooling_param")
    if message["global_pooling"] or message["pool"] not in ("MAX", "AVE"):
        raise UnsupportedError(f"{where} pools in a way that nn's layers do not ({message})")
    kernel, stride, pad = pair(message, "kernel", 1), pair(message, "stride", 1), pair(message, "pad", 0)
    fields: _Fields = {
        "dH": stride[0],
        "dW": stride[1],
        "kW": kernel[1],
        "gradInput": _empty(),
        "indices": _empty(),
        "padW": pad[1],
        "_type": _TYPE,
        "kH": kernel[0],
        "ceil_mode": message["round_mode"] == "CEIL",
        "output": _empty(),
        "name": layer.name,
        "padH": pad[0],
    }
    if message["pool"] == "MAX":
        return TorchObject("nn.SpatialMaxPooling", fields)
    del fields["indices"]
    return TorchObject("nn.SpatialAveragePooling", fields | {"count_include_pad": True, "divide": True})


def _linear(layer: LayerParameter, where: str) -> TorchObject:
    weight = _weight(layer, where, 2)
    if layer.param("inner_product_param")["transpose"]:
        weight = np.ascontiguousarray(weight.T)
    fields: _Fields = {
        "gradBias": _empty(),
        "weight": weight,
        "_type": _TYPE,
        "output": _empty(),
        "gradInput": _empty(),
        "gradWeight": _empty(),
        "bias": None,
        "name": layer.name,
    }
    return TorchObject("nn.Linear", _with_bias(fields, layer, where))


def _view(name: str) -> TorchObject:
    fields: _Fields = {
        "numElements": 1,
        "_type": _TYPE,
        "output": _empty(),
        "name": name,
        "size": Storage(np.array([-1], np.int64)),
        "numInputDims": 3,
        "gradInput": _empty(),
    }
    return TorchObject("nn.View", fields)


def _relu(layer: LayerParameter, where: str) -> TorchObject:
    slope = layer.param("relu_param")["negative_slope"]
    if slope:
        return _plain("nn.LeakyReLU", layer, negval=slope, inplace=True)
    fields: _Fields = {
        "inplace": True,
        "threshold": 0,
        "_type": _TYPE,
        "output": _empty(),
        "gradInput": _empty(),
        "val": 0,
        "name": layer.name,
    }
    return TorchObject("nn.ReLU", fields)


def _dropout(layer: LayerParameter, where: str) -> TorchObject:
    fields: _Fields = {
        "v2": True,
        "output": _empty(),
        "gradInput": _empty(),
        "noise": _empty(),
        "_type": _TYPE,
        "p": layer.param("dropout_param")["dropout_ratio"],
        "stochastic_inference": False,
        "train": True,
        "name": layer.name,
    }
    return TorchObject("nn.Dropout", fields)


def _plain(typename: str, layer: LayerParameter, **fields: Any) -> TorchObject:
    common = {"gradInput": _empty(), "name": layer.name, "_type": _TYPE, "output": _empty()}
    return TorchObject(typename, common | fields)


def _lrn(layer: LayerParameter, where: str) -> TorchObject:
    message = layer.param("lrn_param")
    if message["norm_region"] == "WITHIN_CHANNEL":
        raise UnsupportedError(f"{where} normalises within channels, which nn's layers do not")
    values = {name: message[name] for name in ("alpha", "beta", "k")}
    return _plain("nn.SpatialCrossMapLRN", layer, size=message["local_size"], **values)


_MAKERS: dict[str, Callable[[LayerParameter, str], TorchObject]] = {
    "Convolution": _convolution,
    "Deconvolution": _convolution,
    "Dropout": _dropout,
    "InnerProduct": _linear,
    "LRN": _lrn,
    "Pooling": _pooling,
    "ReLU": _relu,
    "Sigmoid": lambda layer, where: _plain("nn.Sigmoid", layer),
    "Softmax": lambda layer, where: _plain("nn.SoftMax", layer),
    "TanH": lambda layer, where: _plain("nn.Tanh", layer),
}

"""The layers of MatConvNet, one by one, as Caffe's.

After matlab/vl_*.m and matlab/+dagnn of vlfeat/matconvnet. Notes: MatConvNet pads top, bottom, left and
right, Caffe both sides alike; its LRN multiplies by alpha where Caffe multiplies by alpha / n; its batch
normalisation stores standard deviations, and scales and shifts in the same layer, which are two layers in
Caffe.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError, UnsupportedError, WeightMismatchError
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, float32
from legacy_style.formats.matconvnet.node import Node, Pair

# A MATLAB array's last axes are not stored where they are 1.
_KERNEL_AXES = 4

# MatConvNet has no inner product; Caffe's are called fc6, fc7, fc8.
_FULLY_CONNECTED = re.compile(r"fc\d")


@dataclass
class _Network:
    """What holds for all layers, and what is known of its variables so far: how many channels each has."""

    path: str
    transposed: bool
    images: set[str]
    channels: dict[str, int] = field(default_factory=dict)


def caffe_layers(nodes: list[Node], path: str, *, transposed: bool) -> list[LayerParameter]:
    """The V2 layers of these nodes, in their order; `transposed` reads kernels as (W, H, C, O).

    A layer of an unknown type keeps the type's name and has no blobs: it may not be needed. Raises
    UnsupportedError where no Caffe layer does the same, WeightMismatchError or FormatError where weights are
    missing or broken.
    """
    made = {output for node in nodes for output in node.outputs}
    images = {name for node in nodes for name in node.inputs if name not in made}
    network = _Network(path, transposed, images, dict.fromkeys(images, 3))
    layers = []
    for node in nodes:
        convert = _CONVERTERS.get(node.type)
        if convert is None:
            layers.append(_layer(node, node.type))
            continue
        layers += convert(node, network)
        if network.images.intersection(node.inputs):
            _note_image(node, network)
        for output in node.outputs:
            channels = network.channels.get(node.inputs[0]) if node.inputs else None
            # A convolution has said what comes out of it.
            if channels is not None:
                network.channels.setdefault(output, channels)
    return layers


def _note_image(node: Node, network: _Network) -> None:
    """What comes out of a layer that sees the RGB image, and is no convolution, is an RGB image still."""
    if node.weights and node.type not in ("conv", "convt"):
        raise UnsupportedError(
            f"{network.path}: layer {node.name} ({node.type}) has weights for the image's RGB channels, and "
            "only those of convolutions are turned to BGR"
        )
    if node.type not in ("conv", "convt"):
        network.images.update(node.outputs)


def _layer(node: Node, kind: str, blobs: list[Blob] | None = None, **params: Message) -> LayerParameter:
    return LayerParameter(node.name, kind, list(node.inputs), list(node.outputs), blobs or [], params)


def _convolution(node: Node, network: _Network) -> list[LayerParameter]:
    kernel = _kernel(node, network)
    height, width, depth, outputs = kernel.shape
    pad, stride = _even_padding(node, network, "pad"), node.pair("stride")
    dilation = node.pair("dilate")
    top = node.inputs[0] if node.inputs else ""
    channels = network.channels.get(top, depth)
    if depth == 0 or channels % depth:
        raise WeightMismatchError(
            f"{network.path}: layer {node.name} has kernels of {depth} channels, expected {channels} or a "
            "part of them"
        )
    weights = _oihw(kernel, network, flipped=top in network.images and depth == 3)
    blobs = [weights, *_vectors(node.weights[1:2], outputs, node, network)]
    for output in node.outputs:
        network.channels[output] = outputs
    if _FULLY_CONNECTED.match(node.name) and (pad, stride, dilation, channels) == (
        (0, 0),
        (1, 1),
        (1, 1),
        depth,
    ):
        values: dict[str, Any] = {"num_output": outputs}
        blobs[0] = weights.reshaped((outputs, depth * height * width))
        kind, param = "InnerProduct", "inner_product_param"
    else:
        size = (width, height) if network.transposed else (height, width)
        values = {"num_output": outputs, **_geometry(network, pad, stride), **_sized("kernel", size)}
        if dilation != (1, 1):
            down, across = _turned(dilation, network)
            values["dilation"] = [down] if down == across else [down, across]
        if channels != depth:
            values["group"] = channels // depth
        kind, param = "Convolution", "convolution_param"
    if len(blobs) == 1:
        values["bias_term"] = False
    message = Message("InnerProductParameter" if kind == "InnerProduct" else "ConvolutionParameter", **values)
    return [_layer(node, kind, blobs, **{param: message})]


def _transposed_convolution(node: Node, network: _Network) -> list[LayerParameter]:
    kernel = _kernel(node, network)
    height, width, outputs, _inputs = kernel.shape
    groups = node.pair("numGroups")[0]
    crop, upsample = _even_padding(node, network, "crop"), node.pair("upsample")
    size = (width, height) if network.transposed else (height, width)
    values = {"num_output": outputs * groups, **_geometry(network, crop, upsample), **_sized("kernel", size)}
    blobs = [_oihw(kernel, network), *_vectors(node.weights[1:2], outputs * groups, node, network)]
    if groups != 1:
        values["group"] = groups
    if len(blobs) == 1:
        values["bias_term"] = False
    for output in node.outputs:
        network.channels[output] = outputs * groups
    return [_layer(node, "Deconvolution", blobs, convolution_param=Message("ConvolutionParameter", **values))]


def _pooling(node: Node, network: _Network) -> list[LayerParameter]:
    size = node.pair("pool") if "pool" in node.fields else node.pair("poolSize")
    stride = node.pair("stride")
    top, bottom, left, right = node.quad("pad")
    # What comes on top of even padding is Caffe's rounding up, by less than one step.
    if not (0 <= bottom - top < stride[0] and 0 <= right - left < stride[1]):
        raise UnsupportedError(
            f"{network.path}: layer {node.name} pools with the padding {[top, bottom, left, right]} (top, "
            "bottom, left, "
            "right), which no Caffe layer does"
        )
    method = {"max": "MAX", "avg": "AVE"}.get(node.fields.get("method", "max"))
    if method is None:
        raise UnsupportedError(
            f"{network.path}: layer {node.name} pools by {node.fields['method']!r}, expected max or avg"
        )
    values: dict[str, Any] = {"pool": method}
    for stem, pair, default in (
        ("kernel", size, None),
        ("stride", stride, (1, 1)),
        ("pad", (top, left), (0, 0)),
    ):
        down, across = _turned(pair, network)
        if down != across:
            values |= {f"{stem}_h": down, f"{stem}_w": across}
        elif pair != default:
            values["kernel_size" if stem == "kernel" else stem] = down
    return [_layer(node, "Pooling", pooling_param=Message("PoolingParameter", **values))]


def _relu(node: Node, network: _Network) -> list[LayerParameter]:
    leak = node.number("leak", 0.0)
    layer = _layer(node, "ReLU")
    if leak:
        layer.params["relu_param"] = Message("ReLUParameter", negative_slope=float32(leak))
    return [layer]


def _lrn(node: Node, network: _Network) -> list[LayerParameter]:
    numbers = node.fields.get("param")
    if not isinstance(numbers, np.ndarray) or numbers.size != 4:
        raise FormatError(
            f"{network.path}: layer {node.name} has no `param` of four numbers: n, kappa, alpha, beta"
        )
    size, kappa, alpha, beta = (float(n) for n in numbers.ravel())
    message = Message(
        "LRNParameter",
        local_size=int(size),
        alpha=float32(alpha * size),
        beta=float32(beta),
        k=float32(kappa),
    )
    return [_layer(node, "LRN", lrn_param=message)]


def _dropout(node: Node, network: _Network) -> list[LayerParameter]:
    rate = float32(node.number("rate", 0.5))
    return [_layer(node, "Dropout", dropout_param=Message("DropoutParameter", dropout_ratio=rate))]


def _batch_norm(node: Node, network: _Network) -> list[LayerParameter]:
    if len(node.weights) < 3:
        raise WeightMismatchError(
            f"{network.path}: layer {node.name} has no moments; only trained networks have them"
        )
    gain, shift, moments = node.weights[:3]
    count = gain.size
    if moments.size != 2 * count or shift.size != count:
        raise WeightMismatchError(
            f"{network.path}: layer {node.name} has moments of the shape {moments.shape} for {count} channels"
        )
    mean, deviation = moments.reshape((count, 2), order="F").T
    # The deviation has epsilon in it already.
    blobs = [mean, deviation.astype(np.float64) ** 2, np.ones(1)]
    normalise = _layer(
        node,
        "BatchNorm",
        [Blob.from_array(b) for b in blobs],
        batch_norm_param=Message("BatchNormParameter", eps=0.0),
    )
    scale = LayerParameter(f"{node.name}_scale", "Scale", list(node.outputs), list(node.outputs))
    scale.blobs = [Blob.from_array(gain.ravel(order="F")), Blob.from_array(shift.ravel(order="F"))]
    scale.params["scale_param"] = Message("ScaleParameter", bias_term=True)
    return [normalise, scale]


def _scale(node: Node, network: _Network) -> list[LayerParameter]:
    blobs = [Blob.from_array(weights.ravel(order="F")) for weights in node.weights]
    return [_layer(node, "Scale", blobs, scale_param=Message("ScaleParameter", bias_term=len(blobs) == 2))]


def _concat(node: Node, network: _Network) -> list[LayerParameter]:
    # MATLAB's axes are height, width, channels, images.
    axis = {1: 2, 2: 3, 4: 0}.get(int(node.number("dim", 3)), 1)
    parts = [network.channels.get(name) for name in node.inputs]
    if axis == 1 and None not in parts:
        for output in node.outputs:
            network.channels[output] = sum(part for part in parts if part is not None)
    return [_layer(node, "Concat", concat_param=Message("ConcatParameter", axis=axis))]


def _sum(node: Node, network: _Network) -> list[LayerParameter]:
    return [_layer(node, "Eltwise", eltwise_param=Message("EltwiseParameter", operation="SUM"))]


def _loss(node: Node, network: _Network) -> list[LayerParameter]:
    measure = node.type == "loss" and node.fields.get("loss", "softmaxlog") not in ("softmaxlog", "log")
    return [_layer(node, "Accuracy" if measure else "SoftmaxWithLoss")]


def _plain(kind: str) -> Callable[[Node, _Network], list[LayerParameter]]:
    return lambda node, network: [_layer(node, kind)]


_CONVERTERS: dict[str, Callable[[Node, _Network], list[LayerParameter]]] = {
    "conv": _convolution,
    "convt": _transposed_convolution,
    "pool": _pooling,
    "relu": _relu,
    "lrn": _lrn,
    "dropout": _dropout,
    "bnorm": _batch_norm,
    "scale": _scale,
    "concat": _concat,
    "sum": _sum,
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("TanH"),
    "softmax": _plain("Softmax"),
    "softmaxloss": _loss,
    "loss": _loss,
}


def _kernel(node: Node, network: _Network) -> NDArray[Any]:
    """The kernels, (H, W, C, O), of whatever number of axes MATLAB stored."""
    if not node.weights or node.weights[0].dtype.kind != "f" or node.weights[0].ndim > _KERNEL_AXES:
        raise WeightMismatchError(
            f"{network.path}: layer {node.name} has no kernels (height, width, channels, outputs)"
        )
    kernel = node.weights[0]
    return kernel.reshape(kernel.shape + (1,) * (_KERNEL_AXES - kernel.ndim))


def _oihw(kernel: NDArray[Any], network: _Network, *, flipped: bool = False) -> Blob:
    """The kernels as (O, C, H, W), read when they are asked for; `flipped` turns RGB into BGR."""
    order = (3, 2, 1, 0) if network.transposed else (3, 2, 0, 1)

    def values() -> NDArray[np.float32]:
        turned = kernel.transpose(order)
        return np.ascontiguousarray(turned[:, ::-1] if flipped else turned, dtype=np.float32)

    return Blob(tuple(kernel.shape[axis] for axis in order), values, kernel.size)


def _vectors(arrays: list[NDArray[Any]], size: int, node: Node, network: _Network) -> list[Blob]:
    """Biases, which lie down in some files and stand in others."""
    for array in arrays:
        if array.size != size:
            raise WeightMismatchError(
                f"{network.path}: layer {node.name} has {array.size} biases, expected {size}"
            )
    return [Blob.from_array(array.ravel(order="F")) for array in arrays]


def _turned(pair: Pair, network: _Network) -> Pair:
    """(down, across), the other way round where kernels are read transposed."""
    return (pair[1], pair[0]) if network.transposed else pair


def _geometry(network: _Network, pad: Pair, stride: Pair) -> dict[str, Any]:
    """The padding and the stride of a convolution, where they are not Caffe's defaults."""
    values: dict[str, Any] = {}
    for stem, pair, default in (("pad", pad, 0), ("stride", stride, 1)):
        if pair != (default, default):
            values |= _sized(stem, _turned(pair, network))
    return values


def _sized(stem: str, pair: Pair) -> dict[str, Any]:
    """One number where both are the same, as in Caffe's own files; else two fields."""
    if pair[0] != pair[1]:
        return {f"{stem}_h": pair[0], f"{stem}_w": pair[1]}
    return {"kernel_size" if stem == "kernel" else stem: [pair[0]]}


def _even_padding(node: Node, network: _Network, name: str) -> Pair:
    top, bottom, left, right = node.quad(name)
    if top != bottom or left != right:
        raise UnsupportedError(
            f"{network.path}: layer {node.name} has the {name} {[top, bottom, left, right]} (top, bottom, "
            "left, right), "
            "and Caffe's layers have the same on both sides"
        )
    return top, left

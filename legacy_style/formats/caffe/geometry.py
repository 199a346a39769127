"""How large each layer's output is, and how much of the image one position of it sees, branches included.

Sizes as in caffe/layers: convolutions round down (base_conv_layer.cpp), pooling up, without windows that
begin beyond the end (pooling_layer.cpp). The receptive field of a position is the part of the image that
it depends on, and its step how far the next position's lies from it; where branches join, the widest
counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from legacy_style.formats.caffe.netparam import LayerParameter, Message, NetParameter
from legacy_style.formats.caffe.phases import feeds, image_blobs
from legacy_style.torch7.windows import Window

Pair = tuple[int, int]
Step = tuple[float, float]

_JOINS = {"Concat", "Eltwise"}
# What comes out has the size of what went in, and sees as much.
_POINTWISE = {
    "AbsVal",
    "BatchNorm",
    "Bias",
    "BNLL",
    "Clip",
    "Dropout",
    "ELU",
    "Exp",
    "Log",
    "LRN",
    "MVN",
    "Power",
    "PReLU",
    "ReLU",
    "Scale",
    "Sigmoid",
    "Softmax",
    "Split",
    "Swish",
    "TanH",
    "Threshold",
}


@dataclass(frozen=True)
class Geometry:
    """Of one blob: feature maps, their size, receptive field and step in pixels, (vertical, horizontal).

    `field` is None where a position sees the whole image.
    """

    channels: int
    size: Pair
    field: Pair | None = (1, 1)
    step: Step = (1, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, *self.size)


def geometries(net: NetParameter, height: int, width: int) -> dict[str, Geometry]:
    """Layer name -> geometry of its first output, for images of height x width, as far as it can be known.

    Layers of unknown types, those behind them, and those whose windows do not fit are left out.
    """
    image = Geometry(3, (height, width))
    images = image_blobs(net)
    blobs = dict.fromkeys(images, image)
    found = {}
    for layer in net.layers:
        if feeds(layer):
            if not images.isdisjoint(layer.tops):
                found[layer.name] = image
            continue
        inputs = [blobs.get(bottom) for bottom in layer.bottoms]
        known = [geometry for geometry in inputs if geometry is not None]
        result = _output(layer, known) if known and len(known) == len(inputs) else None
        for top in layer.tops:
            blobs.pop(top, None)
            if result is not None:
                blobs[top] = result
        if result is not None:
            found[layer.name] = result
    return found


def _output(layer: LayerParameter, inputs: list[Geometry]) -> Geometry | None:
    first = inputs[0]
    if layer.type in ("Convolution", "Deconvolution"):
        return _convolution(layer, first)
    if layer.type == "Pooling":
        return _pooling(layer.param("pooling_param"), first)
    if layer.type == "InnerProduct":
        count = layer.param("inner_product_param")["num_output"]
        outputs = count or (layer.blobs[0].shape[-2] if layer.blobs and len(layer.blobs[0].shape) > 1 else 0)
        return Geometry(outputs, (1, 1), None)
    if layer.type == "Flatten":
        return replace(first, channels=first.channels * first.size[0] * first.size[1], size=(1, 1))
    if layer.type in _JOINS:
        channels = first.channels
        if layer.type == "Concat" and layer.param("concat_param")["axis"] == 1:
            channels = sum(geometry.channels for geometry in inputs)
        return _widest(channels, inputs)
    if layer.type == "LRN" and layer.param("lrn_param")["norm_region"] == "WITHIN_CHANNEL":
        side = layer.param("lrn_param")["local_size"]
        return _seen(first, first.channels, first.size, (side, side), (1, 1))
    if layer.type in _POINTWISE:
        return first
    if layer.type in _TORCH7:
        return _TORCH7[layer.type](layer, first)
    return None


def _padding(layer: LayerParameter, image: Geometry) -> Geometry | None:
    """SpatialReflectionPadding and its kin; ShaveImage cuts off what those add."""
    if layer.type == "nn.ShaveImage":
        top = bottom = left = right = -_number(layer, "size", 0)
    else:
        top, bottom, left, right = (_number(layer, f"pad_{side}", 0) for side in "tblr")
    height, width = image.size
    size = height + top + bottom, width + left + right
    return replace(image, size=size) if min(size) > 0 else None


def _full_convolution(layer: LayerParameter, image: Geometry) -> Geometry | None:
    """A transposed convolution with adjW and adjH, which Caffe's do not have."""
    if not layer.blobs or len(layer.blobs[0].shape) != 4:
        return None
    _inputs, channels, *_kernel = layer.blobs[0].shape
    kernel = layer.blobs[0].shape[2], layer.blobs[0].shape[3]
    stride = _number(layer, "dH", 1), _number(layer, "dW", 1)
    pad = _number(layer, "padH", 0), _number(layer, "padW", 0)
    more = _number(layer, "adjH", 0), _number(layer, "adjW", 0)
    if min(stride) < 1:
        return None
    size = _each(lambda n, s, p, k, a: (n - 1) * s - 2 * p + k + a, image.size, stride, pad, kernel, more)
    seen = _seen(image, channels, size, _each(lambda k, s: -(-k // s), kernel, stride), (1, 1))
    return seen and replace(seen, step=(image.step[0] / stride[0], image.step[1] / stride[1]))


def _enlarged(layer: LayerParameter, image: Geometry) -> Geometry | None:
    factor = _number(layer, "scale_factor", 2)
    if factor < 1:
        return None
    step = image.step[0] / factor, image.step[1] / factor
    return replace(image, size=(image.size[0] * factor, image.size[1] * factor), step=step)


def _number(layer: LayerParameter, name: str, default: int) -> int:
    """A number of a Torch7 module, which formats.t7.network keeps among the fields that Caffe does not know."""
    value = layer.unknown.get(name, [default])[0]
    return int(value) if isinstance(value, (int, float)) and abs(value) < 2**31 else default


# Layers that only Torch7 has, by their class.
_TORCH7: dict[str, Callable[[LayerParameter, Geometry], Geometry | None]] = {
    **dict.fromkeys(
        (
            "nn.SpatialReflectionPadding",
            "nn.SpatialReplicationPadding",
            "nn.SpatialZeroPadding",
            "nn.ShaveImage",
        ),
        _padding,
    ),
    **dict.fromkeys(
        ("nn.InstanceNormalization", "nn.SpatialBatchNormalization", "nn.TotalVariation"),
        lambda layer, image: image,
    ),
    "nn.SpatialFullConvolution": _full_convolution,
    "nn.SpatialUpSamplingNearest": _enlarged,
}


def _convolution(layer: LayerParameter, image: Geometry) -> Geometry | None:
    message = layer.param("convolution_param")
    kernel, stride = pair(message, "kernel", 0), pair(message, "stride", 1)
    pad, dilation = pair(message, "pad", 0), pair(message, "dilation", 1)
    if layer.blobs and len(layer.blobs[0].shape) == 4:
        kernel = layer.blobs[0].shape[2], layer.blobs[0].shape[3]
    extent = _each(lambda k, d: (k - 1) * d + 1, kernel, dilation)
    channels = message["num_output"] or (layer.blobs[0].shape[0] if layer.blobs else 0)
    if layer.type == "Deconvolution":
        size = _each(lambda n, s, p, e: (n - 1) * s - 2 * p + e, image.size, stride, pad, extent)
        # So many inputs overlap in one output; the next output is a part of a step away.
        overlap = _each(lambda e, s: -(-e // s), extent, stride)
        seen = _seen(image, channels, size, overlap, (1, 1))
        return seen and replace(seen, step=(image.step[0] / stride[0], image.step[1] / stride[1]))
    size = _each(lambda n, s, p, e: Window(e, s, p).size(n), image.size, stride, pad, extent)
    return _seen(image, channels, size, extent, stride)


def _pooling(message: Message, image: Geometry) -> Geometry | None:
    if message["global_pooling"]:
        return Geometry(image.channels, (1, 1), None)
    kernel, stride, pad = pair(message, "kernel", 0), pair(message, "stride", 1), pair(message, "pad", 0)
    ceil = message["round_mode"] == "CEIL"

    def count(n: int, k: int, s: int, p: int) -> int:
        return Window(k, s, p, ceil=ceil).size(n)

    return _seen(image, image.channels, _each(count, image.size, kernel, stride, pad), kernel, stride)


def _seen(image: Geometry, channels: int, size: Pair, extent: Pair, stride: Pair) -> Geometry | None:
    """What windows of `extent` every `stride` positions of `image` see."""
    if min(size) < 1 or min(extent) < 1:
        return None
    field = None
    if image.field is not None:
        field = (
            int(image.field[0] + (extent[0] - 1) * image.step[0]),
            int(image.field[1] + (extent[1] - 1) * image.step[1]),
        )
    return Geometry(channels, size, field, (image.step[0] * stride[0], image.step[1] * stride[1]))


def _widest(channels: int, inputs: list[Geometry]) -> Geometry:
    fields = [geometry.field for geometry in inputs if geometry.field is not None]
    field = (max(f[0] for f in fields), max(f[1] for f in fields)) if len(fields) == len(inputs) else None
    return replace(inputs[0], channels=channels, field=field)


def pair(message: Message, stem: str, default: int) -> Pair:
    """(vertical, horizontal) of a field that is one number, a list, or two fields with _h and _w.

    Of pad_h and pad_w both must be given, or neither counts, as in loadcaffe, by which networks are run.
    """
    name = "kernel_size" if stem == "kernel" else stem
    if stem != "dilation":
        axes = message[f"{stem}_h"], message[f"{stem}_w"]
        if min(axes) > 0:
            return axes
        if max(axes) > 0 and stem != "pad":
            return max(axes), max(axes)
    values = message[name] if isinstance(message[name], list) else [message[name]]
    return (max(values[0], default), max(values[-1], default)) if values else (default, default)


def _each(function: Callable[..., int], *pairs: Pair) -> Pair:
    """`function` of the vertical numbers, and of the horizontal ones."""
    return function(*(each[0] for each in pairs)), function(*(each[1] for each in pairs))

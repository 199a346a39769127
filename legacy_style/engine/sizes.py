"""How large feature maps are at every step of a network, and whether its weights fit them, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from legacy_style.engine.losses import Loss
from legacy_style.engine.network import Network
from legacy_style.errors import OptionError, WeightMismatchError
from legacy_style.torch7 import nn

Shape = tuple[int, int, int]
"""Channels, height, width; those of a fully connected layer are (N, 1, 1)."""


def walk(net: Network, height: int, width: int) -> Iterator[tuple[nn.Layer | Loss, Shape, Shape]]:
    """Every step with the shape of its input and of its output, for an image of height x width.

    Heights and widths are 0 or less from where on nothing is left of the image.
    """
    shape = (3, height, width)
    for step in net.steps:
        after = _output(step, shape) if isinstance(step, nn.Layer) else shape
        yield step, shape, after
        shape = after


def _output(layer: nn.Layer, shape: Shape) -> Shape:
    channels, height, width = shape
    if isinstance(layer, nn.Linear):
        return layer.weight.shape[0], 1, 1
    if isinstance(layer, nn.View):
        return channels * height * width, 1, 1
    if isinstance(layer, nn.GlobalPooling):
        return channels, 1, 1
    if isinstance(layer, nn.SpatialFullConvolution):
        return layer.weight.shape[1] * layer.groups, layer.size(0, height), layer.size(1, width)
    if isinstance(layer, nn.SpatialConvolution):
        channels = layer.weight.shape[0]
    down, across = layer.windows or nn.POINT
    return channels, down.size(height), across.size(width)


def check(net: Network, what: str, height: int, width: int) -> None:
    """Raise OptionError where the `what` image ("content") has a size that a layer cannot take.

    Raises WeightMismatchError where a layer cannot take any image: weights for other channels.
    """
    for step, before, after in walk(net, height, width):
        if not isinstance(step, nn.Layer):
            continue
        if isinstance(step, nn.Linear) and step.weight.shape[1] != before[0] * before[1] * before[2]:
            raise OptionError(
                f"the {what} image ({width}x{height}) does not suit layer {step.name}, which takes"
                f" {step.weight.shape[1]} values and would get {before[0] * before[1] * before[2]}: give images of the"
                f" size that the network was made for, or choose layers before {step.name}"
            )
        taken = _channels_taken(step)
        if taken and before[0] not in taken:
            raise WeightMismatchError(
                f"layer {step.name} has weights for {max(taken)} channels and would get {before[0]}: the model file"
                " does not belong to its own layers; get it again"
            )
        if min(after[1:]) < 1:
            raise OptionError(
                f"the {what} image is too small ({width}x{height}): nothing of it is left at layer {step.name};"
                " make it larger, or choose layers that are less deep"
            )


def _channels_taken(layer: nn.Layer) -> set[int]:
    """The numbers of channels that a layer's weights are made for; empty where it has none or they do not matter."""
    if isinstance(layer, nn.SpatialConvolution):
        return {layer.weight.shape[1] * layer.groups}
    if isinstance(layer, nn.SpatialFullConvolution):
        return {layer.weight.shape[0]}
    if isinstance(layer, nn.Differentiable):
        return {weight.numel() for weight in layer.weights} - {1}
    return set()

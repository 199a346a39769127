"""Gatys' normalised network: every channel's mean activation is 1, and all else remains as it was.

L. A. Gatys, A. S. Ecker, M. Bethge, "Texture Synthesis Using Convolutional Neural Networks",
arXiv:1505.07376, section 3: each ReLU channel's weights and bias are divided by its mean activation over
images and positions, and the weights that read the channel are multiplied by it. Works wherever a
positive factor passes through: ReLU, pooling, dropout. Note: a channel that is never active cannot
be scaled and stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.errors import UnsupportedError
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, NetParameter
from legacy_style.formats.caffe.phases import outside_inference
from legacy_style.formats.state_dict import blob_values
from legacy_style.toolkit.convert import activations

Array = NDArray[np.float64]

# f(c x) = c f(x) for every positive c, channel by channel.
_HOMOGENEOUS = {"ReLU", "PReLU", "Pooling", "Dropout", "Flatten", "Split"}
_RECTIFIERS = {"ReLU", "PReLU"}
_WEIGHTED = {"Convolution", "InnerProduct"}


@dataclass(frozen=True)
class Deviation:
    """How far a layer's channels are from a mean of 1 on some images: the mean and the largest of |mean - 1|.

    `silent` channels, not active while the means were measured, do not count. `change` is the largest
    difference between the two networks' outputs, the scales undone, as a part of the largest output.
    """

    layer: str
    mean: float
    largest: float
    silent: int
    change: float


def mean_activations(net: NetParameter, images: Iterable[Tensor]) -> dict[str, Array]:
    """ReLU layer -> mean activation of each channel over the images' positions, float64.

    `images`: (1, 3, H, W) each, BGR in Caffe units. Raises UnsupportedError where nothing reaches a ReLU
    layer, and the errors of `activations`.
    """
    rectifiers = {layer.name for layer in net.layers if layer.type in _RECTIFIERS}
    sums: dict[str, Array] = {}
    counts: dict[str, int] = {}
    with torch.no_grad():
        for image in images:
            for name, output in activations(net, image):
                if name in rectifiers:
                    maps = _maps(output)
                    sums[name] = sums.get(name, np.zeros(len(maps))) + maps.sum(axis=1)
                    counts[name] = counts.get(name, 0) + maps.shape[1]
    if not sums:
        raise UnsupportedError(f"{net.path}: no image reached a ReLU layer, so there is nothing to measure")
    return {name: total / counts[name] for name, total in sums.items()}


def normalised(net: NetParameter, means: Mapping[str, Array]) -> NetParameter:
    """`net` with the channels of each ReLU layer in `means` divided by their mean; weights are new arrays.

    Raises UnsupportedError at a layer that a factor cannot pass through, and where the network branches.
    """
    scales = channel_scales(net, means)
    incoming: Array | None = None  # what the layer's input has been divided by, per channel; None: nothing
    layers = []
    tops: list[str] = []
    passed_over = outside_inference(net)
    for index, layer in enumerate(net.layers):
        if index in passed_over:
            layers.append(layer)
            continue
        if len(layer.bottoms) > 1 or (tops and layer.bottoms and layer.bottoms != tops[:1]):
            _stop(layer, "begins or joins branches", net)
        if layer.type in _WEIGHTED:
            outgoing = scales.get(layer.name)
            layer = _scaled(layer, incoming, outgoing, net)
            incoming = outgoing
        elif layer.type not in _HOMOGENEOUS and incoming is not None:
            _stop(layer, "does not let a factor pass", net)
        layers.append(layer)
        tops = layer.tops
    return replace(net, layers=layers, name=f"{net.name} normalised".strip())


def channel_scales(net: NetParameter, means: Mapping[str, Array]) -> dict[str, Array]:
    """Layer with weights -> what to divide its outputs by: the means behind it, 1 for silent channels."""
    scales: dict[str, Array] = {}
    weighted = ""
    for layer in net.layers:
        if layer.type in _WEIGHTED:
            weighted = layer.name
        elif layer.type in _RECTIFIERS and layer.name in means and weighted and weighted not in scales:
            own = means[layer.name]
            scales[weighted] = np.where(own > 0, own, 1.0)
        elif layer.type not in _HOMOGENEOUS:
            weighted = ""
    return scales


def deviations(
    net: NetParameter, made: NetParameter, means: Mapping[str, Array], images: Sequence[Tensor]
) -> list[Deviation]:
    """How well `made`, which is `net` normalised by `means`, keeps its promise on `images`, by ReLU layer."""
    sums: dict[str, Array] = {}
    counts: dict[str, int] = {}
    changes: dict[str, float] = {}
    with torch.no_grad():
        for image in images:
            pairs = zip(activations(net, image), activations(made, image), strict=True)
            for (name, before), (_name, after) in pairs:
                if name not in means:
                    continue
                ours, theirs = _maps(before), _maps(after)
                scale = np.where(means[name] > 0, means[name], 1.0)[:, None]
                largest = max(float(np.abs(ours).max()), np.finfo(np.float32).tiny)
                change = float(np.abs(ours - theirs * scale).max()) / largest
                changes[name] = max(changes.get(name, 0.0), change)
                sums[name] = sums.get(name, np.zeros(len(theirs))) + theirs.sum(axis=1)
                counts[name] = counts.get(name, 0) + theirs.shape[1]
    rows = []
    for name, total in sums.items():
        active = means[name] > 0
        off = np.abs(total[active] / counts[name] - 1)
        rows.append(Deviation(name, float(off.mean()), float(off.max()), int((~active).sum()), changes[name]))
    return rows


def _maps(output: Tensor) -> Array:
    """(1, C, H, W) or (1, N) as (C, positions), float64."""
    return output.to(torch.float64).flatten(0, 1).reshape(output.shape[1], -1).numpy()


def _scaled(
    layer: LayerParameter, incoming: Array | None, outgoing: Array | None, net: NetParameter
) -> LayerParameter:
    """The layer for inputs divided by `incoming`, its outputs divided by `outgoing`."""
    if not layer.blobs:
        _stop(layer, "has no weights", net)
    weights = blob_values(layer, 0).astype(np.float64)
    if layer.type == "InnerProduct" and layer.param("inner_product_param")["transpose"]:
        _stop(layer, "has transposed weights", net)
    if incoming is not None:
        weights *= _per_weight(incoming, weights, layer, net)
    parts = [weights, *(blob_values(layer, index).astype(np.float64) for index in range(1, len(layer.blobs)))]
    if outgoing is not None:
        parts = [part / outgoing.reshape(-1, *[1] * (part.ndim - 1)) for part in parts]
    return replace(layer, blobs=[Blob.from_array(part.astype(np.float32)) for part in parts])


def _per_weight(incoming: Array, weights: Array, layer: LayerParameter, net: NetParameter) -> Array:
    """The factor of every weight's input, to multiply `weights` by: (O, I, 1, 1) or (O, I)."""
    if layer.type == "InnerProduct":
        if weights.shape[1] % len(incoming):
            _stop(layer, f"has {weights.shape[1]} inputs, not a multiple of {len(incoming)} channels", net)
        # Caffe flattens channels first, then rows and columns.
        return incoming.repeat(weights.shape[1] // len(incoming))[None]
    groups = layer.param("convolution_param")["group"] or 1
    if weights.shape[1] * groups != len(incoming) or weights.shape[0] % groups:
        _stop(layer, f"has kernels over {weights.shape[1] * groups} channels, not over {len(incoming)}", net)
    per_group = incoming.reshape(groups, -1).repeat(weights.shape[0] // groups, axis=0)  # (O, I)
    return per_group[:, :, None, None]


def _stop(layer: LayerParameter, why: str, net: NetParameter) -> NoReturn:
    raise UnsupportedError(
        f"{net.path}: layer {layer.name} ({layer.type}) {why}, so that normalising ends before it; "
        "keep only the layers before it (--until)"
    )

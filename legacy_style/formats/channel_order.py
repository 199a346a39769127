"""The same network for images whose channels come the other way round: BGR, as Caffe has them, or RGB.

Only the layers that see the image itself change: their weights' input channels are reversed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import UnsupportedError
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, NetParameter
from legacy_style.formats.caffe.phases import image_blobs, outside_inference

# What comes out of these has the image's channels, in the image's order.
_CHANNEL_BY_CHANNEL = {"AbsVal", "Dropout", "Pooling", "Power", "ReLU", "Sigmoid", "Split", "TanH"}
# Of the image these take the size alone, or what is not their first input.
_SIZE_ALONE = {"Crop", "PriorBox"}


def reversed_channels(net: NetParameter) -> NetParameter:
    """`net` for images with their three channels in reverse order; weights are shared or read when asked for.

    Raises UnsupportedError where no convolution sees the image, or another layer with weights does.
    """
    images = image_blobs(net)
    passed_over = outside_inference(net)
    layers = []
    found = 0
    for index, layer in enumerate(net.layers):
        takes = layer.bottoms[:1] if layer.type in _SIZE_ALONE else layer.bottoms
        sees_image = index not in passed_over and not images.isdisjoint(takes)
        if sees_image and layer.type in _CHANNEL_BY_CHANNEL:
            images.update(layer.tops)
        elif sees_image:
            images.difference_update(layer.tops)
            layer = _reversed(layer, net)
            found += 1
        layers.append(layer)
    if not found:
        raise UnsupportedError(f"{net.path}: no convolution sees the image, so its channels have no order")
    mean = None if net.mean_pixel is None else net.mean_pixel[::-1]
    return replace(net, layers=layers, mean_pixel=mean)


def _reversed(layer: LayerParameter, net: NetParameter) -> LayerParameter:
    weights = layer.blobs[0] if layer.blobs else None
    if layer.type != "Convolution" or weights is None or len(weights.shape) != 4 or weights.shape[1] != 3:
        raise UnsupportedError(
            f"{net.path}: layer {layer.name} ({layer.type}) sees the image, and only convolutions over its "
            "three channels can be turned from BGR to RGB or back"
        )

    def values() -> NDArray[np.float32]:
        return np.ascontiguousarray(weights.data()[:, ::-1])

    return replace(layer, blobs=[Blob(weights.shape, values, weights.count), *layer.blobs[1:]])

"""What is in a network: layers, shapes, statistics, receptive fields, names for losses; and its filters.

Note: a network with branches is described in full, but names behind the first layer that joins
branches cannot be used, because the main program runs a network as one chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from legacy_style.engine import loadcaffe
from legacy_style.errors import UnsupportedError
from legacy_style.formats.caffe.geometry import Geometry, geometries
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, NetParameter
from legacy_style.formats.state_dict import part_name

# Filters are drawn at least this many pixels wide.
_SMALLEST_FILTER = 24


@dataclass(frozen=True)
class Statistics:
    """Of the values of one blob; `zeros` is a share, `not_finite` a count, which the others leave out."""

    minimum: float
    maximum: float
    mean: float
    deviation: float
    zeros: float
    not_finite: int


@dataclass(frozen=True)
class BlobRow:
    """One blob of a layer; `part` is "weight", "bias", ..."""

    part: str
    shape: tuple[int, ...]
    statistics: Statistics | None


@dataclass(frozen=True)
class LayerRow:
    """One layer; `geometry` is None where it cannot be known, `usable` says whether losses may name it."""

    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    blobs: list[BlobRow]
    parameters: int
    geometry: Geometry | None
    usable: bool


def rows(net: NetParameter, height: int, width: int, *, statistics: bool = True) -> list[LayerRow]:
    """A row per layer, outputs being those for images of height x width; `statistics` reads all weights."""
    known = geometries(net, height, width)
    usable = loadcaffe.usable_names(net, read=statistics)
    return [
        LayerRow(
            layer.name,
            layer.type,
            layer.bottoms,
            layer.tops,
            [
                BlobRow(part_name(layer, index), blob.shape, measured(blob) if statistics else None)
                for index, blob in enumerate(layer.blobs)
            ],
            sum(blob.count for blob in layer.blobs),
            known.get(layer.name),
            layer.name in usable,
        )
        for layer in net.layers
    ]


def measured(blob: Blob) -> Statistics:
    """The statistics of one blob, in float64; all zero where it is empty."""
    values = blob.data(flat=True).astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Statistics(0, 0, 0, 0, 0, values.size)
    return Statistics(
        float(finite.min()),
        float(finite.max()),
        float(finite.mean()),
        float(finite.std()),
        float((finite == 0).mean()),
        values.size - finite.size,
    )


def filters(net: NetParameter, mean_gray: float = 0.5) -> NDArray[np.uint8]:
    """A picture, (H, W, 3) RGB bytes, of the filters of the first convolution that sees an image.

    Each filter is scaled by itself so that its largest weight is white or black and zero is gray.
    Filters over other than three channels are drawn in gray, their mean over the channels. Raises
    UnsupportedError if there is none.
    """
    layer = _first_convolution(net)
    kernels = layer.blobs[0].data().astype(np.float64)  # (O, C, kH, kW), BGR
    if kernels.shape[1] == 3:
        kernels = kernels[:, ::-1]
    else:
        kernels = np.repeat(kernels.mean(axis=1, keepdims=True), 3, axis=1)
    largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    shades = mean_gray + kernels / np.where(largest > 0, largest, 1) / 2
    tiles = (np.clip(shades, 0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)  # (O, kH, kW, 3)
    scale = max(1, math.ceil(_SMALLEST_FILTER / tiles.shape[2]))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    columns = math.ceil(math.sqrt(len(tiles)))
    height, width = tiles.shape[1] + 2, tiles.shape[2] + 2
    picture = np.zeros((2 + math.ceil(len(tiles) / columns) * height, 2 + columns * width, 3), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = 2 + index // columns * height, 2 + index % columns * width
        picture[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return picture


def _first_convolution(net: NetParameter) -> LayerParameter:
    for layer in net.layers:
        if layer.type == "Convolution" and layer.blobs and len(layer.blobs[0].shape) == 4:
            return layer
    raise UnsupportedError(f"{net.path}: has no convolution, so there are no filters to draw")

"""Two networks, layer by layer: the same weights, or the same but for a transposition, a flip or a scale.

The relations are those that conversions leave behind: MatConvNet's kernels read as (W, H), RGB for BGR, half
precision, and Gatys' normalisation, which scales every channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from legacy_style.formats.caffe.netparam import LayerParameter, NetParameter
from legacy_style.formats.state_dict import blob_values

Array = NDArray[np.float64]

# What the relations are called, from the closest to none.
EQUAL = "equal"
HALF = "equal in half precision"
TRANSPOSED = "transposed in space"
FLIPPED = "BGR for RGB"
BOTH = "transposed in space and BGR for RGB"
SCALED = "scaled"
CHANNEL_SCALED = "scaled per channel"
DIFFERENT = "different"
SHAPES = "of different shapes"
ONLY_FIRST = "only in the first"
ONLY_SECOND = "only in the second"

# How far a weight may be off, as a part of the largest: float32 arithmetic, and half precision.
_CLOSE = 1e-5
_HALF_CLOSE = 2.0**-10

# Scales per channel are fitted to the logarithms of the ratios, in rounds, and held to this.
_ROUNDS = 20
_LOG_CLOSE = 1e-3


@dataclass(frozen=True)
class LayerDifference:
    """How the weights of one layer relate; `largest` is the largest absolute difference as they stand."""

    layer: str
    relation: str
    largest: float
    factor: float | None = None  # second = factor * first, where they are SCALED


def compare(first: NetParameter, second: NetParameter) -> list[LayerDifference]:
    """A line per layer with weights, in the first network's order, then those that only the second has."""
    ours = {layer.name: layer for layer in first.layers if layer.blobs}
    theirs = {layer.name: layer for layer in second.layers if layer.blobs}
    channels = dict(_incoming_channels(first))
    lines = []
    for name, layer in ours.items():
        if name in theirs:
            lines.append(_layer(layer, theirs[name], channels.get(name)))
        else:
            lines.append(LayerDifference(name, ONLY_FIRST, math.nan))
    return lines + [LayerDifference(name, ONLY_SECOND, math.nan) for name in theirs if name not in ours]


def verdict(lines: list[LayerDifference]) -> str:
    """One sentence on the networks as wholes."""
    shared = [line for line in lines if line.relation not in (ONLY_FIRST, ONLY_SECOND)]
    relations = {line.relation for line in shared}
    missing = len(lines) - len(shared)
    rest = f"; {missing} layers are in one alone" if missing else ""
    if not shared:
        return "no layer is in both"
    if relations & {DIFFERENT, SHAPES}:
        wrong = [line.layer for line in shared if line.relation in (DIFFERENT, SHAPES)]
        return f"different: {len(wrong)} of {len(shared)} layers differ, {wrong[0]} first{rest}"
    if relations == {EQUAL}:
        return f"the same, bit for bit{rest}"
    unlike = [name for name in _ORDER if name in relations]
    return f"the same up to: {', '.join(unlike)}{rest}"


_ORDER = (HALF, TRANSPOSED, FLIPPED, BOTH, SCALED, CHANNEL_SCALED)


def _layer(first: LayerParameter, second: LayerParameter, channels: int | None) -> LayerDifference:
    ours = [blob_values(first, index).astype(np.float64) for index in range(len(first.blobs))]
    theirs = [blob_values(second, index).astype(np.float64) for index in range(len(second.blobs))]
    if [a.shape for a in ours] != [b.shape for b in theirs]:
        return LayerDifference(first.name, SHAPES, math.nan)
    largest = max(
        (float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True) if a.size), default=0.0
    )
    for relation, holds in _relations(ours, theirs, channels):
        if holds():
            factor = None
            if relation == SCALED:
                factor = _factor(ours[0], theirs[0])
            return LayerDifference(first.name, relation, largest, factor)
    return LayerDifference(first.name, DIFFERENT, largest)


def _relations(
    ours: list[Array], theirs: list[Array], channels: int | None
) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The relations in the order in which to try them, and whether each holds."""
    a, b = ours[0], theirs[0]
    biases = list(zip(ours[1:], theirs[1:], strict=True))
    yield EQUAL, lambda: all(np.array_equal(x, y) for x, y in zip(ours, theirs, strict=True))
    yield HALF, lambda: all(_in_half(x, y) for x, y in zip(ours, theirs, strict=True))
    turned = _transposed(a, channels)
    same_bias = all(_near(x, y, _HALF_CLOSE) for x, y in biases)
    image = a.ndim == 4 and a.shape[1] == 3
    yield TRANSPOSED, lambda: same_bias and turned is not None and _near(turned, b, _HALF_CLOSE)
    yield FLIPPED, lambda: same_bias and image and _near(a[:, ::-1], b, _HALF_CLOSE)
    yield BOTH, lambda: same_bias and image and turned is not None and _near(turned[:, ::-1], b, _HALF_CLOSE)
    yield SCALED, lambda: all(_near(x * _factor(x, y), y, _CLOSE) for x, y in zip(ours, theirs, strict=True))
    yield CHANNEL_SCALED, lambda: _channel_scaled(ours, theirs)


def _near(a: Array, b: Array, part: float) -> bool:
    return not a.size or float(np.abs(a - b).max()) <= part * float(np.abs(b).max())


def _in_half(a: Array, b: Array) -> bool:
    """Whether one is the other after rounding to half precision."""
    with np.errstate(over="ignore"):
        return np.array_equal(a.astype(np.float16), b) or np.array_equal(b.astype(np.float16), a)


def _transposed(kernels: Array, channels: int | None) -> Array | None:
    """Kernels with height and width exchanged; those of an inner product over a square feature map too."""
    if kernels.ndim == 4:
        turned: Array = kernels.swapaxes(2, 3)
        return turned if turned.shape == kernels.shape and kernels.shape[2] > 1 else None
    if kernels.ndim != 2 or not channels or kernels.shape[1] % channels:
        return None
    side = math.isqrt(kernels.shape[1] // channels)
    if side < 2 or side * side * channels != kernels.shape[1]:
        return None
    flat: Array = kernels.reshape(-1, channels, side, side).swapaxes(2, 3).reshape(kernels.shape)
    return flat


def _factor(a: Array, b: Array) -> float:
    """The scale that takes `a` closest to `b`."""
    square = float((a * a).sum())
    return float((a * b).sum()) / square if square else 1.0


def _channel_scaled(ours: list[Array], theirs: list[Array]) -> bool:
    """Whether weights[o, i] are scaled by u[o] v[i] and the bias by u[o]: what scaling every channel does."""
    a, b = ours[0], theirs[0]
    if a.ndim not in (2, 4):
        return False
    a, b = a.reshape(*a.shape[:2], -1), b.reshape(*b.shape[:2], -1)
    square = (a * a).sum(axis=2)  # (O, I)
    known = square > 0
    ratio = np.where(known, (a * b).sum(axis=2) / np.where(known, square, 1), 1)
    if (ratio <= 0).any() or not _near(a * ratio[:, :, None], b, _CLOSE):
        return False
    logs = np.log(ratio)
    outputs, inputs = np.zeros((len(logs), 1)), np.zeros((1, logs.shape[1]))
    for _ in range(_ROUNDS):
        outputs = _mean_where(logs - inputs, known, axis=1)
        inputs = _mean_where(logs - outputs, known, axis=0)
    if (np.abs(logs - outputs - inputs)[known] > _LOG_CLOSE).any():
        return False
    # What is left open, one factor from `outputs` to `inputs`, the bias decides.
    for x, y in zip(ours[1:], theirs[1:], strict=True):
        given = (x != 0) | (y != 0)
        if (x * y <= 0)[given].any():
            return False
        if given.any() and np.ptp(np.log(y[given] / x[given]) - outputs.ravel()[given]) > _LOG_CLOSE:
            return False
    return True


def _mean_where(values: Array, known: NDArray[np.bool_], axis: int) -> Array:
    counts = np.maximum(known.sum(axis=axis, keepdims=True), 1)
    means: Array = np.where(known, values, 0).sum(axis=axis, keepdims=True) / counts
    return means


def _incoming_channels(net: NetParameter) -> Iterator[tuple[str, int]]:
    """For every inner product, how many feature maps the convolutions before it make."""
    channels = 0
    for layer in net.layers:
        if layer.type == "Convolution" and layer.blobs:
            channels = layer.blobs[0].shape[0]
        elif layer.type == "InnerProduct":
            if channels:
                yield layer.name, channels
            channels = 0

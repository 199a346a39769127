"""MatConvNet networks written by scipy.io.savemat, as vlfeat's importer wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

Fields = dict[str, Any]

# VGG-16's beginning and its classifier, thin; 4 x 4 images come to fc6.
THIN_VGG = (
    ("conv1_1", (6, 3, 3, 3)),
    ("conv1_2", (5, 6, 3, 3)),
    ("conv2_1", (4, 5, 3, 3)),
    ("fc6", (7, 4 * 2 * 3)),
    ("fc7", (5, 7)),
    ("fc8", (2, 5)),
)
FC6_INPUT = (4, 2, 3)


def thin_weights(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """The weights of a thin VGG as Caffe has them: (O, I, H, W) for BGR images, (O, I), biases (O,)."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in THIN_VGG:
        weights[f"{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.standard_normal(shape[0]).astype(np.float32)
    return weights


def kernel_as_stored(name: str, weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A Caffe weight as MatConvNet has it: (H, W, C, O), the first one's channels RGB."""
    if weight.ndim == 2:
        weight = weight.reshape(len(weight), *(FC6_INPUT if name == "fc6" else (-1, 1, 1)))
    stored: np.ndarray[Any, Any] = weight.transpose(2, 3, 1, 0)
    return stored[:, :, ::-1] if name == "conv1_1" else stored


def thin_vgg(weights: dict[str, np.ndarray[Any, Any]], *, old: bool) -> list[Fields]:
    """The layers of the thin VGG, fields in the order of beta16 (`old`) or of later files."""
    layers: list[Fields] = []

    def add(**fields: Any) -> None:
        order = ("weights", "pad", "type", "name", "stride", "method", "pool")
        if not old:
            order = ("name", "type", "weights", "method", "pool", "pad", "stride")
        layers.append({key: fields[key] for key in order if key in fields})

    for name, _shape in THIN_VGG:
        bias = weights[f"{name}.bias"]
        pair = cell(
            kernel_as_stored(name, weights[f"{name}.weight"]), bias.reshape((1, -1) if old else (-1, 1))
        )
        pad = 0.0 if name.startswith("fc") else 1.0
        add(name=name, type="conv", weights=pair, pad=np.full((1, 4), pad), stride=np.ones((1, 2)))
        if name != "fc8":
            add(name="relu" + name.removeprefix("conv").removeprefix("fc"), type="relu")
        if name in ("conv1_2", "conv2_1"):
            # Bottom and right are padded by one more, MatConvNet's way of rounding up.
            even = np.array([[0.0, 1, 0, 1]])
            pool = np.full((1, 2), 2.0)
            add(name=f"pool{name[4]}", type="pool", method="max", pool=pool, pad=even, stride=pool)
    add(name="prob", type="softmax")
    return layers


def cell(*items: Any) -> np.ndarray[Any, Any]:
    """A 1 x n cell array."""
    array = np.empty((1, len(items)), dtype=object)
    for index, item in enumerate(items):
        array[0, index] = item
    return array


def struct_array(items: Iterable[Fields]) -> np.ndarray[Any, Any]:
    """A 1 x n struct array."""
    items = list(items)
    array = np.empty((1, len(items)), dtype=[(name, object) for name in items[0]])
    for index, fields in enumerate(items):
        for name, value in fields.items():
            array[0, index][name] = value
    return array


def write_simple(
    path: Path,
    layers: list[Fields],
    *,
    old: bool = False,
    mean: np.ndarray[Any, Any] | None = None,
    compressed: bool = True,
) -> str:
    """A SimpleNN file of either generation; the path as a string."""
    normalization: Fields = {"imageSize": np.array([[8.0, 12, 3]]), "interpolation": "bilinear"}
    if mean is not None:
        normalization = (
            {"averageImage": mean, **normalization} if old else {**normalization, "averageImage": mean}
        )
    variables: Fields = {"layers": cell(*layers), "classes": {"name": cell("a", "b")}}
    if old:
        variables["normalization"] = normalization
    else:
        variables["meta"] = {"classes": variables.pop("classes"), "normalization": normalization}
    scipy.io.savemat(path, variables, do_compression=compressed)
    return str(path)


def write_dag(path: Path, layers: list[Fields], params: Fields) -> str:
    """A DagNN file; `layers` have name, type, inputs, outputs, params, block."""
    named = [{"name": name, "value": value} for name, value in params.items()]
    variables = {
        "layers": struct_array(layers),
        "params": struct_array(named) if named else np.empty((0, 0)),
        "vars": struct_array([{"name": "data", "precious": 0.0}]),
        "meta": {"normalization": {"averageImage": np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3)}},
    }
    scipy.io.savemat(path, variables, do_compression=True)
    return str(path)


Writer = Callable[..., str]

"""Networks made for the tests: written by Google's protobuf, run by OpenCV's dnn module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from caffe_messages import CLASSES
from google.protobuf import text_format
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One layer: `params` as in a prototxt, `blobs` the shapes of its weights."""

    name: str
    type: str
    bottoms: str  # names with blanks between, as are tops
    params: str = ""
    blobs: tuple[tuple[int, ...], ...] = ()
    tops: str = ""


def chain(*rows: tuple[str, str, str, tuple[tuple[int, ...], ...]]) -> list[Row]:
    """Rows (name, type, params, blobs), each of which takes what the one before it gives."""
    bottoms = ["data", *(name for name, *_ in rows)]
    return [
        Row(name, kind, below, params, blobs)
        for below, (name, kind, params, blobs) in zip(bottoms, rows, strict=False)
    ]


def weights(rows: Sequence[Row], seed: int = 0) -> dict[str, list[Array]]:
    """Random weights of a size that keeps feature maps about as large as the image."""
    rng = np.random.RandomState(seed)
    made = {}
    for row in rows:
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in row.blobs]
        if row.type in ("Convolution", "Deconvolution", "InnerProduct"):
            arrays[0] /= np.float32(np.sqrt(np.prod(row.blobs[0][1:])))
        if row.type == "BatchNorm":
            # Sums over 2.5 batches; a variance is positive.
            arrays[1] = np.abs(arrays[1]) + np.float32(0.5)
            arrays[2][:] = 2.5
        made[row.name] = arrays
    return made


def message(rows: Sequence[Row], arrays: dict[str, list[Array]], version: str = "V2") -> Any:
    """Google's NetParameter, weights included."""
    lines = []
    for row in rows:
        kind = (
            f'"{row.type}"' if version == "V2" else re.sub("(?<=[a-z])(?=[A-Z][a-z])", "_", row.type).upper()
        )
        names = [f'bottom: "{name}"' for name in row.bottoms.split()]
        names += [f'top: "{name}"' for name in (row.tops or row.name).split()]
        field = "layer" if version == "V2" else "layers"
        lines.append(f'{field} {{ name: "{row.name}" type: {kind} {" ".join(names)} {row.params} }}')
    net = text_format.Parse("\n".join(lines), CLASSES["NetParameter"]())
    for layer in net.layer if version == "V2" else net.layers:
        for array in arrays[layer.name]:
            blob = layer.blobs.add()
            blob.data.extend(array.ravel().tolist())
            if version == "V2":
                blob.shape.dim.extend(array.shape)
            else:
                axes = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = axes
    return net


def save(folder: Path, net: Any, image: Array) -> None:
    """Write net.caffemodel, and net.prototxt for images of the size of `image`."""
    (folder / "net.caffemodel").write_bytes(net.SerializeToString())
    deploy = CLASSES["NetParameter"]()
    deploy.CopyFrom(net)
    for layer in [*deploy.layer, *deploy.layers]:
        del layer.blobs[:]
    deploy.input.append("data")
    deploy.input_dim.extend(image.shape)
    (folder / "net.prototxt").write_text(text_format.MessageToString(deploy))


def by_opencv(folder: Path, image: Array, layer: str) -> Array:
    """The output of `layer` as OpenCV computes it from the files of `save`."""
    import cv2

    net = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
    net.enableFusion(False)
    net.setInput(image)
    return np.array(net.forward(layer))


def image(channels: int, height: int, width: int, seed: int = 1) -> Array:
    return np.random.RandomState(seed).standard_normal((1, channels, height, width)).astype(np.float32)

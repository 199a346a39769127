"""MatConvNet's networks (.mat), SimpleNN and DAG, as the Caffe networks that they were converted from.

The inverse of vlfeat/matconvnet's utils/import-caffe.py: kernels (H, W, C, O) become (O, C, H, W), the first
ones' input channels go from RGB back to BGR, convolutions called fc become inner products. Fields are found
by name, since their order differs from file to file. Notes: Caffe's pooling rounds up, which MatConvNet
imitates by padding bottom and right; files up to beta16 have a mean image where later ones have a mean pixel.
With `orientation="wh"` kernels are read transposed, which is wrong but is how anishathalye/neural-style reads
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError, OptionError
from legacy_style.formats import matlab
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.formats.matconvnet.layers import caffe_layers
from legacy_style.formats.matconvnet.node import Node

ORIENTATIONS = ("hw", "wh")

_VARIABLES = ("layers", "params", "vars", "meta", "normalization", "net")

# Types that change their input in place in Caffe's own networks.
_IN_PLACE = {"relu", "dropout", "sigmoid", "tanh"}

# dagnn's class names where they are not SimpleNN's type names with capitals.
_DAG_TYPES = {"convtranspose": "convt", "pooling": "pool", "batchnorm": "bnorm", "normalize": "lrn"}
_SIMPLE_TYPES = {"normalize": "lrn"}


def read(path: str, file: BinaryIO | None = None, *, orientation: str = "hw") -> NetParameter:
    """The network in a MAT-file of level 5, its `mean_pixel` in BGR; `file` is that file where it is open already.

    Raises FormatError where the file is broken or holds no network, UnsupportedError for a layer that no
    Caffe layer equals (uneven padding), OptionError for an orientation that is neither "hw" nor "wh".
    """
    if orientation not in ORIENTATIONS:
        raise OptionError(
            f"matconvnet_orientation is {orientation!r}, expected hw (right) or wh (transposed kernels)"
        )
    variables = matlab.read(path, _VARIABLES, file)
    if "layers" not in variables:
        variables = _struct(variables.get("net")) or variables
    layers = variables.get("layers")
    if not isinstance(layers, list) or not layers:
        raise FormatError(f"{path}: is a MAT-file without the `layers` of a MatConvNet network")
    nodes = _dag(variables, path) if "params" in variables else _simple(layers, path)
    normalization = _normalization(variables)
    net = NetParameter(version="", path=path, mean_pixel=_mean_pixel(normalization, path))
    net.layers = caffe_layers(nodes, path, transposed=orientation == "wh")
    size = normalization.get("imageSize")
    if isinstance(size, np.ndarray) and size.size >= 2 and size.min() >= 1:
        height, width = (int(n) for n in size.ravel()[:2])
        net.inputs, net.input_dims = ["data"], [(1, 3, height, width)]
    return net


def _simple(layers: list[Any], path: str) -> list[Node]:
    """The nodes of a SimpleNN network: a cell array of structs, one after the other."""
    nodes: list[Node] = []
    top = "data"
    for number, cell in enumerate(layers, 1):
        fields = _struct(cell)
        if fields is None or not isinstance(fields.get("type"), str):
            raise FormatError(f"{path}: layer {number} of the network is no struct with a `type`")
        kind = _SIMPLE_TYPES.get(fields["type"], fields["type"])
        name = _string(fields.get("name")) or f"layer{number}"
        # Before beta7 weights were two fields.
        weights = fields.get("weights", [fields.get("filters"), fields.get("biases")])
        output = top if kind in _IN_PLACE and nodes else name
        node = Node(name, kind, [top], [output], fields, _arrays(weights))
        nodes.append(node)
        top = node.outputs[0]
    return nodes


def _dag(variables: Mapping[str, Any], path: str) -> list[Node]:
    """The nodes of a DagNN network: struct arrays `layers` and `params`."""
    values = {p.get("name"): p.get("value") for p in variables["params"] or [] if isinstance(p, dict)}
    nodes = []
    for number, layer in enumerate(variables["layers"], 1):
        if not isinstance(layer, dict) or not isinstance(layer.get("type"), str):
            raise FormatError(f"{path}: layer {number} of the network is no struct with a `type`")
        kind = layer["type"].removeprefix("dagnn.")
        known = _DAG_TYPES.get(kind.lower(), kind.lower())
        name = _string(layer.get("name")) or f"layer{number}"
        fields = _struct(layer.get("block")) or {}
        params = _names(layer.get("params"))
        missing = [param for param in params if param not in values]
        if missing:
            raise FormatError(
                f"{path}: layer {name} needs the parameter {missing[0]}, which the file does not have"
            )
        weights = _arrays([values[param] for param in params])
        nodes.append(
            Node(name, known, _names(layer.get("inputs")), _names(layer.get("outputs")), fields, weights)
        )
    return nodes


def _struct(value: Any) -> dict[str, Any] | None:
    """The fields of a struct, or of the first of a struct array; None where it is neither."""
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, dict) else None


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _names(value: Any) -> list[str]:
    """The strings of a cell array, or one string alone."""
    if isinstance(value, str):
        return [value] if value else []
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _arrays(value: Any) -> list[NDArray[Any]]:
    """The arrays of a cell array, but for empty ones at its end, which stand for no bias."""
    arrays = [item for item in value if isinstance(item, np.ndarray)] if isinstance(value, list) else []
    while arrays and not arrays[-1].size:
        arrays.pop()
    return arrays


def _normalization(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The struct of that name: a variable of its own up to beta16, within `meta` since."""
    meta = _struct(variables.get("meta")) or {}
    return _struct(meta.get("normalization", variables.get("normalization"))) or {}


def _mean_pixel(normalization: Mapping[str, Any], path: str) -> tuple[float, float, float] | None:
    """The mean colour, BGR: of the mean image's pixels (H, W, 3), or as it stands."""
    image = normalization.get("averageImage")
    if not isinstance(image, np.ndarray) or image.size < 3:
        return None
    if image.size == 3:
        red, green, blue = (float(n) for n in image.ravel(order="F"))
    elif image.ndim == 3 and image.shape[2] == 3:
        red, green, blue = (float(n) for n in image.mean(axis=(0, 1), dtype=np.float64))
    else:
        raise FormatError(f"{path}: has a mean image of the shape {image.shape}, expected (H, W, 3)")
    return blue, green, red

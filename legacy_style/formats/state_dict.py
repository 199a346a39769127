"""NetParameter <-> the named weights of a state dict, bit for bit, and the files that hold them.

The keys are Caffe's layer names with `.weight` and `.bias` (conv1_1.weight), as neural-style ports have used
them since 2016, or torchvision's (features.0.weight). A state dict names no layer without weights. A VGG's
follow from the names (`vgg`, `nin`); for any other network our files also keep the list of layers as prototxt text: a
.pth among the state dict's metadata, a .safetensors in its header's, an .npz in the archive's comment, where
load_state_dict, safetensors and np.load overlook it. There, too, weights for RGB images are marked, and whoever reads
them here gets them for BGR.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.errors import LegacyStyleError, UnsupportedError, WeightMismatchError
from legacy_style.files import replacing
from legacy_style.formats import nin, npz, pth, safetensors, vgg
from legacy_style.formats.caffe import prototxt, textformat, upgrade
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, NetParameter
from legacy_style.formats.channel_order import reversed_channels

Kind = Literal["pth", "npz", "safetensors"]

# What Caffe calls blobs[0], blobs[1], ... of a layer, where they are not weight and bias.
_PARTS = {"BatchNorm": ("mean", "variance", "scale_factor"), "Bias": ("bias",)}

# The parts of a layer that keeps its Torch7 class as its type, as torch.nn calls them.
_TORCH7_PARTS = ("weight", "bias", "running_mean", "running_var")

# Layers whose first blob keeps its axes; all other blobs are vectors.
_MATRICES = {"Convolution", "Deconvolution", "InnerProduct", "Embed"}

# The first line of the text that belongs to weights for RGB images; a comment in prototxt.
_RGB_MARK = "# The weights are for RGB images.\n"

# What nn.DataParallel and torch.compile call the module that they wrap.
_WRAPPERS = {"module", "_orig_mod"}

TORCHVISION_REASON = (
    "is torchvision's own {name}, which was trained anew on RGB images of unit deviation: it is not the "
    "Caffe network, "
    "and style transfer with it comes out differently. Get the Caffe weights with legacy-style models get"
)


def read(
    path: str, kind: Kind, file: BinaryIO | None = None, *, allow_torchvision: bool = False
) -> NetParameter:
    """The network of a file of that kind; its weights stay in the file until they are asked for.

    Errors: those of the kind's own reader (`pth.read`, `npz.read`, `safetensors.read`) and of `from_weights`.
    """
    blobs, text = _READERS[kind](path, file)
    return from_weights(blobs, path=path, text=text, allow_torchvision=allow_torchvision)


def _read_pth(path: str, file: BinaryIO | None) -> tuple[dict[str, Blob], str | None]:
    tensors, text = pth.read(path, file)
    return {name: _tensor_blob(tensor) for name, tensor in tensors.items()}, text


_READERS: Mapping[Kind, Callable[[str, BinaryIO | None], tuple[Mapping[str, Blob], str | None]]] = {
    "pth": _read_pth,
    "npz": npz.read,
    "safetensors": safetensors.read,
}


def from_weights(
    blobs: Mapping[str, Blob], *, path: str, text: str | None = None, allow_torchvision: bool = False
) -> NetParameter:
    """The network that has these weights, by key: its layers from our `text` (prototxt), or else VGG's or NIN's.

    Raises UnsupportedError where it is neither and there is no text, or where it is torchvision's own network
    and that is not allowed; WeightMismatchError where weights are missing or do not fit.
    """
    rgb = (text or "").startswith(_RGB_MARK)
    text = (text or "").removeprefix(_RGB_MARK)
    if not text:
        blobs = _unwrapped(blobs)
    torchvision_naming = any(key.startswith("features.") or ".features." in key for key in blobs)
    if not text and (parts := nin.parts(blobs)):
        net = NetParameter(layers=nin.layers(parts, path), version="", path=path)
        return reversed_channels(net) if rgb else net
    if not text or torchvision_naming:
        named = vgg.layer_keys(blobs, path)
        weights: dict[str, dict[str, Blob]] = {}
        for key, (layer, part) in named.items():
            weights.setdefault(layer, {})[part] = blobs[key]
        blobs = {f"{layer}.{part}": blob for layer, parts in weights.items() for part, blob in parts.items()}
    if not text:
        net = NetParameter(layers=vgg.layers(weights, path), version="", path=path)
    else:
        net = upgrade.net_parameter(prototxt.parse(text, path=f"{path} (list of layers)"), path)
        net.version = ""
        _attach(net, blobs)
    if not allow_torchvision and "conv1_1.weight" in blobs:
        first = blobs["conv1_1.weight"].data()
        name = vgg.torchvisions_own(
            (layer.name for layer in net.layers), first, torchvision_naming=torchvision_naming
        )
        if name:
            raise UnsupportedError(f"{path}: {TORCHVISION_REASON.format(name=name)}")
    return reversed_channels(net) if rgb else net


def _unwrapped(blobs: Mapping[str, Blob]) -> dict[str, Blob]:
    """The keys without what DataParallel and torch.compile put into them, on the whole network or a part of it."""
    named = {
        ".".join(part for part in key.split(".") if part not in _WRAPPERS): blob
        for key, blob in blobs.items()
    }
    return named if len(named) == len(blobs) else dict(blobs)


def keys(net: NetParameter, *, names: str = "caffe") -> dict[str, tuple[LayerParameter, int]]:
    """Key -> (layer, index of the blob) for every blob of `net`, in file order.

    `names` says whose they are, "caffe" or "torchvision". Raises WeightMismatchError where two layers would
    share a key.
    """
    stems = vgg.torchvision_keys(net.layers) if names == "torchvision" else {}
    found: dict[str, tuple[LayerParameter, int]] = {}
    for layer in net.layers:
        for index in range(len(layer.blobs)):
            key = f"{stems.get(layer.name, layer.name)}.{part_name(layer, index)}"
            if key in found:
                raise WeightMismatchError(
                    f"{net.path}: two layers are called {layer.name}, and their weights would be one"
                )
            found[key] = (layer, index)
    return found


def part_name(layer: LayerParameter, index: int) -> str:
    """What blob `index` of the layer is called in a state dict: "weight", "bias", ..."""
    usual = _TORCH7_PARTS if _is_torch7(layer) else ("weight", "bias")
    parts = _PARTS.get(layer.type, usual)
    return parts[index] if index < len(parts) else f"blob{index}"


def weights(
    net: NetParameter, *, names: str = "caffe", half: bool = False
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Key and values of every blob, float32 (or float16 if `half`), read one after the other.

    Shapes are PyTorch's: (O, I, kH, kW) for convolutions, (O, I) for inner products, vectors without the
    leading ones of Caffe's legacy blobs. Raises WeightMismatchError where a blob's shape and values disagree,
    or where half precision cannot hold a weight.
    """
    for key, (layer, index) in keys(net, names=names).items():
        layer.blobs[index].check(f"{net.path}: layer {layer.name}, blob {index},")
        values: NDArray[Any] = blob_values(layer, index)
        if half:
            with np.errstate(over="ignore"):
                rounded = values.astype(np.float16)
            if not np.isfinite(rounded[np.isfinite(values)]).all():
                raise WeightMismatchError(
                    f"{net.path}: {key} has weights beyond 65504, which half precision cannot hold"
                )
            values = rounded
        yield key, values


def blob_values(layer: LayerParameter, index: int) -> NDArray[np.float32]:
    """A copy of one blob in the shape that PyTorch would have; see `weights`."""
    return np.array(layer.blobs[index].data(), dtype=np.float32, order="C").reshape(_shape(layer, index))


def layers_text(net: NetParameter, *, rgb: bool = False) -> str:
    """The list of layers of `net` as prototxt text; "" where the names of the weights say as much.

    If `rgb`, it says so in its first line.
    """
    mark = _RGB_MARK if rgb else ""
    text = textformat.write(net)
    shapes = {key: _shape(layer, index) for key, (layer, index) in keys(net).items()}
    blobs = {
        key: Blob(shape, lambda: np.empty(0, np.float32), math.prod(shape)) for key, shape in shapes.items()
    }
    try:
        inferred = from_weights(blobs, path=net.path, allow_torchvision=True)
    except LegacyStyleError:
        return mark + text
    known = textformat.write(inferred) == textformat.write(replace(net, name="", inputs=[], input_dims=[]))
    return mark + ("" if known else text)


def to_state_dict(
    net: NetParameter, *, names: str = "caffe", half: bool = False, rgb: bool = False
) -> OrderedDict[str, Tensor]:
    """The state dict of `net`, on the CPU, with copies of all weights (`weights`), for RGB images if `rgb`.

    Where it needs `layers_text`, it carries that as metadata, which torch.save keeps and load_state_dict
    overlooks.
    """
    turned = reversed_channels(net) if rgb else net
    state = OrderedDict(
        (key, torch.from_numpy(values)) for key, values in weights(turned, names=names, half=half)
    )
    text = layers_text(net, rgb=rgb)
    if text:
        # nn.Module.state_dict keeps the modules' versions in this attribute.
        state.__dict__["_metadata"] = OrderedDict({pth.METADATA_KEY: {"prototxt": text}})
    return state


def write(
    path: str | os.PathLike[str],
    net: NetParameter,
    kind: Kind,
    *,
    names: str = "caffe",
    half: bool = False,
    rgb: bool = False,
) -> None:
    """Writes a file of that kind; the same network gives the same bytes (of a .pth: with the same PyTorch)."""
    if kind == "pth":
        state = to_state_dict(net, names=names, half=half, rgb=rgb)
        # Through an open file, since torch.save would put a path's name into the archive.
        with replacing(path) as file:
            torch.save(state, file)
        return
    made = reversed_channels(net) if rgb else net
    arrays, text = weights(made, names=names, half=half), layers_text(net, rgb=rgb)
    with replacing(path) as file:
        if kind == "npz":
            npz.write(file, arrays, text)
        else:
            shapes = {key: _shape(layer, index) for key, (layer, index) in keys(made, names=names).items()}
            safetensors.write(file, shapes, arrays, text, half=half)


def _attach(net: NetParameter, blobs: Mapping[str, Blob]) -> None:
    """Puts the weights into the layers that they are named after."""
    left = dict(blobs)
    for layer in net.layers:
        index = 0
        while (blob := left.pop(f"{layer.name}.{part_name(layer, index)}", None)) is not None:
            layer.blobs.append(blob)
            index += 1
    if left:
        raise WeightMismatchError(
            f"{net.path}: has the weights {', '.join(sorted(left))}, which belong to no layer of its list"
        )


def _shape(layer: LayerParameter, index: int) -> tuple[int, ...]:
    shape = layer.blobs[index].shape
    if layer.type == "InnerProduct" and index == 0:
        return shape[-2:]
    if (index == 0 and layer.type in _MATRICES) or _is_torch7(layer):
        return shape
    # Vectors, but for those of the rare layers with more axes; legacy blobs begin with ones.
    first = next((axis for axis, size in enumerate(shape) if size != 1), len(shape) - 1)
    return shape[max(first, 0) :]


def _is_torch7(layer: LayerParameter) -> bool:
    """Whether the layer's type is a class of Torch7's, which formats.t7.network keeps where Caffe has none."""
    return "." in layer.type


def _tensor_blob(tensor: Tensor) -> Blob:
    return Blob(tuple(tensor.shape), partial(_tensor_values, tensor), tensor.numel())


def _tensor_values(tensor: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.detach().to(torch.float32).contiguous().numpy()
    return values

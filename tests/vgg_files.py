"""VGG networks of any size with random weights, as state dicts and as Google's protobuf writes them."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import torch
from caffe_messages import CLASSES

from legacy_style.formats.caffe.netparam import Blob, NetParameter
from legacy_style.formats.state_dict import from_weights

VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)

Array = np.ndarray[Any, Any]


def shapes(blocks: tuple[int, ...], *, classifier: bool = True) -> dict[str, tuple[int, ...]]:
    """Layer -> shape of its weights: thin, but every layer of another size."""
    found: dict[str, tuple[int, ...]] = {}
    channels = 3
    for block, count in enumerate(blocks, 1):
        for number in range(1, count + 1):
            found[f"conv{block}_{number}"] = (2 + block + number % 2, channels, 3, 3)
            channels = 2 + block + number % 2
    if classifier:
        found |= {"fc6": (6, channels * 4), "fc7": (5, 6), "fc8": (3, 5)}
    return found


def weights(blocks: tuple[int, ...], *, classifier: bool = True, seed: int = 0) -> dict[str, Array]:
    """conv1_1.weight -> float32 array, and so on, in the network's order."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes(blocks, classifier=classifier).items():
        arrays[f"{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
        arrays[f"{name}.bias"] = rng.standard_normal(shape[0]).astype(np.float32)
    return arrays


def state_dict(arrays: dict[str, Array]) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((name, torch.from_numpy(values.copy())) for name, values in arrays.items())


def network(arrays: dict[str, Array]) -> NetParameter:
    """The network of a state dict with these arrays."""
    blobs = {
        name: Blob(values.shape, partial(np.asarray, values.copy(), np.float32), values.size)
        for name, values in arrays.items()
    }
    return from_weights(blobs, path="state dict", allow_torchvision=True)


def torchvision_names(arrays: dict[str, Array], linear: tuple[int, int, int] = (0, 3, 6)) -> dict[str, Array]:
    """The arrays under the names of torchvision.models.vgg: features and classifier count their modules."""
    names: dict[str, str] = {}
    place = 0
    layers = list(dict.fromkeys(key.split(".")[0] for key in arrays))
    for index, layer in enumerate(layers):
        if layer.startswith("fc"):
            names[layer] = f"classifier.{linear[int(layer[2]) - 6]}"
            continue
        names[layer] = f"features.{place}"
        place += 2
        following = layers[index + 1] if index + 1 < len(layers) else ""
        place += following[4:5] != layer[4]
    return {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": values for key, values in arrays.items()}


def caffemodel(arrays: dict[str, Array], version: str) -> bytes:
    """The VGG as Oxford's files have it, "V1" or "V2", written by Google's protobuf."""
    net = CLASSES["NetParameter"](name="thin")
    layers = list(dict.fromkeys(key.split(".")[0] for key in arrays))
    kinds = {
        "Convolution": "CONVOLUTION", "ReLU": "RELU", "Pooling": "POOLING", "InnerProduct": "INNER_PRODUCT",
        "Dropout": "DROPOUT", "Softmax": "SOFTMAX",
    }  # fmt: skip

    def add(name: str, kind: str, bottom: str, top: str) -> Any:
        if version == "V2":
            return net.layer.add(name=name, type=kind, bottom=[bottom], top=[top])
        enum = CLASSES["V1LayerParameter"].DESCRIPTOR.enum_types_by_name["LayerType"].values_by_name
        return net.layers.add(name=name, type=enum[kinds[kind]].number, bottom=[bottom], top=[top])

    def fill(layer: Any, name: str) -> None:
        for part in ("weight", "bias"):
            values = arrays[f"{name}.{part}"]
            blob = layer.blobs.add(data=values.ravel().tolist())
            if version == "V2":
                blob.shape.dim.extend(values.shape)
            else:
                blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - values.ndim) + values.shape

    top = "data"
    for index, name in enumerate(layers):
        number = name.removeprefix("conv").removeprefix("fc")
        if name.startswith("conv"):
            layer = add(name, "Convolution", top, name)
            layer.convolution_param.num_output = len(arrays[f"{name}.weight"])
            layer.convolution_param.pad.append(1)
            layer.convolution_param.kernel_size.append(3)
            fill(layer, name)
            add(f"relu{number}", "ReLU", name, name)
            top = name
            if index + 1 == len(layers) or layers[index + 1][:5] != name[:5]:
                top = f"pool{name[4]}"
                pool = add(top, "Pooling", name, top).pooling_param
                pool.pool, pool.kernel_size, pool.stride = 0, 2, 2
        else:
            layer = add(name, "InnerProduct", top, name)
            layer.inner_product_param.num_output = len(arrays[f"{name}.weight"])
            fill(layer, name)
            top = name
            if name != "fc8":
                add(f"relu{number}", "ReLU", name, name)
                add(f"drop{number}", "Dropout", name, name).dropout_param.dropout_ratio = 0.5
    if top == "fc8":
        add("prob", "Softmax", "fc8", "prob")
    return bytes(net.SerializeToString())

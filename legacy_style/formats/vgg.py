"""VGG networks known by the names of their weights alone, as state dicts have them.

A state dict names no ReLU and no pooling: they follow from the published architecture (K. Simonyan, A.
Zisserman, arXiv:1409.1556, table 1) and the names of Oxford's prototxt files. Note: torchvision's own VGG
has the same shapes and, in its first layer, weights of the same magnitude, but was trained on RGB images of
unit deviation; only its values tell it apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import UnsupportedError, WeightMismatchError
from legacy_style.formats.caffe import schema
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message

_CONV = re.compile(r"conv([1-9])_([1-9])")
_FC = re.compile(r"fc([1-9])")
_CAFFE_KEY = re.compile(r"(?:.*\.)?(conv[1-9]_[1-9]|fc[1-9])\.(weight|bias)")
_TORCHVISION_KEY = re.compile(r"(?:.*\.)?(features|classifier)\.(\d+)\.(weight|bias)")

# "ConvolutionParameter" -> "convolution_param"
_PARAM_NAMES = {message: name for name, (message, _, _) in schema.LAYER_PARAMS.items()}

# nn.Linear's places in torchvision's classifier: after each but the last stand a ReLU and a Dropout.
_LINEAR_PLACES = {"fc6": 0, "fc7": 3, "fc8": 6}

# The first filter, its red, green and blue plane, of torchvision's vgg16-397923af.pth and vgg19-dcbb9e9d.pth
# (features.0.weight[0], as printed in public notebooks, four decimals).
_TORCHVISION_FILTERS = {
    "vgg16": [
        [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]],
        [[0.1755, 0.0099, -0.0814], [0.0441, -0.0703, -0.2604], [0.1324, -0.1728, -0.1323]],
        [[0.3130, -0.1659, -0.4275], [0.4752, -0.0827, -0.4870], [0.6320, 0.0193, -0.2775]],
    ],
    "vgg19": [
        [[-0.0535, -0.0493, -0.0679], [0.0153, 0.0451, 0.0021], [0.0362, 0.0200, 0.0199]],
        [[0.0170, 0.0554, -0.0062], [0.1417, 0.2271, 0.1376], [0.1200, 0.2003, 0.0921]],
        [[-0.0449, 0.0127, -0.0145], [0.0597, 0.1396, 0.0541], [-0.0010, 0.0583, -0.0297]],
    ],
}

KNOWN = (
    "known without further words are VGG networks (vgg16-00b39a1b.pth, vgg19-d01eb7cb.pth, vgg_conv.pth and what was"
    " made from them) and nin_imagenet.pth; of any other network, convert the .caffemodel with"
    " `legacy-style convert`, which keeps the layers"
)

# Half precision, four decimals and fine-tuning move a weight by less; other networks' filters are elsewhere
# altogether.
_CLOSE = 0.01

# Convolutions per block of the networks that Oxford published: configurations D (VGG-16) and E (VGG-19).
OXFORD_BLOCKS = ((2, 2, 3, 3, 3), (2, 2, 4, 4, 4))


def layer_keys(blobs: Mapping[str, Blob], path: str) -> dict[str, tuple[str, str]]:
    """Key -> (Caffe's layer name, "weight" or "bias"), for keys like conv1_1.weight or torchvision's
    features.0.weight.

    Whatever stands before (`module.`, `features.` before Caffe's names) is passed over. Linear layers are
    counted, so that classifier.1, .4, .6 (as in Justin Johnson's files) and classifier.0, .3, .6 are both
    fc6, fc7, fc8. Raises UnsupportedError where a key is neither, where torchvision's are of another network, or
    where two keys are one.
    """
    caffe = {key: match for key in blobs if (match := _CAFFE_KEY.fullmatch(key))}
    torchvision = {key: match for key in blobs if (match := _TORCHVISION_KEY.fullmatch(key))}
    if len(caffe) == len(blobs):
        found = {key: (match[1], match[2]) for key, match in caffe.items()}
    elif len(torchvision) == len(blobs):
        _check_is_vgg(blobs, torchvision, path)
        names = _torchvision_names({(match[1], int(match[2])) for match in torchvision.values()})
        found = {key: (names[match[1], int(match[2])], match[3]) for key, match in torchvision.items()}
    else:
        odd = next(key for key in blobs if key not in caffe and key not in torchvision)
        raise UnsupportedError(
            f"{path}: the weights' names (one is {odd[:80]!r}) are neither a VGG's in Caffe (conv1_1.weight), nor a "
            f"plain VGG's in torchvision (features.0.weight), and the file does not say what lies between them; {KNOWN}"
        )
    if len(set(found.values())) != len(found):
        raise UnsupportedError(f"{path}: holds two networks, or one twice; save one state dict alone")
    return found


def _check_is_vgg(blobs: Mapping[str, Blob], keys: Mapping[str, re.Match[str]], path: str) -> None:
    """Raise UnsupportedError where the shapes or places of `features` are not a VGG's: many networks have such keys."""
    places = []
    for key, match in keys.items():
        if match[1] != "features":
            continue
        if match[3] == "weight" and blobs[key].shape[2:] != (3, 3):
            raise UnsupportedError(
                f"{path}: {key} has the shape {blobs[key].shape}, and a VGG's convolutions are 3x3 throughout: this is"
                f" another network (AlexNet, SqueezeNet and others have such names too); {KNOWN}"
            )
        places.append(int(match[2]))
    places = sorted(set(places))
    if places[:1] != [0] or any(after - place not in (2, 3) for place, after in pairwise(places)):
        listed = ", ".join(map(str, places)) or "none"
        raise UnsupportedError(
            f"{path}: its convolutions are features.N with N = {listed}, which no plain VGG has: there a ReLU, and"
            f" perhaps a pooling layer, stand between two convolutions; {KNOWN}"
        )


def _torchvision_names(places: set[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """(features or classifier, place) -> Caffe's name.

    A convolution and its ReLU take two places and a pooling one, so that a step of 3 begins the next block.
    """
    names = {}
    block, number, last = 1, 0, 0
    for place in sorted(place for part, place in places if part == "features"):
        if place - last > 2:
            block, number = block + 1, 0
        number, last = number + 1, place
        names["features", place] = f"conv{block}_{number}"
    for count, place in enumerate(sorted(place for part, place in places if part == "classifier")):
        names["classifier", place] = f"fc{6 + count}"
    return names


def torchvision_keys(layers: Sequence[LayerParameter]) -> dict[str, str]:
    """Caffe's layer name -> torchvision's name (features.0) for every layer with weights.

    Raises UnsupportedError where the network is no plain VGG.
    """
    keys = {}
    place = 0
    for layer in layers:
        if layer.type == "InnerProduct" and layer.name in _LINEAR_PLACES:
            keys[layer.name] = f"classifier.{_LINEAR_PLACES[layer.name]}"
        elif layer.type == "Convolution" and _CONV.fullmatch(layer.name):
            keys[layer.name] = f"features.{place}"
        elif layer.blobs:
            raise UnsupportedError(
                f"layer {layer.name} ({layer.type}) has no name in torchvision's VGG; keep Caffe's names"
            )
        place += layer.type in ("Convolution", "ReLU", "Pooling")
    return keys


def layers(weights: Mapping[str, Mapping[str, Blob]], path: str) -> list[LayerParameter]:
    """The V2 layers of the VGG that has these weights: layer name -> "weight" and, if it has one, "bias".

    Layers, names and parameters are those of Oxford's prototxt files. The last block ends with its pooling
    only where it is known to be whole: when linear layers follow, or when the fifth has as many convolutions
    as the fourth. Raises WeightMismatchError where the shapes do not fit together.
    """
    convolutions = sorted(name for name in weights if _CONV.fullmatch(name))
    linear = sorted(name for name in weights if _FC.fullmatch(name))
    sizes = block_sizes(convolutions)
    if convolutions != [f"conv{b}_{n}" for b, size in enumerate(sizes, 1) for n in range(1, size + 1)]:
        raise WeightMismatchError(
            f"{path}: convolutions are missing, there are only {', '.join(convolutions)}"
        )
    chain: list[LayerParameter] = []
    top, channels = "data", 3
    for name in convolutions:
        block, number = int(name[4]), int(name[6])
        blobs = _blobs(weights[name], name, path)
        channels = _checked_convolution(blobs, channels, f"{path}: {name}")
        values = {"num_output": channels, "pad": [1], "kernel_size": [3]}
        if len(blobs) == 1:
            values["bias_term"] = False
        chain.append(_layer(name, "Convolution", top, name, blobs, Message("ConvolutionParameter", **values)))
        chain.append(_layer(f"relu{block}_{number}", "ReLU", name, name))
        top = name
        whole = block < len(sizes) or bool(linear) or (block == 5 and sizes[4] == sizes[3])
        if number == sizes[block - 1] and whole:
            pooling = Message("PoolingParameter", pool="MAX", kernel_size=2, stride=2)
            chain.append(_layer(f"pool{block}", "Pooling", top, f"pool{block}", [], pooling))
            top = f"pool{block}"
    for name in linear:
        blobs = _blobs(weights[name], name, path)
        if len(blobs[0].shape) != 2:
            raise WeightMismatchError(
                f"{path}: {name}.weight has the shape {blobs[0].shape}, expected (outputs, inputs)"
            )
        values = {"num_output": blobs[0].shape[0]}
        chain.append(
            _layer(name, "InnerProduct", top, name, blobs, Message("InnerProductParameter", **values))
        )
        top = name
        if name != "fc8":
            chain.append(_layer(f"relu{name[2:]}", "ReLU", name, name))
            chain.append(
                _layer(
                    f"drop{name[2:]}",
                    "Dropout",
                    name,
                    name,
                    [],
                    Message("DropoutParameter", dropout_ratio=0.5),
                )
            )
    if "fc8" in weights:
        chain.append(_layer("prob", "Softmax", "fc8", "prob"))
    return chain


def block_sizes(convolutions: Iterable[str]) -> list[int]:
    """How many convolutions each block has: conv1_1, conv1_2, conv2_1 is [2, 1]."""
    sizes: list[int] = []
    for name in sorted(convolutions):
        block = int(name[4])
        sizes += [0] * (block - len(sizes))
        sizes[block - 1] += 1
    return sizes


def torchvisions_own(
    names: Iterable[str], first: NDArray[np.float32], *, torchvision_naming: bool
) -> str | None:
    """Which of torchvision's own networks this is, told by its first filters (O, 3, kH, kW); None if it is
    none.

    With torchvision's naming, a network of another size than Oxford's two counts as theirs: only they made
    such.
    """
    if first.shape[1:] == (3, 3, 3):
        for name, filters in _TORCHVISION_FILTERS.items():
            # Whoever renamed the weights for BGR images has turned the planes round.
            if (
                min(np.abs(planes - np.array(filters)).max() for planes in (first[0], first[0, ::-1]))
                < _CLOSE
            ):
                return name
    sizes = block_sizes(name for name in names if _CONV.fullmatch(name))
    if torchvision_naming and not any(begins(sizes, oxford) for oxford in OXFORD_BLOCKS):
        return f"vgg{sum(sizes) + 3}"
    return None


def begins(sizes: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether a network of these blocks is the beginning of `whole`."""
    last = len(sizes) - 1
    return (
        0 <= last < len(whole) and tuple(sizes[:last]) == tuple(whole[:last]) and sizes[last] <= whole[last]
    )


def _blobs(parts: Mapping[str, Blob], name: str, path: str) -> list[Blob]:
    if "weight" not in parts:
        raise WeightMismatchError(f"{path}: has {name}.bias but no {name}.weight")
    blobs = [parts["weight"], *([parts["bias"]] if "bias" in parts else [])]
    if len(blobs) == 2 and blobs[1].shape != blobs[0].shape[:1]:
        raise WeightMismatchError(
            f"{path}: {name}.bias has the shape {blobs[1].shape}, expected {blobs[0].shape[:1]} as "
            f"{name}.weight has it"
        )
    return blobs


def _checked_convolution(blobs: list[Blob], channels: int, where: str) -> int:
    """The number of feature maps that come out; `channels` go in."""
    shape = blobs[0].shape
    if len(shape) != 4 or not shape[0] or shape[1:] != (channels, 3, 3):
        raise WeightMismatchError(
            f"{where}.weight has the shape {shape}, expected (outputs, {channels}, 3, 3) after the layer "
            "before it"
        )
    return shape[0]


def _layer(
    name: str, kind: str, bottom: str, top: str, blobs: list[Blob] | None = None, param: Message | None = None
) -> LayerParameter:
    params = {} if param is None else {_PARAM_NAMES[param.kind]: param}
    return LayerParameter(name, kind, [bottom], [top], blobs or [], params)

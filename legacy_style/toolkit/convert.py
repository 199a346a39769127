"""One model file to another, with proof: every blob read back bit for bit, and one image through both.

What the output is follows from its extension. Notes: a .caffemodel or .t7 is always for BGR images and in
single precision, since nothing in it could say otherwise; a .t7 made from a .t7 keeps all that the file holds,
but for gradients and buffers, and is for the CPU; the layers of a branching network are compared as far as it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from legacy_style.engine import loadcaffe
from legacy_style.errors import LegacyStyleError, OptionError, WeightMismatchError
from legacy_style.formats import model_files, state_dict, t7
from legacy_style.formats.caffe import caffemodel, phases, textformat
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.formats.t7 import building, network, nn

KINDS: dict[str, state_dict.Kind | Literal["caffemodel", "t7"]] = {
    ".pth": "pth", ".pt": "pth", ".safetensors": "safetensors", ".npz": "npz", ".caffemodel": "caffemodel", ".t7": "t7"
}  # fmt: skip

# A network's input where its file does not say: what ImageNet's networks were trained on.
USUAL_SIDE = 224


@dataclass(frozen=True)
class Form:
    """How to write a network: `names` "caffe" or "torchvision"; `version` "V1", "V2" or "" for its own."""

    half: bool = False
    names: str = "caffe"
    rgb: bool = False
    version: str = ""


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference between two networks' outputs of one layer, and the largest output."""

    layer: str
    difference: float
    largest: float


def until(net: NetParameter, name: str) -> NetParameter:
    """`net` up to and including its layer `name`; OptionError if it has none."""
    names = [layer.name for layer in net.layers]
    if name not in names:
        near = get_close_matches(name, names, 3) or names[:3]
        raise OptionError(f"{net.path} has no layer {name!r}; it has, for example, {', '.join(near)}")
    return replace(net, layers=net.layers[: names.index(name) + 1])


def kind_of(path: str | os.PathLike[str]) -> state_dict.Kind | Literal["caffemodel", "t7"]:
    """ "pth", "safetensors", "npz", "caffemodel" or "t7", by the extension; OptionError for any other."""
    extension = Path(path).suffix.lower()
    if extension not in KINDS:
        raise OptionError(f"{os.fspath(path)}: the extension says what to write; give {', '.join(KINDS)}")
    return KINDS[extension]


def write(path: str | os.PathLike[str], net: NetParameter, form: Form = Form()) -> None:
    """Writes `net`, which is for BGR images, as the extension of `path` and `form` say.

    Raises OptionError where the form does not suit the kind of file, and the errors of the writers.
    """
    kind = kind_of(path)
    if kind != "caffemodel" and kind != "t7":
        state_dict.write(path, net, kind, names=form.names, half=form.half, rgb=form.rgb)
        return
    made = "a .t7" if kind == "t7" else "a .caffemodel"
    for given, why in (
        (
            form.half,
            f"{made} is written in single precision; write a .pth, .safetensors or .npz to have half",
        ),
        (
            form.rgb,
            f"nothing in {made} could say that it is for RGB images; write a .pth, .safetensors or .npz",
        ),
        (
            form.names != "caffe",
            f"{made} has Caffe's names; write a .pth, .safetensors or .npz to have torchvision's",
        ),
        (kind == "t7" and bool(form.version), "a .t7 has no Caffe version; write a .caffemodel"),
    ):
        if given:
            raise OptionError(f"{os.fspath(path)}: {why}")
    if kind == "t7":
        t7.write(path, _torch7_content(net))
        return
    own = "V1" if net.version in ("V0", "V1") else "V2"
    caffemodel.write(path, net, version=form.version or own)


def _torch7_content(net: NetParameter) -> Any:
    """What a .t7 of `net` holds: all that its own .t7 does, or the modules that loadcaffe would make of it."""
    source = Path(net.path)
    if not net.version and source.is_file() and model_files.is_torch7(source):
        content = t7.read(source)
        whole = network.from_module(nn.network(content, net.path), net.path)
        if [layer.name for layer in whole.layers] == [layer.name for layer in net.layers]:
            nn.clear_gradients(content)
            nn.to_cpu(content)
            return content
    return building.sequential(net)


def prototxt(net: NetParameter) -> str:
    """The deploy file of `net`: the layers that give features, and the shape of its input where known or usual."""
    if any(layer.type == "Input" for layer in net.layers):
        return textformat.write(net)
    passed_over = phases.outside_inference(net)
    made = [layer for index, layer in enumerate(net.layers) if index not in passed_over]
    images = sorted(phases.image_blobs(net) & {bottom for layer in made for bottom in layer.bottoms})
    inputs = net.input_shapes() or dict.fromkeys(images or ["data"], (1, 3, USUAL_SIDE, USUAL_SIDE))
    return textformat.write(replace(net, layers=made, inputs=list(inputs), input_dims=list(inputs.values())))


def check(path: str | os.PathLike[str], net: NetParameter, form: Form = Form()) -> NetParameter:
    """What `path` reads back as; raises WeightMismatchError where a layer or a single bit differs from `net`.

    In half precision, the weights of `net` are rounded first.
    """
    name = os.fspath(path)
    written = model_files.load(path, allow_torchvision=True)
    # A .t7 has no fillers and no inputs, and says strides that Caffe leaves to their defaults.
    in_full = kind_of(path) != "t7"
    ours, theirs = (
        [
            (layer.name, layer.type, layer.params if in_full else None)
            for index, layer in enumerate(each.layers)
            if in_full or index not in building.left_out(each)
        ]
        for each in (net, written)
    )
    if ours != theirs:
        wrong = next((a[0] for a, b in zip(ours, theirs, strict=False) if a != b), "the last one")
        raise WeightMismatchError(f"{name}: its layers read back differently, first {wrong}; report this")
    found = state_dict.weights(written)
    for key, values in state_dict.weights(net, half=form.half):
        read_key, read = next(found, ("nothing", np.empty(0, np.float32)))
        if read_key != key or read.tobytes() != values.astype(np.float32).tobytes():
            raise WeightMismatchError(f"{name}: {key} reads back differently (as {read_key}); report this")
    return written


def activations(net: NetParameter, image: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and output of every layer of `net` in turn, float32, for `image`: (1, 3, H, W), BGR, Caffe units.

    An output is good until the next is asked for: some layers work in place. Raises UnsupportedError at
    the first layer that cannot be run, WeightMismatchError at the first that the image does not fit.
    """
    x = image.clone()
    for module in _path(net):
        layer = module.build()
        try:
            x = layer.forward(x)
        except RuntimeError as error:
            raise WeightMismatchError(
                f"{net.path}: layer {module.name} does not fit what comes before it for images of "
                f"{image.shape[3]}x{image.shape[2]} ({error})"
            ) from error
        yield module.name, x


def _path(net: NetParameter) -> list[loadcaffe.Module]:
    """The layers of `net` in turn; where it has branches, one way to the first layer that joins them."""
    chain = loadcaffe.modules(net)[0]
    joins = {layer.name for layer in net.layers if len(layer.bottoms) > 1}
    join = next((index for index, module in enumerate(chain) if module.name in joins), None)
    if join is None or join == 0:
        return chain
    return [*loadcaffe.modules(net, [chain[join - 1].name])[0], chain[join]]


def compare(first: NetParameter, second: NetParameter, image: Tensor) -> tuple[list[Difference], str]:
    """How much the layers' outputs differ for `image`, and why that ended before the last layer, or ""."""
    differences: list[Difference] = []
    chain = _path(first)
    if chain and chain[0].obstacle:
        return (
            differences,
            f"{first.path} begins with {chain[0].kind}, which only th fast_neural_style.lua may run",
        )
    # A V2 file's network ends before its Softmax (loadcaffe).
    pairs = zip(activations(first, image), activations(second, image), strict=False)
    with torch.no_grad():
        try:
            for (name, ours), (_name, theirs) in pairs:
                largest = float((ours - theirs).abs().max()) if ours.numel() else 0.0
                differences.append(
                    Difference(name, largest, float(ours.abs().max()) if ours.numel() else 0.0)
                )
        except LegacyStyleError as error:
            return differences, str(error)
    return differences, ""


def input_size(net: NetParameter) -> tuple[int, int]:
    """Height and width that `net` is made for, as far as its file says."""
    shape = next(iter(net.input_shapes().values()), ())
    return (shape[2], shape[3]) if len(shape) == 4 else (USUAL_SIDE, USUAL_SIDE)


def test_image(height: int, width: int) -> Tensor:
    """An image to try networks on, (1, 3, H, W) in Caffe units: coloured waves that grow finer, and noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(rows * (1 + c + columns / width) / 9 + c) * np.cos(columns * (1 + rows / height) / (7 + c))
        for c in range(3)
    ]
    noise = np.random.RandomState(0).uniform(-1, 1, (3, height, width))
    return torch.from_numpy(((np.stack(waves) * 0.8 + noise * 0.2) * 120).astype(np.float32))[None]

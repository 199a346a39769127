"""Torch7's nn modules in a .t7 file as a list of named layers, whatever package and year their classes are of.

After torch/nn 8726825. A layer's place in the tree of containers is written as torch.nn.Sequential names it,
counted from 0: "4.0.1". cudnn's modules, and those of early versions of nn, count as their twins of today.
Notes: only data are read here. A class that is not known is a layer like others, with the weights that its
fields hold; an unknown container is one, too, and its modules follow it. What a module keeps for itself
(output, gradInput, an instance norm's inner `bn`) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import FormatError, UnsupportedError
from legacy_style.formats.t7.objects import Function, Pairs, TorchObject, element_type, shown

# What a container hands to the next: the name of a layer's output, "data" for the input, or a table of these.
Value = Any

INPUT = "data"

# The packages whose classes are nn's, for other devices or before they moved there.
_PACKAGES = ("nn", "cudnn", "cunn", "fbnn", "ccn2", "inn", "clnn")
_RENAMED = {
    "SpatialConvolutionMM": "SpatialConvolution",
    "VolumetricConvolutionMM": "VolumetricConvolution",
    "Threshold": "ReLU",
    "TanH": "Tanh",
}

# Modules that hand on what they get.
_NOTHING = {"Identity", "Copy", "Contiguous", "ContiguousTable", "NoBackprop"}
CONVOLUTIONS = {"SpatialConvolution", "SpatialDilatedConvolution", "SpatialFullConvolution"}

# The parts of a layer that a state dict has, in the order of torch.nn's.
PARTS = ("weight", "bias", "running_mean", "running_var")

# Where training programs keep the network among other things.
_USUAL_KEYS = ("model", "net", "network", "netG", "modelG", "model_G", "encoder", "decoder")

# ResNet-1001 has 5,000 modules; ResNets nest seven deep; DenseNets join some dozens of outputs. A file can refer
# to one module many times, so that these do not follow from its size.
_MOST_MODULES = 100_000
_MOST_JOINED = 1_000
_MOST_CONNECTIONS = 200_000
_DEEPEST = 100


@dataclass(frozen=True)
class T7Layer:
    """One module that is no container.

    `name`: what the file calls it, or its place; `kind`: its class without the package ("SpatialConvolution"),
    or with it where it is none of nn's; `inputs`: the names of the layers whose outputs it takes, INPUT among
    them; `weights`: by part (PARTS), in torch.nn's shapes.
    """

    name: str
    place: str
    kind: str
    module: TorchObject
    inputs: tuple[str, ...]
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def whole(self, name: str, default: int = 0) -> int:
        """A field that is a whole number, `default` where it is absent; FormatError for anything else."""
        value = self.module.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 2**31:
            raise FormatError(f"layer {self.name} ({self.module.typename}) has the {name} {shown(value)}")
        return value

    def number(self, name: str, default: float = 0.0) -> float:
        """A field that is a number, as `whole`."""
        value = self.module.get(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise FormatError(f"layer {self.name} ({self.module.typename}) has the {name} {shown(value)}")
        return float(value)

    def pair(self, vertical: str, horizontal: str, default: int) -> tuple[int, int]:
        """Two fields, the second of which stands for both where the first is absent."""
        across = self.whole(horizontal, default)
        return self.whole(vertical, across), across


def network(content: Any, path: str) -> TorchObject:
    """The network among what a .t7 file holds: the object itself, or a usual key's ("model").

    Raises UnsupportedError where there is none.
    """
    if isinstance(content, TorchObject):
        return content
    entries = dict(enumerate(content)) if isinstance(content, list) else content
    if isinstance(entries, dict):
        objects = {key: value for key, value in entries.items() if isinstance(value, TorchObject)}
        for key in [*_USUAL_KEYS, *(objects if len(objects) == 1 else ())]:
            if key in objects:
                return objects[key]
        listed = ", ".join(ascii(key) for key in list(entries)[:10])
        raise UnsupportedError(f"{path}: is a Torch7 file without a network; it holds {listed or 'nothing'}")
    raise UnsupportedError(f"{path}: is a Torch7 file that holds no network but a {type(content).__name__}")


def layers(module: TorchObject, path: str) -> list[T7Layer]:
    """The layers of a network, in the order in which Torch7 counts its parameters (depth first).

    Raises FormatError where containers hold themselves or anything but modules, and where weights do not fit.
    """
    walk = _Walk(path)
    walk.module(module, "", INPUT, 0)
    return walk.layers


def kind_of(typename: str) -> str:
    """ "cudnn.SpatialConvolution" -> "SpatialConvolution"; the whole name for a class that is none of nn's."""
    package, _, name = typename.partition(".")
    return _RENAMED.get(name, name) if name and package in _PACKAGES else typename


class _Walk:
    def __init__(self, path: str) -> None:
        self.path = path
        self.layers: list[T7Layer] = []
        self.names: set[str] = {INPUT}
        self.modules = 0
        self.connections = 0

    def fail(self, what: str) -> NoReturn:
        raise FormatError(f"{self.path}: {what}")

    def module(self, module: Any, place: str, value: Value, depth: int) -> Value:
        """Adds the layers of `module`, which takes `value`, and gives what it hands on."""
        where = f"the module {place or 'at the top'}"
        if not isinstance(module, TorchObject):
            self.fail(f"{where} is a {type(module).__name__}, expected an object")
        if depth > _DEEPEST:
            self.fail(f"nests containers deeper than {_DEEPEST} levels at {where}, or one holds itself")
        self.modules += 1
        if self.modules > _MOST_MODULES:
            self.fail(f"has more than {_MOST_MODULES} modules, or containers that hold one another")
        kind = kind_of(module.typename)
        inner = module.get("modules")
        if inner is None:
            if kind in _NOTHING:
                return value
            if kind == "SelectTable" and isinstance(value, list) and self.is_index(module, len(value)):
                return value[module.fields["index"] - 1]
            return self.layer(module, place, kind, self.flat(value))
        # An empty table reads as a dict, and so does a list with holes.
        children = list(inner.values()) if isinstance(inner, dict) else inner
        if not isinstance(children, list):
            self.fail(f"{where} ({module.typename!a}) has modules that are no list")
        places = [f"{place}.{index}" if place else str(index) for index in range(len(children))]
        if kind == "ConcatTable":
            return [self.module(*each, value, depth + 1) for each in zip(children, places, strict=True)]
        if kind == "ParallelTable" and isinstance(value, list) and len(value) == len(children):
            return [self.module(*each, depth + 1) for each in zip(children, places, value, strict=True)]
        if kind in ("Concat", "DepthConcat"):
            made = [self.module(*each, value, depth + 1) for each in zip(children, places, strict=True)]
            return self.layer(module, place, kind, self.flat(made))
        if kind == "DataParallelTable":
            # The others are copies on other devices.
            children, places = children[:1], places[:1]
        elif kind != "Sequential":
            value = self.layer(module, place, kind, self.flat(value))
        for child, child_place in zip(children, places, strict=True):
            value = self.module(child, child_place, value, depth + 1)
        return value

    def flat(self, value: Value) -> list[str]:
        """The names in a value, which may be a table of tables."""
        if isinstance(value, str):
            return [value]
        names: list[str] = []
        for item in value:
            names += self.flat(item)
            if len(names) > _MOST_JOINED:
                self.fail(f"has a layer that joins more than {_MOST_JOINED} others")
        return names

    def is_index(self, module: TorchObject, count: int) -> bool:
        index = module.get("index")
        return isinstance(index, int) and 1 <= index <= count

    def layer(self, module: TorchObject, place: str, kind: str, inputs: list[str]) -> str:
        self.connections += len(inputs)
        if self.connections > _MOST_CONNECTIONS:
            self.fail(f"has more than {_MOST_CONNECTIONS} connections between layers")
        name = module.get("name")
        if not isinstance(name, str) or not name or name in self.names:
            name = place or "0"
        while name in self.names:
            name += "_"
        self.names.add(name)
        made = T7Layer(name, place, kind, module, tuple(inputs))
        try:
            made = T7Layer(name, place, kind, module, tuple(inputs), weights(made))
        except FormatError as error:
            self.fail(str(error))
        self.layers.append(made)
        return name


def weights(layer: T7Layer) -> dict[str, NDArray[Any]]:
    """The weights of a layer by part, in torch.nn's shapes; views of the file where that is possible.

    A norm without `weight` and `bias` gets ones and zeros, as it computes. Its deviation, which files of before
    2016 hold, becomes the variance. Raises FormatError where a shape does not fit the layer's numbers.
    """
    fields = layer.module.fields
    found: dict[str, NDArray[Any]] = {}
    for part in PARTS:
        if isinstance(values := fields.get(part), np.ndarray) and values.size:
            found[part] = values
    if layer.kind in CONVOLUTIONS and "weight" in found:
        found["weight"] = _kernels(layer, found["weight"])
    deviation = fields.get("running_std")
    if "running_var" not in found and isinstance(deviation, np.ndarray) and deviation.size:
        # BatchNormalization.lua, read(): running_std was 1 / sqrt(variance + eps).
        with np.errstate(all="ignore"):
            variance = np.asarray(deviation, np.float64) ** -2 - layer.number("eps", 1e-5)
            found["running_var"] = variance.astype(deviation.dtype)
    if "running_mean" in found:
        mean = found["running_mean"]
        found = {"weight": np.ones_like(mean), "bias": np.zeros_like(mean)} | found
        sizes = {part: values.shape for part, values in found.items()}
        if len(found) != len(PARTS) or len(set(sizes.values())) != 1 or mean.ndim != 1:
            raise FormatError(f"layer {layer.name} ({layer.module.typename}) has parts of the shapes {sizes}")
    return {part: found[part] for part in PARTS if part in found}


def _kernels(layer: T7Layer, weight: NDArray[Any]) -> NDArray[Any]:
    """The kernels of a convolution with four axes; nn once kept them as a matrix, cudnn with a fifth axis."""
    outputs, inputs = layer.whole("nOutputPlane"), layer.whole("nInputPlane")
    groups = layer.whole("groups", 1)
    rest = (layer.whole("kH"), layer.whole("kW"))
    if groups < 1 or min(outputs, inputs, *rest) < 1 or inputs % groups or outputs % groups:
        raise FormatError(
            f"layer {layer.name} ({layer.module.typename}) has {inputs} inputs, {outputs} outputs"
        )
    transposed = layer.kind == "SpatialFullConvolution"
    shape = (inputs, outputs // groups, *rest) if transposed else (outputs, inputs // groups, *rest)
    if weight.size != math.prod(shape):
        raise FormatError(
            f"layer {layer.name} ({layer.module.typename}) has a weight of the shape {weight.shape}, "
            f"expected {shape}"
        )
    return weight if weight.shape == shape else weight.reshape(shape)


def sequence(values: Sequence[int]) -> list[int]:
    """Two numbers as a list, one where both are the same: how Caffe writes a square kernel."""
    return [values[0]] if values[0] == values[1] else list(values)


def reachable(content: Any) -> Iterator[Any]:
    """Every object, table, function and array in what a .t7 file holds, each once."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or not isinstance(item, (TorchObject, Function, Pairs, dict, list, np.ndarray)):
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, (TorchObject, dict)):
            waiting += (item.fields if isinstance(item, TorchObject) else item).values()
        elif isinstance(item, Pairs):
            waiting += [each for pair in item.items for each in pair]
        elif isinstance(item, Function):
            waiting.append(item.upvalues)
        elif isinstance(item, list):
            waiting += item


def clear_gradients(content: Any) -> None:
    """Empty what only training needs, as Torch7's convert_network.lua does: gradients, outputs, buffers.

    In place, in every object that is reachable from `content`.
    """
    for item in list(reachable(content)):
        if isinstance(item, TorchObject):
            for name in _TRANSIENT.intersection(item.fields):
                if isinstance(value := item.fields[name], np.ndarray):
                    item.fields[name] = np.empty(0, value.dtype)


def to_cpu(content: Any) -> None:
    """Turn cudnn's modules into nn's, and the types that objects name into the CPU's, as cudnn.convert does.

    In place, in every object that is reachable from `content`. Tensors are the CPU's since they were read.
    """
    for item in list(reachable(content)):
        if not isinstance(item, TorchObject):
            continue
        package, _, kind = item.typename.partition(".")
        if package == "cudnn" and kind in _CUDNN and item.get("groups", 1) == 1:
            item.typename = f"nn.{kind}"
            if "running_var" in item.fields:
                item.version = 2  # what nn's class has held since it holds variances
        named = item.get("_type")
        if isinstance(named, str) and (twin := element_type(named)):
            item.fields["_type"] = "torch.{}{}".format(*twin)


# The classes that cudnn.convert exchanges (cudnn.torch, convert.lua).
_CUDNN = {
    "BatchNormalization", "LogSoftMax", "ReLU", "Sigmoid", "SoftMax", "SpatialAveragePooling",
    "SpatialBatchNormalization", "SpatialConvolution", "SpatialCrossMapLRN", "SpatialFullConvolution",
    "SpatialMaxPooling", "Tanh", "VolumetricAveragePooling", "VolumetricBatchNormalization",
    "VolumetricConvolution", "VolumetricMaxPooling",
}  # fmt: skip

# What clearState and clear_gradients (fast-neural-style 813c834, utils.lua) empty.
_TRANSIENT = {
    "output", "gradInput", "gradWeight", "gradBias", "finput", "fgradInput", "noise", "indices", "ones",
    "_input", "_gradOutput", "buffer", "x_diff", "y_diff",
}  # fmt: skip

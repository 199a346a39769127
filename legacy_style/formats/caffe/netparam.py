"""A network as Caffe's files describe it: NetParameter, LayerParameter, Blob, and the messages inside layers.

Names are those of caffe.proto's NetParameter, LayerParameter and BlobProto. Whatever the file was (V0, V1 or
V2, binary or text, or not Caffe's at all), layers are V2 layers here: `type` is a string like "Convolution".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from legacy_style.errors import FormatError
from legacy_style.formats.caffe import schema
from legacy_style.formats.caffe.schema_params import Field

# Blob<Dtype>::Reshape refuses more axes (kMaxBlobAxes in caffe/blob.hpp) and more values (INT_MAX).
MAX_AXES = 32
MAX_COUNT = (1 << 31) - 1

_ZERO: dict[str, bool | int | float | str] = {
    "int32": 0,
    "int64": 0,
    "uint32": 0,
    "bool": False,
    "float": 0.0,
    "double": 0.0,
    "string": "",
}


class Message:
    """A message of caffe.proto: the fields that were set, and the defaults of all others.

    `kind` names the message ("PoolingParameter"). Numbers are int, bool or float (floats hold float32 values,
    as in Caffe), strings and enum values are str ("MAX"), messages are `Message`, repeated fields are lists.
    `message["stride"]` gives the value or its default, `message.has("stride")` says whether it was set; a
    name that caffe.proto does not have is a KeyError. `values` holds what was set, by name; `unknown` what
    caffe.proto does not have: field numbers (binary) or names (text), and the values in the file's order:
    int, float, str, messages of the kind "", and None for what is no number in a binary file.
    """

    __slots__ = ("kind", "unknown", "values")

    def __init__(self, kind: str, **values: Any) -> None:
        self.kind = kind
        self.values: dict[str, Any] = values
        self.unknown: dict[int | str, list[Any]] = {}

    def has(self, name: str) -> bool:
        """Whether the field was set; a repeated field: whether it holds anything."""
        _number, spec = schema.BY_NAME[self.kind][name]
        return bool(self.values.get(name)) if spec.repeated else name in self.values

    def __getitem__(self, name: str) -> Any:
        _number, spec = schema.BY_NAME[self.kind][name]
        if name in self.values:
            return self.values[name]
        return [] if spec.repeated else default(spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self.kind == other.kind and self.values == other.values

    __hash__ = None  # type: ignore[assignment]  # values may change

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"


def default(spec: Field) -> Any:
    """What a field that is not repeated counts as where it is absent."""
    if spec.kind in schema.MESSAGES:
        return Message(spec.kind)
    if spec.default is None:
        return next(iter(schema.ENUMS[spec.kind].values())) if spec.kind in schema.ENUMS else _ZERO[spec.kind]
    return float32(float(spec.default)) if spec.kind == "float" else spec.default


def float32(value: float) -> float:
    """The float32 nearest to `value`, which is what Caffe computes with: 0.1 becomes 0.10000000149011612.

    Beyond float32's range it is infinite, as C's conversion has it.
    """
    try:
        (single,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(single)


class Blob:
    """Weights of one layer (BlobProto), left in the file until `data()` asks for them.

    `shape`: as in the file, so a legacy bias is (1, 1, 1, C); `count`: how many values the file holds for it;
    `legacy`: given as num/channels/height/width, which Caffe prefers where both are given; `has_shape`: given
    as `shape`; `offset`: where the blob lies in its file, bytes, or None.
    """

    __slots__ = ("_release", "_values", "count", "has_shape", "legacy", "offset", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        values: Callable[[], NDArray[np.float32]],
        count: int,
        *,
        legacy: bool = False,
        has_shape: bool = True,
        offset: int | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.shape = shape
        self.count = count
        self.legacy = legacy
        self.has_shape = has_shape
        self.offset = offset
        self._values = values
        self._release = release

    @classmethod
    def from_array(cls, array: ArrayLike) -> Blob:
        """A blob of the array's shape; float32 arrays are not copied."""
        values = np.asarray(array, dtype=np.float32)
        return cls(values.shape, lambda: values, values.size)

    @classmethod
    def from_message(cls, message: Message) -> Blob:
        """A blob from a BlobProto that holds its numbers, as text files have it."""
        numbers = message["double_data"] or message["data"]
        # A double beyond float32's range becomes infinite, as in C.
        with np.errstate(over="ignore"):
            values = np.asarray(numbers, dtype=np.float32)
        dims = message["shape"]["dim"] if message.has("shape") else None
        legacy = tuple(message.values.get(name) for name in ("num", "channels", "height", "width"))
        shape = blob_shape(legacy, dims, len(numbers))
        return cls(
            shape,
            lambda: values,
            len(numbers),
            legacy=any(dim is not None for dim in legacy),
            has_shape=dims is not None,
        )

    def reshaped(self, shape: tuple[int, ...]) -> Blob:
        """The same values under another shape."""
        return Blob(shape, self._values, self.count, offset=self.offset, release=self._release)

    def data(self, *, flat: bool = False) -> NDArray[np.float32]:
        """The values, float32, of `shape`, or (count,) if `flat`.

        From a packed float field (the rule) this is a read-only view of the mapped file, perhaps at an odd
        address: copy it before handing it to code that writes or needs alignment. Other encodings are copied.
        """
        values = self._values()
        return values.reshape(-1) if flat else values.reshape(self.shape)

    def copy(self) -> NDArray[np.float32]:
        """The values as an array of their own: of `shape`, aligned, writable; the blob may be large.

        What reading them took of a mapped file is given back, so that the process grows by the array alone.
        """
        values = np.array(self.data(), np.float32, order="C")
        if self._release is not None:
            self._release()
        return values

    def check(self, where: str) -> None:
        """Raise FormatError where the shape cannot be, or does not hold as many values as there are.

        `where` begins the sentence: file, layer, blob.
        """
        at = "" if self.offset is None else f" (byte {self.offset})"
        if len(self.shape) > MAX_AXES:
            raise FormatError(f"{where} has {len(self.shape)} dimensions, expected at most {MAX_AXES}{at}")
        if min(self.shape, default=0) < 0:
            raise FormatError(f"{where} has the shape {self.shape}, expected no negative dimension{at}")
        # Also where an axis has the length 0: numpy has no array of the others then.
        if math.prod(dim for dim in self.shape if dim) > MAX_COUNT:
            raise FormatError(f"{where} has the shape {self.shape}, expected at most {MAX_COUNT} values{at}")
        if math.prod(self.shape) != self.count:
            raise FormatError(
                f"{where} has the shape {self.shape}, which takes {math.prod(self.shape)} values, "
                f"but the file holds {self.count}{at}"
            )

    def __repr__(self) -> str:
        return f"Blob{self.shape}"


def blob_shape(legacy: Sequence[int | None], dims: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The shape of a BlobProto from num/channels/height/width (None: not set) and shape.dim (None: no shape).

    Any legacy number outweighs `shape`, the others being 0 (Blob<Dtype>::FromProto in caffe/blob.cpp). A blob
    with neither has no axes in Caffe and takes one value; without any value it is (0,) here.
    """
    if any(dim is not None for dim in legacy):
        return tuple(dim or 0 for dim in legacy)
    if dims is None:
        return () if count else (0,)
    return tuple(dims)


@dataclass(slots=True)
class LayerParameter:
    """One layer, in the terms of V2.

    `v1_type` is the number that the layer's type had in V1LayerParameter.LayerType, None in V2 files; a
    number unknown there gives the type "V1 type <number>". `params` holds the parameter messages that were
    set ("pooling_param"); ask with `param`. `include` and `exclude` are NetStateRule, `param_specs` ParamSpec
    messages; `phase` is "TRAIN", "TEST", or None. `unknown` holds the fields that forks of Caffe have added,
    as `Message.unknown` does.
    """

    name: str
    type: str
    bottoms: list[str] = field(default_factory=list)
    tops: list[str] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    params: dict[str, Message] = field(default_factory=dict)
    v1_type: int | None = None
    include: list[Message] = field(default_factory=list)
    exclude: list[Message] = field(default_factory=list)
    phase: str | None = None
    loss_weight: list[float] = field(default_factory=list)
    param_specs: list[Message] = field(default_factory=list)
    unknown: dict[int | str, list[Any]] = field(default_factory=dict)

    def param(self, name: str) -> Message:
        """The parameter message of that name; where the layer has none, one that holds only defaults."""
        message = self.params.get(name)
        return Message(schema.LAYER_PARAMS[name][0]) if message is None else message


@dataclass(slots=True)
class NetParameter:
    """A network: its layers in file order.

    `version` says how the file had it: "V0", "V1", "V2", or "" if it is not Caffe's. `inputs` and
    `input_dims` are the net-level fields `input` and `input_dim`/`input_shape` of deploy files, one
    tuple per input, none where the file gives none; `input_shapes` also sees Input layers.
    `path` is the file's, for messages. `mean_pixel` is
    what the network's images are less of, BGR, 0..255, where the file has it: MatConvNet's do. `notes`: what
    else the file says about itself, a sentence each.
    """

    name: str = ""
    layers: list[LayerParameter] = field(default_factory=list)
    version: str = "V2"
    path: str = ""
    inputs: list[str] = field(default_factory=list)
    input_dims: list[tuple[int, ...]] = field(default_factory=list)
    mean_pixel: tuple[float, float, float] | None = None
    notes: list[str] = field(default_factory=list)

    def layer(self, name: str) -> LayerParameter:
        """The first layer of that name; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, usually (N, C, H, W), of every input of known shape, Input layers included."""
        shapes = dict(zip(self.inputs, self.input_dims, strict=False))
        for layer in self.layers:
            dims = [tuple(shape["dim"]) for shape in layer.param("input_param")["shape"]]
            # One shape serves all tops (InputParameter).
            shapes.update(zip(layer.tops, dims * len(layer.tops) if len(dims) == 1 else dims, strict=False))
        return shapes

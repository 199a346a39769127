"""NetParameter messages of any age to the one data model: V0 and V1 layers become V2 layers at once.

Ports caffe/util/upgrade_proto.cpp: UpgradeV0PaddingLayers, UpgradeV0LayerParameter,
UpgradeNetDataTransformation and UpgradeV1LayerParameter. Where Caffe stops at a layer type that it does not
know, the layer is kept here, its type being "V1 type 99" or "V0 type shift": it may not be needed.
"""

from __future__ import annotations

from typing import Any

from legacy_style.errors import FormatError
from legacy_style.formats.caffe import schema
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter

_V1_NUMBERS = {kind.name: number for number, kind in schema.V1_TYPES.items()}
_V1_TYPE_FIELD = schema.BY_NAME["V1LayerParameter"]["type"][0]

# V0LayerParameter.type -> the message that its fields move to, and their names: there, or (there, here).
_V0_FIELDS: dict[str, tuple[str, tuple[str | tuple[str, str], ...]]] = {
    "conv": (
        "convolution_param",
        (
            "num_output",
            ("bias_term", "biasterm"),
            "weight_filler",
            "bias_filler",
            "pad",
            ("kernel_size", "kernelsize"),
            "group",
            "stride",
        ),
    ),
    "innerproduct": (
        "inner_product_param",
        ("num_output", ("bias_term", "biasterm"), "weight_filler", "bias_filler"),
    ),
    "pool": ("pooling_param", ("pool", "pad", ("kernel_size", "kernelsize"), "stride")),
    "dropout": ("dropout_param", ("dropout_ratio",)),
    "lrn": ("lrn_param", ("local_size", "alpha", "beta", "k")),
    "concat": ("concat_param", ("concat_dim",)),
    "data": ("data_param", ("source", ("batch_size", "batchsize"), "rand_skip")),
    "hdf5_data": ("hdf5_data_param", ("source", ("batch_size", "batchsize"))),
    "images": (
        "image_data_param",
        (
            "source",
            ("batch_size", "batchsize"),
            "rand_skip",
            ("shuffle", "shuffle_images"),
            "new_height",
            "new_width",
        ),
    ),
    "window_data": (
        "window_data_param",
        (
            "source",
            ("batch_size", "batchsize"),
            ("fg_threshold", "det_fg_threshold"),
            ("bg_threshold", "det_bg_threshold"),
            ("fg_fraction", "det_fg_fraction"),
            ("context_pad", "det_context_pad"),
            ("crop_mode", "det_crop_mode"),
        ),
    ),
    "infogain_loss": ("infogain_loss_param", ("source",)),
}
# These belong to transform_param whatever the type.
_V0_TRANSFORM = ("scale", ("mean_file", "meanfile"), ("crop_size", "cropsize"), "mirror")
# V1 layers whose own message held what belongs to transform_param now.
_DATA_PARAMS = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def net_parameter(message: Message, path: str) -> NetParameter:
    """The network that a NetParameter message describes; `path` is the file's, for messages.

    Blobs may be `Blob`s or BlobProto messages. Where a file has both `layers` and `layer`, the former count,
    as in Caffe. Raises FormatError for blobs and input dimensions that cannot be.
    """
    if message.has("layers"):
        old = message["layers"]
        if any(layer.has("layer") for layer in old):
            version, layers = "V0", [_upgrade_v0(layer) for layer in _fold_padding(old, path)]
        else:
            version, layers = "V1", [_upgrade_v1(layer) for layer in old]
    else:
        version, layers = "V2", [_layer(layer) for layer in message["layer"]]
    for layer in layers:
        for index, blob in enumerate(layer.blobs):
            blob.check(f'{path}: blob {index} of layer "{layer.name}"')
    return NetParameter(
        name=message["name"],
        layers=layers,
        version=version,
        path=path,
        inputs=list(message["input"]),
        input_dims=_input_dims(message, path),
    )


def _input_dims(message: Message, path: str) -> list[tuple[int, ...]]:
    if message.has("input_shape"):
        return [tuple(shape["dim"]) for shape in message["input_shape"]]
    dims = message["input_dim"]
    if len(dims) % 4:
        raise FormatError(f"{path}: input_dim occurs {len(dims)} times, expected four for each input")
    return [tuple(dims[start : start + 4]) for start in range(0, len(dims), 4)]


def _layer(message: Message) -> LayerParameter:
    """A V2 layer as it stands."""
    return LayerParameter(
        name=message["name"],
        type=message["type"],
        bottoms=list(message["bottom"]),
        tops=list(message["top"]),
        blobs=_blobs(message),
        params=_params(message),
        include=list(message["include"]),
        exclude=list(message["exclude"]),
        phase=message["phase"] if message.has("phase") else None,
        loss_weight=list(message["loss_weight"]),
        param_specs=list(message["param"]),
        unknown=message.unknown,
    )


def _blobs(message: Message) -> list[Blob]:
    return [blob if isinstance(blob, Blob) else Blob.from_message(blob) for blob in message["blobs"]]


def _params(message: Message) -> dict[str, Message]:
    return {name: value for name, value in message.values.items() if name in schema.LAYER_PARAMS}


def _upgrade_v1(message: Message) -> LayerParameter:
    v1_type, kind = _v1_type(message)
    layer = LayerParameter(
        name=message["name"],
        type=kind,
        bottoms=list(message["bottom"]),
        tops=list(message["top"]),
        blobs=_blobs(message),
        params=_params(message),
        v1_type=v1_type,
        include=list(message["include"]),
        exclude=list(message["exclude"]),
        loss_weight=list(message["loss_weight"]),
        param_specs=_param_specs(message),
        unknown=message.unknown,
    )
    _move_transform(layer)
    return layer


def _v1_type(message: Message) -> tuple[int, str]:
    """The number of a V1 layer's type, and V2's word for it."""
    if message.has("type"):
        number = _V1_NUMBERS[message["type"]]
        return number, schema.V1_TYPES[number].v2
    numbers = [n for n in message.unknown.get(_V1_TYPE_FIELD, ()) if n is not None]
    return (numbers[-1], f"V1 type {numbers[-1]}") if numbers else (0, "")


def _param_specs(message: Message) -> list[Message]:
    """V1 has a list for each property of a parameter blob, V2 a ParamSpec for each blob."""
    lists = {
        "name": message["param"],
        "share_mode": message["blob_share_mode"],
        "lr_mult": message["blobs_lr"],
        "decay_mult": message["weight_decay"],
    }
    return [
        Message("ParamSpec", **{name: values[i] for name, values in lists.items() if i < len(values)})
        for i in range(max(map(len, lists.values())))
    ]


def _move_transform(layer: LayerParameter) -> None:
    own = layer.params.get(_DATA_PARAMS.get(layer.type, ""))
    if own is None:
        return
    moved = {name: own.values.pop(name) for name in _TRANSFORM_FIELDS if name in own.values}
    if moved:
        layer.params.setdefault("transform_param", Message("TransformationParameter")).values.update(moved)


def _upgrade_v0(message: Message) -> LayerParameter:
    """A V0 layer, which holds all but its connections in a message of its own."""
    old = message["layer"]
    upgraded = Message("V1LayerParameter", bottom=message["bottom"], top=message["top"])
    for name in ("name", "blobs", "blobs_lr", "weight_decay"):
        if name in old.values:
            upgraded.values[name] = old.values[name]
    kind = old["type"]
    if kind in schema.V0_TYPES:
        upgraded.values["type"] = schema.V0_TYPES[kind]
    if kind in _V0_FIELDS:
        param, names = _V0_FIELDS[kind]
        _move(old, upgraded, param, names)
    if kind == "hdf5_output" and old.has("hdf5_output_param"):
        upgraded.values["hdf5_output_param"] = old["hdf5_output_param"]
    _move(old, upgraded, "transform_param", _V0_TRANSFORM)
    layer = _upgrade_v1(upgraded)
    if kind and kind not in schema.V0_TYPES:
        layer.type = f"V0 type {kind}"
    return layer


def _move(old: Message, upgraded: Message, param: str, names: tuple[str | tuple[str, str], ...]) -> None:
    """Set the fields of `param` that V0 has set, under their new names."""
    target = Message(schema.LAYER_PARAMS[param][0])
    for pair in names:
        new_name, old_name = pair if isinstance(pair, tuple) else (pair, pair)
        if old.has(old_name):
            value: Any = old[old_name]
            _number, spec = schema.BY_NAME[target.kind][new_name]
            target.values[new_name] = [value] if spec.repeated else value
    if target.values:
        upgraded.values[param] = target


def _fold_padding(layers: list[Message], path: str) -> list[Message]:
    """V0 layers without those of type "padding": their `pad` moves into the layer that they feed."""
    last_top: dict[str, Message] = {}
    kept = []
    for layer in layers:
        kind = layer["layer"]["type"]
        sources = [last_top[name] for name in layer["bottom"] if name in last_top]
        for padding in (source for source in sources if source["layer"]["type"] == "padding"):
            if kind not in ("conv", "pool") or len(layer["bottom"]) != 1 or len(padding["bottom"]) != 1:
                raise FormatError(
                    f'{path}: layer "{layer["layer"]["name"]}" of type "{kind}" follows a padding layer, '
                    "expected a convolution or pooling layer with one input"
                )
            layer["layer"].values["pad"] = padding["layer"]["pad"]
            layer.values["bottom"] = list(padding["bottom"])
        if kind != "padding":
            kept.append(layer)
        for name in layer["top"]:
            last_top[name] = layer
    return kept

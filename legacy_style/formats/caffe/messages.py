"""A network back into the messages of caffe.proto, as V2 layers or as V1 layers.

The counterpart of `upgrade`. V1 knows fewer layers and parameters; what it cannot say is an UnsupportedError.
Blobs stay `Blob`s in their messages.
"""

from __future__ import annotations

from typing import Any

from legacy_style.errors import UnsupportedError
from legacy_style.formats.caffe import schema
from legacy_style.formats.caffe.netparam import LayerParameter, Message, NetParameter

_V1_NAMES = {kind.v2: kind.name for kind in schema.V1_TYPES.values()}


def net_message(net: NetParameter, version: str) -> Message:
    """The NetParameter message of `net`, its layers as "V2" or "V1".

    Raises UnsupportedError for a layer that V1 cannot describe.
    """
    message = Message("NetParameter", **_given(name=net.name, input=net.inputs))
    if version == "V1" and all(len(dims) == 4 for dims in net.input_dims):
        message.values.update(_given(input_dim=[dim for dims in net.input_dims for dim in dims]))
    else:
        shapes = [Message("BlobShape", dim=list(dims)) for dims in net.input_dims]
        message.values.update(_given(input_shape=shapes))
    if version == "V1":
        message.values["layers"] = [_v1_layer(layer) for layer in net.layers]
    else:
        message.values["layer"] = [v2_layer(layer) for layer in net.layers]
    return message


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that hold something."""
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def v2_layer(layer: LayerParameter) -> Message:
    """The LayerParameter message of a layer."""
    return Message(
        "LayerParameter",
        **_given(
            name=layer.name,
            type=layer.type,
            bottom=layer.bottoms,
            top=layer.tops,
            phase=layer.phase,
            loss_weight=layer.loss_weight,
            param=layer.param_specs,
            blobs=layer.blobs,
            include=layer.include,
            exclude=layer.exclude,
        ),
        **layer.params,
    )


def _v1_layer(layer: LayerParameter) -> Message:
    """The V1LayerParameter message of a layer; `phase` has no place there and is left out."""
    if layer.type and layer.type not in _V1_NAMES:
        raise UnsupportedError(
            f'layer "{layer.name}" has the type "{layer.type}", which V1 files do not know; write V2'
        )
    for name in layer.params:
        if schema.LAYER_PARAMS[name][2] is None:
            raise UnsupportedError(f'layer "{layer.name}" has {name}, which V1 files do not know; write V2')
    return Message(
        "V1LayerParameter",
        **_given(
            bottom=layer.bottoms,
            top=layer.tops,
            name=layer.name,
            type=_V1_NAMES.get(layer.type) if layer.type else None,
            blobs=layer.blobs,
            blobs_lr=_property(layer, "lr_mult"),
            weight_decay=_property(layer, "decay_mult"),
            include=layer.include,
            exclude=layer.exclude,
            loss_weight=layer.loss_weight,
            param=_property(layer, "name"),
            blob_share_mode=_property(layer, "share_mode"),
        ),
        **layer.params,
    )


def _property(layer: LayerParameter, name: str) -> list[Any]:
    """One property of each parameter blob, as far as any has it: V1's lists go by position."""
    last = max((i for i, spec in enumerate(layer.param_specs) if spec.has(name)), default=-1)
    return [spec[name] for spec in layer.param_specs[: last + 1]]

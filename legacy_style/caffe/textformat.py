"""A network's layers as prototxt text, written for Caffe and for the readers that came after it.

The layers are written as V2 (`layer { type: "Convolution" }`) and without their weights, whatever file they came
from. Ports the text format of protobuf (text_format.cc, TextFormat::Printer) as far as caffe.proto needs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from legacy_style.caffe import schema
from legacy_style.caffe.netparam import LayerParameter, Message, NetParameter

_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def write(net: NetParameter) -> str:
    """The text of `net`, which `prototxt.parse` and protobuf read as the same layers."""
    return "".join(f"{line}\n" for line in _lines(_net_message(net), ""))


def layer_message(layer: LayerParameter) -> Message:
    """The LayerParameter message of `layer`, without blobs."""
    fields: dict[str, Any] = {
        "name": layer.name,
        "type": layer.type,
        "bottom": layer.bottoms,
        "top": layer.tops,
        "phase": layer.phase,
        "loss_weight": layer.loss_weight,
        "param": layer.param_specs,
        "include": layer.include,
        "exclude": layer.exclude,
        **layer.params,
    }
    return Message(
        "LayerParameter", **{name: value for name, value in fields.items() if value not in (None, [], "")}
    )


def _net_message(net: NetParameter) -> Message:
    message = Message("NetParameter", layer=[layer_message(layer) for layer in net.layers])
    if net.name:
        message.values = {"name": net.name, **message.values}
    if net.inputs:
        message.values["input"] = net.inputs
        message.values["input_shape"] = [Message("BlobShape", dim=list(dims)) for dims in net.input_dims]
    return message


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.values.items():
        _number, spec = schema.BY_NAME[message.kind][name]
        for item in value if spec.repeated else [value]:
            if isinstance(item, Message):
                yield f"{indent}{name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(item, spec.kind)}"


def _scalar(value: bool | int | float | str, kind: str) -> str:
    if kind == "string":
        return f'"{_escaped(str(value))}"'
    if kind == "bool":
        return "true" if value else "false"
    if kind in ("float", "double"):
        number = float(value)
        if not math.isfinite(number):
            return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"
        # The shortest digits that read back as the same float32 (or float64).
        digits = np.float32(number) if kind == "float" else np.float64(number)
        return str(digits).removesuffix(".0")
    return str(value)


def _escaped(text: str) -> str:
    """`text` in C's escapes; bytes that are no UTF-8 are kept as octal numbers."""
    escaped = text.translate(_ESCAPES)
    return "".join(
        c if c.isprintable() else "".join(f"\\{byte:03o}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in escaped
    )

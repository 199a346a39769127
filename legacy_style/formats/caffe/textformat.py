"""A network's layers as prototxt text, for Caffe and for the readers that came after it.

The layers are written as V2 (`layer { type: "Convolution" }`) and without their weights, whatever file they
came from. Ports the text format of protobuf (text_format.cc, TextFormat::Printer) as far as caffe.proto needs
it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from legacy_style.formats.caffe import messages, schema
from legacy_style.formats.caffe.netparam import Message, NetParameter

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def write(net: NetParameter) -> str:
    """The text of `net`, which `prototxt.parse` and protobuf read as the same layers."""
    bare = replace(net, layers=[replace(layer, blobs=[]) for layer in net.layers])
    return "".join(f"{line}\n" for line in _lines(messages.net_message(bare, "V2"), ""))


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
        return str(np.float32(number) if kind == "float" else number).removesuffix(".0")
    return str(value)


def _escaped(text: str) -> str:
    """`text` in C's escapes; control characters, and bytes that are no UTF-8, become octal numbers."""
    return "".join(
        c if c.isprintable() else "".join(f"\\{byte:03o}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in text.translate(_ESCAPES)
    )

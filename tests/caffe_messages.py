"""Google's protobuf classes for caffe.proto, made of the facts in tests/data/caffe/fields.txt.

They are the oracle of the tests of readers and writer, and share nothing with legacy_style/caffe/schema.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELDS = Path(__file__).parent / "data" / "caffe" / "fields.txt"

_LABELS = {"optional": 1, "required": 2, "repeated": 3}
_TYPES = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "message": 11,
    "uint32": 13,
    "enum": 14,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    message = file
    for line in FIELDS.read_text().splitlines():
        words = line.split()
        if line.startswith("#") or not words:
            continue
        if words[0] == "message":
            message = file.message_type.add(name=words[1])
        elif words[0] == "enum":
            enum = message.enum_type.add(name=words[1])
            for value in words[2:]:
                name, number = value.split("=")
                enum.value.add(name=name, number=int(number))
        else:
            _add_field(file, message, words)
    return file


def _add_field(
    file: descriptor_pb2.FileDescriptorProto, message: descriptor_pb2.DescriptorProto, words: list[str]
) -> None:
    number, label, kind, name, *rest = words
    field = message.field.add(name=name, number=int(number), label=_LABELS[label])
    # The readers do not insist on ClipParameter's required fields, so neither does the oracle.
    if label == "required":
        field.label = _LABELS["optional"]
    if kind in _TYPES:
        field.type = _TYPES[kind]
    elif kind in {enum.name for enum in message.enum_type}:
        field.type, field.type_name = _TYPES["enum"], f".caffe.{message.name}.{kind}"
    elif kind in {enum.name for enum in file.enum_type}:
        field.type, field.type_name = _TYPES["enum"], f".caffe.{kind}"
    else:
        field.type, field.type_name = _TYPES["message"], f".caffe.{kind}"
    if rest == ["packed"]:
        field.options.packed = True
    elif rest:
        assert rest[0] == "=" and len(rest) == 2, words
        field.default_value = rest[1]


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())

# Message name -> class.
CLASSES: dict[str, Any] = {
    name: message_factory.GetMessageClass(descriptor)
    for name, descriptor in _POOL.FindFileByName("caffe.proto").message_types_by_name.items()
}

"""The tables of caffe.proto, against Google's descriptors made of the facts in data/caffe/fields.txt."""

from __future__ import annotations

import math

from caffe_messages import CLASSES
from google.protobuf.descriptor import FieldDescriptor

from legacy_style.formats.caffe import schema
from legacy_style.formats.caffe.netparam import default, float32
from legacy_style.formats.caffe.schema import V1_TYPES
from legacy_style.formats.caffe.schema_params import Field

_KINDS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_STRING: "string",
}


def _same_default(ours: Field, theirs: FieldDescriptor) -> bool:
    value = default(ours)
    if theirs.type == FieldDescriptor.TYPE_ENUM:
        return bool(value == theirs.enum_type.values_by_number[theirs.default_value].name)
    if theirs.type == FieldDescriptor.TYPE_FLOAT:
        return math.isclose(value, float32(theirs.default_value), rel_tol=0, abs_tol=0)
    return bool(value == theirs.default_value)


def test_every_message_and_field_is_as_in_caffe_proto() -> None:
    assert sorted(schema.MESSAGES) == sorted(CLASSES)
    for name, fields in schema.MESSAGES.items():
        theirs = CLASSES[name].DESCRIPTOR.fields_by_number
        assert sorted(fields) == sorted(theirs), name
        for number, field in fields.items():
            other = theirs[number]
            where = f"{name}.{field.name}"
            assert field.name == other.name, where
            assert field.repeated == other.is_repeated, where
            assert field.packed == other.is_packed, where
            if other.type == FieldDescriptor.TYPE_MESSAGE:
                assert field.kind == other.message_type.name, where
            elif other.type == FieldDescriptor.TYPE_ENUM:
                values = {value.number: value.name for value in other.enum_type.values}
                assert schema.ENUMS[field.kind] == values, where
            else:
                assert field.kind == _KINDS[other.type], where
            if not field.repeated and other.type != FieldDescriptor.TYPE_MESSAGE:
                assert _same_default(field, other), where


def test_parameters_have_their_numbers_in_both_layer_messages() -> None:
    for name, (message, v2, v1) in schema.LAYER_PARAMS.items():
        assert CLASSES["LayerParameter"].DESCRIPTOR.fields_by_name[name].number == v2
        assert CLASSES["LayerParameter"].DESCRIPTOR.fields_by_name[name].message_type.name == message
        field = CLASSES["V1LayerParameter"].DESCRIPTOR.fields_by_name.get(name)
        assert (None if field is None else field.number) == v1


def test_v1_types_have_names_that_only_differ_in_spelling() -> None:
    # UpgradeV1LayerType renames one type, SOFTMAX_LOSS, by more than case and underscores.
    for kind in V1_TYPES.values():
        if kind.name not in ("NONE", "SOFTMAX_LOSS"):
            assert kind.v2.upper() == kind.name.replace("_", ""), kind
    assert (V1_TYPES[21].v2, V1_TYPES[0].v2) == ("SoftmaxWithLoss", "")
    assert [V1_TYPES[number].v2 for number in (4, 14, 17, 18, 20)] == [
        "Convolution",
        "InnerProduct",
        "Pooling",
        "ReLU",
        "Softmax",
    ]

"""Random messages of caffe.proto, as Google's objects and as bytes of every form that the format allows."""

from __future__ import annotations

import math
import random
import string
import struct
from typing import Any

from caffe_messages import CLASSES
from google.protobuf.descriptor import FieldDescriptor as Kind
from google.protobuf.unknown_fields import UnknownFieldSet

_INT32 = [0, 1, 2, 3, 224, -1, 2**31 - 1, -(2**31)]
_NUMBERS: dict[int, list[Any]] = {
    Kind.TYPE_INT32: _INT32,
    Kind.TYPE_INT64: [*_INT32, 2**63 - 1, -(2**63)],
    Kind.TYPE_UINT32: [0, 1, 3, 127, 128, 4096, 2**32 - 1],
    Kind.TYPE_BOOL: [False, True],
    Kind.TYPE_FLOAT: [0.0, -0.0, 1.0, 0.1, -2.5e-5, 3e38, 1e-45, math.inf, -math.inf, math.nan],
    Kind.TYPE_DOUBLE: [0.0, -0.0, 1.0, 0.1, -2.5e-5, 1.7e308, 5e-324, math.inf, -math.inf, math.nan],
}
_WIRE_TYPE = {Kind.TYPE_FLOAT: 5, Kind.TYPE_DOUBLE: 1, Kind.TYPE_STRING: 2, Kind.TYPE_MESSAGE: 2}
_LETTERS = string.ascii_letters + string.digits + "_/'\"\\?\n\t\0 äß€𝄞"


def message(rng: random.Random, kind: str, share: float = 0.25) -> Any:
    """A message of that kind with up to a share of its fields set; half of that in messages within it."""
    made = CLASSES[kind]()
    fields = list(made.DESCRIPTOR.fields)
    for field in rng.sample(fields, rng.randint(0, min(math.ceil(share * len(fields)), len(fields)))):
        if field.type == Kind.TYPE_MESSAGE:
            for _ in range(rng.randint(1, 2) if field.is_repeated else 1):
                inner = message(rng, field.message_type.name, share / 2)
                (
                    getattr(made, field.name).add() if field.is_repeated else getattr(made, field.name)
                ).CopyFrom(inner)
                if not field.is_repeated:
                    getattr(made, field.name).SetInParent()
        elif field.is_repeated:
            getattr(made, field.name).extend(_scalar(rng, field) for _ in range(rng.randint(1, 4)))
        else:
            setattr(made, field.name, _scalar(rng, field))
    return made


def _scalar(rng: random.Random, field: Kind) -> Any:
    if field.type == Kind.TYPE_STRING:
        return "".join(rng.choices(_LETTERS, k=rng.randint(0, 12)))
    if field.type == Kind.TYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    return rng.choice(_NUMBERS[field.type])


def odd_bytes(rng: random.Random, made: Any, *, exact: bool = False) -> bytes:
    """A message's bytes as no writer makes them and every reader must take them.

    Fields in any order, numbers packed or not, varints longer than need be, unknown fields and groups
    between; and unless `exact`, which keeps what the message says, known fields with another wire type, enum
    numbers without a name, singular fields given twice.
    """
    twice = 0.0 if exact else 0.1
    pieces: list[bytes] = []
    for field, value in made.ListFields():
        values = list(value) if field.is_repeated else [value]
        if field.type == Kind.TYPE_MESSAGE:
            bodies = [odd_bytes(rng, item, exact=exact) for item in values]
            items = [_key(rng, field.number, 2) + _varint(rng, len(body)) + body for body in bodies]
            # Fields may be in any order, but the items of one field are numbered by theirs.
            pieces += [b"".join(items)] if exact else items
            if rng.random() < twice and not field.is_repeated:
                body = odd_bytes(rng, message(rng, field.message_type.name, 0.2))
                pieces.append(_key(rng, field.number, 2) + _varint(rng, len(body)) + body)
        elif field.is_repeated and field.type != Kind.TYPE_STRING:
            pieces.append(_odd_numbers(rng, field, values, exact))
        else:
            before = [_scalar(rng, field)] if rng.random() < twice and not field.is_repeated else []
            wire_type = _WIRE_TYPE.get(field.type, 0)
            items = [
                _key(rng, field.number, wire_type) + _payload(rng, field, item, exact)
                for item in before + values
            ]
            pieces += [b"".join(items)] if exact else items
    while rng.random() < 0.2:
        pieces.append(_unknown(rng, made.DESCRIPTOR, exact))
    rng.shuffle(pieces)
    return b"".join(pieces)


def _odd_numbers(rng: random.Random, field: Kind, values: list[Any], exact: bool) -> bytes:
    """The numbers of a repeated field, some one by one, some packed, perhaps none in a packed field."""
    out = b""
    while values:
        count = rng.randint(0, len(values))
        now, values = values[:count], values[count:]
        if rng.random() < 0.5:
            body = b"".join(_payload(rng, field, item, exact) for item in now)
            out += _key(rng, field.number, 2) + _varint(rng, len(body)) + body
        else:
            wire_type = _WIRE_TYPE.get(field.type, 0)
            out += b"".join(
                _key(rng, field.number, wire_type) + _payload(rng, field, item, exact) for item in now
            )
    return out


def _payload(rng: random.Random, field: Kind, value: Any, exact: bool) -> bytes:
    if field.type == Kind.TYPE_STRING:
        encoded: bytes = value.encode()
        return _varint(rng, len(encoded)) + encoded
    if field.type == Kind.TYPE_FLOAT:
        return struct.pack("<f", value)
    if field.type == Kind.TYPE_DOUBLE:
        return struct.pack("<d", value)
    if field.type == Kind.TYPE_ENUM and not exact and rng.random() < 0.05:
        value = rng.choice([99, -1, 2**40])
    return _varint(rng, int(value))


def _unknown(rng: random.Random, descriptor: Any, exact: bool) -> bytes:
    number = rng.choice([rng.randint(200, 900), 2**29 - 1])
    if not exact and rng.random() < 0.3:
        number = rng.choice(descriptor.fields).number
    wire_type = rng.choice([0, 1, 2, 3, 5])
    field = descriptor.fields_by_number.get(number)
    if wire_type == 2 and field is not None:
        wire_type = 0
    body = {
        0: _varint(rng, rng.getrandbits(rng.choice([7, 32, 64]))),
        1: rng.randbytes(8),
        2: b"\x05" + rng.randbytes(5),
        3: b"\x08\x96\x01\x0b\x0c" + _key(rng, number, 4),
        5: rng.randbytes(4),
    }
    return _key(rng, number, wire_type) + body[wire_type]


def _varint(rng: random.Random, value: int) -> bytes:
    """A varint, one time in ten with more bytes than it needs."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    if rng.random() < 0.1 and len(out) < 5:
        out[-1] |= 128
        out += b"\x80" * rng.randint(0, 4 - len(out)) + b"\0"
    return bytes(out)


def _key(rng: random.Random, number: int, wire_type: int) -> bytes:
    return _varint(rng, number << 3 | wire_type)


def plain(made: Any) -> dict[str, Any]:
    """What one of Google's messages holds, as `test_caffe_wire.ours` gives what one of ours holds."""
    out: dict[str, Any] = {}
    for field, value in made.ListFields():
        items = list(value) if field.is_repeated else [value]
        if field.type == Kind.TYPE_MESSAGE:
            items = [plain(item) for item in items]
        elif field.type == Kind.TYPE_ENUM:
            items = [field.enum_type.values_by_number[item].name for item in items]
        else:
            items = [bits(item) for item in items]
        out[field.name] = items if field.is_repeated else items[0]
    unknown: dict[int, list[Any]] = {}
    for field in UnknownFieldSet(made):
        number = field.data if field.wire_type in (0, 1, 5) else None
        unknown.setdefault(field.field_number, []).append(number)
    return {**out, "unknown": unknown}


def bits(value: Any) -> Any:
    """A scalar so that equal means the same: floats as their bytes, but one name for every NaN."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    # Google gives a string that is not UTF-8 as bytes.
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value

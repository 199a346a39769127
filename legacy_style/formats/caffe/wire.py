"""Protobuf's wire format: messages out of bytes, and bytes out of messages, by the tables of `schema`.

Follows https://protobuf.dev/programming-guides/encoding and, where that is silent, what Google's parsers do:
a field with another wire type than its own is unknown, so is an enum value without a name; numbers of
repeated fields come one by one or packed; a message that occurs twice is merged, of a number the last one
counts; bits beyond 64 of a varint, and beyond 32 of an int32, are dropped.

Positions are bytes from the beginning of the file. Nothing is copied but what a message keeps.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from legacy_style.errors import FormatError
from legacy_style.formats.caffe import schema
from legacy_style.formats.caffe.netparam import Message, float32
from legacy_style.formats.caffe.schema_params import Field

VARINT, I64, LEN, START_GROUP, END_GROUP, I32 = range(6)

# Wire type of one value; enums are VARINT, messages LEN.
_WIRE_TYPES = {
    "int32": VARINT,
    "int64": VARINT,
    "uint32": VARINT,
    "bool": VARINT,
    "float": I32,
    "double": I64,
    "string": LEN,
}
_FIXED: dict[str, np.dtype[Any]] = {"float": np.dtype("<f4"), "double": np.dtype("<f8")}
_ENUM_NUMBERS = {
    enum: {name: number for number, name in names.items()} for enum, names in schema.ENUMS.items()
}
# Google's parsers refuse tags and lengths of more bytes, even where these are zeros.
_MAX_32_BITS = 5
_UINT64 = (1 << 64) - 1

# Google's parsers refuse deeper nesting as well (kDefaultRecursionLimit of protobuf's io/coded_stream.h).
MAX_DEPTH = 100
# These bound the memory and the time that a hostile file can take: a message of two bytes becomes up to a
# kilobyte of objects. A network of a thousand layers has about 10^4 messages and 10^5 fields, its weights not
# counted.
MAX_MESSAGES = 1 << 16
MAX_FIELDS = 1 << 22


class Source:
    """The bytes of a file, `path` for error messages, and how many fields and messages were met so far.

    `cut` is set once something reaches beyond the end of the whole file.
    """

    __slots__ = ("buffer", "cut", "fields", "messages", "path")

    def __init__(self, buffer: bytes | mmap.mmap, path: str) -> None:
        self.buffer = buffer
        self.path = path
        self.cut = False
        self.fields = 0
        self.messages = 0

    def enter_message(self, position: int) -> None:
        """Count a message that begins there; FormatError for more than any network has."""
        self.messages += 1
        if self.messages > MAX_MESSAGES:
            raise self.error(f"more than {MAX_MESSAGES} messages, no network has so many", position)

    def early_end(self, what: str, position: int, end: int) -> FormatError:
        """A FormatError for what reaches beyond `end`, of its message or of the file."""
        self.cut = end == len(self.buffer)
        return self.error(what, position)

    def error(self, what: str, position: int) -> FormatError:
        """A FormatError that names the file and the byte."""
        return FormatError(f"{self.path}: {what} (byte {position})")


# Reads messages of one kind in place of `decode`: (source, start, end) -> what the field then holds.
Special = Callable[[Source, int, int], Any]


def read_varint(source: Source, pos: int, end: int, most: int = 10) -> tuple[int, int]:
    """The unsigned 64-bit number at `pos`, of at most that many bytes, and the position after it."""
    value = 0
    for index in range(min(most, end - pos)):
        byte = source.buffer[pos + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & _UINT64, pos + index + 1
    if end - pos < most:
        raise source.early_end("cut off within a number", pos, end)
    raise source.error(f"a number runs over {most} bytes, expected a varint", pos)


def read_tag(source: Source, pos: int, end: int) -> tuple[int, int, int]:
    """Field number and wire type at `pos`, and the position after them."""
    source.fields += 1
    if source.fields > MAX_FIELDS:
        raise source.error(f"more than {MAX_FIELDS} fields, no network has so many", pos)
    tag, after = read_varint(source, pos, end, _MAX_32_BITS)
    if tag >> 32 or tag < 8:
        raise source.error(f"{tag:#x} is no tag, expected a field number of 1 to 536870911", pos)
    return tag >> 3, tag & 7, after


def read_payload(
    source: Source, pos: int, end: int, number: int, wire_type: int
) -> tuple[int | None, int, int]:
    """What follows a tag: the number it holds, None for bytes and groups; where it begins; where it ends.

    Fixed-size numbers come as unsigned integers.
    """
    if wire_type == VARINT:
        value, after = read_varint(source, pos, end)
        return value, pos, after
    if wire_type == LEN:
        length, begin = read_varint(source, pos, end, _MAX_32_BITS)
        if length > end - begin:
            raise source.early_end(
                f"field {number} claims {length} bytes, but {end - begin} are left in its message", pos, end
            )
        return None, begin, begin + length
    if wire_type in (I32, I64):
        after = pos + (4 if wire_type == I32 else 8)
        if after > end:
            raise source.early_end(f"cut off within field {number}, expected {after - pos} bytes", pos, end)
        return int.from_bytes(source.buffer[pos:after], "little"), pos, after
    if wire_type == START_GROUP:
        return None, pos, _skip_group(source, pos, end, number)
    raise source.error(f"field {number} has the wire type {wire_type}, expected 0 to 5 and no stray 4", pos)


def _skip_group(source: Source, pos: int, end: int, number: int) -> int:
    """The position after the group whose start tag ended at `pos`; groups nest."""
    start = pos
    open_groups = [number]
    while open_groups:
        if pos >= end:
            raise source.error(f"the group of field {open_groups[-1]} has no end", start)
        at = pos
        number, wire_type, pos = read_tag(source, pos, end)
        if wire_type == START_GROUP:
            open_groups.append(number)
            if len(open_groups) > MAX_DEPTH:
                raise source.error(f"groups are nested more than {MAX_DEPTH} deep", at)
        elif wire_type == END_GROUP:
            if number != open_groups.pop():
                raise source.error(f"a group ends as field {number}, expected its own number", at)
        else:
            _value, _begin, pos = read_payload(source, pos, end, number, wire_type)
    return pos


def decode(
    source: Source,
    start: int,
    end: int,
    kind: str,
    special: Mapping[str, Special] | None = None,
    into: Message | None = None,
) -> Message:
    """The message of that kind in bytes `start` to `end`, merged into `into` where given.

    `special` names message kinds that another function reads. Raises FormatError.
    """
    source.enter_message(start)
    message = Message(kind) if into is None else into
    fields = schema.MESSAGES[kind]
    pos = start
    while pos < end:
        number, wire_type, pos = read_tag(source, pos, end)
        value, begin, pos = read_payload(source, pos, end, number, wire_type)
        spec = fields.get(number)
        if spec is None:
            message.unknown.setdefault(number, []).append(value)
        elif wire_type == LEN and spec.kind in schema.MESSAGES:
            _store_message(source, message, spec, begin, pos, special or {})
        elif wire_type == LEN and spec.repeated and spec.kind != "string":
            _store(message, number, spec, _packed(source, begin, pos, spec))
        elif wire_type == _WIRE_TYPES.get(spec.kind, VARINT if spec.kind in schema.ENUMS else -1):
            _store(message, number, spec, [_scalar(source, value, begin, pos, spec)])
        else:
            message.unknown.setdefault(number, []).append(value)
    return message


def _store_message(
    source: Source, message: Message, spec: Field, begin: int, end: int, special: Mapping[str, Special]
) -> None:
    reader = special.get(spec.kind)
    if reader is not None:
        item = reader(source, begin, end)
    else:
        into = None if spec.repeated else message.values.get(spec.name)
        item = decode(source, begin, end, spec.kind, special, into)
    if spec.repeated:
        message.values.setdefault(spec.name, []).append(item)
    else:
        message.values[spec.name] = item


def _store(message: Message, number: int, spec: Field, items: list[Any]) -> None:
    """Append to a repeated field or set another; enum numbers without a name are unknown fields."""
    if spec.kind in schema.ENUMS:
        names = schema.ENUMS[spec.kind]
        unknown = [item for item in items if int32(item) not in names]
        if unknown:
            message.unknown.setdefault(number, []).extend(unknown)
        items = [names[int32(item)] for item in items if int32(item) in names]
    if not items:
        return
    if spec.repeated:
        message.values.setdefault(spec.name, []).extend(items)
    else:
        message.values[spec.name] = items[-1]


def _scalar(source: Source, value: int | None, begin: int, end: int, spec: Field) -> Any:
    """One value from its payload; strings that are not UTF-8 keep their bytes as surrogates."""
    if spec.kind == "string":
        return source.buffer[begin:end].decode("utf-8", "surrogateescape")
    if spec.kind in _FIXED:
        (number,) = struct.unpack("<f" if spec.kind == "float" else "<d", source.buffer[begin:end])
        return number
    assert value is not None
    return _integer(value, spec.kind)


def _integer(value: int, kind: str) -> int | bool:
    """A varint as the kind has it; those of enums stay as they are, for `_store` to look up."""
    if kind in schema.ENUMS:
        return value
    if kind == "bool":
        return value != 0
    if kind == "uint32":
        return value & 0xFFFFFFFF
    if kind == "int64":
        return value - (1 << 64) if value >> 63 else value
    return int32(value)


def int32(value: int) -> int:
    """The lowest 32 bits of a varint, signed."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _packed(source: Source, begin: int, end: int, spec: Field) -> list[Any]:
    if spec.kind in _FIXED:
        dtype = _FIXED[spec.kind]
        check_packed(source, begin, end, dtype.itemsize)
        values = np.frombuffer(source.buffer[begin:end], dtype)
        return list(values.tolist())
    return [_integer(value, spec.kind) for value in _varints(source, begin, end)]


def check_packed(source: Source, begin: int, end: int, width: int) -> None:
    """Raise FormatError unless the bytes hold whole numbers of that many bytes each."""
    if (end - begin) % width:
        raise source.error(f"{end - begin} bytes of packed numbers, expected a multiple of {width}", begin)


def _varints(source: Source, pos: int, end: int) -> Iterator[int]:
    source.fields += end - pos
    if source.fields > MAX_FIELDS:
        raise source.error(f"more than {MAX_FIELDS} fields, no network has so many", pos)
    while pos < end:
        value, pos = read_varint(source, pos, end)
        yield value


def run_length(source: Source, pos: int, end: int, width: int) -> int:
    """How many numbers follow one by one from the tag at `pos` on, each a one-byte tag and `width` bytes.

    Looks at the tags in steps that double, so that a run costs time in proportion to its length.
    """
    stride = width + 1
    limit = (end - pos) // stride
    tag = source.buffer[pos]
    count, step = 0, 16
    while count < limit:
        step = min(step, limit - count)
        span = np.frombuffer(source.buffer, np.uint8, (step - 1) * stride + 1, pos + count * stride)
        others = np.flatnonzero(span[::stride] != tag)
        if others.size:
            return count + int(others[0])
        count += step
        step = min(2 * step, 1 << 20)
    return count


class Payload(NamedTuple):
    """Bytes that are made only when they are written: how many, and what makes them."""

    size: int
    make: Callable[[], bytes | memoryview]


Part = bytes | Payload
# Writes an item that is no Message: item -> the parts of its message.
Encoder = Callable[[Any], "list[Part]"]


def encode(message: Message, special: Encoder | None = None) -> list[Part]:
    """The message as parts that make its bytes in a row: fields by number, as Google's writers order them.

    `special` encodes items of message fields that are not `Message`s. Unknown fields are left out.
    """
    parts: list[Part] = []
    by_name = schema.BY_NAME[message.kind]
    for number, spec, value in sorted((*by_name[name], value) for name, value in message.values.items()):
        items = value if spec.repeated else [value]
        if spec.kind in schema.MESSAGES:
            for item in items:
                inner = (
                    encode(item, special) if special is None or isinstance(item, Message) else special(item)
                )
                parts += [header(number, sum(map(part_size, inner))), *inner]
        elif spec.packed and items:
            payload = b"".join(_encode_scalar(item, spec) for item in items)
            parts.append(header(number, len(payload)) + payload)
        else:
            tag = _tag(number, _WIRE_TYPES.get(spec.kind, VARINT))
            parts += [tag + _encode_scalar(item, spec) for item in items]
    return parts


def part_size(part: Part) -> int:
    """How many bytes a part makes."""
    return part.size if isinstance(part, Payload) else len(part)


def varint(value: int) -> bytes:
    """The number as a varint; negative ones as 64 bits."""
    value &= _UINT64
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def header(number: int, size: int) -> bytes:
    """What comes before `size` bytes of a message, a string or packed numbers."""
    return _tag(number, LEN) + varint(size)


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def _encode_scalar(value: Any, spec: Field) -> bytes:
    if spec.kind == "string":
        encoded: bytes = value.encode("utf-8", "surrogateescape")
        return varint(len(encoded)) + encoded
    if spec.kind in _FIXED:
        return struct.pack("<f", float32(value)) if spec.kind == "float" else struct.pack("<d", value)
    if spec.kind in schema.ENUMS:
        return varint(_ENUM_NUMBERS[spec.kind][value])
    return varint(int(value))

"""Protobuf's wire format, read and written, against Google's protobuf."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
from caffe_generate import bits, message, odd_bytes, plain
from caffe_messages import CLASSES
from google.protobuf.message import DecodeError

from legacy_style.errors import FormatError
from legacy_style.formats.caffe import wire
from legacy_style.formats.caffe.netparam import Message


def ours(read: Message) -> dict[str, Any]:
    """What a message holds, as `caffe_generate.plain` gives it of Google's."""

    def item(value: Any) -> Any:
        return ours(value) if isinstance(value, Message) else bits(value)

    values = {k: list(map(item, v)) if isinstance(v, list) else item(v) for k, v in read.values.items()}
    return {**values, "unknown": read.unknown}


def decode(raw: bytes, kind: str) -> Message:
    return wire.decode(wire.Source(raw, "file"), 0, len(raw), kind)


def kinds(rng: random.Random) -> str:
    """A message kind; every second time one of the large ones."""
    return rng.choice(
        [rng.choice(["NetParameter", "LayerParameter", "BlobProto"]), rng.choice(list(CLASSES))]
    )


def test_ten_thousand_messages_read_and_written_as_google_does() -> None:
    longest = 0
    for seed in range(10_000):
        rng = random.Random(seed)
        kind = kinds(rng)
        # One in a hundred is large.
        made = message(rng, kind, 3.0 if seed % 100 == 0 else rng.choice([0.1, 0.2, 0.3]))
        canonical = made.SerializeToString()
        read = decode(canonical, kind)
        assert ours(read) == plain(made), (seed, kind)
        assert b"".join(map(_bytes, wire.encode(read))) == canonical, (seed, kind)
        odd = odd_bytes(rng, made)
        assert ours(decode(odd, kind)) == plain(CLASSES[kind].FromString(odd)), (seed, kind)
        longest = max(longest, len(odd))
    assert longest > 2000


def _bytes(part: wire.Part) -> bytes:
    return bytes(part.make()) if isinstance(part, wire.Payload) else part


def damaged(rng: random.Random, raw: bytes) -> bytes:
    """The bytes with one to three bits, bytes or ends changed."""
    out = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(out) + 1)
        way = rng.randrange(4)
        if way == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(out):
            out[at] = rng.choice([0, 1, 3, 4, 11, 12, 127, 128, 255])
        elif way == 2:
            del out[at:]
        else:
            out[at:at] = out[:][rng.randrange(len(out) + 1) :][: rng.randint(1, 8)]
    return bytes(out)


def test_damaged_messages_are_refused_where_google_refuses_them() -> None:
    refused = taken = 0
    for seed in range(6000):
        rng = random.Random(seed)
        kind = kinds(rng)
        raw = damaged(rng, odd_bytes(rng, message(rng, kind, 0.15)))
        try:
            theirs = plain(CLASSES[kind].FromString(raw))
        except DecodeError:
            with pytest.raises(FormatError):
                decode(raw, kind)
            refused += 1
            continue
        try:
            assert ours(decode(raw, kind)) == theirs, (seed, kind)
            taken += 1
        except FormatError as error:
            # Google's parser lets the field number 0, which no field may have, pass in an unknown group.
            assert "is no tag" in str(error), (seed, kind)
    assert refused > 1000 and taken > 1000


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\x12\x05\x00", "field 2 claims 5 bytes, but 1 are left in its message (byte 1)"),
        (
            b"\x12\xff\xff\xff\xff\x0f",
            "field 2 claims 4294967295 bytes, but 0 are left in its message (byte 1)",
        ),
        (b"\x0a\x80\x80\x80\x80\x80\x00", "a number runs over 5 bytes, expected a varint (byte 1)"),
        (b"\x28" + b"\x80" * 10 + b"\x01", "a number runs over 10 bytes, expected a varint (byte 1)"),
        (b"\x28\x80", "cut off within a number (byte 1)"),
        (b"\x00\x01", "0x0 is no tag, expected a field number of 1 to 536870911 (byte 0)"),
        (b"\xcd\x06\x00\x00\x00", "cut off within field 105, expected 4 bytes (byte 2)"),
        (b"\xcb\x06\x08\x01", "the group of field 105 has no end (byte 2)"),
        (b"\xcb\x06\xd4\x06", "a group ends as field 106, expected its own number (byte 2)"),
        (b"\xcc\x06", "field 105 has the wire type 4, expected 0 to 5 and no stray 4 (byte 2)"),
        (b"\xcf\x06", "field 105 has the wire type 7, expected 0 to 5 and no stray 4 (byte 2)"),
        (b"\xcb\x06" * 101, "groups are nested more than 100 deep (byte 200)"),
        (b"\x42\x04\x0a\x02\x80\x80", "cut off within a number (byte 4)"),
    ],
)
def test_an_error_says_what_and_where(raw: bytes, expected: str) -> None:
    with pytest.raises(FormatError, match=f"^file: {re.escape(expected)}$"):
        decode(raw, "NetParameter")
    with pytest.raises(DecodeError):
        CLASSES["NetParameter"].FromString(raw)


def test_packed_floats_must_be_whole() -> None:
    with pytest.raises(
        FormatError, match=r"^file: 6 bytes of packed numbers, expected a multiple of 4 \(byte 2\)$"
    ):
        decode(b"\x2a\x06" + bytes(6), "BlobProto")


def test_messages_and_fields_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGES", 100)
    monkeypatch.setattr(wire, "MAX_FIELDS", 1000)
    assert len(decode(b"\xa2\x06\x00" * 99, "NetParameter")["layer"]) == 99
    with pytest.raises(
        FormatError, match=r"^file: more than 100 messages, no network has so many \(byte 300\)$"
    ):
        decode(b"\xa2\x06\x00" * 100, "NetParameter")
    assert len(decode(wire.header(1, 999) + bytes(999), "BlobShape")["dim"]) == 999
    for raw in (wire.header(1, 1000) + bytes(1000), b"\x08\x00" * 1001, b"\x50\x00" * 1001):
        with pytest.raises(FormatError, match=r"^file: more than 1000 fields, no network has so many"):
            decode(raw, "BlobShape")


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 100, 5000])
@pytest.mark.parametrize("after", [b"", b"\x2d", b"\x2d\x00\x00\x00", b"\x35\x00\x00\x00\x00", b"\x08\x01"])
def test_a_run_of_numbers_one_by_one_is_as_long_as_its_tags_say(count: int, after: bytes) -> None:
    values = np.arange(count, dtype="<f4")
    raw = b"".join(b"\x2d" + value.tobytes() for value in values) + after
    assert wire.run_length(wire.Source(b"??" + raw, ""), 2, 2 + len(raw), 4) == count


def test_strings_that_are_not_utf8_keep_their_bytes() -> None:
    read = decode(b"\x0a\x03a\xff\xfe", "NetParameter")
    assert read["name"] == "a\udcff\udcfe"
    assert wire.encode(read) == [b"\x0a\x03a\xff\xfe"]

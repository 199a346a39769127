"""Damaged, hostile and random files for the readers of Caffe's formats: a FormatError or a network, no more.

Run by pytest, tries a fixed number of inputs. For longer: `python tests/formats/test_caffe_fuzz.py SECONDS [SEED]`,
or LEGACY_STYLE_FUZZ_SECONDS=SECONDS under pytest; both print how many inputs were tried. Every input goes to
Google's parsers too, which must agree. The corpus is tests/data/caffe; an input that fails is saved under
tests/data/caffe/found, whose files are tried again by every run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import random
import re
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from caffe_generate import message, odd_bytes, plain
from caffe_messages import CLASSES
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from test_caffe_caffemodel import numbers, shape
from test_caffe_wire import ours

from legacy_style.errors import FormatError
from legacy_style.formats.caffe import caffemodel, messages, phases, prototxt, upgrade, wire
from legacy_style.formats.caffe.netparam import NetParameter

CORPUS = Path(__file__).parents[1] / "data" / "caffe"
FOUND = CORPUS / "found"
BINARY = [path.read_bytes() for path in sorted(CORPUS.glob("*.caffemodel"))]
TEXT = [path.read_bytes() for path in sorted(CORPUS.glob("*.prototxt"))]

# What one input may take: seconds of processor time, and bytes of memory, some for each of its own: an empty
# layer is two bytes in a file, and a kilobyte as objects.
SECONDS = 2.0
BYTES = 100_000
BYTES_PER_BYTE = 500
# However large the file, as each of wire.MAX_MESSAGES takes no more than this.
BYTES_PER_MESSAGE = 1200

_VARINTS = [b"\0", b"\x7f", b"\x80", b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01"]
_TAGS = [
    b"\x12",
    b"\x0b",
    b"\x0c",
    b"\x2a",
    b"\x2d",
    b"\x41",
    b"\x42",
    b"\x3a",
    b"\x3a\x00",
    b"\xa2\x06\x00",
    b"\x0a",
]
_WORDS = [
    *(b"{", b"}", b"<", b">", b"[", b"]", b":", b",", b";", b"-", b"#", b'"', b"'", b"\n", b"\\", b"."),
    *(b"layer", b"layers", b"blobs { data: 1 }", b"shape { dim: -1 }", b"include { phase: TEST }", b"pad: 1"),
    *(
        b"0x",
        b"1e999",
        b"99999999999999999999",
        b"nan",
        b"-inf",
        b"\xff",
        b"\xef\xbb\xbf",
        b"unknown < a: [1, {}] >",
    ),
]


def check_binary(raw: bytes) -> bool:
    """Read a .caffemodel in every way; whether it is one."""
    try:
        read = ours(wire.decode(wire.Source(raw, "f"), 0, len(raw), "NetParameter"))
    except FormatError as error:
        read = None
        # Google's parser lets the field number 0, which no field may have, pass in an unknown group.
        lenient = "0x" in str(error) and "is no tag" in str(error)
    try:
        theirs = CLASSES["NetParameter"].FromString(raw)
    except DecodeError:
        theirs = None
    expected = None if theirs is None else plain(theirs)
    assert read == expected or (read is None and lenient), "not what Google reads"
    try:
        net = caffemodel.parse(raw, path="f")
    except FormatError:
        return False
    assert read is not None
    if net.version != "V0":
        for layer, other in zip(net.layers, theirs.layers or theirs.layer, strict=True):
            for blob, other_blob in zip(layer.blobs, other.blobs, strict=True):
                assert blob.shape == (shape(other_blob) or blob.shape), "not Caffe's shape"
                np.testing.assert_array_equal(blob.data(flat=True), numbers(other_blob))
    written = _written(net)
    assert _written(caffemodel.parse(written)) == written, "not what was written"
    return True


def _written(net: NetParameter) -> bytes:
    parts = wire.encode(messages.net_message(net, "V2"), caffemodel._encode_blob)
    return b"".join(bytes(part.make()) if isinstance(part, wire.Payload) else part for part in parts)


# What Google's Python parser takes for a value and the specification does not: 1_0, +1, 0b1, 1ff, '\q'.
_LENIENT = re.compile(
    r"[0-9a-zA-Z]_|\+|0[bBoO]|f[fF]|y[fF]|n[fF]|\\|[^\x00-\x7f]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)


def check_text(raw: bytes) -> bool:
    """Read a prototxt in every way; whether it is one."""
    text = raw.decode("utf-8", "surrogateescape")
    try:
        message_ = prototxt.parse(text, path="f")
    except FormatError:
        message_ = None
    if not _LENIENT.search(text):
        try:
            theirs = text_format.Parse(text, CLASSES["NetParameter"]())
        except text_format.ParseError:
            theirs = None
        if theirs is not None:
            assert message_ is not None, "refused, but Google reads it"
            assert ours(message_) == plain(theirs), "not what Google reads"
    if message_ is None:
        return False
    try:
        net = upgrade.net_parameter(message_, "f")
    except FormatError:
        return False
    assert phases.outside_inference(net) <= set(range(len(net.layers)))
    for layer in net.layers:
        for blob in layer.blobs:
            assert blob.data().size == blob.count
    return True


def mutate(rng: random.Random, raw: bytes, others: list[bytes], words: list[bytes]) -> bytes:
    """The input with a few bits, bytes, words or stretches changed."""
    out = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        at = rng.randrange(len(out) + 1)
        way = rng.randrange(8)
        if way == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif way == 2:
            out[at:at] = rng.choice(words)
        elif way == 3:
            word = rng.choice(words)
            out[at : at + len(word)] = word
        elif way == 4:
            del out[at : at + rng.choice([1, 2, 4, 16, 256])]
        elif way == 5:
            begin = rng.randrange(len(out) + 1)
            out[at:at] = out[begin : begin + rng.choice([1, 4, 16, 64, 256])]
        elif way == 6 and rng.random() < 0.2:
            del out[at:]
        else:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            out[at : at + rng.choice([0, 16])] = other[begin : begin + rng.choice([4, 16, 64, 256])]
    return bytes(out)


def new_input(rng: random.Random) -> tuple[Callable[[bytes], bool], bytes]:
    """A reader's check, and an input for it."""
    made = message(rng, "NetParameter", rng.choice([0.3, 1.0])) if rng.random() < 0.5 else None
    if rng.random() < 0.5:
        raw = rng.choice(BINARY) if made is None else odd_bytes(rng, made, exact=rng.random() < 0.5)
        return check_binary, mutate(rng, raw, BINARY, _VARINTS + _TAGS)
    raw = rng.choice(TEXT) if made is None else text_format.MessageToString(made).encode()
    return check_text, mutate(rng, raw, TEXT, _WORDS)


def read_binary(raw: bytes) -> None:
    """What a program does to read a .caffemodel, its weights untouched."""
    caffemodel.parse(raw, path="f")


def read_text(raw: bytes) -> None:
    """What a program does to read a prototxt."""
    upgrade.net_parameter(prototxt.parse(raw.decode("utf-8", "surrogateescape"), path="f"), "f")


def memory(read: Callable[[bytes], None], raw: bytes) -> int:
    """The most memory that reading takes, bytes."""
    tracemalloc.start()
    with contextlib.suppress(FormatError):
        read(raw)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def attempt(check: Callable[[bytes], bool], raw: bytes, *, measure: bool) -> bool:
    """Try one input; where it fails, save it and say so."""
    start = time.process_time()
    try:
        taken = check(raw)
        seconds = time.process_time() - start
        assert seconds < SECONDS, f"{seconds} seconds for {len(raw)} bytes"
        if measure:
            peak = memory(read_binary if check is check_binary else read_text, raw)
            assert peak < BYTES + BYTES_PER_BYTE * len(raw), f"{peak} bytes of memory for {len(raw)}"
    except BaseException:
        FOUND.mkdir(exist_ok=True)
        suffix = ".caffemodel" if check is check_binary else ".prototxt"
        path = FOUND / (hashlib.sha256(raw).hexdigest()[:16] + suffix)
        path.write_bytes(raw)
        print(f"failed: {path}", file=sys.stderr)
        raise
    return taken


def fuzz(seed: int, *, inputs: int = 0, seconds: float = 0) -> tuple[int, int]:
    """Try that many inputs, or for that long; how many were tried, and how many were networks."""
    rng = random.Random(seed)
    tried = taken = 0
    end = time.monotonic() + seconds
    while tried < inputs or time.monotonic() < end:
        taken += attempt(*new_input(rng), measure=tried % 16 == 0)
        tried += 1
        if tried % 10_000 == 0 and not inputs:
            faulthandler.dump_traceback_later(600, exit=True)
            print(f"{tried} inputs, {taken} of them networks", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return tried, taken


def test_inputs_that_failed_before() -> None:
    for path in sorted(FOUND.glob("*")):
        attempt(check_binary if path.suffix == ".caffemodel" else check_text, path.read_bytes(), measure=True)


def test_the_corpus_is_read() -> None:
    assert len(BINARY) == 8 and all(attempt(check_binary, raw, measure=True) for raw in BINARY)
    assert len(TEXT) == 3 and all(attempt(check_text, raw, measure=True) for raw in TEXT)


def test_mutated_files_are_refused_or_read_as_google_reads_them(
    record_property: Callable[[str, object], None],
) -> None:
    seconds = float(os.environ.get("LEGACY_STYLE_FUZZ_SECONDS", "0"))
    tried, taken = fuzz(0, inputs=0 if seconds else 2000, seconds=seconds)
    if seconds:
        record_property("said", f"{tried} inputs, {taken} of them networks")
    assert tried > taken > tried // 20


@pytest.mark.parametrize(
    ("read", "piece"),
    [
        (read_binary, b"\xa2\x06\x00"),
        (read_binary, b"\x12\x00"),
        (read_binary, b"\x12\x02\x32\x00"),
        (read_binary, b"\x42\x00"),
        (read_binary, b"\x1a\x00"),
        (read_binary, b"\x50\x00"),
        (read_binary, b"\x0b"),
        (read_text, b"layer{}"),
        (read_text, b"layers{blobs{}}"),
        (read_text, b"a{}"),
        (read_text, b"a:1 "),
        (read_text, b"a{"),
        (read_text, b"input_dim:[1]"),
        (read_text, b"input:''"),
    ],
)
def test_large_hostile_files_take_memory_in_proportion(
    read: Callable[[bytes], None], piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (wire, prototxt):
        monkeypatch.setattr(module, "MAX_MESSAGES", 2000)
    raw = piece * 10_000
    assert memory(read, raw) < 2000 * BYTES_PER_MESSAGE + 16 * len(raw)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_bytes_are_refused_or_read_as_google_reads_them(raw: bytes) -> None:
    check_binary(raw)
    check_text(raw)


if __name__ == "__main__":
    print(
        "{} inputs, {} of them networks".format(
            *fuzz(int((sys.argv[2:] or ["0"])[0]), seconds=float(sys.argv[1]))
        )
    )

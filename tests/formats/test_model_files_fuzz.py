"""Damaged and hostile model files of every kind: one of this package's errors or a network, no more.

Run by pytest, tries a fixed number of inputs. For longer: `python tests/formats/test_model_files_fuzz.py SECONDS
[SEED]`, or LEGACY_STYLE_FUZZ_SECONDS=SECONDS under pytest; both print how many inputs were tried. The
corpus is one thin network in every kind of file; archives and packed variables are also damaged inside
and packed again, so that no checksum protects what they hold. An input that fails is written to the
current folder and named.
"""

from __future__ import annotations

import faulthandler
import io
import os
import random
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from test_model_files import every_kind

from legacy_style.errors import LegacyStyleError
from legacy_style.formats import model_files
from legacy_style.formats.matconvnet import reader as matconvnet

# What one input may take: seconds of processor time, and growth of the process, as the corpus has 60 kB
# a file.
SECONDS = 5.0
BYTES = 200_000_000

_INTERESTING = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\x01\0\0\0",
    b"\x0e\0\0\0",
    b"\0" * 8,
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x80\x02",
    b"ctorch\nFloatStorage\n",
    b"cos\nsystem\n",
    b"}q\x01",
    b"\x85",
    b"Q",
    b"(1000000000, 1000000000)",
    b"-1",
    b"'|O'",
    b"weight",
    b"conv1_1",
    b"fc6.weight",
    b"features.0.weight",
]


def damaged(rng: random.Random, payload: bytes) -> bytes:
    """`payload` with a few bytes changed, taken out, put in, repeated or cut off, at its ends above all."""
    data = bytearray(payload)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        if not data:
            break
        near = rng.choice(
            [
                rng.randrange(len(data)),
                rng.randrange(min(len(data), 700)),
                -rng.randrange(1, min(len(data), 2500) + 1),
            ]
        )
        at = near % len(data)
        how = rng.randrange(6)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            new = rng.choice(_INTERESTING)
            data[at : at + len(new)] = new
        elif how == 2:
            data[at:at] = rng.choice(_INTERESTING)
        elif how == 3:
            del data[at : at + rng.choice([1, 2, 4, 8, 100])]
        elif how == 4:
            data[at:at] = data[at : at + rng.choice([4, 8, 64, 1000])]
        else:
            data[at : at + 4] = struct.pack(
                "<I", rng.choice([0, 1, len(data), rng.getrandbits(32), rng.getrandbits(16)])
            )
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)


def damaged_inside(rng: random.Random, payload: bytes) -> bytes:
    """An archive with one member damaged, renamed or left out, or a MAT-file with one variable damaged."""
    if payload.startswith(b"PK"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(payload)) as old:
            members = [(name, old.read(name)) for name in old.namelist()]
        chosen = rng.choice([rng.randrange(len(members)), 0])
        name, content = members[chosen]
        how = rng.random()
        if how < 0.8:
            members[chosen] = (name, damaged(rng, content))
        elif how < 0.9:
            del members[chosen]
        else:
            members[chosen] = (
                damaged(rng, name.encode()).decode("latin-1").replace("\0", "_") or "_",
                content,
            )
        compression = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as new:
            warnings.filterwarnings("ignore", "Duplicate name")
            for name, content in members:
                new.writestr(name, content)
        return buffer.getvalue()
    if payload[124:128] == b"\x00\x01IM":
        kind, length = struct.unpack_from("<II", payload, 128)
        if kind == 15:
            packed = zlib.compress(damaged(rng, zlib.decompress(payload[136 : 136 + length])), 1)
            return payload[:128] + struct.pack("<II", 15, len(packed)) + packed + payload[136 + length :]
    return damaged(rng, payload)


def resident() -> int:
    """Bytes of memory that the process takes; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def try_one(payload: bytes, path: Path, rng: random.Random) -> None:
    """Loads the file, and all of its weights; AssertionError where that takes too much."""
    path.write_bytes(payload)
    before, start = resident(), time.process_time()
    try:
        net = model_files.load(
            path, matconvnet_orientation=rng.choice(matconvnet.ORIENTATIONS), allow_torchvision=True
        )
        for layer in net.layers:
            for blob in layer.blobs:
                blob.check(f"{path}: {layer.name}")
                blob.data()
    except LegacyStyleError as error:
        assert str(path) in str(error)
    assert time.process_time() - start < SECONDS, "it took too long"
    assert resident() - before < BYTES, "it took too much memory"


def fuzz(seconds: float, seed: int, most: int | None = None) -> int:
    """Tries inputs until the time is over, or `most` of them; how many. Writes what fails and raises."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        corpus = [path.read_bytes() for path in every_kind(Path(folder)).values()]
        path = Path(folder) / "input"
        end = time.monotonic() + seconds
        tried = 0
        while time.monotonic() < end and (most is None or tried < most):
            payload = (damaged if rng.random() < 0.4 else damaged_inside)(rng, rng.choice(corpus))
            try:
                try_one(payload, path, rng)
            except BaseException as error:
                kept = Path(f"fuzz-{seed}-{tried}.bin").resolve()
                kept.write_bytes(payload)
                raise AssertionError(f"input {tried} of seed {seed}, kept as {kept}: {error!r}") from error
            tried += 1
    return tried


def test_every_damaged_file_is_an_error_or_a_network(record_property: Callable[[str, object], None]) -> None:
    seconds = float(os.environ.get("LEGACY_STYLE_FUZZ_SECONDS", "0"))
    tried = fuzz(seconds or 60, seed=int(time.time()) if seconds else 0, most=None if seconds else 400)
    assert tried > 20
    if seconds:
        record_property("said", f"{tried} damaged model files tried")


if __name__ == "__main__":
    faulthandler.enable()
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print(f"seed {first_seed}", flush=True)
    print(f"{fuzz(float(sys.argv[1]), first_seed)} damaged model files tried without a failure")

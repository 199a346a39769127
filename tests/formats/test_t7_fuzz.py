"""Damaged and hostile .t7 files: what Torch7 would have read, or a FormatError with the place, and no more.

Under pytest, a fixed number of inputs. For longer: `python tests/formats/test_t7_fuzz.py COUNT [SEED]`, which prints
how many were tried and what the worst took. The corpus are the files of tests/data/t7 and, in every encoding, the
single objects in them. Most inputs have damaged bytes; the others are well-formed files whose objects hold something
else than they should. What can be read is also looked at as a network and, every few inputs, written and read again.
An input that fails is written to the current folder and named.
"""

from __future__ import annotations

import faulthandler
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from t7_encodings import Ascii, ShortLongs, dump
from test_model_files_fuzz import damaged, resident

from legacy_style.errors import FormatError, LegacyStyleError
from legacy_style.formats import t7
from legacy_style.formats.t7 import Function, Pairs, Storage, TorchObject, network, nn
from legacy_style.formats.t7.writer import Encoder

DATA = Path(__file__).parents[1] / "data" / "t7"

# What one input may take: seconds of processor time, and growth of the process; the corpus has 3 kB a file.
SECONDS = 5.0
BYTES = 100_000_000


def strange(rng: random.Random, graph: list[Any]) -> Any:
    """Something that a field may hold: a value out of range, an object from elsewhere in the file, itself."""
    return rng.choice(
        [
            None, True, 0, -1, 1, 2**31, 2**40, -(2**53), 0.5, float("nan"), float("inf"), "", "data", "\udcff",
            [], {}, [1, 2], {"modules": []}, np.zeros(0, np.float32), np.zeros((1, 2, 3), np.float32), np.zeros(7),
            np.broadcast_to(np.float32(1), (4, 1000)), Storage(np.arange(3)), Function(b"x"), Pairs([(True, 1)]),
            TorchObject("nn.Sequential", {"modules": {}}), TorchObject("nn.ConcatTable", {"modules": [graph[0]] * 9}),
            TorchObject("nn.CAddTable"), TorchObject("nn.Identity"), TorchObject("torch.Odd"), graph[0],
            rng.choice(graph), rng.choice(graph), rng.choice(graph),
        ]
    )  # fmt: skip


def reachable(value: Any) -> list[Any]:
    """Every list, dict and object that a file's content holds, the content first."""
    found: dict[int, Any] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in found or not isinstance(item, (list, dict, TorchObject)):
            continue
        found[id(item)] = item
        fields = item.fields if isinstance(item, TorchObject) else item
        waiting += fields.values() if isinstance(fields, dict) else fields
    return list(found.values())


def rearranged(rng: random.Random, payload: bytes) -> bytes:
    """A well-formed file with a few of its values exchanged for others."""
    content = t7.parse(payload)
    for _ in range(rng.choice([1, 1, 2, 5])):
        graph = reachable(content)
        if not graph:
            return damaged(rng, payload)
        item = rng.choice(graph)
        fields = item.fields if isinstance(item, TorchObject) else item
        if isinstance(item, TorchObject) and rng.random() < 0.2:
            item.typename = rng.choice([each.typename for each in graph if isinstance(each, TorchObject)])
        elif isinstance(fields, dict):
            keys = [*fields, "modules", "weight", "running_mean", "name", "kW"]
            fields[rng.choice(keys)] = strange(rng, graph)
        elif fields:
            fields[rng.randrange(len(fields))] = strange(rng, graph)
    encoding = rng.choice([Encoder, Encoder, Ascii, ShortLongs])
    try:
        return dump(content, encoding)
    except LegacyStyleError:
        return payload  # a tds object whose entries are no table, a number too large for a long


def corpus() -> list[bytes]:
    """Whole files, and many more small ones."""
    whole = [path.read_bytes() for path in sorted(DATA.glob("*.t7"))]
    assert len(whole) == 4
    everything, modules = t7.parse(whole[1]), t7.parse(whole[3]).fields["modules"]
    pieces = [value for key, value in everything.items() if key != "itself"]
    encodings = [Encoder, Encoder, ShortLongs, Ascii]
    return whole + [dump(piece, each) for piece in pieces + modules for each in encodings]


def try_one(payload: bytes, write: bool) -> bool:
    """Read and look at one file; whether it could be read. AssertionError where that takes too much."""
    before, start = resident(), time.process_time()
    read = False
    try:
        content = t7.parse(payload, "input.t7")
        read = True
        if write:
            again = t7.dump(content)
            assert t7.dump(t7.parse(again)) == again
        net = network.from_module(nn.network(content, "input.t7"), "input.t7")
        for layer in net.layers:
            for blob in layer.blobs:
                blob.check("input.t7")
                blob.data()
    except LegacyStyleError as error:
        assert str(error).startswith("input.t7: ")
        assert read or (isinstance(error, FormatError) and " at byte " in str(error))
    assert time.process_time() - start < SECONDS, "it took too long"
    assert resident() - before < BYTES, "it took too much memory"
    return read


def fuzz(count: int, seed: int) -> tuple[int, float]:
    """Tries so many inputs: how many could be read, and the most seconds that one took."""
    rng = random.Random(seed)
    files = corpus()
    readable, worst = 0, 0.0
    for tried in range(count):
        change = damaged if rng.random() < 0.8 else rearranged
        payload = change(rng, rng.choice(files))
        start = time.process_time()
        try:
            readable += try_one(payload, write=tried % 4 == 0)
        except BaseException as error:
            kept = Path(f"fuzz-{seed}-{tried}.t7").resolve()
            kept.write_bytes(payload)
            raise AssertionError(f"input {tried} of seed {seed}, kept as {kept}: {error!r}") from error
        worst = max(worst, time.process_time() - start)
    return readable, worst


def test_every_damaged_file_is_read_or_refused() -> None:
    readable, _worst = fuzz(3000, seed=0)
    assert 500 < readable < 2500  # both kinds of damage were met


if __name__ == "__main__":
    faulthandler.enable()
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    total = int(sys.argv[1])
    succeeded, longest = fuzz(total, first_seed)
    print(
        f"seed {first_seed}: {total} damaged files, {succeeded} read, the rest refused; the worst {longest:.2f} s"
    )

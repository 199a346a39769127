"""Torch7's serialisation: everything that Torch7 writes is read, written back byte for byte, and refused if broken.

The files of tests/data/t7 are by its make_fixtures.py, which shares no code with the package. Where ../shared
lies beside the checkout, all files that Torch7 itself wrote are read too.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torchfile
from recordings import SHARED, needs_shared
from t7_encodings import Ascii, ShortLongs, dump

from legacy_style.errors import FormatError, UnsupportedError
from legacy_style.formats import t7
from legacy_style.formats.t7 import Function, Pairs, Storage, TorchObject
from legacy_style.formats.t7.writer import Encoder

DATA = Path(__file__).parents[1] / "data" / "t7"
EVERYTHING = ["everything_binary", "everything_longs_of_32_bits", "everything_ascii"]
RECORDED = SHARED / "golden" / "fast-neural-style"

everywhere = pytest.mark.parametrize("name", EVERYTHING)


def fixture(name: str) -> Any:
    return t7.read(DATA / f"{name}.t7")


def loaded(path: Path) -> ModuleType:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fixtures_are_what_their_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = loaded(DATA / "make_fixtures.py")
    monkeypatch.setattr(make, "HERE", tmp_path)
    make.main()
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in DATA.glob("*.t7")) and len(written) == 4
    assert [name for name in written if (tmp_path / name).read_bytes() != (DATA / name).read_bytes()] == []


@everywhere
def test_values(name: str) -> None:
    read = fixture(name)
    assert [read[key] for key in ("number", "whole", "true", "false")] == [2.5, -3, True, False]
    assert isinstance(read["whole"], int) and isinstance(read["true"], bool)
    assert read["text"] == "café \n"
    assert read["bytes"].encode("utf-8", "surrogateescape") == b"\xff\x00\x80"
    assert "none" not in read  # a Lua table cannot hold nil


@everywhere
def test_tables(name: str) -> None:
    read = fixture(name)
    assert read["list"] == ["a", "b", ""] and read["empty"] == {} and read["mixed"] == {1: "one", "two": 2}
    assert read["same list"] is read["list"] and read["itself"] is read
    odd = read["odd keys"]
    assert isinstance(odd, Pairs) and odd.items == [(True, 1), (read["list"], 2)]
    assert odd.items[1][0] is read["list"]


def test_of_a_key_that_is_there_twice_the_last_counts() -> None:
    number = np.array([1], "<i4").tobytes()
    pair = [number + np.array([value], "<f8").tobytes() for value in (2, 5, 1, 6, 2, 7)]
    assert t7.parse(b"\3\0\0\0\1\0\0\0\3\0\0\0" + b"".join(pair)) == [6, 7]


@everywhere
def test_functions_are_kept_and_not_run(name: str) -> None:
    old, legacy, recent, again = fixture(name)["functions"]
    assert [(f.kind, f.code) for f in (old, legacy, recent)] == [
        (6, b"\x1bLJ old"), (7, b"\x1bLJ legacy"), (8, b"\x1bLJ recent")
    ]  # fmt: skip
    assert legacy.upvalues == [7] and again is recent
    assert recent.upvalues[0]["name"] == "self" and recent.upvalues[0]["value"] is recent


@everywhere
def test_tensors_are_views_of_their_storage(name: str) -> None:
    read = fixture(name)
    row, turned, storage = read["shared"]
    assert row.tolist() == [2.0, 2.5] and turned.tolist() == [[0.0, 1.0], [0.5, 1.5]]
    assert isinstance(storage, Storage) and storage.values.tolist() == [i / 2 for i in range(8)]
    assert np.shares_memory(row, storage.values) and np.shares_memory(turned, storage.values)
    assert read["expanded"].tolist() == [[-1, 2**31 - 1, 3]] * 2 and read["expanded"].strides == (0, 8)
    assert read["nothing"].shape == (0,) and not row.flags.writeable


@everywhere
def test_every_type_of_tensor_and_its_twins(name: str) -> None:
    types = fixture(name)["types"]
    assert {kind: values.dtype.str for kind, values in types.items()} == {
        "Byte": "|u1", "Char": "|i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Float": "<f4", "Double": "<f8",
        "Half": "<f2", "Cuda": "<f4", "CudaDouble": "<f8", "CudaHalf": "<f2", "CudaLong": "<i8", "Cl": "<f4",
    }  # fmt: skip
    assert {kind: values.tolist() for kind, values in types.items()} == {
        kind: [-1, 10] if kind == "Char" else [1, 0] for kind in types
    }


@everywhere
def test_objects(name: str) -> None:
    thing, ancient, hashed, vector, again = fixture(name)["objects"]
    assert (thing.typename, thing.version) == ("nn.Thing", 2) and again is thing
    assert thing.get("itself") is thing and thing.fields[1] == "first" and thing.get("no", 5) == 5
    assert (ancient.typename, ancient.version, ancient.fields) == ("nn.Ancient", 0, {})
    assert hashed.fields == {"items": {"key": 1}} and vector.fields == {"items": ["a", True]}


@everywhere
def test_what_was_read_is_written_in_every_encoding(name: str) -> None:
    read = fixture(name)
    written = t7.dump(read)
    assert t7.dump(t7.parse(dump(read, Ascii))) == written
    assert t7.dump(t7.parse(dump(read, ShortLongs))) == written
    assert t7.dump(fixture(EVERYTHING[0])) == written


def test_written_files_are_read_by_torchfile(tmp_path: Path) -> None:
    flat = np.arange(12, dtype=np.float32)
    layer = TorchObject("nn.Linear", {"weight": flat[:8].reshape(4, 2), "bias": flat[8:], "name": "fc"})
    model = {"model": layer, "list": [1, "two", True], "turned": flat.reshape(3, 4).T, "half": 0.5}
    t7.write(tmp_path / "model.t7", model)
    read = torchfile.load(str(tmp_path / "model.t7"))
    assert read[b"list"] == [1, b"two", True] and read[b"half"] == 0.5
    assert read[b"turned"].tolist() == flat.reshape(3, 4).T.tolist()
    assert read[b"model"].weight.tolist() == flat[:8].reshape(4, 2).tolist()
    assert read[b"model"].bias.tolist() == flat[8:].tolist() and read[b"model"].name == b"fc"


def test_views_of_one_array_share_a_storage_in_the_file() -> None:
    flat = np.arange(1000, dtype=np.float32)
    parts = [flat[at : at + 10].reshape(2, 5) for at in range(0, 1000, 10)]
    written = t7.dump(parts)
    assert written.count(b"torch.FloatStorage") == 1 and len(written) < 4 * 1000 + 100 * 120
    read = t7.parse(written)
    assert [part.tolist() for part in read] == [part.tolist() for part in parts]
    assert np.shares_memory(read[0].base, read[99])


def test_arrays_that_torch7_could_not_have_are_copied() -> None:
    numbers = np.arange(6.0)
    arrays = [
        numbers[::-1],
        numbers.astype(">f8"),
        np.array(7.0),
        numbers.astype(bool),
        numbers.view("u1")[1:3],
    ]
    read = t7.parse(t7.dump(arrays))
    assert [values.tolist() for values in read] == [
        [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5], [7], [0, 1, 1, 1, 1, 1], [0, 0]
    ]  # fmt: skip


def test_an_array_and_its_storage_have_numbers_of_their_own() -> None:
    values = np.array([1.0, 2.0])
    first, second, storage = t7.parse(t7.dump([values, values, Storage(values)]))
    assert first is second and np.shares_memory(first, storage.values) and storage.values.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "a object cannot be written to a .t7 file"),
        ({"x": np.zeros(2, complex)}, "an array of complex128 cannot be written"),
        (TorchObject("tds.Vec", {"items": 3}), "a tds.Vec has entries in its field 'items', not 3"),
        ([2**60 + 1], "the number 1152921504606846977 cannot be written"),
    ],
)
def test_what_torch7_cannot_hold_is_not_written(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        t7.write(tmp_path / "x.t7", value)
    assert list(tmp_path.iterdir()) == []


def test_numbers_survive() -> None:
    numbers = [0, -0.0, 1e300, 2.0**53, 0.1, -7, float("inf"), np.float32(0.1), np.int64(3)]
    read = t7.parse(t7.dump(numbers))
    assert [str(value) for value in read] == [
        "0", "-0.0", "1e+300", "9007199254740992", "0.1", "-7", "inf", "0.10000000149011612", "3"
    ]  # fmt: skip
    (nan,) = t7.parse(dump([float("nan")], Ascii))
    assert nan != nan


@pytest.mark.parametrize("encoding", [Encoder, Ascii])
def test_long_tables_of_numbers(encoding: type[Encoder]) -> None:
    losses = [0.5 * number for number in range(100)]
    mixed = {number: number / 3 for number in range(-20, 40)} | {"x": 1, 50: "y", 51: 2.5, 0.25: -0.0}
    broken = [*losses, "text", *losses, True, None, 3.0]
    read = t7.parse(dump([losses, mixed, broken, losses], encoding))
    assert read[0] == losses and [type(value) for value in read[0][:3]] == [int, float, int]
    assert read[1] == mixed and list(read[1]) == list(mixed)
    assert read[2] == {**{place + 1: value for place, value in enumerate(broken) if value is not None}}
    assert read[3] is read[0]
    assert t7.dump(read) == t7.dump([losses, mixed, broken, losses])


def test_deep_nesting_does_not_overflow_the_stack() -> None:
    value: Any = []
    for _ in range(5000):
        value = [value]
    assert t7.dump(t7.parse(t7.dump(value))) == t7.dump(value)
    for _ in range(20_000):
        value = [value]
    with pytest.raises(FormatError, match="nests objects deeper than 20000 levels at byte"):
        t7.parse(t7.dump(value))


TENSOR = b"\4\0\0\0\1\0\0\0\3\0\0\0V 1\x11\0\0\0torch.FloatTensor"
STORAGE = b"\4\0\0\0\2\0\0\0\3\0\0\0V 1\x12\0\0\0torch.FloatStorage"


def longs(*values: int) -> bytes:
    return np.array(values, "<i8").tobytes()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x09\0\0\0", "has an object of the kind 9, expected 0 to 8, at byte 0"),
        (
            b"\3\0\0\0\1\0\0\0\xff\xff\xff\x7f",
            "promises a table of 2147483647 entries, but has 4 bytes left at byte 8",
        ),
        (b"\3\0\0\0\1\0\0\0\xff\xff\xff\xff", "promises a table of -1 entries"),
        (b"\3\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0", "has a table with the key nil at byte 12"),
        (b"\2\0\0\0\x05\0\0\0abc", "promises 5 bytes of text, but has 3 left at byte 8"),
        (b"\4\0\0\0\1\0\0\0\0\0\0\0", "has a class name of 0 bytes at byte 8"),
        (b"\4\0\0\0\1\0\0\0\3\0\0\0V 1\4\0\0\0nn.X\5\0\0\0\1\0\0\0", "'nn.X' without a table of fields"),
        (TENSOR + b"\x40\0\0\0" + bytes(2000), "has a tensor of 64 dimensions, expected 0 to 32, at byte 36"),
        (
            TENSOR + b"\1\0\0\0" + longs(5, 1, 1) + bytes(4),
            r"the shape \[5\] without a storage of Float elements",
        ),
        (
            TENSOR + b"\1\0\0\0" + longs(5, 1, 1) + STORAGE + longs(2**40),
            "promises a storage of 1099511627776 elem",
        ),
        (
            TENSOR + b"\1\0\0\0" + longs(5, 1, 1) + STORAGE + longs(2) + bytes(8),
            r"the shape \[5\], the strides \[1\] and the offset 1, which do not fit its storage of 2 elements, at",
        ),
        (
            TENSOR + b"\1\0\0\0" + longs(2, 1, 0) + STORAGE + longs(2) + bytes(8),
            "and the offset 0, which do not fit",
        ),
        (
            TENSOR + b"\2\0\0\0" + longs(2**20, 2**20, 0, 0, 1) + STORAGE + longs(2) + bytes(8),
            r"has a tensor of the shape \[1048576, 1048576\] on 2 elements; this is no model",
        ),
        (TENSOR + b"\1\0\0\0" + longs(2, 1, 1) + b"\4\0\0\0\1\0\0\0", "without a storage"),  # its own number
        (b"4\n1\nthree\n", "has b'three' where an int should be at byte"),
        (b"1\n1.2.3\n", "has something else than numbers behind at byte 2"),
        (b"4\n1\n3\nV 1\n17\ntorch.LongStorage\n999999\n1 2\n", "promises a storage of 999999 elements"),
        (b"2\n-4\nabcd\n", "promises -4 bytes of text"),
        (b"3\n1\n", "ends where an int should be at byte 4"),
    ],
)
def test_what_is_broken_is_refused_with_its_place(tmp_path: Path, payload: bytes, message: str) -> None:
    path = tmp_path / "broken.t7"
    path.write_bytes(payload)
    with pytest.raises(FormatError, match=message) as caught:
        t7.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.t7"
    path.touch()
    with pytest.raises(FormatError, match=r"empty.t7: is empty; get the file again"):
        t7.read(path)


def test_what_follows_the_first_object_is_not_looked_at() -> None:
    assert t7.parse(t7.dump(["a"]) + b"rest") == ["a"]


def test_storages_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.t7"
    t7.write(path, [np.zeros(1 << 20, np.float32)])
    (read,) = t7.read(path)
    owner = read
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert not owner.flags.owndata and "mmap" in repr(
        owner.base.obj if hasattr(owner.base, "obj") else owner.base
    )


def test_a_file_of_torch7_is_written_back_byte_for_byte() -> None:
    path = DATA.parents[1] / "golden" / "t7" / "in_rs.t7"
    assert t7.dump(t7.read(path)) == path.read_bytes()


@needs_shared
def test_every_file_of_torch7_is_written_back_byte_for_byte() -> None:
    paths = sorted(RECORDED.rglob("*.t7"))
    reference = loaded(RECORDED / "reference" / "t7.py")
    for path in paths:
        read = t7.read(path)
        assert t7.dump(read) == path.read_bytes(), path
        # Read by another reader, what was written in a way of our own is what the original holds.
        content = read | {"": 0} if isinstance(read, dict) else [read]
        again = reference.Reader(t7.dump(content)).obj()
        expected = reference.Reader(path.read_bytes()).obj()
        assert same(expected, again if isinstance(read, dict) else again[1]), path
    sys.stdout.write(f"{len(paths)} recorded .t7 files\n")
    assert len(paths) >= 21


def same(expected: Any, found: Any) -> bool:
    """Whether all that `expected`, as the other reader has it, is in `found`."""
    if isinstance(expected, dict):
        return all(same(value, found[key]) for key, value in expected.items())
    if isinstance(expected, np.ndarray):
        return bool(expected.dtype == found.dtype and np.array_equal(expected, found, equal_nan=True))
    return bool(expected == found)


@pytest.mark.parametrize("items", [["a", "b"], {}, {"x": 1, 3: "y"}, Pairs([(True, 1)])])
def test_hashes_of_tds_may_have_any_keys(items: Any) -> None:
    written = t7.dump(TorchObject("tds.Hash", {"items": items}))
    read = t7.parse(written)
    assert read.get("items") == items or read.get("items").items == items.items
    assert t7.dump(read) == written


def test_a_function_alone_can_be_written() -> None:
    read = t7.parse(t7.dump(Function(b"code", [1])))
    assert (read.code, read.upvalues, read.kind) == (b"code", [1], 8)

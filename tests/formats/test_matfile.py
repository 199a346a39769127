"""MAT-files of level 5, held against scipy.io; and broken ones."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from legacy_style.errors import FormatError
from legacy_style.formats import matlab

careful = partial(settings, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def same(found: Any, expected: Any) -> bool:
    """Whether `found` is what scipy has in its own terms: cells as object arrays, structs as records."""
    if isinstance(expected, np.ndarray) and expected.dtype.names:
        flat = expected.ravel(order="F")
        return len(found) == len(flat) and all(
            list(ours) == list(expected.dtype.names) and all(same(ours[name], theirs[name]) for name in ours)
            for ours, theirs in zip(found, flat, strict=True)
        )
    if isinstance(expected, np.ndarray) and expected.dtype == object:
        flat = expected.ravel(order="F")
        return len(found) == len(flat) and all(same(a, b) for a, b in zip(found, flat, strict=True))
    if isinstance(expected, np.ndarray) and expected.dtype.kind == "U":
        return bool(found == "".join(expected.ravel()))
    assert isinstance(found, np.ndarray)
    return found.shape == expected.shape and found.tobytes() == np.asarray(expected, found.dtype).tobytes()


numbers = hnp.arrays(
    st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]),
    hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4),
)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=5)
field_names = st.text("abcdefg_", min_size=1, max_size=9).filter(lambda name: not name.startswith("_"))


def cells(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def as_cell(items: list[Any]) -> np.ndarray[Any, Any]:
        array = np.empty((1, len(items)), dtype=object)
        for index, item in enumerate(items):
            array[0, index] = item
        return array

    return st.lists(values, max_size=3).map(as_cell)


values = st.recursive(
    numbers | texts,
    lambda inner: cells(inner) | st.dictionaries(field_names, inner, min_size=1, max_size=3),
    max_leaves=6,
)


@careful(max_examples=100)
@given(values, values, st.booleans())
def test_reads_what_scipy_reads(tmp_path_factory: Any, wanted: Any, other: Any, compressed: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mat"
    scipy.io.savemat(path, {"other": other, "wanted": wanted}, do_compression=compressed)
    found = matlab.read(str(path), ["wanted", "missing"])
    assert list(found) == ["wanted"]
    assert same(found["wanted"], scipy.io.loadmat(path, chars_as_strings=True)["wanted"])


def element(kind: int, payload: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(payload)) + payload + b"\0" * (-len(payload) % 8)


def matrix(kind: int, dims: tuple[int, ...], payload: bytes, name: bytes = b"", order: str = "<") -> bytes:
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    shape = element(5, struct.pack(f"{order}{len(dims)}i", *dims), order)
    return element(14, flags + shape + element(1, name, order) + payload, order)


def read_bytes(tmp_path: Path, payload: bytes) -> dict[str, Any]:
    path = tmp_path / "made.mat"
    path.write_bytes(payload)
    return matlab.read(str(path), ["x"])


def test_big_endian_files_as_scipy_reads_them(tmp_path: Path) -> None:
    text = element(4, "abc".encode("utf-16-be"), ">")
    numbers = element(3, struct.pack(">6h", *range(6)), ">")  # int16 in a double array
    inner = matrix(4, (1, 3), text, order=">") + matrix(6, (2, 3), numbers, order=">")
    payload = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + matrix(1, (1, 2), inner, b"x", ">")
    (word, array) = read_bytes(tmp_path, payload)["x"]
    assert word == "abc"
    assert array.tolist() == [[0, 2, 4], [1, 3, 5]]
    expected = scipy.io.loadmat(io.BytesIO(payload))["x"]
    assert expected[0, 0][0] == word
    assert np.array_equal(expected[0, 1], array)


def test_functions_and_sparse_matrices_are_passed_over(tmp_path: Path) -> None:
    scipy.io.savemat(
        tmp_path / "s.mat",
        {"x": {"sparse": scipy.sparse.eye(3).tocsc(), "complex": np.array([1j]), "n": 2.0}},
    )
    (found,) = matlab.read(str(tmp_path / "s.mat"), ["x"])["x"]
    assert found["sparse"] is None
    assert found["complex"] is None
    assert found["n"].tolist() == [[2]]


def test_arrays_of_uncompressed_files_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v.mat"
    scipy.io.savemat(path, {"x": np.arange(1000, dtype=np.float32)}, do_compression=False)
    array = matlab.read(str(path), ["x"])["x"]
    assert not array.flags.owndata
    assert not array.flags.writeable


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (
            matrix(6, (2, 3), element(9, struct.pack("<5d", *range(5))), b"x"),
            r"has 5 numbers for a matrix of the dimensions \(2, 3\)",
        ),
        (matrix(6, (-2, 3), element(9, b""), b"x"), r"has a matrix of the dimensions \(-2, 3\)"),
        (
            matrix(6, (1 << 30, 1 << 30), element(9, b"\0" * 8), b"x"),
            "has 1 numbers for a matrix of the dimensions",
        ),
        (
            matrix(1, (1 << 30, 1 << 30), b"", b"x"),
            "promises 1152921504606846976 cells or fields where 0 bytes are left",
        ),
        (
            matrix(
                2, (1 << 20, 1), element(5, struct.pack("<i", 8)) + element(1, b"a".ljust(8, b"\0")), b"x"
            ),
            "promises 1048576 cells",
        ),
        (
            matrix(2, (1, 1), element(5, struct.pack("<i", 0)) + element(1, b"a"), b"x"),
            "has a struct without readable field names",
        ),
        (matrix(6, (1, 1), element(14, b""), b"x"), "element of type 14, expected numbers"),
        (matrix(1, (1, 1), element(9, b"\0" * 8), b"x"), "element of type 9, expected a cell or a field"),
        (matrix(6, (1, 1), element(9, b"\0" * 7), b"x"), "holds 7 bytes of float64 numbers"),
        (matrix(6, (1,) * 40, element(9, b"\0" * 8), b"x"), "has a matrix of the dimensions"),
        (
            matrix(6, (1, 1), struct.pack("<II", 9, 4000) + b"\0" * 8, b"x"),
            "has an element of 4000 bytes where 8 are left",
        ),
        (
            struct.pack("<II", 14, 1 << 31) + b"\0" * 64,
            "has an element of 2147483648 bytes where 64 are left",
        ),
        (b"\x0e\0\0\0", r"is incomplete \(ends where a data element should follow, byte 128\)"),
        (element(9, b"\0" * 8), "holds an element of type 9, expected a matrix"),
        (element(15, b"no zlib stream"), "holds a damaged variable at byte 136"),
        (matrix(6, (1, 1), element(9, b"\0" * 8), b"x") * 2, "holds the variable x twice"),
        (struct.pack("<II", 15, 8) + zlib.compress(b""), "holds a variable that unpacks to nothing"),
    ],
)
def test_broken_files_say_what_is_wrong_and_where(tmp_path: Path, payload: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_bytes(tmp_path, HEADER + payload)
    assert "made.mat: " in str(caught.value)
    assert "byte " in str(caught.value)


def test_cells_nested_too_deep_do_not_overflow_the_stack(tmp_path: Path) -> None:
    # Built from the inside out; at a depth of 100,000 scipy's reader kills the interpreter.
    levels = 100_000
    sizes = []
    size = 0
    for _ in range(levels):
        size += 48
        sizes.append(size - 8)
    opening = b"".join(
        struct.pack("<II", 14, size)
        + element(6, struct.pack("<II", 1, 0))
        + element(5, struct.pack("<ii", 1, 1))
        + element(1, b"")
        for size in reversed(sizes)
    )
    payload = opening[: 8 + 16 + 16] + struct.pack("<HH", 1, 1) + b"x\0\0\0" + opening[48:]
    with pytest.raises(FormatError, match="nests cells and structs more than 32 deep"):
        read_bytes(tmp_path, HEADER + payload)


@pytest.mark.parametrize("honest", [True, False])
def test_zip_bombs_are_refused_before_memory_is_filled(tmp_path: Path, honest: bool) -> None:
    zeros = 60_000_000
    head = matrix(6, (zeros // 8, 1), struct.pack("<II", 9, zeros), b"x")
    head = struct.pack("<II", 14, len(head) - 8 + zeros if honest else 1000) + head[8:]
    stream = zlib.compressobj(9)
    packed = stream.compress(head)
    for _ in range(zeros // 1_000_000):
        packed += stream.compress(bytes(1_000_000))
    packed += stream.flush()
    assert len(packed) < 100_000
    message = "would unpack to 600" if honest else "has an element of 60000000 bytes where"
    with pytest.raises(FormatError, match=message):
        read_bytes(tmp_path, HEADER + struct.pack("<II", 15, len(packed)) + packed)


@careful(max_examples=250)
@given(st.data())
def test_damaged_files_raise_nothing_but_format_errors(tmp_path_factory: Any, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    cell = np.empty((1, 2), dtype=object)
    cell[0, 0], cell[0, 1] = np.ones((2, 2)), {"name": "conv", "weights": np.ones(3, np.float32)}
    scipy.io.savemat(buffer, {"x": cell}, do_compression=data.draw(st.booleans()))
    payload = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(128, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(128, len(payload)))]
    path = tmp_path_factory.getbasetemp() / "damaged.mat"
    path.write_bytes(payload)
    try:
        matlab.read(str(path), ["x"])
    except FormatError as error:
        assert "damaged.mat" in str(error)

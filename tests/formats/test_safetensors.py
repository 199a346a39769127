"""safetensors files: read as the `safetensors` package writes them, written as it reads them; broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import vgg_files

from legacy_style.errors import FormatError, IncompleteError, LegacyStyleError
from legacy_style.formats import model_files, state_dict
from legacy_style.formats import safetensors as ours
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, NetParameter


def file_of(header: Any, size: int = 0) -> bytes:
    """A file with this header, bytes or what JSON makes of it, and `size` bytes of tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(range(size))


def entry(kind: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_that_the_package_writes_is_read_equal(tmp_path: Path, dtype: torch.dtype) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    state = {key: torch.from_numpy(values).to(dtype) for key, values in arrays.items()}
    counted = {**state, "conv1_1.num_batches_tracked": torch.tensor(3)}
    safetensors.torch.save_file(counted, tmp_path / "a", metadata={"format": "pt"})
    found = dict(state_dict.weights(model_files.load(tmp_path / "a")))
    assert list(found) == list(arrays)
    for key, values in found.items():
        assert np.array_equal(values, state[key].to(torch.float32).numpy()), key


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("names", ["caffe", "torchvision"])
def test_what_is_written_is_read_by_the_package(tmp_path: Path, half: bool, names: str) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    net = vgg_files.network(arrays)
    state_dict.write(tmp_path / "a", net, "safetensors", names=names, half=half)
    read = safetensors.torch.load_file(tmp_path / "a")
    expected = arrays if names == "caffe" else vgg_files.torchvision_names(arrays)
    assert set(read) == set(expected)
    for key, tensor in read.items():
        assert tensor.dtype == (torch.float16 if half else torch.float32)
        assert np.array_equal(tensor.numpy(), expected[key].astype(np.float16 if half else np.float32)), key
    with safetensors.safe_open(tmp_path / "a", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_layers_that_the_names_do_not_tell_travel_in_the_metadata(tmp_path: Path) -> None:
    blobs = [Blob.from_array(np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1))]
    net = NetParameter(layers=[LayerParameter("stem", "Convolution", ["data"], ["stem"], blobs)])
    state_dict.write(tmp_path / "a", net, "safetensors", rgb=True)
    read = model_files.load(tmp_path / "a")
    assert [(layer.name, layer.type) for layer in read.layers] == [("stem", "Convolution")]
    assert np.array_equal(read.layers[0].blobs[0].data(), blobs[0].data())
    stored = safetensors.torch.load_file(tmp_path / "a")["stem.weight"].numpy()
    assert np.array_equal(stored, blobs[0].data()[:, ::-1])


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    net = vgg_files.network(vgg_files.weights(vgg_files.VGG19))
    for name in "ab":
        state_dict.write(tmp_path / name, net, "safetensors")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


GOOD = {"a": entry("F32", [2], 0, 8), "b": entry("F16", [1, 2], 8, 12)}


def test_a_header_may_be_padded_and_its_entries_may_have_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(file_of(json.dumps(dict(reversed(GOOD.items()))).encode() + b"  ", 12))
    blobs, text = ours.read(str(path))
    assert {name: blob.shape for name, blob in blobs.items()} == {"a": (2,), "b": (1, 2)}
    assert blobs["a"].data().tobytes() == bytes(range(8))
    assert text is None
    path.write_bytes(file_of({"e": entry("F32", [0, 3], 0, 0), **GOOD}, 12))
    assert ours.read(str(path))[0]["e"].data().shape == (0, 3)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (file_of(GOOD, 13), r"1 bytes follow the last tensor"),
        (
            file_of({"a": entry("F32", [2], 4, 12)}, 12),
            r"'a' begins at byte 4 and leaves a hole before it \(0\)",
        ),
        (
            file_of({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, 12),
            r"'b' begins at byte 4 and overlaps what is before it \(8\)",
        ),
        (
            file_of({"a": entry("F32", [3], 0, 8)}, 8),
            r"takes 12 bytes, but its data_offsets \[0, 8\] are 8 apart",
        ),
        (file_of({"a": entry("F32", [2], 8, 0)}, 8), "-8 apart"),
        (file_of({"a": entry("F32", [-2], 0, 8)}, 8), r"has the shape \[-2\]"),
        (file_of({"a": entry("F32", [2.0], 0, 8)}, 8), r"has the shape \[2\.0\]"),
        (file_of({"a": entry("F32", [True, 2], 0, 8)}, 8), r"has the shape \[True, 2\]"),
        (file_of({"a": entry("F32", [1] * 33, 0, 4)}, 4), r"has the shape \[1, 1"),
        (file_of({"a": entry("F32", [1 << 70], 0, 4)}, 4), r"has the shape"),
        (file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": 8}}, 8), "has the data_offsets 8"),
        (
            file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, 8),
            r"has the data_offsets \[0\]",
        ),
        (file_of({"a": {"dtype": "F32", "shape": [2]}}, 8), "expected dtype, shape and data_offsets"),
        (file_of({"a": 5}, 8), "is described by 5"),
        (file_of({"a": entry("F4", [2], 0, 8)}, 8), "has the type 'F4'"),
        (file_of({"a": entry([], [2], 0, 8)}, 8), r"has the type '\[\]'"),
        (file_of({"__metadata__": {"a": 1}, **GOOD}, 12), "its __metadata__ is not made of strings"),
        (file_of({"__metadata__": [], **GOOD}, 12), "its __metadata__ is not made of strings"),
        (file_of(b'{"a":{},"a":{}}', 8), "no proper JSON: it has one name twice"),
        (file_of(b"{" + b"[" * 99999, 8), "no proper JSON"),
        (file_of(b'{"a":"\xff"}', 8), "no proper JSON"),
        (file_of(b"{}"), "holds no tensor of floating-point numbers"),
        (file_of({"a": entry("I64", [1], 0, 8)}, 8), "holds no tensor of floating-point numbers"),
        ((1 << 25).to_bytes(8, "little") + b"{" + bytes(100), "has a header of 33554432 bytes"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, payload: bytes, message: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(payload)
    with pytest.raises(FormatError, match=message) as caught:
        model_files.load(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "payload",
    [
        file_of({"__metadata__": {"legacy_style": "x" * 100_000}, "a": entry("F32", [1], 0, 4)}, 4),
        file_of({"x" * 100_000: entry("F32", [1], 0, 4)}, 4),
        file_of({f"layer{n}": entry("F32", [1], 0, 4) for n in range(9000)}, 4),
    ],
)
def test_a_message_that_quotes_a_file_is_no_longer_than_a_screen(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "long").write_bytes(payload)
    with pytest.raises(LegacyStyleError) as caught:
        model_files.load(tmp_path / "long")
    assert str(caught.value).startswith(f"{tmp_path}/long") and len(str(caught.value)) <= 2100


def test_a_file_cut_anywhere_behind_its_first_bytes_is_incomplete(tmp_path: Path) -> None:
    whole = file_of(GOOD, 12)
    path = tmp_path / "a"
    for length in range(9, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(IncompleteError):
            model_files.load(path)


def test_weights_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    state = {"conv1_1.weight": torch.zeros(64, 3, 3, 3), "conv1_2.weight": torch.zeros(64, 64, 3, 3)}
    safetensors.torch.save_file(state, tmp_path / "a")
    values = ours.read(str(tmp_path / "a"))[0]["conv1_2.weight"].data()
    assert not values.flags.owndata
    assert not values.flags.writeable

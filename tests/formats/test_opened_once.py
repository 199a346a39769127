"""A model file is opened once: what was checked is what is read, even where another file takes its name meanwhile."""

import shutil

import numpy as np
import pytest
import torch
from recordings import SHIPPED

from legacy_style.errors import FormatError
from legacy_style.files import reading
from legacy_style.formats import matlab, model_files, pth
from legacy_style.toolkit import convert

VGG = SHIPPED / "models" / "VGG_ILSVRC_19_layers.caffemodel"
KINDS = ["caffemodel", "npz", "safetensors", "t7", "pth"]


@pytest.fixture
def model(tmp_path):
    def make(kind):
        path = tmp_path / f"network.{kind}"
        if kind == "caffemodel":
            shutil.copy(VGG, path)
        else:
            convert.write(str(path), convert.until(model_files.load(VGG), "conv2_1"), convert.Form())
        return path

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_handle_is_read_whatever_its_name_is_by_now(kind, model, tmp_path):
    path = model(kind)
    expected = model_files.load(path).layer("conv1_1").blobs[0].data().copy()
    with path.open("rb") as file:
        path.rename(tmp_path / "elsewhere")
        path.write_bytes(b"another file")
        if kind == "pth":  # PyTorch maps what it opens by name
            with pytest.raises(FormatError):
                model_files.load(path, file)
            return
        net = model_files.load(path, file)
    np.testing.assert_array_equal(net.layer("conv1_1").blobs[0].data(), expected)


def test_a_pth_that_is_replaced_between_check_and_reading_is_refused(model, tmp_path, monkeypatch):
    path, other = model("pth"), tmp_path / "other.pth"
    shutil.copy(path, other)
    right = torch.load

    def load(name, **more):
        other.replace(path)
        return right(name, **more)

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(FormatError, match="was replaced while it was read; read it again"):
        pth.read(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_there_after_the_file_is_gone(kind, model):
    """They are read when they are asked for, from the file that was checked."""
    path = model(kind)
    net = model_files.load(path)
    expected = net.layer("conv1_2").blobs[0].data().copy()
    net = model_files.load(path)
    path.unlink()
    np.testing.assert_array_equal(net.layer("conv1_2").blobs[0].data(), expected)


def test_a_compressed_array_is_read_from_the_mapped_file_too(tmp_path):
    net = model_files.load(VGG)
    weights = {f"{name}.weight": net.layer(name).blobs[0].data() for name in ("conv1_1", "conv1_2")}
    biases = {f"{name}.bias": net.layer(name).blobs[1].data().ravel() for name in ("conv1_1", "conv1_2")}
    np.savez_compressed(tmp_path / "a.npz", **weights, **biases)
    read = model_files.load(tmp_path / "a.npz")
    (tmp_path / "a.npz").unlink()
    np.testing.assert_array_equal(read.layer("conv1_2").blobs[0].data(), weights["conv1_2.weight"])


def test_reading_begins_at_the_beginning(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    with (tmp_path / "a").open("rb") as file:
        file.read(3)
        with reading("another name", file) as same:
            assert same.read() == b"content"
    with reading(tmp_path / "a") as own:
        assert own.read() == b"content"
    assert own.closed


def test_a_mat_file_is_read_from_its_handle(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "a.mat", {"x": np.arange(3.0)})
    with (tmp_path / "a.mat").open("rb") as file:
        (tmp_path / "a.mat").unlink()
        found = matlab.read(str(tmp_path / "a.mat"), ["x"], file)
    assert found["x"].ravel().tolist() == [0.0, 1.0, 2.0]

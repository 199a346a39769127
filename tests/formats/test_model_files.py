"""Model files of any kind, told by their content; the same weights from each; broken and hostile ones."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import matconvnet_files
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import torch
import vgg_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import RECORDED, SHARED, needs_shared

from legacy_style.errors import FormatError, IncompleteError, LegacyStyleError, OptionError, UnsupportedError
from legacy_style.formats import model_files, state_dict
from legacy_style.formats.caffe import caffemodel


def every_kind(folder: Path) -> dict[str, Path]:
    """One network in every kind of file, none under a name that tells the kind."""
    arrays = vgg_files.weights(vgg_files.VGG16)
    paths = {}

    def add(kind: str, payload: bytes) -> None:
        paths[kind] = folder / f"model {len(paths)}.bin"
        paths[kind].write_bytes(payload)

    add("caffemodel V1", vgg_files.caffemodel(arrays, "V1"))
    add("caffemodel V2", vgg_files.caffemodel(arrays, "V2"))
    for kind, zipped in (("pth", True), ("pth of before 1.6", False)):
        buffer = io.BytesIO()
        torch.save(vgg_files.state_dict(arrays), buffer, _use_new_zipfile_serialization=zipped)
        add(kind, buffer.getvalue())
    for kind, save in (("npz", np.savez), ("compressed npz", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        add(kind, buffer.getvalue())
    add("safetensors", safetensors.numpy.save(arrays))
    layers = []
    for name, kernel in arrays.items():
        if not name.endswith("weight"):
            continue
        layer = name.removesuffix(".weight")
        stored = (
            kernel
            if kernel.ndim == 4
            else kernel.reshape(len(kernel), -1, *((2, 2) if layer == "fc6" else (1, 1)))
        )
        stored = stored.transpose(2, 3, 1, 0)[:, :, :: -1 if layer == "conv1_1" else 1]
        weights = matconvnet_files.cell(stored, arrays[f"{layer}.bias"])
        layers.append(
            {"name": layer, "type": "conv", "weights": weights, "pad": float(layer.startswith("conv"))}
        )
    for old in (True, False):
        path = folder / f"model {len(paths)}.bin"
        with path.open("wb") as file:
            variables = {
                "layers": matconvnet_files.cell(*layers),
                "normalization" if old else "meta": {"a": 1.0},
            }
            scipy.io.savemat(file, variables, do_compression=old)
        paths["mat, beta16" if old else "mat, beta17"] = path
    return paths


def test_the_same_weights_from_every_kind_of_file_are_bit_equal(tmp_path: Path) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    paths = every_kind(tmp_path)
    assert len(paths) == 9
    for kind, path in paths.items():
        state = state_dict.to_state_dict(model_files.load(path))
        assert list(state) == list(arrays), kind
        for key, tensor in state.items():
            assert tensor.numpy().tobytes() == arrays[key].tobytes(), (kind, key)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97, 0.9999])
def test_a_file_that_ends_too_early_is_called_incomplete_whatever_its_kind(
    tmp_path: Path, share: float
) -> None:
    for kind, path in every_kind(tmp_path).items():
        whole = path.read_bytes()
        cut = tmp_path / "cut"
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(
            IncompleteError, match=r": is incomplete \(.*so download or copy it again$"
        ) as caught:
            model_files.load(cut)
        assert str(caught.value).startswith(f"{cut}: "), kind


@needs_shared
def test_the_real_vgg16_from_every_kind_of_file(tmp_path: Path) -> None:
    caffe = model_files.load(SHARED / "models" / "VGG_ILSVRC_16_layers_conv.caffemodel")
    names = [layer.name for layer in caffe.layers]
    caffe.layers = caffe.layers[: names.index("relu3_3") + 1]
    state_dict.write(tmp_path / "a", caffe, "pth")
    state_dict.write(tmp_path / "b", caffe, "npz")
    caffemodel.write(tmp_path / "c", caffe, version="V1")
    caffemodel.write(tmp_path / "d", caffe, version="V2")
    recorded = SHARED / "golden" / "athalye" / "models"
    paths = [tmp_path / name for name in "abcd"] + [
        recorded / f"vgg16_to_conv3_3_{n}.mat" for n in ("old", "new")
    ]
    expected = state_dict.to_state_dict(caffe)
    assert len(expected) == 14
    for path in paths:
        net = model_files.load(path)
        assert [(la.name, la.type, la.params) for la in net.layers] == [
            (la.name, la.type, la.params) for la in caffe.layers
        ]
        state = state_dict.to_state_dict(net)
        assert list(state) == list(expected)
        assert all(
            torch.equal(state[key].view(torch.int32), expected[key].view(torch.int32)) for key in state
        ), path


@needs_shared
def test_recorded_caffemodels_survive_every_kind_of_file(tmp_path: Path) -> None:
    models = sorted((RECORDED / "models").glob("*.caffemodel"))
    assert len(models) > 10
    for model in models:
        net = model_files.load(model)
        expected = dict(state_dict.weights(net))
        state_dict.write(tmp_path / "a", net, "pth")
        state_dict.write(tmp_path / "b", net, "npz")
        for name in "ab":
            read = model_files.load(tmp_path / name)
            assert [(la.name, la.type, la.tops, la.params) for la in read.layers] == [
                (la.name, la.type, la.tops, la.params) for la in net.layers
            ]
            found = dict(state_dict.weights(read))
            assert list(found) == list(expected)
            assert all(found[key].tobytes() == values.tobytes() for key, values in expected.items()), model


def test_the_bundled_network_is_vgg16_up_to_pool5() -> None:
    net = model_files.load(model_files.bundled())
    assert [layer.name for layer in net.layers if layer.type == "Convolution"] == [
        f"conv{block}_{number}"
        for block, count in enumerate(vgg_files.VGG16, 1)
        for number in range(1, count + 1)
    ]
    assert net.layers[-1].name == "pool5"
    # The first weights as Oxford published them; half precision keeps eleven bits.
    first = net.layer("conv1_1").blobs[0].data()[0, 0].ravel()
    assert first[:4] == pytest.approx([0.42947057, 0.373467, -0.06136011, 0.27476987], rel=2**-11)


@needs_shared
def test_the_bundled_network_is_oxfords_in_half_precision() -> None:
    caffe = caffemodel.read(SHARED / "models" / "VGG_ILSVRC_16_layers_conv.caffemodel")
    expected = dict(state_dict.weights(caffe, half=True))
    found = dict(state_dict.weights(model_files.load(model_files.bundled())))
    assert list(found) == list(expected)
    for key, values in expected.items():
        assert np.array_equal(found[key], values.astype(np.float32)), key


def test_orientation_reaches_the_mat_reader(tmp_path: Path) -> None:
    path = matconvnet_files.write_simple(
        tmp_path / "net", matconvnet_files.thin_vgg(matconvnet_files.thin_weights(), old=False)
    )
    right, turned = (model_files.load(path, matconvnet_orientation=o).layer("conv1_2") for o in ("hw", "wh"))
    assert np.array_equal(right.blobs[0].data(), turned.blobs[0].data().swapaxes(2, 3))
    with pytest.raises(OptionError):
        model_files.load(path, matconvnet_orientation="")


def test_torchvisions_own_is_let_through_if_allowed(tmp_path: Path) -> None:
    state = vgg_files.state_dict(vgg_files.torchvision_names(vgg_files.weights((2, 2, 2, 2, 2))))
    torch.save(state, tmp_path / "vgg13.pth")
    with pytest.raises(UnsupportedError, match="own vgg13"):
        model_files.load(tmp_path / "vgg13.pth")
    assert model_files.load(tmp_path / "vgg13.pth", allow_torchvision=True).layers


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        model_files.load(tmp_path / "nothing.pth")


def mat_7_3() -> bytes:
    return (
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124)
        + b"\x00\x02IM"
        + b"\0" * 384
        + b"\x89HDF\r\n\x1a\n"
    )


def png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def torch_archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, payload in members.items():
            archive.writestr(f"archive/{name}", payload)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "is empty; get the file again"),
        (
            b"<!DOCTYPE html><html><head><title>404</title>",
            "is a web page, not a model; the download went wrong",
        ),
        (b"\n  <html>", "is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
            "is a git-lfs pointer, not the model; run `git lfs pull`",
        ),
        (b"Not found", "is text, which begins 'Not found' .accepted are .caffemodel, MatConvNet's .mat"),
        (
            b'name: "VGG"\nlayers {\n  name: "conv1_1"\n}\n',
            "is a prototxt, which holds no weights; give the .caffemodel",
        ),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file .Keras"),
        (mat_7_3(), "is a MATLAB 7.3 file, which is HDF5 .* write it with save"),
        (b"\x1f\x8b\x08" + bytes(20), "is compressed with gzip; unpack it first"),
        (png(), "is a PNG image"),
        (b"PK\x05\x06" + bytes(18), "is an empty zip archive"),
        (b"PK\x03\x04" + bytes(100), "is incomplete .it begins like a zip archive, .pth or .npz"),
        (b"\x93NUMPY\x01\0" + bytes(20), "is a single NumPy array"),
        (
            b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1\x0d\0\0\0nn.Sequential",
            "promises 4 bytes of an int, but has 0 left at byte 32",
        ),
        (b"\x03\0\0\0\x01\0\0\0\0\0\0\0", "is a Torch7 file without a network; it holds nothing"),
        (pickle.dumps({"conv1_1": [1.0]}), "is a Python pickle, which is not opened because it can run code"),
        (
            torch_archive({"readme.txt": b"hello"}),
            "without the data.pkl of a PyTorch file or arrays of NumPy",
        ),
        (torch_archive({"data.pkl": b"", "constants.pkl": b""}), "is a TorchScript program"),
        (bytes(range(128, 256)) * 4, "accepted are .caffemodel"),
    ],
)
def test_what_is_no_model_is_named_for_what_it_is(tmp_path: Path, payload: bytes, message: str) -> None:
    path = tmp_path / "model.caffemodel"
    path.write_bytes(payload)
    with pytest.raises((FormatError, UnsupportedError), match=message) as caught:
        model_files.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_old_tar_file_of_pytorch(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(UnsupportedError, match=r"is a tar archive; if PyTorch 0\.1 wrote it"):
        model_files.load(tmp_path / "old.pth")


def torch_file(state: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


class Queue(list[int]):
    """A list with attributes of its own."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(numbers)
        self.most = 3


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('the pickle ran')",)


def repacked(payload: bytes, compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(payload)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


def lying_legacy_file(numel: int) -> bytes:
    """A file of before 1.6 that promises a storage of `numel` floats and has 8."""
    payload = torch_file(OrderedDict(a=torch.zeros(8)), _use_new_zipfile_serialization=False)
    # BININT1 8, NONE, TUPLE..., BINPERSID: in place of 8 stands the promise.
    old = b"K\x08N"
    assert payload.count(old) == 1
    return payload.replace(old, b"J" + struct.pack("<i", numel) + b"N")


def their_module(source: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """A module that can be imported, made of `source`, which says in its list `loaded` what of it is run."""
    module, loaded = types.ModuleType("their_module"), list[str]()
    vars(module)["loaded"] = loaded
    exec(source, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module, loaded


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_weights_are_left_aside_and_none_of_their_code_is_loaded(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    module, loaded = their_module(
        "class Options:\n    def __setstate__(self, state): loaded.append('code')", monkeypatch
    )
    allowed = set(torch.serialization.get_safe_globals())
    options = module.Options()
    options.lr = 0.5
    beside = {
        "args": argparse.Namespace(arch="vgg", lr=np.float64(0.1), size=(3, np.int32(4))),
        "best": np.float32(0.5),
        "when": datetime.date(2017, 1, 1),
        "options": options,
        "seen": {options: np.arange(3)},
        "history": collections.defaultdict(list, {"loss": [np.float64(2)]}),
    }
    for number, content in enumerate(
        (
            {**beside, "state_dict": vgg_files.state_dict(arrays)},
            {"state_dict": collections.defaultdict(list, vgg_files.state_dict(arrays)), **beside},
        )
    ):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        found = dict(state_dict.weights(model_files.load(path)))
        assert list(found) == list(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(found[name], values)
    assert loaded == []
    assert set(torch.serialization.get_safe_globals()) == allowed


KINDS_OF_DICTS_AND_LISTS = """
import argparse, collections

def ran(*_): loaded.append("code")

class EasyDict(dict):
    __setitem__ = __setstate__ = ran

class CfgNode(dict):
    __setitem__ = ran
    def __init__(self, *entries):
        dict.__init__(self, *entries)
        self.__dict__["__immutable__"], self.__dict__["__keys__"] = False, {"a"}

class Ordered(collections.OrderedDict):
    pass

class Defaults(collections.defaultdict):
    __missing__ = ran

class Settings(argparse.Namespace):
    __setattr__ = ran

class Layers(list):
    append = extend = ran
"""


@pytest.mark.parametrize("zipped", [True, False])
def test_dicts_and_lists_of_other_classes_are_plain_ones(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    module, loaded = their_module(KINDS_OF_DICTS_AND_LISTS, monkeypatch)
    plain = vgg_files.state_dict(arrays)
    weights = [
        module.EasyDict(plain),
        module.CfgNode(plain),
        module.Ordered(plain),
        module.Defaults(list, plain),
    ]
    beside = {
        "opt": module.EasyDict({"lr": 0.1, "inner": module.EasyDict({"steps": module.Layers([1, 2])})}),
        "cfg": module.CfgNode({"size": 3}),
        "settings": module.Settings(),
        "empty": [module.EasyDict(), module.Layers(), module.Defaults()],
        "queue": collections.deque([1, 2], 3),
        "seen": collections.Counter("abca"),
    }
    for number, state in enumerate(weights):
        for content in (state, {"state_dict": state, **beside}, module.EasyDict({**beside, "net": state})):
            path = tmp_path / f"{number}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            loaded.clear()
            found = dict(state_dict.weights(model_files.load(path)))
            assert loaded == []
            assert list(found) == list(arrays)
            for name, values in arrays.items():
                np.testing.assert_array_equal(found[name], values)


def test_attributes_of_a_dict_may_hide_its_methods(tmp_path: Path) -> None:
    """As those of an EasyDict do, which has all its keys as attributes too."""
    plain = vgg_files.state_dict(vgg_files.weights(vgg_files.VGG16))
    options: OrderedDict[str, int] = OrderedDict()
    metadata: OrderedDict[str, int] = OrderedDict()
    vars(options)["values"], vars(metadata)["get"], vars(plain)["_metadata"] = 1, 2, metadata
    path = tmp_path / "net.pth"
    torch.save({"opt": options, "state_dict": plain}, path)
    assert set(dict(state_dict.weights(model_files.load(path)))) == set(plain)


HOSTILE = [
    (
        "more classes than any program has",
        lambda: torch_archive(
            {"data.pkl": b"\x80\x02}" + b"".join(b"ca%d\nb\n0" % n for n in range(300)) + b"."}
        ),
        "promises more than a file of its size holds",
    ),
    (
        "what torch.load advises to do about an object is not repeated",
        lambda: torch_file({"a": torch.ones(1), "queue": Queue(1, 2)}),
        r"^(?!.*weights_only).* Queue\) cannot be left aside \(Can only build",
    ),
    (
        "filled like a dict and like a list",
        lambda: torch_archive({"data.pkl": b"\x80\x02ctheirs\nBoth\n)\x81K\x01a(K\x02K\x03u."}),
        r"theirs Both\) cannot be left aside \(",
    ),
    (
        "a program's module as a dict",
        lambda: torch_archive({"data.pkl": b"\x80\x02cos\nenviron\n(K\x02K\x03u."}),
        "holds a Python object .os.environ. beside tensors",
    ),
    (
        "nothing to fill",
        lambda: torch_archive({"data.pkl": b"\x80\x02}(K\x01K\x02uu."}),
        "its pickle is broken",
    ),
    (
        "an object alone",
        lambda: torch_file(argparse.Namespace(a=1)),
        "holds a Namespace, expected a state dict",
    ),
    (
        "a class",
        lambda: torch_file({"conv1_1.weight": torch.ones(1), "x": Evil()}),
        "holds a Python object .*exec.* beside tensors",
    ),
    (
        "a network instead of its weights",
        lambda: torch_file(torch.nn.Linear(2, 2)),
        "holds a Python object .torch.nn.modules.linear.Linear. .* save only the state_dict",
    ),
    ("a tensor alone", lambda: torch_file(torch.ones(3)), "holds a Tensor, expected a state dict"),
    ("a list", lambda: torch_file([torch.ones(3)]), "holds a list, expected a state dict"),
    ("nothing in it", lambda: torch_file({"epoch": 3}), "holds no dict of tensors"),
    (
        "integers",
        lambda: torch_file({"a": torch.ones(3, dtype=torch.int64)}),
        "holds no tensor of floating-point numbers",
    ),
    (
        "compressed",
        lambda: repacked(torch_file({"a": torch.zeros(1000)}), zipfile.ZIP_DEFLATED),
        "is compressed, expected it as it is, as torch.save writes it",
    ),
    (
        "strides of 0",
        lambda: torch_file({"a": torch.ones(1).expand(1 << 20, 1 << 20)}),
        r"a has the shape \(1048576, 1048576\), which is more than the file holds",
    ),
    (
        "one storage many times",
        lambda: torch_file({str(n): t for t in [torch.ones(4000)] for n in range(1000)}),
        "promises 16000000 bytes of weights",
    ),
    (
        "sparse",
        lambda: torch_file({"a": torch.ones(3).to_sparse()}),
        "holds a Python object .torch._utils._rebuild_sparse_tensor",
    ),
    (
        "a huge bytearray",
        lambda: torch_archive({"data.pkl": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."}),
        "holds a Python object .builtins.bytearray",
    ),
    (
        "deep tuples",
        lambda: torch_archive({"data.pkl": b"\x80\x02})" + b"\x85" * 30_000 + b"K\x01s."}),
        "promises more than a file of its size holds",
    ),
    (
        "a tuple that is 2^60 values if it is written out, as a key",
        lambda: torch_archive(
            {"data.pkl": b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"}h\x00K\x01s."}
        ),
        "promises more than a file of its size holds",
    ),
    (
        "more taken off the stack than is there",
        lambda: torch_archive({"data.pkl": b"\x80\x02K\x01\x87."}),
        "its pickle is broken",
    ),
    (
        "a long pickle",
        lambda: torch_archive({"data.pkl": b"\x80\x02" + b"N0" * 3_000_000 + b"}."}),
        "promises more than a file of its size holds",
    ),
    ("protocol 4", lambda: torch_file({"a": torch.ones(3)}, pickle_protocol=4), "is pickled with protocol 4"),
    (
        "a broken pickle",
        lambda: torch_archive({"data.pkl": b"\x80\x02}q\x00X\xff\xff\xff\x00"}),
        "its pickle is broken",
    ),
    (
        "a storage that is missing",
        lambda: repacked_without(torch_file({"a": torch.zeros(10)}), "archive/data/0"),
        "PyTorch cannot read this file, which is damaged",
    ),
    (
        "a lying legacy file",
        lambda: lying_legacy_file(2_000_000_000),
        "promises more than a file of its size holds",
    ),
    (
        "a legacy file cut off",
        lambda: torch_file({"a": torch.zeros(1000)}, _use_new_zipfile_serialization=False)[:-100],
        "is incomplete .unexpected EOF",
    ),
]


def repacked_without(payload: bytes, left_out: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(payload)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if name != left_out:
                new.writestr(name, old.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_and_unsuitable_pytorch_files(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(make())
    with pytest.raises((FormatError, UnsupportedError), match=message) as caught:
        model_files.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, payload in members.items():
            archive.writestr(f"{name}.npy", payload)
    return buffer.getvalue()


def npy(header: str, payload: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + payload


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (
            npz(a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }", b"\0" * 8)),
            r"has the shape \(1000000, 1000000\) of float32, which takes 4000000000000 bytes, but 8 follow",
        ),
        (
            npz(a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }", b"\0" * 24)),
            r"a\.npy has the header",
        ),
        (
            npz(a=npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps(Evil()))),
            r"a\.npy has the header",
        ),
        (npz(a=npy("{'descr': '<f4'")), r"a\.npy has the header"),
        (npz(a=npy("(" * 5000)), r"a\.npy has the header"),
        (npz(a=b"\x93NUMPY\x03\x00" + bytes(20)), r"expected a NumPy array of the format version 1 or 2"),
        (npz(a=b""), r"a\.npy begins b'', expected a NumPy array"),
        (
            npz(a=npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8)),
            "holds no array of floating-point numbers",
        ),
        (
            npz(a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (20000000,), }", bytes(80_000_000))),
            "would unpack to 80.* this is no model but a zip bomb",
        ),
    ],
)
def test_hostile_npz_files(tmp_path: Path, payload: bytes, message: str) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(payload)
    with pytest.raises(FormatError, match=message):
        model_files.load(path)


def test_arrays_in_fortran_order_and_big_endian(tmp_path: Path) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    odd = {key: np.asfortranarray(values.astype(">f4")) for key, values in arrays.items()}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "f.npz", **odd)
        found = dict(state_dict.weights(model_files.load(tmp_path / "f.npz")))
        assert all(found[key].tobytes() == values.tobytes() for key, values in arrays.items())


def test_a_repeated_name_in_an_archive(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.npy", b"")
        archive.writestr("a.npy", b"")
    (tmp_path / "twice.npz").write_bytes(buffer.getvalue())
    with pytest.raises(FormatError, match=r"holds 'a\.npy' twice"):
        model_files.load(tmp_path / "twice.npz")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> list[bytes]:
    return [path.read_bytes() for path in every_kind(tmp_path_factory.mktemp("corpus")).values()]


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_files_raise_nothing_but_this_packages_errors(
    corpus: list[bytes], tmp_path_factory: Any, data: st.DataObject
) -> None:
    payload = bytearray(data.draw(st.sampled_from(corpus)))
    for _ in range(data.draw(st.integers(0, 5))):
        # Ends, beginnings and directories are where it hurts.
        position = data.draw(st.integers(0, 600) | st.integers(-3000, -1) | st.integers(0, len(payload) - 1))
        payload[position] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)) | st.just(len(payload)))]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(payload)
    try:
        net = model_files.load(path)
        for layer in net.layers:
            for blob in layer.blobs:
                blob.check(layer.name)
                blob.data()
    except LegacyStyleError as error:
        assert "damaged" in str(error) or "conv" in str(error) or "fc" in str(error)

"""Binary network files, read and written, against Google's protobuf and the networks of the recordings."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_generate import odd_bytes
from caffe_messages import CLASSES
from recordings import RECORDED, SHARED, needs_shared

from legacy_style.errors import FormatError, UnsupportedError
from legacy_style.formats.caffe import caffemodel, schema
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter

DATA = Path(__file__).parents[1] / "data" / "caffe"
SMALL = sorted(DATA.glob("*.caffemodel"))
RECORDINGS = sorted((RECORDED / "models").glob("*.caffemodel")) + sorted(
    (SHARED / "models").glob("*.caffemodel")
)

every_file = pytest.mark.parametrize("path", [*SMALL, *RECORDINGS], ids=lambda path: path.stem)


def google(path: Path) -> Any:
    return CLASSES["NetParameter"].FromString(path.read_bytes())


def numbers(blob: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.array(blob.double_data or blob.data, np.float32)


def shape(blob: Any) -> tuple[int, ...]:
    """Blob<Dtype>::FromProto of caffe/blob.cpp."""
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return (blob.num, blob.channels, blob.height, blob.width)
    return tuple(blob.shape.dim)


def test_the_small_files_are_there() -> None:
    assert [path.stem for path in SMALL] == [
        *("v0", "v1", "v1_shape", "v2", "v2_both", "v2_double", "v2_legacy", "v2_odd")
    ]


@needs_shared
def test_the_recorded_networks_are_there() -> None:
    assert len(RECORDINGS) == 17


@every_file
def test_layers_are_those_that_google_reads(path: Path) -> None:
    theirs = google(path)
    net = caffemodel.read(path)
    assert (net.name, net.path, net.inputs) == (theirs.name, str(path), list(theirs.input))
    if path.stem == "v0":
        return
    layers = theirs.layers or theirs.layer
    assert net.version == ("V1" if theirs.layers else "V2")
    assert len(net.layers) == len(layers) > 0
    for ours, other in zip(net.layers, layers, strict=True):
        assert ours.name == other.name
        assert ours.type == (schema.V1_TYPES[other.type].v2 if theirs.layers else other.type)
        assert ours.v1_type == (other.type if theirs.layers else None)
        assert (ours.bottoms, ours.tops) == (list(other.bottom), list(other.top))
        set_params = [field.name for field, _ in other.ListFields() if field.name in schema.LAYER_PARAMS]
        assert sorted(ours.params) == sorted(set_params)
        for name in set_params:
            assert_same(ours.params[name], getattr(other, name))
        assert len(ours.blobs) == len(other.blobs)
        for blob, other_blob in zip(ours.blobs, other.blobs, strict=True):
            assert blob.shape == shape(other_blob)
            np.testing.assert_array_equal(blob.data(flat=True), numbers(other_blob), strict=True)
            np.testing.assert_array_equal(blob.copy(), blob.data(), strict=True)
            assert blob.data().shape == blob.shape


def assert_same(ours: Message, theirs: Any) -> None:
    """Every field that is set, and the defaults of those that are not."""
    for field in theirs.DESCRIPTOR.fields:
        if field.message_type is not None:
            continue
        value = getattr(theirs, field.name)
        if field.enum_type is not None and not field.is_repeated:
            value = field.enum_type.values_by_number[value].name
        if not field.is_repeated:
            assert ours.has(field.name) == theirs.HasField(field.name), field.full_name
        assert ours[field.name] == (list(value) if field.is_repeated else value), field.full_name


def described(net: NetParameter) -> list[tuple[Any, ...]]:
    """All of a network's layers but their version and the axes of their blobs."""
    return [
        (
            layer.name,
            layer.type,
            layer.bottoms,
            layer.tops,
            layer.params,
            layer.param_specs,
            [blob.data(flat=True).tobytes() for blob in layer.blobs],
        )
        for layer in net.layers
    ]


def test_one_network_reads_the_same_from_every_form() -> None:
    """make_models.py describes one network in all files, that of V0 with a padding layer."""
    v2 = caffemodel.read(DATA / "v2.caffemodel")
    assert [layer.type for layer in v2.layers] == [
        *("Convolution", "ReLU", "Pooling", "LRN", "Convolution", "Dropout", "InnerProduct", "Softmax")
    ]
    assert v2.layers[0].blobs[0].shape == (4, 3, 3, 3)
    for path in SMALL:
        net = caffemodel.read(path)
        by_name = {layer[0]: layer for layer in described(net)}
        assert by_name == {layer[0]: layer for layer in described(v2)}, path.stem
        assert net.input_shapes() == {"data": (1, 3, 8, 8)}
        assert net.version == path.stem[:2].upper()


def test_v0_moves_padding_into_the_layer_behind_it() -> None:
    net = caffemodel.read(DATA / "v0.caffemodel")
    assert net.layers[0].param("convolution_param")["pad"] == [1]
    assert net.layers[0].bottoms == ["data"]
    assert "pad1" not in [layer.name for layer in net.layers]


def v0(*layers: dict[str, Any], **connections: Any) -> NetParameter:
    net = CLASSES["NetParameter"]()
    for layer in layers:
        net.layers.add(**connections, layer=layer)
    return caffemodel.parse(net.SerializeToString(), path="v0")


def test_v0_parameters_go_where_upgrade_proto_puts_them() -> None:
    net = v0(
        {
            "name": "d",
            "type": "images",
            "source": "list",
            "batchsize": 3,
            "rand_skip": 1,
            "shuffle_images": True,
            "new_height": 5,
            "new_width": 6,
            "scale": 0.5,
            "meanfile": "mean",
            "cropsize": 4,
            "mirror": True,
        },
        {
            "name": "w",
            "type": "window_data",
            "det_fg_threshold": 0.25,
            "det_crop_mode": "square",
            "num_output": 9,
        },
        {"name": "p", "type": "pool", "pool": 2, "pad": 1, "kernelsize": 3, "stride": 2},
        {"name": "l", "type": "lrn", "k": 2},
        {"name": "c", "type": "concat", "concat_dim": 2},
        {"name": "h", "type": "hdf5_output", "hdf5_output_param": {"file_name": "out"}},
        {"name": "i", "type": "infogain_loss", "source": "matrix"},
        {"name": "x", "type": "shift"},
    )
    assert [layer.type for layer in net.layers] == [
        *(
            "ImageData",
            "WindowData",
            "Pooling",
            "LRN",
            "Concat",
            "HDF5Output",
            "InfogainLoss",
            "V0 type shift",
        )
    ]
    assert [layer.params for layer in net.layers] == [
        {
            "image_data_param": Message(
                "ImageDataParameter",
                source="list",
                batch_size=3,
                rand_skip=1,
                shuffle=True,
                new_height=5,
                new_width=6,
            ),
            "transform_param": Message(
                "TransformationParameter", scale=0.5, mean_file="mean", crop_size=4, mirror=True
            ),
        },
        {"window_data_param": Message("WindowDataParameter", fg_threshold=0.25, crop_mode="square")},
        {"pooling_param": Message("PoolingParameter", pool="STOCHASTIC", pad=1, kernel_size=3, stride=2)},
        {"lrn_param": Message("LRNParameter", k=2.0)},
        {"concat_param": Message("ConcatParameter", concat_dim=2)},
        {"hdf5_output_param": Message("HDF5OutputParameter", file_name="out")},
        {"infogain_loss_param": Message("InfogainLossParameter", source="matrix")},
        {},
    ]


def test_v0_padding_before_another_layer_is_refused() -> None:
    net = CLASSES["NetParameter"]()
    net.layers.add(top=["p"], bottom=["data"], layer={"type": "padding", "pad": 1})
    net.layers.add(top=["r"], bottom=["p"], layer={"type": "relu", "name": "relu1"})
    with pytest.raises(FormatError, match=r'^v0: layer "relu1" of type "relu" follows a padding layer'):
        caffemodel.parse(net.SerializeToString(), path="v0")


def test_v1_data_layers_hand_their_transformation_over() -> None:
    net = CLASSES["NetParameter"]()
    net.layers.add(type=5, data_param={"scale": 0.5, "mirror": True, "crop_size": 7, "batch_size": 2})
    layer = caffemodel.parse(net.SerializeToString()).layers[0]
    assert layer.params == {
        "data_param": Message("DataParameter", batch_size=2),
        "transform_param": Message("TransformationParameter", scale=0.5, crop_size=7, mirror=True),
    }


def test_v1_lists_become_param_specs() -> None:
    net = CLASSES["NetParameter"]()
    net.layers.add(param=["w"], blob_share_mode=[1], blobs_lr=[1, 2], weight_decay=[1, 0, 3])
    assert caffemodel.parse(net.SerializeToString()).layers[0].param_specs == [
        Message("ParamSpec", name="w", share_mode="PERMISSIVE", lr_mult=1.0, decay_mult=1.0),
        Message("ParamSpec", lr_mult=2.0, decay_mult=0.0),
        Message("ParamSpec", decay_mult=3.0),
    ]


def test_a_v1_type_that_nobody_knows_keeps_its_number() -> None:
    layer = caffemodel.parse(b"\x12\x02\x28\x63").layers[0]
    assert (layer.type, layer.v1_type) == ("V1 type 99", 99)


def test_v1_layers_outweigh_v2_layers() -> None:
    net = CLASSES["NetParameter"]()
    net.layers.add(name="old", type=18)
    net.layer.add(name="new", type="ReLU")
    assert [layer.name for layer in caffemodel.parse(net.SerializeToString()).layers] == ["old"]


def one_blob(**fields: Any) -> Blob:
    net = CLASSES["NetParameter"]()
    net.layer.add(name="l", blobs=[fields])
    return caffemodel.parse(net.SerializeToString(), path="f").layers[0].blobs[0]


def test_blob_shapes_follow_caffe() -> None:
    assert one_blob(num=2, channels=1, height=1, width=3, data=range(6)).shape == (2, 1, 1, 3)
    assert one_blob(width=2, height=0).shape == (0, 0, 0, 2)
    assert one_blob(shape={"dim": [2, 3]}, data=range(6)).shape == (2, 3)
    assert one_blob(shape={"dim": []}, data=[5]).shape == ()
    assert one_blob(data=[5]).shape == ()
    assert one_blob().shape == (0,)
    both = one_blob(shape={"dim": [6]}, num=1, channels=1, height=2, width=3, data=range(6))
    assert (both.shape, both.legacy, both.has_shape) == ((1, 1, 2, 3), True, True)


def test_doubles_outweigh_floats() -> None:
    blob = one_blob(shape={"dim": [2]}, data=[1, 2, 3], double_data=[0.1, 1e300])
    assert (blob.count, blob.data().tolist()) == (2, [np.float32(0.1), np.inf])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"shape": {"dim": [2, 3]}, "data": [1, 2]},
            "has the shape (2, 3), which takes 6 values, but the file holds 2",
        ),
        ({"num": 1, "data": [1]}, "has the shape (1, 0, 0, 0), which takes 0 values, but the file holds 1"),
        ({"shape": {"dim": [-1, -1]}, "data": [1]}, "has the shape (-1, -1), expected no negative dimension"),
        ({"num": -1, "channels": -1, "height": 1, "width": 1, "data": [1]}, "expected no negative dimension"),
        ({"shape": {"dim": [2**62] * 4}, "data": [1]}, "expected at most 2147483647 values"),
        ({"shape": {"dim": [0, 2**62, 2**62]}}, "expected at most 2147483647 values"),
        ({"shape": {"dim": [2**31 - 1]}, "data": [1]}, "but the file holds 1"),
        ({"shape": {"dim": [1] * 33}, "data": [1]}, "has 33 dimensions, expected at most 32"),
        ({"shape": {"dim": [2**30]}}, "but the file holds 0"),
    ],
)
def test_a_blob_whose_shape_cannot_be_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(
        FormatError, match=r'^f: blob 0 of layer "l" .*' + re.escape(expected) + r" \(byte 8\)$"
    ):
        one_blob(**fields)


def test_a_blob_stays_in_the_file_until_it_is_asked_for(tmp_path: Path) -> None:
    """A gigabyte of weights that the disk has only promised (a hole in the file) opens at once."""
    count = 2**28
    header = b"".join(
        [
            *(b"\xa2\x06", varint(4 * count + 26), b"\x0a\x03big"),
            *(b"\x3a", varint(4 * count + 15)),
            *(b"\x3a\x07\x0a\x05", varint(count), b"\x2a", varint(4 * count)),
        ]
    )
    path = tmp_path / "big.caffemodel"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 4 * count)
    tracemalloc.start()
    blob = caffemodel.read(path).layers[0].blobs[0]
    assert blob.shape == (count,)
    assert blob.data()[-3:].tolist() == [0, 0, 0]
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def varint(value: int) -> bytes:
    """A varint of five bytes."""
    return bytes((value >> 7 * i & 127) | (128 if i < 4 else 0) for i in range(5))


# Prints by how many bytes a process of its own grows when it copies two layers of a file out.
_GROWTH = """
import os, sys
from legacy_style.formats.caffe import caffemodel
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
net = caffemodel.read(sys.argv[1])
copies = [net.layers[i].blobs[0].copy() for i in (0, 1)]
print(resident() - before, *(int(copy.sum()) for copy in copies))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to count the process's memory")
def test_copies_of_blobs_are_all_that_a_process_grows_by(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    size = 2**22
    layers = [
        LayerParameter(f"l{i}", "Convolution", blobs=[Blob.from_array(np.full((8, size // 8), i))])
        for i in range(4)
    ]
    caffemodel.write(path, NetParameter(layers=layers), "V1")
    child = subprocess.run(
        [sys.executable, "-c", _GROWTH, path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, *sums = map(int, child.stdout.split())
    assert sums == [0, size]
    assert 0.9 * 2 * 4 * size < grown < 1.3 * 2 * 4 * size


def test_truncated_files_are_refused_or_end_between_two_fields() -> None:
    whole = (DATA / "v2.caffemodel").read_bytes()
    theirs = CLASSES["NetParameter"].FromString(whole)
    ends = {0}
    for field, value in theirs.ListFields():
        for item in value if field.is_repeated else [value]:
            part = CLASSES["NetParameter"]()
            if field.is_repeated and field.message_type is not None:
                getattr(part, field.name).add().CopyFrom(item)
            elif field.is_repeated:
                getattr(part, field.name).append(item)
            else:
                setattr(part, field.name, item)
            ends.add(max(ends) + part.ByteSize())
    for end in range(1, len(whole)):
        if end in ends:
            caffemodel.parse(whole[:end])
        else:
            with pytest.raises(FormatError, match=r"^cut: is incomplete .*\(byte \d+\)"):
                caffemodel.parse(whole[:end], path="cut")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty, expected a .caffemodel"),
        (b"<!DOCTYPE html>\n<html>", "this is a web page, not a .caffemodel; download the file anew"),
        (b'name: "VGG"\nlayers {\n', "this is text, not a .caffemodel; is it a prototxt?"),
        (
            b"\x89HDF\r\n\x1a\n" + bytes(99),
            "this is an HDF5 file; save the network as .caffemodel, without .h5",
        ),
        (b"PK\x03\x04" + bytes(30), "0x3 is no tag"),
    ],
)
def test_other_kinds_of_file_are_told_by_name(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: {re.escape(expected)}"):
        caffemodel.read(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        caffemodel.read(tmp_path / "none")


@pytest.mark.parametrize("version", ["V1", "V2"])
@every_file
def test_google_reads_what_is_written(path: Path, version: str, tmp_path: Path) -> None:
    net = caffemodel.read(path)
    out = tmp_path / "out.caffemodel"
    caffemodel.write(out, net, version)
    theirs = google(out)
    assert [file.name for file in tmp_path.iterdir()] == ["out.caffemodel"]
    layers = theirs.layers if version == "V1" else theirs.layer
    assert len(layers) == len(theirs.layers) + len(theirs.layer) == len(net.layers)
    for layer, other in zip(net.layers, layers, strict=True):
        for blob, other_blob in zip(layer.blobs, other.blobs, strict=True):
            np.testing.assert_array_equal(np.array(other_blob.data, np.float32), blob.data(flat=True))
            assert [n for n in shape(other_blob) if n != 1] == [n for n in blob.shape if n != 1]
            assert other_blob.HasField("shape") == (version == "V2")
    assert described(caffemodel.read(out)) == described(net)


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in [*SMALL, *RECORDINGS]
        if path.stem not in ("v0", "v1_shape", "v2_legacy", "v2_both", "v2_double", "v2_odd")
        and path.stem not in ("vgg19_thin_v1shape", "vgg19_thin_v2legacy")
    ],
    ids=lambda path: path.stem,
)
def test_what_google_wrote_is_written_byte_by_byte_alike(path: Path, tmp_path: Path) -> None:
    net = caffemodel.read(path)
    out = tmp_path / "out.caffemodel"
    caffemodel.write(out, net, net.version)
    assert out.read_bytes() == path.read_bytes()


def test_odd_forms_of_a_network_are_written_in_the_usual_form(tmp_path: Path) -> None:
    for seed in range(50):
        raw = odd_bytes(random.Random(seed), google(DATA / "v2.caffemodel"), exact=True)
        out = tmp_path / "out.caffemodel"
        caffemodel.write(out, caffemodel.parse(raw), "V2")
        net = caffemodel.parse(raw)
        assert described(caffemodel.read(out)) == described(net)
        by_name = {layer.name: layer for layer in google(out).layer}
        assert by_name == {layer.name: layer for layer in google(DATA / "v2.caffemodel").layer}


def test_v2_drops_the_leading_ones_of_old_blobs(tmp_path: Path) -> None:
    """Caffe compares shapes: a bias has one axis, and the weights of an InnerProduct layer two."""
    caffemodel.write(tmp_path / "out", caffemodel.read(DATA / "v1.caffemodel"), "V2")
    shapes = [blob.shape for layer in caffemodel.read(tmp_path / "out").layers for blob in layer.blobs]
    assert shapes == [(4, 3, 3, 3), (4,), (6, 2, 1, 1), (6,), (5, 96), (5,)]


def test_blobs_of_five_axes_keep_them_in_v1(tmp_path: Path) -> None:
    layer = LayerParameter("l", "Convolution", blobs=[Blob.from_array(np.zeros((1, 2, 3, 1, 2)))])
    caffemodel.write(tmp_path / "out", NetParameter(layers=[layer]), "V1")
    assert list(google(tmp_path / "out").layers[0].blobs[0].shape.dim) == [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            LayerParameter("bn", "BatchNorm"),
            'layer "bn" has the type "BatchNorm", which V1 files do not know',
        ),
        (
            LayerParameter("r", "ReLU", params={"reshape_param": Message("ReshapeParameter")}),
            'layer "r" has reshape_param, which V1 files do not know',
        ),
    ],
)
def test_what_v1_cannot_say_is_unsupported(layer: LayerParameter, expected: str, tmp_path: Path) -> None:
    net = NetParameter(layers=[layer])
    with pytest.raises(UnsupportedError, match=expected):
        caffemodel.write(tmp_path / "out", net, "V1")
    caffemodel.write(tmp_path / "out", net, "V2")
    with pytest.raises(UnsupportedError, match='not as "V3"'):
        caffemodel.write(tmp_path / "out", net, "V3")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> Any:
        raise OSError(28, "disk full")

    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"old")
    blob = Blob((1,), fail, 1)
    with pytest.raises(OSError, match="disk full"):
        caffemodel.write(path, NetParameter(layers=[LayerParameter("l", "ReLU", blobs=[blob])]))
    assert [file.name for file in tmp_path.iterdir()] == ["net.caffemodel"]
    assert path.read_bytes() == b"old"


def test_a_network_can_replace_the_file_that_it_is_read_from(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes((DATA / "v1.caffemodel").read_bytes())
    net = caffemodel.read(path)
    before = described(net)
    caffemodel.write(path, net, "V2")
    assert described(net) == described(caffemodel.read(path)) == before

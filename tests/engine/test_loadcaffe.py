"""legacy_style.engine.loadcaffe: layers from Caffe's networks, branches, and what cannot be run or does not fit."""

import dataclasses
import re

import caffe_networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from caffe_networks import Row, chain
from PIL import Image

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.losses import ContentLoss
from legacy_style.errors import FormatError, OptionError, UnsupportedError, WeightMismatchError
from legacy_style.formats import model_files
from legacy_style.formats.caffe import prototxt, upgrade
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.story import stylize
from legacy_style.toolkit import convert, inspection
from legacy_style.torch7 import nn

CPU = torch.device("cpu")


def conv(name, bottom, outputs, inputs, kernel, pad=0, stride=1):
    params = (
        f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: {pad} stride: {stride} }}"
    )
    return Row(name, "Convolution", bottom, params, ((outputs, inputs, kernel, kernel), (outputs,)))


def relu(blob):
    """In place, as Caffe's networks have it."""
    return Row(f"relu_{blob}", "ReLU", blob, tops=blob)


def pool(name, bottom, kernel, stride, pad=0):
    return Row(
        name,
        "Pooling",
        bottom,
        f"pooling_param {{ pool: MAX kernel_size: {kernel} stride: {stride} pad: {pad} }}",
    )


GOOGLENET = [
    conv("conv1", "data", 8, 3, 7, pad=3, stride=2),
    relu("conv1"),
    pool("pool1", "conv1", 3, 2),
    Row("norm1", "LRN", "pool1", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"),
    conv("a_1x1", "norm1", 4, 8, 1),
    relu("a_1x1"),
    conv("a_3x3_reduce", "norm1", 3, 8, 1),
    relu("a_3x3_reduce"),
    conv("a_3x3", "a_3x3_reduce", 5, 3, 3, pad=1),
    relu("a_3x3"),
    pool("a_pool", "norm1", 3, 1, pad=1),
    conv("a_proj", "a_pool", 2, 8, 1),
    relu("a_proj"),
    Row("a_output", "Concat", "a_1x1 a_3x3 a_proj"),
    conv("b_1x1", "a_output", 4, 11, 1),
    relu("b_1x1"),
]

SQUEEZENET = [
    conv("conv1", "data", 6, 3, 3, stride=2),
    relu("conv1"),
    conv("squeeze", "conv1", 4, 6, 1),
    relu("squeeze"),
    conv("expand1", "squeeze", 5, 4, 1),
    relu("expand1"),
    conv("expand3", "squeeze", 7, 4, 3, pad=1),
    relu("expand3"),
    Row("concat", "Concat", "expand1 expand3"),
    Row("drop", "Dropout", "concat", "dropout_param { dropout_ratio: 0.5 }", tops="concat"),
    conv("conv10", "concat", 3, 12, 1),
]


def normalised(name, channels):
    return [
        Row(
            f"bn_{name}",
            "BatchNorm",
            name,
            "batch_norm_param { use_global_stats: true }",
            ((channels,), (channels,), (1,)),
            name,
        ),
        Row(
            f"scale_{name}",
            "Scale",
            name,
            "scale_param { bias_term: true }",
            ((channels,), (channels,)),
            name,
        ),
    ]


RESNET = [
    conv("conv1", "data", 6, 3, 3, pad=1),
    *normalised("conv1", 6),
    relu("conv1"),
    conv("branch1", "conv1", 8, 6, 1),
    *normalised("branch1", 8),
    conv("branch2a", "conv1", 4, 6, 1),
    *normalised("branch2a", 4),
    relu("branch2a"),
    conv("branch2b", "branch2a", 8, 4, 3, pad=1),
    *normalised("branch2b", 8),
    Row("sum", "Eltwise", "branch1 branch2b"),
    relu("sum"),
    conv("after", "sum", 2, 8, 1),
]

NETWORKS = {"googlenet": GOOGLENET, "squeezenet": SQUEEZENET, "resnet": RESNET}

# V1 has neither BatchNorm nor Scale.
VERSIONS = [
    (name, version) for name in NETWORKS for version in ("V1", "V2") if (name, version) != ("resnet", "V1")
]

# Of each network: the last layers of all branches up to where they join.
ENDS = {
    "googlenet": ["relu_a_1x1", "relu_a_3x3", "relu_a_proj", "norm1"],
    "squeezenet": ["relu_expand1", "relu_expand3", "squeeze"],
    "resnet": ["scale_branch1", "scale_branch2b", "relu_branch2a"],
}


def with_splits(rows):
    """The same network with a Split layer wherever a blob is taken more than once, as Caffe itself saves it."""
    made, copies = [], {}
    takers = {}
    for row in rows:
        for bottom in row.bottoms.split():
            if row.tops != bottom:
                takers.setdefault(bottom, []).append(row.name)
    for index, row in enumerate(rows):
        bottoms = [
            copies[bottom].pop(0) if row.tops != bottom and copies.get(bottom) else bottom
            for bottom in row.bottoms.split()
        ]
        made.append(dataclasses.replace(row, bottoms=" ".join(bottoms)))
        top = row.tops or row.name
        changed_later = any(later.tops == top for later in rows[index + 1 :])
        if len(takers.get(top, [])) > 1 and not changed_later:
            names = [f"{top}_split_{i}" for i in range(len(takers[top]))]
            made.append(Row(f"{top}_split", "Split", top, tops=" ".join(names)))
            copies[top] = list(names)
    return made


def load(folder, rows, version="V2", image=None):
    net = caffe_networks.message(rows, caffe_networks.weights(rows), version)
    caffe_networks.save(folder, net, caffe_networks.image(3, 20, 25) if image is None else image)
    return model_files.load(folder / "net.caffemodel")


def run(net, layer, x):
    """The output of `layer`, along the way that leads to it."""
    for module in loadcaffe.modules(net, [layer])[0]:
        built = module.build()
        built.to(CPU)
        x = built.forward(x)
        if module.name == layer:
            return x
    raise AssertionError(f"there is no {layer}")


@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_every_branch_runs_up_to_where_it_joins_as_in_opencv(name, version, splits, tmp_path):
    rows = with_splits(NETWORKS[name]) if splits else NETWORKS[name]
    assert any(row.type == "Split" for row in rows) == splits
    image = caffe_networks.image(3, 20, 25)
    net = load(tmp_path, rows, version)
    assert net.version == version
    for layer in ENDS[name]:
        found = run(net, layer, torch.from_numpy(image.copy())).numpy()
        # OpenCV names in-place layers as we do.
        expected = caffe_networks.by_opencv(tmp_path, image, layer)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max(), layer


@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_layers_beyond_a_join_are_refused(name, version, splits, tmp_path):
    rows = NETWORKS[name]
    net = load(tmp_path, with_splits(rows) if splits else rows, version)
    join = next(row for row in rows if " " in row.bottoms)
    count = len(join.bottoms.split())
    for layer in (join.name, rows[-1].name):
        chain, _ = loadcaffe.modules(net, [layer])
        message = re.escape(
            f"layer {join.name} ({join.type}) joins {count} branches; networks run only up to there"
        )
        with pytest.raises(UnsupportedError, match=message):
            network.build(chain, {layer: [ContentLoss("content", 1.0)]})


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("googlenet", ["relu_a_1x1", "a_3x3"]),
        ("squeezenet", ["expand1", "relu_expand3"]),
        ("resnet", ["branch1", "branch2a"]),
    ],
)
def test_layers_of_different_branches_are_refused(name, layers, tmp_path):
    net = load(tmp_path, NETWORKS[name])
    with pytest.raises(
        UnsupportedError, match=r"lie on different branches of the network; choose layers that follow"
    ):
        loadcaffe.modules(net, layers)


def test_layers_along_one_branch_are_one_chain(tmp_path):
    chain, lines = loadcaffe.modules(load(tmp_path, GOOGLENET), ["pool1", "relu_a_3x3"])
    names = [
        "conv1",
        "relu_conv1",
        "pool1",
        "norm1",
        "a_3x3_reduce",
        "relu_a_3x3_reduce",
        "a_3x3",
        "relu_a_3x3",
    ]
    assert [module.name for module in chain] == names
    assert lines == ["conv1: 8 3 7 7", "a_3x3_reduce: 3 8 1 1", "a_3x3: 5 3 3 3"]


def test_a_whole_run_along_a_branch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = load(tmp_path, with_splits(SQUEEZENET))
    rng = np.random.RandomState(0)
    for name in ("content.png", "style.png"):
        Image.fromarray(rng.randint(0, 255, (30, 40, 3), dtype=np.uint8)).save(name)
    given = {
        "content_image": "content.png",
        "style_image": "style.png",
        "model_file": net.path,
        "gpu": "-1",
        "image_size": 40,
    }
    given |= {
        "num_iterations": 3,
        "content_layers": "squeeze",
        "style_layers": "conv1,relu_expand3",
        "seed": 1,
    }
    result = stylize(Options(**given))
    totals = [each.total for each in result.losses]
    assert totals[2] < totals[0]
    with pytest.raises(UnsupportedError, match="joins 2 branches"):
        stylize(Options(**given | {"style_layers": "conv10"}))
    with pytest.raises(UnsupportedError, match="different branches"):
        stylize(Options(**given | {"style_layers": "expand1,expand3"}))
    with pytest.raises(OptionError, match="the model has no layer 'concat9'; did you mean concat"):
        stylize(Options(**given | {"style_layers": "concat9"}))


def test_unknown_layers_matter_only_to_losses_above_them(tmp_path):
    rows = [conv("conv1", "data", 4, 3, 3), Row("odd", "MysteryMeat", "conv1"), conv("conv2", "odd", 2, 4, 1)]
    net = load(tmp_path, rows)
    assert loadcaffe.layer_names(net) == ["conv1", "odd", "conv2"]
    assert run(net, "conv1", torch.zeros(1, 3, 8, 8)).shape == (1, 4, 6, 6)
    message = "layer odd has the type MysteryMeat, which cannot be run; choose layers before it"
    for layer in ("odd", "conv2"):
        with pytest.raises(UnsupportedError, match=message) as caught:
            run(net, layer, torch.zeros(1, 3, 8, 8))
        assert str(caught.value).startswith(f"{net.path}: ")


def trained_rows(feeder):
    """A network as it was trained: a data layer that gives labels too, and what lives on those."""
    return [
        Row("data", feeder, "", tops="data label dim"),
        Row("small", "Interp", "label"),
        conv("conv1", "data", 4, 3, 3),
        relu("conv1"),
        conv("conv2", "conv1", 2, 4, 1),
        Row("crop", "Crop", "conv2 data"),
        Row("loss", "SoftmaxWithLoss", "crop small"),
        Row("silence", "Silence", "dim", tops=" "),
    ]


@pytest.mark.parametrize("feeder", ["AnnotatedData", "ImageSegData", "Python", "DenseImageData", "Data"])
def test_a_network_with_its_own_data_layer_runs(feeder, tmp_path):
    net = load(tmp_path, trained_rows(feeder))
    usable = ["conv1", "relu_conv1", "conv2"]
    assert loadcaffe.usable_names(net) == usable
    assert "data" not in loadcaffe.layer_names(net)
    assert run(net, "conv2", torch.zeros(1, 3, 8, 8)).shape == (1, 2, 6, 6)
    lines = loadcaffe.modules(net)[1]
    assert lines[:2] == ["MODULE data UNDEFINED", f"warning: module 'data [type {feeder}]' not found"]
    rows = {row.name: row for row in inspection.rows(net, 8, 8, statistics=False)}
    assert [name for name, row in rows.items() if row.usable] == usable
    assert rows["conv2"].geometry.shape == (2, 6, 6)
    assert rows["data"].geometry.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("extension", "rgb"),
    [("pth", False), ("pth", True), ("npz", False), ("npz", True), ("caffemodel", False)],
)
def test_a_network_with_its_own_data_layer_is_converted(extension, rgb, tmp_path):
    net = load(tmp_path, trained_rows("ImageSegData"))
    form = convert.Form(rgb=rgb)
    convert.write(tmp_path / f"out.{extension}", net, form)
    written = convert.check(tmp_path / f"out.{extension}", net, form)
    differences, ended = convert.compare(net, written, torch.rand(1, 3, 8, 8))
    assert [each.layer for each in differences] == ["conv1", "relu_conv1", "conv2"]
    assert all(each.difference == 0 for each in differences)
    assert "crop" in ended
    deploy = upgrade.net_parameter(prototxt.parse(convert.prototxt(net)), "deploy")
    assert deploy.inputs == ["data"]
    assert [layer.name for layer in deploy.layers] == ["conv1", "relu_conv1", "conv2", "crop"]


def test_a_forks_own_number_for_a_v1_data_layer(tmp_path):
    net = load(tmp_path, [Row("data", "Data", ""), conv("conv1", "data", 4, 3, 3)], "V1")
    net.layers[0] = dataclasses.replace(net.layers[0], type="V1 type 77", v1_type=77)
    assert loadcaffe.usable_names(net) == ["conv1"]
    assert loadcaffe.modules(net)[1][1] == "warning: module 'data [type 77]' not found"


def test_a_model_can_be_looked_at_without_reading_its_weights(tmp_path):
    def unread():
        raise AssertionError("weights were read")

    net = load(tmp_path, trained_rows("Data"))
    for made in net.layers:
        made.blobs[:] = [Blob(blob.shape, unread, blob.count) for blob in made.blobs]
    rows = inspection.rows(net, 8, 8, statistics=False)
    assert [row.name for row in rows if row.usable] == ["conv1", "relu_conv1", "conv2"]


# Padding: loadcaffe's own way.


@pytest.mark.parametrize(
    ("params", "loadcaffes", "opencvs"),
    [
        ("pad_h: 1 pad_w: 2", (1, 2), (1, 2)),
        ("pad: 2", (2, 2), (2, 2)),
        # Of the two numbers one is 0: loadcaffe takes `pad`, which is not there, Caffe and OpenCV take them.
        ("pad_h: 0 pad_w: 1", (0, 0), (0, 1)),
        ("pad_h: 1 pad_w: 0", (0, 0), (1, 0)),
        # Caffe takes a missing number for 0, OpenCV wants both.
        ("pad_w: 1", (0, 0), (0, 0)),
    ],
)
@pytest.mark.parametrize("kind", ["Convolution", "Pooling"])
def test_padding_of_one_axis_alone_is_ignored_as_loadcaffe_ignores_it(
    kind, params, loadcaffes, opencvs, tmp_path
):
    more = "num_output: 2" if kind == "Convolution" else "pool: AVE"
    field = "convolution_param" if kind == "Convolution" else "pooling_param"
    blobs = ((2, 3, 4, 4), (2,)) if kind == "Convolution" else ()
    rows = chain(("layer", kind, f"{field} {{ kernel_size: 4 {more} {params} }}", blobs))
    image = caffe_networks.image(3, 11, 9)
    net = load(tmp_path, rows, image=image)
    layer = loadcaffe.modules(net)[0][0].build()
    assert isinstance(layer, nn.SpatialConvolution | nn.SpatialAveragePooling)
    assert layer.pad == loadcaffes

    def padded(pad):
        x = torch.from_numpy(image.copy())
        if kind == "Pooling":
            return F.avg_pool2d(x, 4, 1, pad)
        weight, bias = (torch.from_numpy(array) for array in caffe_networks.weights(rows)["layer"])
        return F.conv2d(x, weight, bias, padding=pad)

    torch.testing.assert_close(layer.forward(torch.from_numpy(image.copy())), padded(loadcaffes))
    expected = torch.from_numpy(caffe_networks.by_opencv(tmp_path, image, "layer"))
    torch.testing.assert_close(expected, padded(opencvs), rtol=1e-4, atol=1e-4)


# What does not fit.


def layer(kind, *arrays, **params):
    messages = {f"{kind.lower()}_param": Message(f"{kind}Parameter", **params)} if params else {}
    return LayerParameter("it", kind, [], [], [Blob.from_array(array) for array in arrays], messages)


ONES = np.ones((4, 3, 3, 3))


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (layer("Convolution"), WeightMismatchError, "has 0 blobs, expected at least 1"),
        (layer("Convolution", ONES, np.ones(3)), WeightMismatchError, "blob 1, has 3 values, expected 4"),
        (
            layer("Convolution", np.ones((4, 27))),
            WeightMismatchError,
            "has the shape (4, 27), expected four dimensions",
        ),
        (
            layer("Convolution", ONES, kernel_size=[5]),
            WeightMismatchError,
            "says (5, 5) kernels but has weights of shape (4, 3, 3, 3)",
        ),
        (
            layer("Convolution", ONES, group=3),
            WeightMismatchError,
            "has 4 outputs, which 3 groups cannot share",
        ),
        (
            layer("Convolution", ONES * np.nan),
            FormatError,
            "holds weights that are not finite; get the model file again",
        ),
        (layer("Scale", np.ones(4), np.ones(5)), WeightMismatchError, "blob 1, has 5 values, expected 4"),
        (layer("BatchNorm", np.ones(4), np.ones(4)), WeightMismatchError, "has 2 blobs, expected at least 3"),
        (layer("PReLU"), WeightMismatchError, "has 0 blobs, expected at least 1"),
        (layer("Pooling", pool="STOCHASTIC"), UnsupportedError, "pools by STOCHASTIC, which cannot be run"),
        (
            layer("Pooling", kernel_size=3, pad=2),
            UnsupportedError,
            "pads windows of (3, 3) by (2, 2), more than",
        ),
        (layer("LRN", local_size=0), UnsupportedError, "normalises over no channels at all"),
    ],
)
def test_a_layer_that_does_not_fit_is_named_with_file_and_reason(made, error, message):
    net = NetParameter(layers=[made], path="some.caffemodel")
    (module,), _ = loadcaffe.modules(net)
    with pytest.raises(error, match=re.escape(message)) as caught:
        module.build()
    assert str(caught.value).startswith("some.caffemodel: layer it")

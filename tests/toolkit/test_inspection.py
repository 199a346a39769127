"""What inspection says of a network: rows, statistics, usable names, filters, and how two networks relate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vgg_files
from click.testing import Result
from door import legacy_style
from PIL import Image

from legacy_style.engine import loadcaffe
from legacy_style.errors import UnsupportedError
from legacy_style.formats import model_files, state_dict
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter
from legacy_style.toolkit import diff, inspection
from legacy_style.toolkit.normalise import normalised

Arrays = dict[str, np.ndarray[Any, Any]]


def run(*words: object) -> Result:
    return legacy_style("inspect", *words)


def network(arrays: Arrays) -> NetParameter:
    return vgg_files.network(arrays)


def branching() -> NetParameter:
    def conv(name: str, bottom: str, channels: int) -> LayerParameter:
        message = Message("ConvolutionParameter", num_output=2, kernel_size=[1])
        blobs = [Blob.from_array(np.ones((2, channels, 1, 1))), Blob.from_array(np.zeros(2))]
        return LayerParameter(name, "Convolution", [bottom], [name], blobs, {"convolution_param": message})

    return NetParameter(
        layers=[
            LayerParameter("data", "Data", [], ["data"]),
            conv("stem", "data", 3),
            LayerParameter("relu", "ReLU", ["stem"], ["stem"]),
            conv("left", "stem", 2),
            conv("right", "stem", 2),
            LayerParameter("join", "Concat", ["left", "right"], ["join"]),
            conv("after", "join", 4),
        ]
    )


def test_statistics() -> None:
    values = Blob.from_array(np.array([[0, 1, 2], [np.nan, np.inf, 3]], np.float32))
    assert inspection.measured(values) == inspection.Statistics(0, 3, 1.5, np.sqrt(1.25), 0.25, 2)
    assert inspection.measured(Blob.from_array(np.empty(0))).maximum == 0


def test_branches_are_described_in_full_but_usable_only_before_they_join() -> None:
    rows = inspection.rows(branching(), 8, 8)
    assert [row.name for row in rows] == ["data", "stem", "relu", "left", "right", "join", "after"]
    assert [row.name for row in rows if row.usable] == ["stem", "relu", "left", "right"]
    shapes = {row.name: row.geometry.shape for row in rows if row.geometry is not None}
    assert shapes["join"] == (4, 8, 8)
    assert shapes["after"] == (2, 8, 8)
    assert rows[1].parameters == 8
    assert [blob.part for blob in rows[1].blobs] == ["weight", "bias"]


def test_names_after_a_layer_that_cannot_run_are_not_usable() -> None:
    net = branching()
    net.layers = [*net.layers[:3], LayerParameter("odd", "Mystery", ["stem"], ["odd"]), *net.layers[3:]]
    assert loadcaffe.usable_names(net) == ["stem", "relu", "left", "right"]
    net.layers[4].bottoms = ["odd"]
    assert loadcaffe.usable_names(net) == ["stem", "relu", "right"]


def test_every_layer_of_a_vgg_is_usable() -> None:
    net = network(vgg_files.weights(vgg_files.VGG19))
    names = [layer.name for layer in net.layers]
    names.insert(names.index("fc6"), "torch_view")  # which the original puts before the first inner product
    assert loadcaffe.usable_names(net) == names


def test_filters_are_drawn_in_rgb_with_zero_gray() -> None:
    kernels = np.zeros((5, 3, 3, 3), np.float32)
    kernels[0, 0, 0, 0] = 2  # blue, top left
    kernels[1, 2, 2, 1] = -4  # red, last row, middle
    net = NetParameter(
        layers=[LayerParameter("c", "Convolution", ["data"], ["c"], [Blob.from_array(kernels)])]
    )
    picture = inspection.filters(net)
    assert picture.shape == (2 + 2 * 26, 2 + 3 * 26, 3)
    assert picture.dtype == np.uint8
    assert picture[3, 3].tolist() == [128, 128, 255]
    assert picture[3 + 8, 3].tolist() == [128, 128, 128]
    assert picture[2 + 23, 2 + 26 + 8].tolist() == [0, 128, 128]
    assert picture[0].max() == 0
    assert picture[30, 60].tolist() == [0, 0, 0]  # there is no sixth filter


def test_filters_over_many_channels_are_gray_and_none_is_an_error() -> None:
    kernels = np.ones((1, 8, 30, 30), np.float32)
    net = NetParameter(layers=[LayerParameter("c", "Convolution", ["x"], ["c"], [Blob.from_array(kernels)])])
    assert inspection.filters(net)[2, 2].tolist() == [255, 255, 255]
    with pytest.raises(UnsupportedError, match="has no convolution"):
        inspection.filters(NetParameter())


def turned(arrays: Arrays) -> Arrays:
    """Kernels with height and width exchanged, the first inner product's too: 2 x 2 maps come to it."""
    found = {}
    for key, values in arrays.items():
        if values.ndim == 4:
            values = values.swapaxes(2, 3)
        elif key == "fc6.weight":
            values = values.reshape(len(values), -1, 2, 2).swapaxes(2, 3).reshape(values.shape)
        found[key] = np.ascontiguousarray(values)
    return found


def flipped(arrays: Arrays) -> Arrays:
    return {**arrays, "conv1_1.weight": np.ascontiguousarray(arrays["conv1_1.weight"][:, ::-1])}


def scaled(arrays: Arrays) -> Arrays:
    return {
        key: values * np.float32(2.5 if key.endswith("weight") else 0.3) for key, values in arrays.items()
    }


def halved(arrays: Arrays) -> Arrays:
    return {key: values.astype(np.float16).astype(np.float32) for key, values in arrays.items()}


def noisy(arrays: Arrays) -> Arrays:
    return {key: values + np.float32(0.01) for key, values in arrays.items()}


@pytest.mark.parametrize(
    ("change", "relations", "verdict"),
    [
        (dict, {"equal"}, "the same, bit for bit"),
        (halved, {"equal in half precision"}, "the same up to: equal in half precision"),
        (turned, {"transposed in space", "equal"}, "the same up to: transposed in space"),
        (flipped, {"BGR for RGB", "equal"}, "the same up to: BGR for RGB"),
        (
            lambda arrays: flipped(turned(arrays)),
            {"transposed in space and BGR for RGB", "transposed in space", "equal"},
            "the same up to: transposed in space, transposed in space and BGR for RGB",
        ),
        (
            lambda arrays: halved(turned(arrays)),
            {"transposed in space", "equal in half precision"},
            "the same up to: ",
        ),
        (scaled, {"scaled"}, "the same up to: scaled"),
        (noisy, {"different"}, "different: 16 of 16 layers differ, conv1_1 first"),
    ],
    ids=["equal", "half", "turned", "flipped", "both", "turned and half", "scaled", "noisy"],
)
def test_how_two_networks_relate(change: Any, relations: set[str], verdict: str) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    lines = diff.compare(network(arrays), network(change(arrays)))
    assert {line.relation for line in lines} == relations
    assert diff.verdict(lines).startswith(verdict)
    if change is scaled:
        assert lines[3].factor == pytest.approx(2.5)


def test_a_normalised_network_is_scaled_per_channel() -> None:
    net = network(vgg_files.weights(vgg_files.VGG16, classifier=False))
    rng = np.random.default_rng(1)
    rectifiers = [layer for layer in net.layers if layer.type == "Convolution"]
    means = {f"relu{la.name[4:]}": rng.uniform(0.1, 30, la.blobs[0].shape[0]) for la in rectifiers}
    lines = diff.compare(net, normalised(net, means))
    assert {line.relation for line in lines} == {"scaled per channel"}


def test_a_bias_of_another_scale_is_no_scale_per_channel() -> None:
    arrays = vgg_files.weights((2, 1), classifier=False)
    scales = np.linspace(0.5, 2, len(arrays["conv1_2.weight"])).astype(np.float32)
    changed = {**arrays, "conv1_2.weight": arrays["conv1_2.weight"] * scales[:, None, None, None]}
    (line,) = [n for n in diff.compare(network(arrays), network(changed)) if n.layer == "conv1_2"]
    assert line.relation == "different"
    changed["conv1_2.bias"] = arrays["conv1_2.bias"] * scales
    (line,) = [n for n in diff.compare(network(arrays), network(changed)) if n.layer == "conv1_2"]
    assert line.relation == "scaled per channel"


def test_layers_of_one_network_alone_and_of_other_shapes() -> None:
    first = network(vgg_files.weights((2, 2), classifier=False))
    second = network(vgg_files.weights((2, 1), classifier=False))
    lines = diff.compare(first, second)
    assert [line.relation for line in lines] == ["equal", "equal", "equal", "only in the first"]
    assert diff.verdict(lines) == "the same, bit for bit; 1 layers are in one alone"
    second.layers[0].blobs[1] = Blob.from_array(np.ones(7))
    second.layers.append(LayerParameter("more", "Scale", blobs=[Blob.from_array(np.ones(1))]))
    lines = diff.compare(first, second)
    assert lines[0].relation == "of different shapes"
    assert lines[-1].relation == "only in the second"
    assert diff.verdict([]) == "no layer is in both"


def test_the_tool_on_the_bundled_network(tmp_path: Path) -> None:
    result = run(
        model_files.bundled(), "--filters", tmp_path / "f.png", "--no-statistics", "--size", "100x80"
    )
    assert result.exit_code == 0, result.output
    assert "registry: vgg16_conv.pth, CC BY 4.0" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if " conv3_1 " in line]
    assert line.split() == ["*", "conv3_1", "Convolution", "256x25x20", "24", "4", "weight", "256x128x3x3"]
    assert "14714688 parameters. Outputs are for images of 100x80" in result.stdout
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.size == (2 + 8 * 26, 2 + 8 * 26)


def test_the_tool_in_json(tmp_path: Path) -> None:
    path = tmp_path / "thin.caffemodel"
    path.write_bytes(vgg_files.caffemodel(vgg_files.weights(vgg_files.VGG16), "V1"))
    answer = json.loads(run(path, "--json", "--no-checksum").stdout)
    assert (answer["version"], answer["registry"], answer["image"]) == ("V1", None, [224, 224])
    first = answer["layers"][0]
    assert (first["name"], first["usable"], first["geometry"]["field"]) == ("conv1_1", True, [3, 3])
    weights = vgg_files.weights(vgg_files.VGG16)["conv1_1.weight"].astype(np.float64)
    assert first["blobs"][0]["statistics"]["deviation"] == pytest.approx(weights.std())


def test_the_tool_compares(tmp_path: Path) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    state_dict.write(tmp_path / "a.pth", network(arrays), "pth")
    state_dict.write(tmp_path / "b.npz", network(flipped(arrays)), "npz")
    result = legacy_style("diff", tmp_path / "a.pth", tmp_path / "b.npz")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("conv1_1  BGR for RGB, largest difference ")
    assert result.stdout.rstrip().endswith("the same up to: BGR for RGB")
    state_dict.write(tmp_path / "c.npz", network(noisy(arrays)), "npz")
    result = legacy_style("diff", tmp_path / "a.pth", tmp_path / "c.npz", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["verdict"].startswith("different: 16 of 16 layers differ")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Missing argument 'MODEL'"),
        (["x", "--size", "12"], 1, "No such file or directory"),
        ([str(model_files.bundled()), "--size", "12"], 2, "--size is '12', expected for example 480x640"),
        ([__file__], 1, "legacy-style: "),
    ],
)
def test_the_tools_errors(arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert message in result.stderr

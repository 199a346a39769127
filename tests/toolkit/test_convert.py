"""Conversion: what is written reads back, computes the same, and other programs can use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vgg_files
from caffe_messages import CLASSES
from click.testing import Result
from door import legacy_style
from google.protobuf import text_format
from PIL import Image

from legacy_style.engine import loadcaffe
from legacy_style.errors import OptionError, UnsupportedError, WeightMismatchError
from legacy_style.formats import model_files, state_dict, t7
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter
from legacy_style.formats.channel_order import reversed_channels
from legacy_style.toolkit import convert


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A thin VGG-16 as a V1 .caffemodel, written by protobuf; for images of 64 x 64."""
    path = tmp_path / "thin.caffemodel"
    path.write_bytes(vgg_files.caffemodel(vgg_files.weights(vgg_files.VGG16), "V1"))
    return path


def run(*words: object) -> Result:
    return legacy_style("convert", *words)


def thin(blocks: tuple[int, ...] = vgg_files.VGG16) -> tuple[NetParameter, dict[str, np.ndarray[Any, Any]]]:
    arrays = vgg_files.weights(blocks, classifier=False)
    return vgg_files.network(arrays), arrays


@pytest.mark.parametrize("extension", ["pth", "pt", "safetensors", "npz", "caffemodel"])
def test_every_extension_is_written_and_checked(tmp_path: Path, model: Path, extension: str) -> None:
    output = tmp_path / f"out.{extension}"
    result = run(model, output)
    assert result.exit_code == 0, result.output
    assert "all 32 blobs read back bit for bit" in result.output
    found = dict(state_dict.weights(model_files.load(output)))
    expected = vgg_files.weights(vgg_files.VGG16)
    assert all(found[key].tobytes() == values.tobytes() for key, values in expected.items())
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["layer", "largest", "difference", "of", "outputs", "up", "to"]
    assert lines[1].split()[:2] == ["conv1_1", "0"]


def test_the_answer_in_json(tmp_path: Path, model: Path) -> None:
    result = run(model, tmp_path / "half.pth", "--half", "--until", "relu2_1", "--json")
    answer = json.loads(result.stdout)
    assert answer["equal"] is True
    assert answer["bytes"] == (tmp_path / "half.pth").stat().st_size
    names = [layer["layer"] for layer in answer["layers"]]
    assert names == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1"]
    largest = answer["layers"][-1]
    assert 0 < largest["difference"] < 0.01 * largest["largest"]


def test_an_image_that_does_not_fit_the_classifier_is_said(tmp_path: Path, model: Path) -> None:
    Image.new("RGB", (80, 70), (200, 10, 90)).save(tmp_path / "other.png")
    result = run(model, tmp_path / "out.pth", "--image", tmp_path / "other.png")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-3].startswith("torch_view ")
    assert "The image went no further: " in result.stdout
    assert "layer fc6 does not fit what comes before it for images of 80x70" in result.stdout


@pytest.mark.parametrize("extension", ["pth", "npz"])
@pytest.mark.parametrize("names", ["caffe", "torchvision"])
def test_weights_for_rgb_images_say_so_and_read_back_for_bgr(
    tmp_path: Path, model: Path, extension: str, names: str
) -> None:
    output = tmp_path / f"rgb.{extension}"
    assert run(model, output, "--rgb", "--names", names).exit_code == 0
    arrays = vgg_files.weights(vgg_files.VGG16)
    stored: dict[str, Any]
    if extension == "pth":
        stored = {key: tensor.numpy() for key, tensor in torch.load(output, weights_only=True).items()}
    else:
        stored = dict(np.load(output))
    first = "features.0.weight" if names == "torchvision" else "conv1_1.weight"
    assert np.array_equal(stored[first], arrays["conv1_1.weight"][:, ::-1])
    read = dict(state_dict.weights(model_files.load(output)))
    assert np.array_equal(read["conv1_1.weight"], arrays["conv1_1.weight"])
    assert np.array_equal(read["conv1_2.weight"], arrays["conv1_2.weight"])


def test_a_prototxt_for_other_readers(tmp_path: Path, model: Path) -> None:
    pth = tmp_path / "thin.pth"
    assert run(model, pth).exit_code == 0
    assert run(pth, tmp_path / "v2.caffemodel", "--prototxt", tmp_path / "v2.prototxt").exit_code == 0
    net = text_format.Parse((tmp_path / "v2.prototxt").read_text(), CLASSES["NetParameter"]())
    assert list(net.input) == ["data"]
    assert list(net.input_shape[0].dim) == [1, 3, 224, 224]
    assert [layer.name for layer in net.layer][-1] == "prob"
    weights = CLASSES["NetParameter"].FromString((tmp_path / "v2.caffemodel").read_bytes())
    assert [layer.name for layer in weights.layer] == [layer.name for layer in net.layer]
    first = np.array(weights.layer[0].blobs[0].data, np.float32)
    assert np.array_equal(first, vgg_files.weights(vgg_files.VGG16)["conv1_1.weight"].ravel())


def test_opencv_computes_what_our_files_say(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip(f"OpenCV {cv2.__version__} reads no Caffe files; 4.x does")
    net, _arrays = thin((2, 2, 3))
    convert.write(tmp_path / "n.caffemodel", net)
    image = convert.test_image(48, 40)
    declared = NetParameter(layers=net.layers, inputs=["data"], input_dims=[(1, 3, 48, 40)])
    (tmp_path / "n.prototxt").write_text(convert.prototxt(declared))
    reader = cv2.dnn.readNetFromCaffe(str(tmp_path / "n.prototxt"), str(tmp_path / "n.caffemodel"))
    reader.setInput(image.numpy())
    expected = reader.forward("relu3_3")
    (found,) = [output for name, output in convert.activations(net, image) if name == "relu3_3"]
    assert np.abs(found.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        (
            "out.onnx",
            [],
            "the extension says what to write; give .pth, .pt, .safetensors, .npz, .caffemodel, .t7",
        ),
        ("out.caffemodel", ["--half"], "a .caffemodel is written in single precision"),
        ("out.caffemodel", ["--rgb"], "nothing in a .caffemodel could say that it is for RGB images"),
        ("out.caffemodel", ["--names", "torchvision"], "a .caffemodel has Caffe's names"),
        ("out.pth", ["--until", "relu1_3"], "has no layer 'relu1_3'; it has, for example, relu"),
        ("nowhere/out.pth", [], "No such file or directory"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    tmp_path: Path, model: Path, output: str, options: list[str], message: str
) -> None:
    result = run(model, tmp_path / output, *options)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("legacy-style: ")
    assert message in result.stderr
    assert not (tmp_path / output).exists()


def test_a_missing_input(tmp_path: Path) -> None:
    result = run(tmp_path / "nothing", tmp_path / "out.pth")
    assert result.exit_code == 1
    assert "nothing" in result.stderr


def test_a_file_that_reads_back_differently_is_noticed(tmp_path: Path) -> None:
    net, arrays = thin()
    path = tmp_path / "out.pth"
    convert.write(path, net)
    assert convert.check(path, net).layers
    arrays["conv3_1.bias"][1] += np.float32(1e-7) * abs(arrays["conv3_1.bias"][1])
    other = vgg_files.network(arrays)
    with pytest.raises(WeightMismatchError, match=r"conv3_1\.bias reads back differently"):
        convert.check(path, other)
    with pytest.raises(WeightMismatchError, match="its layers read back differently, first the last one"):
        convert.check(path, convert.until(net, "pool4"))


def test_layers_of_two_networks_are_compared_one_by_one() -> None:
    net, arrays = thin((2, 1))
    arrays["conv1_2.bias"] += 1
    other = vgg_files.network(arrays)
    differences, ended = convert.compare(net, other, convert.test_image(16, 16))
    assert ended == ""
    found = {line.layer: line.difference for line in differences}
    assert found["conv1_1"] == found["relu1_1"] == 0
    assert found["conv1_2"] == pytest.approx(1, rel=1e-3)
    assert found["conv2_1"] > 0


def test_activations_do_not_change_the_image() -> None:
    image = convert.test_image(8, 8)
    kept = image.clone()
    net = NetParameter(layers=[LayerParameter("relu", "ReLU", ["data"], ["data"])])
    assert dict(convert.activations(net, image))["relu"].min() == 0
    assert torch.equal(image, kept)


def test_a_network_with_branches_converts_in_full_and_runs_up_to_where_they_join(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def conv(name: str, bottom: str, shape: tuple[int, ...]) -> LayerParameter:
        message = Message("ConvolutionParameter", num_output=shape[0], kernel_size=[1], bias_term=False)
        blobs = [Blob.from_array(rng.standard_normal(shape))]
        return LayerParameter(name, "Convolution", [bottom], [name], blobs, {"convolution_param": message})

    net = NetParameter(
        layers=[
            conv("stem", "data", (4, 3, 1, 1)),
            conv("inception/left", "stem", (2, 4, 1, 1)),
            conv("inception/right", "stem", (3, 4, 1, 1)),
            LayerParameter("join", "Concat", ["inception/left", "inception/right"], ["join"]),
            conv("after", "join", (2, 5, 1, 1)),
        ]
    )
    convert.write(tmp_path / "net.caffemodel", net)
    result = run(tmp_path / "net.caffemodel", tmp_path / "net.pth")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["stem", "inception/right"]
    assert "The image went no further: " in lines[3]
    assert "layer join (Concat) joins 2 branches" in lines[3]
    assert "all 4 blobs read back bit for bit" in lines[4]


def flip(*layers: LayerParameter) -> NetParameter:
    return reversed_channels(NetParameter(path="net", layers=list(layers), mean_pixel=(1, 2, 3)))


def test_only_what_sees_the_image_is_turned() -> None:
    rng = np.random.default_rng(0)
    kernels = [
        rng.standard_normal((4, 3, 3, 3)),
        rng.standard_normal((3, 4, 1, 1)),
        rng.standard_normal((2, 3, 1, 1)),
    ]
    layers = [
        LayerParameter("power", "Power", ["data"], ["data"]),
        LayerParameter("a", "Convolution", ["data"], ["a"], [Blob.from_array(kernels[0])]),
        LayerParameter("b", "Convolution", ["a"], ["b"], [Blob.from_array(kernels[1])]),
        LayerParameter("c", "Convolution", ["b"], ["c"], [Blob.from_array(kernels[2])]),
        LayerParameter("d", "Convolution", ["data"], ["d"], [Blob.from_array(kernels[2])]),
    ]
    net = flip(*layers)
    turned = {layer.name: layer.blobs[0].data() for layer in net.layers[1:]}
    assert np.array_equal(turned["a"], kernels[0].astype(np.float32)[:, ::-1])
    assert np.array_equal(turned["b"], kernels[1].astype(np.float32))
    assert np.array_equal(turned["c"], kernels[2].astype(np.float32))
    assert np.array_equal(turned["d"], kernels[2].astype(np.float32)[:, ::-1])
    assert net.mean_pixel == (3, 2, 1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            LayerParameter("s", "Scale", ["data"], ["s"], [Blob.from_array(np.ones(3))]),
            r"layer s \(Scale\) sees the image",
        ),
        (
            LayerParameter("g", "Convolution", ["data"], ["g"], [Blob.from_array(np.ones((3, 1, 1, 1)))]),
            r"layer g \(Conv",
        ),
        (LayerParameter("r", "ReLU", ["data"], ["r"]), "no convolution sees the image"),
    ],
)
def test_networks_whose_channels_cannot_be_turned(layer: LayerParameter, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        flip(layer)


def test_until_an_unknown_layer_names_near_ones() -> None:
    with pytest.raises(OptionError, match="has no layer 'conv9_1'; it has, for example, conv"):
        convert.until(thin()[0], "conv9_1")


def test_the_networks_own_input_size_counts() -> None:
    shape = Message("InputParameter", shape=[Message("BlobShape", dim=[1, 3, 20, 30])])
    net = NetParameter(layers=[LayerParameter("data", "Input", [], ["data"], params={"input_param": shape})])
    assert convert.input_size(net) == (20, 30)
    assert convert.input_size(NetParameter()) == (224, 224)
    assert "input_shape" not in convert.prototxt(net)


def test_a_network_that_begins_with_what_is_not_run_is_converted_all_the_same(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "golden" / "t7" / "in_rs.t7"
    written = tmp_path / "in_rs.npz"
    result = run(path, written)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"No image was run through both: {path} begins with nn.SpatialReflectionPadding, which only th"
        " fast_neural_style.lua may run",
        f"{written}: {written.stat().st_size} bytes; all 38 blobs read back bit for bit",
    ]


def test_a_network_that_pads_between_its_convolutions_says_why_it_cannot_be_run(tmp_path: Path) -> None:
    """As the VGG-19 of the AdaIN program: a 1x1 convolution for the colours, then reflected borders."""
    modules = [
        convolution(3, 3, 1),
        padding(),
        convolution(3, 4, 3),
        t7.TorchObject("nn.ReLU", {"threshold": 0, "val": 0}),
    ]
    t7.write(tmp_path / "vgg_normalised.t7", t7.TorchObject("nn.Sequential", {"modules": modules}))
    result = run(tmp_path / "vgg_normalised.t7", tmp_path / "out.pth")
    assert result.exit_code == 0, result.output
    assert "layer 1 is Torch7's nn.SpatialReflectionPadding" in result.stdout
    assert "all 4 blobs read back bit for bit" in result.stdout
    net = model_files.load(tmp_path / "vgg_normalised.t7")
    assert loadcaffe.usable_names(net) == ["0"]


def convolution(inputs: int, outputs: int, side: int) -> t7.TorchObject:
    numbers = {"nInputPlane": inputs, "nOutputPlane": outputs, "kW": side, "kH": side, "dW": 1, "dH": 1}
    weight = np.random.RandomState(0).randn(outputs, inputs, side, side).astype(np.float32)
    return t7.TorchObject(
        "nn.SpatialConvolution",
        {**numbers, "padW": 0, "padH": 0, "weight": weight, "bias": np.zeros(outputs, np.float32)},
    )


def padding() -> t7.TorchObject:
    return t7.TorchObject(
        "nn.SpatialReflectionPadding", dict.fromkeys(("pad_l", "pad_r", "pad_t", "pad_b"), 1)
    )

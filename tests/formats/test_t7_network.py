"""Networks in .t7 files: as named layers, converted, and run in programs that know nothing of Torch7.

tests/golden/t7 holds a network that fast-neural-style's train.lua and convert_network.lua wrote, and what Torch7
computed with it. tests/data/t7/network.t7 is by make_fixtures.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from door import legacy_style
from PIL import Image
from recordings import RECORDED as NEURAL_STYLE
from recordings import SHARED, needs_shared

from legacy_style.errors import FormatError, OptionError, UnsupportedError
from legacy_style.formats import model_files, state_dict, t7
from legacy_style.formats.caffe.geometry import geometries
from legacy_style.formats.caffe.netparam import LayerParameter, NetParameter
from legacy_style.formats.t7 import TorchObject, building, network, nn
from legacy_style.toolkit import convert

TESTS = Path(__file__).parents[1]
FIXTURE = TESTS / "data" / "t7" / "network.t7"
SHIPPED = TESTS / "golden" / "t7"
RECORDED = SHARED / "golden" / "fast-neural-style"
DOCUMENT = TESTS.parent / "docs" / "fast-neural-style.md"


def kinds(net: NetParameter) -> list[tuple[str, str]]:
    return [(layer.name, layer.type) for layer in net.layers]


def module(kind: str, **fields: Any) -> TorchObject:
    return TorchObject(kind, fields)


def test_layers_of_every_package_and_year() -> None:
    net = model_files.load(FIXTURE)
    assert kinds(net) == [
        ("conv1", "Convolution"),
        ("matrix", "Convolution"),
        ("2", "nn.SpatialBatchNormalization"),
        ("3.0.0.0", "nn.SpatialBatchNormalization"),
        ("3.0.0.1", "ReLU"),
        ("3.1", "Eltwise"),
        ("4", "nn.SpatialZeroPadding"),
        ("5", "Pooling"),
        ("6", "Pooling"),
        ("8", "InnerProduct"),
        ("9", "Dropout"),
        ("10", "nn.LookupTable"),
        ("11", "my.Layer"),
    ]
    assert net.layer("3.1").bottoms == ["3.0.0.1", "2"]
    assert net.layer("8").bottoms == ["6"]  # the View between them is what an inner product does anyway
    assert net.layer("5").param("pooling_param")["round_mode"] == "FLOOR"
    assert net.layer("matrix").blobs[0].shape == (2, 2, 3, 3)
    assert net.layer("matrix").param("convolution_param")["pad"] == [1]
    weights = dict(state_dict.weights(net))
    assert weights["conv1.weight"].ravel().tolist() == [i / 64 for i in range(54)]
    assert weights["10.weight"].shape == (3, 2)


def test_norms_of_before_2016_hold_deviations() -> None:
    weights = dict(state_dict.weights(model_files.load(FIXTURE)))
    np.testing.assert_allclose(weights["2.running_var"], [0.24, 3.99], rtol=1e-6)
    assert weights["2.weight"].tolist() == [1, 1] and weights["2.bias"].tolist() == [0, 0]  # affine = false
    assert weights["3.0.0.0.running_var"].tolist() == [4, 5]


def test_a_state_dict_of_them_fits_torch_nn(tmp_path: Path) -> None:
    result = legacy_style("convert", FIXTURE, tmp_path / "net.pth")
    assert result.exit_code == 0, result.output
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    norm = torch.nn.BatchNorm2d(2, eps=0.01)
    norm.load_state_dict(
        {key.removeprefix("2."): value for key, value in state.items() if key.startswith("2.")}
    )
    x = torch.arange(8.0).reshape(1, 2, 2, 2)
    expected = (x - torch.tensor([1.0, 2.0]).view(2, 1, 1)) / torch.tensor([0.25, 4.0]).sqrt().view(2, 1, 1)
    torch.testing.assert_close(norm.eval()(x), expected)
    # What can be run of it here, runs the same: up to the layer that joins branches.
    (layer,) = [line.split() for line in result.stdout.splitlines() if line.startswith("3.0.0.1 ")]
    assert layer[1] == "0" and "joins 2 branches" in result.stdout


@pytest.mark.parametrize("extension", ["npz", "pth", "safetensors", "t7"])
def test_every_kind_of_layer_survives(tmp_path: Path, extension: str) -> None:
    output = tmp_path / f"net.{extension}"
    assert legacy_style("convert", FIXTURE, output).exit_code == 0
    ours, theirs = model_files.load(FIXTURE), model_files.load(output)
    assert kinds(ours) == kinds(theirs)
    same = dict(state_dict.weights(theirs))
    assert all(np.array_equal(same[key], values) for key, values in state_dict.weights(ours))
    assert legacy_style("diff", FIXTURE, output).exit_code == 0


def test_what_torch7_alone_has_is_no_caffemodel(tmp_path: Path) -> None:
    net = model_files.load(FIXTURE)
    with pytest.raises(
        UnsupportedError, match=r"layer 2 has the type nn\.SpatialBatchNormalization, which cannot be"
    ):
        building.sequential(net)
    with pytest.raises(OptionError, match=r"a \.t7 is written in single precision"):
        convert.write(tmp_path / "half.t7", net, convert.Form(half=True))


@pytest.mark.parametrize("source", ["data", "first", "copy"])
def test_a_branch_is_not_written_as_a_chain(source: str) -> None:
    relu = [
        LayerParameter(name, "ReLU", [bottom], [name])
        for name, bottom in (("first", "data"), ("second", "one"), ("third", source))
    ]
    split = LayerParameter("split", "Split", ["first"], ["one", "copy"])
    net = NetParameter(layers=[relu[0], split, *relu[1:]], inputs=["data"], path="a.caffemodel")
    with pytest.raises(
        UnsupportedError, match=r"a\.caffemodel: layer third \(ReLU\) lies on a branch, and only a"
    ):
        building.sequential(net)
    relu[2].bottoms = ["second"]
    assert len(building.sequential(net).fields["modules"]) == 3


def test_a_t7_from_a_t7_keeps_what_else_the_file_holds(tmp_path: Path) -> None:
    content = t7.read(FIXTURE)
    content.fields["gradInput"] = np.zeros((100, 100))
    t7.write(
        tmp_path / "in.t7", {"opt": {"preprocessing": "resnet"}, "model": content, "f": t7.Function(b"code")}
    )
    result = legacy_style("convert", tmp_path / "in.t7", tmp_path / "out.t7")
    assert result.exit_code == 0, result.output
    out = t7.read(tmp_path / "out.t7")
    assert out["opt"] == {"preprocessing": "resnet"} and out["f"].code == b"code"
    assert out["model"].fields["gradInput"].size == 0
    shown = legacy_style("inspect", tmp_path / "out.t7").stdout
    assert "the file says 1 Lua functions, which are never run" in shown
    assert "the file says preprocessing: resnet" in shown


def test_a_t7_of_a_gpu_becomes_one_for_the_cpu(tmp_path: Path) -> None:
    content = t7.read(FIXTURE)
    content.fields["_type"] = "torch.CudaTensor"
    t7.write(tmp_path / "gpu.t7", content)
    assert legacy_style("convert", tmp_path / "gpu.t7", tmp_path / "cpu.t7").exit_code == 0
    written = t7.read(tmp_path / "cpu.t7")
    objects = [item for item in nn.reachable(written) if isinstance(item, TorchObject)]
    assert written.get("_type") == "torch.FloatTensor" and len(objects) == 19
    assert not [item.typename for item in objects if item.typename.startswith("cudnn")]
    versions = sorted(item.version for item in objects if item.typename == "nn.SpatialBatchNormalization")
    assert versions == [1, 2]  # the one with deviations stays what Torch7 knows how to read
    assert b"Cuda" not in (tmp_path / "cpu.t7").read_bytes()


def vgg(blocks: tuple[int, ...]) -> TorchObject:
    """A plain VGG without names, of modules as torch/nn makes them."""
    modules, channels = [], 3
    for count in blocks:
        for _ in range(count):
            weight, bias = np.ones((4, channels, 3, 3), np.float32), np.ones(4, np.float32)
            numbers = {"nInputPlane": channels, "nOutputPlane": 4, "kW": 3, "kH": 3, "padW": 1, "padH": 1}
            modules += [
                module("nn.SpatialConvolution", weight=weight, bias=bias, **numbers),
                module("nn.ReLU"),
            ]
            channels = 4
        modules.append(module("nn.SpatialMaxPooling", kW=2, kH=2, dW=2, dH=2))
    linear = {"weight": np.ones((2, 4), np.float32), "bias": np.ones(2, np.float32)}
    modules += [module("nn.View"), module("nn.Linear", **linear), module("nn.ReLU"), module("nn.Dropout")]
    return module("nn.Sequential", modules=[*modules, module("nn.SoftMax")])


def test_a_vgg_without_names_gets_oxfords() -> None:
    names = [layer.name for layer in network.from_module(vgg((2, 2, 3, 3, 3))).layers]
    assert names[:5] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"]
    assert names[-6:] == ["relu5_3", "pool5", "fc6", "relu6", "drop6", "prob"]
    assert network.from_module(vgg((2, 1, 3))).layers[0].name == "0"  # not Oxford's blocks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"opt": 1}, "is a Torch7 file without a network; it holds 'opt'"),
        ("text", "is a Torch7 file that holds no network but a str"),
        (module("nn.Sequential", modules=[1]), "the module 0 is a int, expected an object"),
        (module("nn.Sequential", modules="x"), "has modules that are no list"),
        (
            module("nn.SpatialConvolution", weight=np.ones(5), nInputPlane=1, nOutputPlane=1, kW=3, kH=3),
            r"layer 0 \(nn.SpatialConvolution\) has a weight of the shape \(5,\), expected \(1, 1, 3, 3\)",
        ),
        (
            module("nn.SpatialConvolution", weight=np.ones(9), nInputPlane=1, nOutputPlane=1, kW=0.5, kH=3),
            "has the kW 0.5",
        ),
        (
            module("nn.SpatialBatchNormalization", running_mean=np.ones(3), running_var=np.ones(2)),
            r"has parts of the shapes",
        ),
    ],
)
def test_broken_networks(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "broken.t7"
    t7.write(path, content)
    with pytest.raises((FormatError, UnsupportedError), match=message) as caught:
        network.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_containers_that_hold_one_another_end() -> None:
    loop = module("nn.Sequential", modules=[])
    loop.fields["modules"].append(loop)
    with pytest.raises(
        FormatError, match=r"nests containers deeper than 100 levels at the module 0\.0.* or one holds"
    ):
        nn.layers(loop, "loop.t7")
    tower = module("nn.Identity")
    for _ in range(60):
        tower = module("nn.ConcatTable", modules=[tower, tower])
    with pytest.raises(
        FormatError, match="has more than 100000 modules, or containers that hold one another"
    ):
        nn.layers(tower, "tower.t7")


@needs_shared
@pytest.mark.parametrize("name", ["vgg16_thin", "vgg19_thin"])
def test_vgg_files_of_loadcaffe_are_caffes_network(tmp_path: Path, name: str) -> None:
    theirs = RECORDED / "models" / f"{name}.t7"
    ours = NEURAL_STYLE / "models" / f"{name}.caffemodel"
    net, expected = model_files.load(theirs), model_files.load(ours)
    assert kinds(net) == kinds(expected)
    assert [layer.params for layer in net.layers] == [layer.params for layer in expected.layers]
    for layer, other in zip(net.layers, expected.layers, strict=True):
        for blob, second in zip(layer.blobs, other.blobs, strict=True):
            assert blob.data(flat=True).tobytes() == second.data(flat=True).tobytes()
    # And back: the bytes that Torch7 wrote, from Caffe's file alone.
    convert.write(tmp_path / "again.t7", expected)
    assert (tmp_path / "again.t7").read_bytes() == theirs.read_bytes()


def written_by_a_user() -> dict[str, Any]:
    """The program in docs/fast-neural-style.md that knows nothing of this project."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    (program,) = [block for block in blocks if "def transformer" in block]
    names: dict[str, Any] = {}
    exec(program, names)
    return names


def converted(source: Path, folder: Path, **sizes: int) -> torch.nn.Module:
    """The user's module with the weights of a .t7 file, as docs/fast-neural-style.md does it."""
    assert legacy_style("convert", source, folder / "model.pth").exit_code == 0
    model: torch.nn.Module = written_by_a_user()["transformer"](**sizes)
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    return model


def test_a_converted_network_computes_what_torch7_computed(tmp_path: Path) -> None:
    model = converted(SHIPPED / "in_rs.t7", tmp_path, a=8, b=12, c=16, residuals=2)
    assert isinstance(model, torch.nn.Sequential)
    with np.load(SHIPPED / "in_rs.npz") as arrays, torch.no_grad():
        found = model[10:16](torch.from_numpy(arrays["before"]))
        close(found, arrays["after"])


def test_sizes_of_torch7s_own_layers_are_known() -> None:
    known = geometries(model_files.load(SHIPPED / "in_rs.t7"), 20, 33)
    # As recorded (layers.txt of m_in_rs_s33), but for the containers.
    recorded = """
        0 3x52x65, 1 8x52x65, 2 8x52x65, 3 8x52x65, 4 12x26x33, 5 12x26x33, 6 12x26x33, 7 16x13x17, 8 16x13x17,
        9 16x13x17,
        10.0.0.0 16x11x15, 10.0.0.1 16x11x15, 10.0.0.2 16x11x15, 10.0.0.3 16x9x13, 10.0.0.4 16x9x13, 10.0.1 16x9x13,
        10.1 16x9x13, 11.0.0.0 16x7x11, 11.0.0.1 16x7x11, 11.0.0.2 16x7x11, 11.0.0.3 16x5x9, 11.0.0.4 16x5x9,
        11.0.1 16x5x9, 11.1 16x5x9, 12 12x10x18, 13 12x10x18, 14 12x10x18, 15 8x20x36, 16 8x20x36, 17 8x20x36,
        18 3x20x36, 19 3x20x36, 20 3x20x36, 21 3x20x36
    """
    expected = dict(line.split() for line in recorded.split(","))
    assert {name: "x".join(map(str, each.shape)) for name, each in known.items()} == expected


@needs_shared
def test_and_does_so_from_end_to_end(tmp_path: Path) -> None:
    model = converted(SHIPPED / "in_rs.t7", tmp_path, a=8, b=12, c=16, residuals=2)
    with np.load(RECORDED / "traces" / "m_in_rs_s33" / "arrays.npz") as arrays, torch.no_grad():
        close(model(torch.from_numpy(arrays["preprocess"]).float()), arrays["model_output"])


def close(found: torch.Tensor, expected: np.ndarray[Any, Any]) -> None:
    """Within what PyTorch differs from Torch7: 3e-6 a layer, of the largest value."""
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=3e-5 * np.abs(expected).max())


@needs_shared
def test_the_default_architecture_gives_the_same_picture_through_a_plain_module(tmp_path: Path) -> None:
    source = RECORDED / "models" / "candy_like.t7"
    model = converted(source, tmp_path)
    photograph = np.asarray(Image.open(RECORDED / "inputs" / "odd97x61.png").convert("RGB"))
    rgb = torch.from_numpy(photograph.astype(np.float32) / 255).permute(2, 0, 1)
    painted = written_by_a_user()["paint"](model, rgb)
    # fast_neural_style.lua takes the median of 3x3 pixels, and truncates when it saves.
    windows = torch.nn.functional.unfold(painted[:, None], 3).reshape(3, 9, painted.shape[1] - 2, -1)
    found = (windows.median(dim=1).values * 255).byte().permute(1, 2, 0).numpy().astype(int)
    expected = np.asarray(Image.open(RECORDED / "runs" / "candy_odd" / "files" / "candy.png")).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1 and (found != expected).mean() < 0.0005

"""Gatys' normalisation: means of 1, an unchanged function, and what it cannot pass through."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import vgg_files
from door import legacy_style
from PIL import Image

from legacy_style.errors import UnsupportedError
from legacy_style.formats import model_files, state_dict
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter
from legacy_style.toolkit import convert, normalise

EXAMPLES = Path(__file__).parents[2] / "examples"


def network(*, classifier: bool = False) -> NetParameter:
    arrays = vgg_files.weights((2, 2), classifier=classifier)
    return vgg_files.network(arrays)


def images(count: int, side: int = 24) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [
        torch.from_numpy(rng.uniform(-110, 140, (1, 3, side, side + n)).astype(np.float32))
        for n in range(count)
    ]


def test_means_are_those_over_all_images_and_positions() -> None:
    net = network()
    tried = images(3)
    weights = {key: torch.from_numpy(values) for key, values in state_dict.weights(net)}
    first = [
        F.relu(F.conv2d(x, weights["conv1_1.weight"], weights["conv1_1.bias"], padding=1)) for x in tried
    ]
    expected = torch.cat([y.flatten(2) for y in first], dim=2).double().mean(dim=(0, 2))
    means = normalise.mean_activations(net, tried)
    assert list(means) == ["relu1_1", "relu1_2", "relu2_1", "relu2_2"]
    assert means["relu1_1"] == pytest.approx(expected.numpy(), rel=1e-5)


def test_every_mean_becomes_one_and_the_function_stays() -> None:
    net = network(classifier=True)
    # Both pools leave 2 x 2 of 8 x 8, which is what fc6 takes.
    tried = [image[..., :8, :8].contiguous() for image in images(4)]
    means = normalise.mean_activations(net, tried)
    assert {"relu6", "relu7"} < set(means)
    made = normalise.normalised(net, means)
    again = normalise.mean_activations(made, tried)
    active = 0
    for name, mean in again.items():
        assert mean[means[name] > 0] == pytest.approx(1, rel=1e-5)
        active += int((means[name] > 0).sum())
    assert active > 20
    for image in images(2):
        small = image[..., :8, :8].contiguous()
        before, after = ({n: x.clone() for n, x in convert.activations(m, small)} for m in (net, made))
        # No ReLU follows fc8, so that it computes the very same.
        assert torch.allclose(
            before["fc8"], after["fc8"], rtol=1e-4, atol=1e-4 * float(before["fc8"].abs().max())
        )
        scale = torch.from_numpy(np.where(means["relu2_1"] > 0, means["relu2_1"], 1)).float()[
            None, :, None, None
        ]
        assert torch.allclose(before["relu2_1"], after["relu2_1"] * scale, rtol=1e-4, atol=1e-2)


def test_deviations_on_other_images() -> None:
    net = network()
    means = normalise.mean_activations(net, images(6))
    made = normalise.normalised(net, means)
    exact = normalise.deviations(net, made, means, images(6))
    assert all(row.largest < 1e-5 and row.change < 1e-5 for row in exact)
    held = normalise.deviations(net, made, means, [x / 2 for x in images(2)])
    assert any(row.largest > 0.05 for row in held)
    assert all(row.change < 1e-5 for row in held)


def test_a_wrong_scale_shows_as_a_change_of_the_function() -> None:
    net = network()
    means = normalise.mean_activations(net, images(2))
    made = normalise.normalised(net, {**means, "relu1_2": means["relu1_2"] * 1.5})
    rows = {row.layer: row for row in normalise.deviations(net, made, means, images(2))}
    assert rows["relu1_2"].change > 0.1
    assert rows["relu1_2"].largest == pytest.approx(1 / 3, rel=1e-4)
    assert rows["relu2_1"].change < 1e-5


def test_silent_channels_stay_as_they_are() -> None:
    arrays = vgg_files.weights((2, 2), classifier=False)
    arrays["conv1_1.bias"][1] = -1e6
    net = vgg_files.network(arrays)
    means = normalise.mean_activations(net, images(2))
    assert means["relu1_1"][1] == 0
    made = normalise.normalised(net, means)
    assert np.array_equal(made.layer("conv1_1").blobs[0].data()[1], arrays["conv1_1.weight"][1])
    assert normalise.deviations(net, made, means, images(2))[0].silent == 1


def test_groups_and_negative_slopes() -> None:
    rng = np.random.default_rng(2)

    def conv(name: str, bottom: str, shape: tuple[int, ...], groups: int) -> LayerParameter:
        message = Message("ConvolutionParameter", num_output=shape[0], kernel_size=[1], group=groups)
        blobs = [Blob.from_array(rng.standard_normal(shape)), Blob.from_array(rng.standard_normal(shape[0]))]
        return LayerParameter(name, "Convolution", [bottom], [name], blobs, {"convolution_param": message})

    slope = {"relu_param": Message("ReLUParameter", negative_slope=0.125)}
    net = NetParameter(
        layers=[
            conv("a", "data", (6, 3, 1, 1), 1),
            LayerParameter("ra", "ReLU", ["a"], ["a"], params=slope),
            conv("b", "a", (4, 3, 1, 1), 2),
            LayerParameter("rb", "ReLU", ["b"], ["b"]),
        ]
    )
    means = normalise.mean_activations(net, images(2))
    made = normalise.normalised(net, means)
    assert all(
        row.change < 1e-5 and row.largest < 1e-5 for row in normalise.deviations(net, made, means, images(2))
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (LayerParameter("lrn", "LRN", ["pool2"], ["lrn"]), r"layer lrn \(LRN\) does not let a factor pass"),
        (
            LayerParameter("sum", "Eltwise", ["pool2", "pool1"], ["sum"]),
            r"layer sum \(Eltwise\) begins or joins branches",
        ),
        (
            LayerParameter("side", "ReLU", ["pool1"], ["side"]),
            r"layer side \(ReLU\) begins or joins branches",
        ),
    ],
)
def test_what_cannot_be_normalised(layer: LayerParameter, message: str) -> None:
    net = network(classifier=True)
    net.layers = net.layers[: [la.name for la in net.layers].index("pool2") + 1]
    means = normalise.mean_activations(net, images(1))
    net.layers.append(layer)
    with pytest.raises(UnsupportedError, match=message):
        normalise.normalised(net, means)


def test_no_relu_at_all() -> None:
    with pytest.raises(UnsupportedError, match="no image reached a ReLU layer"):
        normalise.mean_activations(NetParameter(path="net"), images(1))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (30 + number, 50, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_the_tool(tmp_path: Path, photographs: Path) -> None:
    state_dict.write(tmp_path / "net.pth", network(), "pth")
    output = tmp_path / "made.caffemodel"
    arguments = [str(tmp_path / "net.pth"), str(photographs), str(output), "--image-size", "40"]
    result = legacy_style("normalise", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 images held back, 5 measured; mean activations against 1:")
    assert "relu2_2" in result.stdout
    assert "to a gray sheet: give -tv_weight 0" in result.stderr
    made = model_files.load(output)
    assert made.name.endswith("normalised")
    answer = json.loads(legacy_style("normalise", *arguments, "--json", "--hold-back", "2").stdout)
    assert (answer["measured"], answer["held_back"]) == (3, 3)
    assert all(layer["change"] < 1e-5 for layer in answer["layers"])
    assert all(layer["mean"] < 0.2 for layer in answer["layers"])


def test_the_tool_wants_two_images(tmp_path: Path, photographs: Path) -> None:
    state_dict.write(tmp_path / "net.pth", network(), "pth")
    for path in list(photographs.iterdir())[:-1]:
        if path.suffix == ".png":
            path.unlink()
    arguments = [str(tmp_path / "net.pth"), str(photographs), str(tmp_path / "out.pth")]
    result = legacy_style("normalise", *arguments)
    assert result.exit_code == 1
    assert "images, expected two or more" in result.stderr
    assert not (tmp_path / "out.pth").exists()

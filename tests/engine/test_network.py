"""legacy_style.engine.network: layer names, what is built and read, and layers on several devices."""

import numpy as np
import pytest
import torch
from recordings import SHIPPED

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.network import place
from legacy_style.engine.objective import Objective
from legacy_style.errors import OptionError
from legacy_style.formats import model_files
from legacy_style.formats.caffe.netparam import Blob
from legacy_style.programs.neural_style.building import build_network, check_layers
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.settings import read

VGG = SHIPPED / "models" / "VGG_ILSVRC_19_layers.caffemodel"
CPU = torch.device("cpu")
NAMES = ["conv1_1", "relu1_1", "conv2_1", "relu2_1", "pool2"]


def nowhere(line):
    pass


def build(content="relu2_2", style="relu1_1,relu2_1,relu3_1", *, tv=1e-3, normalize=False, log=nowhere):
    chain, _ = loadcaffe.modules(model_files.load(VGG))
    options = Options(content_layers=content, style_layers=style, tv_weight=tv, normalize_gradients=normalize)
    return build_network(read(options, save=False), chain, log)


# Layer names.


def test_names_in_the_order_of_the_network_are_taken():
    check_layers(NAMES, ["relu1_1", "pool2"], NAMES)
    check_layers(NAMES, [], [])


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("relu2_2", "relu2_1"), ("Relu1_1", "relu1_1"), (" conv2_1", "conv2_1"), ("pool_2", "pool2")],
)
def test_a_name_that_is_unknown_names_the_nearest_and_lists_them_all(given, nearest):
    with pytest.raises(OptionError) as caught:
        check_layers(NAMES, ["relu1_1", given], [])
    assert str(caught.value) == (
        f"-content_layers: the model has no layer {given!r}; did you mean {nearest}?"
        " Its layers are conv1_1, relu1_1, conv2_1, relu2_1, pool2"
    )


def test_a_name_like_none_of_them_is_listed_without_a_guess():
    with pytest.raises(OptionError) as caught:
        check_layers(NAMES, [], ["xyz"])
    assert str(caught.value) == (
        "-style_layers: the model has no layer 'xyz';"
        " Its layers are conv1_1, relu1_1, conv2_1, relu2_1, pool2"
    )


@pytest.mark.parametrize(
    "given", [["relu2_1", "relu1_1"], ["relu1_1", "relu1_1"], ["conv1_1", "pool2", "relu2_1"]]
)
def test_a_name_that_is_repeated_or_out_of_order_is_refused_with_the_right_order(given):
    right = ", ".join(name for name in NAMES if name in given)
    with pytest.raises(OptionError, match=f"'{given[-1]}' is repeated or out of order.*: {right}$"):
        check_layers(NAMES, [], given)


# What is built.


def test_the_network_ends_with_its_last_loss_and_content_comes_first_at_one_layer():
    said = []
    net = build("relu2_1", "relu1_1,relu2_1", log=said.append)
    assert [str(module).partition("(")[0] for module in net.listing] == [
        *(
            "nn.TVLoss",
            "nn.SpatialConvolution",
            "nn.ReLU",
            "nn.StyleLoss",
            "nn.SpatialConvolution",
            "nn.ReLU",
        ),
        *("nn.SpatialMaxPooling", "nn.SpatialConvolution", "nn.ReLU", "nn.ContentLoss", "nn.StyleLoss"),
    ]
    assert said == [
        "Setting up style layer  \t2\t:\trelu1_1\t",
        "Setting up content layer\t7\t:\trelu2_1\t",
        "Setting up style layer  \t7\t:\trelu2_1\t",
    ]


def test_layers_above_the_last_loss_are_never_read(monkeypatch):
    read = []
    whole = Blob.data

    def counting(self):
        read.append(tuple(self.shape))
        return whole(self)

    monkeypatch.setattr(Blob, "data", counting)
    build("relu2_1", "relu1_1")
    assert [shape[0] for shape in read if len(shape) == 4 and shape[1] > 1] == [
        8,
        8,
        16,
    ]  # conv1_1, conv1_2, conv2_1
    assert len(read) == 6  # and their biases


def test_without_losses_there_is_total_variation_alone():
    net = build("", "")
    assert [str(module) for module in net.listing] == ["nn.TVLoss"]
    place(net, [CPU])
    image = torch.zeros(1, 3, 4, 4)
    image[..., 1, 1] = 1.0
    with torch.no_grad():
        values, grad = Objective(net)(image)
    assert values == {}
    assert grad[0, 0, 1, 1].item() == pytest.approx(4e-3)


# Layers on several devices: the CPU, named several times.

IMAGES = {
    name: torch.from_numpy(np.float32(np.random.RandomState(seed).randn(1, 3, 33, 45) * 60))
    for seed, name in enumerate(("content", "style", "image"))
}


@torch.no_grad()
def evaluate(net):
    objective = Objective(net)
    objective.capture(IMAGES["content"], net.losses_from("content"))
    objective.capture(IMAGES["style"], net.losses_from("style"))
    return objective(IMAGES["image"].clone())


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    "strategy", ["3", "1", "5,6", "4,8,12", "2,3,4,5,6,7"], ids=lambda text: text.replace(",", "-")
)
def test_a_split_network_has_the_same_losses_and_gradient_to_the_last_bit(strategy, normalize):
    net, split = build(normalize=normalize), build(normalize=normalize)
    place(net, [CPU])
    place(split, [CPU] * (strategy.count(",") + 2), [int(each) for each in strategy.split(",")])
    (values, grad), ours = evaluate(net), evaluate(split)
    assert ours[0] == values
    assert torch.equal(ours[1], grad)


def test_a_split_network_prints_as_nn_gpu_does():
    """nn/GPU.lua, __tostring__: GPUs count from 1, each with its part of the network, indented."""
    net = build("relu1_1", "relu1_1")
    place(net, [CPU] * 2, [2], [1, 4])
    assert str(net).split("\n") == [
        "nn.Sequential {",
        "  [input -> (1) -> (2) -> output]",
        "  (1): nn.GPU(1) @ nn.Sequential {",
        "    [input -> (1) -> (2) -> output]",
        "    (1): nn.TVLoss",
        "    (2): nn.SpatialConvolution(3 -> 8, 3x3, 1,1, 1,1)",
        "  }",
        "  (2): nn.GPU(4) @ nn.Sequential {",
        "    [input -> (1) -> (2) -> (3) -> output]",
        "    (1): nn.ReLU",
        "    (2): nn.ContentLoss",
        "    (3): nn.StyleLoss",
        "  }",
        "}",
    ]


@pytest.mark.parametrize(("tv", "first"), [(1e-3, 4), (0, 3)])
def test_two_devices_are_split_after_the_third_layer_where_nothing_is_said(tv, first):
    net = build(tv=tv)
    place(net, [CPU] * 2)
    assert [len(part) for _, part in net.chunks] == [first, len(net.listing) - first]


@pytest.mark.parametrize(
    ("count", "strategy", "message"),
    [
        (3, None, "-multigpu_strategy must be given for 3 GPUs"),
        (
            2,
            (3, 6),
            "splits the network's 14 layers into 3 parts, but 2 GPUs are given; give 1 rising layer numbers",
        ),
        (3, (3,), "into 2 parts, but 3 GPUs are given; give 2 rising layer numbers"),
        (3, (6, 3), "into 2 parts, but 3 GPUs are given"),
        (2, (99,), "into 1 parts, but 2 GPUs are given"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused(count, strategy, message):
    net = build("relu2_1", "relu1_1,relu2_1,relu2_2")
    with pytest.raises(OptionError, match=message):
        place(net, [CPU] * count, strategy)


def test_a_gpu_without_a_number_is_the_one_that_is_current(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert network._numbered(torch.device("cuda")) == torch.device("cuda", 1)
    for device in (torch.device("cuda", 0), torch.device("cpu")):
        assert network._numbered(device) == device

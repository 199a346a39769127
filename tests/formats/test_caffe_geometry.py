"""Sizes against recordings and OpenCV's rules worked out by hand; receptive fields against gradients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import vgg_files
from recordings import RECORDED, component, needs_shared

from legacy_style.engine import loadcaffe
from legacy_style.formats import model_files
from legacy_style.formats.caffe.geometry import Geometry, geometries, pair
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter
from legacy_style.toolkit import convert


def conv(name: str, bottom: str, count: int, kernel: int, **values: object) -> LayerParameter:
    message = Message("ConvolutionParameter", num_output=count, kernel_size=[kernel], **values)
    return LayerParameter(name, "Convolution", [bottom], [name], [], {"convolution_param": message})


def pool(name: str, bottom: str, **values: object) -> LayerParameter:
    return LayerParameter(
        name, "Pooling", [bottom], [name], [], {"pooling_param": Message("PoolingParameter", **values)}
    )


@pytest.mark.parametrize(
    ("name", "field", "step"),
    [
        ("conv1_2", 5, 1),
        ("pool1", 6, 2),
        ("conv2_2", 14, 2),
        ("conv3_3", 40, 4),
        ("conv4_3", 92, 8),
        ("conv5_3", 196, 16),
        ("pool5", 212, 32),
    ],
)
def test_vgg16s_receptive_fields_as_published(name: str, field: int, step: int) -> None:
    net = vgg_files.network(vgg_files.weights(vgg_files.VGG16))
    geometry = geometries(net, 224, 200)[name]
    assert (geometry.field, geometry.step) == ((field, field), (step, step))


@pytest.mark.parametrize(("n", "expected"), [(6, 3), (7, 4), (1, 1)])
def test_pooling_rounds_up(n: int, expected: int) -> None:
    net = NetParameter(layers=[pool("p", "data", pool="MAX", kernel_size=2, stride=2)])
    found = geometries(net, n, 8)
    assert found["p"].size == (expected, 4)


def test_pooling_drops_a_window_that_begins_in_the_padding() -> None:
    # ceil((5 + 2 - 2) / 2) + 1 = 4 windows; the last begins at 6 - 1 = 5, which is beyond the end.
    net = NetParameter(layers=[pool("p", "data", pool="AVE", kernel_size=2, stride=2, pad=1)])
    assert geometries(net, 5, 5)["p"].size == (3, 3)


def test_rectangles_dilation_and_strides() -> None:
    message = Message(
        "ConvolutionParameter", num_output=5, kernel_h=3, kernel_w=1, stride_h=2, stride_w=1, pad=[1]
    )
    first = LayerParameter("a", "Convolution", ["data"], ["a"], [], {"convolution_param": message})
    net = NetParameter(layers=[first, conv("b", "a", 7, 3, dilation=[2])])
    found = geometries(net, 9, 9)
    assert found["a"] == Geometry(5, (5, 11), (3, 1), (2, 1))
    # Five positions of `a` are seen: 3 + 4 * 2 rows and 1 + 4 columns.
    assert found["b"] == Geometry(7, (1, 7), (11, 5), (2, 1))


def test_branches_join_with_the_widest_field_and_all_channels() -> None:
    net = NetParameter(
        layers=[
            conv("a", "data", 4, 3, pad=[1]),
            conv("b", "a", 2, 1),
            conv("c", "a", 3, 5, pad=[2]),
            LayerParameter("join", "Concat", ["b", "c"], ["join"]),
            LayerParameter("relu", "ReLU", ["join"], ["join"]),
            pool("global", "join", pool="AVE", global_pooling=True),
            LayerParameter("odd", "Mystery", ["join"], ["odd"]),
            conv("behind", "odd", 2, 1),
        ]
    )
    found = geometries(net, 8, 8)
    assert found["join"] == found["relu"] == Geometry(5, (8, 8), (7, 7), (1, 1))
    assert found["global"] == Geometry(5, (1, 1), None)
    assert "odd" not in found
    assert "behind" not in found


def test_inner_products_see_everything_and_what_does_not_fit_is_left_out() -> None:
    layer = LayerParameter("fc", "InnerProduct", ["data"], ["fc"], [Blob.from_array(np.ones((1, 1, 4, 27)))])
    net = NetParameter(layers=[conv("big", "data", 2, 9), layer])
    assert geometries(net, 3, 3) == {"fc": Geometry(4, (1, 1), None)}


def test_deconvolution() -> None:
    message = Message("ConvolutionParameter", num_output=3, kernel_size=[4], stride=[2], pad=[1])
    up = LayerParameter("up", "Deconvolution", ["p"], ["up"], [], {"convolution_param": message})
    net = NetParameter(layers=[pool("p", "data", pool="MAX", kernel_size=2, stride=2), up])
    assert geometries(net, 8, 8)["up"] == Geometry(3, (8, 8), (4, 4), (1, 1))


@pytest.mark.parametrize("side", [33, 48])
def test_fields_are_what_gradients_reach(side: int) -> None:
    net = vgg_files.network(vgg_files.weights((2, 2, 3), classifier=False))
    found = geometries(net, side, side)
    # Positive weights and average pooling, so that no path is cut.
    image = torch.ones(1, 3, side, side, requires_grad=True)
    x = image
    for layer in net.layers:
        if layer.type == "Convolution":
            x = torch.nn.functional.conv2d(x, torch.ones(layer.blobs[0].shape), padding=1)
        elif layer.type == "Pooling":
            x = torch.nn.functional.avg_pool2d(x, 2, 2, ceil_mode=True)
        assert found[layer.name].shape == tuple(x.shape[1:])
        middle = x.shape[2] // 2
        (grad,) = torch.autograd.grad(x[0, 0, middle, middle], image, retain_graph=True)
        rows = torch.nonzero(grad.abs().sum((0, 1, 3)))
        field = found[layer.name].field
        assert field is not None
        assert min(field[0], side) >= len(rows)
        if field[0] < side // 2:
            assert field[0] == len(rows), layer.name


@needs_shared
def test_sizes_of_every_recorded_network() -> None:
    checked = 0
    for folder in sorted((RECORDED / "components").glob("act_*")):
        name = folder.name.removeprefix("act_").removesuffix("_odd").removesuffix("_square")
        net = model_files.load(RECORDED / "models" / f"{name}.caffemodel")
        arrays = component(folder.name)
        found = geometries(net, *arrays.pop("input").shape[-2:])
        for key, values in arrays.items():
            geometry = found.get(key.split("_", 1)[1])
            if geometry is not None and geometry.field is not None and values.ndim == 3:
                assert values.shape == geometry.shape, (folder.name, key)
                checked += 1
    assert checked > 200


def test_sizes_are_those_that_the_program_makes() -> None:
    net = vgg_files.network(vgg_files.weights(vgg_files.VGG19, classifier=False))
    found = geometries(net, 45, 61)
    for name, output in convert.activations(net, convert.test_image(45, 61)):
        assert tuple(output.shape[1:]) == found[name].shape


def caffes_positions(n: int, kernel: int, stride: int, pad: int, *, ceil: bool) -> int:
    """pooling_layer.cpp, Reshape, as it stands there: the float division, and the check where there is padding."""
    span = (n + 2 * pad - kernel) / stride
    count = int(math.ceil(span) if ceil else math.floor(span)) + 1
    if pad and (count - 1) * stride >= n + pad:
        count -= 1
    return count


@pytest.mark.parametrize("mode", ["CEIL", "FLOOR"])
def test_a_pooling_has_caffes_size_and_the_one_that_is_computed(mode: str) -> None:
    empty = 0
    for n, kernel, stride, pad in itertools.product(range(1, 12), range(1, 6), range(1, 6), range(3)):
        if pad >= kernel or n + 2 * pad < kernel:
            continue
        message = Message(
            "PoolingParameter", kernel_size=kernel, stride=stride, pad=pad, round_mode=mode, pool="MAX"
        )
        layer = LayerParameter("p", "Pooling", ["data"], ["p"], params={"pooling_param": message})
        size = geometries(NetParameter(layers=[layer]), n, n)["p"].size
        expected = caffes_positions(n, kernel, stride, pad, ceil=mode == "CEIL")
        if (expected - 1) * stride >= n + pad:  # a window that covers nothing: see fidelity.md
            assert pad == 0
            assert stride > kernel
            expected, empty = expected - 1, empty + 1
        assert size == (expected, expected), (n, kernel, stride, pad)
        if 2 * pad <= kernel:  # PyTorch takes no more
            computed = (
                loadcaffe.modules(NetParameter(layers=[layer]))[0][0].build().forward(torch.zeros(1, 1, n, n))
            )
            assert tuple(computed.shape[2:]) == size, (n, kernel, stride, pad)
    assert (empty > 0) == (mode == "CEIL")


def test_one_of_two_numbers_counts_for_both_but_for_padding() -> None:
    given = Message("PoolingParameter", kernel_h=3, stride_w=2, pad_h=1)
    assert [pair(given, stem, 0) for stem in ("kernel", "stride", "pad")] == [(3, 3), (2, 2), (0, 0)]

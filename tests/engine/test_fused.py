"""legacy_style.engine.kernels.fused: its plain twins, and Triton's kernels in Triton's interpreter, against PyTorch."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import thin_networks as thin
import torch
import torch.nn.functional as F

from legacy_style.engine.kernels import convolution, fused
from legacy_style.torch7 import nn

CPU = torch.device("cpu")


@pytest.fixture(params=["plain", "Triton"])
def way(request, monkeypatch):
    """PyTorch's operations, or Triton's kernels on the CPU."""
    if request.param == "Triton":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.delitem(sys.modules, "legacy_style.engine.kernels.tritons", raising=False)
        fused._kernels.cache_clear()
        monkeypatch.setattr(fused, "works", lambda device: True)
        yield request.param
        fused._kernels.cache_clear()
        sys.modules.pop("legacy_style.engine.kernels.tritons", None)
    else:
        yield request.param


def maps(shape, seed, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 100
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


SHAPES = [(1, 64, 7, 9), (1, 130, 5, 5), (1, 24, 1, 6), (1, 3, 2, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bias_and_relu_are_added_in_place(way, shape, dtype):
    y, bias = maps(shape, 1, dtype), maps((1, shape[1], 1, 1), 2, dtype).flatten()
    y[0, 0, 0, 0] = float("nan")
    exact = y.double() + bias.double().view(1, -1, 1, 1)
    for rectify, right in ((False, exact), (True, exact.relu())):
        given = y.clone(memory_format=torch.channels_last)
        ours = fused.add_bias(given, bias, rectify=rectify)
        assert ours.data_ptr() == given.data_ptr()
        # The interpreter cuts off what bfloat16 does not hold.
        close = {"rtol": 2**-23, "atol": 0.0} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 0.0}
        torch.testing.assert_close(ours.double(), right, equal_nan=True, **close)
        assert ours[0, 0, 0, 0].isnan(), "a run that went astray is not to be hidden"


def test_without_bias_there_is_the_relu_alone(way):
    y = maps((1, 64, 7, 9), 1)
    assert torch.equal(fused.add_bias(y.clone(), None, rectify=True), y.relu())
    assert torch.equal(fused.add_bias(y.clone(), None, rectify=False), y)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_parts_of_what_is_masked_add_up_to_the_bit(way, shape, count):
    x, positive = maps(shape, 1), maps(shape, 2)
    for mask, right in ((None, x), (positive, torch.where(positive > 0, x, 0.0))):
        parts = maps((1, count * shape[1], *shape[2:]), 3)
        fused.split(x.clone(memory_format=torch.channels_last), mask, parts)
        high, low, *again = parts.split(shape[1], 1)
        assert torch.equal(high + low, right)
        assert len(again) == count - 2 and all(torch.equal(high, each) for each in again)
        assert not (high.contiguous().view(torch.int32) & ~fused.HIGH).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "size", [(8, 6), (7, 9), (1, 5), (5, 1), (1, 1)], ids=lambda size: "x".join(map(str, size))
)
def test_the_way_back_through_pooling_and_relu_is_pytorchs_to_the_bit(way, size, dtype):
    layer = nn.SpatialMaxPooling("", (2, 2), (2, 2))
    layer.rectified = True
    layer.to(CPU)
    fused.install(layer)
    assert (layer.backwards is None) == (way == "plain")
    x = (
        (maps((1, 24, *size), 1) / 50).round().to(dtype).contiguous(memory_format=torch.channels_last)
    )  # many equal ones
    if min(size) > 5:
        x[0, 0, 0, 0] = x[0, 1, 0, 1] = x[0, 1, 1, 1] = float("nan")
    grad = maps(layer.forward(x).shape, 2, dtype)
    right = nn.mask(layer.by_indices(x, grad), x)
    ours = layer.backward(x, layer.forward(x), grad)
    assert torch.equal(ours if way == "Triton" else nn.mask(ours, x), right)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("tile", [0, 48])
def test_a_network_whose_poolings_do_the_relu_has_the_same_gradient(tile, normalize, monkeypatch):
    images = [thin.smooth(60, 70, seed).float() for seed in range(3)]

    def gradient():
        # With losses behind a ReLU and behind a pooling, and on a ReLU in front of one.
        net = thin.build(
            thin.load("vgg19"), ["relu2_2"], ["relu1_1", "relu1_2", "pool2"], normalize=normalize
        )
        return thin.evaluate(net, *images, tile)[1]

    def unpool(x, grad):
        used.append(x.shape)
        return nn.mask(nn.SpatialMaxPooling("", (2, 2), (2, 2)).by_indices(x, grad), x)

    used: list[object] = []
    plain = gradient()
    monkeypatch.setattr(fused, "works", lambda device: True)
    monkeypatch.setattr(fused, "_kernels", lambda: SimpleNamespace(unpool=unpool))
    assert torch.equal(gradient(), plain)
    assert used


def test_where_no_relu_is_in_front_the_way_back_is_pytorchs(monkeypatch):
    monkeypatch.setattr(fused, "works", lambda device: True)
    layer = nn.SpatialMaxPooling("", (2, 2), (2, 2))
    fused.install(layer)
    assert layer.backwards is None


def test_what_no_kernel_takes_goes_through_the_relu_too(monkeypatch):
    monkeypatch.setattr(fused, "works", lambda device: True)
    layer = nn.SpatialMaxPooling("", (2, 2), (2, 2))
    layer.rectified = True
    fused.install(layer)
    x = maps((1, 24, 8, 6), 1).double()
    grad = maps((1, 24, 4, 3), 2).double()
    assert torch.equal(layer.backward(x, x, grad), nn.mask(layer.by_indices(x, grad), x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.SpatialMaxPooling("", (3, 3), (2, 2)),
        nn.SpatialMaxPooling("", (2, 2), (2, 2), ceil=False),
        nn.SpatialMaxPooling("", (2, 2), (2, 2), (1, 1)),
    ],
    ids=str,
)
def test_other_poolings_stay_pytorchs(layer, monkeypatch):
    monkeypatch.setattr(fused, "works", lambda device: True)
    layer.rectified = True
    fused.install(layer)
    assert layer.backwards is None


def test_triton_is_for_gpus():
    assert not fused.works(CPU)


def test_all_kernels_are_built_and_tried_before_one_is_used(way, monkeypatch):
    """Triton's own errors are no RuntimeErrors."""
    if way == "Triton":
        assert fused._builds(CPU)
        return

    class TritonError(Exception):
        pass

    class Plain:
        def add_bias(y, bias, *, rectify):
            y.add_(bias).relu_()

        def split(x, positive, parts):
            x = torch.where(positive > 0, x, 0.0)
            parts.copy_(torch.cat([x, torch.zeros_like(x), x], 1))

        def unpool(x, grad):
            return nn.mask(nn.SpatialMaxPooling("", (2, 2), (2, 2)).by_indices(x, grad), x)

    Plain.TritonError = TritonError
    monkeypatch.setattr(fused, "_kernels", lambda: Plain)
    assert fused._builds(CPU)
    for name in ("add_bias", "split", "unpool"):
        for error in (TritonError, RuntimeError):

            def broken(*_, error=error, **__):
                raise error("ptxas failed")

            with monkeypatch.context() as patch:
                patch.setattr(Plain, name, broken)
                assert not fused._builds(CPU)
    with monkeypatch.context() as patch:
        patch.setattr(Plain, "unpool", lambda x, grad: torch.zeros_like(x))
        assert not fused._builds(CPU), "it computes something else"


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", ["columns", "split", "direct"])
def test_a_gpus_ways_are_the_convolution(way, kind, with_bias, rectify, monkeypatch):
    """Without TF32 units, so that split products are float32's."""
    monkeypatch.setattr(convolution, "choose", lambda *_, **__: kind)
    x, weight = maps((1, 3, 11, 8), 1) / 100, maps((32, 3, 3, 3), 2) / 100
    bias = maps((1, 32, 1, 1), 3).flatten() / 100 if with_bias else None
    layer = nn.SpatialConvolution("", weight, bias, pad=(1, 0))
    layer.rectify = rectify
    layer.to(CPU)
    convolution.install(layer)
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=(1, 0))
    y = layer.forward(x)
    torch.testing.assert_close(y.double(), exact.relu() if rectify else exact, rtol=1e-4, atol=1e-4)
    assert y.is_contiguous(memory_format=torch.channels_last)
    grad = maps(exact.shape, 4) / 100
    masked = torch.where(y > 0, grad, 0.0) if rectify else grad
    right = torch.nn.grad.conv2d_input(x.shape, weight.double(), masked.double(), padding=(1, 0))
    ours = layer.backward(x, y, grad.clone(memory_format=torch.channels_last))
    torch.testing.assert_close(ours.double(), right, rtol=1e-4, atol=1e-4)

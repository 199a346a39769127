"""legacy_style.engine.kernels: which way a convolution goes, and that each is as exact as it says."""

import pytest
import torch
import torch.nn.functional as F

from legacy_style.engine.kernels import convolution, packed, split, winograd
from legacy_style.engine.kernels.packed import Packed
from legacy_style.torch7 import nn

CPU = torch.device("cpu")
WAYS = [
    ((64, 3, 3, 3), {"pad": (1, 1)}, "taps"),
    ((64, 64, 3, 3), {"pad": (1, 1)}, "direct"),
    ((128, 64, 3, 3), {"pad": (1, 1)}, "winograd"),
    ((128, 64, 3, 3), {"pad": (0, 0)}, "direct"),
    ((96, 48, 5, 5), {"pad": (2, 2), "stride": (2, 2)}, "general"),
    ((96, 48, 3, 3), {"pad": (3, 3)}, "general"),
]


@pytest.mark.parametrize(("shape", "more", "way"), WAYS)
def test_the_way_is_chosen_by_shape(shape, more, way):
    assert convolution.choose(CPU, torch.float32, shape, **more) == way


def test_winograd_is_float32_and_of_the_cpu(monkeypatch):
    shape, pad = (256, 256, 3, 3), (1, 1)
    assert convolution.choose(CPU, torch.bfloat16, shape, pad=pad) == "direct"
    monkeypatch.setattr(split, "has_units", lambda device: False)
    assert convolution.choose(torch.device("cuda"), torch.float32, shape, pad=pad) == "direct"
    assert convolution.choose(torch.device("cuda"), torch.float32, (64, 3, 3, 3), pad=pad) == "columns"
    assert convolution.choose(torch.device("cuda"), torch.float64, (64, 3, 3, 3), pad=pad) == "direct"


@pytest.mark.parametrize(("shape", "more", "way"), WAYS)
@torch.no_grad()
def test_every_way_keeps_its_promise(shape, more, way):
    """Relative, root mean square, against float64: 2e-6, some more than the 1.2e-6 that was measured."""
    torch.manual_seed(8)
    weight = torch.randn(shape, dtype=torch.float64) / (shape[1] * shape[2] * shape[3]) ** 0.5
    x = torch.randn(1, shape[1], 21, 19, dtype=torch.float64)
    y = F.conv2d(x, weight, None, more.get("stride", 1), more["pad"])
    incoming = torch.randn_like(y)
    expected = torch.nn.grad.conv2d_input(x.shape, weight, incoming, more.get("stride", 1), more["pad"])
    layer = nn.SpatialConvolution("", weight.float(), None, **more)
    layer.to(CPU)
    convolution.install(layer)
    ours = layer.forward(x.float())
    grad = layer.backward(x.float(), ours, incoming.float())
    for mine, right in ((ours, y), (grad, expected)):
        assert (mine - right).norm() < 2e-6 * right.norm(), way


@pytest.mark.parametrize(("size", "by_winograd"), [((10, 14), True), ((9, 14), False)])
@pytest.mark.parametrize("channels", [(128, 64), (64, 128)])
def test_wide_layers_go_winograds_way_in_both_directions_but_for_small_maps(
    channels, size, by_winograd, monkeypatch
):
    gone = []
    convolve = winograd.convolve
    monkeypatch.setattr(
        winograd, "convolve", lambda *given, **more: gone.append(1) or convolve(*given, **more)
    )
    outputs, inputs = channels
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / 30
    bias = torch.randn(outputs, generator=generator)
    layers = [nn.SpatialConvolution("conv", weight, bias, pad=(1, 1)) for _ in range(2)]
    layers[0].to(CPU, torch.float64)
    layers[1].to(CPU)
    convolution.install(layers[1])
    x = torch.randn(1, inputs, *size, generator=generator)
    results = []
    for layer, dtype in zip(layers, (torch.float64, torch.float32), strict=True):
        y = layer.forward(x.to(dtype).contiguous(memory_format=torch.channels_last))
        grad = torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)
        results.append((y.double(), layer.backward(x.to(dtype), y, grad).double()))
    assert len(gone) == (2 if by_winograd else 0)
    for exact, ours in zip(*results, strict=True):
        assert (ours - exact).norm() < 2e-6 * exact.norm()


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 64), (64, 64), (64, 128)])
def test_a_convolution_with_its_relu_is_the_two_in_a_row(inputs, outputs):
    generator = torch.Generator().manual_seed(2)
    x, weight = (
        torch.randn(shape, generator=generator) for shape in ((1, inputs, 9, 7), (outputs, inputs, 3, 3))
    )
    plain, fused = (nn.SpatialConvolution("conv", weight, torch.ones(outputs), pad=(1, 1)) for _ in range(2))
    fused.rectify = True
    for layer in (plain, fused):
        layer.to(CPU)
        convolution.install(layer)
    y = plain.forward(x).relu_()
    grad = torch.randn(y.shape, generator=generator)
    assert torch.equal(fused.forward(x), y)
    expected = plain.backward(x, y, nn.ReLU().backward(y, y, grad.clone()))
    assert torch.equal(fused.backward(x, y, grad.clone()), expected)


@pytest.mark.parametrize("channels", [(3, 64), (64, 64), (128, 128)])
@torch.no_grad()
def test_kernels_that_were_put_in_order_serve_maps_of_every_size(channels):
    generator = torch.Generator().manual_seed(5)
    inputs, outputs = channels
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / 30
    layer = nn.SpatialConvolution("conv", weight, torch.randn(outputs, generator=generator), pad=(1, 1))
    layer.to(CPU)
    convolution.install(layer)
    for size in ((6, 9), (8, 8), (1, 1), (3, 2), (6, 9)):
        x = torch.randn(1, inputs, *size, generator=generator).contiguous(memory_format=torch.channels_last)
        y = layer.forward(x)
        exact = F.conv2d(x.double(), weight.double(), layer.bias.double(), padding=1)
        assert (y - exact).norm() < 2e-6 * exact.norm()
        grad = torch.randn(y.shape, generator=generator)
        exact = torch.nn.grad.conv2d_input(x.shape, weight.double(), grad.double(), padding=1)
        assert (layer.backward(x, y, grad) - exact).norm() < 2e-6 * exact.norm()


@pytest.mark.parametrize("channels", [(3, 64), (64, 64), (128, 128)])
def test_what_is_no_number_passes_through_a_layer_with_its_relu(channels):
    inputs, outputs = channels
    layer = nn.SpatialConvolution("conv", torch.ones(outputs, inputs, 3, 3), torch.ones(outputs), pad=(1, 1))
    layer.rectify = True
    layer.to(CPU)
    convolution.install(layer)
    x = torch.ones(1, inputs, 6, 9).contiguous(memory_format=torch.channels_last)
    x[0, 0, 2, 4] = torch.nan
    y = layer.forward(x)
    assert y[0, :, 2, 4].isnan().all()
    assert not y[0, :, 5, 0].isnan().any()


def test_kernels_are_put_in_order_for_each_size_once(monkeypatch):
    ordered = []
    prepare = Packed._prepare
    monkeypatch.setattr(Packed, "_prepare", lambda self, x: ordered.append(x.shape[2:]) or prepare(self, x))
    convolve = Packed(torch.randn(64, 64, 3, 3), None, (1, 1))
    for size in ((6, 9), (6, 9), (8, 8), (8, 8), (6, 9)):
        convolve(torch.randn(1, 64, *size).contiguous(memory_format=torch.channels_last))
    # Where oneDNN has no order of its own, the kernels suit every size.
    assert ordered == ([(6, 9), (8, 8), (6, 9)] if packed.can_order(torch.empty(1)) else [(6, 9)])


@pytest.mark.parametrize("fault", ["refuses", "is wrong"])
def test_where_onednns_order_is_not_what_it_should_be_pytorch_convolves(fault, monkeypatch):
    def order(weight, pad, x):
        if fault == "refuses":
            raise RuntimeError("could not create a primitive")
        return torch.zeros_like(weight)

    monkeypatch.setattr(packed, "_order", order)
    packed._works.cache_clear()
    try:
        weight = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(6))
        x = torch.ones(1, 64, 5, 4).contiguous(memory_format=torch.channels_last)
        assert torch.equal(Packed(weight, None, (1, 1))(x), F.conv2d(x, weight, padding=1))
    finally:
        packed._works.cache_clear()

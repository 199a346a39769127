"""The fused forward pass against the modules that it stands for, and what it recognises."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from pretended_card import pretend
from torch import Tensor, nn

from legacy_style.engine.kernels import shuffled, winograd
from legacy_style.errors import UnsupportedError
from legacy_style.programs.fast_neural_style import forward, layers, shapes
from legacy_style.programs.fast_neural_style.forward import Forward

PADDINGS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}


def norm(kind: str, channels: int) -> nn.Module:
    if kind == "instance":
        module: nn.Module = layers.InstanceNormalization(channels)
    else:
        module = nn.BatchNorm2d(channels)
        nn.init.uniform_(module.running_mean, -1, 1)
        nn.init.uniform_(module.running_var, 0.5, 2)
        nn.init.uniform_(module.weight)
    nn.init.uniform_(module.bias, -1, 1)
    return module


def convolution(padding: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    pad = kernel // 2
    if padding in PADDINGS and stride == 1:
        return [PADDINGS[padding](pad), nn.Conv2d(inputs, outputs, kernel)]
    return [nn.Conv2d(inputs, outputs, kernel, stride, 0 if padding == "none" else pad)]


def block(padding: str, kind: str, channels: int) -> nn.Sequential:
    first, second = (convolution(padding, channels, channels, 3) for _ in range(2))
    return nn.Sequential(*first, norm(kind, channels), nn.ReLU(inplace=True), *second, norm(kind, channels))


def build(padding: str, kind: str, up: str, width: int = 8) -> nn.Sequential:
    """An architecture with every kind of token: c, d, R, C, u or U, c."""
    around = "reflect" if padding == "none" else padding
    identity = layers.ShaveImage(2) if padding == "none" else nn.Identity()
    modules = [
        *(*convolution(around, 3, width, 9), norm(kind, width), nn.ReLU(inplace=True)),
        *(*convolution("zero", width, width, 3, 2), norm(kind, width), nn.ReLU(inplace=True)),
        nn.Sequential(layers.ConcatTable([block(padding, kind, width), identity]), layers.CAddTable()),
        *(block(padding, kind, width), nn.ReLU(inplace=True)),
    ]
    if up == "U":
        modules += [nn.Upsample(scale_factor=2), norm(kind, width), nn.ReLU(inplace=True)]
        modules += [*convolution(around, width, width, 3), norm(kind, width), nn.ReLU(inplace=True)]
    else:
        modules += [nn.ConvTranspose2d(width, width, 3, 2, 1, 1), norm(kind, width), nn.ReLU(inplace=True)]
    modules += [
        *convolution(around, width, 3, 9),
        nn.Tanh(),
        layers.MulConstant(150),
        layers.TotalVariation(1),
    ]
    return nn.Sequential(*modules).eval()


def outputs(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the network gives in float64, in float32, and fused."""
    with torch.no_grad():
        return (
            copy.deepcopy(network).double()(x.double()),
            network(x),
            Forward(network, torch.device("cpu"))(x),
        )


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero", "none"])
@pytest.mark.parametrize("kind", ["instance", "batch"])
@pytest.mark.parametrize("up", ["u", "U"])
def test_it_gives_what_the_modules_give(padding: str, kind: str, up: str) -> None:
    torch.manual_seed(1)
    network = build(padding, kind, up)
    x = torch.randn(1, 3, 42, 55) * 60
    before = x.clone(), copy.deepcopy(network.state_dict())
    exact, plain, fused = outputs(network, x)
    assert fused.shape == plain.shape == (1, *shapes.output_shape(network, (3, 42, 55)))
    # As close to the exact values as the modules in float32, whose error is about 1e-4 of 150.
    assert (fused - exact).abs().max() < 4 * (plain - exact).abs().max() + 1e-4
    assert torch.equal(x, before[0])
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), before[1].values(), strict=True)
    )


def test_wide_layers_go_the_fast_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    network = build("reflect", "instance", "U", width=128)
    used = []
    for module, name in ((winograd, "convolve"), (shuffled, "to_few"), (shuffled, "behind_upsampling")):
        function = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, _f=function, _n=name, **k: (used.append(_n), _f(*a, **k))[1]
        )
    exact, plain, fused = outputs(network, torch.randn(1, 3, 32, 40) * 60)
    assert used == ["convolve"] * 4 + ["behind_upsampling", "to_few"]
    assert (fused - exact).abs().max() < 4 * (plain - exact).abs().max() + 1e-4


def test_what_is_not_recognised_runs_as_it_is() -> None:
    torch.manual_seed(3)
    # A residual block that begins with an in-place ReLU, three branches, and upsampling by 3.
    odd = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=2, dilation=2),
        nn.Sequential(
            layers.ConcatTable([nn.Sequential(nn.Conv2d(4, 4, 1)), nn.Identity(), nn.Identity()]),
            layers.CAddTable(),
        ),
        nn.Sequential(
            layers.ConcatTable([nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1)), nn.Identity()]),
            layers.CAddTable(),
        ),
        *(nn.Upsample(scale_factor=3), nn.Conv2d(4, 8, 3, padding=1), nn.Sigmoid(), nn.AvgPool2d(2)),
    ).eval()
    exact, _, fused = outputs(odd, torch.randn(1, 3, 9, 10))
    torch.testing.assert_close(fused.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_gpu_records_the_second_image_of_a_size_and_copies_images_alone(monkeypatch):
    # Fake parameters can be neither copied nor moved: they are made where they are to be.
    monkeypatch.setattr(forward, "copy", SimpleNamespace(deepcopy=lambda network: network))
    monkeypatch.setattr(nn.Module, "to", lambda network, *_, **__: network)
    watch, card, cpu = pretend(monkeypatch), torch.device("cuda", 0), torch.device("cpu")
    with watch:
        with card:
            ours = Forward(build("reflect", "instance", "u"), card)
        watch.copies.clear()
        for height in (64, 64, 64, 32, 32):
            ours(torch.empty(1, 3, height, 48))
    assert watch.wrong == []
    assert (len(watch.graphs), watch.replays) == (2, 3)
    sizes = [3 * height * 48 * 4 for height in (64, 64, 64, 32, 32)]
    assert watch.copies == [copy for size in sizes for copy in ((cpu, card, size), (card, cpu, size))]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.gpu
def test_cuda_gives_what_the_modules_give_for_images_of_changing_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(5)
    network, device = build("reflect", "instance", "u"), torch.device("cuda", 0)
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        monkeypatch.setattr(backend, "allow_tf32", False)
    forward = Forward(network, device)
    for size in ((40, 48), (40, 48), (40, 48), (36, 44), (40, 48), (40, 48)):
        x = torch.randn(1, 3, *size) * 60
        with torch.no_grad():
            exact = copy.deepcopy(network).double()(x.double())
        y = forward(x)
        assert y.device.type == "cpu"
        assert (y - exact).abs().max() < 2e-3


def test_an_image_that_a_reflection_does_not_fit_is_refused() -> None:
    # Torch7 did not look, and read memory beyond the image: its result was black.
    network = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(3, 3, 9))
    assert shapes.output_shape(network, (3, 5, 8)) == (3, 5, 8)
    with pytest.raises(
        UnsupportedError, match=r"4x9 pixels are left of it before module 1, .*choose a larger"
    ):
        shapes.output_shape(network, (3, 9, 4))


def test_a_network_that_does_not_fit_together_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 3, 3))
    with pytest.raises(UnsupportedError, match=r"module 2, Conv2d, takes 5 channels"):
        shapes.output_shape(network, (3, 9, 9))

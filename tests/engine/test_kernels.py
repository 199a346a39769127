"""legacy_style.engine.kernels against PyTorch's own layers in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.engine.kernels import norms, shuffled, winograd

# Float32 has 6e-8 a rounding; a sum of a thousand products, or a norm, some tens of them.
CLOSE = 2e-6


def maps(*shape: int) -> Tensor:
    rng = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=rng).contiguous(memory_format=torch.channels_last)


def off(value: Tensor, exact: Tensor) -> float:
    assert value.shape == exact.shape
    return ((value.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("border", winograd.BORDERS)
@pytest.mark.parametrize(("height", "width"), [(3, 3), (6, 6), (10, 13), (37, 30)])
def test_winograd_continues_an_image_as_the_padding_modules_do(border: str, height: int, width: int) -> None:
    x, weight = maps(1, 128, height, width), maps(64, 128, 3, 3) / 30
    mode = {"zero": "constant", "none": "constant"}.get(border, border)
    pad = [0 if border == "none" else 1] * 4
    exact = F.conv2d(F.pad(x.double(), pad, mode), weight.double())
    kernels = winograd.transform_kernels(weight)
    winograd.convolve(kernels, None, maps(1, 128, 40, 40))  # leaves numbers in the scratch memory
    assert off(winograd.convolve(kernels, None, x, border=border), exact) < CLOSE


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 1, 1), (8, 2, 5), (32, 70, 131), (128, 33, 40)]
)
def test_instance_norm_in_place(channels: int, height: int, width: int) -> None:
    # A mean that is large against the deviation, where a sum of squares would lose all digits.
    x = maps(1, channels, height, width) + 20
    weight, bias = torch.linspace(0.5, 2, channels), torch.linspace(-1, 1, channels)
    exact = x.double()
    variance, mean = torch.var_mean(exact, (2, 3), correction=0, keepdim=True)
    exact = (exact - mean) / (variance + 1e-5).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    plain, rectified, summed = (
        norms.instance_norm_(x.clone(), weight, bias, 1e-5, relu=relu, plus=plus)
        for relu, plus in ((False, None), (True, None), (False, x))
    )
    assert off(plain, exact) < 20 * CLOSE
    assert off(rectified, exact.relu()) < 20 * CLOSE
    assert off(summed, exact + x.double()) < CLOSE
    assert plain.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (9, 14), (31, 17)])
@pytest.mark.parametrize("pad", [(0, 0), (4, 4)])
def test_a_convolution_to_few_channels(height: int, width: int, pad: tuple[int, int]) -> None:
    x, weight, bias = (
        maps(1, 32, height + 8, width + 8),
        maps(3, 32, 9, 9) / 50,
        torch.tensor([1.0, -2.0, 3.0]),
    )
    assert shuffled.suits_few(weight)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=pad)
    assert off(shuffled.to_few(shuffled.block_kernels(weight), bias, x, pad), exact) < CLOSE


@pytest.mark.parametrize("border", ["zero", "replicate", "reflect"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (17, 12)])
def test_a_convolution_behind_upsampling(border: str, height: int, width: int) -> None:
    x, weight, bias = maps(1, 12, height, width), maps(8, 12, 3, 3) / 10, torch.linspace(-1, 1, 8)
    large = F.interpolate(x.double(), scale_factor=2, mode="nearest")
    padded = F.pad(large, [1] * 4, "constant" if border == "zero" else border)
    exact = F.conv2d(padded, weight.double(), bias.double())
    kernels = shuffled.upsampled_kernels(weight)
    assert off(shuffled.behind_upsampling(kernels, bias, x, border=border), exact) < CLOSE
    without = shuffled.behind_upsampling(kernels, None, x, border=border)
    assert off(without, exact - bias.double().view(1, -1, 1, 1)) < CLOSE

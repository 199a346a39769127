"""legacy_style.engine.kernels.winograd against direct convolution in float64."""

import pytest
import torch
import torch.nn.functional as F

from legacy_style.engine.kernels import winograd


def relative_error(value, exact):
    return ((value - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("height, width", [(1, 1), (4, 4), (5, 9), (16, 31), (67, 66)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_about_1e_6_from_the_exact_convolution(height, width, with_bias):
    rng = torch.Generator().manual_seed(height * 100 + width)
    x = torch.randn(1, 128, height, width, generator=rng).to(memory_format=torch.channels_last)
    weight = torch.randn(96, 128, 3, 3, generator=rng) / 30
    bias = torch.randn(96, generator=rng) if with_bias else None
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    result = winograd.convolve(winograd.transform_kernels(weight), bias, x)
    assert result.shape == exact.shape
    assert result.is_contiguous(memory_format=torch.channels_last)
    # Float32 has 6e-8 a rounding, and a sum of 9 * 128 products some tens of them; a direct convolution has 4e-7.
    assert relative_error(result.double(), exact) < 2e-6


def test_what_is_kept_in_inference_mode_can_be_used_outside_it(monkeypatch):
    monkeypatch.setattr(winograd, "_scratch", winograd.Scratch())
    x = torch.randn(1, 64, 9, 9).to(memory_format=torch.channels_last)
    kernels = winograd.transform_kernels(torch.randn(64, 64, 3, 3))
    with torch.inference_mode():
        winograd.convolve(kernels, None, x)
    winograd.convolve(kernels, None, x)


@pytest.mark.parametrize("height, width", [(1, 1), (5, 9), (67, 66)])
def test_turned_it_is_the_gradient_of_the_convolution(height, width):
    rng = torch.Generator().manual_seed(height * 100 + width)
    weight = torch.randn(128, 96, 3, 3, generator=rng) / 30
    grad = torch.randn(1, 128, height, width, generator=rng)
    y = torch.randn(1, 128, height, width, generator=rng)
    masked = torch.where(y > 0, grad, 0).double()
    kernels = winograd.transform_kernels(weight)
    for positive, expected in ((None, grad.double()), (y, masked)):
        exact = F.conv_transpose2d(expected, weight.double(), padding=1)
        result = winograd.convolve(kernels, None, grad, positive, turned=True)
        assert relative_error(result.double(), exact) < 2e-6


def test_scratch_memory_of_a_larger_call_does_not_leak_into_a_smaller_one():
    rng = torch.Generator().manual_seed(3)
    weight = torch.randn(8, 8, 3, 3, generator=rng)
    kernels = winograd.transform_kernels(weight)
    large = torch.full((1, 8, 41, 37), torch.nan)
    winograd.convolve(kernels, None, large)
    small = torch.randn(1, 8, 6, 7, generator=rng)
    result = winograd.convolve(kernels, None, small)
    assert relative_error(result.double(), F.conv2d(small.double(), weight.double(), padding=1)) < 1e-6


def test_only_wide_plain_layers_on_the_cpu_go_this_way():
    wide = torch.zeros(256, 256, 3, 3)
    assert winograd.suits(wide, (1, 1))
    assert winograd.suits(torch.zeros(128, 64, 3, 3), (1, 1))
    assert not winograd.suits(wide, (0, 0))
    assert not winograd.suits(torch.zeros(256, 256, 5, 5), (1, 1))
    assert not winograd.suits(torch.zeros(64, 64, 3, 3), (1, 1))
    assert not winograd.suits(torch.zeros(256, 3, 3, 3), (1, 1))
    assert not winograd.suits(wide.bfloat16(), (1, 1))
    assert not winograd.suits(wide.to("meta"), (1, 1))

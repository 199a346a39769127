"""The modules of an image transformation network that torch.nn does not have."""

from __future__ import annotations

import pytest
import torch

from legacy_style.programs.fast_neural_style import layers


def test_instance_norm_takes_the_biased_variance_of_each_map_of_each_image() -> None:
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    norm = layers.InstanceNormalization(3).double()
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([1.0, -2.0, 0.5]))
        y = norm(x)
    for image in range(2):
        for channel in range(3):
            values = x[image, channel]
            deviation = (values.var(correction=0) + 1e-5).sqrt()
            expected = (values - values.mean()) / deviation * norm.weight[channel] + norm.bias[channel]
            torch.testing.assert_close(y[image, channel], expected)


def test_instance_norm_of_a_single_pixel_is_its_bias() -> None:
    norm = layers.InstanceNormalization(2)
    torch.nn.init.constant_(norm.bias, 3)
    assert torch.equal(norm(torch.tensor([5.0, -7.0]).view(1, 2, 1, 1)), torch.full((1, 2, 1, 1), 3.0))


def test_batch_norm_sums_exactly_wherever_channels_lie() -> None:
    generator = torch.Generator().manual_seed(3)
    x, grad = (torch.randn(2, 8, 64, 64, generator=generator) + shift for shift in (1, 0.5))
    exact = _through_a_batch_norm(x.double(), grad.double())
    found = _through_a_batch_norm(*(each.to(memory_format=torch.channels_last) for each in (x, grad)))
    for one, other, tolerance in zip(found, exact, (3e-7, 5e-7, 1e-5, 5e-7, 3e-7, 3e-7), strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


def _through_a_batch_norm(x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """The output of a batch norm in training, the gradients of x, weight and bias, and the running averages."""
    norm = layers.BatchNormalization(x.shape[1]).to(x.dtype)
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(grad)
    averages = (norm.running_mean, norm.running_var)
    return [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, *averages]


def test_total_variation_is_the_identity_with_a_gradient_of_its_own() -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x.requires_grad_()
    y = layers.TotalVariation(0.25)(x)
    assert torch.equal(y, x)
    y.mul(2).sum().backward()
    # Half the squared differences of all pixels but those of the last row and column, by autograd.
    other = x.detach().clone().requires_grad_()
    corner = other[:, :, :-1, :-1]
    right, down = corner - other[:, :, :-1, 1:], corner - other[:, :, 1:, :-1]
    (0.25 * (right.square().sum() + down.square().sum()) / 2 + 2 * other.sum()).backward()
    torch.testing.assert_close(x.grad, other.grad)


@pytest.mark.parametrize(("size", "side"), [(0, 6), (2, 2)])
def test_shaving_crops_every_side(size: int, side: int) -> None:
    x = torch.arange(36.0).view(1, 1, 6, 6)
    assert torch.equal(layers.ShaveImage(size)(x), x[:, :, 6 - side - size : 6 - size, size : size + side])


def test_tables_hand_out_and_add_up() -> None:
    module = torch.nn.Sequential(
        layers.ConcatTable([torch.nn.Identity(), layers.MulConstant(3)]), layers.CAddTable()
    )
    assert torch.equal(module(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 4.0))
    assert layers.View()(torch.zeros(2, 3, 4, 5)).shape == (2, 60)

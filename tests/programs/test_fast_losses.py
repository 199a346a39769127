"""The losses of train.lua against autograd in double, and the rule for what a ReLU in place overwrites."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from legacy_style.errors import OptionError
from legacy_style.programs.fast_neural_style.loss_network import LossNetwork, parse_layer
from legacy_style.programs.fast_neural_style.losses import (
    PerceptualCriterion,
    aggregate,
    aggregate_backward,
    distance,
)
from legacy_style.programs.fast_neural_style.values import Layers


def network(inplace: bool = True) -> torch.nn.Sequential:
    """Two blocks with a nested one, as a VGG has them; odd sizes, so that pooling rounds up."""
    torch.manual_seed(5)
    inner = torch.nn.Sequential(torch.nn.Conv2d(6, 8, 3, padding=1), torch.nn.ReLU(inplace))
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.ReLU(inplace),
        torch.nn.MaxPool2d(2, ceil_mode=True),
        inner,
        torch.nn.Conv2d(8, 8, 3, padding=1),
    )


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, 11, 9, generator=torch.Generator().manual_seed(seed)) * 40


@pytest.mark.parametrize("kind", ["L2", "L1", "SmoothL1"])
def test_a_distance_has_the_gradient_that_autograd_finds(kind):
    x = images(2, 1).double().requires_grad_()
    target = images(2, 2).double()
    value, gradient = distance(kind, x.detach(), target)
    expected = {"L2": F.mse_loss, "L1": F.l1_loss, "SmoothL1": F.smooth_l1_loss}[kind](x, target)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, x.grad)


@pytest.mark.parametrize("kind", ["gram", "mean"])
def test_an_aggregate_has_the_gradient_that_autograd_finds(kind):
    x = images(2, 1).double().requires_grad_()
    y = aggregate(kind, x)
    grad = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, grad)
    torch.testing.assert_close(aggregate_backward(kind, x.detach(), grad), expected)


def test_a_gram_matrix_is_divided_by_all_elements_of_its_image():
    x = torch.ones(1, 2, 3, 4)
    assert aggregate("gram", x).flatten().tolist() == pytest.approx([12 / 24] * 4)


@pytest.mark.parametrize(("target", "kind"), list(itertools.product(["gram", "mean"], ["L2", "SmoothL1"])))
def test_losses_at_relus_have_autograds_gradient(target, kind):
    modules = network()
    criterion = PerceptualCriterion(
        LossNetwork(modules),
        Layers({"2": 2.0}),
        Layers({"2": 3.0, "4-2": 0.5}),
        style_target=target,
        distance=kind,
    )
    style, content, x = images(1, 1), images(2, 2), images(2, 3).requires_grad_()
    criterion.set_style_target(style)
    criterion.set_content_target(content)
    losses = criterion.evaluate(x)
    losses.backward()

    def maps(y):
        first = F.relu(modules[0](y))
        return first, F.relu(modules[3][0](modules[2](first)))

    loss = {"L2": F.mse_loss, "SmoothL1": F.smooth_l1_loss}[kind]
    y = x.detach().clone().requires_grad_()
    ours, of_style, of_content = maps(y), maps(style), maps(content)
    total = 2 * loss(ours[0], of_content[0].detach())
    for weight, one, other in zip((3.0, 0.5), ours, of_style, strict=True):
        found = aggregate(target, one)
        total = total + weight * loss(found, aggregate(target, other).detach().expand_as(found))
    total.backward()
    assert losses.total == pytest.approx(total.item(), rel=1e-6)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-6 * y.grad.abs().max().item())


@pytest.mark.parametrize(("inplace", "seen"), [(True, "relu"), (False, "convolution")])
def test_a_loss_in_front_of_a_relu_in_place_sees_its_output_in_the_backward_pass(inplace, seen):
    modules = network(inplace)
    # A second loss keeps the ReLU in the network.
    criterion = PerceptualCriterion(LossNetwork(modules), Layers({"1": 1.0, "2": 0.0}), Layers({}))
    criterion.set_content_target(images(1, 2))
    target = modules[0](images(1, 2)).detach()
    x = images(1, 3)
    losses = criterion.evaluate(x.requires_grad_())
    at = modules[0](x).detach()
    expected = (at.relu() if seen == "relu" else at) - target
    assert losses.content["1"] == pytest.approx((at - target).square().mean().item(), rel=1e-6)
    torch.testing.assert_close(losses.gradients[0], expected * (2 / at.numel()))


def test_the_last_loss_has_no_relu_behind_it():
    modules = network()
    criterion = PerceptualCriterion(LossNetwork(modules), Layers({"1": 1.0}), Layers({}))
    criterion.set_content_target(images(1, 2))
    at, target = modules[0](images(1, 3)).detach(), modules[0](images(1, 2)).detach()
    losses = criterion.evaluate(images(1, 3).requires_grad_())
    torch.testing.assert_close(losses.gradients[0], (at - target) * (2 / at.numel()))


def test_a_dream_layer_has_a_clamped_gradient_and_no_loss():
    modules = network()
    criterion = PerceptualCriterion(LossNetwork(modules), Layers({}), Layers({}), dream=Layers({"5": 0.25}))
    x = images(1, 3).requires_grad_()
    losses = criterion.evaluate(x)
    assert losses.total == 0
    torch.testing.assert_close(losses.gradients[0], losses.maps[0].detach().clamp(-100, 100) * -0.25)


@pytest.mark.parametrize("name", ["9", "0", "x", "4-3", "1-1", "", "2.5"])
def test_a_layer_that_does_not_exist_has_no_loss(name):
    criterion = PerceptualCriterion(LossNetwork(network()), Layers({name: 1.0, "2": 1.0}), Layers({}))
    criterion.set_content_target(images(1, 2))
    losses = criterion.evaluate(images(1, 3).requires_grad_())
    assert losses.content[name] == 0
    assert losses.total == losses.content["2"] > 0


def test_nothing_behind_the_last_layer_is_computed():
    modules = network()
    modules[4] = torch.nn.Conv2d(1, 1, 1)  # which would fail
    found = LossNetwork(modules).run(images(1, 1), {(2,), (4, 1)})
    assert {path: tuple(each.shape) for path, each in found.items()} == {
        (2,): (1, 6, 11, 9),
        (4, 1): (1, 8, 6, 5),
    }


@pytest.mark.parametrize(
    ("text", "path"), [("4", (4,)), ("3-2-1", (3, 2, 1)), ("", None), ("a", None), ("3-", None)]
)
def test_a_layers_name_is_a_path(text, path):
    assert parse_layer(text) == path


def test_wide_convolutions_give_what_pytorchs_give_for_several_images():
    torch.manual_seed(1)
    wide = torch.nn.Sequential(torch.nn.Conv2d(64, 128, 3, padding=1), torch.nn.ReLU(True))
    x = torch.randn(3, 64, 10, 14)
    grad = torch.randn(3, 128, 10, 14)
    results = []
    for run in (lambda y: wide(y), lambda y: LossNetwork(wide).run(y, {(2,)})[(2,)]):
        y = x.clone().requires_grad_()
        z = run(y)
        z.backward(grad)
        results.append((z.detach(), y.grad))
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5 * plain.abs().max().item())


def test_a_style_loss_without_a_style_says_what_to_do():
    criterion = PerceptualCriterion(LossNetwork(network()), Layers({}), Layers({"2": 1.0}))
    with pytest.raises(OptionError, match="leave out the style loss"):
        criterion.evaluate(images(1, 1))

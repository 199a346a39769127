"""legacy_style.engine.losses against the recorded loss modules, and against sums over single elements."""

import json

import numpy as np
import pytest
import torch
from recordings import both_roots, component

from legacy_style.engine.losses import ContentLoss, StyleLoss, TVLoss, gram_matrix

# A float32 sum over 315 products.
CLOSE = {"rtol": 2e-6, "atol": 2e-7}

NORMALIZE = pytest.mark.parametrize(("normalize", "suffix"), [(False, ""), (True, "_norm")])


def info(root):
    return json.loads((root / "components" / "losses" / "arrays.json").read_text())["info"]


def maps(array):
    return torch.from_numpy(array.copy()).unsqueeze(0)


def take_in(loss, mode, x):
    loss.mode = mode
    loss.restart()
    loss.accumulate(x)
    loss.finish()


def gradient(loss, x, incoming):
    """What the module hands on: its own gradient added to the incoming one."""
    grad = maps(incoming)
    if loss.normalize:
        loss.accumulate_norm(x)
    loss.backward(x, grad)
    return grad[0]


@both_roots
@NORMALIZE
def test_content_loss_is_the_recorded_one(root, normalize, suffix):
    a = component("losses", root)
    x, loss = maps(a["x"]), ContentLoss(5.0, normalize)
    np.testing.assert_array_equal(
        gradient(ContentLoss(5.0, False), x, a["gradOutput"]), a["content_none_grad" + suffix]
    )
    take_in(loss, "capture", maps(a["t"]))
    np.testing.assert_array_equal(loss.target[0][0], a["content_target" + suffix])
    take_in(loss, "loss", x)
    assert loss.loss == pytest.approx(float(info(root)["content_loss" + suffix]), rel=1e-6)
    np.testing.assert_allclose(gradient(loss, x, a["gradOutput"]), a["content_grad" + suffix], **CLOSE)


@both_roots
@NORMALIZE
def test_style_loss_with_two_blended_targets_is_the_recorded_one(root, normalize, suffix):
    a = component("losses", root)
    x, loss = maps(a["x"]), StyleLoss(100.0, normalize)
    loss.blend_weight = 0.25
    take_in(loss, "capture", maps(a["t"]))
    np.testing.assert_allclose(loss.target, a["style_target_a" + suffix], **CLOSE)
    loss.blend_weight = 0.75
    take_in(loss, "capture", x / 2)
    np.testing.assert_allclose(loss.target, a["style_target_ab" + suffix], **CLOSE)
    take_in(loss, "loss", x)
    np.testing.assert_allclose(loss.gram, a["style_G" + suffix], **CLOSE)
    assert loss.loss == pytest.approx(float(info(root)["style_loss" + suffix]), rel=1e-6)
    np.testing.assert_allclose(gradient(loss, x, a["gradOutput"]), a["style_grad" + suffix], **CLOSE)


@both_roots
def test_total_variation_has_the_recorded_gradient_and_no_loss(root):
    a = component("losses", root)
    tv = TVLoss(0.5)
    for incoming, expected in (("tv_gradOutput", "tv_grad"), (None, "tv_grad_zero_go")):
        grad = maps(a[incoming] if incoming else np.zeros_like(a["tv_in"]))
        tv.backward(maps(a["tv_in"]), grad)
        np.testing.assert_allclose(grad[0], a[expected], **CLOSE)
    assert info(root)["tv_loss"] == "nil"
    assert not hasattr(tv, "loss")


@both_roots
def test_the_gram_matrix_and_its_gradient_are_the_recorded_ones(root):
    a = component("losses", root)
    x = maps(a["x"]).requires_grad_()
    gram = gram_matrix(x)
    np.testing.assert_allclose(gram.detach(), a["gram"], **CLOSE)
    (grad,) = torch.autograd.grad(gram, x, torch.from_numpy(a["gram_gradOutput"]).to(gram.dtype))
    np.testing.assert_allclose(grad[0], a["gram_grad"], **CLOSE)


@both_roots
def test_every_recorded_array_is_used_here(root):
    both = ("content_grad", "content_target", "content_none_grad")
    both += ("style_target_a", "style_target_ab", "style_G", "style_grad")
    used = {"x", "t", "gradOutput", *both, *(f"{key}_norm" for key in both)}
    used |= {"tv_in", "tv_gradOutput", "tv_grad", "tv_grad_zero_go", "gram", "gram_gradOutput", "gram_grad"}
    assert set(component("losses", root)) == used


def test_content_loss_is_the_mean_square():
    loss = ContentLoss(3.0, False)
    take_in(loss, "capture", torch.tensor([[[[1.0, 2.0]]]]))
    take_in(loss, "loss", torch.tensor([[[[1.5, 0.0]]]]))
    assert loss.loss == 3.0 * (0.25 + 4.0) / 2
    assert gradient(loss, torch.tensor([[[[1.5, 0.0]]]]), np.zeros((1, 1, 2), np.float32)).tolist() == [
        [[1.5, -6.0]]
    ]


def test_a_gram_matrix_is_as_exact_over_many_pixels_as_over_few():
    """Ones and small numbers: a float32 sum over all 300,000 pixels would lose the small ones' digits."""
    x = torch.full((1, 2, 500, 600), 1.0)
    x[:, 1] = 1e-3
    gram = gram_matrix(x)
    expected = 300_000 * torch.tensor([[1.0, 1e-3], [1e-3, 1e-6]], dtype=torch.float64)
    assert ((gram - expected).abs() <= 3e-7 * expected).all()


@pytest.mark.parametrize("normalize", [False, True])
def test_losses_in_tiles_are_those_of_the_whole(normalize):
    torch.manual_seed(4)
    x, target, zeros = torch.randn(1, 5, 6, 8), torch.randn(1, 5, 6, 8), np.zeros((5, 6, 8), np.float32)
    for kind in (ContentLoss, StyleLoss):
        whole, tiled = kind(2.0, normalize), kind(2.0, normalize)
        take_in(whole, "capture", target)
        take_in(whole, "loss", x)
        expected = gradient(whole, x, zeros)
        halves = [(0, slice(0, 3)), (1, slice(3, 6))]
        for mode, image in (("capture", target), ("loss", x)):
            tiled.mode = mode
            tiled.restart()
            for tile, rows in halves:
                tiled.accumulate(image[:, :, rows], tile)
            tiled.finish()
        assert tiled.loss == pytest.approx(whole.loss, rel=1e-6)
        grad = torch.zeros_like(x)
        if normalize:
            for tile, rows in halves:
                tiled.accumulate_norm(x[:, :, rows], tile)
        for tile, rows in halves:
            tiled.backward(x[:, :, rows], grad[:, :, rows], tile)
        torch.testing.assert_close(grad[0], expected, rtol=1e-5, atol=1e-7)


def test_a_difference_of_zero_has_no_gradient_even_when_normalised():
    """EXCEPTION 2 of the recordings' README: 0 / (0 + 1e-8) at the first evaluation of -init image."""
    x, loss = torch.randn(1, 3, 4, 4), ContentLoss(5.0, True)
    take_in(loss, "capture", x)
    take_in(loss, "loss", x)
    assert loss.loss == 0
    assert not gradient(loss, x, np.zeros((3, 4, 4), np.float32)).any()


def test_a_target_is_a_copy():
    x, loss = torch.ones(1, 3, 4, 4), ContentLoss(5.0, False)
    take_in(loss, "capture", x)
    x.zero_()
    assert loss.target[0].eq(1).all()


def test_total_variation_needs_both_neighbours():
    """Only the upper left (H-1) x (W-1) block counts: the corner has no term of its own."""
    x = torch.zeros(1, 1, 3, 3)
    x[..., 2, 2] = 7.0
    grad = torch.zeros_like(x)
    TVLoss(1.0).backward(x, grad)
    assert not grad.any()
    x[..., 2, 1] = 1.0
    TVLoss(1.0).backward(x, grad)
    assert grad[0, 0].tolist() == [[0, 0, 0], [0, -1, 0], [0, 1, 0]]

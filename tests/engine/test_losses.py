"""legacy_style.engine.losses against the recorded loss modules, and against sums over single elements."""

import json

import numpy as np
import pytest
import torch
from recordings import both_roots, component

from legacy_style.engine.losses import ContentLoss, StyleLoss, TVLoss, gram_matrix
from legacy_style.programs.athalye.losses import MeanTVLoss

# A float32 sum over 315 products.
CLOSE = {"rtol": 2e-6, "atol": 2e-7}

NORMALIZE = pytest.mark.parametrize(("normalize", "suffix"), [(False, ""), (True, "_norm")])


def info(root):
    return json.loads((root / "components" / "losses" / "arrays.json").read_text())["info"]


def maps(array):
    return torch.from_numpy(array.copy()).unsqueeze(0)


def everywhere(x):
    return (0, x.shape[2]), (0, x.shape[3])


def capture(loss, x):
    loss.begin()
    loss.capture(x, everywhere(x))
    assert not loss.finish(loss.sums())


def evaluate(loss, x):
    loss.begin()
    again = True
    while again:
        loss.accumulate(x, everywhere(x))
        again = loss.finish(loss.sums())


def gradient(loss, x, incoming):
    """What the module hands on: its own gradient added to the incoming one."""
    grad = maps(incoming)
    loss.backward(x, grad, everywhere(x))
    return grad[0]


@both_roots
@NORMALIZE
def test_content_loss_is_the_recorded_one(root, normalize, suffix):
    a = component("losses", root)
    x, loss = maps(a["x"]), ContentLoss("c", 5.0, normalize)
    np.testing.assert_array_equal(
        gradient(ContentLoss("c", 5.0, False), x, a["gradOutput"]), a["content_none_grad" + suffix]
    )
    capture(loss, maps(a["t"]))
    np.testing.assert_array_equal(loss.target[everywhere(x)][0], a["content_target" + suffix])
    evaluate(loss, x)
    assert loss.value == pytest.approx(float(info(root)["content_loss" + suffix]), rel=1e-6)
    np.testing.assert_allclose(gradient(loss, x, a["gradOutput"]), a["content_grad" + suffix], **CLOSE)


@both_roots
@NORMALIZE
def test_style_loss_with_two_blended_targets_is_the_recorded_one(root, normalize, suffix):
    a = component("losses", root)
    x, loss = maps(a["x"]), StyleLoss("s", 100.0, normalize)
    loss.blend_weight = 0.25
    capture(loss, maps(a["t"]))
    np.testing.assert_allclose(loss.target, a["style_target_a" + suffix], **CLOSE)
    loss.blend_weight = 0.75
    capture(loss, x / 2)
    np.testing.assert_allclose(loss.target, a["style_target_ab" + suffix], **CLOSE)
    evaluate(loss, x)
    np.testing.assert_allclose(loss.gram, a["style_G" + suffix], **CLOSE)
    assert loss.value == pytest.approx(float(info(root)["style_loss" + suffix]), rel=1e-6)
    np.testing.assert_allclose(gradient(loss, x, a["gradOutput"]), a["style_grad" + suffix], **CLOSE)


@both_roots
def test_total_variation_has_the_recorded_gradient_and_no_loss(root):
    a = component("losses", root)
    tv = TVLoss("tv", 0.5)
    for incoming, expected in (("tv_gradOutput", "tv_grad"), (None, "tv_grad_zero_go")):
        grad = maps(a[incoming] if incoming else np.zeros_like(a["tv_in"]))
        tv.backward(maps(a["tv_in"]), grad, everywhere(grad))
        np.testing.assert_allclose(grad[0], a[expected], **CLOSE)
    assert info(root)["tv_loss"] == "nil"
    assert tv.value is None


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
    loss = ContentLoss("c", 3.0, False)
    capture(loss, torch.tensor([[[[1.0, 2.0]]]]))
    evaluate(loss, torch.tensor([[[[1.5, 0.0]]]]))
    assert loss.value == 3.0 * (0.25 + 4.0) / 2
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
        whole, tiled = kind("a", 2.0, normalize), kind("a", 2.0, normalize)
        capture(whole, target)
        evaluate(whole, x)
        expected = gradient(whole, x, zeros)
        halves = [((0, 3), (0, 8)), ((3, 6), (0, 8))]
        tiled.begin()
        for half in halves:
            tiled.capture(target[:, :, slice(*half[0])], half)
        assert not tiled.finish(tiled.sums())
        tiled.begin()
        again = True
        while again:
            for half in halves:
                tiled.accumulate(x[:, :, slice(*half[0])], half)
            again = tiled.finish(tiled.sums())
        assert tiled.value == pytest.approx(float(whole.value), rel=1e-6)
        grad = torch.zeros_like(x)
        for half in halves:
            rows = slice(*half[0])
            tiled.backward(x[:, :, rows], grad[:, :, rows], half)
        torch.testing.assert_close(grad[0], expected, rtol=1e-5, atol=1e-7)


def test_a_difference_of_zero_has_no_gradient_even_when_normalised():
    """EXCEPTION 2 of the recordings' README: 0 / (0 + 1e-8) at the first evaluation of -init image."""
    x, loss = torch.randn(1, 3, 4, 4), ContentLoss("c", 5.0, True)
    capture(loss, x)
    evaluate(loss, x)
    assert loss.value == 0
    assert not gradient(loss, x, np.zeros((3, 4, 4), np.float32)).any()


def test_a_target_is_a_copy():
    x, loss = torch.ones(1, 3, 4, 4), ContentLoss("c", 5.0, False)
    capture(loss, x)
    x.zero_()
    assert loss.target[everywhere(x)].eq(1).all()


def test_total_variation_needs_both_neighbours():
    """Only the upper left (H-1) x (W-1) block counts: the corner has no term of its own."""
    x = torch.zeros(1, 1, 3, 3)
    x[..., 2, 2] = 7.0
    grad = torch.zeros_like(x)
    TVLoss("tv", 1.0).backward(x, grad, everywhere(x))
    assert not grad.any()
    x[..., 2, 1] = 1.0
    TVLoss("tv", 1.0).backward(x, grad, everywhere(x))
    assert grad[0, 0].tolist() == [[0, 0, 0], [0, -1, 0], [0, 1, 0]]


@pytest.mark.parametrize("kind", [ContentLoss, StyleLoss])
def test_a_loss_that_forgets_takes_another_target(kind):
    torch.manual_seed(5)
    first, second, x = torch.randn(3, 1, 5, 6, 8)
    loss, fresh = kind("a", 2.0), kind("a", 2.0)
    capture(loss, first)
    evaluate(loss, x)
    loss.forget()
    for each in (loss, fresh):
        capture(each, second)
        evaluate(each, x)
    assert loss.value == fresh.value


@pytest.mark.parametrize("kind", [ContentLoss, StyleLoss])
@pytest.mark.parametrize("normalize", [False, True])
def test_what_was_left_of_a_broken_evaluation_does_not_count(kind, normalize):
    torch.manual_seed(6)
    target, x = torch.randn(2, 1, 5, 6, 8)
    loss = kind("a", 2.0, normalize)
    capture(loss, target)
    evaluate(loss, x)
    value, grad = loss.value, gradient(loss, x, np.zeros((5, 6, 8), np.float32))
    loss.begin()
    loss.accumulate(2 * x, everywhere(x))
    if normalize:
        assert loss.finish(loss.sums())
        loss.accumulate(3 * x, everywhere(x))
    evaluate(loss, x)
    assert loss.value == value
    assert torch.equal(gradient(loss, x, np.zeros((5, 6, 8), np.float32)), grad)


@pytest.mark.parametrize("kind", [TVLoss, MeanTVLoss])
def test_an_image_loss_in_parts_is_that_of_the_whole(kind):
    torch.manual_seed(7)
    x = torch.randn(1, 3, 9, 7, dtype=torch.float64)
    whole, expected = kind("tv", 0.5), torch.zeros_like(x)
    evaluate(whole, x)
    whole.backward(x, expected, everywhere(x))
    parts, grad = [], torch.zeros_like(x)
    for rows in ((0, 4), (4, 5), (5, 9)):
        for columns in ((0, 3), (3, 7)):
            cut = [slice(max(a - 1, 0), b + 1) for a, b in (rows, columns)]
            parts.append((kind("tv", 0.5), (rows, columns), (slice(None), slice(None), *cut)))
    for loss, where, cut in parts:
        loss.accumulate(x[cut], where)
    sums = [[sum(some) for some in zip(*(loss.sums() for loss, _, _ in parts), strict=True)] for _ in parts]
    for (loss, where, cut), total in zip(parts, sums, strict=True):
        assert not loss.finish(total)
        loss.backward(x[cut], grad[cut], where)
        assert loss.value == (None if whole.value is None else pytest.approx(float(whole.value), rel=1e-12))
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)

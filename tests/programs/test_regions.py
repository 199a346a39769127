"""Regions: maps whose colours name them, guided Gram matrices, and masks."""

from __future__ import annotations

import numpy as np
import pytest
import thin_networks as thin
import torch
from PIL import Image
from processes import together

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.losses import ContentLoss, StyleLoss, TVLoss
from legacy_style.engine.processes.group import joined
from legacy_style.engine.session import Session
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import region_maps, regions
from legacy_style.programs.neural_style.region_losses import RegionContentLoss, RegionStyleLoss
from legacy_style.programs.neural_style.region_maps import RegionMap

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)

CONTENT, STYLES = (45, 38), [(31, 50), (40, 26)]


def build(content, style, layers=("relu1_1", "relu2_1", "relu3_1"), normalize=False):
    """A thin VGG-19 in float64 with losses of the two classes."""
    losses = {layer: [style(f"style {layer}", 1e3, normalize)] for layer in layers}
    losses["relu2_2"] = [content("content", 5.0, normalize)]
    chain, _ = loadcaffe.modules(thin.load("vgg19"))
    net = network.build(chain, losses, [TVLoss("tv", 1e-3)])
    net.dtype = torch.float64
    network.place(net, [torch.device("cpu")], "")
    return net


def split(height, width, colors=(RED, BLUE), at=0.4):
    """A map with a slanting edge."""
    rows, columns = np.mgrid[:height, :width]
    labels = (columns + 0.3 * rows > at * width + 0.15 * height).astype(np.intp)
    return RegionMap(colors, labels)


def plan():
    """Two regions; the first style image has both, the second is for the blue one alone."""
    return regions.guidance(
        split(*CONTENT), [split(*STYLES[0], at=0.6), BLUE], {RED: 0.25}, None, CONTENT, STYLES
    )


def captured(net, guidance, tile=0, ranks=None):
    session = Session(net, tile=tile, ranks=ranks)
    regions.guide(net, guidance.content, guidance.weights)
    session.set_content(thin.smooth(*CONTENT, 1))
    for number, (size, masks) in enumerate(zip(STYLES, guidance.styles, strict=True)):
        regions.guide(net, masks)
        session.add_style(thin.smooth(*size, 2 + number, 120 - 30 * number), 0.25 + 0.5 * number)
    regions.guide(net, guidance.content, guidance.weights)
    return session


def evaluate(normalize, tile):
    """Values and gradient, of an image that this process shares with whoever else there is."""
    with torch.no_grad(), joined() as ranks:
        session = captured(
            build(RegionContentLoss, RegionStyleLoss, normalize=normalize), plan(), tile, ranks
        )
        values, grad = session.evaluate(session.scatter(thin.smooth(*CONTENT, 4)))
        return values, session.objective(*CONTENT).gather(grad).numpy()


# The losses.


def test_one_region_that_covers_everything_gives_the_losses_of_the_original():
    whole = regions.guidance(None, [], {}, None, CONTENT, STYLES)
    guided = captured(build(RegionContentLoss, RegionStyleLoss), whole)
    plain = Session(build(ContentLoss, StyleLoss))
    plain.set_content(thin.smooth(*CONTENT, 1))
    plain.set_styles([thin.smooth(*STYLES[0], 2, 120), thin.smooth(*STYLES[1], 3, 90)], [0.25, 0.75])
    x = thin.smooth(*CONTENT, 4)
    (values, grad), (expected, expected_grad) = guided.evaluate(x), plain.evaluate(x)
    assert values == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(grad, expected_grad, rtol=0, atol=1e-11 * float(expected_grad.abs().max()))


@pytest.mark.parametrize("normalize", [False, True])
def test_regions_are_the_same_in_tiles_and_in_two_processes(normalize):
    values, grad = evaluate(normalize, 0)
    assert min(values.values()) > 0
    again = (
        evaluate(normalize, 16),
        together(2, evaluate, normalize, 0)[0],
        together(2, evaluate, normalize, 16)[0],
    )
    for others, other_grad in again:
        np.testing.assert_allclose(list(others.values()), list(values.values()), rtol=1e-11)
        np.testing.assert_allclose(other_grad, grad, rtol=0, atol=1e-11 * np.abs(grad).max())


def test_the_gradient_of_regions_is_that_of_differences():
    # Total variation has a gradient and no value, and a loss on a ReLU that is in place has none below 0: on smooth
    # images the first is small enough, and no loss stands on a convolution.
    net = build(RegionContentLoss, RegionStyleLoss)
    net.image_losses.clear()
    session = captured(net, plan())
    x = thin.smooth(*CONTENT, 4).double()
    for seed in range(5, 8):
        direction = thin.smooth(*CONTENT, seed, 1).double()
        _, grad = session.evaluate(x)
        above, below = (sum(session.evaluate(x + step * direction)[0].values()) for step in (1e-4, -1e-4))
        assert (grad * direction).sum().item() == pytest.approx((above - below) / 2e-4, rel=1e-6)


def test_a_region_s_value_is_that_of_its_formula():
    """G_r = (T F) (T F)^T / (C sum T^2), each weighted by the mean of T^2, from single elements."""
    maps = torch.rand(2, 4, 5, dtype=torch.float64)
    f, s = torch.randn(1, 3, 4, 5, dtype=torch.float64), torch.randn(1, 3, 4, 5, dtype=torch.float64)
    loss, where = RegionStyleLoss("style", 7.0), ((0, 4), (0, 5))
    loss.guide(maps)
    for take, x in ((loss.capture, s), (loss.accumulate, f)):
        loss.begin()
        take(x, where)
        loss.finish(loss.sums())
    expected = 0.0
    for guide in maps:
        area = (guide**2).sum()
        grams = [torch.einsum("nchw,ndhw->cd", x * guide, x * guide) / (3 * area) for x in (f, s)]
        expected += 7.0 * (area / 20) * ((grams[0] - grams[1]) ** 2).mean()
    assert loss.value == pytest.approx(float(expected), rel=1e-12)


def test_a_region_takes_the_style_of_its_colour_and_no_other():
    """What happens to the blue part of the style image changes nothing in what the red region is pulled to."""
    guidance = regions.guidance(split(*CONTENT), [split(40, 40)], {}, None, CONTENT, [(40, 40)])
    style = thin.smooth(40, 40, 2, 120)
    other = style.clone()
    other[:, :, :, 36:] += thin.smooth(40, 4, 9, 200)
    targets = []
    for image in (style, other):
        net = build(RegionContentLoss, RegionStyleLoss, ["relu1_1"])
        regions.guide(net, guidance.styles[0])
        Session(net).add_style(image, 1.0)
        (loss,) = net.losses_from("style")
        targets.append([total for _, total in loss._targets.values()])
    torch.testing.assert_close(targets[0][0], targets[1][0], rtol=1e-12, atol=0)
    assert not torch.allclose(targets[0][1], targets[1][1], rtol=1e-2, atol=0)


def test_guidance_of_all_regions_makes_up_one_at_every_layer_and_follows_windows():
    net = build(RegionContentLoss, RegionStyleLoss, ["relu1_1", "relu2_1", "relu4_1"])
    guidance = plan()
    regions.guide(net, guidance.content, guidance.weights)
    for loss in net.losses_from("style"):
        torch.testing.assert_close(loss.maps.sum(0), torch.ones(loss.maps.shape[1:]), rtol=0, atol=1e-6)
    first, second, fourth = (loss.maps for loss in net.losses_from("style"))
    assert first.shape == (2, *CONTENT)
    # One convolution of three by three: a pixel is the mean of its neighbours.
    torch.testing.assert_close(first[0, 1, 1], guidance.content[0, :3, :3].mean(), rtol=0, atol=1e-6)
    # Along the edge, the deeper the softer.
    soft = [float(((maps[0] > 0.05) & (maps[0] < 0.95)).float().mean()) for maps in (first, second, fourth)]
    assert soft[0] < soft[1] < soft[2]


def test_layers_without_places_are_refused():
    net = build(RegionContentLoss, RegionStyleLoss)
    net.layers[1].windows = None
    with pytest.raises(OptionError, match="takes the whole image at once; choose layers before"):
        regions.guide(net, torch.ones((1, 20, 20)))


# The maps.


def painted(height=60, width=80):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = RED
    pixels[:, width // 2 :] = BLUE
    pixels[height // 2 :, : width // 4] = BLACK
    return pixels


def test_a_map_s_colours_are_regions_largest_first():
    read = region_maps.read(painted(), "map.png")
    assert read.colors == (BLUE, RED, BLACK)
    assert [int((read.labels == number).sum()) for number in range(3)] == [2400, 1800, 600]


@pytest.mark.parametrize("how", ["jpeg", "antialiased"])
def test_edges_that_are_not_sharp_make_no_regions(how, tmp_path):
    exact = region_maps.read(painted(), "map.png")
    image = Image.fromarray(painted(240, 320))
    if how == "jpeg":
        image.save(tmp_path / "map.jpg", quality=85)
        image = Image.open(tmp_path / "map.jpg")
    pixels = np.asarray(image if how == "jpeg" else image.resize((80, 60), Image.Resampling.LANCZOS))
    read = region_maps.read(pixels, "map")
    assert [region_maps.find(color, exact.colors) for color in read.colors] == [0, 1, 2]
    labels = read.labels if how == "antialiased" else read.labels[::4, ::4]
    assert (labels == exact.labels).mean() > 0.98


def test_what_is_no_map_is_refused():
    noise = np.random.default_rng(1).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    with pytest.raises(OptionError, match=r"photo.jpg: no area of one colour; paint each region"):
        region_maps.read(noise, "photo.jpg")
    shades = np.zeros((64, 64, 3), np.uint8)
    for i in range(64):
        block = np.s_[i // 8 * 8 : i // 8 * 8 + 8, i % 8 * 8 : i % 8 * 8 + 8]
        shades[block] = (i % 4 * 80, i // 4 % 4 * 80, i // 16 * 80)
    with pytest.raises(OptionError, match="more than 12 colours"):
        region_maps.read(shades, "shades.png")


def test_colours_that_only_one_side_has_are_told():
    content, style = split(20, 20, (RED, BLUE)), split(20, 20, (RED, BLACK))
    with pytest.raises(
        OptionError, match=r"no style image has the colour #0000ff \(blue\), which is \d+\.\d% of"
    ):
        regions.guidance(content, [style], {}, None, (20, 20), [(20, 20)])
    assert regions.unused(content, style) == [BLACK]
    with pytest.raises(
        OptionError, match=r"no region of the content is #000000 \(black\); it has #ff0000 \(red\), #0000ff"
    ):
        regions.guidance(content, [BLACK], {}, None, (20, 20), [(20, 20)])
    with pytest.raises(OptionError, match=r"--content-region-weights: no region of .* is #000000 \(black\)"):
        regions.guidance(content, [None], {BLACK: 2.0}, None, (20, 20), [(20, 20)])


def test_a_map_of_another_picture_is_refused():
    with pytest.raises(
        OptionError, match=r"a map of 20x20 pixels has other proportions than its image, .* 40x20"
    ):
        regions.guidance(split(20, 20), [None], {}, None, (20, 40), [(20, 20)])


@pytest.mark.parametrize(
    ("text", "color"),
    [("red", RED), ("#0000fF", BLUE), ("grey", (128, 128, 128)), ("#12345", None), ("map.png", None)],
)
def test_colours_have_names_and_numbers(text, color):
    assert region_maps.parse_color(text) == color


# The mask.


def test_a_feathered_mask_leaves_what_is_black_and_rises_inside():
    gray = np.zeros((9, 30))
    gray[:, 10:] = 1.0
    mask = regions.feathered(gray, 4.0)
    np.testing.assert_allclose(mask[4, 8:17], [0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    np.testing.assert_array_equal(regions.feathered(gray, 0.0), gray)
    content, picture = np.random.default_rng(1).random((2, 3, 9, 30))
    mixed = regions.composed(picture, content, mask)
    np.testing.assert_array_equal(mixed[:, :, :10], content[:, :, :10])
    np.testing.assert_allclose(mixed[:, :, 14:], picture[:, :, 14:], rtol=0, atol=1e-15)


def test_a_mask_limits_where_the_style_looks():
    mask = np.zeros(CONTENT)
    mask[:, 20:] = 1.0
    guidance = regions.guidance(None, [], {}, mask, CONTENT, STYLES)
    net = build(RegionContentLoss, RegionStyleLoss, ["relu1_1"])
    session = captured(net, guidance)
    content, x = thin.smooth(*CONTENT, 1), thin.smooth(*CONTENT, 4)
    x[:, :, :, :30] = content[:, :, :, :30]
    base = session.evaluate(x)[0]["style relu1_1"]
    x[:, :, :, :15] += 50
    assert session.evaluate(x)[0]["style relu1_1"] == pytest.approx(base, rel=1e-12)

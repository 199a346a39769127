"""An image in tiles is the image in one piece: losses, gradients, targets, and the picture that comes out."""

from dataclasses import replace

import numpy as np
import pytest
import thin_networks as thin
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from legacy_style.engine import sizes as shapes
from legacy_style.engine import tiles
from legacy_style.engine.losses import ContentLoss, StyleLoss
from legacy_style.engine.network import Network
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.story import stylize
from legacy_style.torch7 import nn
from legacy_style.torch7.nn import Window

HEIGHT, WIDTH = 67, 91


def images(name):
    """Content, a style image that is larger, and the image to evaluate at."""
    # oddconv's hyperbolic tangent takes no more than a few units.
    unit = 1 if name == "oddconv" else 60
    return (
        thin.smooth(HEIGHT, WIDTH, 1, unit),
        thin.smooth(105, 76, 2, 2 * unit),
        thin.smooth(HEIGHT, WIDTH, 3, unit),
    )


def differences(whole, tiled):
    """The largest relative difference between two evaluations' losses, and that of their gradients (L2)."""
    losses = max(abs(a - b) / abs(a) for a, b in zip(whole[0], tiled[0], strict=True))
    return losses, ((whole[1] - tiled[1]).norm() / whole[1].norm()).item()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("name", "pooling"), thin.POOLINGS)
def test_losses_and_gradient_are_those_of_the_whole_image(name, pooling, normalize):
    # In float64, where nothing hides behind roundings; and in float32 to its own precision.
    for dtype, layers, sides, tolerance in (
        (torch.float64, thin.LAYERS, (40,) if normalize else (33, 48), 1e-12),
        (torch.float32, thin.EXACT_IN_FLOAT32, (16,) if normalize else (20, 40), 1e-6),
    ):
        net = thin.build(thin.load(name), *layers[name], dtype=dtype, pooling=pooling, normalize=normalize)
        whole = thin.evaluate(net, *images(name), 0)
        for side in sides:
            assert len(net.tiles(HEIGHT, WIDTH, side)) >= 4
            tiled = thin.evaluate(net, *images(name), side)
            assert tiled[1].dtype == whole[1].dtype == dtype
            assert max(differences(whole, tiled)) < tolerance, (dtype, side)


@pytest.mark.parametrize("direction", ["vertical", "horizontal"])
def test_a_halo_that_is_too_small_would_be_seen(direction, monkeypatch):
    """Of conv1_1's three pixels, one is taken away: what the comparison above makes of it."""
    net = thin.build(thin.load("vgg19"), [], ["relu1_1"], dtype=torch.float64)
    whole = thin.evaluate(net, *images("vgg19"), 0)
    planned = net.tiles

    def narrower(*arguments):
        found = []
        for tile in planned(*arguments):
            axis = getattr(tile, direction)
            found.append(replace(tile, **{direction: replace(axis, held=(axis.held[0], axis.held[1] - 1))}))
        return found

    monkeypatch.setattr(net, "tiles", narrower)
    assert min(differences(whole, thin.evaluate(net, *images("vgg19"), 32))) > 1e-4


# Windows that fit: padding below half the kernel for pooling, as Caffe and PyTorch demand.
convolutions = st.builds(
    lambda kernel, stride, pad, dilation: Window(kernel, stride, pad, dilation),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 2),
)
poolings = st.integers(1, 4).flatmap(
    lambda kernel: st.builds(
        lambda stride, pad, ceil: Window(kernel, stride, pad, ceil=ceil),
        st.integers(1, 3),
        st.integers(0, kernel // 2),
        st.booleans(),
    )
)
# Along one axis: windows, and after which of them there are losses.
stacks = st.lists(st.tuples(st.one_of(convolutions, poolings), st.booleans()), min_size=1, max_size=6)


@given(stacks, st.integers(1, 90), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_tiles_partition_every_layer_and_hold_what_their_part_looks_at(stack, n, pieces):
    windows = [window for window, _ in stack]
    losses = [loss for _, loss in stack]
    lengths = tiles.sizes(windows, n)
    assume(min(lengths) > 0)
    owns = tiles.cut(n, pieces, tiles.total_stride(windows))
    assert [first for first, _ in owns[1:]] == [last for _, last in owns[:-1]]
    assert (owns[0][0], owns[-1][1]) == (0, n)
    for i, length in enumerate(lengths[:-1]):
        if not losses[i]:
            continue
        seen = []
        for own in owns:
            axis = tiles.axis(windows, losses, n, own)
            assert 0 <= axis.held[0] <= axis.held[1] <= n
            if i >= axis.depth:
                continue
            start = _place(axis, windows, i)
            first, last = axis.owned[i]
            assert axis.where[i] == (start + first, start + last)
            assert first == last or 0 <= first <= last <= axis.lengths[i]
            seen += range(start + first, start + last)
        assert seen == list(range(length))


def _place(axis, windows, i):
    """Where in the whole the tile's part of step i's input begins."""
    start = axis.held[0]
    for window, crop in zip(windows[:i], axis.crops, strict=False):
        start = start // window.stride + (crop[0] if crop else 0)
    return start


def _layers(draw, vertical, horizontal, kinds):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    channels, modules = 3, []
    for (down, loss), (across, _), kind in zip(vertical, horizontal, kinds, strict=False):
        kernel, stride = (down.kernel, across.kernel), (down.stride, across.stride)
        pad, dilation = (down.pad, across.pad), (down.dilation, across.dilation)
        pools = all(2 * p <= k for p, k in zip(pad, kernel, strict=True)) and dilation == (1, 1)
        if kind == "conv" or not pools:
            weight = torch.randn(2, channels, *kernel, generator=generator, dtype=torch.float64)
            bias = torch.randn(2, generator=generator, dtype=torch.float64)
            modules.append(nn.SpatialConvolution("", weight, bias, stride=stride, pad=pad, dilation=dilation))
            channels = 2
        else:
            pooling = nn.SpatialMaxPooling if kind == "max" else nn.SpatialAveragePooling
            modules.append(pooling("", kernel, stride, pad, ceil=down.ceil))
        if loss:
            modules += [StyleLoss(f"s{len(modules)}", 1.0), ContentLoss(f"c{len(modules)}", 1.0, True)]
    return [*modules, StyleLoss("s", 1.0)]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_network_of_windows_gives_the_same_in_tiles(data):
    kinds = data.draw(st.lists(st.sampled_from(["conv", "conv", "max", "avg"]), min_size=1, max_size=5))
    axes = [data.draw(st.lists(stacks.map(lambda s: s[0]), min_size=5, max_size=5)) for _ in range(2)]
    net = Network(_layers(data.draw, *axes, kinds))
    net.dtype = torch.float64
    for layer in net.layers:
        layer.to(torch.device("cpu"), torch.float64)
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    assume(all(min(after) > 0 for _, _, after in shapes.walk(net, height, width)))
    generator = torch.Generator().manual_seed(height * width)
    content, style, image = torch.randn(3, 1, 3, height, width, generator=generator, dtype=torch.float64)
    whole = thin.evaluate(net, content, style, image, 0)
    tiled = thin.evaluate(net, content, style, image, data.draw(st.integers(1, 20)))
    torch.testing.assert_close(tiled[0], whole[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(tiled[1], whole[1], rtol=1e-9, atol=1e-9 * whole[1].abs().max().item())


def test_a_tile_whose_last_outputs_see_only_padding():
    layer = nn.SpatialConvolution("", torch.ones(2, 3, 1, 1).double(), None, pad=(0, 2))
    net = Network([layer, ContentLoss("c", 1.0), StyleLoss("s", 1.0)])
    net.dtype = torch.float64
    content, style, image = (thin.smooth(3, 5, seed) for seed in (1, 2, 3))
    whole, tiled = (thin.evaluate(net, content, style, image, side) for side in (0, 1))
    assert max(differences(whole, tiled)) < 1e-12


def test_no_tile_is_larger_than_its_part_and_halo_also_of_large_style_images(monkeypatch):
    net = thin.build(thin.load("vgg19"), ["relu3_1"], ["relu1_1", "relu3_1"])
    seen = []
    forward = net.forward
    monkeypatch.setattr(
        net, "forward", lambda x, *a, **k: seen.append(tuple(x.shape[2:])) or forward(x, *a, **k)
    )
    thin.evaluate(net, thin.smooth(70, 50, 1), thin.smooth(210, 150, 2), thin.smooth(70, 50, 3), 32)
    # relu3_1 sees 1 + 1 + 2 + 2 + 4 and two poolings' 1 + 2: 13 pixels, rounded up to 16; a part has up to 35 itself.
    assert max(max(size) for size in seen) <= 35 + 2 * 16
    # Content and start in 2 x 1 parts and 2 + 1 sweeps, the style in 6 x 4.
    assert len(seen) == 3 * len(net.tiles(70, 50, 32)) + len(net.tiles(210, 150, 32))
    assert len(net.tiles(210, 150, 32)) >= 24


# End to end.


@pytest.fixture
def options(tmp_path, monkeypatch):
    """A run from the content image with Adam and average pooling, which does not amplify roundings."""
    monkeypatch.chdir(tmp_path)
    for name, (height, width), seed in (("content", (60, 81), 1), ("style", (96, 64), 2)):
        pixels = 128 + thin.smooth(height, width, seed, 40)[0].permute(1, 2, 0)
        Image.fromarray(pixels.clamp(0, 255).byte().numpy()).save(f"{name}.png")
    return {
        "content_image": "content.png",
        "style_image": "style.png",
        "image_size": 61,
        "style_scale": 1.5,
        "model_file": thin.path("vgg19"),
        "gpu": "-1",
        "init": "image",
        "optimizer": "adam",
        "num_iterations": 4,
        "pooling": "avg",
        "content_layers": "relu2_2",
        "style_layers": "conv1_1,relu2_1,relu3_1",
    }


@pytest.mark.parametrize("normalize", [False, True])
def test_a_run_in_tiles_gives_the_picture_of_the_run_in_one_piece(options, normalize):
    options |= {"normalize_gradients": normalize}
    whole = stylize(Options(**options, output_image="whole.png"))
    for side in (15, 40, 4096):
        tiled = stylize(Options(**options, tile=side, output_image="tiled.png"))
        assert [each.total for each in tiled.losses] == pytest.approx(
            [each.total for each in whole.losses], rel=2e-6
        )
        assert np.abs(tiled.image - whole.image).max() < 1e-4
        # What lies within a rounding of the border between two levels may fall on either side.
        levels = [np.asarray(Image.open(name)).astype(int) for name in ("whole.png", "tiled.png")]
        assert np.mean(levels[0] != levels[1]) < 1e-3


def test_layers_that_take_the_whole_image_refuse_tiles_and_run_without(options):
    # 111 pixels, of which caffenet's last pooling leaves 3.
    pixels = 128 + thin.smooth(111, 111, 3, 40)[0].permute(1, 2, 0)
    Image.fromarray(pixels.clamp(0, 255).byte().numpy()).save("square.png")
    options |= {
        "content_image": "square.png",
        "style_image": "square.png",
        "image_size": 111,
        "style_scale": 1,
    }
    options |= {"model_file": thin.path("caffenet"), "pooling": "max", "num_iterations": 2}
    options |= {"content_layers": "fc6", "style_layers": "relu1"}
    message = "--tile 32: the layer fc6 takes the whole image at once, .* choose layers before fc6"
    with pytest.raises(OptionError, match=message):
        stylize(Options(**options, tile=32))
    assert len(stylize(Options(**options)).losses) == 2

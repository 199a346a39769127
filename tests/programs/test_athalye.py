"""legacy_style.programs.athalye.story and athalye_images against the recorded components and traces, stage by stage."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from athalye_recordings import ATHALYE, ATHALYE_SHIPPED, FLAVOURS, NETWORK, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from recordings import needs_shared

from legacy_style.engine import network
from legacy_style.engine.losses import ContentLoss, StyleLoss
from legacy_style.engine.optimise import total_of
from legacy_style.errors import DivergenceError, FormatError, LegacyStyleError, OptionError, UnsupportedError
from legacy_style.formats import model_files, state_dict
from legacy_style.programs.athalye import images as athalye_images
from legacy_style.programs.athalye import story as athalye
from legacy_style.programs.athalye.losses import MeanTVLoss, SeparateStyleLoss
from legacy_style.torch7 import nn
from legacy_style.torch7.random import Generator

CPU = torch.device("cpu")
TRACES = cases("trace")

# Rounding of float32 in another order; an independent float32 implementation came within a third of these.
STAGES = {"x_0": 2e-7, "feats_x0": 5e-6, "gram_x0": 3e-6, "gram_style": 3e-6, "content_target": 5e-6}
GRADIENT = 5e-6
LOSSES_AT_START = 2e-6
LOSSES_AT_FIVE = 1e-4

# After so many steps: levels, and the share of pixels within them. Where a gradient is near 0, rounding
# decides its sign, and Adam's first steps of 10 levels go either way; that spreads.
STEPS = {1: (5e-3, 0.999), 2: (5e-3, 0.999), 5: (5e-2, 0.99)}


# ---- images


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(ATHALYE_SHIPPED, id="shipped"),
        pytest.param(ATHALYE, id="recorded", marks=needs_shared),
    ],
)
@pytest.mark.parametrize("version", ["an", "seed"])
def test_reading_resizing_and_saving_give_the_recorded_bytes(folder, version, tmp_path):
    flavour = FLAVOURS[version]
    with np.load(folder / f"components_{version}.npz") as archive:
        arrays = dict(archive)
    inputs = folder if folder is ATHALYE_SHIPPED else folder / "inputs"
    compared = 0
    for key, expected in arrays.items():
        operation, _, rest = key.partition("/")
        if operation == "imsave":
            continue
        name, _, size = rest.partition("/")
        if name == "uint8_again":
            source = arrays["imresize/lowcontrast.png/30x40"]
        else:
            source = athalye_images.read(str(inputs / name), flavour)
        if operation == "imread":
            ours = source
        elif "x" in size:
            ours = athalye_images.resize(source, *map(int, size.split("x")), flavour)
        else:
            ours = athalye_images.resize(source, *athalye_images.scaled_size(source, float(size)), flavour)
        assert ours.dtype == expected.dtype, key
        np.testing.assert_array_equal(ours, expected, err_msg=key)
        compared += 1
    assert compared == (9 if folder is ATHALYE_SHIPPED else 61)

    athalye_images.save(str(tmp_path / "a.png"), arrays["imsave/in"])
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), arrays["imsave/png"])
    athalye_images.save(str(tmp_path / "a.JPG"), arrays["imsave/in"])
    ours = np.array(Image.open(tmp_path / "a.JPG")).astype(int)
    (tmp_path / "recorded.jpg").write_bytes(arrays["imsave/jpg_bytes"].tobytes())
    np.testing.assert_allclose(ours, np.array(Image.open(tmp_path / "recorded.jpg")).astype(int), atol=2)


def test_contrast_is_stretched_by_hand_calculation():
    image = np.array([[[10.0, 20.0, 30.0]]])
    # (20 - 10) * 255 / 20 + 0.5 = 128
    np.testing.assert_array_equal(athalye_images.resize(image, 1, 1, "2017"), [[[0, 128, 255]]])
    np.testing.assert_array_equal(athalye_images.resize(image, 1, 1, "current"), [[[10, 20, 30]]])
    flat = np.full((2, 2, 3), 70.0)
    np.testing.assert_array_equal(athalye_images.resize(flat, 1, 1, "2017"), [[[0, 0, 0]]])


def test_resizing_truncates_and_cuts_off():
    image = np.array([[[-4.0, 99.99, 400.0]]], np.float32)
    np.testing.assert_array_equal(athalye_images.resize(image, 1, 1, "current"), [[[0, 99, 255]]])


@pytest.fixture
def picture(tmp_path):
    def make(name, width=12, height=9, mode="RGB", seed=0):
        random = np.random.RandomState(seed)
        Image.fromarray(random.randint(0, 256, (height, width, 3), np.uint8)).convert(mode).save(
            tmp_path / name
        )
        return str(tmp_path / name)

    return make


def test_sizes_follow_the_content_width(picture):
    content, style = picture("content.png", 69, 44), picture("style.png", 98, 70)
    loaded = athalye_images.load_images(
        content, [style, style], style, width=69, style_scales=[1.0, 0.5, 9.0], flavour="current"
    )
    assert loaded.content.shape == (43, 69, 3)  # 44 / 69 * 69 is a little less than 44
    # 98 * (69 / 98) is 69 and 98 * (34.5 / 98) is 34.5, both truncated, as are the heights.
    assert [image.shape[:2] for image in loaded.styles] == [(49, 69), (24, 34)]
    assert loaded.initial.shape == (43, 69, 3)


@pytest.mark.parametrize("flavour", ["current", "2017"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16", "CMYK"])
def test_resizing_what_was_read_needs_no_floats(picture, tmp_path, mode, flavour):
    """Images are resized from the file's numbers; what they are as floats gives the same bits."""
    path = str(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    with Image.open(picture("rgb.png", 40, 30)) as image:
        low = image.point(lambda value: 40 + value // 3)  # which 2017 stretches
        if mode == "I;16":
            Image.fromarray(np.asarray(low.convert("L")).astype(np.uint16) * 3).save(path)
        else:
            low.convert(mode).save(path)
    whole = athalye_images.read(path, flavour)
    content, style = picture("content.png", 16, 12), [path]
    found = athalye_images.load_images(content, style, path, width=None, style_scales=None, flavour=flavour)
    size = athalye_images.scaled_size(whole, 16 / 40)
    np.testing.assert_array_equal(found.styles[0], athalye_images.resize(whole, *size, flavour))
    np.testing.assert_array_equal(found.initial, athalye_images.resize(whole, 12, 16, flavour))
    narrow = athalye_images.load_images(path, style, None, width=20, style_scales=None, flavour=flavour)
    np.testing.assert_array_equal(narrow.content, athalye_images.resize(whole, 15, 20, flavour))
    assert found.content.dtype == (np.float64 if flavour == "2017" else np.float32)


@pytest.mark.parametrize("flavour", ["current", "2017"])
def test_a_large_photograph_takes_the_memory_of_its_bytes(picture, tmp_path, flavour):
    large, small = str(tmp_path / "large.png"), picture("small.png")
    Image.new("RGB", (1600, 1200), (10, 20, 30)).save(large)  # in a small file
    tracemalloc.start()
    try:
        athalye_images.load_images(large, [small], None, width=64, style_scales=None, flavour=flavour)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1600 * 1200 * 3 * 3.5, "numbers of four or eight bytes"


@pytest.mark.parametrize(
    ("width", "scales", "words"),
    [(0, None, "--width"), (-5, None, "--width"), (None, [0.01], "--style-scales"), (None, [], "as many")],
)
def test_impossible_sizes_are_named(picture, width, scales, words):
    with pytest.raises(OptionError, match=words):
        athalye_images.load_images(
            picture("a.png"), [picture("b.png")], None, width=width, style_scales=scales, flavour="current"
        )


def test_unreadable_images_are_named(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(FormatError, match=r"text\.png: not an image"):
        athalye_images.read(str(text), "current")
    with pytest.raises(OptionError, match=r"none\.png: No such file or directory"):
        athalye_images.read(str(tmp_path / "none.png"), "2017")
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:400])
    with pytest.raises(FormatError, match=r"cut\.jpg: a broken JPEG"):
        athalye_images.read(str(tmp_path / "cut.jpg"), "current")


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.foo", "image format"), ("a", "image format"), ("none/a.png", "folder"), ("b.png", "is a folder")],
)
def test_names_that_cannot_be_saved_are_refused(name, words, tmp_path):
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OptionError, match=words):
        athalye_images.check_can_save(str(tmp_path / name))


def test_colours_of_a_gray_content_are_none():
    random = np.random.RandomState(1)
    gray = np.repeat(random.randint(0, 256, (5, 4, 1)), 3, 2).astype(np.float32)
    styled = random.uniform(-20, 280, (5, 4, 3))
    result = athalye_images.preserve_colors(gray, styled)
    # Without colour, YCbCr is the luminance alone.
    luminance = (np.clip(styled, 0, 255) @ (0.299, 0.587, 0.114)).astype(int)
    assert np.ptp(result, axis=2).max() == 0
    np.testing.assert_allclose(result[:, :, 0].astype(int), luminance, atol=1)


# ---- losses


def features(n, channels=5, height=4, width=3):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)


def gram(x):
    flat = x.flatten(2)[0]
    return flat @ flat.T / x.numel()


def capture(loss, x, weight=1.0):
    loss.blend_weight = weight
    loss.begin()
    loss.capture(x, everywhere(x))
    loss.finish(loss.sums())


def evaluate(loss, x):
    """The value and the gradient of a loss."""
    loss.begin()
    loss.accumulate(x, everywhere(x))
    loss.finish(loss.sums())
    grad = torch.zeros_like(x)
    loss.backward(x, grad, everywhere(x))
    return loss.value, grad


def everywhere(x):
    return (0, x.shape[2]), (0, x.shape[3])


def test_separate_styles_are_summed_and_their_gradient_is_autograds():
    loss = SeparateStyleLoss("style", 3.0)
    weights = (0.75, 0.5, -0.25)
    for n, weight in enumerate(weights):
        capture(loss, features(n, height=3 + n), weight)
    x = features(9).requires_grad_()
    expected = sum(
        3 * weight * (gram(x) - gram(features(n, height=3 + n))).square().mean()
        for n, weight in enumerate(weights)
    )
    expected.backward()
    value, grad = evaluate(loss, x.detach())
    assert value == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(grad, x.grad, rtol=1e-10, atol=1e-14)


def test_one_separate_style_is_a_style_loss():
    values = []
    for kind in (StyleLoss, SeparateStyleLoss):
        loss = kind("style", 2.0)
        capture(loss, features(1))
        values.append(evaluate(loss, features(2)))
    assert values[0][0] == values[1][0]
    torch.testing.assert_close(values[0][1], values[1][1], rtol=0, atol=0)


def test_separate_styles_are_forgotten():
    loss = SeparateStyleLoss("style", 2.0)
    capture(loss, features(1))
    loss.forget()
    capture(loss, features(2))
    assert evaluate(loss, features(2))[0] == 0


@given(height=st.integers(2, 6), width=st.integers(2, 6))
@settings(deadline=None, max_examples=20)
def test_mean_tv_is_the_formula(height, width):
    x = features(height * 10 + width, 3, height, width).requires_grad_()
    down = (x[:, :, 1:] - x[:, :, :-1]).square().sum() / ((height - 1) * width * 3)
    right = (x[:, :, :, 1:] - x[:, :, :, :-1]).square().sum() / (height * (width - 1) * 3)
    (7 * (down + right)).backward()
    value, grad = evaluate(MeanTVLoss("tv", 7.0), x.detach())
    assert value == pytest.approx(7 * (down + right).item(), rel=1e-12)
    torch.testing.assert_close(grad, x.grad, rtol=1e-10, atol=1e-12)


def test_layer_weights_rise_and_sum_to_one():
    np.testing.assert_allclose(athalye.layer_weights(2), np.array([1, 2, 4, 8, 16]) / 31)
    np.testing.assert_allclose(athalye.layer_weights(0), [1, 0, 0, 0, 0])


def test_blend_weights_are_divided_by_the_sum_of_all():
    assert athalye.blend_weights(athalye.AthalyeSettings(), 4) == [0.25] * 4
    assert athalye.blend_weights(athalye.AthalyeSettings(style_blend_weights=[1, 1, 2]), 2) == [
        0.25,
        0.25,
        0.5,
    ]
    with pytest.raises(OptionError, match="sum 0"):
        athalye.blend_weights(athalye.AthalyeSettings(style_blend_weights=[1, -1]), 2)


# ---- network and start


class Run:
    """The descent of one command line, step by step: x, its losses and gradient, all that the program sees of them."""

    def __init__(self, loaded, model, settings):
        net = athalye.build_network(model, settings, CPU)
        self.session = athalye.capture(net, loaded, model, settings)
        self.descent = athalye.Descent(settings, 1000)
        self.x = athalye.start_image(loaded.content, loaded.initial, model, settings)
        self.evaluate()

    def evaluate(self):
        values, self.grad = self.session.evaluate(self.x)
        self.losses = athalye.shown(total_of(self.session.objective(*self.x.shape[2:]), values))

    def step(self):
        self.descent.step(self.x, self.grad)
        self.evaluate()

    def count(self):
        self.descent.count(self.x, self.losses.total)
        return self.descent.best


@pytest.fixture(scope="module")
def thin():
    return athalye.load_model(str(NETWORK), None)


def test_shipped_start_image_has_the_recorded_gram_matrices_and_tv(thin, monkeypatch):
    with np.load(ATHALYE_SHIPPED / "noise.npz") as archive:
        recorded = dict(archive)
    noise = recorded["noise"][0]
    monkeypatch.setattr(athalye, "noise", lambda shape, seed: noise)
    x = athalye.start_image(np.zeros(noise.shape), None, thin, athalye.AthalyeSettings())
    run = Run(athalye_images.AthalyeImages(noise * 10, [noise * 50], None), thin, athalye.AthalyeSettings())
    assert run.losses.tv == pytest.approx(recorded["tv_loss"].item(), rel=LOSSES_AT_START)
    torch.testing.assert_close(run.x, x, rtol=0, atol=0)
    for name, loss in zip(athalye.STYLE_LAYERS, run.session.net.losses_from("style"), strict=True):
        close(loss.gram, recorded[f"gram_x0/{name}"], STAGES["gram_x0"], name)


def test_noise_is_repeated_by_a_seed_and_is_torch7s():
    np.testing.assert_array_equal(athalye.noise((2, 3, 3), 7), Generator(7).randn(2, 3, 3).astype(np.float32))
    assert not np.array_equal(athalye.noise((2, 3, 3), None), athalye.noise((2, 3, 3), None))


def test_start_images(thin, monkeypatch):
    ones = np.ones((2, 2, 3), np.float32)
    monkeypatch.setattr(athalye, "noise", lambda shape, seed: ones)
    content, initial = np.full((2, 2, 3), 100.0), np.full((2, 2, 3), 200.0)
    mean = torch.from_numpy(thin.mean_pixel[::-1].copy()).float().view(1, 3, 1, 1)

    def at(initial, blend):
        return athalye.start_image(content, initial, thin, athalye.AthalyeSettings(initial_noiseblend=blend))[
            0, :, 0, 0
        ]

    for start, blend, expected in [
        (None, None, 0.256 + 0 * mean),
        (None, 1.0, 0.256 + 0 * mean),
        (None, 0.0, 100 - mean),
        (None, 0.25, 0.75 * (100 - mean) + 0.25 * 0.256),
        (initial, None, 200 - mean),
        (initial, 0.5, 0.5 * (200 - mean) + 0.5 * 0.256),
        (initial, 1.0, 0.256 + 0 * mean),
    ]:
        torch.testing.assert_close(at(start, blend), expected.flatten(), rtol=1e-6, atol=1e-5)


def test_images_go_to_the_network_blue_first_and_come_back(thin):
    image = np.arange(24.0).reshape(2, 4, 3)
    x = athalye.to_network(image, thin.mean_pixel)
    assert x.shape == (1, 3, 2, 4)
    assert x[0, 0, 0, 0].item() == pytest.approx(2 - thin.mean_pixel[2])
    np.testing.assert_allclose(athalye.to_image(x, thin.mean_pixel), image, atol=1e-5)


def test_the_same_weights_give_the_same_losses_from_any_file(tmp_path):
    """A .pth holds the kernels as they were trained; "wh" transposes them, as the original reads a .mat."""
    state_dict.write(tmp_path / "thin.pth", model_files.load(NETWORK), "pth")
    image = np.random.RandomState(0).uniform(0, 255, (20, 24, 3))
    losses = {}
    for path, orientation in [(NETWORK, None), (NETWORK, "hw"), ("thin.pth", None), ("thin.pth", "wh")]:
        model = athalye.load_model(str(tmp_path / path), orientation)
        model.mean_pixel[:] = 100  # a .pth has no mean of its own
        loaded = athalye_images.AthalyeImages(image, [image[::-1]], image[:, ::-1].copy())
        losses[str(path), orientation] = Run(loaded, model, athalye.AthalyeSettings()).losses
    as_original, as_trained = losses[str(NETWORK), None], losses[str(NETWORK), "hw"]
    assert losses["thin.pth", "wh"] == as_original
    assert losses["thin.pth", None] == as_trained
    assert as_original != as_trained


def test_a_network_without_the_layers_is_refused(tmp_path):
    short = model_files.load(NETWORK)
    short.layers = short.layers[:12]
    state_dict.write(tmp_path / "short.pth", short, "pth")
    with pytest.raises(LegacyStyleError, match="no layer relu4_1"):
        athalye.load_model(str(tmp_path / "short.pth"), None)


def test_average_pooling_rounds_up_and_counts_valid_cells(thin):
    net = athalye.build_network(thin, athalye.AthalyeSettings(pooling="avg"), CPU)
    pool = next(layer for layer in net.layers if isinstance(layer, nn.SpatialAveragePooling))
    x = torch.arange(15.0).view(1, 1, 3, 5)
    expected = torch.tensor([[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]])
    torch.testing.assert_close(pool.forward(x), expected, rtol=0, atol=0)
    net = athalye.build_network(thin, athalye.AthalyeSettings(pooling="anything"), CPU)
    assert any(isinstance(layer, nn.SpatialMaxPooling) for layer in net.layers)


# ---- descent


@pytest.fixture
def descent(thin):
    def make(**options):
        random = np.random.RandomState(5)
        content, style = (random.uniform(0, 255, (16, 16, 3)) for _ in range(2))
        return Run(
            athalye_images.AthalyeImages(content, [style], content), thin, athalye.AthalyeSettings(**options)
        )

    return make


def test_the_best_of_what_counted_is_kept(descent):
    run = descent(learning_rate=60.3)
    totals = []
    for i in range(4):
        run.step()
        totals.append((run.losses.total, run.x.clone()))
        if i % 2 == 0:
            best = run.count()
    torch.testing.assert_close(best, min(totals[::2], key=lambda each: each[0])[1], rtol=0, atol=0)


def test_a_run_without_a_finite_loss_says_so(descent):
    run = descent(learning_rate=1e38)
    run.step()
    with pytest.raises(DivergenceError, match="--learning-rate"):
        run.count()


@pytest.mark.parametrize(
    "options", [{"beta1": 1.0}, {"beta2": 2.0}, {"beta1": 0.9999, "beta2": 0, "learning_rate": 3e38}]
)
def test_rates_that_adam_cannot_use_are_named(descent, options):
    run = descent(**options)
    before = run.x.clone()
    with pytest.raises(OptionError, match="--beta1"):
        run.step()
    torch.testing.assert_close(run.x, before, rtol=0, atol=0)


def test_too_few_blend_weights_and_two_channels_are_refused(thin):
    image, two = np.zeros((16, 16, 3)), np.zeros((16, 16, 2))
    with pytest.raises(OptionError, match="as many"):
        Run(
            athalye_images.AthalyeImages(image, [image] * 2, None),
            thin,
            athalye.AthalyeSettings(style_blend_weights=[1.0]),
        )
    with pytest.raises(UnsupportedError, match="gray and alpha"):
        Run(athalye_images.AthalyeImages(two, [image], None), thin, athalye.AthalyeSettings())


# ---- traces


def close(ours, recorded, tolerance, stage):
    """Fail, naming the stage, unless all is within `tolerance` times the largest recorded value."""
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    assert ours.shape == recorded.shape, stage
    error = np.abs(ours - recorded).max() / np.abs(recorded).max()
    assert error <= tolerance, f"{stage}: off by {error:.2e} of the largest value, allowed {tolerance:.0e}"


def nhwc(x):
    """(1, C, H, W) as TensorFlow has it; three channels red first."""
    x = x.flip(1) if x.shape[1] == 3 else x
    return x.permute(0, 2, 3, 1).numpy()


def test_every_trace_is_there():
    if ATHALYE.is_dir():
        assert len(TRACES) == 11
        print(f"{len(TRACES)} traces")


@needs_shared
@pytest.mark.parametrize("case", TRACES, ids=lambda case: case["id"].split("/")[1])
def test_trace_stage_by_stage(case, monkeypatch):
    folder = ATHALYE / case["cwd"]
    trace = json.loads((folder / "trace.json").read_text())
    kwargs, losses = trace["kwargs"], trace["losses"]

    def recorded(name):
        return np.load(folder / f"{name}.npy")

    loaded = load(case["argv"], case["version"])
    np.testing.assert_array_equal(loaded.content, recorded("content"), err_msg="content")
    for i, style in enumerate(loaded.styles):
        np.testing.assert_array_equal(style, recorded(f"style_{i}"), err_msg=f"style {i}")
    if loaded.initial is not None:
        np.testing.assert_array_equal(loaded.initial, recorded("initial_arg"), err_msg="initial")

    model = athalye.load_model(str(ATHALYE / "models" / kwargs["network"].split("/")[-1]), None)
    np.testing.assert_allclose(model.mean_pixel, recorded("mean_pixel"), rtol=1e-12)
    monkeypatch.setattr(
        athalye, "noise", lambda shape, seed: np.load(ATHALYE / "traces/noise_1x48x64x3.npy")[0]
    )
    names = athalye.AthalyeSettings.__dataclass_fields__.keys() & kwargs.keys()
    settings = athalye.AthalyeSettings(**{name: kwargs[name] for name in names})
    descent = Run(loaded, model, settings)
    close(nhwc(descent.x), recorded("x_0"), STAGES["x_0"], "x_0")

    compare_features(folder, model, settings, descent.x)
    compare_targets(folder, descent)
    for kind in ("content", "style", "tv", "total"):
        ours = getattr(descent.losses, kind)
        assert ours == pytest.approx(losses[0][kind], rel=LOSSES_AT_START), f"{kind} loss of x_0"
    close(nhwc(descent.grad), recorded("grad_0"), GRADIENT, "grad_0")
    compare_parts(folder, descent)

    for k in range(1, 6):
        descent.step()
        assert descent.losses.total == pytest.approx(losses[k]["total"], rel=LOSSES_AT_FIVE), f"loss of x_{k}"
        if k in STEPS:
            levels, least = STEPS[k]
            share = (np.abs(nhwc(descent.x) - recorded(f"x_{k}")) <= levels).mean()
            assert share >= least, f"x_{k}: only {share:.4f} within {levels} levels"
        if k == 1:
            close(
                nhwc(descent.descent.state.m.view_as(descent.x)), recorded("adam_m_1"), GRADIENT, "adam_m_1"
            )
            close(
                nhwc(descent.descent.state.v.view_as(descent.x)),
                recorded("adam_v_1"),
                2 * GRADIENT,
                "adam_v_1",
            )


@needs_shared
@pytest.mark.parametrize("case", TRACES, ids=lambda case: case["id"].split("/")[1])
def test_a_step_of_adam_is_the_recorded_one_to_the_last_bit(case):
    folder = ATHALYE / case["cwd"]

    def recorded(name):
        image = torch.from_numpy(np.load(folder / f"{name}.npy"))
        return image.permute(0, 3, 1, 2).flip(1).contiguous()

    kwargs = json.loads((folder / "trace.json").read_text())["kwargs"]
    names = ("learning_rate", "beta1", "beta2", "epsilon")
    settings = athalye.AthalyeSettings(tv_weight=0.0, **{name: kwargs[name] for name in names})
    grad = recorded("grad_0")

    descent, x = athalye.Descent(settings, 1), recorded("x_0")
    descent.step(x, grad)
    for name, ours in (("x_1", x), ("adam_m_1", descent.state.m), ("adam_v_1", descent.state.v)):
        torch.testing.assert_close(ours, recorded(name), rtol=0, atol=0, msg=name)


def load(argv, version):
    """The images of a recorded command line."""
    words = iter(argv)
    options = {}
    for word in words:
        if word.startswith("--"):
            values = options.setdefault(word, [])
        else:
            values.append(str(ATHALYE / word.removeprefix("../../")) if word.startswith("../") else word)
    scales = options.get("--style-scales")
    return athalye_images.load_images(
        options["--content"][0],
        options["--styles"],
        options.get("--initial", [None])[0],
        width=int(options["--width"][0]) if "--width" in options else None,
        style_scales=scales and [float(scale) for scale in scales],
        flavour=FLAVOURS[version],
    )


def compare_features(folder, model, settings, x):
    """All of relu1_1 to relu5_4 and pool1 to pool4, where the trace kept them."""
    files = {path.stem: path for path in (folder / "feats_x0").glob("*.npy")}
    if not files:
        return
    deepest = "relu5_4"
    kind = nn.SpatialAveragePooling if settings.pooling == "avg" else nn.SpatialMaxPooling
    chain = network.replace_pooling(model.chain, network.pool_rounding_up(kind))
    whole = network.build(chain, {deepest: [ContentLoss("content", 1.0)]})
    for layer in whole.layers:
        if isinstance(layer, nn.SpatialConvolution):
            layer.weight = layer.weight.transpose(2, 3)
    network.place(whole, [CPU])
    x = whole.prepare(x)
    for layer in whole.layers:
        x = layer.forward(x)
        name = layer.name.replace("conv", "relu")
        close(nhwc(x), np.load(files.pop(name)), STAGES["feats_x0"], name)
    assert not files


def compare_targets(folder, descent):
    net = descent.session.net
    for index, (name, loss) in enumerate(zip(athalye.STYLE_LAYERS, net.losses_from("style"), strict=True)):
        for i, (_, target) in enumerate(loss.targets):
            close(
                target,
                np.load(folder / f"gram_style{i}" / f"{name}.npy"),
                STAGES["gram_style"],
                f"{name} of style {i}",
            )
        close(
            loss.gram,
            np.load(folder / "gram_x0" / f"{name}.npy"),
            STAGES["gram_x0"],
            f"{name} {index} of x_0",
        )
    for name, loss in zip(athalye.CONTENT_LAYERS, net.losses_from("content"), strict=False):
        (target,) = loss.target.values()
        close(
            nhwc(target), np.load(folder / "content_target" / f"{name}.npy"), STAGES["content_target"], name
        )


def compare_parts(folder, descent):
    """The gradient of each loss alone."""
    net = descent.session.net
    kinds = {"content": net.losses_from("content"), "style": net.losses_from("style"), "tv": net.image_losses}
    for kind in kinds:
        others = [loss for other, losses in kinds.items() if other != kind for loss in losses]
        strengths = [loss.strength for loss in others]
        for loss in others:
            loss.strength = 0.0
        _, grad = descent.session.evaluate(descent.x)
        for loss, strength in zip(others, strengths, strict=True):
            loss.strength = strength
        close(nhwc(grad), np.load(folder / f"grad_0_{kind}.npy"), GRADIENT, f"grad_0_{kind}")

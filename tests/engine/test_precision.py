"""--precision bfloat16: refused where it would be slow, near float32 where it runs, and only behind the first layer."""

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import thin_networks as thin
import torch
from PIL import Image

from legacy_style.engine import machine
from legacy_style.engine.optimise import FLOAT32_EVALUATIONS
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style.options import EXTENSIONS, Options
from legacy_style.programs.neural_style.story import plan, stylize
from legacy_style.torch7 import nn

CPU = [torch.device("cpu")]


@pytest.mark.parametrize("flags", ["fpu avx2 avx512f", "avx512_bf16_not_quite", ""])
def test_a_processor_without_instructions_for_it_is_refused(flags, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags\t\t: {flags}\n")
    message = "--precision bfloat16: this processor has no instructions for bfloat16 .* leave the option out"
    with pytest.raises(OptionError, match=message):
        machine.dtype("bfloat16", CPU)
    assert machine.dtype("float32", CPU) == torch.float32


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_with_instructions_for_it_is_taken(flag, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags\t\t: fpu {flag} sse\n")
    assert machine.dtype("bfloat16", CPU) == torch.bfloat16


def test_where_the_system_tells_nothing_it_is_refused(monkeypatch):
    def read_text(path):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(OptionError):
        machine.dtype("bfloat16", CPU)


def test_every_gpu_is_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "device", lambda device: contextlib.nullcontext(asked.append(device.index))
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked[-1] == 1)
    assert machine.dtype("bfloat16", [torch.device("cuda", 1)]) == torch.bfloat16
    with pytest.raises(OptionError, match="--precision bfloat16: GPU 2 has no instructions for bfloat16, so"):
        machine.dtype("bfloat16", [torch.device("cuda", 1), torch.device("cuda", 2)])


def test_a_plan_refuses_what_the_run_would_refuse(options, monkeypatch):
    assert "memory" in plan(options(precision="bfloat16"))
    monkeypatch.setattr(machine, "_has_fast_bfloat16", lambda: False)
    for function in (plan, stylize):
        with pytest.raises(OptionError, match="--precision bfloat16: this processor has no instructions"):
            function(options(precision="bfloat16", model_file="not there"))


def test_the_help_says_where_it_begins():
    (help_text,) = (option.help for option in EXTENSIONS if option.key == "--precision")
    assert f"from the {FLOAT32_EVALUATIONS + 1}th evaluation on" in help_text


def test_the_first_layer_losses_and_image_stay_in_float32():
    net = thin.build(thin.load("vgg19"), *thin.LAYERS["vgg19"], dtype=torch.bfloat16)
    convolutions = [layer for layer in net.layers if isinstance(layer, nn.SpatialConvolution)]
    assert [layer.weight.dtype for layer in convolutions] == [torch.float32] + [torch.bfloat16] * 12
    _, grad = thin.evaluate(net, thin.smooth(40, 52, 1), thin.smooth(37, 44, 2), thin.smooth(40, 52, 3), 0)
    assert grad.dtype == torch.float32
    assert {x.dtype for loss in net.losses_from("content") for x in loss.target.values()} == {torch.float32}
    for loss in net.losses_from("style"):
        assert loss.target is not None and loss.gram is not None
        assert (loss.target.dtype, loss.gram.dtype) == (torch.float64, torch.float64)


ROUNDED = 2.0**-8
"""What one layer in bfloat16 may lose, relative (L2): weights, input and result are each rounded to 8 bits, which is
2^-9 at most and half of that on average; what has no weights loses less."""
SATURATED = 2.0**-7
"""The gradient of tanh and of a sigmoid: 1 - y^2 loses a digit where y is near 1."""


@pytest.mark.parametrize(("name", "pooling"), thin.POOLINGS)
@torch.no_grad()
def test_each_layer_loses_a_rounding_and_no_more(name, pooling):
    """Forward and backward of every layer, at the input that float32 gives it, against float64."""
    kinds = {
        dtype: thin.build(thin.load(name), *thin.LAYERS[name], pooling=pooling, dtype=dtype).layers
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
    }
    x = thin.smooth(71, 84, 1, 1 if name == "oddconv" else 60).float()
    random = torch.Generator().manual_seed(1)
    compared = 0
    for number, (ours, plain, exact) in enumerate(zip(*kinds.values(), strict=True)):
        y = exact.forward(x.double())
        grad = torch.randn(y.shape, generator=random, dtype=torch.float64)
        # The image stays in float32. At bfloat16's own values: which unit of a ReLU or a pooling decides is the same.
        first = torch.float32 if number == 0 else torch.bfloat16
        given, given_y, given_grad = (
            each.to(dtype).double()
            for each, dtype in ((x, first), (y, torch.bfloat16), (grad, torch.bfloat16))
        )
        result = ours.forward(given.to(first))
        expected = exact.forward(given.clone())
        assert apart(result, expected) < ROUNDED, f"{ours}, forward"
        back = ours.backward(given.to(first), given_y.to(result.dtype), given_grad.to(result.dtype))
        expected_back = exact.backward(given.clone(), given_y.clone(), given_grad.clone())
        allowed = SATURATED if str(exact) in ("nn.Tanh", "nn.Sigmoid") else ROUNDED
        assert apart(back, expected_back) < allowed, f"{ours}, backward"
        compared += 1
        x = plain.forward(x)
    assert compared >= 5


def apart(ours, exact):
    return ((ours.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize(("name", "pooling"), thin.POOLINGS)
def test_all_layers_together_are_near_float32(name, pooling):
    unit = 1 if name == "oddconv" else 60
    images = thin.smooth(71, 84, 1, unit), thin.smooth(96, 75, 2, 2 * unit), thin.smooth(71, 84, 3, unit)
    exact, ours = (
        thin.evaluate(
            thin.build(thin.load(name), *thin.LAYERS[name], pooling=pooling, dtype=dtype), *images, 0
        )
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert ours[0] == pytest.approx(exact[0], rel=0.05)
    # Where maxima are, or are next to each other, the gradient takes another way through some windows: then it is
    # held above, layer by layer, and here that it still points downhill.
    if pooling == "avg" and name != "caffenet":
        assert apart(ours[1], exact[1].double()) < 0.02
    else:
        cosine = (ours[1] * exact[1]).sum() / (ours[1].norm() * exact[1].norm())
        assert cosine > 0.95


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Makes the options of small runs, in a folder of their own, on a machine that is taken for a fast one."""
    monkeypatch.setattr(machine, "_has_fast_bfloat16", lambda: True)
    monkeypatch.chdir(tmp_path)
    for name, seed in (("content", 1), ("style", 2)):
        pixels = 128 + thin.smooth(40, 52, seed, 40)[0].permute(1, 2, 0)
        Image.fromarray(pixels.clamp(0, 255).byte().numpy()).save(f"{name}.png")
    given = {"content_image": "content.png", "style_image": "style.png", "model_file": thin.path("vgg19")}
    return partial(Options, **given, gpu="-1", image_size=52, seed=1)


def test_a_run_goes_as_far_down_as_in_float32(options):
    given = options(num_iterations=35, optimizer="adam", pooling="avg")
    exact, ours = (stylize(replace(given, precision=precision)) for precision in ("float32", "bfloat16"))
    assert exact.losses[-1].total < exact.losses[0].total / 10
    assert ours.losses[-1].total != exact.losses[-1].total
    # Average pooling: where maxima change places, thin networks part by up to 28% on the way.
    assert ours.losses[-1].total == pytest.approx(exact.losses[-1].total, rel=0.01)
    assert np.isfinite(ours.image).all()


def test_lbfgs_gets_away_from_noise(options):
    # Of seeds 1 to 3, the one with which it would not if all evaluations were in bfloat16.
    ours = stylize(options(num_iterations=60, pooling="avg", seed=3, precision="bfloat16"))
    assert ours.losses[-1].total < ours.losses[0].total / 50


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_first_evaluations_and_the_targets_are_float32s(optimizer, options):
    given = options(num_iterations=FLOAT32_EVALUATIONS + 1, optimizer=optimizer)
    exact, ours = (stylize(replace(given, precision=precision)) for precision in ("float32", "bfloat16"))
    assert ours.losses[:-1] == exact.losses[:-1]
    assert ours.losses[-1] != exact.losses[-1]
    assert ours.losses[-1].total == pytest.approx(exact.losses[-1].total, rel=0.02)


@pytest.mark.parametrize("saved_at", [FLOAT32_EVALUATIONS - 1, FLOAT32_EVALUATIONS, FLOAT32_EVALUATIONS + 3])
def test_a_resumed_run_changes_precision_where_the_whole_one_does(saved_at, options):
    given = options(num_iterations=FLOAT32_EVALUATIONS + 6, precision="bfloat16")
    whole = stylize(given)

    def interrupt(progress):
        if progress.iteration == saved_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stylize(replace(given, checkpoint="state"), on_progress=interrupt)
    resumed = stylize(replace(given, resume="state"))
    assert resumed.losses == whole.losses
    assert np.array_equal(resumed.image, whole.image)

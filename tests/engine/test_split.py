"""What --precision promises of a GPU's convolutions, with TF32's rounding emulated on the CPU."""

from __future__ import annotations

import pytest
import thin_networks as thin
import torch
import torch.nn.functional as F
from tf32_units import cut_off, to_nearest

from legacy_style.engine import machine
from legacy_style.engine.kernels import convolution, split
from legacy_style.engine.session import Session
from legacy_style.errors import OptionError
from legacy_style.toolkit import turns

CUDA = torch.device("cuda")


@pytest.fixture(params=[cut_off, to_nearest], ids=["cut off", "to nearest"])
def rounding(request, monkeypatch):
    """Convolutions that may round to TF32 do."""

    def convolve(weight, x, pad):
        return F.conv2d(request.param(x), request.param(weight.contiguous()), None, padding=pad)

    monkeypatch.setattr(split, "convolve_rounded", convolve)
    return request.param


def apart(ours, exact):
    return ((ours.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("band", [2**26, 3 * 24 * 19 * 5], ids=["at once", "in bands"])
@pytest.mark.parametrize("pad", [(1, 1), (0, 2), (2, 0)])
@torch.no_grad()
def test_three_products_keep_float32s_digits(rounding, band, pad, monkeypatch):
    monkeypatch.setattr(split, "BAND", band)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 24, 17, 19, generator=generator)
    weight = torch.randn(32, 24, 3, 3, generator=generator) / 15
    positive = torch.randn(1, 24, 17, 19, generator=generator)
    masked = torch.where(positive > 0, x, 0.0)
    kernels = split.split_kernels(weight)
    for given, mask in ((x, None), (masked, positive)):
        exact = F.conv2d(given.double(), weight.double(), padding=pad)
        ours = split.convolve(kernels, x.clone(), pad, mask)
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert apart(ours, exact) < 2e-6
        assert apart(split.convolve_rounded(weight, given, pad), exact) > 1e-4


def test_parts_add_up_to_the_bit():
    x = torch.randn(1, 5, 4, 3, generator=torch.Generator().manual_seed(5)) * 1e3
    high, low, again = split._split(x, None, -1, 5).split(5, 1)
    assert torch.equal((high + low)[:, :, 1:5], x)
    assert torch.equal(high, again)
    assert torch.equal(cut_off(high.contiguous()), high)
    assert not high[:, :, [0, 5]].any() and not low[:, :, [0, 5]].any()


def test_the_way_is_chosen_by_precision_where_there_are_tf32_units(monkeypatch):
    shape, pad = (256, 256, 3, 3), (1, 1)
    for units, tf32, way in ((True, False, "split"), (True, True, "tf32"), (False, True, "direct")):
        monkeypatch.setattr(split, "has_units", lambda device, units=units: units)
        assert convolution.choose(CUDA, torch.float32, shape, pad=pad, tf32=tf32) == way
        assert convolution.choose(CUDA, torch.bfloat16, shape, pad=pad, tf32=tf32) == "direct"
        # Of the image itself, the three parts would cost more than they save.
        assert convolution.choose(CUDA, torch.float32, (64, 3, 3, 3), pad=pad, tf32=tf32) == "columns"


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_units_are_those_from_ampere_on(capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert split.has_units(CUDA) == (capability >= (8, 0))
    assert not split.has_units(torch.device("cpu"))
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert not split.has_units(CUDA), "AMD's, whose numbers mean something else"


def test_rounding_is_allowed_for_one_convolution_and_no_longer(monkeypatch):
    def settings():
        newer = hasattr(torch.backends.cuda.matmul, "fp32_precision")
        return torch.backends.cudnn.conv.fp32_precision if newer else torch.backends.cudnn.allow_tf32

    seen = []
    monkeypatch.setattr(F, "conv2d", lambda *_, **__: seen.append(settings()))
    with machine.float32(autotune=False):
        before = settings()
        split.convolve_rounded(torch.zeros(1), torch.zeros(1), (0, 0))
        assert settings() == before
    assert seen in (["tf32"], [True])
    assert before in ("ieee", False)


@torch.no_grad()
def gradient(monkeypatch, dtype, way):
    """The image's gradient of the bundled network, all its wide convolutions in one way."""

    def choose(device, dtype, shape, **more):
        return way if min(shape[:2]) > 4 else "direct"

    monkeypatch.setattr(convolution, "choose", choose)
    net = turns.build_network(None)
    net.compute_in(dtype, tf32=way == "tf32")
    session = Session(net)
    content, style, image = (thin.smooth(48, 64, seed).to(dtype) for seed in range(3))
    session.set_content(content)
    session.set_styles([style])
    return session.evaluate(image)[1]


PROMISED = 1e-4


def test_the_gradient_of_the_bundled_network_keeps_the_promise_of_float32(rounding, monkeypatch):
    exact = gradient(monkeypatch, torch.float64, "direct")
    assert apart(gradient(monkeypatch, torch.float32, "split"), exact) < PROMISED
    # The rounding that is emulated is one that matters.
    assert apart(gradient(monkeypatch, torch.float32, "tf32"), exact) > PROMISED


def test_tf32_is_refused_on_a_processor_and_on_older_gpus(monkeypatch):
    with pytest.raises(OptionError, match="--precision tf32: this processor has no TF32"):
        machine.dtype("tf32", [torch.device("cpu")])
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: (7, 0) if device.index else (8, 0)
    )
    assert machine.dtype("tf32", [torch.device("cuda", 0)]) == torch.float32
    with pytest.raises(OptionError, match="--precision tf32: GPU 1 has no TF32"):
        machine.dtype("tf32", [torch.device("cuda", 0), torch.device("cuda", 1)])

"""A signal that comes while a run changes its state waits until the state is whole again."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import thin_networks as thin
from PIL import Image

from legacy_style.engine import optimise as runs
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.story import stylize


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("content", 1), ("style", 2)):
        pixels = 128 + thin.smooth(40, 48, seed, 40)[0].permute(1, 2, 0)
        Image.fromarray(pixels.clamp(0, 255).byte().numpy()).save(f"{name}.png")
    return Options(
        content_image="content.png",
        style_image="style.png",
        model_file=thin.path("vgg19"),
        image_size=48,
        gpu="-1",
        seed=1,
        num_iterations=8,
        save_iter=1,
        content_layers="relu2_1",
        style_layers="relu1_1,relu2_1",
    )


class Signalling(list):
    """A list of losses in the middle of whose seventh `append` a signal comes."""

    def append(self, losses):
        if len(self) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        super().append(losses)


def test_an_image_is_saved_under_its_own_number(options, monkeypatch):
    """The image of evaluation 7 is kept, then its losses: a signal in between must see both or neither."""
    stylize(options)
    seventh = Path("out_7.png").read_bytes()
    for path in Path().glob("out*"):
        path.unlink()
    right = runs.Optimisation.__init__

    def with_a_signal(self, *args, **more):
        right(self, *args, **more)
        self.losses = Signalling()

    monkeypatch.setattr(runs.Optimisation, "__init__", with_a_signal)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stylize(options)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert Path("out_7.png").read_bytes() == seventh


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_and_none_is_lost(number):
    seen = []
    previous = signal.signal(number, lambda *_: seen.append("handled"))
    try:
        deferral = runs.Deferral()
        deferral.begin()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        np.sort(np.zeros(10))  # so that the interpreter may handle it
        assert seen == []
        deferral.end()
        assert seen == ["handled"] * 2
        os.kill(os.getpid(), number)
        assert seen == ["handled"] * 3
        deferral.end()
        assert seen == ["handled"] * 3
    finally:
        signal.signal(number, previous)


def test_a_signal_that_is_ignored_stays_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        deferral = runs.Deferral()
        deferral.begin()
        os.kill(os.getpid(), signal.SIGINT)
        deferral.end()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)

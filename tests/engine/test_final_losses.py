"""Where runs in coarser precisions end, with the bundled network and the three example pairs.

The final losses, evaluated in float32 after some iterations of Adam from the content image, against those of a float32
run. TF32 is emulated on the CPU, with the sums of the CPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tf32_units import Units, cut_off, pretend

from legacy_style.engine.optimisers import Adam
from legacy_style.engine.session import Session
from legacy_style.toolkit import turns

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = [
    ("china.jpg", "ink_wash.jpg", 200),
    ("chelsea.png", "impasto.jpg", 60),
    ("coffee.jpg", "mosaic.jpg", 60),
]
"""Content, style, iterations: all 200 for one pair, for time."""

SIDE = 48

MEAN_PIXEL = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)  # blue, green, red


def picture(name):
    """As the network takes it, with a longer side of SIDE."""
    small = Image.open(EXAMPLES / name).convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(small, np.float32)).permute(2, 0, 1)[None]
    return pixels.flip(1) - MEAN_PIXEL


def session(content, style):
    made = Session(turns.build_network(None))
    made.set_content(content)
    made.set_styles([style])
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("content", "style", "iterations"), RUNS)
@torch.no_grad()
def test_tf32_ends_within_1_percent_of_float32(content, style, iterations, monkeypatch):
    name, content, style = content, picture(content), picture(style)
    exact = session(content, style)

    def loss(image):
        return sum(exact.evaluate(image)[0].values())

    start, reached = loss(content), loss(exact.run(content, Adam(iterations, 5.0)).image)
    assert reached < start / 3, "the run went somewhere"
    pretend(monkeypatch)
    with Units(cut_off) as units:
        coarse = session(content, style).run(content, Adam(iterations, 5.0, in_steps=True), tf32=True)
    assert min(units.used["conv"], units.used["matmul"]) > iterations
    ours = loss(coarse.image)
    print(
        f"{name}: {ours / reached:.4f} of float32's, which is {start / reached:.1f} times less than at the start"
    )
    assert ours == pytest.approx(reached, rel=0.01)

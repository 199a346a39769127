"""A network over strips of an image gives what it gives for the whole."""

from __future__ import annotations

import pytest
import torch

from legacy_style.errors import UnsupportedError
from legacy_style.programs.fast_neural_style import strips
from legacy_style.programs.fast_neural_style.architecture import build
from legacy_style.programs.fast_neural_style.values import Architecture
from legacy_style.torch7.random import Generator

NETWORKS = [
    Architecture("c9s1-6,d8,d12,R12,R12,U2,c3s1-8,U2,c3s1-6,c9s1-3", "reflect"),
    Architecture("c9s1-4,d6,d8,R8,u6,u4,c9s1-3", "reflect-start"),
    Architecture("c9s1-4,d6,d8,R8,u6,u4,c9s1-3", "zero"),
    Architecture("c7s1-4,d6,C6,f3s2-4,c5s1-3", "replicate", use_instance_norm=False),
    Architecture("c9s1-4,d6,R6,C6,f4s2-4,c9s1-3", "none"),
    Architecture("f3s2-4,c3s2-6,c5s1-3", "zero"),
]


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda each: f"{each.arch[:12]} {each.padding_type}")
@pytest.mark.parametrize(("height", "width"), [(61, 47), (40, 64)])
@pytest.mark.parametrize("rows", [1, 7, 32, 1000])
def test_strips_are_as_close_to_float64_as_the_whole_is(architecture, height, width, rows):
    model = build(architecture, Generator(3)).eval()
    x = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 60
    ours = strips.run(model, x, rows)
    with torch.no_grad():
        whole = model(x)
        exact = model.double()(x.double())
    assert ours.shape == whole.shape
    # Of values up to 150; the whole in float32 is off by up to 4e-4.
    assert (ours - exact).abs().max() < 1e-3


def test_statistics_are_those_of_the_whole_where_strips_have_others():
    """Rows of quite different brightness: what each strip would be normalised to by itself is far off."""
    model = build(NETWORKS[0], Generator(3)).eval()
    x = torch.linspace(-120, 130, 80).view(1, 1, 80, 1).expand(1, 3, 80, 40).contiguous()
    with torch.no_grad():
        whole = model(x)
        alone = torch.cat([model(strip) for strip in x.split(20, 2)], 2)
    assert (alone - whole).abs().max() > 10
    assert (strips.run(model, x, 20) - whole).abs().max() < 1e-3


def test_maps_may_lie_in_files():
    model = build(NETWORKS[0], Generator(3)).eval()
    x = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 60
    torch.testing.assert_close(
        strips.run(model, x, 16, in_memory=0), strips.run(model, x, 16), rtol=0, atol=0
    )


def test_no_strip_asks_for_much_more_than_its_own_rows(monkeypatch):
    """Memory: the largest map that is computed at a time is that of a strip and what convolutions reach."""
    model = build(NETWORKS[0], Generator(3)).eval()
    tallest = 0
    convolve = torch.nn.functional.conv2d

    def watched(x, *rest, **more):
        nonlocal tallest
        tallest = max(tallest, x.shape[2])
        return convolve(x, *rest, **more)

    monkeypatch.setattr("torch.nn.functional.conv2d", watched)
    strips.run(model, torch.zeros(1, 3, 400, 20), 32)
    assert 32 <= tallest <= 32 + 24


def test_an_image_that_is_too_small_for_the_padding_is_refused():
    with pytest.raises(UnsupportedError, match="too small"):
        strips.run(build(NETWORKS[0], Generator(3)).eval(), torch.zeros(1, 3, 4, 40), 8)


def test_a_module_that_has_no_rows_is_refused():
    with pytest.raises(UnsupportedError, match="Softmax"):
        strips.run(torch.nn.Sequential(torch.nn.Softmax(1)), torch.zeros(1, 3, 8, 8), 4)

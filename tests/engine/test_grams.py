"""legacy_style.engine.kernels.grams: every way against float64, and that a GPU's are taken where they should be."""

from __future__ import annotations

import pytest
import thin_networks as thin
import torch
from tf32_units import CUDA, Units, cut_off, pretend, to_nearest

from legacy_style.engine.kernels import grams, split
from legacy_style.engine.session import Session
from legacy_style.toolkit import turns

WAYS = ("plain", "split", "mixed")
# Of bfloat16's own values, the products are exact; what times the maps is rounded once more, and so is the sum.
GRAM = {"plain": 1e-6, "split": 1e-6, "mixed": 1e-6}
PRODUCT = {"plain": 1e-6, "split": 2e-6, "mixed": 2**-8}


def apart(ours, exact):
    return ((ours.double() - exact).norm() / exact.norm()).item()


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    if request.param == "mixed" and not hasattr(torch.ops.aten.bmm, "dtype"):
        pytest.skip("this PyTorch has no products of bfloat16 that are float32")
    monkeypatch.setattr(grams, "choose", lambda device, dtype: request.param)
    return request.param


def maps(pixels, channels, way):
    """Rectified, as most feature maps are: all products add up."""
    x = torch.randn(pixels, channels, generator=torch.Generator().manual_seed(3)).relu_() * 100
    return x.to(torch.bfloat16 if way == "mixed" else torch.float32)


@pytest.mark.parametrize("rounding", [cut_off, to_nearest])
@pytest.mark.parametrize("pixels", [3000, 700, 2048])
def test_every_way_gives_the_gram_matrix(way, pixels, rounding, monkeypatch):
    monkeypatch.setattr(split, "BAND", 2 * 24 * 1024)
    flat = maps(pixels, 24, way)
    with Units(rounding) as units:
        ours = grams.products(flat)
    assert ours.dtype == torch.float64
    assert apart(ours, flat.double().T @ flat.double()) < GRAM[way]
    assert bool(units.used["matmul"]) == (way == "split")
    assert bool(units.used["mixed"]) == (way == "mixed")


@pytest.mark.parametrize("rounding", [cut_off, to_nearest])
def test_every_way_gives_the_product_and_adds_it_in_place(way, rounding, monkeypatch):
    monkeypatch.setattr(split, "BAND", 2 * 24 * 1024)
    flat = maps(3000, 24, way)
    matrix = torch.randn(24, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    matrix += matrix.T.clone()
    exact = flat.double() @ matrix
    grad = torch.ones_like(flat)
    with Units(rounding):
        product = grams.product(flat, matrix)
        grams.add_product(grad, flat, matrix, 0.5)
    assert apart(product, exact) < PRODUCT[way]
    assert apart(grad, 1 + exact / 2) < PRODUCT[way]


def test_rounding_is_asked_for_by_tf32_alone(monkeypatch):
    monkeypatch.setattr(grams, "choose", lambda device, dtype: "split")
    flat, matrix = maps(500, 24, "split"), torch.randn(24, 24, generator=torch.Generator().manual_seed(4))
    exact = flat.double() @ matrix.double()
    with Units():
        assert 1e-4 < apart(grams.product(flat, matrix, tf32=True), exact) < 1e-3


def test_a_gradient_of_another_type_takes_its_own_rounding(way):
    flat, matrix = maps(500, 24, way), torch.eye(24)
    grad = torch.zeros(500, 24, dtype=torch.float64)
    with Units():
        grams.add_product(grad, flat, matrix, 2.0)
    assert apart(grad, 2 * flat.double()) < PRODUCT[way]


def test_the_way_is_chosen_by_device_and_type(monkeypatch):
    monkeypatch.setattr(split, "has_units", lambda device: device.type == "cuda")
    assert grams.choose(CUDA, torch.float32) == "split"
    assert grams.choose(CUDA, torch.float64) == "plain"
    mixed = "mixed" if hasattr(torch.ops.aten.bmm, "dtype") else "split"
    assert grams.choose(CUDA, torch.bfloat16) == mixed
    ways = {dtype: grams.choose(torch.device("cpu"), dtype) for dtype in (torch.float32, torch.float64)}
    assert set(ways.values()) == {"plain"}
    assert grams.choose(torch.device("cpu"), torch.bfloat16) == "narrow"


PROMISED = 1e-4


@pytest.mark.parametrize("rounding", [cut_off, to_nearest])
@torch.no_grad()
def test_with_both_kernels_float32_keeps_its_promise(rounding, monkeypatch):
    images = [thin.smooth(48, 64, seed) for seed in range(3)]

    def gradient(dtype, tf32=False):
        net = turns.build_network(None)
        net.compute_in(dtype)
        session = Session(net)
        session.set_content(images[0].to(dtype))
        session.set_styles([images[1].to(dtype)])
        net.compute_in(dtype, tf32=tf32)
        return session.objective(48, 64)(images[2].to(dtype))[1]

    exact = gradient(torch.float64)
    pretend(monkeypatch)
    with Units(rounding) as units:
        assert apart(gradient(torch.float32), exact) < PROMISED
        assert min(units.used["conv"], units.used["matmul"]) > 0
        assert PROMISED < apart(gradient(torch.float32, tf32=True), exact) < 0.05

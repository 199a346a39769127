"""legacy_style.engine.steps: what one GPU does in place of torch7/optim's loops, here on the CPU, against those."""

from __future__ import annotations

import math

import pytest
import torch

from legacy_style.engine import products, steps
from legacy_style.engine.optimise import NoWayDown
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.torch7 import optim


class Counted:
    """A function as `optimise.Feval` has it, and all x that it was evaluated at."""

    def __init__(self, function):
        self.function, self.seen = function, []

    def __call__(self, x, slope=None, *, blind=False):
        if slope is not None and optim.rises(slope.item()):
            raise NoWayDown
        self.seen.append(x.clone())
        return self.function(x)


def curved(size, dtype=torch.float64):
    """sum(a (x - b)^2 / 2 + log cosh x), a from 0.1 to 30: neither quadratic nor easy."""
    generator = torch.Generator().manual_seed(size)
    a = torch.logspace(-1, 1.5, size, dtype=torch.float64).to(dtype)
    b, start = torch.randn(2, size, generator=generator, dtype=torch.float64).to(dtype)

    def function(x):
        value = (a * (x - b).square() / 2 + torch.cosh(x).log()).sum()
        return value.item(), a * (x - b) + torch.tanh(x)

    return function, start


def both_ways(function, start, count, correction=100):
    """What the two loops and the steps evaluate, print and keep."""
    results = []
    for in_steps in (False, True):
        said: list[str] = []
        optimizer = Lbfgs(count, correction, log=said.append, in_steps=in_steps)
        feval = Counted(function)
        x = start.clone()
        optimizer.minimise(feval, x, 0)
        results.append((feval.seen, said, optimizer.pack(), x))
    return results


def apart(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


SIZE = 1100  # of vectors: two blocks and a rest


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", 512)


@pytest.fixture(params=["products in float64", "products in blocks"])
def _kind(request, monkeypatch):
    """Products and combinations as the CPU has them, then as a GPU has them."""
    if request.param == "products in blocks":
        monkeypatch.setattr(products, "products", products.products_in_blocks)
        monkeypatch.setattr(products, "combine", products.combine_at_once)


@pytest.mark.parametrize("correction", [1, 3, 20, 100])
@pytest.mark.usefixtures("_kind")
def test_lbfgs_goes_the_way_of_the_two_loops(correction):
    """160 iterations, so that 100 pairs are full and forget."""
    function, start = curved(SIZE)
    (theirs, said_then, kept, _), (ours, said, kept_too, _) = both_ways(function, start, 160, correction)
    assert len(ours) == len(theirs) == 160
    assert said == said_then
    # Rounding grows by the iterations; near the minimum there is nothing else.
    for i in range(60):
        assert apart(ours[i], theirs[i]) < 1e-9, i
    assert function(ours[-1])[0] == pytest.approx(function(theirs[-1])[0], rel=1e-12)
    assert len(kept_too["rows"]) == len(kept["rows"])
    assert (kept_too["n_iter"], kept_too["func_eval"], kept_too["t"]) == (160, 160, 1.0)


@pytest.mark.usefixtures("_kind")
@pytest.mark.parametrize("count", [30, 150])
def test_in_float32_it_comes_as_far_down(count):
    exact, _ = curved(SIZE)
    (theirs, _, _, _), (ours, _, _, _) = both_ways(*curved(SIZE, torch.float32), count)
    reached, expected = (exact(each[-1].double())[0] for each in (ours, theirs))
    assert expected < 0.1 * exact(theirs[0].double())[0]
    assert reached == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("_kind")
@pytest.mark.parametrize("bend", [-1.0, 0.0, 1e-12], ids=["concave", "straight", "hardly curved"])
def test_pairs_without_curvature_are_not_kept(bend):
    slope = torch.linspace(-1, 1, 50, dtype=torch.float64)
    (theirs, _, kept, _), (ours, _, kept_too, _) = both_ways(
        lambda x: ((slope * x + bend * x.square() / 2).sum().item(), slope + bend * x), slope * 0.1, 12
    )
    assert kept["rows"] == kept_too["rows"] == []
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("_kind")
def test_pairs_are_kept_and_dropped_in_turn_as_by_the_two_loops():
    """A function whose curvature changes its sign along the way: cos, of many wavelengths."""
    steep = torch.linspace(0.5, 3, 40, dtype=torch.float64)
    (theirs, _, kept, _), (ours, _, kept_too, _) = both_ways(
        lambda x: (torch.cos(steep * x).sum().item(), -steep * torch.sin(steep * x)),
        torch.linspace(0.1, 3, 40, dtype=torch.float64),
        10,
        4,
    )
    assert 0 < len(kept["rows"]) == len(kept_too["rows"])
    assert kept["h_diag"] == pytest.approx(kept_too["h_diag"], rel=1e-6)
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("_kind")
@pytest.mark.parametrize("size", [5003, 9999])
def test_a_step_that_overshot_is_taken_back(size):
    """As in tests/torch7: the second step goes a thousand far, to a gradient of 1e12, in float32."""
    slope = torch.rand(size, generator=torch.Generator().manual_seed(1)) + 0.5
    feval = Counted(lambda x: (0.0, -slope + 1e-3 * x + 1e3 * (x - 10).clamp(min=0) ** 3))
    Lbfgs(4, in_steps=True).minimise(feval, torch.zeros(size), 0)
    _, before, astray, after = feval.seen
    assert (astray - before).max() > 1000
    assert (after - before).abs().max() < 1e-3


def test_a_gradient_that_is_zero_or_no_number_ends_nothing():
    for gradient in (0.0, math.nan):
        (theirs, said, _, _), (ours, said_too, _, _) = both_ways(
            lambda x, gradient=gradient: (gradient, torch.full_like(x, gradient)), torch.ones(3), 20
        )
        assert len(theirs) == len(ours)
        assert said == said_too


@pytest.mark.parametrize("at", [5, 9])
def test_a_direction_along_which_f_would_rise_ends_the_run_without_a_word(at, monkeypatch):
    """After iteration `at` of 9: the evaluation that follows is reported by nobody."""
    function, start = curved(12)
    after = steps.LbfgsStep.next

    def follow(step):
        after(step)
        followed.append(step.slope.fill_(1.5) if len(followed) == at - 2 else step.slope)

    followed: list[torch.Tensor] = []
    monkeypatch.setattr(steps.LbfgsStep, "next", follow)
    said: list[str] = []
    feval = Counted(function)
    Lbfgs(9, log=said.append, in_steps=True).minimise(feval, start, 0)
    assert len(feval.seen) == at
    assert said == [optim.verbose("creating recyclable direction/step/history buffers")]


@pytest.mark.parametrize(("iterations", "evaluations"), [(0, 1), (-3, 1), (1, 1), (2, 2), (4.5, 6), (20, 20)])
def test_as_many_evaluations_as_the_original_makes(iterations, evaluations):
    function, start = curved(12)
    (theirs, said, _, _), (ours, said_too, _, _) = both_ways(function, start, iterations)
    assert len(ours) == len(theirs) == evaluations
    assert said == said_too


def broken_off_at_17(optimizer, function, x):
    seen = Counted(function)

    def feval(x, slope=None, *, blind=False):
        if len(seen.seen) == 17:
            raise KeyboardInterrupt
        return seen(x, slope)

    with pytest.raises(KeyboardInterrupt):
        optimizer.minimise(feval, x, 0)


@pytest.mark.parametrize("resumed_in_steps", [False, True])
@pytest.mark.parametrize("saved_in_steps", [False, True])
def test_a_state_goes_on_wherever_it_was_made(saved_in_steps, resumed_in_steps):
    function, start = curved(700)
    whole = both_ways(function, start, 30, 8)[0][0]
    first, x = Lbfgs(30, 8, in_steps=saved_in_steps), start.clone()
    broken_off_at_17(first, function, x)
    second = Lbfgs(30, 8, in_steps=resumed_in_steps)
    second.unpack(first.pack(), x)
    rest = Counted(function)
    second.minimise(rest, x, 17)
    assert len(rest.seen) == 13
    for mine, right in zip(rest.seen, whole[17:], strict=True):
        assert apart(mine, right) < 1e-9


def test_a_run_in_steps_that_was_broken_off_goes_on_to_the_bit():
    function, start = curved(700)
    whole = Counted(function)
    Lbfgs(30, 8, in_steps=True).minimise(whole, start.clone(), 0)
    first, x = Lbfgs(30, 8, in_steps=True), start.clone()
    broken_off_at_17(first, function, x)
    second = Lbfgs(30, 8, in_steps=True)
    second.unpack(first.pack(), x)
    rest = Counted(function)
    second.minimise(rest, x, 17)
    assert all(torch.equal(*pair) for pair in zip(rest.seen, whole.seen[17:], strict=True))


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_adam_goes_the_way_of_the_original(dtype, rounding):
    function, start = curved(300, dtype)
    seen = []
    for in_steps in (False, True):
        feval = Counted(function)
        Adam(40, 0.3, in_steps=in_steps).minimise(feval, start.clone(), 0)
        seen.append(feval.seen)
    assert len(seen[0]) == len(seen[1]) == 40
    for theirs, ours in zip(*seen, strict=True):
        assert apart(ours, theirs) < rounding


def test_adam_in_steps_goes_on_from_either_state():
    function, start = curved(300)
    whole = Counted(function)
    Adam(40, 0.3).minimise(whole, start.clone(), 0)
    for in_steps in (False, True):
        first, x = Adam(15, 0.3, in_steps=in_steps), start.clone()
        first.minimise(Counted(function), x, 0)
        second, rest = Adam(40, 0.3, in_steps=not in_steps), Counted(function)
        second.unpack(first.pack(), x)
        second.minimise(rest, x, 15)
        assert apart(rest.seen[-1], whole.seen[-1]) < 1e-12

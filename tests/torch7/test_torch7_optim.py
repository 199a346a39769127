"""legacy_style.torch7.optim against the recorded optimisations of a toy function in double precision."""

import json
import math
import re

import numpy as np
import pytest
import torch
from recordings import RECORDED, SHIPPED, both_roots, component, needs_shared

from legacy_style.torch7.optim import AdamState, LbfgsState, adam, lbfgs

# 40 iterations of sums in another order.
ROUNDING = 1e-12


def toy(x):
    """sum(cos x) + 0.05 sum(x^2) + 0.3 (x1 x2 - 1)^2 and its gradient."""
    v = x.view(-1)
    bend = v[0] * v[1] - 1
    grad = -torch.sin(v) + 0.1 * v
    grad[0] += 0.6 * bend * v[1]
    grad[1] += 0.6 * bend * v[0]
    return (torch.cos(v).sum() + 0.05 * v.square().sum() + 0.3 * bend**2).item(), grad


def start(arrays, dtype=torch.float64):
    return torch.from_numpy(arrays["toy_x0"].copy()).to(dtype)


def info(root):
    return json.loads((root / "components" / "optim" / "arrays.json").read_text())["info"]


def numbers(line):
    return {key: float(value) for key, value in re.findall(r"(\w+)=(\S+)", line)}


# neural_style.lua's: no tolerance ever stops it.
def run(feval, x, count, correction=100):
    state = LbfgsState()
    history = lbfgs(feval, x, max_iter=count, tol_fun=-1, tol_x=-1, n_correction=correction, state=state)
    return history, state


@both_roots
@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 20, 40])
@pytest.mark.parametrize("correction", [0, 1, 3])
def test_lbfgs_ends_where_the_original_did_with_the_same_state(root, correction, count):
    arrays, name = component("optim", root), f"lbfgs_nc{correction}"
    x = start(arrays)
    history, state = run(toy, x, count, correction or 100)
    np.testing.assert_allclose(history, arrays[f"{name}_fhist_iter{count}"], rtol=ROUNDING)
    np.testing.assert_allclose(x, arrays[f"{name}_x_iter{count}"], rtol=0, atol=1e-9)
    theirs = numbers(info(root)[f"{name}_iter{count}"])
    assert (state.func_eval, state.n_iter, len(state.rows)) == tuple(
        theirs[key] for key in ("evals", "nIter", "hist")
    )
    assert state.h_diag == pytest.approx(theirs["Hdiag"], rel=1e-6)
    assert state.t == pytest.approx(theirs["t"], rel=1e-14)


@both_roots
@pytest.mark.parametrize("rate", ["0.1", "10"])
@pytest.mark.parametrize("count", [1, 2, 5, 20, 40])
def test_adam_ends_where_the_original_did(root, rate, count):
    arrays = component("optim", root)
    x, state = start(arrays), AdamState()
    for _ in range(count):
        adam(toy, x, state, learning_rate=float(rate))
    np.testing.assert_allclose(x, arrays[f"adam_lr{rate}_x_iter{count}"], rtol=0, atol=1e-9)


@both_roots
def test_adam_in_single_precision_rounds_as_the_original(root):
    arrays = component("optim", root)
    x, state = start(arrays, torch.float32), AdamState()
    for _ in range(20):
        adam(toy, x, state, learning_rate=10)
    theirs = arrays["adam_float_lr10_x_iter20"]
    assert x.dtype == torch.float32
    # Where sin and cos are rounded otherwise, Adam makes steps of a gradient near 0 out of it; both are as
    # far from the result in double.
    far = np.abs(theirs - arrays["adam_lr10_x_iter20"]).max()
    assert np.abs(x.numpy() - theirs).max() <= 2 * far


@both_roots
def test_a_gradient_of_zero_is_20_evaluations_at_the_same_place(root):
    arrays = component("optim", root)
    x = start(arrays)
    history, state = run(lambda x: (1.0, torch.zeros_like(x)), x, 20)
    np.testing.assert_array_equal(x, arrays["lbfgs_zero_gradient_x"])
    assert info(root)["lbfgs_zero_gradient"] == f"evals={len(history)} nIter={state.n_iter}"


@both_roots
def test_nan_does_not_stop_lbfgs(root):
    history, state = run(lambda x: (math.nan, x * math.nan), torch.ones(3, dtype=torch.float64), 20)
    assert info(root)["lbfgs_nan"] == f"evals={len(history)} nIter={state.n_iter}"


@both_roots
def test_on_a_concave_function_no_pair_is_kept(root):
    arrays = component("optim", root)
    x = start(arrays)
    history, state = run(lambda x: (-x.square().sum().item(), -2 * x), x, 20)
    np.testing.assert_allclose(x, arrays["lbfgs_concave_x"], rtol=1e-12)
    assert info(root)["lbfgs_concave(-x^2)"] == (
        f"evals={len(history)} nIter={state.n_iter} hist={len(state.rows)}"
    )


@needs_shared
def test_every_recorded_array_is_used_here():
    known = r"toy_x0|lbfgs_nc[013]_(x|fhist)_iter\d+|adam_lr(0\.1|10)_x_iter\d+|adam_float_lr10_x_iter20"
    known += "|lbfgs_zero_gradient_x|lbfgs_concave_x"
    arrays = component("optim", RECORDED)
    assert [key for key in arrays if not re.fullmatch(known, key)] == []
    assert set(component("optim", SHIPPED)) == set(arrays)


def lines(feval, x, **given):
    said = []
    lbfgs(feval, x, log=said.append, **given)
    return said


def test_lbfgs_prints_as_the_original_does_under_th():
    """The lines around `Iteration t` in every recorded stdout; the stops are lbfgs.lua's own texts."""
    x = torch.tensor([3.0, -2.0], dtype=torch.float64)
    created = "<optim.lbfgs> \tcreating recyclable direction/step/history buffers\t"
    assert lines(toy, x.clone(), max_iter=3, tol_fun=-1, tol_x=-1) == [
        created,
        "<optim.lbfgs> \treached max number of iterations\t",
    ]
    assert lines(toy, x.clone(), max_iter=4.5, tol_fun=-1, tol_x=-1) == [
        created,
        "<optim.lbfgs> \tmax nb of function evals\t",
    ]
    flat = lines(lambda x: (0.0, x * 0), x.clone())
    assert flat == ["<optim.lbfgs> \toptimality condition below tolFun\t"]
    assert lines(toy, x.clone(), max_iter=99, tol_fun=1e-3, tol_x=-1)[1:] == flat
    assert lines(lambda x: (x.square().sum().item(), 2 * x), x.clone(), max_iter=99, tol_fun=-1, tol_x=10)[
        1:
    ] == ["<optim.lbfgs> \tstep size below tolX\t"]
    assert lines(lambda x: (5.0, 2 * x), x.clone(), max_iter=99, tol_fun=-1, tol_x=1e-3)[1:] == [
        "<optim.lbfgs> \tfunction value changing less than tolX\t"
    ]


def test_a_direction_along_which_f_would_rise_ends_the_run_without_a_word():
    x = torch.tensor([1.0], dtype=torch.float64)
    calls = []

    def feval(x):
        calls.append(x.item())
        return 0.0, torch.tensor([1e-12], dtype=torch.float64)

    said = lines(feval, x, max_iter=9, tol_fun=-1, tol_x=1e-9)
    assert (len(calls), x.item(), len(said)) == (1, 1.0, 1)


@pytest.mark.parametrize(("iterations", "evaluations"), [(0, 1), (-3, 1), (1, 1), (2, 2), (4.5, 6), (20, 20)])
def test_as_many_evaluations_as_the_original_makes(iterations, evaluations):
    """README of the recordings: -num_iterations 0, negative and fractional."""
    history, _ = run(toy, torch.linspace(-3, 4, 12, dtype=torch.float64), iterations)
    assert len(history) == evaluations


def test_correction_pairs_are_aligned_whatever_the_size_of_the_image():
    x = torch.linspace(-3, 4, 13)  # 52 bytes
    _, state = run(toy, x, 10)
    assert len(state.rows) > 3
    for pairs in (state.steps, state.changes):
        assert all(pairs[row].data_ptr() % 64 == 0 for row in state.rows)


@pytest.mark.parametrize("size", [5003, 6954, 9999])
def test_a_step_that_overshot_is_taken_back(size):
    """The curvature is 1e-3 up to 10, so the second step goes a thousand far, to a gradient of 1e12.

    Then s.q is -y.s but for the order in which it is summed up: one rounding of difference and q, which
    should cancel, is 1e5, and x is lost.
    """
    slope = torch.rand(size, generator=torch.Generator().manual_seed(1)) + 0.5
    seen = []

    def feval(x):
        seen.append(x.clone())
        return 0.0, -slope + 1e-3 * x + 1e3 * (x - 10).clamp(min=0) ** 3

    run(feval, torch.zeros(size), 4)
    _, before, astray, after = seen
    assert (astray - before).max() > 1000
    assert (after - before).abs().max() < 1e-3

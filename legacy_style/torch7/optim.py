"""The two optimisers of neural_style.lua, with Torch7's arithmetic, stopping rules and log lines.

Ports torch/optim a5ceed7, lbfgs.lua and adam.lua. Neither has a line search. Notes: the first L-BFGS step has
length min(1, 1/||g||_1); the function is not evaluated after the last update; a direction along which f would rise
ends the run silently; tolerances may be negative, which switches their tests off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Feval = Callable[[Tensor], tuple[float, Tensor]]
"""Takes x, returns f(x) and its gradient as a vector of x.numel() elements."""

Total = Callable[[list[float]], list[float]]
"""Adds each number up over all processes, where every process has a part of x."""

CURVATURE_MIN = 1e-10
"""lbfgs.lua: a correction pair is kept only if y.s is larger."""

EVALUATIONS = 1.25
"""lbfgs.lua: so many evaluations an iteration are the most."""


@dataclass
class LbfgsState:
    """What lbfgs.lua keeps in its `state` table; calling again with it continues where the last call stopped.

    Correction pairs lie in two flat arrays: row `rows[k]` of `steps` is s = x_new - x_old of the k-th oldest pair
    (`old_dirs` in lbfgs.lua), the same row of `changes` is y = g_new - g_old (`old_stps`), `rho[k]` is 1 / y.s.
    """

    n_iter: int = 0
    func_eval: int = 0
    h_diag: float = 1.0
    t: float = 1.0
    rows: list[int] = field(default_factory=list)
    rho: list[float] = field(default_factory=list)
    steps: Tensor | None = None
    changes: Tensor | None = None
    direction: Tensor | None = None
    g_old: Tensor | None = None

    def make_room(self, like: Tensor, n_correction: int) -> None:
        """Reserve memory for `n_correction` pairs of the size of `like`."""
        self.steps, self.changes = _aligned_rows(like, n_correction), _aligned_rows(like, n_correction)


def lbfgs(
    feval: Feval,
    x: Tensor,
    *,
    max_iter: float = 20,
    tol_fun: float = 1e-5,
    tol_x: float = 1e-9,
    n_correction: int = 100,
    learning_rate: float = 1.0,
    tol_relative: float = 0.0,
    tol_relative_interval: float = 0.0,
    log: Callable[[str], None] | None = None,
    state: LbfgsState | None = None,
    done: int = 0,
    total: Total = list,
    recursion: Callable[[LbfgsState, Tensor], None] | None = None,
) -> list[float]:
    """Minimise `feval` from `x`, which is changed in place; returns every f(x) in the order of evaluation.

    A call that was broken off in an evaluation goes on, bit for bit, with its `state`, its x of then, and `done`, the
    number of iterations that it had completed.
    x: any shape, contiguous, float32 or float64. At most ceil(max_iter) iterations and 1.25 * max_iter evaluations
    (lbfgs.lua's default for maxEval). `log` takes the lines that lbfgs.lua prints when verbose, without line end.
    With `tol_relative_interval` n above 0, every n iterations f is compared with what it was n iterations before, and
    the run ends where it changed by less than `tol_relative` of that (manuelruder/artistic-videos 40e7447, lbfgs.lua).
    Where `x` is one process's part of a longer vector, `total` adds up over the parts, and `recursion` sets the state's
    direction to -H g of the whole; `feval` returns the whole f.
    """
    state = state or LbfgsState()
    say = log or (lambda message: None)
    recursion = recursion or _two_loop_recursion
    vector = x.view(-1)
    if math.isfinite(max_iter):
        n_correction = min(n_correction, max(1, math.ceil(max_iter)))
    max_eval = max_iter * EVALUATIONS

    f, g = feval(x)
    history = [f]
    evaluations = done + 1
    state.func_eval += 1
    if _whole(total, _l1_norm(g)) <= tol_fun:
        say(verbose("optimality condition below tolFun"))
        return history
    if state.steps is None:
        say(verbose("creating recyclable direction/step/history buffers"))
        # Rows are only touched when their pair exists, so this costs address space, not memory.
        state.make_room(vector, n_correction)

    iteration = done
    f_past: float | None = None
    while iteration < max_iter:
        iteration += 1
        state.n_iter += 1
        if state.n_iter == 1:
            state.direction = g.neg()
            state.g_old = g.clone()
        else:
            _remember_pair(state, g, n_correction, total)
            recursion(state, g)
        assert state.direction is not None
        f_old = f

        if rises(_whole(total, torch.dot(g, state.direction).item()), tol_x):
            break
        norm = _whole(total, _l1_norm(g)) if state.n_iter == 1 else 0.0
        state.t = learning_rate * (min(1.0, 1.0 / norm) if norm > 0 else 1.0)
        vector.add_(state.direction, alpha=state.t)

        if iteration == max_iter:
            say(verbose("reached max number of iterations"))
            break
        f, g = feval(x)
        history.append(f)
        evaluations += 1
        state.func_eval += 1
        if evaluations >= max_eval:
            say(verbose("max nb of function evals"))
            break
        if tol_fun >= 0 and _whole(total, _l1_norm(g)) <= tol_fun:
            say(verbose("optimality condition below tolFun"))
            break
        if tol_x >= 0 and _whole(total, _l1_norm(state.direction)) * state.t <= tol_x:
            say(verbose("step size below tolX"))
            break
        if abs(f - f_old) < tol_x:
            say(verbose("function value changing less than tolX"))
            break
        if tol_relative_interval > 0 and iteration % tol_relative_interval == 0:
            if f_past and abs(f - f_past) / f_past < tol_relative:
                say(verbose("relative change in function value is less than tolFunRelative"))
                break
            f_past = f
    return history


def _aligned_rows(like: Tensor, count: int) -> Tensor:
    """Room for `count` vectors of the size of `like`, each beginning at a multiple of 64 bytes.

    BLAS adds a dot product up in another order where a vector lies otherwise. y.s and s.q, equal but for the sign right
    after a step that overshot, then differ by a rounding, the two-loop recursion no longer cancels, and the run is lost
    (recorded run wc_odd: the original comes back from a loss of 1e20 in one step).
    """
    width = -(-like.numel() // 16) * 16
    return like.new_empty((count, width))[:, : like.numel()]


def verbose(message: str) -> str:
    """A line as lbfgs.lua's verbose() prints it under th: two items, each followed by a tab."""
    return f"<optim.lbfgs> \t{message}\t"


def rises(slope: float, tol_x: float = -1.0) -> bool:
    """Whether a run ends because no progress is possible along a direction (lbfgs.lua breaks without a word)."""
    return slope > -tol_x


def _l1_norm(v: Tensor) -> float:
    """Sum of absolute values, accumulated in double as TH does."""
    return v.abs().sum(dtype=torch.float64).item()


def _whole(total: Total, part: float) -> float:
    return total([part])[0]


def _remember_pair(state: LbfgsState, g: Tensor, n_correction: int, total: Total) -> None:
    """Form y = g - g_old and s = t d; keep the pair if y.s > 1e-10, forgetting the oldest when full."""
    assert state.steps is not None and state.changes is not None
    assert state.direction is not None and state.g_old is not None
    y = torch.sub(g, state.g_old, out=state.g_old)
    s = state.direction.mul_(state.t)
    ys, yy = total([torch.dot(y, s).item(), torch.dot(y, y).item()])
    if ys > CURVATURE_MIN:
        if len(state.rows) == n_correction:
            row = state.rows.pop(0)
            state.rho.pop(0)
        else:
            row = len(state.rows)
        state.steps[row].copy_(s)
        state.changes[row].copy_(y)
        state.rows.append(row)
        state.rho.append(1.0 / ys)
        state.h_diag = ys / yy
    state.g_old.copy_(g)


def _two_loop_recursion(state: LbfgsState, g: Tensor) -> None:
    """direction = -H g, H being the inverse Hessian that the correction pairs describe (Nocedal 1980)."""
    assert state.steps is not None and state.changes is not None and state.direction is not None
    q = torch.neg(g, out=state.direction)
    alpha = [0.0] * len(state.rows)
    for k in range(len(state.rows) - 1, -1, -1):
        row = state.rows[k]
        alpha[k] = torch.dot(state.steps[row], q).item() * state.rho[k]
        q.add_(state.changes[row], alpha=-alpha[k])
    q.mul_(state.h_diag)
    for k, row in enumerate(state.rows):
        beta = torch.dot(state.changes[row], q).item() * state.rho[k]
        q.add_(state.steps[row], alpha=alpha[k] - beta)


ADAM_BLOCK = 2**18
"""Elements that Adam works on at a time: they stay in the cache, and a large image needs no further vector."""


@dataclass
class AdamState:
    """What adam.lua keeps in its `state` table: step count, first and second moment (shape of the vector)."""

    t: int = 0
    m: Tensor | None = None
    v: Tensor | None = None


def adam(
    feval: Feval,
    x: Tensor,
    state: AdamState,
    *,
    learning_rate: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> float:
    """One step of Adam on `x` in place; returns f(x) before the step.

    Differs from Kingma and Ba (2015), and from torch.optim.Adam, in that epsilon stands outside the bias correction:
    x -= lr sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon).
    """
    f, g = feval(x)
    if state.m is None or state.v is None:
        state.m, state.v = torch.zeros_like(g), torch.zeros_like(g)
    state.t += 1
    step = learning_rate * math.sqrt(1 - beta2**state.t) / (1 - beta1**state.t)
    blocks = (torch.split(vector, ADAM_BLOCK) for vector in (x.view(-1), g, state.m, state.v))
    for x_block, g_block, m_block, v_block in zip(*blocks, strict=True):
        m_block.mul_(beta1).add_(g_block, alpha=1 - beta1)
        v_block.mul_(beta2).addcmul_(g_block, g_block, value=1 - beta2)
        x_block.addcdiv_(m_block, v_block.sqrt().add_(epsilon), value=-step)
    return f

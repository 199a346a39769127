"""The optimisers of neural_style.lua as `optimise.Optimizer`s, whose state goes into checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from legacy_style.engine.processes.compact import CompactRecursion
from legacy_style.engine.processes.group import Ranks
from legacy_style.torch7 import optim


class Lbfgs:
    """L-BFGS with at most `correction` pairs (s, y); where `ranks` share the image, over the vectors of all of them.

    `log` takes the lines that optim.lbfgs prints.
    """

    def __init__(
        self,
        num_iterations: float,
        correction: int = 100,
        *,
        log: Callable[[str], None] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.num_iterations, self.correction, self.log = num_iterations, correction, log
        self.ranks = ranks or Ranks()
        self.recursion = CompactRecursion(self.ranks) if self.ranks.size > 1 else None
        self.state = optim.LbfgsState()

    @property
    def vectors(self) -> dict[str, int]:
        """What it keeps, in vectors of the size of the image, the image and its gradient included."""
        pairs = int(min(self.correction, max(self.num_iterations - 1, 0)))
        return {"the image and L-BFGS's directions": 5, "L-BFGS's correction pairs": 2 * pairs}

    def minimise(self, feval: optim.Feval, x: Tensor, done: int) -> None:
        optim.lbfgs(
            feval,
            x,
            max_iter=self.num_iterations,
            tol_fun=-1,
            tol_x=-1,
            n_correction=self.correction,
            log=self.log,
            state=self.state,
            done=done,
            total=self.ranks.total,
            recursion=self.recursion,
        )

    def pack(self) -> dict[str, Any]:
        state = self.state
        used = len(state.rows)
        return {
            **{name: getattr(state, name) for name in ("n_iter", "func_eval", "h_diag", "t", "rows", "rho")},
            **{name: getattr(state, name) for name in ("direction", "g_old")},
            "correction": 0 if state.steps is None else state.steps.shape[0],
            "steps": None if state.steps is None else state.steps[:used].clone(),
            "changes": None if state.changes is None else state.changes[:used].clone(),
            "products": None if self.recursion is None else self.recursion.products,
        }

    def unpack(self, packed: Mapping[str, Any], x: Tensor) -> None:
        like = x.view(-1)
        state = self.state = optim.LbfgsState(
            **{name: packed[name] for name in ("n_iter", "func_eval", "h_diag", "t", "rows", "rho")}
        )
        state.direction, state.g_old = (_to(packed[name], like) for name in ("direction", "g_old"))
        if packed["correction"]:
            # A run that goes on for longer than the one before it may keep more pairs.
            wanted = self.correction
            if math.isfinite(self.num_iterations):
                wanted = min(wanted, max(1, math.ceil(self.num_iterations)))
            state.make_room(like, max(packed["correction"], wanted))
            assert state.steps is not None and state.changes is not None
            used = len(state.rows)
            state.steps[:used], state.changes[:used] = packed["steps"], packed["changes"]
        if self.recursion is not None:
            self.recursion.products = packed["products"]


class Adam:
    """Adam with neural_style.lua's epsilon outside the bias correction."""

    def __init__(self, num_iterations: float, learning_rate: float) -> None:
        self.num_iterations, self.learning_rate = num_iterations, learning_rate
        self.state = optim.AdamState()

    @property
    def vectors(self) -> dict[str, int]:
        """As in `Lbfgs`."""
        return {"the image and Adam's moments": 5}

    def minimise(self, feval: optim.Feval, x: Tensor, done: int) -> None:
        while self.state.t + 1 <= self.num_iterations:
            optim.adam(feval, x, self.state, learning_rate=self.learning_rate)

    def pack(self) -> dict[str, Any]:
        return {"t": self.state.t, "m": self.state.m, "v": self.state.v}

    def unpack(self, packed: Mapping[str, Any], x: Tensor) -> None:
        self.state = optim.AdamState(packed["t"], _to(packed["m"], x), _to(packed["v"], x))


def _to(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.device)

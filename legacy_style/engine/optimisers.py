"""The optimisers of neural_style.lua as `optimise.Optimizer`s, whose state goes into checkpoints.

On the CPU they are torch7/optim's loops, which the recordings hold; on one GPU they are `steps`, which do the same
arithmetic without waiting for the device. A checkpoint of one is a checkpoint of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from legacy_style.engine.optimise import Feval, NoWayDown, Repeat, plainly
from legacy_style.engine.processes.group import Ranks
from legacy_style.engine.processes.vector_free import VectorFreeRecursion
from legacy_style.engine.steps import AdamStep, LbfgsStep
from legacy_style.torch7 import optim


class Lbfgs:
    """L-BFGS with at most `correction` pairs (s, y); where `ranks` share the image, over the vectors of all of them.

    `log` takes the lines that optim.lbfgs prints. `in_steps`: whether to work by `steps`; None: on one GPU.
    """

    def __init__(
        self,
        num_iterations: float,
        correction: int = 100,
        *,
        log: Callable[[str], None] | None = None,
        ranks: Ranks | None = None,
        in_steps: bool | None = None,
    ) -> None:
        self.num_iterations, self.correction, self.log = num_iterations, correction, log
        self.ranks, self.in_steps = ranks or Ranks(), in_steps
        self.recursion = VectorFreeRecursion(self.ranks) if self.ranks.size > 1 else None
        self.state = optim.LbfgsState()
        self.step: LbfgsStep | None = None

    @property
    def vectors(self) -> dict[str, int]:
        """What it keeps, in vectors of the size of the image, the image and its gradient included."""
        pairs = int(min(self.correction, max(self.num_iterations - 1, 0)))
        return {"the image and L-BFGS's directions": 5, "L-BFGS's correction pairs": 2 * pairs}

    def minimise(self, feval: Feval, x: Tensor, done: int, repeat: Repeat = plainly) -> None:
        if self._steps_on(x):
            self._minimise_in_steps(feval, x, done, repeat)
            return
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
            total=self.ranks.all_reduce_numbers,
            recursion=self.recursion,
        )

    def _steps_on(self, x: Tensor) -> bool:
        return _is_on_one_gpu(x, self.ranks) if self.in_steps is None else self.in_steps

    def _most(self) -> int:
        """How many pairs there are at most."""
        iterations = self.num_iterations
        return (
            min(self.correction, max(1, math.ceil(iterations)))
            if math.isfinite(iterations)
            else self.correction
        )

    def _minimise_in_steps(self, feval: Feval, x: Tensor, done: int, repeat: Repeat) -> None:
        """What optim.lbfgs does without tolerances; its slope is looked at when the next losses are there."""
        state, say = self.state, self.log or (lambda line: None)
        fresh, iteration = self.step is None, done
        # Before anything is evaluated: where there is no room for it, the run can still begin elsewhere.
        step = self.step = self.step or LbfgsStep(x, self._most())
        _, g = feval(x, blind=not fresh)  # what is said next comes after its losses
        state.func_eval += 1
        if fresh:
            say(optim.verbose("creating recyclable direction/step/history buffers"))
        follow = repeat(step.next)
        while iteration < self.num_iterations:
            iteration += 1
            state.n_iter += 1
            if state.n_iter == 1:
                step.first(g)
            else:
                step.g.copy_(g)
                follow()
            del g  # before there is the next
            if iteration == self.num_iterations:
                if not optim.rises(step.slope.item()):
                    say(optim.verbose("reached max number of iterations"))
                return
            try:
                _, g = feval(x, step.slope, blind=True)
            except NoWayDown:
                return
            state.func_eval += 1
            if iteration + 1 >= optim.EVALUATIONS * self.num_iterations:
                say(optim.verbose("max nb of function evals"))
                return

    def pack(self) -> dict[str, Any]:
        state = self.state
        counts = {name: getattr(state, name) for name in ("n_iter", "func_eval")}
        if self.step is not None:
            return {**counts, **self.step.pack()}
        used = len(state.rows)
        return {
            **counts,
            **{name: getattr(state, name) for name in ("h_diag", "t", "rows", "rho")},
            **{name: getattr(state, name) for name in ("direction", "g_old")},
            "correction": 0 if state.steps is None else state.steps.shape[0],
            "steps": None if state.steps is None else state.steps[:used].clone(),
            "changes": None if state.changes is None else state.changes[:used].clone(),
            "products": None if self.recursion is None else self.recursion.products,
        }

    def unpack(self, packed: Mapping[str, Any], x: Tensor) -> None:
        like = x.view(-1)
        names = ("n_iter", "func_eval", "h_diag", "t", "rows", "rho")
        state = self.state = optim.LbfgsState(**{name: packed[name] for name in names})
        # A run that goes on for longer than the one before it may keep more pairs.
        most = max(packed["correction"], self._most())
        if self._steps_on(x):
            if packed["correction"]:
                step = LbfgsStep(x, most)
                step.unpack(packed)
                self.step = step  # not before: a GPU may have had no room for it
            return
        state.direction, state.g_old = (_to(packed[name], like) for name in ("direction", "g_old"))
        if packed["correction"]:
            state.make_room(like, most)
            assert state.steps is not None and state.changes is not None
            used = len(state.rows)
            # Those of `steps` have a row between them that is none of a pair.
            rows = range(used) if len(packed["steps"]) == used else state.rows
            state.steps[:used], state.changes[:used] = packed["steps"][rows], packed["changes"][rows]
            if len(packed["steps"]) != used:
                state.rows = list(range(used))
        if self.recursion is not None:
            self.recursion.products = packed["products"]


class Adam:
    """Adam with neural_style.lua's epsilon outside the bias correction. `in_steps` as in `Lbfgs`."""

    def __init__(self, num_iterations: float, learning_rate: float, *, in_steps: bool | None = None) -> None:
        self.num_iterations, self.learning_rate, self.in_steps = num_iterations, learning_rate, in_steps
        self.state = optim.AdamState()
        self.step: AdamStep | None = None

    @property
    def vectors(self) -> dict[str, int]:
        """As in `Lbfgs`."""
        return {"the image and Adam's moments": 5}

    def minimise(self, feval: Feval, x: Tensor, done: int, repeat: Repeat = plainly) -> None:
        if not self._steps_on(x):
            while self.state.t + 1 <= self.num_iterations:
                optim.adam(feval, x, self.state, learning_rate=self.learning_rate)
            return
        step = self.step = self.step or AdamStep(x, self.learning_rate)
        follow = repeat(step.next)
        while self.state.t + 1 <= self.num_iterations:
            step.g.copy_(feval(x, blind=True)[1])
            self.state.t += 1
            follow()

    def _steps_on(self, x: Tensor) -> bool:
        return x.device.type == "cuda" if self.in_steps is None else self.in_steps

    def pack(self) -> dict[str, Any]:
        kept = self.state if self.step is None else self.step
        return {"t": self.state.t, "m": kept.m, "v": kept.v}

    def unpack(self, packed: Mapping[str, Any], x: Tensor) -> None:
        self.state = optim.AdamState(packed["t"])
        if self._steps_on(x):
            step = AdamStep(x, self.learning_rate)
            step.unpack(packed)
            self.step = step
        else:
            self.state.m, self.state.v = _to(packed["m"], x), _to(packed["v"], x)


def _is_on_one_gpu(x: Tensor, ranks: Ranks) -> bool:
    return x.device.type == "cuda" and ranks.size == 1


def _to(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.device)

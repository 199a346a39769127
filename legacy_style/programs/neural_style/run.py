"""The optimisation itself: what neural_style.lua does in and around its `feval`.

Ports neural_style.lua 07c4b82: feval, maybe_print, maybe_save, build_filename, and the calls of optim.lbfgs and
optim.adam. Printing and saving happen inside the evaluation, before the update that follows it; the last update is
thrown away.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine import checkpoint
from legacy_style.engine.objective import Objective
from legacy_style.engine.processes.compact import CompactRecursion
from legacy_style.engine.processes.group import Ranks, write_together
from legacy_style.errors import DivergenceError, OptionError
from legacy_style.programs.neural_style import pixels
from legacy_style.programs.neural_style.options import Options
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7 import optim

Log = Callable[[str], None]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Losses:
    """The losses of one evaluation, weighted, as they are printed: one per layer, and their sum without TV."""

    content: tuple[float, ...]
    style: tuple[float, ...]
    total: float


@dataclass(frozen=True)
class Progress:
    """One evaluation that is done: `iteration` of `num_iterations`, `seconds` since the optimisation began."""

    iteration: int
    num_iterations: float
    losses: Losses
    seconds: float


@dataclass(frozen=True)
class Result:
    """`image`: RGB in [0,1], (3, H, W), float64, not clamped, of the last evaluation; `losses`: of all.

    Where processes share an image, the first one has it whole, the others have what they own.
    """

    image: Array
    losses: list[Losses] = field(default_factory=list)


class Interrupted(KeyboardInterrupt):
    """The run was interrupted; `path` is the file that holds the image of the last evaluation."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


OnProgress = Callable[[Progress], None]

FLOAT32_EVALUATIONS = 10
"""So many evaluations are float32 whatever the precision of those that follow. The first step of L-BFGS from noise is
so small that the gradients before and after it, in bfloat16, differ by little but rounding, and what it learns from
them keeps it near the noise for hundreds of steps.
"""


class Deferral:
    """Lets SIGINT and SIGTERM wait from `begin` to `end`: while the optimiser changes its state, none can be saved."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._waiting: list[int] = []

    def begin(self) -> None:
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(number)):
                    self._handlers[number] = signal.signal(number, self._wait)

    def end(self) -> None:
        """Handle signals as before `begin`, and those first that have come since."""
        handlers, self._handlers = self._handlers, {}
        for number, handler in handlers.items():
            signal.signal(number, handler)
        waiting, self._waiting = self._waiting, []
        for number in waiting:
            signal.raise_signal(number)

    def _wait(self, number: int, frame: FrameType | None) -> None:
        self._waiting.append(number)


class Run:
    """One optimisation from `start` (1, 3, H, W), which is changed in place.

    `precision`: what the layers compute in after the first FLOAT32_EVALUATIONS. `colors`: the content image as RGB
    where -original_colors wants it back. `inputs`: digests of images and model, for checkpoints. Where `ranks` share
    the image, `start` is what this process owns.

    A checkpoint holds x, the state of the optimiser, and the number `calls` of evaluations before x; a run that goes on
    from it begins with the evaluation of x. So one may be written while x is evaluated, until `feval` returns; from
    then to the next evaluation the optimiser changes x and state, and none may be.
    """

    def __init__(
        self,
        options: Options,
        objective: Objective,
        start: Tensor,
        *,
        precision: torch.dtype,
        colors: Array | None,
        inputs: Mapping[str, str],
        log: Log,
        on_progress: OnProgress | None,
        save: bool,
        ranks: Ranks,
    ) -> None:
        self.options, self.objective, self.x = options, objective, start
        self.precision, self.colors, self.inputs = precision, colors, inputs
        self.log, self.on_progress, self.save = log, on_progress, save
        self.ranks = ranks
        self.recursion = CompactRecursion(ranks) if ranks.size > 1 else None
        self.calls = 0
        self.losses: list[Losses] = []
        # The image of the last evaluation of this process whose losses were finite.
        self.evaluated: Tensor | None = None
        self.state: checkpoint.State = (
            optim.LbfgsState() if options.optimizer == "lbfgs" else optim.AdamState()
        )
        # How many evaluations lie before what x and state are now; None while the optimiser changes them.
        self.settled: int | None = None
        self.deferral = Deferral()
        self.began = time.monotonic()

    def resume(self, content: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: its evaluation is made once more."""
        if content["x"].shape != self.x.shape:
            raise OptionError(
                f"--resume {self.options.resume}: its image has another shape than this run's; resume with as many"
                " processes as wrote it"
            )
        self.x.copy_(content["x"])
        self.calls = content["calls"]
        self.losses = [Losses(tuple(c), tuple(s), total) for c, s, total in content["losses"]]
        if self.options.optimizer == "lbfgs":
            self.state = checkpoint.restore_lbfgs(content["optimizer"], self.x.view(-1))
            if self.recursion is not None:
                self.recursion.products = content["products"]
        else:
            self.state = checkpoint.restore_adam(content["optimizer"], self.x.device)

    def optimise(self) -> Result:
        """Run to the end; where a KeyboardInterrupt comes in between, raises Interrupted after saving, or that itself
        where there is nothing to save.
        """
        options, state, done = self.options, self.state, self.calls
        try:
            if isinstance(state, optim.LbfgsState):
                self.log("Running optimization with L-BFGS\t")
                correction = options.lbfgs_num_correction
                optim.lbfgs(
                    self.feval,
                    self.x,
                    max_iter=options.num_iterations,
                    tol_fun=-1,
                    tol_x=-1,
                    n_correction=int(min(correction, 2**31)) if correction > 0 else 100,
                    log=self.log,
                    state=state,
                    done=done,
                    total=self.ranks.total,
                    recursion=self.recursion,
                )
            else:
                self.log("Running optimization with ADAM\t")
                while state.t + 1 <= options.num_iterations:
                    optim.adam(self.feval, self.x, state, learning_rate=options.learning_rate)
            self.deferral.end()
        except KeyboardInterrupt:
            # Of several processes, the others are not where this one is: together they can save nothing more.
            if not self.save or self.evaluated is None or self.ranks.size > 1:
                raise
            if self.settled is not None:
                self.save_checkpoint(self.settled)
            raise Interrupted(self.save_evaluated()) from None
        finally:
            self.deferral.end()
        return Result(self.picture(), self.losses)

    def feval(self, x: Tensor) -> tuple[float, Tensor]:
        """The total loss and its gradient at x, flat; prints and saves what is due at this iteration."""
        self.settled = self.calls
        self.deferral.end()
        if self.calls >= FLOAT32_EVALUATIONS:
            self.objective.network.compute_in(self.precision)
        values, grad = self.objective(x)
        content, style = (
            self.objective.network.values_from(source, values) for source in ("content", "style")
        )
        losses = Losses(content, style, sum(content) + sum(style))
        self.print_losses(self.calls + 1, losses)
        if not math.isfinite(losses.total):
            self.give_up()
        if self.is_due(self.calls + 1):
            self.save_checkpoint(self.settled)
        self.deferral.begin()  # image and losses belong together
        self.evaluated = x.clone() if self.evaluated is None else self.evaluated.copy_(x)
        self.losses.append(losses)
        self.calls += 1
        self.deferral.end()
        self.save_if_due()
        if self.on_progress is not None:
            seconds = time.monotonic() - self.began
            self.on_progress(Progress(self.calls, self.options.num_iterations, losses, seconds))
        if self.options.checkpoint and self.calls < self.options.num_iterations:
            self.deferral.begin()
        self.settled = None
        return losses.total, grad.view(-1)

    def print_losses(self, iteration: int, losses: Losses) -> None:
        every = self.options.print_iter
        if not (every > 0 and iteration % every == 0):
            return
        self.log(f"Iteration {iteration} / {_lua_integer(self.options.num_iterations)}\t")
        for kind, values in (("Content", losses.content), ("Style", losses.style)):
            for number, value in enumerate(values, 1):
                self.log(f"  {kind} {number} loss: {value:f}\t")
        self.log(f"  Total loss: {losses.total:f}\t")

    def is_due(self, iteration: int) -> bool:
        """Whether the image of this iteration is to be saved."""
        every = self.options.save_iter
        return iteration == self.options.num_iterations or (every > 0 and iteration % every == 0)

    def save_if_due(self) -> None:
        if self.save and self.is_due(self.calls):
            last = self.calls == self.options.num_iterations
            name = (
                self.options.output_image if last else build_filename(self.options.output_image, self.calls)
            )
            self.write(name)

    def save_evaluated(self) -> str:
        """Write the image of the last good evaluation under its intermediate name, which is returned."""
        name = build_filename(self.options.output_image, len(self.losses))
        self.write(name)
        return name

    def write(self, name: str) -> None:
        picture = self.picture()  # to which every process contributes
        if self.ranks.rank == 0:
            torch_image.save(name, picture)
        self.ranks.wait()  # until it is there
        self.ranks.saved = name

    def save_checkpoint(self, done: int) -> None:
        """Write --checkpoint: the image that evaluation `done` + 1 looks at, and the optimiser's state before that."""
        if self.options.checkpoint:
            content = {
                "options": checkpoint.binding(self.options),
                "inputs": dict(self.inputs),
                "x": self.x,
                "calls": done,
                "losses": [(losses.content, losses.style, losses.total) for losses in self.losses[:done]],
            }
            if self.recursion is not None:
                content["products"] = self.recursion.products
            write_together(
                self.ranks,
                self.options.checkpoint,
                lambda path: checkpoint.write(path, content, self.state),
            )

    def picture(self) -> Array:
        """The image of the last good evaluation, the start if there was none, as RGB, (3, H, W), with the content's
        colours where asked for.
        """
        evaluated = self.x if self.evaluated is None else self.evaluated
        image = pixels.deprocess(self.objective.gather(evaluated)[0].cpu().numpy())
        return image if self.colors is None else pixels.original_colors(self.colors, image)

    def give_up(self) -> None:
        saved = ""
        if self.save and self.evaluated is not None:
            saved = f" The image of iteration {len(self.losses)} is in {self.save_evaluated()}."
        raise DivergenceError(
            f"the loss is not finite any more at iteration {self.calls + 1}.{saved} Likely causes: a weight or a"
            " -learning_rate that is far too large, or, with L-BFGS, a step that went astray: try smaller weights,"
            " -optimizer adam, or another -seed"
        )


def build_filename(output_image: str, iteration: int) -> str:
    """The name of an intermediate image: out.png -> ./out_100.png (neural_style.lua, build_filename).

    With the functions of `paths` that it called: the extension is what follows the last dot of the whole path, "nil"
    where there is none, and only then is it taken off the name if it is not empty.
    """
    directory, slash, base = output_image.rpartition("/")
    extension = output_image.rpartition(".")[2] if "." in output_image else "nil"
    stem = base.removesuffix(f".{extension}") if extension else base
    return f"{directory or slash or '.'}/{stem}_{iteration}.{extension}"


def _lua_integer(number: float) -> int:
    """A double as Lua's %d prints it: truncated, and C's smallest integer for what does not fit."""
    return int(number) if abs(number) < 2**63 else -(2**63)

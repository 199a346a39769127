"""One optimisation: evaluate the losses, step, report, keep a checkpoint, stop in order.

What neural_style.lua 07c4b82 does around its `feval`, for every program. Everything that a program does for an
evaluation happens inside it, before the update that follows: it prints (`on_losses`), then saves and reports
(`on_progress`), and last the checkpoint is written.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from legacy_style.engine import cards, checkpoint, graphs
from legacy_style.engine.awaited import Awaited
from legacy_style.engine.checkpoint import Checkpoint
from legacy_style.engine.graphs import Recorder, Repeated
from legacy_style.engine.machine import in_float32
from legacy_style.engine.memory import ON_HOST
from legacy_style.engine.objective import Objective
from legacy_style.engine.processes.group import Ranks, write_together
from legacy_style.errors import DivergenceError, OptionError
from legacy_style.torch7 import optim

FLOAT32_EVALUATIONS = 10
"""So many evaluations are float32 whatever the precision of those that follow. The first step of L-BFGS from noise is
so small that the gradients before and after it, in bfloat16, differ by little but rounding, and what it learns from
them keeps it near the noise for hundreds of steps.
"""


@dataclass(frozen=True)
class Losses:
    """The losses of one evaluation, weighted: those of the content, of the style, and others; and their sum.

    Each in the order of the network; losses without a value (neural_style's total variation) do not count.
    """

    content: tuple[float, ...]
    style: tuple[float, ...]
    total: float
    others: tuple[float, ...] = ()


@dataclass(frozen=True)
class Progress:
    """One evaluation that is done: `iteration` of `num_iterations`, `seconds` since the optimisation began.

    `image()` is the image that was evaluated, (1, 3, H, W) on the CPU, as the network takes it, for the caller to keep;
    of several processes the first one gets it whole, and all must ask for it. `so_far`: the losses of all evaluations,
    also of the run that this one goes on from; it grows with the run.
    """

    iteration: int
    num_iterations: float
    losses: Losses
    seconds: float
    values: Mapping[str, float] = field(default_factory=dict)
    image: Callable[[], Tensor] = field(default=lambda: torch.empty(0), compare=False, repr=False)
    so_far: Sequence[Losses] = field(default=(), compare=False, repr=False)


OnProgress = Callable[[Progress], object]
"""Is called after every evaluation; the run ends where it returns something true."""


class Feval(Protocol):
    def __call__(
        self, x: Tensor, slope: Tensor | None = None, *, blind: bool = False
    ) -> tuple[float, Tensor]:
        """f(x) and its gradient, flat. `slope`, (), may have been left on the device by the step that led to x: where
        it would have ended the run, NoWayDown is raised, and nothing is reported of x.

        A caller that goes on `blind` does without f, which may be nan: then nobody waits for it, and x is reported, or
        NoWayDown raised, in the call after this one.
        """


@dataclass(frozen=True)
class _Launched:
    """An evaluation whose losses are not read yet; `image`, None for x itself, is what was evaluated."""

    awaited: Awaited
    has_slope: bool
    image: Tensor | None


class NoWayDown(Exception):
    """The function would have risen along the direction that led to x."""


Step = Callable[[], None]
Repeat = Callable[[Step], Step]
"""Makes of work that is done again and again, on tensors that stay in place, what does it with less effort."""


def plainly(work: Step) -> Step:
    """The `Repeat` that changes nothing."""
    return work


class Optimizer(Protocol):
    """What goes down: calls `feval` at x, changes x in place, and so on; its state goes into checkpoints.

    `x` is the start image, contiguous; of several processes, each has a part. `done` evaluations were made before, by
    the run that the state is of.
    """

    num_iterations: float

    @property
    def vectors(self) -> dict[str, int]:
        """What it keeps, for the memory plan: purpose -> vectors of the size of the image, itself included."""

    def minimise(self, feval: Feval, x: Tensor, done: int, repeat: Repeat = plainly) -> None: ...

    def pack(self) -> dict[str, Any]:
        """The state: tensors and plain values."""

    def unpack(self, packed: Mapping[str, Any], x: Tensor) -> None:
        """Go on from a state, for the image x."""


class Stopped(Exception):
    """The callback ended the run: nothing went wrong."""


@dataclass(frozen=True)
class Finished:
    """A run that is over: the image of the last evaluation, (1, 3, H, W) on the CPU, and all losses.

    Where processes share an image, the first one has it whole, the others have what they own. `stopped` tells whether
    the callback ended it.
    """

    image: Tensor
    losses: list[Losses]
    stopped: bool


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


@dataclass(frozen=True)
class Conditions:
    """How an optimisation is run, and who is told of it.

    `precision`, `tf32`: what the layers compute in after the first FLOAT32_EVALUATIONS. `on_losses` is called with the
    number of an evaluation and its losses, also where these are not finite any more, `on_progress` after that where
    they are; a run ends where it returns something true. `recorder` records evaluations and steps, None: where that can
    be done; `notice` takes the line that says that it cannot. Losses that are not finite end the run, but where
    `may_diverge`: then they are reported as others are. `ahead`: whether to launch an evaluation before the losses of
    the one before it are read, where the optimiser can and there is no checkpoint; None: on one GPU.
    """

    precision: torch.dtype = torch.float32
    tf32: bool = False
    checkpoint: Checkpoint | None = None
    on_losses: Callable[[int, Losses], object] = lambda iteration, losses: None
    on_progress: OnProgress | None = None
    recorder: Recorder | None = None
    notice: Callable[[str], None] = lambda line: None
    may_diverge: bool = False
    ahead: bool | None = None


class Optimisation:
    """One optimisation from `start` (1, 3, H, W), which is changed in place, unless a GPU has no room for what the
    optimiser keeps: then a copy in the computer's memory is.

    Where `ranks` share the image, `start` is what this process owns. `smaller` gives the objective in smaller tiles,
    for when a GPU's memory is full, and a line on that.

    A checkpoint holds x, the state of the optimiser, and the number `calls` of evaluations before x; a run that goes on
    from it begins with the evaluation of x. So one may be written while x is evaluated, until `feval` returns; from
    then to the next evaluation the optimiser changes x and state, and none may be.
    """

    def __init__(
        self,
        objective: Objective,
        start: Tensor,
        optimizer: Optimizer,
        conditions: Conditions,
        *,
        ranks: Ranks | None = None,
        smaller: Callable[[], tuple[Objective, str] | None] = lambda: None,
    ) -> None:
        self.conditions, self.checkpoint = conditions, conditions.checkpoint
        self.objective, self.x, self.optimizer = objective, start, optimizer
        self.autotune = objective.autotune
        self.ranks = ranks or Ranks()
        self.calls = 0
        self.losses: list[Losses] = []
        # The image of the last evaluation of this process whose losses were finite.
        self.evaluated: Tensor | None = None
        # How many evaluations lie before what x and state are now; None while the optimiser changes them.
        self.settled: int | None = None
        self.deferral = Deferral()
        self.exact = objective.network.dtype
        self.recorder = conditions.recorder or graphs.recorder_for(objective, start)
        self._step_recorder = conditions.recorder or graphs.recorder_for_steps(start, self.ranks.size)
        self._launch: Repeated[tuple[Tensor, Tensor]] | None = None
        self._smaller = smaller
        alone_on_gpu = start.device.type == "cuda" and self.ranks.size == 1
        wanted = alone_on_gpu if conditions.ahead is None else conditions.ahead
        self._ahead = wanted and self.checkpoint is None
        self._launched: deque[_Launched] = deque()
        self._began_to_evaluate = self._is_on_host = False
        self.began = time.monotonic()

    def resume(self, path: str, content: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's content: its evaluation is made once more."""
        if content["x"].shape != self.x.shape:
            raise OptionError(
                f"--resume {path}: its image has another shape than this run's; resume with as many processes as"
                " wrote it"
            )
        if content["calls"] >= self.optimizer.num_iterations:
            raise OptionError(
                f"--resume {path}: that run has made {content['calls']} iterations before, and this one is to make"
                f" {self.optimizer.num_iterations:.14g} in all; ask for more of them"
            )
        self.x.copy_(content["x"])
        self.calls = content["calls"]
        self.losses = [
            Losses(tuple(content), tuple(style), total, *map(tuple, others))
            for content, style, total, *others in content["losses"]
        ]
        self._or_on_host(lambda: self.optimizer.unpack(content["optimizer"], self.x))

    @in_float32
    def run(self) -> Finished:
        """Run to the end. A KeyboardInterrupt in between leaves what `image` and `save_checkpoint` still need.

        Raises DivergenceError where a loss is not finite any more.
        """
        stopped = False
        try:
            self._or_on_host(lambda: self.optimizer.minimise(self.feval, self.x, self.calls, self._repeat))
            self._report_all()
            self.deferral.end()
        except Stopped:
            stopped = True
        finally:
            self.deferral.end()
            self.objective.network.compute_in(self.exact)
        return Finished(self.image(), self.losses, stopped)

    def feval(self, x: Tensor, slope: Tensor | None = None, *, blind: bool = False) -> tuple[float, Tensor]:
        """As in `Feval`; reports the evaluation."""
        self.settled, self._began_to_evaluate = self.calls, True
        self.deferral.end()
        on_device, grad = self._evaluation()
        if slope is not None:
            on_device = torch.cat([on_device, slope.view(1)])
        ahead = blind and self._ahead and self.calls + len(self._launched) + 1 < self.optimizer.num_iterations
        image = x.clone() if ahead else None
        self._launched.append(_Launched(Awaited(on_device), slope is not None, image))
        if not ahead:
            return self._report_all(), grad.view(-1)
        if len(self._launched) > 1:
            self._report(self._launched.popleft())
        return math.nan, grad.view(-1)

    def _report_all(self) -> float:
        """Report what is launched; returns the last total loss."""
        total = math.nan
        while self._launched:
            total = self._report(self._launched.popleft())
        return total

    def _report(self, launched: _Launched) -> float:
        """Read the losses of an evaluation, and tell them; returns their sum."""
        read = launched.awaited.read()  # the one time that the host waits
        if launched.has_slope and optim.rises(read.pop()):
            self.settled = None
            self._launched.clear()
            raise NoWayDown
        values = self.objective.named(read)
        losses = total_of(self.objective, values)
        self.conditions.on_losses(self.calls + 1, losses)
        finite = math.isfinite(losses.total)
        if not finite and not self.conditions.may_diverge:
            raise DivergenceError(f"the loss is not finite any more at iteration {self.calls + 1}.")
        self.deferral.begin()  # image and losses belong together
        if finite and launched.image is not None:
            self.evaluated = launched.image
        elif finite:
            self.evaluated = self.x.clone() if self.evaluated is None else self.evaluated.copy_(self.x)
        self.losses.append(losses)
        self.calls += 1
        self.deferral.end()
        stop = False
        if (on_progress := self.conditions.on_progress) is not None:
            seconds = time.monotonic() - self.began
            many = self.optimizer.num_iterations
            done = Progress(self.calls, many, losses, seconds, values, self.image, self.losses)
            stop = bool(on_progress(done))
            if stop and self.ranks.size > 1:
                raise OptionError("a run of several processes cannot be stopped by what the callback returns")
        # Behind the image, which must be safe where there is no room for more.
        if self.checkpoint is not None and (stop or self.checkpoint.is_due(self.calls)):
            self.save_checkpoint()
        if stop:
            raise Stopped
        if self.checkpoint is not None and self.calls < self.optimizer.num_iterations:
            self.deferral.begin()
        self.settled = None
        return losses.total

    def _evaluation(self) -> tuple[Tensor, Tensor]:
        """The losses and the gradient at x, on its device; where that is out of memory, in smaller tiles."""
        network, number = self.objective.network, self.calls + len(self._launched)
        early = number < FLOAT32_EVALUATIONS
        precision = (self.exact, False) if early else (self.conditions.precision, self.conditions.tf32)
        if self._launch is None or precision != (network.dtype, network.tf32):
            self._launch = None  # with the memory that its graph has
            network.compute_in(precision[0], tf32=precision[1])
            self._launch = Repeated(lambda: self.objective.launch(self.x), self.recorder, self._note)
        try:
            return self._launch()
        except torch.OutOfMemoryError:
            self._launch = self.recorder = None
            found = self._smaller()
            if found is None:
                raise
            self.objective, line = found
        cards.give_back()
        self.conditions.notice(line)
        return self._evaluation()

    def _or_on_host(self, work: Callable[[], None]) -> None:
        """Do `work`; where a GPU has no room for it, and nothing is evaluated yet, keep image and optimiser in the
        computer's memory from then on, and do it again.
        """
        try:
            work()
            return
        except torch.OutOfMemoryError:
            if self._began_to_evaluate or self._is_on_host:
                raise
        cards.give_back()
        self.x, self._ahead, self._is_on_host = self.x.cpu(), False, True
        self.recorder = self._step_recorder = None
        self.conditions.notice(ON_HOST)
        work()

    def _repeat(self, work: Step) -> Step:
        return Repeated(work, self._step_recorder, self._note)

    def _note(self, line: str) -> None:
        """Say once that something cannot be recorded, and record nothing more."""
        if self.recorder is not None or self._step_recorder is not None:
            self.recorder = self._step_recorder = None
            self.conditions.notice(line)

    def save_checkpoint(self) -> None:
        """Write the checkpoint, if there is to be one and the optimiser is not changing its state."""
        if self.checkpoint is None or self.settled is None:
            return
        past = [(each.content, each.style, each.total, each.others) for each in self.losses[: self.settled]]
        content = {
            "options": dict(self.checkpoint.options),
            "inputs": dict(self.checkpoint.inputs),
            "x": self.x,
            "calls": self.settled,
            "losses": past,
            "optimizer": self.optimizer.pack(),
        }
        write_together(self.ranks, self.checkpoint.path, lambda path: checkpoint.write(path, content))

    def image(self) -> Tensor:
        """The image of the last good evaluation, the start if there was none, as in `Finished`.

        It is the caller's own: the run goes on in its own memory.
        """
        held = self.objective.gather(self.x if self.evaluated is None else self.evaluated)
        return held.to("cpu", copy=True)


def total_of(objective: Objective, values: Mapping[str, float]) -> Losses:
    """The `values` of an evaluation as Losses."""
    network = objective.network
    content, style = network.values_from("content", values), network.values_from("style", values)
    known = {loss.name for source in ("content", "style") for loss in network.losses_from(source)}
    others = tuple(value for name, value in values.items() if name not in known)
    return Losses(content, style, sum([sum(content), sum(style), *others]), others)

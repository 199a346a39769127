"""Recorded traces of the original, held stage by stage, so that a failure names the first that diverges.

A trace (traces/NAME) is a run whose images, gradients, targets and losses were dumped at some evaluations.
Each recorded image is handed to the objective here, so later evaluations are held as strictly as the first,
whatever two trajectories do. Where the images behind the recording are not at hand, the recorded targets are
put into the loss modules, and the stages before them are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import spread
import torch
from closeness import close, equal, within
from recorded_runs import Difference, has_inputs, lend, one_thread, working_in

from legacy_style.engine import network
from legacy_style.engine.network import Network
from legacy_style.engine.objective import Objective
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import options
from legacy_style.programs.neural_style.building import build_network, load_chain
from legacy_style.programs.neural_style.images import load_images
from legacy_style.programs.neural_style.preparing import capture, initial_image
from legacy_style.programs.neural_style.settings import Settings, read
from legacy_style.torch7 import nn, optim
from legacy_style.torch7.random import Generator

Array = np.ndarray[Any, Any]

# Least tolerances: what eightfold roundings change in float32 (relative L2; losses relative to themselves).
# Where measure_spread.py found more for a recording, that is allowed there.
FEATURES = 5e-6
LOSS = 1e-5
GRADIENT = 5e-6

# Of the total loss: a loss next to 0 (the content's, at the content) is what its roundings leave.
NEXT_TO_NOTHING = 1e-9

SWITCHES = 1e-3
"""A gradient that roundings change by more than this has units on a border: two pooled values that are next to
equal, or a ReLU's input next to 0. Another processor sees another maximum there, and all pixels below it get
another gradient; what is a step of the optimiser then is another step."""

# x after k L-BFGS or Adam steps on the recorded gradients, in units of the largest x: float32's roundings.
STEPS = 1e-6

FINAL = 1.0
"""x after a whole run with own gradients is compared where roundings move it by less, in Caffe units (0..256)."""

# Layer names that would never be found are refused: no network to compare.
REFUSED = {"layers_wrong_order": "-style_layers: 'relu1_1' is repeated or out of order"}


@dataclass(frozen=True)
class Trace:
    """One recorded trace; `words` is its command line."""

    name: str
    words: list[str]
    root: Path

    @cached_property
    def arrays(self) -> dict[str, Array]:
        with np.load(self.root / "traces" / self.name / "arrays.npz") as archive:
            return dict(archive)

    @property
    def evaluations(self) -> list[int]:
        """The numbers of the evaluations that were dumped, from 1."""
        return sorted(int(key.removeprefix("x_eval")) for key in self.arrays if key.startswith("x_eval"))

    def losses(self, evaluation: int) -> list[float]:
        """Total, content and style losses, at nine digits."""
        text = (self.root / "traces" / self.name / "losses.txt").read_text()
        lines = {int(line.split("\t")[0]): line.split("\t")[1:] for line in text.splitlines()}
        return [float(field.rpartition("=")[2]) for field in lines[evaluation]]

    @cached_property
    def info(self) -> dict[str, str]:
        """What was noted beside the arrays: blend weights, and L-BFGS's state at the end."""
        recorded: dict[str, str] = json.loads((self.root / "traces" / self.name / "arrays.json").read_text())[
            "info"
        ]
        return recorded

    def numbered(self, prefix: str) -> list[Array]:
        return [self.arrays[f"{prefix}_{i}"] for i in range(1, 99) if f"{prefix}_{i}" in self.arrays]


@lru_cache
def recorded(root: Path) -> dict[str, Trace]:
    """All recorded traces by name."""
    index = json.loads((root / "INDEX.json").read_text())
    found = {each["name"]: Trace(each["name"], each["args"], root) for each in index["traces"]}
    assert found, f"no traces in {root}"
    return found


def differences(trace: Trace, folder: Path) -> list[Difference]:
    """All stages of one trace, in order; empty where every one agrees. `folder` is empty."""
    lend(trace.root, trace.words, folder)
    with working_in(folder), one_thread(), torch.no_grad():
        return list(_stages(trace))


def _stages(trace: Trace) -> Iterator[Difference]:
    command = options.parse(trace.words)
    if command is None:
        yield Difference("options", "taken for a call for help")
        return
    given = read(command.options, save=False)
    if trace.name in REFUSED:
        yield from _refusal(lambda: _network(given), REFUSED[trace.name])
        return
    if has_inputs(trace.root):
        objective, start = prepare(given)
        yield from equal("preprocessed image", start, trace.arrays["x_eval001"])
        yield from _targets(trace, objective.network)
    else:
        yield from _noise(given, trace.arrays["x_eval001"])
        objective = _with_recorded_targets(trace, _network(given))
    for evaluation in trace.evaluations:
        yield from _evaluation(trace, objective, evaluation)
    yield from _steps(trace, given)
    if has_inputs(trace.root):
        yield from _own_steps(trace, given, objective, start)


def prepare(given: Settings) -> tuple[Objective, torch.Tensor]:
    """The objective, with its targets, and the start image of a command line."""
    net, images = _network(given), load_images(given)
    session = capture(net, images, given, _nowhere)
    return session.objective(*images.content.shape[2:]), initial_image(given, images, session)


def _network(given: Settings) -> Network:
    net = build_network(given, load_chain(given, _nowhere, _nowhere), _nowhere)
    network.place(net, [torch.device("cpu")])
    return net


def _nowhere(line: str) -> None:
    pass


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(array).unsqueeze(0)


def _refusal(build: Callable[[], Network], message: str) -> Iterator[Difference]:
    try:
        build()
    except OptionError as error:
        if message in str(error):
            return
        yield Difference("options", f"{error}, expected {message}")
    else:
        yield Difference("options", f"accepted, expected {message}")


def _noise(given: Settings, recorded: Array) -> Iterator[Difference]:
    """The start image of -init random needs no other image than its size."""
    if given.init == "random":
        noise = Generator(given.seed).randn(*recorded.shape).astype(np.float32) * np.float32(0.001)
        yield from equal("preprocessed image", noise, recorded)


def _with_recorded_targets(trace: Trace, net: Network) -> Objective:
    for loss, target in zip(net.losses_from("content"), trace.numbered("content_target"), strict=True):
        height, width = target.shape[1:]
        loss.begin()
        loss.capture(_tensor(target), ((0, height), (0, width)))
        loss.finish(loss.sums())
    for style_loss, target in zip(net.losses_from("style"), trace.numbered("style_target"), strict=True):
        style_loss.target = torch.from_numpy(target)
    return Objective(net)


def _targets(trace: Trace, net: Network) -> Iterator[Difference]:
    for loss, target in zip(net.losses_from("content"), trace.numbered("content_target"), strict=True):
        yield from close("feature maps", "content target", next(iter(loss.target.values())), target, FEATURES)
    for number, (style_loss, target) in enumerate(
        zip(net.losses_from("style"), trace.numbered("style_target"), strict=True), 1
    ):
        assert style_loss.target is not None
        yield from close("Gram targets", f"style target {number}", style_loss.target, target, FEATURES)
        weight = float(trace.info[f"style_blend_last_{number}"])
        if not math.isclose(style_loss.blend_weight, weight, rel_tol=1e-8):
            yield Difference(
                "Gram targets", f"last blend weight {style_loss.blend_weight}, recorded {weight}"
            )


@dataclass(frozen=True)
class Evaluated:
    """Losses (total, content, style), Gram matrices and gradients at one image, the last by their recorded name."""

    losses: list[float]
    grams: list[Array]
    gradients: dict[str, Array]


def evaluate(trace: Trace, objective: Objective, evaluation: int) -> Evaluated:
    """Losses and gradients at a recorded image."""
    layers = ModuleGradients(objective.network)
    values, grad = objective(_tensor(trace.arrays[f"x_eval{evaluation:03d}"]))
    layers.release()
    content, style = (objective.network.values_from(source, values) for source in ("content", "style"))
    handed_on = {
        f"module_{module:02d}_gradInput_eval{evaluation:03d}": each
        for module, each in layers.gradients.items()
    }
    gradients = {name: each.numpy() for name, each in handed_on.items() if name in trace.arrays}
    gradients[f"grad_eval{evaluation:03d}"] = grad[0].numpy().copy()
    grams = [loss.gram for loss in objective.network.losses_from("style")]
    return Evaluated(
        [sum(content) + sum(style), *content, *style],
        [gram.numpy().copy() for gram in grams if gram is not None],
        gradients,
    )


def _evaluation(trace: Trace, objective: Objective, evaluation: int) -> Iterator[Difference]:
    ours, allowed = (
        evaluate(trace, objective, evaluation),
        spread.of_trace(trace.name).evaluations[evaluation],
    )
    for mine, theirs in zip(ours.losses, trace.losses(evaluation), strict=True):
        within_reach = max(LOSS, allowed.losses) * abs(theirs) + NEXT_TO_NOTHING * abs(ours.losses[0])
        if abs(mine - theirs) > within_reach:
            yield Difference("losses", f"evaluation {evaluation}: {mine}, recorded {theirs}")
    if evaluation == 1:
        recorded_grams = trace.numbered("style_G_eval001")
        for number, (gram, recorded_gram) in enumerate(zip(ours.grams, recorded_grams, strict=True), 1):
            yield from close("losses", f"Gram matrix {number} at evaluation 1", gram, recorded_gram, FEATURES)
    tolerance = max(GRADIENT, allowed.gradient)
    for name, gradient in ours.gradients.items():
        yield from close("gradient", name, gradient, trace.arrays[name], tolerance)


def _steps(trace: Trace, given: Settings) -> Iterator[Difference]:
    """The optimiser alone: the recorded gradients of the first evaluations, as far as none is missing."""
    arrays = trace.arrays
    count = next(k for k in range(1, 999) if f"grad_eval{k + 1:03d}" not in arrays)
    after = [arrays.get(f"x_eval{k + 1:03d}") for k in range(1, count + 1)]
    x = _tensor(arrays["x_eval001"].copy())
    seen: list[Array] = []

    def feval(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        seen.append(x[0].numpy().copy())
        grad = arrays[f"grad_eval{min(len(seen), count):03d}"]
        return 0.0, torch.from_numpy(grad.copy()).view(-1)

    optimise(feval, x, given, count + 1)
    for k, (ours, theirs) in enumerate(zip(seen[1:], after, strict=True), 1):
        if theirs is not None:
            yield from within("x after k steps", f"{k} recorded gradients", ours, theirs, STEPS)
    if count == given.num_iterations:
        yield from within("x after k steps", "all recorded gradients", seen[count], arrays["x_final"], STEPS)


def own_steps(
    given: Settings, objective: Objective, start: torch.Tensor, iterations: float
) -> tuple[list[Array], optim.LbfgsState]:
    """Objective and optimiser together: the image at each evaluation, and after the last; L-BFGS's state."""
    seen: list[Array] = []

    def feval(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        seen.append(x[0].numpy().copy())
        values, grad = objective(x)
        return sum(values.values()), grad.view(-1)

    x = start.clone()
    state = optimise(feval, x, given, iterations)
    return [*seen, x[0].numpy()], state


def _own_steps(
    trace: Trace, given: Settings, objective: Objective, start: torch.Tensor
) -> Iterator[Difference]:
    """The first step, and all of them where two processors stay together."""
    allowed = spread.of_trace(trace.name)
    whole = allowed.last_step <= FINAL and "x_final" in trace.arrays
    seen, state = own_steps(given, objective, start, given.num_iterations if whole else 2)
    second = trace.arrays.get("x_eval002")
    if second is not None and allowed.evaluations[1].gradient <= SWITCHES:
        tolerance = max(STEPS, allowed.first_step)
        yield from within("x after k steps", "first step", seen[1], second, tolerance)
    if not whole:
        return
    apart = np.abs(seen[-1] - trace.arrays["x_final"]).max()
    if not apart <= allowed.last_step:
        yield Difference("x after k steps", f"at the end: {apart:.1e} apart, allowed {allowed.last_step}")
    if given.optimizer == "lbfgs":
        counts = (state.n_iter, state.func_eval, len(state.rows))
        theirs = tuple(int(trace.info[f"lbfgs_{key}"]) for key in ("nIter", "funcEval", "hist"))
        if counts != theirs:
            yield Difference("x after k steps", f"iterations, evaluations, pairs {counts}, recorded {theirs}")


def optimise(feval: optim.Feval, x: torch.Tensor, given: Settings, iterations: float) -> optim.LbfgsState:
    """Run the optimiser that `given` names, as the program does; returns L-BFGS's state."""
    state = optim.LbfgsState()
    if given.optimizer == "adam":
        adam = optim.AdamState()
        while adam.t < iterations:
            optim.adam(feval, x, adam, learning_rate=given.learning_rate)
    else:
        optim.lbfgs(
            feval, x, max_iter=iterations, tol_fun=-1, tol_x=-1, n_correction=given.correction, state=state
        )
    return state


class ModuleGradients:
    """Notes what every module hands on during a backward pass, by its number in print(net), from 1.

    As recorded: what feeds an in-place ReLU is masked by it afterwards.
    """

    def __init__(self, net: Network) -> None:
        self.gradients: dict[int, torch.Tensor] = {}
        self._steps = net.steps
        for number, module in enumerate(net.listing, 1):
            if module in net.steps:
                self._watch(module, number, isinstance(net.listing[number - 2], nn.ReLU))

    def _watch(self, module: Any, number: int, after_relu: bool) -> None:
        backward = module.backward

        def noting(x: torch.Tensor, *others: Any) -> Any:
            result = backward(x, *others)
            # A layer returns the gradient, a loss adds to the one that it is given.
            grad = (others[0] if result is None else result).clone()
            self.gradients[number] = torch.where(x > 0, grad, 0) if after_relu else grad
            return result

        module.backward = noting

    def release(self) -> None:
        for step in self._steps:
            vars(step).pop("backward", None)

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
import torch
from closeness import close, equal, mostly_close, within
from recorded_runs import Difference, has_inputs, lend, one_thread, working_in

from legacy_style.engine import network
from legacy_style.engine.network import Network
from legacy_style.engine.objective import Objective
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import options
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.story import (
    build_network,
    capture,
    initial_image,
    load_chain,
    load_images,
)
from legacy_style.torch7 import nn, optim
from legacy_style.torch7.random import Generator

Array = np.ndarray[Any, Any]

# Relative L2 differences of float32 kernels, measured: feature maps and Gram matrices up to 9e-7, losses up
# to 4e-6 where a Gram matrix is close to its target, gradients up to 8e-7.
FEATURES = 2e-6
LOSS = 1e-5
GRADIENT = 2e-6

# Of the total loss: a loss next to 0 (the content's, at the content) is what its roundings leave.
NEXT_TO_NOTHING = 1e-9

NEAR = 20
"""From this evaluation on, G - T has cancelled, and a gradient has fewer digits: against float64, the
recordings themselves are up to 9e-5 off."""
NEAR_GRADIENT = 2e-4

# EXCEPTION 1 of the recordings' README: where pooled values are next to equal (noise of 0.001, or an image
# that was enlarged), another kernel may find another maximum. All else agrees, so most pixels do.
ANOTHER_MAXIMUM = {
    ("adam", 1),
    ("adam_40", 20),
    ("base", 1),
    ("base", 2),
    ("base_40", 1),
    ("odd2", 1),
    ("sw0_random", 1),
    ("upscale", 1),
}
SHARE_OF_PIXELS = 0.15

# Other tolerances of a gradient, and why.
GRADIENTS = {
    # EXCEPTION 2: the content difference is a few roundings, brought to full strength by its own norm.
    ("norm_grad", 2): 2e-3,
    # A saturated sigmoid leaves y (1 - y) few digits: the recording itself is 1.6e-5 off float64.
    ("m_oddconv", 1): 5e-5,
    ("m_oddconv", 2): 5e-5,
}

# x after k L-BFGS or Adam steps on the recorded gradients, in units of the largest x: float32's roundings.
STEPS = 1e-6

# The largest difference of x_final after a whole run with own gradients, in Caffe units (of 0..256). Adam
# divides by the gradient's size, so that a ReLU's unit at 0 can turn a rounding into a hundredth of a level.
FINAL = {
    "adam_init_image": 0.05,
    "m_caffenet_k2": 0.01,
    "tv100_adam": 0.001,
    "wc_adam": 0.05,
    "wc_lbfgs": 0.5,
    "wc_styles2": 1.0,
}

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
    given = command.options
    if trace.name in REFUSED:
        yield from _refusal(lambda: _network(given), REFUSED[trace.name])
        return
    net = _network(given)
    network.place(net, [torch.device("cpu")], "")
    start = _tensor(trace.arrays["x_eval001"])
    if has_inputs(trace.root):
        images = load_images(given)
        start = initial_image(given, images)
        yield from equal("preprocessed image", start, trace.arrays["x_eval001"])
        objective = capture(net, images, given, _nowhere)
        yield from _targets(trace, net)
    else:
        yield from _noise(given, trace.arrays["x_eval001"])
        objective = _with_recorded_targets(trace, net)
    for evaluation in trace.evaluations:
        yield from _evaluation(trace, objective, evaluation)
    yield from _steps(trace, given)
    if has_inputs(trace.root):
        yield from _own_steps(trace, given, objective, start)


def _network(given: Options) -> Network:
    return build_network(given, load_chain(given, _nowhere, _nowhere), _nowhere)


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


def _noise(given: Options, recorded: Array) -> Iterator[Difference]:
    """The start image of -init random needs no other image than its size."""
    if given.init == "random":
        noise = Generator(given.seed).randn(*recorded.shape).astype(np.float32) * np.float32(0.001)
        yield from equal("preprocessed image", noise, recorded)


def _with_recorded_targets(trace: Trace, net: Network) -> Objective:
    for loss, target in zip(net.content_losses, trace.numbered("content_target"), strict=True):
        loss.target = {0: _tensor(target)}
    for style_loss, target in zip(net.style_losses, trace.numbered("style_target"), strict=True):
        style_loss.target = torch.from_numpy(target)
    return Objective(net)


def _targets(trace: Trace, net: Network) -> Iterator[Difference]:
    for loss, target in zip(net.content_losses, trace.numbered("content_target"), strict=True):
        yield from close("feature maps", "content target", loss.target[0], target, FEATURES)
    for number, (style_loss, target) in enumerate(
        zip(net.style_losses, trace.numbered("style_target"), strict=True), 1
    ):
        assert style_loss.target is not None
        yield from close("Gram targets", f"style target {number}", style_loss.target, target, FEATURES)
        weight = float(trace.info[f"style_blend_last_{number}"])
        if not math.isclose(style_loss.blend_weight, weight, rel_tol=1e-8):
            yield Difference(
                "Gram targets", f"last blend weight {style_loss.blend_weight}, recorded {weight}"
            )


def _evaluation(trace: Trace, objective: Objective, evaluation: int) -> Iterator[Difference]:
    """Losses and gradient at one recorded image."""
    net = objective.network
    layers = ModuleGradients(net)
    content, style, grad = objective(_tensor(trace.arrays[f"x_eval{evaluation:03d}"]))
    layers.release()
    total = sum(content) + sum(style)
    for ours, theirs in zip([total, *content, *style], trace.losses(evaluation), strict=True):
        if abs(ours - theirs) > LOSS * abs(theirs) + NEXT_TO_NOTHING * abs(total):
            yield Difference("losses", f"evaluation {evaluation}: {ours}, recorded {theirs}")
    if evaluation == 1:
        for number, (loss, gram) in enumerate(
            zip(net.style_losses, trace.numbered("style_G_eval001"), strict=True), 1
        ):
            assert loss.gram is not None
            yield from close("losses", f"Gram matrix {number} at evaluation 1", loss.gram, gram, FEATURES)
    key = (trace.name, evaluation)
    recorded_grad, what = trace.arrays[f"grad_eval{evaluation:03d}"], f"at evaluation {evaluation}"
    if key in ANOTHER_MAXIMUM:
        yield from mostly_close("gradient", what, grad, recorded_grad, SHARE_OF_PIXELS)
        return
    tolerance = GRADIENTS.get(key, NEAR_GRADIENT if evaluation >= NEAR else GRADIENT)
    for module, handed_on in layers.gradients.items():
        name = f"module_{module:02d}_gradInput_eval{evaluation:03d}"
        if name in trace.arrays:
            yield from close("gradient", name, handed_on, trace.arrays[name], tolerance)
    yield from close("gradient", what, grad, recorded_grad, tolerance)


def _steps(trace: Trace, given: Options) -> Iterator[Difference]:
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


def _own_steps(
    trace: Trace, given: Options, objective: Objective, start: torch.Tensor
) -> Iterator[Difference]:
    """Objective and optimiser together: the first step, or all of them where two programs stay together."""
    seen: list[Array] = []

    def feval(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        seen.append(x[0].numpy().copy())
        content, style, grad = objective(x)
        return sum(content) + sum(style), grad.view(-1)

    whole = trace.name in FINAL
    x = start.clone()
    state = optimise(feval, x, given, given.num_iterations if whole else 2)
    second = trace.arrays.get("x_eval002")
    if second is not None and (trace.name, 1) not in ANOTHER_MAXIMUM:
        yield from within("x after k steps", "first step", seen[1], second, STEPS)
    if not whole:
        return
    apart = np.abs(x[0].numpy() - trace.arrays["x_final"]).max()
    if not apart <= FINAL[trace.name]:
        yield Difference("x after k steps", f"at the end: {apart:.1e} apart, allowed {FINAL[trace.name]}")
    if given.optimizer == "lbfgs":
        counts = (state.n_iter, state.func_eval, len(state.rows))
        theirs = tuple(int(trace.info[f"lbfgs_{key}"]) for key in ("nIter", "funcEval", "hist"))
        if counts != theirs:
            yield Difference("x after k steps", f"iterations, evaluations, pairs {counts}, recorded {theirs}")


def optimise(feval: optim.Feval, x: torch.Tensor, given: Options, iterations: float) -> optim.LbfgsState:
    """Run the optimiser that `given` names, as the program does; returns L-BFGS's state."""
    state = optim.LbfgsState()
    if given.optimizer == "adam":
        adam = optim.AdamState()
        while adam.t < iterations:
            optim.adam(feval, x, adam, learning_rate=given.learning_rate)
    else:
        correction = int(given.lbfgs_num_correction) if given.lbfgs_num_correction > 0 else 100
        optim.lbfgs(feval, x, max_iter=iterations, tol_fun=-1, tol_x=-1, n_correction=correction, state=state)
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

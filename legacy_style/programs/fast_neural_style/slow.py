"""`th slow_neural_style.lua`: optimise the pixels of one image with the losses that train.lua trains networks with.

Ports jcjohnson/fast-neural-style 813c834, slow_neural_style.lua. Notes, all kept: the start image is noise of
deviation 1; an image is saved as it was before the update of its evaluation; its name is cut at the first dot;
nothing is saved at the end, so a number of iterations that -save_every does not divide loses the last ones; total
variation and deep dream have a gradient and no loss.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine import machine
from legacy_style.engine.optimise import Stopped
from legacy_style.errors import FormatError, LegacyStyleError, OptionError
from legacy_style.programs import devices, examples
from legacy_style.programs.fast_neural_style import loading, printout
from legacy_style.programs.fast_neural_style.layers import TotalVariation
from legacy_style.programs.fast_neural_style.loss_network import LossNetwork
from legacy_style.programs.fast_neural_style.losses import LossesOfBatch, PerceptualCriterion
from legacy_style.programs.fast_neural_style.slow_options import ORIGINAL, SlowSettings
from legacy_style.programs.progress import OnStep, RunStep, WorkDone
from legacy_style.torch7 import descent, image
from legacy_style.torch7.optim import Feval, lbfgs
from legacy_style.torch7.random import Generator

Log = Callable[[str], None]


def run(settings: SlowSettings, *, log: Log, notice: Log, on_step: OnStep) -> str:
    """Make an image as the options say; returns the name of the file that was saved last, "" if none was.

    `log` takes the lines that the original prints, `notice` ours; `on_step` is called at each evaluation. Where it
    returns something true, the image is saved as it is, and the run ends. Raises LegacyStyleError.
    """
    _check_outputs(settings)
    defaults = {option.key: str(option.default) for option in ORIGINAL}
    for option, path in (
        ("-content_image", settings.content_image),
        ("-style_image", settings.style_image),
    ):
        examples.check(option, path, defaults[option], "-content_image {china} -style_image {ink_wash}")
    device = devices.choose_one(settings.device, notice)
    try:
        modules = loading.loss_network(settings.loss_network, notice)
    except LegacyStyleError as error:
        log(f"ERROR: Could not load loss network from {settings.loss_network}\t")
        log("You may need to download the VGG-16 model by running:\t")
        log("bash models/download_vgg16.sh\t")
        raise FormatError(str(error)) from error
    log(printout.describe(modules))
    with machine.float32(autotune=True):  # as utils.lua, setup_gpu
        return _make(settings, modules, device, log, notice, on_step)


def _make(
    settings: SlowSettings,
    modules: torch.nn.Sequential,
    device: torch.device,
    log: Log,
    notice: Log,
    on_step: OnStep,
) -> str:
    content, style = (
        _load(path, size, settings, notice).to(device, memory_format=torch.channels_last)
        for path, size in (
            (settings.content_image, settings.image_size),
            (settings.style_image, settings.style_image_size),
        )
    )
    criterion = PerceptualCriterion(
        LossNetwork(modules, device),
        settings.content,
        settings.style,
        dream=settings.dream,
        style_target=settings.style_target,
        distance=settings.loss_type,
    )
    criterion.set_style_target(style)
    criterion.set_content_target(content)
    x = torch.from_numpy(Generator(settings.seed).randn(*content.shape)).float().to(device)
    objective = SlowObjective(settings, criterion, x, log, on_step)
    with contextlib.suppress(Stopped):
        _optimise(settings, objective, x, log)
    return objective.saved


class SlowObjective:
    """The loss and its gradient at x, with what is printed and saved at each of its calls."""

    def __init__(
        self, settings: SlowSettings, criterion: PerceptualCriterion, x: Tensor, log: Log, on_step: OnStep
    ) -> None:
        self.settings, self.criterion, self.shape = settings, criterion, x.shape
        self.log, self.on_step = log, on_step
        self.total_variation = TotalVariation(settings.tv_strength)
        self.calls = 0
        self.saved = ""

    def __call__(self, vector: Tensor) -> tuple[float, Tensor]:
        settings = self.settings
        self.calls += 1
        pixels = vector.view(self.shape).detach().requires_grad_()
        losses = self.criterion.evaluate(self.total_variation(pixels))
        losses.backward()
        if settings.print_every > 0 and math.fmod(self.calls, settings.print_every) == 0:
            self.log(f"Iteration {self.calls}, loss = {losses.total:f}\t")
        if settings.save_every > 0 and math.fmod(self.calls, settings.save_every) == 0:
            self.save(pixels)
        if self.on_step(self.step(losses, pixels)):
            self.save(pixels)
            raise Stopped
        assert pixels.grad is not None
        return losses.total, pixels.grad.reshape(-1)

    def save(self, x: Tensor) -> str:
        """Write the image of this evaluation, and return its name."""
        self.saved = name_at(self.settings.output_image, self.calls)
        image.save(self.saved, picture(self.settings, x))
        return self.saved

    def step(self, losses: LossesOfBatch, x: Tensor) -> RunStep:
        kinds = {"content": losses.content, "style": losses.style}
        return RunStep(
            iteration=self.calls,
            iterations=self.settings.num_iterations,
            losses={"total": losses.total, **{kind: sum(each.values()) for kind, each in kinds.items()}},
            work=WorkDone((), self.calls, self.settings.num_iterations),
            picture=lambda: image.to_bytes(picture(self.settings, x)),
            keep=lambda: self.save(x),
        )


def _optimise(settings: SlowSettings, feval: Feval, x: Tensor, log: Log) -> None:
    vector = x.view(-1)
    if settings.optimizer == "lbfgs":
        most, rate = settings.num_iterations, settings.learning_rate
        lbfgs(feval, vector, max_iter=most, tol_x=0, learning_rate=rate, log=log)
        return
    step = descent.stepper(settings.optimizer, vector, settings.learning_rate)
    count = 0
    while (
        count + 1 <= settings.num_iterations
    ):  # as Lua's `for` counts: for ever to inf, and not at all to nan
        count += 1
        step(feval)


def name_at(output_image: str, call: int) -> str:
    """`dir/slow.v2.png` at call 5 -> `dir/slow_5.png`: the name is cut at its first dot."""
    folder, base = os.path.split(output_image)
    stem, extension = base.split(".")[0], base.rsplit(".", 1)[-1]
    return str(Path(folder) / f"{stem}_{call}.{extension}")


def picture(settings: SlowSettings, x: Tensor) -> NDArray[np.floating]:
    """An image as the network takes it, (1, 3, H, W), as RGB (3, H, W) in [0,1]."""
    return settings.preprocessing.deprocess(x[0].detach().cpu().double().numpy())


def _check_outputs(settings: SlowSettings) -> None:
    """Raise OptionError where the first image could not be saved."""
    if 0 < settings.save_every < math.inf:
        image.check_can_save(name_at(settings.output_image, math.ceil(settings.save_every)))


def _load(path: str, size: float, settings: SlowSettings, notice: Log) -> Tensor:
    """An image, scaled, as the network takes it, (1, 3, H, W); in double until then."""
    if not size > 0:
        raise OptionError(
            f"{path}: cannot be scaled to {size:.14g}; give a number of pixels, for example 512"
        )
    loaded = image.load_scaled(path, size, exif_rotate=settings.exif_rotate, notice=notice)
    return torch.from_numpy(settings.preprocessing.preprocess(loaded).astype(np.float32))[None]

"""`th slow_neural_style.lua`: optimise the pixels of one image with the losses that train.lua trains networks with.

Ports jcjohnson/fast-neural-style 813c834, slow_neural_style.lua. Notes, all kept: the start image is noise of
deviation 1; an image is saved as it was before the update of its evaluation; its name is cut at the first dot;
nothing is saved at the end, so a number of iterations that -save_every does not divide loses the last ones; total
variation and deep dream have a gradient and no loss.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from legacy_style.engine import machine
from legacy_style.errors import FormatError, LegacyStyleError, OptionError
from legacy_style.programs import devices, examples
from legacy_style.programs.fast_neural_style import loading, printout
from legacy_style.programs.fast_neural_style.layers import TotalVariation
from legacy_style.programs.fast_neural_style.loss_network import LossNetwork
from legacy_style.programs.fast_neural_style.losses import PerceptualCriterion
from legacy_style.programs.fast_neural_style.slow_options import ORIGINAL, SlowSettings
from legacy_style.torch7 import descent, image
from legacy_style.torch7.optim import Feval, lbfgs
from legacy_style.torch7.random import Generator

Log = Callable[[str], None]


def run(settings: SlowSettings, *, log: Log, notice: Log, check: Callable[[], None]) -> Tensor:
    """Make an image as the options say and return it, (1, 3, H, W), preprocessed.

    `log` takes the lines that the original prints, `notice` ours; `check` is called at each evaluation and may raise
    an error to end the run. Raises LegacyStyleError.
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
        return _make(settings, modules, device, log, notice, check)


def _make(
    settings: SlowSettings,
    modules: torch.nn.Sequential,
    device: torch.device,
    log: Log,
    notice: Log,
    check: Callable[[], None],
) -> Tensor:
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
    _optimise(settings, _objective(settings, criterion, x, log, check), x, log)
    return x


def _objective(
    settings: SlowSettings, criterion: PerceptualCriterion, x: Tensor, log: Log, check: Callable[[], None]
) -> Feval:
    """The loss and its gradient at x, with what is printed and saved at each of its calls."""
    total_variation = TotalVariation(settings.tv_strength)
    calls = 0

    def feval(vector: Tensor) -> tuple[float, Tensor]:
        nonlocal calls
        check()
        calls += 1
        pixels = vector.view(x.shape).detach().requires_grad_()
        losses = criterion.evaluate(total_variation(pixels))
        losses.backward()
        if settings.print_every > 0 and math.fmod(calls, settings.print_every) == 0:
            log(f"Iteration {calls}, loss = {losses.total:f}\t")
        if settings.save_every > 0 and math.fmod(calls, settings.save_every) == 0:
            save(settings, calls, vector.view(x.shape))
        assert pixels.grad is not None
        return losses.total, pixels.grad.reshape(-1)

    return feval


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


def save(settings: SlowSettings, call: int, x: Tensor) -> None:
    """Write the image of an evaluation."""
    array = x[0].detach().cpu().double().numpy()
    image.save(name_at(settings.output_image, call), settings.preprocessing.deprocess(array))


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

"""One network for all frames: loaded once, styles captured once, then a content and a descent for each frame.

Ports manuelruder/artistic-videos 40e7447, artistic_video_core.lua (buildNet, runOptimization, getStyleImages).
Notes: unlike in neural_style.lua, the last update counts; the losses of the last evaluation are printed once more at
the end; L-BFGS has its tolerances at their defaults, and may stop by the relative change of the loss.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.optimise import Stopped
from legacy_style.engine.session import Session
from legacy_style.errors import DivergenceError, OptionError
from legacy_style.formats import model_files
from legacy_style.programs import devices
from legacy_style.programs.artistic_video.settings import DescentSettings, LossSettings, ModelSettings
from legacy_style.programs.artistic_video.temporal import TemporalLoss
from legacy_style.programs.neural_style import pixels
from legacy_style.programs.neural_style.building import build, read_chain
from legacy_style.torch7 import cmdline, optim

Array = NDArray[np.float64]
Log = Callable[[str], None]


@dataclass(frozen=True)
class FrameEvaluation:
    """The losses of one evaluation of a frame, weighted; `total` is their sum, without the total variation."""

    iteration: int
    content: tuple[float, ...]
    temporal: tuple[float, ...]
    style: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.content) + sum(self.temporal) + sum(self.style)

    def by_kind(self) -> dict[str, float]:
        """The sums, the total first."""
        kinds = {"content": self.content, "temporal": self.temporal, "style": self.style}
        return {"total": self.total, **{kind: sum(values) for kind, values in kinds.items()}}


OnEvaluation = Callable[[FrameEvaluation, Tensor], object]
"""Called in each evaluation, before the update that follows it, with the image (1, 3, H, W) in Caffe units.

Where it returns something true, that image is the result.
"""


class FramePainter:
    """A network with the losses of both programs; `log` takes the original's lines, `notice` remarks of ours.

    `cure`: what is likely to be wrong where losses are not finite any more, and what to try.
    """

    def __init__(
        self,
        model: ModelSettings,
        losses: LossSettings,
        *,
        gpu: int = -1,
        autotune: bool = False,
        cure: str,
        log: Log,
        notice: Log,
    ) -> None:
        self.losses, self._cure = losses, cure
        self.device = devices.choose_one(gpu if gpu >= 0 else None, notice)
        self._chain = _load(model, log, notice)
        self._model, self._log, self._autotune = model, log, autotune

    def build(self) -> None:
        """Put the network together; prints what the original prints of it."""
        if self.losses.temporal_weight > 0:
            self._log("Setting up temporal consistency.\t")
        model, losses = self._model, self.losses
        self._net = build(
            self._chain,
            model.content_layers,
            model.style_layers,
            content_weight=losses.content_weight,
            style_weight=losses.style_weight,
            tv_weight=losses.tv_weight,
            pooling=model.pooling,
            normalize=losses.normalize,
            log=self._log,
        )
        self._net.autotune = self._autotune
        network.place(self._net, [self.device])
        self._smoothness = list(self._net.image_losses)
        self._session = Session(self._net)

    def set_styles(self, styles: Sequence[Array], weights: Sequence[float]) -> None:
        """Take the style targets from RGB images (3, H, W) in [0,1], blended by `weights`."""
        self._session.set_styles([caffe_units(style) for style in styles], weights)

    def set_content(self, content: Array) -> None:
        """Take the content targets of a frame from RGB (3, H, W) in [0,1]."""
        if self._smoothness and min(content.shape[1:]) < 2:
            raise OptionError("-tv_weight needs frames of at least 2x2 pixels; give -tv_weight 0")
        self._session.set_content(caffe_units(content))

    def temporal_loss(self, warped: Array, weights: NDArray[np.float32], number: int = 1) -> TemporalLoss:
        """The loss that holds a frame to `warped`, RGB (3, H, W) in [0,1], by `weights` (1 or 3, H, W).

        `number` tells it from the others of the frame.
        """
        return TemporalLoss(
            f"temporal {number}",
            caffe_units(warped)[0].to(self.device),
            torch.from_numpy(weights).to(self.device),
            strength=self.losses.temporal_weight,
            criterion="smoothl1" if self.losses.criterion == "smoothl1" else "mse",
            normalize=self.losses.normalize,
        )

    def evaluate(
        self, x: Tensor, temporal: Sequence[TemporalLoss], iteration: int
    ) -> tuple[FrameEvaluation, Tensor]:
        """The losses at x (1, 3, H, W), and their gradient, of its shape."""
        # In the original's network, temporal losses come first and gradients last.
        self._net.image_losses = [*self._smoothness, *reversed(temporal)]
        values, grad = self._session.evaluate(x)
        content, style = (self._net.values_from(source, values) for source in ("content", "style"))
        held = tuple(values[loss.name] for loss in temporal)
        return FrameEvaluation(iteration, content, held, style), grad

    def optimise(
        self,
        start: Tensor,
        temporal: Sequence[TemporalLoss],
        iterations: float,
        descent: DescentSettings,
        on_evaluation: OnEvaluation | None = None,
    ) -> Tensor:
        """The image that the descent from `start` (1, 3, H, W) ends at; prints what the original prints of it.

        `temporal` stands as in the original's network: the loss to the nearest predecessor first. Raises
        DivergenceError where the losses are not finite any more.
        """
        x = start.to(self.device).contiguous().clone()
        last: FrameEvaluation | None = None
        count = 0

        def feval(image: Tensor) -> tuple[float, Tensor]:
            nonlocal count, last
            count += 1
            last, grad = self.evaluate(image, temporal, count)
            if descent.print_iter > 0 and count % descent.print_iter == 0:
                self._print(last, iterations)
            if not math.isfinite(last.total):
                raise DivergenceError(f"the loss is not finite any more at iteration {count}; {self._cure}")
            if on_evaluation is not None and on_evaluation(last, image):
                raise Stopped
            return last.total, grad.view(-1)

        began = time.monotonic()
        with contextlib.suppress(Stopped):
            self._descend(feval, x, iterations, descent)
        self._log(f"Running time: {time.monotonic() - began:.0f}s\t")
        if last is None:  # no evaluation: the original had run the network once before
            last, _ = self.evaluate(x, temporal, 0)
        self._print(last, iterations)
        return x

    def _descend(self, feval: optim.Feval, x: Tensor, iterations: float, descent: DescentSettings) -> None:
        if descent.optimizer == "lbfgs":
            self._log("Running optimization with L-BFGS\t")
            optim.lbfgs(
                feval,
                x,
                max_iter=iterations,
                tol_relative=descent.tol_relative,
                tol_relative_interval=descent.tol_relative_interval,
                log=self._log,
            )
            return
        self._log("Running optimization with ADAM\t")
        state = optim.AdamState()
        while state.t + 1 <= iterations:
            optim.adam(feval, x, state, learning_rate=descent.learning_rate)

    def _print(self, losses: FrameEvaluation, iterations: float) -> None:
        self._log(f"Iteration {losses.iteration} / {cmdline.integer(iterations)}\t")
        for kind, values in (
            ("Content", losses.content),
            ("Temporal", losses.temporal),
            ("Style", losses.style),
        ):
            for number, value in enumerate(values, 1):
                self._log(f"  {kind} {number} loss: {value:f}\t")
        self._log(f"  Total loss: {losses.total:f}\t")


def style_size(height: int, width: int, content_area: int, scale: float) -> tuple[int, int]:
    """Width and height of a style image with the area of the content times scale^2, both truncated, at least 1.

    Raises OptionError where `scale` makes neither.
    """
    factor = math.sqrt(content_area / (height * width)) * scale
    if not (scale > 0 and math.isfinite(max(width, height) * factor)):
        raise OptionError(f"a style image cannot be made {scale:g} times as large; give a scale such as 1")
    return max(int(width * factor), 1), max(int(height * factor), 1)


def caffe_units(rgb: Array) -> Tensor:
    """RGB (3, H, W) in [0,1] as the network sees it: BGR, (1, 3, H, W), float32."""
    return torch.from_numpy(pixels.preprocess(rgb).astype(np.float32)).unsqueeze(0)


def picture(image: Tensor) -> Array:
    """An image (1, 3, H, W) in Caffe units as RGB (3, H, W) in [0,1], not clamped."""
    return pixels.deprocess(image[0].cpu().numpy())


def _load(model: ModelSettings, log: Log, notice: Log) -> list[loadcaffe.Module]:
    path = model.named
    if not model.explicit and not Path(path).exists():
        path = str(model_files.bundled())
        notice(f"No {model.named} here: using the bundled VGG-16 instead (-model_file names another model)")
    return read_chain(path, lambda: model_files.load(path), model.content_layers, model.style_layers, log)

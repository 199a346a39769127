"""artistic_video_multiPass.lua's main(): all frames several times, forwards and backwards in turn.

Ports manuelruder/artistic-videos 40e7447, artistic_video_multiPass.lua. Notes: the generator is seeded once, and one
noise image is where every frame begins; -save_iter does nothing; what comes from outside a neighbour is its border
here, the mean pixel only for -init prevWarped. -init image never worked in the original, which misspelt a name; it
does here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from legacy_style.programs.artistic_video.masks import Weights
from legacy_style.programs.artistic_video.painter import Array, FrameEvaluation, Log, caffe_units, picture
from legacy_style.programs.artistic_video.settings import MultiPass
from legacy_style.programs.artistic_video.single import (
    OnProgress,
    detect,
    frame_progress,
    frames_are,
    noise,
    open_painter,
    read_flow,
    read_weights,
    warn_of_criterion,
)
from legacy_style.programs.artistic_video.warp import warp
from legacy_style.programs.progress import WorkDone
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7.random import Generator


@dataclass(frozen=True)
class Neighbour:
    """A frame beside the one that is made, warped to it, (3, H, W) in [0,1]; `weights` are those of the flow."""

    image: Array
    weights: Callable[[], Weights]


def run(
    settings: MultiPass, *, log: Log, notice: Log, on_saved: Log, on_progress: OnProgress | None = None
) -> str:
    """Run artistic_video_multiPass.lua; see `single.run`."""
    with torch.no_grad():
        return Passes(settings, log, notice, on_saved, on_progress).run()


class Passes:
    """The run of artistic_video_multiPass.lua."""

    def __init__(
        self, settings: MultiPass, log: Log, notice: Log, on_saved: Log, on_progress: OnProgress | None
    ) -> None:
        self.settings, self.common = settings, settings.common
        self.log, self.notice, self.on_saved, self.on_progress = log, notice, on_saved, on_progress
        self.generator = Generator(self.common.seed)
        self.count = self.common.num_images or 0
        self.noise: Tensor | None = None
        self.stopped = False

    def run(self) -> str:
        settings, common = self.settings, self.common
        if settings.init == "image":
            self.notice(
                "-init image: the original knew it only by its help text; here it begins at the content frame"
            )
        self.painter = open_painter(common, self.log, self.notice, frames=self.detect)
        frames = range(common.start, common.start + self.count)
        last = ""
        for number in range(settings.continue_with_pass, settings.passes + 1):
            for frame in frames if number % 2 else reversed(frames):
                self.paint(frame, number)
                last = common.output.name(frame, number)
                self.on_saved(last)
                if self.stopped:
                    return frames_are(last, f"-continue_with_pass {number}, which makes this pass anew,")
        return frames_are(last, "")

    def detect(self) -> None:
        if not self.count:
            self.count = detect(self.common, self.log)

    def paint(self, frame: int, number: int) -> None:
        """Make one frame in pass `number`, and save it."""
        settings, common = self.settings, self.common
        content = torch_image.load(common.content(frame), exif_rotate=common.exif_rotate)
        last, forwards = common.start + self.count - 1, number % 2 == 1
        before = after = None
        if frame > common.start:
            before = self.before(frame, number if forwards else number - 1)
        if frame < last and number > 1:
            after = self.after(frame, number - 1 if forwards else number)
        came_from = before if forwards else after
        temporal = []
        if common.losses.temporal_weight > 0 and number >= settings.temporal_after and came_from is not None:
            temporal = [self.painter.temporal_loss(came_from.image, came_from.weights())]
            warn_of_criterion(common, self.log)
        if number == 1:
            start = self.first_start(frame, content)
        else:
            start = caffe_units(self.blended(frame, number, before, after))
        if common.output.save_init:
            torch_image.save(common.output.initial(frame, number), picture(start))
        self.painter.set_content(content)

        def on_evaluation(losses: FrameEvaluation, image: Tensor) -> bool:
            if self.on_progress is not None:
                earlier = (number - 1) * self.count + (frame - common.start if forwards else last - frame)
                total, each = settings.passes * self.count, settings.iterations
                progress = frame_progress(
                    losses,
                    image,
                    each,
                    WorkDone((earlier,), earlier * each + losses.iteration, total * each),
                    earlier + 1,
                    total,
                    f"Frame {frame} in pass {number} of {settings.passes}",
                    content,
                    common.output.name(frame, number, losses.iteration),
                )
                self.stopped = bool(self.on_progress(progress))
            return self.stopped

        image = self.painter.optimise(start, temporal, settings.iterations, common.descent, on_evaluation)
        torch_image.save(common.output.name(frame, number), picture(image))

    def before(self, frame: int, number: int) -> Neighbour:
        """The frame before, as pass `number` left it, by the backward flow."""
        return self.neighbour(frame, frame - 1, number, "backward")

    def after(self, frame: int, number: int) -> Neighbour:
        """The frame behind, as pass `number` left it, by the forward flow."""
        return self.neighbour(frame, frame + 1, number, "forward")

    def neighbour(self, frame: int, source: int, number: int, direction: str) -> Neighbour:
        settings = self.settings
        backward = direction == "backward"
        pattern = settings.backward_flow if backward else settings.forward_flow
        weight_pattern = settings.backward_weights if backward else settings.forward_weights
        image = torch_image.load(self.common.output.name(source, number))
        option, what = f"-{direction}Flow_pattern", f"{direction} flow"
        flow = read_flow(pattern, source, frame, option, what, self.log, like=image)
        image = warp(image, flow, "border")
        option = f"-{direction}Flow_weight_pattern"
        return Neighbour(
            image, lambda: read_weights(weight_pattern, source, frame, option, self.log, like=image)
        )

    def first_start(self, frame: int, content: Array) -> Tensor:
        """Where the first pass begins, (1, 3, H, W) in Caffe units."""
        settings, common = self.settings, self.common
        if self.noise is None or self.noise.shape[2:] != content.shape[1:]:
            self.noise = noise(self.generator, content)
        if frame == common.start or settings.init == "random":
            return self.noise
        if settings.init == "image":
            return caffe_units(content)
        image = torch_image.load(common.output.name(frame - 1, 1))
        # Read for the second time, and that is printed.
        option, what = "-backwardFlow_pattern", "backward flow"
        flow = read_flow(settings.backward_flow, frame - 1, frame, option, what, self.log, like=image)
        return caffe_units(warp(image, flow))

    def blended(self, frame: int, number: int, before: Neighbour | None, after: Neighbour | None) -> Array:
        """Where a later pass begins: the frame as the pass before left it, and its neighbours where they are known.

        The neighbour that this pass has made already counts -blendWeight, the other one -blendWeight_lastPass.
        """
        settings = self.settings
        total = torch_image.load(self.common.output.name(frame, number - 1))
        weights = np.ones_like(total)
        forwards = number % 2 == 1
        # Weights without end make an image of no numbers, and its loss ends the run.
        with np.errstate(invalid="ignore", over="ignore"):
            for neighbour, is_new in ((before, forwards), (after, not forwards)):
                if neighbour is not None:
                    own = neighbour.weights() * (settings.blend if is_new else settings.blend_last_pass)
                    total = total + neighbour.image * own
                    weights = weights + own
            return total / weights

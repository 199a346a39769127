"""artistic_video.lua's main(): frame after frame, each begun from its warped predecessor and held to it.

Ports manuelruder/artistic-videos 40e7447, artistic_video.lua. Notes: a predecessor is the file that was saved of it,
eight bits deep, so a run that goes on with -continue_with gives what an uninterrupted one would; the generator is
seeded anew for every frame; flows are read again for -init prevWarped, and that is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from legacy_style.errors import OptionError
from legacy_style.programs import examples
from legacy_style.programs.artistic_video import flo, masks, patterns
from legacy_style.programs.artistic_video.options import ORIGINAL, SINGLE
from legacy_style.programs.artistic_video.painter import (
    Array,
    FrameEvaluation,
    FramePainter,
    Log,
    caffe_units,
    picture,
    style_size,
)
from legacy_style.programs.artistic_video.settings import Common, Single
from legacy_style.programs.artistic_video.temporal import TemporalLoss
from legacy_style.programs.artistic_video.warp import warp
from legacy_style.programs.progress import RunStep, WorkDone
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7.random import Generator


@dataclass(frozen=True, kw_only=True)
class FrameProgress(RunStep):
    """One evaluation of one frame (or of one frame in one pass) of `frames`, both counted from 1."""

    frame: int
    frames: int


OnProgress = Callable[[FrameProgress], object]
"""Is called after every evaluation; where it returns something true, the frame is saved as it is, and the run ends."""


def run(
    settings: Single, *, log: Log, notice: Log, on_saved: Log, on_progress: OnProgress | None = None
) -> str:
    """Run artistic_video.lua; `log` takes each line that the original prints, `notice` remarks of ours.

    `on_saved` is told the name of every frame that is finished. Gives where the frames are, and how to go on where
    `on_progress` ended the run. Raises the errors of `legacy_style.errors`.
    """
    with torch.no_grad():
        return SinglePass(settings, log, notice, on_saved, on_progress).run()


def frames_are(last: str, going_on: str) -> str:
    """What `run` gives: the name of the frame that was saved last, "" for none, and the option that goes on from it, or
    "".
    """
    if not last:
        return "No frame was left to make"
    return f"The last frame is {last}" + (f"; {going_on} goes on from there" if going_on else "")


class SinglePass:
    """The run of artistic_video.lua, and what it keeps from frame to frame."""

    def __init__(
        self, settings: Single, log: Log, notice: Log, on_saved: Log, on_progress: OnProgress | None
    ) -> None:
        self.settings, self.common = settings, settings.common
        self.log, self.notice, self.on_saved, self.on_progress = log, notice, on_saved, on_progress
        self.generator = Generator(self.common.seed)
        self.first: Tensor | None = None  # what the first frame ended at, which -init first begins from
        self.stopped = False

    def run(self) -> str:
        settings, common = self.settings, self.common
        self.painter = open_painter(common, self.log, self.notice)
        frames = common.num_images or detect(common, self.log)
        begin, end = common.start + settings.continue_with - 1, common.start + frames
        last = ""
        for frame in range(begin, end):
            name = common.content(frame)
            if not Path(name).is_file():
                self.log("No more frames.\t")
                break
            self.paint(frame, torch_image.load(name, exif_rotate=common.exif_rotate), frames)
            last = self.output(frame)
            self.on_saved(last)
            if self.stopped:
                return frames_are(
                    last, f"-continue_with {frame - common.start + 2}" if frame + 1 < end else ""
                )
        return frames_are(last, "")

    def output(self, frame: int) -> str:
        return self.common.output.name(frame - self.common.start + 1)

    def paint(self, frame: int, content: Array, frames: int) -> None:
        """Make one frame, from its content image, and save it."""
        settings, common = self.settings, self.common
        later = frame > common.start
        if common.seed is not None:
            self.generator.manual_seed(common.seed)
        warped: list[Array] = []
        earlier = predecessors(settings, frame) if later and common.losses.temporal_weight != 0 else []
        for source in earlier:
            warped.append(self.warped(source, frame))
        temporal = self.temporal_losses(warped, earlier, frame)
        self.painter.set_content(content)
        start = self.initial(settings.inits[later], frame, content)
        number = frame - common.start + 1
        if common.output.save_init:
            torch_image.save(common.output.initial(number), picture(start))
        iterations = settings.iterations[later]

        def on_evaluation(losses: FrameEvaluation, image: Tensor) -> bool:
            t, every = losses.iteration, settings.save_iter
            if every > 0 and t % every == 0 and t != iterations:
                torch_image.save(common.output.name(number, t), picture(image))
            if self.on_progress is not None:
                earlier = (
                    settings.iterations[False] + (number - 2) * settings.iterations[True] if later else 0.0
                )
                total = settings.iterations[False] + (frames - 1) * settings.iterations[True]
                progress = frame_progress(
                    losses,
                    image,
                    iterations,
                    WorkDone((number,), earlier + t, total),
                    number,
                    frames,
                    f"Frame {number} of {frames}",
                    content,
                    common.output.name(number, t),
                )
                self.stopped = bool(self.on_progress(progress))
            return self.stopped

        image = self.painter.optimise(start, temporal, iterations, common.descent, on_evaluation)
        torch_image.save(self.output(frame), picture(image))
        if self.first is None:
            self.first = image

    def warped(self, source: int, frame: int) -> Array:
        """The finished frame `source`, moved to where its content is in `frame`."""
        image = torch_image.load(self.output(source))
        pattern = self.settings.flow_pattern
        return warp(image, read_flow(pattern, source, frame, "-flow_pattern", "flow", self.log, like=image))

    def temporal_losses(
        self, warped: Sequence[Array], earlier: Sequence[int], frame: int
    ) -> list[TemporalLoss]:
        if self.common.losses.temporal_weight <= 0:
            return []
        weights = [
            read_weights(
                self.settings.weight_pattern,
                source,
                frame,
                "-flowWeight_pattern",
                self.log,
                invert=self.settings.invert_weights,
                like=image,
            )
            for source, image in zip(earlier, warped, strict=True)
        ]
        combined = masks.combine(weights, self.settings.combine) if weights else []
        for _ in combined:
            warn_of_criterion(self.common, self.log)
        return [
            self.painter.temporal_loss(image, own, number)
            for number, (image, own) in enumerate(zip(warped, combined, strict=True), 1)
        ]

    def initial(self, init: str, frame: int, content: Array) -> Tensor:
        """Where the descent of `frame` begins, (1, 3, H, W)."""
        if init == "random":
            return noise(self.generator, content)
        if init == "image":
            return caffe_units(content)
        if init == "prevWarped" and frame > self.common.start:
            return caffe_units(self.warped(frame - 1, frame))
        if init == "prev" and frame > self.common.start:
            return caffe_units(torch_image.load(self.output(frame - 1)))
        if init == "first" and self.first is not None:
            return self.first
        raise OptionError(
            f"-init {init}: Invalid initialization method for frame {frame}, which nothing comes before"
        )


def frame_progress(
    losses: FrameEvaluation,
    image: Tensor,
    iterations: float,
    work: WorkDone,
    frame: int,
    frames: int,
    title: str,
    content: Array,
    unfinished: str,
) -> FrameProgress:
    """What is told of an evaluation; `content`: the frame that is painted; `unfinished`: what it is kept as."""

    def keep() -> str:
        torch_image.save(unfinished, picture(image))
        return unfinished

    return FrameProgress(
        iteration=losses.iteration,
        iterations=iterations,
        losses=losses.by_kind(),
        work=work,
        picture=lambda: torch_image.to_bytes(picture(image)),
        keep=keep,
        title=title,
        before=lambda: torch_image.to_bytes(content),
        frame=frame,
        frames=frames,
    )


def predecessors(settings: Single, frame: int) -> list[int]:
    """The frames that `frame` is held to, nearest first: by relative indices, and every so many before it."""
    start = settings.common.start
    found = {frame - index for index in settings.relative_indices}
    if settings.use_flow_every > 0:
        found |= set(range(frame - settings.use_flow_every, start - 1, -settings.use_flow_every))
    return sorted((each for each in found if each >= start), reverse=True)


def open_painter(
    common: Common, log: Log, notice: Log, *, frames: Callable[[], None] | None = None
) -> FramePainter:
    """The network with the style targets captured; `frames` is called where the multi-pass program counts frames."""
    defaults = {option.key: str(option.default) for option in ORIGINAL[SINGLE]}
    instead = "-content_pattern frames/%04d.png, your frames, and -style_image {ink_wash}"
    for option, path, default in (
        ("-content_pattern", common.content(common.start), defaults["-content_pattern"] % common.start),
        *(("-style_image", path, defaults["-style_image"]) for path in common.style_images),
    ):
        examples.check(option, path, default, instead)
    painter = FramePainter(
        common.model,
        common.losses,
        gpu=common.gpu,
        autotune=common.autotune,
        cure="likely causes are a weight or a -learning_rate that is far too large, or, with L-BFGS, a step that went"
        " astray: try smaller weights, -optimizer adam, or another -seed",
        log=log,
        notice=notice,
    )
    if frames is not None:
        frames()
    # What is said of the first frame is true of all.
    content = torch_image.load(common.content(common.start), exif_rotate=common.exif_rotate, notice=notice)
    area = content.shape[1] * content.shape[2]
    styles = []
    for path in common.style_images:
        style = torch_image.load(path, exif_rotate=common.exif_rotate, notice=notice)
        width, height = style_size(style.shape[1], style.shape[2], area, common.style_scale)
        log(f"Style image size: {width} x {height}\t")
        styles.append(torch_image.scale_to(style, width, height))
    painter.build()
    painter.set_styles(styles, common.blend_weights)
    return painter


def detect(common: Common, log: Log) -> int:
    """How many content frames there are; the first is not looked for."""
    if common.content(common.start) == common.content(common.start + 1):
        raise OptionError(
            f"-content_pattern {common.content_pattern!r} names the same file for every frame; put a %d where the"
            " frame's number is, or give -num_images"
        )
    count = 1
    while Path(common.content(common.start + count)).is_file():
        count += 1
    log(f"Detected {count} content images.\t")
    return count


def warn_of_criterion(common: Common, log: Log) -> None:
    """What the original printed for each temporal loss whose criterion it did not know."""
    if common.losses.criterion not in ("mse", "smoothl1"):
        log("WARNING: Unknown flow loss criterion. Using MSE.\t")


def noise(generator: Generator, content: Array) -> Tensor:
    """A start image of normal noise with deviation 0.001 in Caffe units, (1, 3, H, W), as large as `content`."""
    values = generator.randn(*content.shape).astype(np.float32)
    return torch.from_numpy(values).unsqueeze(0).mul_(0.001)


def read_flow(
    pattern: str, source: int, frame: int, option: str, what: str, log: Log, *, like: Array
) -> flo.Flow:
    """The flow that fetches frame `source`, the image `like`, into `frame`; prints which file it is."""
    name = patterns.between(pattern, source, frame, option)
    log(f'Reading {what} file "{name}".\t')
    flow = flo.read(name)
    if flow.shape[1:] != like.shape[1:]:
        raise OptionError(
            f"{name}: the flow is {flow.shape[2]}x{flow.shape[1]} pixels, the frame {like.shape[2]}x{like.shape[1]};"
            " make the flow from the frames in the size in which they are stylised"
        )
    return flow


def read_weights(
    pattern: str, source: int, frame: int, option: str, log: Log, *, like: Array, invert: bool = False
) -> masks.Weights:
    """The weights of that flow, of the size of the image `like`; prints which file it is."""
    name = patterns.between(pattern, source, frame, option)
    log(f'Reading flowWeights file "{name}".\t')
    weights = masks.read(name, invert=invert)
    if weights.shape != like.shape:
        raise OptionError(
            f"{name}: the mask is {weights.shape[2]}x{weights.shape[1]} pixels, the frame"
            f" {like.shape[2]}x{like.shape[1]}; make the masks from flows of the frames' size"
        )
    return weights

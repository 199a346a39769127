"""The whole of it: decode, flow, paint frame by frame, encode.

Each frame begins at its warped predecessor and is held to it by the temporal loss, as artistic_video.lua does it;
the first of each shot begins at its content. Decoding and optical flow run in a thread of their own, two frames
ahead of the optimisation, and no more than those are held in memory.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from legacy_style.errors import OptionError
from legacy_style.files import sha256
from legacy_style.formats import model_files
from legacy_style.programs import devices
from legacy_style.programs.artistic_video.painter import (
    FrameEvaluation,
    FramePainter,
    caffe_units,
    picture,
    style_size,
)
from legacy_style.programs.artistic_video.settings import DescentSettings, LossSettings, ModelSettings
from legacy_style.programs.artistic_video.warp import Array, warp
from legacy_style.programs.progress import WorkDone
from legacy_style.programs.video import fast, motion, sink, source, steadiness, work
from legacy_style.programs.video.source import Frame, Picture
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7 import image_files

PREVIEW = 10
"""So many frames --preview makes."""

_AHEAD = 2


@dataclass(frozen=True)
class VideoSettings:
    """What is asked for. `size`: the longer side that is worked in; `iterations`: of the first frame of a shot, of
    all others; `work`: the work folder, None for one beside the output; `enlarge`: whether the output has the
    source's size; `gpu`: its number, -1 for the CPU, None for a GPU where there is one.
    """

    input: str
    output: str
    styles: tuple[str, ...] = ()
    fast: str | None = None
    size: int = 320
    iterations: tuple[int, int] = (100, 30)
    content_weight: float = 10.0
    style_weight: float = 100.0
    temporal_weight: float = 1000.0
    tv_weight: float = 1e-3
    style_scale: float = 1.0
    model: str | None = None
    gpu: int | None = None
    alone: bool = False
    flow_command: str | None = None
    rate: float = 25.0
    sound: bool = True
    enlarge: bool = True
    exif_rotate: bool = False
    preview: bool = False
    measure: bool = False
    work: str | None = None
    fresh: bool = False


@dataclass(frozen=True)
class VideoProgress:
    """One evaluation of a frame, or a frame that is done (`loss` None); `frames` None where nobody knows.

    `work` counts evaluations; cuts, which begin anew, are not foreseen.
    """

    frame: int
    frames: int | None
    iteration: int
    iterations: int
    loss: float | None
    seconds: float  # a frame, on average
    work: WorkDone
    picture: Callable[[], Picture] | None = None  # the frame, where it is done


@dataclass(frozen=True)
class VideoResult:
    """`frames`: so many the video has; `cuts`: before which of them; `steadiness`: nan unless measured.

    `stopped`: whether it ended before its source, as `on_progress` asked.
    """

    frames: int
    cuts: tuple[int, ...]
    steadiness: float
    stopped: bool = False


Notice = Callable[[str], None]
OnProgress = Callable[[VideoProgress], object]
"""The run ends after a finished frame for which it returns something true."""


class Maker(Protocol):
    """Makes one frame, RGB (3, H, W) in [0,1], from its content and, unless a shot begins, what came before."""

    def __call__(self, content: Array, before: Array | None, moved: motion.Motion | None) -> Array: ...


@dataclass(frozen=True)
class Step:
    """A frame with its motion from the one before; None where a shot begins, or where it is finished already."""

    frame: Frame
    moved: motion.Motion | None
    is_cut: bool


def run(settings: VideoSettings, *, notice: Notice, on_progress: OnProgress | None = None) -> VideoResult:
    """Make the video; raises the errors of `legacy_style.errors`, and Broken after writing what could be made."""
    with torch.no_grad():
        return Story(settings, notice, on_progress).run()


class Story:
    """One run, from the options to the finished file."""

    def __init__(self, settings: VideoSettings, notice: Notice, on_progress: OnProgress | None) -> None:
        self.settings, self.notice, self.on_progress = settings, notice, on_progress
        check(settings)
        self.device = devices.of_option(settings.gpu, notice)
        self.source = source.open_source(
            settings.input,
            Fraction(settings.rate).limit_denominator(1001),
            exif_rotate=settings.exif_rotate,
            notice=notice,
        )
        self.width, self.height = source.working_size(self.source, settings.size)
        self.flow = motion.estimator(settings.flow_command)
        folder = settings.work or f"{settings.output.rstrip('/')}.work"
        self.work = work.WorkFolder(folder, record(settings), fresh=settings.fresh)
        self.times: list[tuple[Fraction, str]] = []
        self.cuts: list[int] = []
        self.broken: source.Broken | None = None
        self.stopped = False
        self.frame = 0
        self.begun = (time.monotonic(), 0)

    def run(self) -> VideoResult:
        if self.work.done:
            self.notice(f"going on after frame {self.work.done}, which is in {self.work.folder}")
        self.paint()
        if not self.times:
            raise self.broken or OptionError(f"{self.settings.input}: there are no frames in it")
        self.encode()
        value = float("nan")
        if self.settings.measure:
            value = steadiness.measure(self.pairs(), self.flow)
        if self.broken is not None:
            raise source.Broken(
                f"{self.broken}. The {len(self.times)} frames before that are in {self.settings.output}"
            )
        if not self.settings.preview and not self.stopped and self.settings.work is None:
            self.work.remove()
        return VideoResult(len(self.times), tuple(self.cuts), value, self.stopped)

    def paint(self) -> None:
        """Make every frame that is not there yet."""
        make: Maker | None = None
        with contextlib.closing(ahead(self.steps())) as steps:
            try:
                for step in steps:
                    number = step.frame.number
                    if number > self.work.done:
                        if make is None:
                            make = self.maker()
                            self.begun = time.monotonic(), number - 1
                        before = None
                        if step.moved is not None and not step.is_cut:
                            before = unit(self.work.load(number - 1))
                        self.frame = number
                        self.work.save(number, make(unit(step.frame.picture), before, step.moved))
                        self.stopped = bool(self.tell(0, 0, None, partial(self.work.load, number)))
                    if step.is_cut:
                        self.cuts.append(number)
                    self.times.append((step.frame.time, step.frame.name))
                    if self.stopped:
                        return
            except source.Broken as error:
                self.broken = error

    def steps(self) -> Iterator[Step]:
        """All frames with their motion, where it is needed; runs beside the optimisation."""
        before: Picture | None = None
        for frame in source.read(self.source, self.width, self.height):
            if self.settings.preview and frame.number > PREVIEW:
                return
            moved = None
            if before is not None and frame.number > self.work.done and not self.settings.alone:
                moved = motion.motion(self.flow, before, frame.picture)
            yield Step(frame, moved, moved is not None and moved.is_cut)
            before = frame.picture

    def maker(self) -> Maker:
        """Load what makes frames."""
        if self.settings.fast is not None:
            return fast.Fast(self.settings.fast, self.device)
        return Slow(self.settings, self.device, self.width, self.height, self.tell, self.notice)

    def tell(
        self,
        iteration: int,
        iterations: int,
        loss: float | None,
        picture: Callable[[], Picture] | None = None,
    ) -> object:
        """Give what `on_progress` returns."""
        if self.on_progress is not None:
            began, first = self.begun
            done = self.work.done - first
            pace = (time.monotonic() - began) / done if done else float("nan")
            count = PREVIEW if self.settings.preview else self.source.count
            work = self.worked(count, 0 if loss is None else iteration)
            return self.on_progress(
                VideoProgress(self.frame, count, iteration, iterations, loss, pace, work, picture)
            )
        return None

    def worked(self, count: int | None, iteration: int) -> WorkDone:
        """How far `count` frames are after so many evaluations of this one, 0 where it is done."""
        first, later = self.settings.iterations if self.settings.fast is None else (1, 1)

        def of(frames: int) -> int:
            return first + (frames - 1) * later if frames else 0

        done = of(self.frame - 1) + iteration if iteration else of(self.frame)
        return WorkDone((self.frame,), done, of(count) if count else math.inf)

    def encode(self) -> None:
        """Write the output from the finished frames."""
        known = self.source if self.settings.sound else replace(self.source, has_sound=False)
        whole = not self.settings.preview and self.broken is None and not self.stopped
        until = None if whole else self.times[-1][0] + 1 / self.source.rate
        sink.write(self.settings.output, self.finished(), known, notice=self.notice, until=until)

    def finished(self) -> Iterator[Frame]:
        """The finished frames in the output's size."""
        width, height = self.width, self.height
        if self.settings.enlarge:
            width, height = source.even(self.source.width), source.even(self.source.height)
        for number, (when, name) in enumerate(self.times, 1):
            yield Frame(number, when, source.scaled(self.work.load(number), width, height), name)

    def pairs(self) -> Iterator[tuple[Picture, Picture]]:
        """Content and finished frames side by side, for the measure."""
        frames = source.read(self.source, self.width, self.height)
        for number, _ in enumerate(self.times, 1):
            yield next(frames).picture, self.work.load(number)


class Slow:
    """artistic_video.lua's way: each frame is optimised, from its warped predecessor."""

    def __init__(
        self,
        settings: VideoSettings,
        device: torch.device,
        width: int,
        height: int,
        tell: Callable[[int, int, float | None], object],
        notice: Notice,
    ) -> None:
        self._iterations, self._tell = settings.iterations, tell
        losses = LossSettings(
            content_weight=settings.content_weight,
            style_weight=settings.style_weight,
            temporal_weight=settings.temporal_weight,
            tv_weight=settings.tv_weight,
            criterion="mse",
            normalize=False,
        )
        self._painter = FramePainter(
            _model(settings),
            losses,
            gpu=device.index if device.type == "cuda" else -1,
            cure="likely causes are a weight that is far too large, or a step of L-BFGS that went astray: try smaller"
            " weights (--style-weight, --content-weight, --temporal-weight), or another --size",
            log=_ignore,
            notice=_ignore,
        )
        self._painter.build()
        styles = []
        for path in settings.styles:
            style = torch_image.load(path, exif_rotate=settings.exif_rotate, notice=notice)
            size = style_size(style.shape[1], style.shape[2], width * height, settings.style_scale)
            styles.append(torch_image.scale_to(style, *size))
        self._painter.set_styles(styles, [1 / len(styles)] * len(styles))

    def __call__(self, content: Array, before: Array | None, moved: motion.Motion | None) -> Array:
        self._painter.set_content(content)
        iterations = self._iterations[before is not None]
        start, held = content, []
        if before is not None and moved is not None:
            start = warp(before, moved.flow, "border")
            weights = (moved.mask / np.float32(255)).astype(np.float32)[None]
            held = [self._painter.temporal_loss(start, weights)]

        def on_evaluation(losses: FrameEvaluation, image: torch.Tensor) -> None:
            self._tell(losses.iteration, iterations, losses.total)

        descent = DescentSettings("lbfgs", 1.0, tol_relative=1e-4, tol_relative_interval=50, print_iter=0)
        return picture(self._painter.optimise(caffe_units(start), held, iterations, descent, on_evaluation))


def check(settings: VideoSettings) -> None:
    """Raise OptionError for what can be known before anything is opened."""
    if settings.fast is None and not settings.styles:
        raise OptionError("a video needs a style: give --style with an image, or --fast with a trained model")
    for path in settings.styles:
        image_files.check(path)
    if settings.model and not Path(settings.model).is_file():
        raise OptionError(f"{settings.model}: no such file; give --model a network, or leave it out")
    if settings.fast is not None:
        fast.find(settings.fast)
    if not 0 < settings.style_scale < math.inf:
        raise OptionError(f"--style-scale {settings.style_scale:g}: give a number above 0, for example 1")
    if settings.size < 16:
        raise OptionError(
            f"--size {settings.size}: give the longer side in pixels, 16 or more, for example 320"
        )
    if min(settings.iterations) < 1:
        raise OptionError("--iterations must be 1 or more, for example 100,30")
    if not 0 < settings.rate <= 1000:
        raise OptionError(f"--rate {settings.rate:g}: give frames a second, for example 25")
    sink.check(settings.output)


def record(settings: VideoSettings) -> dict[str, str]:
    """What must be the same for a run to go on from another's frames."""
    values = {
        "the input": work.digest(settings.input) if Path(settings.input).exists() else "",
        "--size": str(settings.size),
        "the way": " ".join(["fast"] * bool(settings.fast) + ["alone"] * settings.alone) or "slow",
        "--flow-command": settings.flow_command or "",
    }
    if settings.exif_rotate:
        values["--exif-rotate"] = "given"
    if settings.fast:
        values["the model"] = sha256(fast.find(settings.fast))
        return values
    values |= {
        "the model": sha256(_model(settings).named),
        "the styles": " ".join(sha256(path) for path in settings.styles),
        "--iterations": "{},{}".format(*settings.iterations),
    }
    for name in ("content_weight", "style_weight", "temporal_weight", "tv_weight", "style_scale"):
        values[f"--{name.replace('_', '-')}"] = repr(getattr(settings, name))
    return values


def _model(settings: VideoSettings) -> ModelSettings:
    return ModelSettings(
        named=settings.model or str(model_files.bundled()),
        explicit=True,
        pooling="max",
        content_layers=("relu4_2",),
        style_layers=("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    )


def unit(picture: Picture) -> Array:
    """Bytes (H, W, 3) as (3, H, W) in [0,1]."""
    image: Array = picture.transpose(2, 0, 1).astype(np.float64) * (1 / 255)
    return image


def ahead(items: Iterator[Step]) -> Generator[Step, None, None]:
    """`items`, computed in a thread, at most `_AHEAD` before they are asked for; their errors come out here."""
    waiting: queue.Queue[Step | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(item: Step | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="decoding", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _ignore(line: str) -> None:
    pass

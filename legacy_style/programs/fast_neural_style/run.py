"""fast_neural_style.lua as its main() ran: load a network, then draw one image, or a folder of them, in one pass each.

Ports jcjohnson/fast-neural-style 813c834. Notes: a folder's names are printed as absolute paths; its entries come in
the order of their names, the original's came as the file system listed them; the first entry that fails ends the run,
and what was written before stays. The size of a result is not tied to that of the image: the median filter shrinks it,
and strides round it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from legacy_style import files
from legacy_style.errors import FormatError, OptionError, UnsupportedError
from legacy_style.formats import model_files, t7
from legacy_style.programs import devices, examples
from legacy_style.programs.fast_neural_style import network, shapes
from legacy_style.programs.fast_neural_style.forward import Forward
from legacy_style.programs.fast_neural_style.median import median_filter
from legacy_style.programs.fast_neural_style.network import TrainedNetwork
from legacy_style.programs.fast_neural_style.options import ORIGINAL, FastSettings
from legacy_style.torch7 import image

Log = Callable[[str], None]

EXTENSIONS = ("jpg", "jpeg", "png", "ppm", "pgm")
"""What a file's name must end in, in any case, to be taken from -input_dir."""


@dataclass(frozen=True)
class Job:
    """One image to paint: the file, as it is printed, and the file of the result."""

    source: str
    target: str


def run(settings: FastSettings, *, log: Log, notice: Log, check: Callable[[], None]) -> None:
    """Paint what the settings name. `log` takes lines of stdout, `notice` those of stderr.

    `check` is called before each image, and may raise an error to end the run. Raises LegacyStyleError.
    """
    jobs = find_jobs(settings)
    if not jobs:
        notice(f"no image in {settings.source}: no name there ends in .{', .'.join(EXTENSIONS)}")
    if not settings.folder and _is_torch7(
        settings.model
    ):  # of two that are missing, the model is told of, as it was
        default = str(next(option.default for option in ORIGINAL if option.key == "-input_image"))
        examples.check("-input_image", settings.source, default, "-input_image {china}")
    device = choose_device(settings, notice)
    checkpoint = load(settings.model, log)
    if checkpoint.bare:
        notice(f"{settings.model}: a bare network without options; its preprocessing is taken to be vgg")
    painter = CommandPainter(checkpoint, device, settings, notice)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        saving: Future[None] | None = None
        try:
            for job, loading in _ahead(jobs, lambda job: reader.submit(painter.read, job)):
                check()
                result = painter.paint(job, loading.result(), log)
                if saving is not None:
                    saving.result()
                log(f"Writing output image to {job.target}\t")
                saving = writer.submit(_save, job.target, result)
        finally:
            if saving is not None:
                saving.result()


def _is_torch7(path: str) -> bool:
    try:
        return model_files.is_torch7(path)
    except OSError:
        return False


def find_jobs(settings: FastSettings) -> list[Job]:
    """The images to paint, in order; raises OptionError where -input_dir is not a folder."""
    if not settings.folder:
        return [Job(settings.source, settings.target)]
    try:
        names = sorted(os.listdir(settings.source))  # noqa: PTH208 (names, and no paths)
    except OSError as error:
        raise OptionError(
            f"-input_dir {settings.source}: {error.strerror}; give a folder of images"
        ) from None
    return [
        Job(_concat(settings.source, name), _concat(settings.target, name))
        for name in names
        if is_image(name)
    ]


def _concat(folder: str, name: str) -> str:
    """paths.concat of Torch7: an absolute path without dots; links are not followed."""
    return os.path.abspath(Path(folder, name))  # noqa: PTH100 (Path.resolve follows links)


def is_image(name: str) -> bool:
    """Whether -input_dir takes a file of that name."""
    return not name.startswith(".") and Path(name).suffix[1:].lower() in EXTENSIONS


def load(path: str, log: Log) -> TrainedNetwork:
    """Load a checkpoint; where that fails, print the original's lines and raise FormatError with the reason.

    The original printed them, gave no reason, and ended with status 0.
    """
    try:
        content = t7.read(path)
    except (FormatError, OSError) as error:
        log(f"ERROR: Could not load model from {path}\t")
        log("You may need to download the pretrained models by running\t")
        log("bash models/download_style_transfer_models.sh\t")
        reason = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise FormatError(
            f"{reason}; give a .t7 checkpoint of fast-neural-style to -model (legacy-style models list has those that"
            " were published)"
        ) from error
    return network.from_checkpoint(content, path)


def list_layers(path: str) -> list[str]:
    """A line for each module of a checkpoint's network: Torch7's path to it, and what it is."""
    checkpoint = network.from_checkpoint(t7.read(path), path)
    return [
        f"{_lua_path(name)} {module}"
        for name, module in checkpoint.network.named_modules()
        if _is_leaf(module)
    ]


def _lua_path(name: str) -> str:
    """`10.0.0.3` as Torch7 counts, from 1: `11-1-1-4`."""
    return "-".join(str(int(number) + 1) for number in name.split("."))


def _is_leaf(module: torch.nn.Module) -> bool:
    return next(module.children(), None) is None


def choose_device(settings: FastSettings, notice: Log) -> torch.device:
    """Where the network runs; says so where that is not what the options ask for."""
    if settings.gpu is not None and settings.backend != "cuda":
        notice(f"-backend {settings.backend} is not served: running on the CPU")
        return devices.CPU
    return devices.choose_one(settings.gpu, notice)


def load_image(path: str, settings: FastSettings, notice: Log) -> NDArray[np.float64]:
    """An image as the settings want it: RGB in [0,1], (3, H, W), scaled."""
    load = partial(image.load_scaled, size=settings.image_size) if settings.image_size > 0 else image.load
    return load(path, max_pixels=settings.max_pixels, exif_rotate=settings.exif_rotate, notice=notice)


class CommandPainter:
    """A network on its device, with what is done to images before and after it."""

    def __init__(
        self, checkpoint: TrainedNetwork, device: torch.device, settings: FastSettings, notice: Log
    ) -> None:
        self.checkpoint, self.settings, self.device = checkpoint, settings, device
        self.notice = notice
        self.forward = Forward(checkpoint.network, device, autotune=settings.autotune)

    def read(self, job: Job) -> NDArray[np.float32]:
        """An image as the network takes it, (3, H, W); all that can be known to fail later is raised here."""
        settings = self.settings
        if settings.folder:
            image.check_name(job.target)
        loaded = load_image(job.source, settings, self.notice)
        try:
            height, width = shapes.picture_size(self.checkpoint.network, *loaded.shape[1:])
        except UnsupportedError as error:
            raise UnsupportedError(f"{job.source}, {settings.model}: {error}") from None
        if settings.median > min(height, width):
            raise OptionError(
                f"{job.source}: -median_filter {settings.median} is larger than the result of {width}x{height} pixels;"
                " choose a smaller one, or 0 for none"
            )
        preprocessed = self.checkpoint.preprocessing.preprocess(loaded)  # in double
        return np.ascontiguousarray(preprocessed, np.float32)

    def paint(self, job: Job, image: NDArray[np.float32], log: Log) -> NDArray[np.float32]:
        """The finished picture, RGB, (3, H, W), of what `read` gives."""
        x = torch.from_numpy(image)[None]
        if self.settings.timing:
            self.forward(x)
            began = time.perf_counter()
        y = self.forward(x)
        if self.settings.timing:
            seconds = time.perf_counter() - began
            log(f"Image {job.source} ({x.shape[2]} x {x.shape[3]}) took {seconds:f}\t")
        picture = self.checkpoint.preprocessing.deprocess(y[0].numpy())
        return median_filter(picture, self.settings.median) if self.settings.median else picture


def _ahead(
    jobs: Sequence[Job], start: Callable[[Job], Future[NDArray[np.float32]]]
) -> Iterator[tuple[Job, Future[NDArray[np.float32]]]]:
    """Each job with its image, which is read while the one before is painted."""
    following = start(jobs[0]) if jobs else None
    for number, job in enumerate(jobs):
        assert following is not None
        loading, following = following, start(jobs[number + 1]) if number + 1 < len(jobs) else None
        yield job, loading


def _save(path: str, picture: NDArray[np.float32]) -> None:
    folder = Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder}: cannot be made into a folder: {files.reason(error)}") from error
    image.save(path, picture)

"""`th train.lua`: train an image transformation network, with its original's losses, optimiser, lines and files.

Ports jcjohnson/fast-neural-style 813c834, train.lua; `train` reads as its `main` does. Ours are photographs instead
of an HDF5 file (`photographs`), a training that goes on (`training_state`), and a picture beside each checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from legacy_style.engine import machine
from legacy_style.errors import OptionError
from legacy_style.programs import devices, examples
from legacy_style.programs.fast_neural_style import (
    architecture,
    fitting,
    loading,
    printout,
    saving,
    training_state,
)
from legacy_style.programs.fast_neural_style.data import Batches, open_batches
from legacy_style.programs.fast_neural_style.loss_network import LossNetwork
from legacy_style.programs.fast_neural_style.losses import PerceptualCriterion
from legacy_style.programs.fast_neural_style.train_options import ORIGINAL, TrainingSettings
from legacy_style.programs.fast_neural_style.trainer import Trainer
from legacy_style.programs.progress import Pixels, RunStep, WorkDone
from legacy_style.torch7 import image
from legacy_style.torch7.random import Generator

Log = Callable[[str], None]

PICTURE_SIZE = 512
"""The longer side of the picture beside a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class TrainingProgress(RunStep):
    """One iteration that is done; `images`: how many it trained on.

    Its picture is what the network makes of a photograph, and what is kept is a checkpoint.
    """

    images: int


OnProgress = Callable[[TrainingProgress], object]
"""Is called after every iteration; where it returns something true, a checkpoint is written, and training ends."""


def train(
    settings: TrainingSettings,
    *,
    log: Log,
    notice: Log,
    on_progress: OnProgress,
    on_saved: Log = lambda name: None,
    on_resumed: Callable[[Sequence[float]], object] = lambda losses: None,
) -> torch.nn.Sequential:
    """Train a network as the options say, and return it.

    `log` takes the lines that the original prints, `notice` ours, `on_saved` the name of each checkpoint, `on_resumed`
    the losses of the iterations that were made before, where a training goes on. Raises LegacyStyleError.
    """
    _check_files(settings, notice)
    device = devices.choose_one(settings.device, notice)
    machine.dtype(settings.precision, [device])  # raises where that would be slow
    state = training_state.read(settings.resume) if settings.resume else None
    if state is not None:
        training_state.check_same(settings.resume, state, settings)
    seed = state["seed"] if state is not None else settings.seed
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    with (
        contextlib.closing(open_batches(settings, seed, notice)) as batches,
        machine.float32(autotune=True),  # as utils.lua, setup_gpu
    ):
        model = _model(settings, seed, log)
        log(printout.describe(model))
        saving.to_t7(model)  # raises for what could not be written
        criterion = _criterion(settings, device, notice) if settings.percep_loss_weight > 0 else None
        fitting.check(model, criterion, batches.sizes, settings)
        trainer = Trainer(settings, model, criterion, device, seed)
        if state is not None:
            training_state.restore(settings.resume, state, trainer)
            t, most = trainer.iteration, settings.num_iterations
            finished = f"; there is none left of {most:.14g}: give a larger -num_iterations for more"
            notice(f"going on from iteration {t} ({settings.resume})" + (finished if t >= most else ""))
            on_resumed(trainer.history.train_loss_history)
        sample = Sample(settings, batches)
        if settings.picture or settings.watch is not None:
            sample.load()
        try:
            _run(trainer, batches, sample, log, on_progress, on_saved)
        except KeyboardInterrupt:
            notice(_what_is_kept(settings))
            raise
    return trainer.model


def _run(
    trainer: Trainer,
    batches: Batches,
    sample: Sample,
    log: Log,
    on_progress: OnProgress,
    on_saved: Log,
) -> None:
    settings = trainer.settings

    def keep() -> str:
        name = _keep(trainer, sample)
        on_saved(name)
        return name

    before = None  # what a step that is interrupted goes back to
    try:
        while trainer.iteration < settings.num_iterations:
            x, y = batches.train(trainer.iteration)
            before = training_state.collect(trainer) if settings.state else None
            rate = trainer.learning_rate
            loss = trainer.step(x, y)
            t = trainer.iteration
            # At once, since every state that is kept from here on is to have it.
            if settings.lr_decay_every > 0 and math.fmod(t, settings.lr_decay_every) == 0:
                trainer.decay()
            before = None
            epoch = t / batches.per_epoch if batches.per_epoch else math.inf
            log(
                f"Epoch {epoch:f}, Iteration {t} / {settings.num_iterations:.0f}, loss = {loss:f}\t"
                f"{rate:.14g}\t"
            )
            stop = on_progress(_progress(trainer, sample, loss, len(x), keep))
            if settings.checkpoint_every > 0 and math.fmod(t, settings.checkpoint_every) == 0:
                _validate(trainer, batches, log)
                keep()
            elif stop:
                keep()
            if stop:
                return
    finally:
        if settings.state:
            training_state.write(settings.state, before or training_state.collect(trainer), trainer.history)


def _check_files(settings: TrainingSettings, notice: Log) -> None:
    """Raise OptionError where an image is missing, a file could not be written, or a picture not painted.

    `notice` is told what is remarkable about the picture, once and not at each checkpoint.
    """
    if settings.task == "style" and settings.percep_loss_weight > 0:
        default = next(str(option.default) for option in ORIGINAL if option.key == "-style_image")
        examples.check("-style_image", settings.style_image, default, "-style_image {ink_wash}")
    if settings.state:
        folder = Path(settings.state).parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise OptionError(
                f"--state {settings.state}: the folder {folder} is missing or not writable; choose another"
            )
    if 0 < settings.checkpoint_every <= settings.num_iterations:
        there = next(each for each in Path(settings.checkpoint_name).absolute().parents if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise OptionError(
                f"-checkpoint_name {settings.checkpoint_name}: {there} is not a folder that can be written to; choose"
                " another name"
            )
        if settings.picture:
            image.load(settings.picture, exif_rotate=settings.exif_rotate, notice=notice)


def _what_is_kept(settings: TrainingSettings) -> str:
    if settings.state:
        return f"the training is in {settings.state}; the same command with --resume {settings.state} goes on with it"
    return "only checkpoints are kept of this training; with --state FILE it could go on"


def _progress(
    trainer: Trainer, sample: Sample, loss: float, images: int, keep: Callable[[], str]
) -> TrainingProgress:
    t, most = trainer.iteration, trainer.settings.num_iterations
    return TrainingProgress(
        iteration=t,
        iterations=most,
        losses={"loss": loss},
        work=WorkDone((), t, most),
        picture=lambda: image.to_bytes(sample.painted(trainer)),
        keep=keep,
        title=f"Learning {Path(trainer.settings.style_image).name}"
        if trainer.settings.task == "style"
        else "Learning",
        before=sample.before,
        images=images,
    )


def _validate(trainer: Trainer, batches: Batches, log: Log) -> None:
    """Find the validation loss of now."""
    history = trainer.history
    log("Running on validation set ... \t")
    loss = trainer.validate(batches)
    log(f"val loss = {loss:f}\t")
    history.val_loss_history.append(loss)
    history.val_loss_history_ts.append(trainer.iteration)


def _keep(trainer: Trainer, sample: Sample) -> str:
    """Write the checkpoint, and what goes with it; returns its name."""
    settings, history = trainer.settings, trainer.history
    saving.write_checkpoint(settings, trainer.model, history)
    if settings.picture:
        image.save(f"{settings.checkpoint_name}.png", sample.painted(trainer))
    if settings.state:
        training_state.write(settings.state, training_state.collect(trainer), history)
    return f"{settings.checkpoint_name}.t7"


def _model(settings: TrainingSettings, seed: int, log: Log) -> torch.nn.Sequential:
    """A new network, or that of -resume_from_checkpoint, whose padding and total variation are its own."""
    path = settings.resume_from_checkpoint
    if path:
        log(f"Loading checkpoint from {path}\t")
        return loading.checkpoint(path)
    log("Initializing model from scratch\t")
    return architecture.build(settings.architecture, Generator(seed))


def _criterion(settings: TrainingSettings, device: torch.device, notice: Log) -> PerceptualCriterion:
    layers = LossNetwork(loading.loss_network(settings.loss_network, notice), device)
    criterion = PerceptualCriterion(
        layers, settings.content, settings.style, style_target=settings.style_target
    )
    if settings.task == "style":
        picture = image.load_scaled(
            settings.style_image, settings.style_image_size, exif_rotate=settings.exif_rotate, notice=notice
        )
        style = torch.from_numpy(settings.preprocessing.preprocess(picture.astype(np.float32)))[None]
        criterion.set_style_target(style.to(device, memory_format=torch.channels_last))
    return criterion


class Sample:
    """The photograph that shows what a network has learnt: that of --picture, or the first of the validation set."""

    def __init__(self, settings: TrainingSettings, batches: Batches) -> None:
        self.settings, self.batches, self.preprocessing = settings, batches, settings.preprocessing
        self.x = torch.empty(0)  # (1, 3, H, W), as the network takes it

    def load(self) -> None:
        settings = self.settings
        if not settings.picture:
            self.x = self.batches.validation(0)[0][:1]
            return
        photograph = image.load_scaled(
            settings.picture, PICTURE_SIZE, enlarge=False, exif_rotate=settings.exif_rotate
        )
        self.x = torch.from_numpy(self.preprocessing.preprocess(photograph).astype(np.float32))[None]

    def before(self) -> Pixels:
        return image.to_bytes(self.preprocessing.deprocess(self.x[0].numpy()))

    @torch.no_grad()
    def painted(self, trainer: Trainer) -> NDArray[np.float32]:
        """What the network makes of it now, RGB (3, H, W) in [0,1]."""
        trainer.model.eval()
        y = trainer.model(self.x.to(trainer.device, memory_format=torch.channels_last))
        return self.preprocessing.deprocess(y[0].float().cpu().numpy())

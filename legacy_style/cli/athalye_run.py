"""A run of anishathalye/neural-style as its command prints, saves and shows it.

Ports anishathalye/neural-style d0a1148, neural_style.py. Notes: checkpoints and output hold the best image so far, not
the last; a checkpoint is named after the steps before it, but "current" names the last one after all; "2017" prints on
stderr.
"""

from __future__ import annotations

import argparse
import importlib
import io
import math
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from legacy_style.cli import process
from legacy_style.cli.athalye_options import NAME
from legacy_style.cli.watching import Show
from legacy_style.engine import checkpoint, memory
from legacy_style.engine.checkpoint import Plain
from legacy_style.engine.network import Network
from legacy_style.engine.optimise import Conditions, Losses, Progress
from legacy_style.errors import OptionError, UnsupportedError
from legacy_style.files import write_whole
from legacy_style.programs.athalye import images
from legacy_style.programs.athalye import story as athalye
from legacy_style.programs.athalye.story import AthalyeModel, AthalyeSettings, shown, to_image
from legacy_style.programs.progress import RunStep, WorkDone

# How many of the last iterations the remaining time is reckoned from.
_RECENT = 10


class AthalyeRun:
    """The optimisation as it prints and saves."""

    def __init__(self, options: argparse.Namespace, interrupts: process.Interrupts, show: Show) -> None:
        self.options, self.interrupts, self.show = options, interrupts, show
        self.current = options.flavour == "current"
        self.seconds: list[float] = []  # each iteration's
        self.began = self.last_began = time.monotonic()
        self.diverged = False

    def optimise(
        self, model: AthalyeModel, net: Network, loaded: images.AthalyeImages, settings: AthalyeSettings
    ) -> None:
        """RunStep, print and save until the last iteration, or save what there is when interrupted."""
        options, self.content, self.mean_pixel = self.options, loaded.content, model.mean_pixel
        style = Path(options.styles[0]).name
        self.show.begin(
            f"{Path(options.content).name} in the style of {style}", lambda: images.to_bytes(self.content)
        )
        if options.color_transfer:
            loaded = images.before_transfer(options.color_transfer, loaded)
        self.descent = descent = athalye.Descent(settings, options.iterations)
        saved = checkpoint.read(options.resume) if options.resume else None
        inputs = athalye.digests(net, loaded) if options.checkpoint or saved else {}
        tile = options.tile or (saved or {"options": {}})["options"].get("tile", 0)
        if saved:
            checkpoint.check_same(
                options.resume, saved, self.binding(model, settings, tile), {}, inputs, "--"
            )
        tile = memory.choose_tile(
            lambda: athalye.plan(net, loaded, descent, tile),
            tile,
            partial(process.say, NAME),
            options.resume or "",
        )
        session = athalye.capture(net, loaded, model, settings, tile=tile)
        state = checkpoint.Checkpoint(
            options.checkpoint, self.is_due, self.binding(model, settings, tile), inputs
        )
        self.run = run = session.optimisation(
            athalye.start_image(loaded.content, loaded.initial, model, settings),
            descent,
            Conditions(
                checkpoint=state if options.checkpoint else None,
                on_losses=self.print_evaluation,
                on_progress=self.report,
                may_diverge=True,
            ),
        )
        if saved:
            run.resume(options.resume, saved)
            for number, losses in enumerate(run.losses):
                self.show.remember(number, _by_name(losses))
        self.say("Optimization started...")
        if saved and run.calls:
            self.announce(run.calls - 1)
        try:
            stopped = run.run().stopped
        except KeyboardInterrupt:
            if run.evaluated is None:
                raise
            self.save_unfinished()
            run.save_checkpoint()
            raise
        if stopped:
            self.save_unfinished()
        if options.iterations <= 0 and self.current:
            raise OptionError(f"--iterations {options.iterations} makes no image; give at least 1")
        self.save_progress()
        self.show.end(f"The picture is {options.output}", lambda: images.to_bytes(self.picture()))

    def save_unfinished(self) -> None:
        """Write the best image, for which the last one that was evaluated counts too."""
        if self.run.evaluated is not None and math.isfinite(self.run.losses[-1].total):
            self.descent.count(self.run.evaluated, shown(self.run.losses[-1]).total)
        self.save(self.options.output)

    def binding(self, model: AthalyeModel, settings: AthalyeSettings, tile: int) -> dict[str, Plain]:
        """What a continuation must have the same: what counts as the best image depends on --checkpoint-iterations."""
        own = {"flavour": self.options.flavour, "checkpoint-iterations": self.options.checkpoint_iterations}
        return {**athalye.binding(settings, model, tile), **own}

    def is_due(self, evaluation: int) -> bool:
        """Whether what an evaluation looks at is a checkpoint, or the last; the first looks at the start image."""
        i, every = evaluation - 2, self.options.checkpoint_iterations
        return i >= 0 and (i == self.options.iterations - 1 or (bool(every) and i % every == 0))

    def announce(self, i: int) -> None:
        """Iteration `i`, from 0, begins."""
        self.interrupts.check()
        left = self.estimate(i) if self.current and self.seconds else ""
        self.say(f"Iteration {i + 1:4d}/{self.options.iterations:4d}{left}")
        self.last_began = time.monotonic()

    def is_printed(self, evaluation: int) -> bool:
        i, every = max(evaluation - 2, 0), self.options.print_iterations
        return i == self.options.iterations - 1 or (bool(every) and i % every == 0)

    def print_evaluation(self, evaluation: int, losses: Losses) -> None:
        """Print the losses of the start image, or of what an iteration led to."""
        if evaluation == 1 and not self.options.print_iterations:
            return
        if evaluation == 1 or self.is_printed(evaluation):
            self.print_losses(losses)

    def report(self, progress: Progress) -> bool:
        """Iteration i, from 0, has led to an image: count it, save what is due, and begin the next.

        Gives whether somebody wants the run to stop.
        """
        options, i = self.options, progress.iteration - 2
        if i >= 0:
            total = shown(progress.losses).total
            last = i == options.iterations - 1
            due, finite = self.is_due(progress.iteration), math.isfinite(total)
            if due or not finite:
                self.descent.count(progress.image(), total)
            if not finite and not self.diverged:
                process.say(
                    NAME,
                    f"the loss is not finite any more at iteration {i + 1}; the best image so far is kept",
                )
                self.diverged = True
            if options.checkpoint_output and due and (self.current or not last):
                self.save(self.checkpoint_name(i + 1 if last else i))
            if last:
                self.save(options.output)
            self.seconds.append(time.monotonic() - self.last_began)
        if self.show.follow(self.step(i + 1, progress)):
            return True
        if i + 1 < options.iterations:
            self.announce(i + 1)
        return False

    def step(self, number: int, progress: Progress) -> RunStep:
        """What there is to see after so many iterations."""

        def picture() -> images.Array:
            return self.finished(progress.image())

        def keep() -> str:
            path = Path(self.options.output)
            by_checkpoint = bool(self.options.checkpoint_output)
            name = (
                self.checkpoint_name(number)
                if by_checkpoint
                else f"{path.with_suffix('')}_{number}{path.suffix}"
            )
            images.save(name, picture())
            return name

        return RunStep(
            iteration=number,
            iterations=self.options.iterations,
            losses=_by_name(progress.losses),
            work=WorkDone((), number, self.options.iterations),
            picture=lambda: images.to_bytes(picture()),
            keep=keep,
        )

    def say(self, line: str) -> None:
        print(line, file=sys.stdout if self.current else sys.stderr, flush=True)

    def print_losses(self, losses: Losses) -> None:
        width = 13 if self.current else 15
        for kind, value in shown(losses)._asdict().items():
            self.say(f"{kind + ' loss:':>{width}s} {value:g}")

    def estimate(self, i: int) -> str:
        recent = self.seconds[-_RECENT:]
        left = sum(recent) / len(recent) * (self.options.iterations - i)
        return f" ({duration(time.monotonic() - self.began)} elapsed, {duration(left)} remaining)"

    def save(self, path: str) -> None:
        images.save(path, self.picture())
        self.interrupts.saved = path

    def picture(self) -> images.Array:
        """The best image; where none has counted yet, the one that there is."""
        return self.finished(self.run.image() if self.descent.best is None else self.descent.best)

    def finished(self, image: Tensor) -> images.Array:
        """An image (1, 3, H, W) as it is saved, (H, W, 3) of 0..255, not cut off."""
        picture = to_image(image, self.mean_pixel)
        if self.options.preserve_colors:
            picture = images.preserve_colors(self.content, picture)
        if self.options.color_transfer:
            picture = images.after_transfer(self.options.color_transfer, self.content, picture)
        return picture

    def checkpoint_name(self, number: int) -> str:
        """--checkpoint-output with the number in it: in braces, or else behind a percent sign."""
        pattern: str = self.options.checkpoint_output
        braces = self.current and re.search(r"\{.*\}", pattern)
        try:
            return pattern.format(number) if braces else pattern % number
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            raise OptionError(
                f"--checkpoint-output {pattern!r} cannot be filled in ({error}); it should have one place for"
                " a number, such as out_%d.jpg"
            ) from error

    def save_progress(self) -> None:
        """Write what --progress-write and --progress-plot ask for."""
        last = self.options.iterations
        rows = np.array(
            [
                (steps if steps == last else steps - 1, *shown(losses))
                for steps, losses in enumerate(self.run.losses)
                if steps and self.is_printed(steps + 1)
            ]
        )
        if not len(rows) or not self.current:
            return
        folder = Path(self.options.output).resolve().parent
        kinds = ("content", "style", "tv", "total")
        if self.options.progress_write:
            text = io.BytesIO()
            np.savetxt(text, rows, header=" ".join(("itr", *kinds)))
            write_whole(folder / "progress.txt", text.getvalue())
        if self.options.progress_plot:
            _plot(folder / "progress.png", rows, kinds)


def _by_name(losses: Losses) -> dict[str, float]:
    """The losses as they are printed, the total first."""
    printed = shown(losses)._asdict()
    return {"total": printed.pop("total"), **printed}


def _plot(path: Path, rows: images.Array, kinds: Sequence[str]) -> None:
    try:
        figure_module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise UnsupportedError(
            "--progress-plot needs matplotlib: pip install matplotlib; all but the plot is saved"
        ) from error
    figure = figure_module.Figure()
    axes = figure.subplots()
    for column, kind in enumerate(kinds, 1):
        axes.semilogy(rows[:, 0], rows[:, column], label=kind)
    axes.legend()
    axes.set_xlabel("iterations")
    axes.set_ylabel("loss")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_whole(path, drawn.getvalue())


def duration(seconds: float) -> str:
    """A time as the original prints it: its two largest units, but seconds only below an hour."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} hr {minutes} min"
    return f"{minutes} min {whole % 60} sec" if minutes else f"{whole % 60} sec"

"""The command line of anishathalye/neural-style: its checks, streams, files and exit statuses.

Ports anishathalye/neural-style d0a1148, neural_style.py; `--flavour 2017` is
TONYCHANBB/Chinese_painting-style 0755ae8. Notes: "current" writes a black image to --output before it
begins, which stays where a run fails later; checkpoints and output hold the best image so far, not the last;
a checkpoint is named after the steps before it, but "current" names the last one after all; "2017" prints on
stderr, and overwrites silently.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import math
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from legacy_style.cli import process
from legacy_style.cli.athalye_options import NETWORK, parse
from legacy_style.engine import colors
from legacy_style.errors import OptionError, UnsupportedError
from legacy_style.files import write_whole
from legacy_style.programs.athalye import images

if TYPE_CHECKING:
    from legacy_style.engine.checkpoint import Plain
    from legacy_style.engine.network import Network
    from legacy_style.engine.optimise import Losses, Progress
    from legacy_style.programs.athalye.story import AthalyeModel, AthalyeSettings

NAME = "neural-style-athalye"

# How many of the last iterations the remaining time is reckoned from.
_RECENT = 10


def main(words: Sequence[str] | None = None) -> int:
    """Run the program with `words`, or the process's own; returns the exit status."""
    return process.run_argparse(
        _program, words, NAME, output="--output", memory_advice="choose a smaller --width"
    )


def _program(words: Sequence[str], interrupts: process.Interrupts) -> int:
    """Everything in the original's order, since each check finds the files as the earlier ones left them."""
    parser, options = parse(words)
    current = options.flavour == "current"
    if options.preserve_colors and options.color_transfer in colors.RECOLOR:
        parser.error(
            f"--preserve-colors and --color-transfer {options.color_transfer} both colour the result; give one"
        )
    path = _network(parser, options)
    if current:
        _check_checkpoints(parser, options)
    if getattr(options, "progress_plot", False) and importlib.util.find_spec("matplotlib") is None:
        process.say(
            NAME, "matplotlib is not installed, so there will be no plot, and the exit status will be 1"
        )
    loaded = images.load_images(
        options.content,
        options.styles,
        options.initial,
        width=options.width,
        style_scales=options.style_scales,
        flavour=options.flavour,
        exif_rotate=options.exif_rotate,
        notice=partial(process.say, NAME),
    )
    if not current and options.checkpoint_output and "%s" not in options.checkpoint_output:
        parser.error("--checkpoint-output must contain %s, such as out_%s.jpg")

    from legacy_style.engine import checkpoint, machine
    from legacy_style.programs import devices
    from legacy_style.programs.athalye import story as athalye

    interrupts.check()
    machine.keep_freed_memory()
    settings = _settings(options)
    athalye.blend_weights(settings, len(options.styles))
    if not options.print_plan:
        if options.checkpoint:
            checkpoint.check_can_write(options.checkpoint)
        _claim(options)
    for name, image in zip((options.content, *options.styles), (loaded.content, *loaded.styles), strict=True):
        images.check_channels(name, image)
    model = athalye.load_model(path, options.matconvnet_orientation)
    net = athalye.build_network(model, settings, devices.default())
    if options.print_plan:
        print(athalye.plan(net, loaded, athalye.Descent(settings, options.iterations), options.tile))
        return 0
    _Run(options, interrupts).optimise(model, net, loaded, settings)
    return 0


def _network(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    path: str = NETWORK if options.network is None else options.network
    if Path(path).is_file():
        return path
    if options.network is not None:
        parser.error(f"the network {path} does not exist; download it, or name another with --network")
    from legacy_style.formats import model_files

    bundled = str(model_files.bundled())
    process.say(NAME, f"no {NETWORK} here: using the bundled VGG-16 instead (--network names another)")
    return bundled


def _check_checkpoints(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    name, every = options.checkpoint_output, options.checkpoint_iterations
    if (name is None) != (every is None):
        parser.error("--checkpoint-output and --checkpoint-iterations belong together: give both or neither")
    if name is not None and not re.search(r"\{.*\}|%", name):
        parser.error("--checkpoint-output must have a place for the number, such as out_{}.jpg or out_%d.jpg")


def _settings(options: argparse.Namespace) -> AthalyeSettings:
    from legacy_style.programs.athalye.story import AthalyeSettings

    return AthalyeSettings(**{name: getattr(options, name) for name in AthalyeSettings.__dataclass_fields__})


def _claim(options: argparse.Namespace) -> None:
    """Make sure that the output can be written; "current" does so by writing a black image."""
    if options.flavour == "2017":
        images.check_can_save(options.output)
        return
    if Path(options.output).is_file() and not options.overwrite:
        raise OptionError(
            f"{options.output} exists already; give --overwrite to replace it, or another --output"
        )
    images.save(options.output, np.zeros((500, 500, 3)))


class _Run:
    """The optimisation as it prints and saves."""

    def __init__(self, options: argparse.Namespace, interrupts: process.Interrupts) -> None:
        self.options, self.interrupts = options, interrupts
        self.current = options.flavour == "current"
        self.seconds: list[float] = []  # each iteration's
        self.began = self.last_began = time.monotonic()
        self.diverged = False

    def optimise(
        self, model: AthalyeModel, net: Network, loaded: images.AthalyeImages, settings: AthalyeSettings
    ) -> None:
        """Step, print and save until the last iteration, or save what there is when interrupted."""
        from legacy_style.engine import checkpoint, memory
        from legacy_style.engine.optimise import Conditions
        from legacy_style.programs.athalye import story as athalye

        options, self.content, self.mean_pixel = self.options, loaded.content, model.mean_pixel
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
        self.say("Optimization started...")
        if saved and run.calls:
            self.announce(run.calls - 1)
        try:
            run.run()
        except KeyboardInterrupt:
            if run.evaluated is None:
                raise
            if math.isfinite(run.losses[-1].total):
                descent.count(run.evaluated, athalye.shown(run.losses[-1]).total)
            self.save(options.output)
            run.save_checkpoint()
            raise
        if options.iterations <= 0 and self.current:
            raise OptionError(f"--iterations {options.iterations} makes no image; give at least 1")
        self.save_progress()

    def binding(self, model: AthalyeModel, settings: AthalyeSettings, tile: int) -> dict[str, Plain]:
        """What a continuation must have the same: what counts as the best image depends on --checkpoint-iterations."""
        from legacy_style.programs.athalye import story as athalye

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

    def report(self, progress: Progress) -> None:
        """Iteration i, from 0, has led to an image: count it, save what is due, and begin the next."""
        from legacy_style.programs.athalye.story import shown

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
        if i + 1 < options.iterations:
            self.announce(i + 1)

    def say(self, line: str) -> None:
        print(line, file=sys.stdout if self.current else sys.stderr, flush=True)

    def print_losses(self, losses: Losses) -> None:
        from legacy_style.programs.athalye.story import shown

        width = 13 if self.current else 15
        for kind, value in shown(losses)._asdict().items():
            self.say(f"{kind + ' loss:':>{width}s} {value:g}")

    def estimate(self, i: int) -> str:
        recent = self.seconds[-_RECENT:]
        left = sum(recent) / len(recent) * (self.options.iterations - i)
        return f" ({duration(time.monotonic() - self.began)} elapsed, {duration(left)} remaining)"

    def save(self, path: str) -> None:
        """Write the best image; where none has counted yet, the one that there is."""
        from legacy_style.programs.athalye.story import to_image

        best = self.run.image() if self.descent.best is None else self.descent.best
        picture = to_image(best, self.mean_pixel)
        if self.options.preserve_colors:
            picture = images.preserve_colors(self.content, picture)
        if self.options.color_transfer:
            picture = images.after_transfer(self.options.color_transfer, self.content, picture)
        images.save(path, picture)
        self.interrupts.saved = path

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
        from legacy_style.programs.athalye.story import shown

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

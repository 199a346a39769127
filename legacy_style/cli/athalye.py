"""The command line of anishathalye/neural-style: its checks, streams, files and exit statuses.

Ports anishathalye/neural-style d0a1148, neural_style.py; `--flavour 2017` is
TONYCHANBB/Chinese_painting-style 0755ae8. Notes: "current" writes a black image to --output before it
begins, which stays where a run fails later; "2017" overwrites silently.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from legacy_style.cli import process
from legacy_style.cli.athalye_options import NAME, NETWORK, parse
from legacy_style.cli.watching import shown
from legacy_style.engine import colors
from legacy_style.errors import OptionError
from legacy_style.programs.athalye import images

if TYPE_CHECKING:
    from legacy_style.programs.athalye.story import AthalyeSettings


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

    from legacy_style.cli.athalye_run import AthalyeRun
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
    with shown(options.watch, options.plot, interrupts, partial(process.say, NAME)) as show:
        AthalyeRun(options, interrupts, show).optimise(model, net, loaded, settings)
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

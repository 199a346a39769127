"""The options of slow_neural_style.lua, in its order, and ours; read once into `SlowSettings`.

Ports jcjohnson/fast-neural-style 813c834, slow_neural_style.lua. Options of the original have one dash; ours have
two, which the original rejects. Notes: no option is boolean; the original has no seed, so none of its runs could be
repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from legacy_style.errors import OptionError
from legacy_style.programs import common_options
from legacy_style.programs.fast_neural_style import preprocess
from legacy_style.programs.fast_neural_style.train_options import (
    parse_layers,
    parse_preprocessing,
    parse_style_target,
)
from legacy_style.programs.fast_neural_style.values import Distance, Layers, StyleTarget
from legacy_style.torch7 import cmdline, descent
from legacy_style.torch7.cmdline import Option, Value

ORIGINAL = (
    Option("-content_image", "images/content/chicago.jpg"),
    Option("-style_image", "images/styles/starry_night.jpg"),
    Option("-image_size", 512.0),
    Option("-loss_network", "models/vgg16.t7"),
    Option("-tv_strength", 1e-6),
    Option("-loss_type", "L2", "L2|SmoothL1"),
    Option("-style_target_type", "gram", "gram|mean"),
    Option("-content_weights", "1.0"),
    Option("-content_layers", "16"),
    Option("-style_weights", "5.0"),
    Option("-style_layers", "4,9,16,23"),
    Option("-style_image_size", 512.0),
    Option("-deepdream_layers", ""),
    Option("-deepdream_weights", ""),
    Option("-learning_rate", 1.0),
    Option("-optimizer", "lbfgs"),
    Option("-num_iterations", 500.0),
    Option("-output_image", "out.png"),
    Option("-print_every", 1.0),
    Option("-save_every", 50.0),
    Option("-preprocessing", "vgg"),
    Option("-gpu", -1.0),
    Option("-backend", "cuda"),
    Option("-use_cudnn", 1.0),
)

EXTENSIONS = (
    common_options.VERSION,
    common_options.PRINT_OPTIONS,
    common_options.WATCH,
    common_options.PLOT,
    Option("--seed", -1.0, "Seed of the start image; -1: another one each time"),
    Option("--exif-rotate", False, "Turn photographs upright, as their EXIF orientation says"),
)

OPTIMIZERS = ("lbfgs", *descent.NAMES)


@dataclass(frozen=True)
class SlowSettings:
    """What a run is made from, checked; `device`: the number of a GPU, None for the CPU; `seed` None: not chosen."""

    content_image: str
    style_image: str
    image_size: float
    style_image_size: float
    loss_network: str
    preprocessing: preprocess.Preprocessing
    tv_strength: float
    loss_type: Distance
    style_target: StyleTarget
    content: Layers
    style: Layers
    dream: Layers
    optimizer: str
    learning_rate: float
    num_iterations: float
    output_image: str
    print_every: float
    save_every: float
    device: int | None
    seed: int | None
    exif_rotate: bool
    watch: int | None
    plot: str


def parse(words: Sequence[str]) -> tuple[dict[str, Value], str] | None:
    """All options by name, and what to do, as `cmdline.parse_all` gives them; None where help is asked for."""
    return cmdline.parse_all(ORIGINAL, EXTENSIONS, words)


def settings(options: Mapping[str, Value]) -> SlowSettings:
    """Check the options that `parse` gives. Raises OptionError for all that can be known before anything is loaded."""
    text = {name: value for name, value in options.items() if isinstance(value, str)}
    number = {name: value for name, value in options.items() if isinstance(value, float)}
    if text["loss_type"] not in ("L2", "SmoothL1"):
        raise OptionError(f'Invalid loss_type "{text["loss_type"]}"; give L2 or SmoothL1')
    if text["optimizer"] not in OPTIMIZERS:
        raise OptionError(f'Invalid optimizer "{text["optimizer"]}"; give one of {", ".join(OPTIMIZERS)}')
    return SlowSettings(
        content_image=text["content_image"],
        style_image=text["style_image"],
        image_size=number["image_size"],
        style_image_size=number["style_image_size"],
        loss_network=text["loss_network"],
        preprocessing=parse_preprocessing(text["preprocessing"]),
        tv_strength=number["tv_strength"],
        loss_type="L2" if text["loss_type"] == "L2" else "SmoothL1",
        style_target=parse_style_target(text["style_target_type"]),
        content=parse_layers(text["content_layers"], text["content_weights"]),
        style=parse_layers(text["style_layers"], text["style_weights"]),
        dream=parse_layers(text["deepdream_layers"], text["deepdream_weights"]),
        optimizer=text["optimizer"],
        learning_rate=number["learning_rate"],
        num_iterations=number["num_iterations"],
        output_image=text["output_image"],
        print_every=number["print_every"],
        save_every=number["save_every"],
        device=cmdline.whole("-gpu", number["gpu"], 0) if number["gpu"] >= 0 else None,
        seed=cmdline.whole("--seed", number["seed"], 0) if number["seed"] != -1 else None,
        exif_rotate=options["exif_rotate"] is True,
        watch=common_options.port(options["watch"]),
        plot=text["plot"],
    )

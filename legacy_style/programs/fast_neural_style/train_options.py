"""The options of train.lua, in its order, and ours; read once into `TrainingSettings`.

Ports jcjohnson/fast-neural-style 813c834, train.lua and utils.lua (parse_layers, parse_num_list). Options of the
original have one dash. Ours have two (`--name`), which the original rejects, so no old command line changes its
meaning.

Notes: no option is boolean; `-weight_decay` is read and never used, as in the original; a number in a list of weights
that is no number vanishes, as in the original; an unknown `-pixel_loss_type` means no pixel loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from legacy_style.errors import OptionError, UnsupportedError
from legacy_style.programs import common_options
from legacy_style.programs.fast_neural_style import preprocess
from legacy_style.programs.fast_neural_style.values import Architecture, Crops, Distance, Layers, StyleTarget
from legacy_style.torch7 import cmdline
from legacy_style.torch7.cmdline import Option, Value, split_list, tonumber

ORIGINAL = (
    Option("-arch", Architecture.arch),
    Option("-use_instance_norm", 1.0),
    Option("-task", "style", "style|upsample"),
    Option("-h5_file", "data/ms-coco-256.h5"),
    Option("-padding_type", Architecture.padding_type),
    Option("-tanh_constant", Architecture.tanh_constant),
    Option("-preprocessing", "vgg"),
    Option("-resume_from_checkpoint", ""),
    Option("-pixel_loss_type", "L2", "L2|L1|SmoothL1"),
    Option("-pixel_loss_weight", 0.0),
    Option("-percep_loss_weight", 1.0),
    Option("-tv_strength", Architecture.tv_strength),
    Option("-content_weights", "1.0"),
    Option("-content_layers", "16"),
    Option("-loss_network", "models/vgg16.t7"),
    Option("-style_image", "images/styles/candy.jpg"),
    Option("-style_image_size", 256.0),
    Option("-style_weights", "5.0"),
    Option("-style_layers", "4,9,16,23"),
    Option("-style_target_type", "gram", "gram|mean"),
    Option("-upsample_factor", 4.0),
    Option("-num_iterations", 40000.0),
    Option("-max_train", -1.0),
    Option("-batch_size", 4.0),
    Option("-learning_rate", 1e-3),
    Option("-lr_decay_every", -1.0),
    Option("-lr_decay_factor", 0.5),
    Option("-weight_decay", 0.0),
    Option("-checkpoint_name", "checkpoint"),
    Option("-checkpoint_every", 1000.0),
    Option("-num_val_batches", 10.0),
    Option("-gpu", 0.0),
    Option("-use_cudnn", 1.0),
    Option("-backend", "cuda"),
)

EXTENSIONS = (
    common_options.VERSION,
    common_options.PRINT_OPTIONS,
    common_options.NO_PROGRESS,
    common_options.WATCH,
    common_options.PLOT,
    Option("--image-dir", "", "Folder of photographs to train on, instead of -h5_file"),
    Option("--crop", 256.0, "Side of the squares that are cut out of them"),
    Option("--scales", "1,2.5", "Least and greatest shorter side of a photograph, in crops, before cutting"),
    Option("--exif-rotate", False, "Turn the style image and --picture upright; --image-dir's always are"),
    Option("--picture", "", "Photograph that is painted beside each checkpoint, as NAME.png"),
    Option("--seed", -1.0, "Seed of the first weights and of the crops; -1: another one each time"),
    Option("--state", "", "File that keeps all of the training at each checkpoint, at the end and on Ctrl-C"),
    Option("--resume", "", "File of --state to go on from"),
    Option("--precision", "float32", "float32|bfloat16, that of the layers; weights stay in float32"),
)

MAY_CHANGE = frozenset(
    (
        "num_iterations",
        "checkpoint_name",
        "checkpoint_every",
        "num_val_batches",
        "state",
        "resume",
        "picture",
        "gpu",
        "no_progress",
        "watch",
        "plot",
    )
)
"""Options that may be another's when a training is resumed: they change what is written or shown, and when."""


@dataclass(frozen=True)
class TrainingSettings:
    """What a training is made from, checked; see the options of the same names.

    `device`: the number of a GPU, None for the CPU; `pixel_loss`: None for none; `h5_file` is empty where photographs
    are trained on; `seed` None: not chosen.
    """

    options: Mapping[str, Value]
    architecture: Architecture
    task: str
    h5_file: str
    image_dir: str
    crops: Crops
    preprocessing: preprocess.Preprocessing
    resume_from_checkpoint: str
    pixel_loss: Distance | None
    pixel_loss_weight: float
    percep_loss_weight: float
    content: Layers
    style: Layers
    style_target: StyleTarget
    loss_network: str
    style_image: str
    style_image_size: float
    exif_rotate: bool
    upsample_factor: float
    num_iterations: float
    max_train: float
    batch_size: int
    learning_rate: float
    lr_decay_every: float
    lr_decay_factor: float
    checkpoint_name: str
    checkpoint_every: float
    num_val_batches: float
    device: int | None
    picture: str
    seed: int | None
    state: str
    resume: str
    precision: str
    watch: int | None
    plot: str


def parse(words: Sequence[str]) -> tuple[dict[str, Value], str] | None:
    """All options by name, and what to do, as `cmdline.parse_all` gives them; None where help is asked for."""
    return cmdline.parse_all(ORIGINAL, EXTENSIONS, words)


def settings(options: Mapping[str, Value]) -> TrainingSettings:
    """Check the options that `parse` gives. Raises OptionError for all that can be known before anything is loaded."""
    text = {name: value for name, value in options.items() if isinstance(value, str)}
    number = {name: value for name, value in options.items() if isinstance(value, float)}
    content = parse_layers(text["content_layers"], text["content_weights"])
    style = parse_layers(text["style_layers"], text["style_weights"])
    if text["task"] not in ("style", "upsample"):
        raise OptionError(f"-task {text['task']}: there is no such task; give style or upsample")
    if text["task"] == "upsample" and text["image_dir"]:
        raise OptionError(
            "--image-dir serves -task style; give the pairs of images for -task upsample as -h5_file"
        )
    if text["precision"] not in ("float32", "bfloat16"):
        raise OptionError(f"--precision takes float32 or bfloat16, not {text['precision']!r}.")
    pixels = _pixel_loss(text["pixel_loss_type"], number["pixel_loss_weight"])
    if pixels is None and not number["percep_loss_weight"] > 0:
        raise OptionError(
            "there is no loss to train with: -pixel_loss_weight and -percep_loss_weight are both 0; raise one of them"
        )
    validates = 0 < number["checkpoint_every"] <= number["num_iterations"]
    if validates and not 1 <= number["num_val_batches"] < math.inf:
        raise OptionError(
            f"-num_val_batches {number['num_val_batches']:.14g}: a checkpoint needs the loss of a validation batch;"
            " give 1 or more, or -checkpoint_every 0 for no checkpoints"
        )
    return TrainingSettings(
        options=options,
        architecture=Architecture(
            text["arch"],
            text["padding_type"],
            number["use_instance_norm"] == 1,
            number["tanh_constant"],
            number["tv_strength"],
        ),
        task=text["task"],
        h5_file="" if text["image_dir"] else text["h5_file"],
        image_dir=text["image_dir"],
        crops=_crops(number["crop"], text["scales"]),
        preprocessing=parse_preprocessing(text["preprocessing"]),
        resume_from_checkpoint=text["resume_from_checkpoint"],
        pixel_loss=pixels,
        pixel_loss_weight=number["pixel_loss_weight"],
        percep_loss_weight=number["percep_loss_weight"],
        content=content,
        style=style,
        style_target=parse_style_target(text["style_target_type"]),
        loss_network=text["loss_network"],
        style_image=text["style_image"],
        style_image_size=number["style_image_size"],
        exif_rotate=options["exif_rotate"] is True,
        upsample_factor=number["upsample_factor"],
        num_iterations=number["num_iterations"],
        max_train=number["max_train"],
        batch_size=cmdline.whole("-batch_size", number["batch_size"], 1),
        learning_rate=number["learning_rate"],
        lr_decay_every=number["lr_decay_every"],
        lr_decay_factor=number["lr_decay_factor"],
        checkpoint_name=text["checkpoint_name"],
        checkpoint_every=number["checkpoint_every"],
        num_val_batches=number["num_val_batches"],
        device=cmdline.whole("-gpu", number["gpu"], 0) if number["gpu"] >= 0 else None,
        picture=text["picture"],
        seed=cmdline.whole("--seed", number["seed"], 0) if number["seed"] != -1 else None,
        state=text["state"],
        resume=text["resume"],
        precision=text["precision"],
        watch=common_options.port(options["watch"]),
        plot=text["plot"],
    )


def parse_layers(layers: str, weights: str) -> Layers:
    """`4,9` and `1,2`, or one weight for all, as named weights (utils.lua, parse_layers).

    Raises OptionError where there are not as many of the one as of the other.
    """
    names = split_list(layers)
    numbers = [number for part in split_list(weights) if (number := tonumber(part)) is not None]
    if len(numbers) == 1 and len(names) > 1:
        numbers *= len(names)
    if len(numbers) != len(names):
        raise OptionError(
            f'size mismatch between layers "{layers}" and weights "{weights}"; give one weight for each layer, or one'
            " for all"
        )
    return Layers(dict(zip(names, numbers, strict=True)))


def parse_style_target(text: str) -> StyleTarget:
    """-style_target_type; raises OptionError for any other."""
    if text not in ("gram", "mean"):
        raise OptionError(f"-style_target_type {text}: there is no such target; give gram or mean")
    return "gram" if text == "gram" else "mean"


def parse_preprocessing(text: str) -> preprocess.Preprocessing:
    """-preprocessing; raises OptionError for any other."""
    try:
        return preprocess.by_name(text)
    except UnsupportedError as error:
        raise OptionError(str(error)) from error


def _pixel_loss(kind: str, weight: float) -> Distance | None:
    """None where there is none, as the original has it for a kind that it does not know."""
    known: dict[str, Distance] = {"L2": "L2", "L1": "L1", "SmoothL1": "SmoothL1"}
    return known.get(kind) if weight > 0 else None


def _crops(size: float, scales: str) -> Crops:
    numbers = [tonumber(part) for part in split_list(scales)]
    if len(numbers) != 2 or None in numbers:
        raise OptionError(f"--scales takes two numbers such as 1,2.5, not {scales!r}.")
    smallest, largest = (number or 0.0 for number in numbers)
    if not 1 <= smallest <= largest < math.inf:
        raise OptionError(f"--scales takes the smaller number first, and both at least 1, not {scales!r}.")
    return Crops(cmdline.whole("--crop", size, 1), smallest, largest)

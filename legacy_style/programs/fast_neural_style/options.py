"""The options of fast_neural_style.lua, in its order, and ours; read once into `FastSettings`.

Ports jcjohnson/fast-neural-style 813c834. Options of the original have one dash. Ours have two (`--name`), which the
original rejects, so no old command line changes its meaning. Notes: no option is boolean, and `-gpu` is a number here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from legacy_style.errors import OptionError
from legacy_style.programs import common_options
from legacy_style.torch7 import cmdline, image, image_files
from legacy_style.torch7.cmdline import Option, Value

ORIGINAL = (
    Option("-model", "models/instance_norm/candy.t7"),
    Option("-image_size", 768.0),
    Option("-median_filter", 3.0),
    Option("-timing", 0.0),
    Option("-input_image", "images/content/chicago.jpg"),
    Option("-output_image", "out.png"),
    Option("-input_dir", ""),
    Option("-output_dir", ""),
    Option("-gpu", -1.0),
    Option("-backend", "cuda"),
    Option("-use_cudnn", 1.0),
    Option("-cudnn_benchmark", 0.0),
)

EXTENSIONS = (
    common_options.VERSION,
    common_options.PRINT_OPTIONS,
    Option("--list-layers", False, "Print the layers of the model, then exit"),
    Option("--max-pixels", float(image_files.DEFAULT_MAX_PIXELS), "Refuse input images with more pixels"),
    Option("--exif-rotate", False, "Turn photographs upright, as their EXIF orientation says"),
)

HELP = (
    ("-model", "checkpoint of a trained network, a .t7 file"),
    ("-image_size", "longer side that an image is scaled to; 0 leaves its size"),
    ("-median_filter", "side of the median filter over the result, which it shrinks by one less; 0: none"),
    ("-timing", "1: print how long the network takes for each image"),
    ("-input_image", "the image to paint"),
    ("-output_image", "its result: .png, .jpg or .ppm; folders are made"),
    ("-input_dir", "a folder whose images are all painted, in the order of their names"),
    ("-output_dir", "the folder of their results, under the same names"),
    ("-gpu", "a GPU, from 0; -1: the CPU"),
    ("-backend", "cuda; opencl is taken and not served"),
    ("-use_cudnn", "taken and not needed"),
    ("-cudnn_benchmark", "1: let cuDNN time its algorithms"),
)
"""What the options mean; the original's usage has no such text."""

OTHER_VERSIONS: Mapping[str, str] = {
    "-content_image": "use -input_image",
    "-style_image": "a model has one style, that of its training; th neural_style.lua takes any style image",
    "-num_iterations": "a trained network needs none; leave it out",
    "-cudnn_autotune": "use -cudnn_benchmark 1",
}
"""Options of other programs: what to use instead."""


@dataclass(frozen=True)
class FastSettings:
    """What a run is made from, checked.

    `image_size`: the longer side, 0 for an image's own; `median`: side of the filter, 0 for none; `gpu`: number of the
    GPU, None for the CPU; `folder`: whether `source` and `target` are folders.
    """

    model: str
    source: str
    target: str
    folder: bool
    image_size: float
    median: int
    timing: bool
    gpu: int | None
    backend: str
    autotune: bool
    max_pixels: int
    exif_rotate: bool


def parse(words: Sequence[str]) -> tuple[dict[str, Value], str] | None:
    """All options by name, without dashes, and what to do: `run`, or one of ours; None where help is asked for.

    Raises UsageError with the original's message.
    """
    return cmdline.parse_all(ORIGINAL, EXTENSIONS, words)


def settings(options: Mapping[str, Value]) -> FastSettings:
    """Check the options that `parse` gives. Raises OptionError for all that can be known before anything is loaded."""
    text = {name: value for name, value in options.items() if isinstance(value, str)}
    number = {name: value for name, value in options.items() if isinstance(value, float)}
    folder = text["input_dir"] != ""
    if not folder and not text["input_image"]:
        raise OptionError("Must give exactly one of -input_image or -input_dir")
    if folder and not text["output_dir"]:
        raise OptionError("Must give -output_dir with -input_dir")
    if not folder and not text["output_image"]:
        raise OptionError("Must give -output_image with -input_image")
    if not folder:
        image.check_name(text["output_image"])
    if number["image_size"] == math.inf:
        raise OptionError("-image_size inf: give a number of pixels, for example -image_size 512")
    return FastSettings(
        model=text["model"],
        source=text["input_dir"] if folder else text["input_image"],
        target=text["output_dir"] if folder else text["output_image"],
        folder=folder,
        # Not max(): a comparison with nan is false, as in Lua.
        image_size=number["image_size"] if number["image_size"] > 0 else 0,
        median=_median(number["median_filter"]),
        timing=number["timing"] == 1,
        gpu=_gpu(number["gpu"]),
        backend=text["backend"],
        autotune=number["cudnn_benchmark"] == 1,
        max_pixels=cmdline.whole("--max-pixels", number["max_pixels"], 1),
        exif_rotate=options["exif_rotate"] is True,
    )


def advice(word: str) -> str | None:
    """What to use instead of an option that another program has; None where none is known."""
    return f"{word} is not an option here: {OTHER_VERSIONS[word]}." if word in OTHER_VERSIONS else None


def _median(r: float) -> int:
    if not r > 0:
        return 0
    if r == math.inf or r != int(r):
        raise OptionError(f"-median_filter {r:.14g}: give a whole number of pixels, or 0 for no filter")
    return int(r)


def _gpu(gpu: float) -> int | None:
    if not gpu >= 0:
        return None
    if gpu == math.inf:
        raise OptionError("-gpu inf: give the number of a GPU, from 0, or -1 for the CPU")
    return int(gpu)

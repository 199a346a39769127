"""The options of neural_style.lua as typed settings: lists split, numbers checked, files named.

`read` is the one place that knows option strings. It raises every error that can be known before anything is loaded.
Notes: a list element that is empty at the end counts for nothing, as in the original; which number of GPU, file of
--checkpoint and file of --resume a process has among several is settled here too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch

from legacy_style.engine import checkpoint
from legacy_style.engine.checkpoint import Plain
from legacy_style.engine.colors import RECOLOR, TRANSFERS
from legacy_style.engine.processes.group import Ranks
from legacy_style.errors import OptionError
from legacy_style.formats import model_files
from legacy_style.programs.neural_style import region_maps, stages
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.region_maps import Color
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7.cmdline import split_list, tonumber

_CORRECTION = 100
"""Pairs (s, y) that optim.lbfgs keeps where -lbfgs_num_correction is 0."""

# These may differ between a run and its continuation: they change what is written and when, never the picture; or they
# name files, of which there are digests.
_FREE = {
    *("print_iter", "save_iter", "output_image", "checkpoint", "resume", "metadata", "max_pixels"),
    *("content_image", "style_image", "init_image", "model_file", "proto_file", "num_iterations"),
    *("content_regions", "style_regions", "content_region_weights", "mask", "mask_feather"),
}


@dataclass(frozen=True)
class Settings:
    """What a run is made from. Numbers that Lua kept as doubles are floats; names of files are as they were given.

    `blend_weights`: one per style image, of sum 1. `style_size`: the longer side of style images, in pixels.
    `style_regions`: for each style image its map, the colour of its one region, or None; empty where none were given.
    `feather`: in pixels.
    `model_named`: the model that was asked for, `model_file`: the one that is read. `gpus`: counted from 0, none for
    the CPU; `splits`: the modules after which they split the network, None for the original's choice. `tile`: the side
    that was asked for, 0 where the plan decides. `binding`: the options that a continuation must have the same, by
    name, without the tile. `last_stage`: how many stages there are, where this is the last of several.
    """

    content_image: str
    style_images: tuple[str, ...]
    blend_weights: tuple[float, ...]
    image_size: float
    style_size: int
    init: Literal["random", "image"]
    init_image: str
    original_colors: bool
    color_transfer: str
    max_pixels: int
    exif_rotate: bool

    content_regions: str
    style_regions: tuple[str | Color | None, ...]
    region_weights: Mapping[Color, float]
    mask: str
    feather: float

    model_named: str
    model_file: str
    orientation: str
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    content_weight: float
    style_weight: float
    tv_weight: float
    pooling: str
    normalize: bool

    optimizer: Literal["lbfgs", "adam"]
    num_iterations: float
    learning_rate: float
    correction: int
    seed: float
    precision: str

    gpus: tuple[int, ...]
    splits: tuple[int, ...] | None
    autotune: bool
    tile: int

    output_image: str
    print_iter: float
    save_iter: float
    checkpoint: str
    resume: str
    metadata: bool
    binding: Mapping[str, Plain]
    last_stage: int = 0

    @property
    def inputs(self) -> list[str]:
        """The images that decide on the result."""
        init = [self.init_image] if self.init == "image" and self.init_image else []
        return [self.content_image, *self.style_images, *init]

    @property
    def is_guided(self) -> bool:
        """Whether the losses look at regions."""
        return bool(self.content_regions or self.mask)

    @property
    def keeps_content(self) -> bool:
        """Whether the result takes something from the content image at the end."""
        return self.original_colors or self.color_transfer in RECOLOR or bool(self.mask)

    @property
    def is_whole(self) -> bool:
        """Whether the last iteration comes, so that its image is written."""
        return self.num_iterations >= 1 and self.num_iterations % 1 == 0

    def intermediate(self, iteration: int) -> str:
        """The name of the image of an iteration before the last."""
        staged = stages.name(self.output_image, self.last_stage) if self.last_stage else self.output_image
        return build_filename(staged, iteration)


def read(options: Options, ranks: Ranks | None = None, *, save: bool = True) -> Settings:
    """The settings of this process of `ranks`; with `save`, what is to be written is checked too.

    Raises OptionError for what would fail later, after work that would be lost.
    """
    ranks = ranks or Ranks()
    gpu = _own_gpu(options, ranks)
    gpus = _gpus(gpu)
    if not math.isfinite(options.image_size * options.style_scale):
        raise OptionError("-image_size and -style_scale must be finite numbers, for example -image_size 512")
    styles = tuple(split_list(options.style_image))
    if not styles or "" in styles:
        raise OptionError(
            f"-style_image {options.style_image!r} has an empty element; give file names with commas between"
        )
    for name in ("style_regions", "content_region_weights"):
        if getattr(options, name) and not options.content_regions:
            raise OptionError(
                f"--{name.replace('_', '-')} needs the regions of the content: give --content-regions too"
            )
    settings = Settings(
        content_image=options.content_image,
        style_images=styles,
        blend_weights=blend_weights(options.style_blend_weights, len(styles)),
        image_size=options.image_size,
        style_size=math.ceil(options.style_scale * options.image_size),
        init=_init(options.init),
        init_image=options.init_image,
        original_colors=options.original_colors == 1,
        color_transfer=_color_transfer(options),
        max_pixels=options.max_pixels,
        exif_rotate=options.exif_rotate,
        content_regions=options.content_regions,
        style_regions=region_maps.parse_styles(options.style_regions, len(styles)),
        region_weights=region_maps.parse_weights(options.content_region_weights),
        mask=options.mask,
        feather=options.mask_feather / 100 * options.image_size,
        model_named=options.model_file,
        model_file=model_file(options),
        orientation=options.matconvnet_orientation,
        content_layers=tuple(split_list(options.content_layers)),
        style_layers=tuple(split_list(options.style_layers)),
        content_weight=options.content_weight,
        style_weight=options.style_weight,
        tv_weight=options.tv_weight,
        pooling=options.pooling,
        normalize=options.normalize_gradients,
        optimizer=optimizer_name(options.optimizer),
        num_iterations=options.num_iterations,
        learning_rate=options.learning_rate,
        correction=_correction(options.lbfgs_num_correction),
        seed=options.seed,
        precision=options.precision,
        gpus=gpus,
        splits=_splits(options.multigpu_strategy) if len(gpus) > 1 else None,
        autotune=options.cudnn_autotune and options.backend == "cudnn",
        tile=options.tile,
        output_image=options.output_image,
        print_iter=options.print_iter,
        save_iter=options.save_iter,
        checkpoint=_own_file(options.checkpoint, ranks),
        resume=_own_file(options.resume, ranks),
        metadata=options.metadata,
        binding={**_binding(options), "gpu": gpu},
    )
    if save and ranks.rank == 0:
        torch_image.check_can_save(options.output_image)
        torch_image.check_can_save(settings.intermediate(1))
    if settings.checkpoint:
        checkpoint.check_can_write(settings.checkpoint)
    return settings


def build_filename(output_image: str, iteration: int) -> str:
    """The name of an intermediate image: out.png -> ./out_100.png (neural_style.lua, build_filename).

    With the functions of `paths` that it called: the extension is what follows the last dot of the whole path, "nil"
    where there is none, and only then is it taken off the name if it is not empty.
    """
    directory, slash, base = output_image.rpartition("/")
    extension = output_image.rpartition(".")[2] if "." in output_image else "nil"
    stem = base.removesuffix(f".{extension}") if extension else base
    return f"{directory or slash or '.'}/{stem}_{iteration}.{extension}"


def _binding(options: Options) -> dict[str, Plain]:
    return {
        each.name: getattr(options, each.name)
        for each in fields(options)
        if each.name not in _FREE | {"tile"}
    }


def _init(text: str) -> Literal["random", "image"]:
    if text == "random":
        return "random"
    if text == "image":
        return "image"
    raise OptionError(f'Invalid init type: -init is "{text}"; give random or image')


def optimizer_name(text: str) -> Literal["lbfgs", "adam"]:
    """-optimizer, also of other programs; OptionError for any other."""
    if text == "lbfgs":
        return "lbfgs"
    if text == "adam":
        return "adam"
    raise OptionError(f'Unrecognized optimizer "{text}"; give -optimizer lbfgs or adam')


def _correction(number: float) -> int:
    return int(min(number, 2**31)) if number > 0 else _CORRECTION


def blend_weights(text: str, count: int) -> tuple[float, ...]:
    """-style_blend_weights for `count` style images, of sum 1, also of other programs; OptionError for what is none."""
    if text == "nil":
        weights = [1.0] * count
    else:
        parts = split_list(text)
        if len(parts) != count:
            raise OptionError(
                "-style_blend_weights and -style_images must have the same number of elements:"
                f" there are {len(parts)} weights for {count} images"
            )
        weights = [number for number in map(tonumber, parts) if number is not None]
        if len(weights) < count:
            raise OptionError(f"-style_blend_weights {text!r} are not all numbers; give for example 1,3")
    total = sum(weights)
    if total == 0 or not math.isfinite(total):
        raise OptionError(
            f"-style_blend_weights {text} have the sum {total}, which nothing can be divided by"
        )
    return tuple(weight / total for weight in weights)


def _color_transfer(options: Options) -> str:
    mode = options.color_transfer
    if mode and mode not in TRANSFERS:
        raise OptionError(
            f"--color-transfer takes {', '.join(TRANSFERS[:-1])} or {TRANSFERS[-1]}, not {mode!r}"
        )
    if options.original_colors == 1 and mode in RECOLOR:
        raise OptionError(
            f"-original_colors 1 and --color-transfer {mode} both give the result the content's colours; give one of"
            " them"
        )
    return mode


def model_file(options: Options) -> str:
    """`-model_file`; the bundled VGG-16 where none was named and the default VGG-19 is not there."""
    named = options.is_explicit("model_file") or Path(options.model_file).exists()
    return options.model_file if named else str(model_files.bundled())


# ---- devices


def _gpus(text: str) -> tuple[int, ...]:
    """The GPUs that -gpu names. As in the original, a comma means several, and a single -1 or less means the CPU."""
    several = "," in text
    numbers = [tonumber(part) for part in (split_list(text) if several else [text])]
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    if not numbers or len(known) < len(numbers):
        theirs = " (c, the CPU, is neural-style-pt's)" if "c" in split_list(text) else ""
        raise OptionError(
            f"-gpu {text!r} is not a GPU's number{theirs}; give 0, or 0,1 for two, or -1 for the CPU"
        )
    if not several and known[0] + 1 <= 0:
        return ()
    return tuple(int(number + 1) - 1 for number in known)


def _splits(text: str) -> tuple[int, ...] | None:
    splits = []
    for part in split_list(text):
        try:
            splits.append(int(part))
        except ValueError:
            raise OptionError(
                f"-multigpu_strategy: {part!r} is not a layer number; give for example 3,6"
            ) from None
    return tuple(splits) or None


# ---- of several processes, each has its own


def _own_file(path: str, ranks: Ranks) -> str:
    return f"{path}.{ranks.rank}of{ranks.size}" if path and ranks.size > 1 else path


def _own_gpu(options: Options, ranks: Ranks) -> str:
    """Of the GPUs in -gpu, this process's own; without -gpu, that of its number.

    Raises OptionError where there are not enough, or where options do not go with several processes.
    """
    if ranks.size == 1:
        return options.gpu
    if options.multigpu_strategy:
        raise OptionError(
            "-multigpu_strategy splits the layers of one process among its GPUs; here each process has a GPU"
            " and a part of the image: leave it out, or start one process without torchrun"
        )
    if "," in options.gpu:
        gpus = [name for name in options.gpu.split(",") if name]
        if len(gpus) < ranks.local_size:
            raise OptionError(
                f"-gpu {options.gpu} names {len(gpus)} GPUs for {ranks.local_size} processes on this machine;"
                " give one for each, or leave it out"
            )
        return gpus[ranks.local]
    if not options.is_explicit("gpu"):
        return str(ranks.local)
    if ranks.local_size > 1 and (tonumber(options.gpu) or 0) >= 0 and torch.cuda.is_available():
        raise OptionError(
            f"-gpu {options.gpu} names one GPU for {ranks.local_size} processes on this machine; give one for"
            f" each, as in -gpu {','.join(map(str, range(ranks.local_size)))}, or leave it out"
        )
    return options.gpu

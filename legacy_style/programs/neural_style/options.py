"""The 29 options of neural_style.lua, in its order, and ours. Ports jcjohnson/neural-style 07c4b82.

Options of the original have one dash and are named as in the original. Ours have two (`--name`), which the
original rejects, so no old command line changes its meaning. As in torch.CmdLine, an old option that takes a
value takes the next word even if it is one of ours. `-gpu` is text, not a number (`0`, `0,1`, `-1`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, fields, replace
from typing import Any, TypeVar

from legacy_style.errors import OptionError
from legacy_style.programs import common_options
from legacy_style.torch7 import cmdline
from legacy_style.torch7.cmdline import Option, Value

_T = TypeVar("_T", str, float, bool)

MEMORY_ADVICE = (
    "choose a smaller -image_size or -style_scale, fewer correction pairs (-lbfgs_num_correction 10, or -optimizer"
    " adam), or smaller tiles (--tile)"
)
"""What to do where there is not enough memory."""


def _original(default: _T, help: str = "") -> _T:
    """A field of Options that is an option of the original; `help` is the text of its usage."""
    return field(default=default, metadata={"help": help})


@dataclass
class Options:
    """What a run is made from: the original's options, named without the dash, then ours.

    Numbers are floats as in Lua. Raises OptionError where one of ours has a value that it cannot have; the
    original's are checked and read in `settings`.
    """

    style_image: str = _original("examples/inputs/seated-nude.jpg", "Style target image")
    style_blend_weights: str = _original("nil")
    content_image: str = _original("examples/inputs/tubingen.jpg", "Content target image")
    image_size: float = _original(512.0, "Maximum height / width of generated image")
    gpu: str = _original("0", "Zero-indexed ID of the GPU to use; for CPU mode set -gpu = -1")
    multigpu_strategy: str = _original("", "Index of layers to split the network across GPUs")
    content_weight: float = _original(5.0)
    style_weight: float = _original(100.0)
    tv_weight: float = _original(1e-3)
    num_iterations: float = _original(1000.0)
    normalize_gradients: bool = _original(False)
    init: str = _original("random", "random|image")
    init_image: str = _original("")
    optimizer: str = _original("lbfgs", "lbfgs|adam")
    learning_rate: float = _original(10.0)
    lbfgs_num_correction: float = _original(0.0)
    print_iter: float = _original(50.0)
    save_iter: float = _original(100.0)
    output_image: str = _original("out.png")
    style_scale: float = _original(1.0)
    original_colors: float = _original(0.0)
    pooling: str = _original("max", "max|avg")
    proto_file: str = _original("models/VGG_ILSVRC_19_layers_deploy.prototxt")
    model_file: str = _original("models/VGG_ILSVRC_19_layers.caffemodel")
    backend: str = _original("nn", "nn|cudnn|clnn")
    cudnn_autotune: bool = _original(False)
    seed: float = _original(-1.0)
    content_layers: str = _original("relu4_2", "layers for content")
    style_layers: str = _original("relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "layers for style")

    # The pixels that Pillow takes for a decompression bomb, twice its warning.
    max_pixels: int = 178956970
    tile: int = 0
    precision: str = "float32"
    checkpoint: str = ""
    resume: str = ""
    metadata: bool = False
    matconvnet_orientation: str = "hw"
    exif_rotate: bool = False
    stages: str = ""
    stages_through_files: bool = False
    color_transfer: str = ""
    content_regions: str = ""
    style_regions: str = ""
    content_region_weights: str = ""
    mask: str = ""
    mask_feather: float = 2.0

    # The fields that somebody chose, though perhaps their defaults; `dataclasses.replace` hands it on.
    given: InitVar[frozenset[str]] = frozenset()

    def __post_init__(self, given: frozenset[str]) -> None:
        vars(self)["given"] = given  # where `dataclasses.replace` finds it
        self.max_pixels = cmdline.whole("--max-pixels", self.max_pixels, 1)
        self.tile = cmdline.whole("--tile", self.tile, 0)
        _choice("precision", self.precision, ("float32", "tf32", "bfloat16"))
        _choice("matconvnet-orientation", self.matconvnet_orientation, ("hw", "wh"))
        if not 0 <= self.mask_feather <= 100:
            raise OptionError(f"--mask-feather takes per cent, 0 to 100, not {self.mask_feather:.14g}.")

    def is_explicit(self, name: str) -> bool:
        """Whether somebody chose this field: named it on the command line, or set it to another value."""
        return name in vars(self)["given"] or getattr(self, name) != getattr(type(self), name)

    def changed(self, **values: Any) -> Options:
        """A copy with other values, each of which counts as chosen."""
        return replace(self, given=vars(self)["given"] | values.keys(), **values)


ORIGINAL = tuple(
    Option(f"-{each.name}", getattr(Options, each.name), each.metadata["help"])
    for each in fields(Options)
    if "help" in each.metadata
)

EXTENSIONS = (
    common_options.VERSION,
    common_options.PRINT_OPTIONS,
    Option("--list-layers", False, "Print the layers of the model, then exit"),
    Option("--print-plan", False, "Print what the run would do and need, then exit"),
    common_options.NO_PROGRESS,
    common_options.WATCH,
    common_options.PLOT,
    Option(
        "--batch", "", "Photographs to paint one after the other: a folder, 'photos/*.jpg', or a CSV file"
    ),
    Option("--output-dir", "", "Folder for the pictures of --batch, or of a folder given to -style_image"),
    Option("--metadata", False, "Keep command, versions and losses beside the result, and inside a PNG"),
    Option("--max-pixels", float(Options.max_pixels), "Refuse input images with more pixels"),
    Option("--tile", float(Options.tile), "Side of the tiles that a large image is worked in; 0: automatic"),
    Option(
        "--precision",
        Options.precision,
        "float32|tf32|bfloat16, that of the layers behind the first, from the 11th evaluation on",
    ),
    Option(
        "--checkpoint",
        Options.checkpoint,
        "File that keeps the state of the run at each -save_iter, at the end and on Ctrl-C",
    ),
    Option("--resume", Options.resume, "File of --checkpoint to go on from"),
    Option("--matconvnet-orientation", Options.matconvnet_orientation, "hw|wh, the kernels of a .mat file"),
    Option("--exif-rotate", Options.exif_rotate, "Turn photographs upright, as their EXIF orientation says"),
    Option(
        "--stages",
        Options.stages,
        "Sizes and iterations, 256:300,512:150: each stage starts from the last one's image, enlarged",
    ),
    Option(
        "--stages-through-files", Options.stages_through_files, "Stages start from the file of the last one"
    ),
    Option(
        "--color-transfer",
        Options.color_transfer,
        "match|pca|chol|sym, styles take the content's colours first; luminance, of gray images; lab, afterwards",
    ),
    Option(
        "--content-regions", Options.content_regions, "Map of the content image, whose colours name regions"
    ),
    Option(
        "--style-regions",
        Options.style_regions,
        "For each style image its map, the colour of its one region (red, #ff0000), or none",
    ),
    Option(
        "--content-region-weights",
        Options.content_region_weights,
        "What the content counts in regions, 1 where unnamed: red=0.2,#0000ff=3",
    ),
    Option("--mask", Options.mask, "Picture that is black where the content image is to stay untouched"),
    Option(
        "--mask-feather",
        Options.mask_feather,
        "Width of the mask's soft edge, in per cent of the longer side",
    ),
)

_MEAN_MORE_CHOSEN = ("model_file", "gpu")
"""Options whose default, where it was chosen, means more than where it was not."""

_ACTIONS = ("--version", "--print-options", "--list-layers", "--print-plan")


@dataclass(frozen=True)
class CommandLine:
    """A command line that parsed: the options, what to do (`run`, or one of ours without dashes), how.

    `watch` is the port of the page to watch it on, 0 for any; `plot` the file for its losses. `batch` and `output_dir`
    are of a run of many pictures.
    """

    options: Options
    action: str
    progress: bool
    watch: int | None
    plot: str
    batch: str
    output_dir: str


def parse(words: Sequence[str]) -> CommandLine | None:
    """Read a command line, without the program's name; None where it asks for help.

    Raises UsageError with the original's message where the words do not parse, OptionError where a value is
    not one that our option can have.
    """
    given = cmdline.parse(ORIGINAL + EXTENSIONS, words)
    if given is None:
        return None
    values = {_field(key): value for key, value in given.items()}
    action = next((key[2:] for key in _ACTIONS if values.pop(_field(key), False)), "run")
    for key in _ACTIONS:
        values.pop(_field(key), None)
    progress = not values.pop("no_progress", False)
    texts = {name: str(values.pop(name, "")) for name in ("plot", "batch", "output_dir")}
    port = common_options.port(values.pop("watch", common_options.WATCH.default))
    options = Options(**values, given=frozenset(values))  # type: ignore[arg-type]  # each has its default's type
    return CommandLine(options, action, progress, port, **texts)


def as_words(options: Options) -> list[str]:
    """The words of a command line that gives these options, without defaults that mean the same unsaid."""
    words = []
    for each in fields(options):
        value = getattr(options, each.name)
        means_more = each.name in _MEAN_MORE_CHOSEN and options.is_explicit(each.name)
        if value == getattr(Options, each.name) and not means_more:
            continue
        words.append(f"-{each.name}" if "help" in each.metadata else f"--{each.name.replace('_', '-')}")
        if not isinstance(value, bool):
            words.append(f"{value:.17g}" if isinstance(value, float) else str(value))
    return words


def as_json(options: Options) -> str:
    """The original's options and those of ours that somebody chose, as one flat JSON object on one line.

    Numbers are numbers, whole ones without a point. Infinity is written as 1e999, which every reader takes
    for infinity; nan, for which JSON has nothing, is the string "nan".
    """
    shown = [
        each.name for each in fields(options) if "help" in each.metadata or options.is_explicit(each.name)
    ]
    return "{" + ", ".join(f"{json.dumps(name)}: {_json(getattr(options, name))}" for name in shown) + "}"


def _json(value: Value) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return '"nan"'
        if math.isinf(value):
            return "1e999" if value > 0 else "-1e999"
        # Beyond 2^53 a double written as a whole number would claim digits that it does not have.
        if value.is_integer() and abs(value) <= 2**53:
            return str(int(value))
    return json.dumps(value)


def _field(key: str) -> str:
    return key.lstrip("-").replace("-", "_")


def _choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        *others, last = choices
        raise OptionError(f"--{name} takes {', '.join(others)} or {last}, not {value!r}.")

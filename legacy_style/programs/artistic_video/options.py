"""The options of artistic_video.lua and artistic_video_multiPass.lua, in their order, and ours.

Ports manuelruder/artistic-videos 40e7447. Notes: `-gpu` is a number here; lists are text; `-args FILE` names a file
with one option a line, which the command line overrides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from legacy_style.programs import common_options
from legacy_style.torch7 import cmdline
from legacy_style.torch7.cmdline import Option, Value

Values = Mapping[str, Value]
"""Every option's value by its name without the dash: given, or the default."""

Notice = Callable[[str], None]

SINGLE, MULTI_PASS = "artistic_video.lua", "artistic_video_multiPass.lua"

_FIRST = (
    Option("-style_image", "example/seated-nude.jpg", "Style target image"),
    Option("-style_blend_weights", "nil"),
    Option("-content_pattern", "example/marple8_%02d.ppm", "Content target pattern"),
    Option("-num_images", 0.0, "Number of content images. Set 0 for autodetect."),
    Option("-start_number", 1.0, "Frame index to start with"),
)

_GPU = (
    Option("-gpu", 0.0, "Zero-indexed ID of the GPU to use; for CPU mode set -gpu = -1"),
    Option("-number_format", "%d", "Number format of the output images."),
)

_OUTPUT = (
    Option("-save_iter", 0.0),
    Option("-output_image", "out.png"),
    Option("-output_folder", ""),
    Option("-save_init", False, "Whether the initialization image should be saved (for debugging purposes)."),
    Option("-style_scale", 1.0),
    Option("-pooling", "max", "max|avg"),
    Option("-proto_file", "models/VGG_ILSVRC_19_layers_deploy.prototxt"),
    Option("-model_file", "models/VGG_ILSVRC_19_layers.caffemodel"),
    Option("-backend", "nn", "nn|cudnn|clnn"),
    Option("-cudnn_autotune", False),
    Option("-seed", -1.0),
    Option("-content_layers", "relu4_2", "layers for content"),
    Option("-style_layers", "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "layers for style"),
    Option("-args", "", "Arguments in a file, one argument per line"),
)

_PAIR = 'Flow file pattern. [.] will be replaced with the "from"-index, {.} with the "to"-index.'

ORIGINAL: dict[str, tuple[Option, ...]] = {
    SINGLE: (
        *_FIRST,
        Option("-continue_with", 1.0, "Continue with the given frame index."),
        *_GPU,
        Option("-flow_pattern", "example/deepflow/backward_[%d]_{%d}.flo", "Optical flow files pattern"),
        Option(
            "-flowWeight_pattern",
            "example/deepflow/reliable_[%d]_{%d}.pgm",
            "Optical flow weight files pattern.",
        ),
        Option("-flow_relative_indices", "1", "Use flow from the given indices."),
        Option(
            "-use_flow_every",
            -1.0,
            "Uses flow from the given index and every multiple of that; -1 to to disable.",
        ),
        Option("-invert_flowWeights", 0.0, "Invert flow weights given by flowWeight_pattern."),
        Option("-content_weight", 5.0),
        Option("-style_weight", 100.0),
        Option("-temporal_weight", 1000.0),
        Option("-tv_weight", 1e-3),
        Option("-temporal_loss_criterion", "mse", "mse|smoothl1"),
        Option(
            "-num_iterations",
            "2000,1000",
            "Can be set separately for the first and for subsequent iterations, separated by comma, or one value for"
            " all.",
        ),
        Option(
            "-tol_loss_relative", 1e-4, "Stop if relative change of the loss function is below this value"
        ),
        Option("-tol_loss_relative_interval", 50.0, "Interval between two loss comparisons"),
        Option("-normalize_gradients", False),
        Option("-init", "random,prevWarped", "random|image,random|image|prev|prevWarped"),
        Option("-optimizer", "lbfgs", "lbfgs|adam"),
        Option("-learning_rate", 10.0),
        Option("-print_iter", 100.0),
        *_OUTPUT,
        Option(
            "-combine_flowWeights_method",
            "closestFirst",
            "Which long-term weighting scheme to use: normalize or closestFirst. Deafult and recommended: closestFirst",
        ),
    ),
    MULTI_PASS: (
        *_FIRST,
        *_GPU,
        Option("-forwardFlow_pattern", "example/deepflow/forward_[%d]_{%d}.flo", _PAIR),
        Option("-backwardFlow_pattern", "example/deepflow/backward_[%d]_{%d}.flo", _PAIR),
        Option("-forwardFlow_weight_pattern", "example/deepflow/reliable_[%d]_{%d}.pgm", _PAIR),
        Option("-backwardFlow_weight_pattern", "example/deepflow/reliable_[%d]_{%d}.pgm", _PAIR),
        Option("-blendWeight", 1.0, empty_help=True),
        Option("-blendWeight_lastPass", 0.0, empty_help=True),
        Option("-use_temporalLoss_after", 8.0, empty_help=True),
        Option("-num_passes", 15.0, "Number of passes"),
        Option("-continue_with_pass", 1.0, empty_help=True),
        Option("-content_weight", 5.0),
        Option("-style_weight", 100.0),
        Option("-temporal_weight", 500.0),
        Option("-tv_weight", 1e-3),
        Option("-temporal_loss_criterion", "mse", "mse|smoothl1"),
        Option("-num_iterations", 100.0, "Number of iterations per pass"),
        Option("-tol_loss_relative", 0.0, "stop if relative change of the loss function is below this value"),
        Option("-tol_loss_relative_interval", 100.0, "interval between two function comparisons"),
        Option("-normalize_gradients", False),
        Option("-init", "random", "random|image|prevWarped"),
        Option("-optimizer", "lbfgs", "lbfgs|adam"),
        Option("-learning_rate", 10.0),
        Option("-print_iter", 50.0),
        *_OUTPUT,
    ),
}

EXTENSIONS = (
    common_options.VERSION,
    common_options.NO_PROGRESS,
    common_options.WATCH,
    common_options.PLOT,
    Option("--exif-rotate", False, "Turn frames and styles upright, as their EXIF orientation says"),
)


def parse(program: str, words: Sequence[str], notice: Notice) -> tuple[Values, frozenset[str]] | None:
    """The values of all options of `program`, and the names of those that were given; None where help is asked for.

    `notice` takes what is worth a remark about the -args file. Raises UsageError with the original's message.
    """
    table = ORIGINAL[program] + EXTENSIONS
    given = cmdline.parse(table, words)
    if given is not None and given.get("-args"):
        more = read_args_file(str(given["-args"]), table, notice)
        given = cmdline.parse(table, [*more, *words])
    if given is None:
        return None
    values = {_name(option.key): given.get(option.key, option.default) for option in table}
    return values, frozenset(_name(key) for key in given)


def read_args_file(path: str, table: Sequence[Option], notice: Notice) -> list[str]:
    """The words of an -args file: of each line that begins with `-`, what stands before and after its first blank.

    The original died of a flag, which has nothing after it; here it counts. A file that is missing is ignored, as
    there, but not silently.
    """
    try:
        text = Path(path).read_text("utf-8", "surrogateescape")
    except OSError as error:
        notice(f"-args {path}: {error.strerror}; going on without it")
        return []
    flags = {option.key for option in table if isinstance(option.default, bool)}
    words: list[str] = []
    for line in text.split("\n"):
        if not line.startswith("-"):
            continue
        name, blank, value = line.removesuffix("\r").partition(" ")
        words += [name, value] if blank and name not in flags else [name]
    return words


def _name(key: str) -> str:
    return key.lstrip("-").replace("-", "_")

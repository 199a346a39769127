"""The options of both programs as typed settings: lists split, numbers checked, names tried.

Raises OptionError for whatever can be known before anything is loaded. Notes: of a list of two, `a,b`, the first
counts for the first frame, the second for all others, one value for all, and a third is ignored, as in the original.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from legacy_style.errors import OptionError
from legacy_style.programs.artistic_video import patterns
from legacy_style.programs.artistic_video.masks import Method
from legacy_style.programs.artistic_video.options import Values
from legacy_style.programs.neural_style.settings import blend_weights, optimizer_name
from legacy_style.torch7 import cmdline
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7.cmdline import split_list, tonumber

_SINGLE_INITS = ("random", "image", "prev", "prevWarped", "first")
_MULTI_PASS_INITS = ("random", "image", "prevWarped")


@dataclass(frozen=True)
class ModelSettings:
    """Which network, and what of it: `path` is None for the bundled one, where `named` is not there."""

    named: str
    explicit: bool
    pooling: str
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]


@dataclass(frozen=True)
class LossSettings:
    """How the losses weigh. `criterion`: as written; everything but smoothl1 is the mean squared error."""

    content_weight: float
    style_weight: float
    temporal_weight: float
    tv_weight: float
    criterion: str
    normalize: bool


@dataclass(frozen=True)
class DescentSettings:
    """How the image is optimised and what is printed of it; `print_iter` 0 prints the end alone."""

    optimizer: Literal["lbfgs", "adam"]
    learning_rate: float
    tol_relative: float
    tol_relative_interval: float
    print_iter: float


@dataclass(frozen=True)
class OutputSettings:
    """Where images go: FOLDER + BASE-NUMBER.EXT, the number counted from 1 by the caller."""

    folder: str
    image: str
    number_format: str
    save_init: bool

    def name(self, frame: int, *suffixes: int) -> str:
        return patterns.output(self.folder, self.image, self._number(frame), *suffixes)

    def initial(self, frame: int, suffix: int | None = None) -> str:
        return patterns.initial(self.folder, self._number(frame), suffix)

    def _number(self, frame: int) -> str:
        return patterns.number(self.number_format, frame, "-number_format")


@dataclass(frozen=True)
class Common:
    """What both programs share. `num_images` None: as many as there are; `seed` None: none; `gpu` below 0: the CPU."""

    style_images: tuple[str, ...]
    blend_weights: tuple[float, ...]
    style_scale: float
    content_pattern: str
    num_images: int | None
    start: int
    gpu: int
    autotune: bool
    seed: float | None
    model: ModelSettings
    losses: LossSettings
    descent: DescentSettings
    output: OutputSettings
    exif_rotate: bool

    def content(self, frame: int) -> str:
        """The name of a content frame."""
        return patterns.number(self.content_pattern, frame, "-content_pattern")


@dataclass(frozen=True)
class Single:
    """artistic_video.lua. `iterations`, `inits`: of the first frame, of all others; `save_iter`: 0 for never."""

    common: Common
    continue_with: int
    flow_pattern: str
    weight_pattern: str
    relative_indices: tuple[int, ...]
    use_flow_every: int
    invert_weights: bool
    combine: Method
    iterations: tuple[float, float]
    inits: tuple[str, str]
    save_iter: float


@dataclass(frozen=True)
class MultiPass:
    """artistic_video_multiPass.lua. Weights are those of the neighbours in a pass's start image."""

    common: Common
    forward_flow: str
    backward_flow: str
    forward_weights: str
    backward_weights: str
    blend: float
    blend_last_pass: float
    temporal_after: float
    passes: int
    continue_with_pass: int
    iterations: float
    init: str


def single(values: Values, given: frozenset[str]) -> Single:
    """The settings of artistic_video.lua from `values` of its options, of which `given` were on the command line."""
    common = _common(values, given)
    inits = _pair(_text(values, "init"))
    for init in inits:
        if init not in _SINGLE_INITS:
            raise OptionError(
                f"-init {values['init']}: Invalid initialization method {init!r}; give one of"
                f" {', '.join(_SINGLE_INITS)}, or two with a comma between, for the first and for later frames"
            )
    continue_with = _whole(values, "continue_with", least=1)
    if inits[0] not in ("random", "image") and continue_with == 1:
        raise OptionError(
            f"-init {values['init']}: Invalid initialization method: the first frame has no predecessor; give"
            f" -init random,{inits[0]}"
        )
    if inits[1] == "first" and continue_with > 1:
        raise OptionError(
            "-init first needs the first frame, which this run does not make: leave -continue_with out, or give another"
            " -init"
        )
    settings = Single(
        common=common,
        continue_with=continue_with,
        flow_pattern=_text(values, "flow_pattern"),
        weight_pattern=_text(values, "flowWeight_pattern"),
        relative_indices=_indices(_text(values, "flow_relative_indices")),
        use_flow_every=_every(_number(values, "use_flow_every")),
        invert_weights=values["invert_flowWeights"] == 1,
        combine=_method(_text(values, "combine_flowWeights_method")),
        iterations=_iterations(_text(values, "num_iterations")),
        inits=inits,
        save_iter=_number(values, "save_iter"),
    )
    for pattern, option in (
        (settings.flow_pattern, "-flow_pattern"),
        (settings.weight_pattern, "-flowWeight_pattern"),
    ):
        patterns.between(pattern, 1, 2, option)
    return settings


def multi_pass(values: Values, given: frozenset[str]) -> MultiPass:
    """The settings of artistic_video_multiPass.lua; see `single`."""
    init = _text(values, "init")
    if init not in _MULTI_PASS_INITS:
        raise OptionError(
            f"-init {init}: Unknown initialization method; give one of {', '.join(_MULTI_PASS_INITS)}"
        )
    settings = MultiPass(
        common=_common(values, given),
        forward_flow=_text(values, "forwardFlow_pattern"),
        backward_flow=_text(values, "backwardFlow_pattern"),
        forward_weights=_text(values, "forwardFlow_weight_pattern"),
        backward_weights=_text(values, "backwardFlow_weight_pattern"),
        blend=_number(values, "blendWeight"),
        blend_last_pass=_number(values, "blendWeight_lastPass"),
        temporal_after=_number(values, "use_temporalLoss_after"),
        passes=_whole(values, "num_passes", least=0),
        continue_with_pass=_whole(values, "continue_with_pass", least=1),
        iterations=_number(values, "num_iterations"),
        init=init,
    )
    for name in (
        "forwardFlow_pattern",
        "backwardFlow_pattern",
        "forwardFlow_weight_pattern",
        "backwardFlow_weight_pattern",
    ):
        patterns.between(_text(values, name), 1, 2, f"-{name}")
    return settings


def _common(values: Values, given: frozenset[str]) -> Common:
    styles = _list(_text(values, "style_image"))
    if not styles or "" in styles:
        raise OptionError(
            f"-style_image {values['style_image']!r} has an empty element; give file names with commas between"
        )
    optimizer = optimizer_name(_text(values, "optimizer"))
    output = OutputSettings(
        folder=_text(values, "output_folder"),
        image=_text(values, "output_image"),
        number_format=_text(values, "number_format"),
        save_init=values["save_init"] is True,
    )
    torch_image.check_can_save(output.name(1))
    scale = _number(values, "style_scale")
    if not (math.isfinite(scale) and scale > 0):
        raise OptionError("-style_scale must be a number above 0, for example 1")
    gpu, seed = _number(values, "gpu"), _number(values, "seed")
    if not math.isfinite(gpu):
        raise OptionError(f"-gpu {gpu:g} is not a GPU's number; give 0, or -1 for the CPU")
    common = Common(
        style_images=styles,
        blend_weights=blend_weights(_text(values, "style_blend_weights"), len(styles)),
        style_scale=scale,
        content_pattern=_text(values, "content_pattern"),
        num_images=_whole(values, "num_images", least=0) or None,
        start=_whole(values, "start_number", least=-(10**9)),
        gpu=math.floor(gpu),
        autotune=values["cudnn_autotune"] is True and values["backend"] == "cudnn",
        seed=seed if seed >= 0 else None,
        model=ModelSettings(
            named=_text(values, "model_file"),
            explicit="model_file" in given,
            pooling=_text(values, "pooling"),
            content_layers=_list(_text(values, "content_layers")),
            style_layers=_list(_text(values, "style_layers")),
        ),
        losses=LossSettings(
            content_weight=_number(values, "content_weight"),
            style_weight=_number(values, "style_weight"),
            temporal_weight=_number(values, "temporal_weight"),
            tv_weight=_number(values, "tv_weight"),
            criterion=_text(values, "temporal_loss_criterion"),
            normalize=values["normalize_gradients"] is True,
        ),
        descent=DescentSettings(
            optimizer=optimizer,
            learning_rate=_number(values, "learning_rate"),
            tol_relative=_number(values, "tol_loss_relative"),
            tol_relative_interval=_number(values, "tol_loss_relative_interval"),
            print_iter=_number(values, "print_iter"),
        ),
        output=output,
        exif_rotate=values["exif_rotate"] is True,
    )
    common.content(common.start)
    return common


def _text(values: Values, name: str) -> str:
    return str(values[name])


def _number(values: Values, name: str) -> float:
    return float(values[name])


def _whole(values: Values, name: str, least: int) -> int:
    return cmdline.whole(f"-{name}", _number(values, name), least)


def _every(number: float) -> int:
    """-use_flow_every: 0 where no earlier frame is so many frames away."""
    if not 0 < number < math.inf:
        return 0
    if number != int(number):
        raise OptionError(
            f"-use_flow_every {number:.14g} is no number of frames; give a whole number, or -1 for none"
        )
    return int(number)


def _list(text: str) -> tuple[str, ...]:
    return tuple(split_list(text))


def _pair(text: str) -> tuple[str, str]:
    elements = _list(text) or ("",)
    return elements[0], elements[1] if len(elements) > 1 else elements[0]


def _iterations(text: str) -> tuple[float, float]:
    first, later = (tonumber(each) for each in _pair(text))
    if first is None or later is None or math.isnan(first) or math.isnan(later):
        raise OptionError(
            f"-num_iterations {text!r} is no number; give for example 1000, or 2000,1000 for the first frame and for"
            " the others"
        )
    return first, later


def _indices(text: str) -> tuple[int, ...]:
    numbers = [tonumber(each) for each in _list(text)]
    whole = [
        int(number)
        for number in numbers
        if number is not None and math.isfinite(number) and number == int(number)
    ]
    if len(whole) < len(numbers) or any(number < 1 for number in whole):
        raise OptionError(
            f"-flow_relative_indices {text!r}: give whole numbers of 1 or more, for example 1,2,4"
        )
    return tuple(whole)


def _method(text: str) -> Method:
    return "closestFirst" if text == "closestFirst" else "normalize" if text == "normalize" else "none"

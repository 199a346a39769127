"""What each recorded run demands here: every tolerance once, with its reason, and every deviation on purpose.

How long two correct programs stay together was measured on the original itself (threads2_noise.json: two
threads against one), on a float64 port (the recordings' README), and by disturbing every gradient here by
3e-7, which is how far two convolution kernels are apart.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import recorded_runs as runs
from recorded_runs import Difference, Outcome, Run

from legacy_style.cli.progress import ProgressLine

FIRST = 1e-5
"""Each loss of iteration 1: the kernels' roundings, at most 2e-6; anything wrong shows more."""

DEPTH = 1.5
"""How much larger the smallest total loss may be: it tells that the run went downhill as the original did."""


@dataclass(frozen=True)
class Course:
    """How far the losses stay with the recording's, relative to the total loss, and why no further."""

    until: float
    tolerance: float = FIRST
    depth: float = DEPTH


@dataclass(frozen=True)
class Pixels:
    """How far an image may be from the recorded one: levels of 256, and the share of values that differ."""

    levels: int
    share: float


START = Pixels(0, 0)
"""The start image: nothing but loading, scaling and saving, which are exact."""

SAME = Pixels(1, 0.002)
"""Equal, but that a value which ends within a rounding of a level's border may fall on either side."""

CLOSE = Pixels(2, 0.04)
"""The drift of 20 well-conditioned L-BFGS iterations."""

FLAT = Pixels(1, 0.2)
"""An untouched image has all its values on the borders between levels; where the gradient is next to nothing
(one plain colour, half a JPEG), the last bit decides."""

# L-BFGS from an image: the first step is g / |g|, 1e-5 a pixel, which is float32's resolution at 100; the
# first correction pair is its rounding noise, and so is everything after. L-BFGS from noise under max
# pooling: pooled values are next to equal, and another maximum gives another gradient. Both keep the first
# two losses.
CHAOTIC = Course(until=2)

# The same, and a step overshoots by orders of magnitude at some iteration, never the same one.
WILD = Course(until=2, depth=math.inf)

# Adam divides the gradient by its own size, so it takes a full step from another maximum's gradient.
ADAM_FROM_NOISE = Course(until=1)

# Nothing that amplifies roundings: average pooling or a start from an image, and Adam.
TO_THE_END = Course(until=math.inf, tolerance=1e-4)

COURSES = {
    "adam": ADAM_FROM_NOISE,
    "adam_init_image": TO_THE_END,
    "save_iter1_adam": TO_THE_END,
    "tv100_adam": TO_THE_END,
    "wc_adam": TO_THE_END,
    "m_caffenet_k2": TO_THE_END,
    "niter2": TO_THE_END,
    # Another maximum somewhere at iteration 20: losses part slowly from there.
    "adam_40": Course(until=20),
    # The content difference is small, and normalised.
    "norm_grad_adam": Course(until=16),
    # L-BFGS with average pooling is well conditioned until its correction pairs are.
    "wc_lbfgs": Course(until=7),
    "wc_lbfgs_40": Course(until=7),
    "wc_norm": Course(until=10),
    "wc_odd": Course(until=7),
    "wc_scale2_out_jpg": Course(until=10),
    "wc_styles2": Course(until=8),
    # From an image, but larger gradients: the first steps are more than rounding noise.
    "m_nin": Course(until=10),
    "m_nin_avg": Course(until=9, depth=math.inf),
    "m_nin_v2": Course(until=10),
    "layers_multi": WILD,
    "layers_one": Course(until=math.inf, tolerance=1e-3),
    "layers_same": Course(until=math.inf, tolerance=1e-3),
    # One plain colour: all values of a pooled window are equal, and the rounding decides which is largest.
    "one_pixel": Course(until=2),
    # The first iteration that is printed is the 7th.
    "print7": Course(until=0),
}

PIXELS = {
    "adam_init_image": {"out_10.png": SAME, "out.png": SAME},
    "adam_40": {"out_10.png": SAME, "out_20.png": SAME},
    "in_bit1_97x61_png": {"out_2.png": SAME, "out.png": SAME},
    "in_cmyk97x61_jpg": {"out_2.png": SAME, "out.png": SAME},
    "in_exif_rot_jpg": {"out_2.png": SAME, "out.png": SAME},
    "in_gray16_97x61_png": {"out_2.png": SAME, "out.png": SAME},
    "in_gray97x61_pgm": {"out_2.png": SAME, "out.png": SAME},
    "in_gray97x61_png": {"out_2.png": SAME, "out.png": SAME},
    "in_jpg_named_png": {"out_2.png": SAME, "out.png": SAME},
    "in_noext": {"out_2.png": SAME, "out.png": SAME},
    "in_pal4bit97x61_png": {"out_2.png": SAME, "out.png": CLOSE},
    "in_pal97x61_png": {"out_2.png": SAME, "out.png": CLOSE},
    "in_png_named_jpg": {"out_2.png": SAME, "out.png": SAME},
    "in_rgb16_50x31_png": {"out_2.png": SAME, "out.png": SAME},
    "in_square80_prog_jpg": {"out_2.png": SAME},
    "in_style_gray": {"out_2.png": SAME},
    "in_style_rgba": {"out_2.png": SAME},
    "in_truncated_jpg": {"out_2.png": FLAT, "out.png": FLAT},
    "layers_one": {"out_10.png": CLOSE, "out.png": CLOSE},
    "layers_same": {"out_10.png": SAME, "out.png": CLOSE},
    "m_caffenet_k2": {"out_10.png": SAME, "out.png": SAME},
    "m_nin": {"out_10.png": SAME},
    "m_nin_avg": {"out_10.png": SAME},
    "m_nin_v2": {"out_10.png": SAME},
    "niter1": {"out.png": START},
    "niter1_adam": {"out.png": START},
    "niter2": {"out.png": SAME},
    "norm_grad_adam": {"out_10.png": SAME},
    "out_dots": {"my.out.v1_2.png": SAME},
    "out_jpeg_upper": {"res_2.JPEG": SAME},
    "out_jpg": {"res_2.jpg": SAME},
    "out_png_upper": {"res_2.PNG": SAME},
    "out_ppm": {"res_2.ppm": SAME},
    "out_subdir": {"sub/res_2.png": SAME},
    "save_iter1": {"out_1.png": START, "out_2.png": SAME},
    "save_iter1_adam": {"out_1.png": START, **{f"out_{i}.png": SAME for i in (2, 3, 4)}, "out.png": SAME},
    "size_tiny": {"out_10.png": SAME, "out.png": SAME},
    "style_scale_2.0": {"out_10.png": SAME},
    "tv100_adam": {"out_10.png": SAME, "out.png": SAME},
    "wc_adam": {"out_10.png": SAME, "out.png": SAME},
    "wc_lbfgs": {"out_10.png": SAME, "out.png": CLOSE},
    "wc_lbfgs_40": {"out_10.png": SAME, "out_20.png": CLOSE},
    "wc_norm": {"out_10.png": SAME},
    "wc_odd": {"out_10.png": SAME},
    "wc_scale2_out_jpg": {"out_10.jpg": SAME},
    "wc_styles2": {"out_10.png": SAME, "out.png": SAME},
}

# What stderr says where the original failed as well, at the same place.
REFUSALS = {
    "cli_bad_number": "invalid type for option -image_size (should be number)",
    "cli_double_dash": "invalid argument: --image_size",
    "cli_eq_form": "invalid argument: -image_size=32",
    "cli_flag_with_value": "invalid argument: true",
    "cli_missing_value": "missing argument for option -image_size",
    "cli_no_content": "nope.jpg: No such file or directory",
    "cli_no_style": "nope.jpg: No such file or directory",
    "cli_no_style2": "nope.jpg: No such file or directory",
    "cli_number_comma": "invalid type for option -content_weight (should be number)",
    "cli_orig_colors_text": "invalid type for option -original_colors (should be number)",
    "cli_unknown_opt": "invalid argument: -foo",
    "in_err_garbage_png": "inputs/garbage.png",
    "in_err_truncated_png": "inputs/truncated.png",
    "init_image_missing": "nope.png: No such file or directory",
    "m_garbage": "inputs/garbage.png",
    "m_missing": "models/nope.caffemodel",
    "m_nin_padded_avg": "-pooling avg: the max pooling pool2 is padded",
}

Check = Callable[[Run, Outcome], Iterator[Difference]]


@dataclass(frozen=True)
class Deviation:
    """Where we do something else than the original on purpose: why, and the check of what we do instead."""

    why: str
    check: Check


def fails(message: str) -> Check:
    """Ends with status 1 and `message` before the first iteration, or before the original did."""

    def check(run: Run, outcome: Outcome) -> Iterator[Difference]:
        yield from runs.compare_status(1, outcome)
        yield from runs.compare_stdout(run.lines, outcome, beginning=True)
        if runs.has_inputs(run.root):
            yield from runs.compare_first_losses(run.lines, outcome, FIRST)
        yield from runs.compare_stderr(message, outcome)
        yield from runs.compare_images([], outcome)

    return check


def runs_like(other: str, *, notice: str = "", losses: bool = True) -> Check:
    """Does what the recorded run `other` did: the same but for what the original could not do."""

    def check(run: Run, outcome: Outcome) -> Iterator[Difference]:
        like = runs.recorded(run.root)[other]
        lines = run.lines[:1] + like.lines[1:] if run.lines else like.lines
        yield from runs.compare_status(0, outcome)
        yield from runs.compare_stdout(lines, outcome)
        yield from runs.compare_stderr(notice, outcome)
        yield from runs.compare_images(like.images, outcome)
        if losses and runs.has_inputs(run.root):
            yield from runs.compare_first_losses(lines, outcome, FIRST)
            yield from runs.compare_course(lines, outcome, CHAOTIC.until, CHAOTIC.tolerance)

    return check


def begins_like(other: str, *, notice: str) -> Check:
    """Begins as the recorded run `other` did, until it is interrupted after the first evaluation."""

    def check(run: Run, outcome: Outcome) -> Iterator[Difference]:
        yield from runs.compare_status(130, outcome)
        yield from runs.compare_stdout(runs.recorded(run.root)[other].lines, outcome, beginning=True)
        if outcome.lines[-1:] != ["Running optimization with L-BFGS\t"]:
            yield Difference("stdout", f"ends with {outcome.lines[-1:]}")
        yield from runs.compare_stderr(notice, outcome)
        yield from runs.compare_images(["out_1.png"], outcome)

    return check


def runs_with_groups(run: Run, outcome: Outcome) -> Iterator[Difference]:
    """The whole network, of which the recording has the layers before the first grouped convolution."""
    yield from runs.compare_status(0, outcome)
    yield from runs.compare_stderr("", outcome)
    yield from runs.compare_images(run.images, outcome)
    expected = [
        "conv1: 12 3 11 11",
        "conv2: 16 6 5 5",
        "conv3: 20 16 3 3",
        "conv4: 20 10 3 3",
        "conv5: 16 10 3 3",
    ]
    if outcome.lines[1:6] != expected:
        yield Difference("stdout", f"layers {outcome.lines[1:6]}, expected {expected}")
    # The one loss that the recording has is the first of ours: on relu1, below all groups.
    (theirs, _), ours = runs.evaluations(run.lines)[0].losses, runs.evaluations(outcome.lines)[0].losses
    if runs.has_inputs(run.root) and not runs.same_loss(ours[1], theirs, FIRST * theirs):
        yield Difference("losses", f"Style 1 {ours[1]}, recorded {theirs}")


_CUDA = "No CUDA device here: running on the CPU"
_NEVER_FOUND = "a layer name that is never found is an error, not a loss less"
_BEFORE_THE_WORK = "checked before the first iteration, not when all is done"

DEVIATIONS = {
    "cli_bad_init": Deviation(_BEFORE_THE_WORK, fails('Invalid init type: -init is "foo"')),
    "cli_blend_count": Deviation(
        _BEFORE_THE_WORK,
        fails("-style_blend_weights and -style_images must have the same number of elements"),
    ),
    "cli_gpu0": Deviation("runs on the CPU where there is no CUDA", runs_like("base", notice=_CUDA)),
    "cli_gpu_default": Deviation("runs on the CPU where there is no CUDA", runs_like("base", notice=_CUDA)),
    "cli_gpu_multi": Deviation("runs on the CPU where there is no CUDA", runs_like("base", notice=_CUDA)),
    "cli_no_args": Deviation(
        "runs on the CPU where there is no CUDA", begins_like("default_1000", notice=_CUDA)
    ),
    "cli_num_inf": Deviation(
        "a loss that is not finite ends the run, the original went on to a black image",
        fails("the loss is not finite any more at iteration 1"),
    ),
    "in_err_la97x61_png": Deviation(
        "gray with alpha is loaded, alpha dropped", runs_like("in_gray97x61_png")
    ),
    "in_err_odd97x61_gif": Deviation("GIF is loaded", runs_like("in_png_named_jpg", losses=False)),
    "in_paltrns97x61_png": Deviation(
        "a palette with transparency is loaded without it, the original garbled it",
        runs_like("in_pal97x61_png"),
    ),
    "layers_dup": Deviation(_NEVER_FOUND, fails("'relu1_1' is repeated or out of order")),
    "layers_missing_nofit": Deviation(
        _NEVER_FOUND, fails("the model has no layer 'relu9_9'; did you mean relu")
    ),
    "layers_missing_random": Deviation(
        _NEVER_FOUND, fails("the model has no layer 'relu9_9'; did you mean relu")
    ),
    "layers_wrong_order": Deviation(_NEVER_FOUND, fails("'relu1_1' is repeated or out of order")),
    "layers_wrong_order_nofit": Deviation(_NEVER_FOUND, fails("'relu1_1' is repeated or out of order")),
    "m_grouped_v2": Deviation(
        "grouped convolutions run, the original dropped them and all after", runs_with_groups
    ),
    "m_no_proto_dir": Deviation("nothing is written next to the prototxt", runs_like("m_no_proto")),
    "m_v1shape": Deviation("V1 blobs with shapes are read", runs_like("m_v2")),
    "out_err_jpG": Deviation(_BEFORE_THE_WORK, fails("unknown image type: jpG")),
    "out_err_missingdir": Deviation(
        _BEFORE_THE_WORK, fails("nodir/res.png: could not be opened for writing")
    ),
    "out_err_noext": Deviation(_BEFORE_THE_WORK, fails("unknown image type: nil")),
    "out_err_pgm": Deviation(_BEFORE_THE_WORK, fails("can only save 1xHxW or HxW images as PGM")),
    "size0": Deviation(_BEFORE_THE_WORK, fails("-tv_weight needs an image of at least 2x2 pixels")),
    "styles_double_comma": Deviation(_BEFORE_THE_WORK, fails("has an empty element")),
    "thin_image": Deviation(_BEFORE_THE_WORK, fails("-tv_weight needs an image of at least 2x2 pixels")),
}

# All defaults: 512 pixels and 1000 iterations, of which one must do.
INTERRUPTED = {"cli_no_args"}


def differences(run: Run, outcome: Outcome) -> list[Difference]:
    """All stages of one run, in order; empty where it does what it should."""
    if run.name in DEVIATIONS:
        return list(DEVIATIONS[run.name].check(run, outcome))
    return list(_as_recorded(run, outcome))


def _as_recorded(run: Run, outcome: Outcome) -> Iterator[Difference]:
    yield from runs.compare_status(run.status, outcome)
    lines = run.lines
    if run.name.startswith("cli_help"):
        # Our own options follow under a heading of theirs.
        yield from runs.compare_stdout(lines, Outcome(0, outcome.lines[: len(lines)], "", outcome.folder))
    else:
        yield from runs.compare_stdout(lines, outcome)
    yield from runs.compare_stderr(REFUSALS[run.name] if run.status else "", outcome)
    yield from runs.compare_images(run.images, outcome)
    if not runs.has_inputs(run.root):
        return
    course = COURSES.get(run.name, CHAOTIC)
    yield from runs.compare_first_losses(lines, outcome, FIRST)
    yield from runs.compare_course(lines, outcome, course.until, course.tolerance)
    yield from runs.compare_depth(lines, outcome, course.depth)
    for image in run.images:
        wanted = PIXELS.get(run.name, {}).get(image, Pixels(255, 1))
        yield from runs.compare_pixels(run, outcome, image, wanted.levels, wanted.share)


def replay(run: Run, folder: Path) -> list[Difference]:
    """Run it in the empty `folder`, and say what differs."""
    interrupt = mock.patch.object(ProgressLine, "update", side_effect=KeyboardInterrupt)
    with interrupt if run.name in INTERRUPTED else contextlib.nullcontext():
        outcome = runs.perform(run, folder)
    return differences(run, outcome)

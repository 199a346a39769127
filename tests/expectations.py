"""What each recorded run demands here: every tolerance once, with its reason, and every deviation on purpose.

How long two correct programs stay together is measured, for each recording (spread.py); what no measurement
says stands here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import recorded_runs as runs
import spread
from recorded_runs import Difference, Outcome, Run

from legacy_style.cli.progress import ProgressLine

FIRST = 3e-5
"""Each loss of iteration 1, relative to itself: what eightfold roundings change; anything wrong shows more."""

LATER = 1e-5
"""The least tolerance of the losses that follow, relative to the total."""

HALF_WAY = 0.5
"""So far down, on a logarithmic scale, must the smallest total be of where the original's is. This is compared
where roundings leave more than three quarters."""
SURELY_DOWN = 0.75

SAME = (1, 0.002)
"""The least tolerance of an image: a value that ends within a rounding of a level's border may fall on either
side. Levels of 256, and the share of values that differ."""
FEW = 3
"""And so many values of a small image may differ."""

# Other tolerances of images, and why.
PIXELS = {
    # Half a JPEG: below its end, the image is one plain colour, the gradient next to nothing, and all values
    # lie on the borders between levels. The original's last bit differs from ours on every processor.
    ("in_truncated_jpg", "out_2.png"): (1, 0.2),
    ("in_truncated_jpg", "out.png"): (1, 0.2),
}

# What stderr says in addition where the run is the recorded one.
NOTICES = {
    "in_exif_rot_jpg": "inputs/exif_rot.jpg: its EXIF orientation (6: to be turned by 90 degrees) is ignored",
    "in_truncated_jpg": "inputs/truncated.jpg: the file ends too early",
    "niter0_adam": "-num_iterations 0 is no whole number of at least 1, so that out.png will not be written",
}

# What stderr says where the original failed as well, at the same place.
REFUSALS = {
    "cli_bad_number": "invalid type for option -image_size (should be number)",
    "cli_double_dash": "invalid argument: --image_size",
    "cli_eq_form": "invalid argument: -image_size=32",
    "cli_flag_with_value": "invalid argument: true",
    "cli_missing_value": "missing argument for option -image_size",
    "cli_number_comma": "invalid type for option -content_weight (should be number)",
    "cli_orig_colors_text": "invalid type for option -original_colors (should be number)",
    "cli_unknown_opt": "invalid argument: -foo",
    "in_err_garbage_png": "inputs/garbage.png",
    "in_err_truncated_png": "inputs/truncated.png",
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
            yield from runs.compare_course(lines, outcome, course(other))

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
_BEFORE_THE_MODEL = "images are looked for before the model is loaded"

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
    **dict.fromkeys(
        ("cli_no_content", "cli_no_style", "cli_no_style2"),
        Deviation(_BEFORE_THE_MODEL, fails("nope.jpg: No such file or directory")),
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
    "init_image_missing": Deviation(_BEFORE_THE_MODEL, fails("-init_image an image that is there")),
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

NOT_MEASURED = {"default_1000", *INTERRUPTED, *DEVIATIONS}
"""Recordings of whose spread nothing is known: 1000 iterations, of which every fiftieth was printed, and those
that are not compared with what was recorded."""


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
    yield from runs.compare_stderr(REFUSALS[run.name] if run.status else NOTICES.get(run.name, ""), outcome)
    yield from runs.compare_images(run.images, outcome)
    if not runs.has_inputs(run.root):
        return
    if compares_losses(run):
        yield from runs.compare_first_losses(lines, outcome, FIRST)
        yield from runs.compare_course(lines, outcome, course(run.name))
    if not compares_losses(run) or spread.of_run(run.name).downhill > SURELY_DOWN:
        yield from runs.compare_depth(lines, outcome, HALF_WAY)
    for image in run.images:
        allowed = pixels(run, image)
        if allowed is not None:
            yield from runs.compare_pixels(run, outcome, image, *allowed, FEW)


def course(name: str) -> list[float]:
    """How far the losses may be from the recorded ones, relative to the total, by printed evaluation."""
    return [max(LATER, each) for each in spread.of_run(name).losses]


def pixels(run: Run, image: str) -> tuple[int, float] | None:
    """How far an image may be from the recorded one: levels and share of values; None: it is not compared."""
    if shows_the_start(run, image):
        return 0, 0.0  # nothing but loading, scaling and saving, which are exact
    if (run.name, image) in PIXELS:
        return PIXELS[run.name, image]
    found = spread.of_run(run.name).images.get(image) if compares_losses(run) else None
    return found and (max(found[0], SAME[0]), max(found[1], SAME[1]))


def shows_the_start(run: Run, image: str) -> bool:
    """Whether it was saved at iteration 1, before the first update."""
    numbered = re.search(r"_(\d+)\.\w+$", image)
    words = [*run.words, "-num_iterations", "1000"]
    return (numbered[1] if numbered else words[words.index("-num_iterations") + 1]) == "1"


def measured(name: str) -> bool:
    """Whether its spread is known."""
    return name not in NOT_MEASURED


def compares_losses(run: Run) -> bool:
    """Whether it printed losses that are compared with the recorded ones."""
    return measured(run.name) and bool(runs.evaluations(run.lines))


def replay(run: Run, folder: Path) -> list[Difference]:
    """Run it in the empty `folder`, and say what differs."""
    interrupt = mock.patch.object(ProgressLine, "update", side_effect=KeyboardInterrupt)
    with interrupt if run.name in INTERRUPTED else contextlib.nullcontext():
        outcome = runs.perform(run, folder)
    return differences(run, outcome)

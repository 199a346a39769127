"""Writes docs/options.md from the programs' own option tables: python docs/make_options.py."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from legacy_style.cli import athalye_options
from legacy_style.programs.artistic_video import options as artistic_video
from legacy_style.programs.fast_neural_style import options as fast_neural_style
from legacy_style.programs.fast_neural_style import slow_options as slow_neural_style
from legacy_style.programs.fast_neural_style import train_options as train
from legacy_style.programs.neural_style import options as neural_style
from legacy_style.torch7.cmdline import Option, tostring

PAGE = Path(__file__).with_name("options.md")

# What the options of neural_style.lua mean, of whose usage most have no text; artistic_video.lua shares many.
MEANINGS = {
    "-style_image": "the image whose style is taken; several are separated by commas",
    "-style_blend_weights": "how much each of several style images counts, for example `1,3`; without it, all the same",
    "-content_image": "the image whose content stays",
    "-image_size": "the longer side of the result, in pixels",
    "-gpu": "the number of a GPU, several (`0,1`), or -1 for the CPU; without a GPU, the CPU is used anyway",
    "-multigpu_strategy": "the layers after which the network goes to the next of several GPUs, for example `3,6,12`",
    "-content_weight": "the weight of the content loss; its balance with `-style_weight` is what to try first",
    "-style_weight": "the weight of the style loss",
    "-tv_weight": "the weight of the total variation, which makes the result smoother",
    "-num_iterations": "evaluations of the network; 100 are enough from `-init image`, 300 from noise",
    "-normalize_gradients": "divide the gradient of each loss by its L1 norm",
    "-init": "what to start from: `random` noise, or `image`, which is the content image or that of `-init_image`",
    "-init_image": "the image that `-init image` starts from, instead of the content image",
    "-optimizer": "`lbfgs`, or `adam`, which takes less memory",
    "-learning_rate": "the learning rate of Adam",
    "-lbfgs_num_correction": "the correction pairs of L-BFGS; 0 means 100. Fewer take less memory",
    "-print_iter": "print the losses every so many iterations; 0 never does",
    "-save_iter": "save the image every so many iterations; 0 saves the last one only",
    "-output_image": "the file to write: .png, .jpg or .ppm",
    "-style_scale": "the size of the style images relative to the result; smaller gives a finer texture",
    "-original_colors": "1 keeps the colours of the content image",
    "-pooling": "`max`, or `avg`, which gives smoother results",
    "-proto_file": "taken as in the original, and not needed",
    "-model_file": "the network, in any format that is read; without VGG-19 here, the bundled VGG-16 is used",
    "-backend": "`nn`, `cudnn` and `clnn` are all taken, and change nothing",
    "-cudnn_autotune": "let cuDNN time its algorithms",
    "-seed": "repeats the noise, bit for bit the original's; -1 draws another each time",
    "-content_layers": "the layers of the content loss",
    "-style_layers": "the layers of the style loss",
}

# What artistic_video.lua and its twin have besides, or with another meaning.
VIDEO = {
    "-content_pattern": "the frames of the video: `%02d` stands for the number",
    "-num_images": "how many frames there are; 0 counts the files",
    "-start_number": "the number of the first frame",
    "-continue_with": "go on with this frame, from the results before it",
    "-continue_with_pass": "go on with this pass, from the results before it",
    "-gpu": "the number of a GPU, or -1 for the CPU",
    "-number_format": "how frames are numbered in the names of the results",
    "-flow_pattern": "the optical flow files (.flo): `[%d]` stands for a frame, `{%d}` for an earlier one",
    "-flowWeight_pattern": "the masks that say where the flow can be trusted (.pgm), named likewise",
    "-flow_relative_indices": "the earlier frames that count, for example `1,15,40`",
    "-use_flow_every": "the flow from every Nth frame counts as well; -1 turns this off",
    "-invert_flowWeights": "1 inverts the masks",
    "-forwardFlow_pattern": "the flow files for the next frame: `[%d]` stands for a frame, `{%d}` for the next",
    "-backwardFlow_pattern": "the flow files for the previous frame, named likewise",
    "-forwardFlow_weight_pattern": "the masks of the forward flow",
    "-backwardFlow_weight_pattern": "the masks of the backward flow",
    "-temporal_weight": "the weight of the temporal loss, which keeps frames alike along the flow",
    "-temporal_loss_criterion": "`mse`, or `smoothl1`",
    "-num_iterations": "evaluations of the network: for the first frame, and for each other; one number is for all",
    "-tol_loss_relative": "stop a frame when the loss has changed by less than this part of it",
    "-tol_loss_relative_interval": "evaluations between two such comparisons",
    "-init": "what the first frame and the others start from: `random`, `image`, `prev`, `prevWarped` or `first`",
    "-save_iter": "save the unfinished frame every so many iterations; 0 never does",
    "-save_init": "save the image that each frame starts from",
    "-output_folder": "the folder of the results",
    "-args": "a file with further options, one a line; the command line counts for more",
    "-combine_flowWeights_method": "how the masks of earlier frames are combined: `closestFirst` or `normalize`",
    "-blendWeight": "how much the neighbour counts that this pass has painted already",
    "-blendWeight_lastPass": "how much the neighbour counts that only the pass before has painted",
    "-use_temporalLoss_after": "the pass from which the temporal loss counts",
    "-num_passes": "how many times all frames are gone through",
}

# What the twin has with another meaning.
TWIN = {
    "-num_iterations": "evaluations of the network for each frame in each pass",
    "-init": "what the first pass starts from: `random`, or `prevWarped`",
    "-save_iter": "taken and not used",
}

# train.lua.
TRAINING = {
    "-arch": "the layers of the network that is trained, separated by commas",
    "-use_instance_norm": "1: instance normalisation; 0: batch normalisation, as in the paper of 2016",
    "-task": "`style`, or `upsample`",
    "-h5_file": "the training images: an HDF5 file, which `legacy-style style-dataset` makes",
    "-padding_type": "how the image is padded: `reflect-start`, `zero`, `reflect` or `replicate`",
    "-tanh_constant": "the factor of the last layer, a tanh",
    "-preprocessing": "`vgg` or `resnet`: the units of the network's input",
    "-resume_from_checkpoint": "the checkpoint (.t7) whose weights training begins with",
    "-pixel_loss_type": "the distance of the pixel loss: `L2`, `L1` or `SmoothL1`",
    "-pixel_loss_weight": "the weight of the pixel loss",
    "-percep_loss_weight": "the weight of the losses on the loss network's layers",
    "-tv_strength": "the weight of the total variation",
    "-content_weights": "the weights of the content layers: one for all, or one for each",
    "-content_layers": "the layers of the content loss, by their numbers",
    "-loss_network": "the network whose layers the losses compare, in any format that is read",
    "-style_image": "the image whose style is learnt",
    "-style_image_size": "its longer side",
    "-style_weights": "the weights of the style layers: one for all, or one for each",
    "-style_layers": "the layers of the style loss, by their numbers",
    "-style_target_type": "`gram`, or `mean`",
    "-upsample_factor": "the factor of the task `upsample`",
    "-num_iterations": "steps of training",
    "-max_train": "use this many training images at most; -1: all",
    "-batch_size": "images in a step",
    "-learning_rate": "the learning rate of Adam",
    "-lr_decay_every": "multiply the learning rate every so many steps; -1: never",
    "-lr_decay_factor": "by this",
    "-weight_decay": "taken and not used, as in the original",
    "-checkpoint_name": "the name of the checkpoint: NAME.t7 and NAME.json",
    "-checkpoint_every": "write it every so many steps",
    "-num_val_batches": "batches of the validation at each checkpoint",
    "-gpu": "the number of a GPU, or -1 for the CPU",
    "-use_cudnn": "taken and not needed",
    "-backend": "`cuda`; `opencl` is not served",
}

# What slow_neural_style.lua has besides, or with another meaning.
SLOW = {
    "-content_image": "the image whose content stays",
    "-style_image": "the image whose style is taken",
    "-image_size": "the longer side of the result",
    "-loss_type": "the distance of the losses: `L2`, or `SmoothL1`",
    "-deepdream_layers": "layers whose activations are made larger, by their numbers",
    "-deepdream_weights": "their weights: one for all, or one for each",
    "-learning_rate": "the learning rate",
    "-optimizer": "`lbfgs`, `adam` or `sgd`",
    "-num_iterations": "evaluations of the network",
    "-output_image": "the file to write",
    "-print_every": "print the losses every so many iterations",
    "-save_every": "save the image every so many iterations",
}

_INTRODUCTION = """# The options of every program

This page is written by [make_options.py](make_options.py) from the option tables of the programs themselves.

Options with one dash are the original's, with its names, defaults and parsing. Options with two dashes are this
project's; the Torch7 programs reject them, so no old command line changes its meaning. Where no default is shown, it is
empty, or the option is a switch that takes no value.
"""


def page() -> str:
    """The whole page."""
    single, multi_pass = artistic_video.SINGLE, artistic_video.MULTI_PASS
    parts = [
        _INTRODUCTION,
        "## th neural_style.lua\n\nAlso `neural_style`, `python -m legacy_style` and `python neural_style.py`.\n",
        _table(neural_style.ORIGINAL, MEANINGS),
        _table(neural_style.EXTENSIONS),
        "## th fast_neural_style.lua\n",
        _table(fast_neural_style.ORIGINAL, dict(fast_neural_style.HELP)),
        _table(fast_neural_style.EXTENSIONS),
        "## th train.lua\n",
        _table(train.ORIGINAL, TRAINING),
        _table(train.EXTENSIONS),
        "## th slow_neural_style.lua\n",
        _table(slow_neural_style.ORIGINAL, TRAINING | SLOW),
        _table(slow_neural_style.EXTENSIONS),
        f"## th {single}\n",
        _table(artistic_video.ORIGINAL[single], MEANINGS | VIDEO),
        _table(artistic_video.EXTENSIONS),
        f"## th {multi_pass}\n",
        _table(
            artistic_video.ORIGINAL[multi_pass],
            MEANINGS | VIDEO | TWIN,
        ),
        "## neural-style-athalye\n\nAlso `python neural_style.py`, with the options of this program. `--flavour 2017`"
        " has the options and defaults of the\nChinese-painting fork; its `--help` prints them.\n",
        _lines(_athalye()),
    ]
    return "\n".join(parts)


def _table(options: Iterable[Option], meanings: Mapping[str, str] = {}) -> str:
    return _lines(
        (
            each.key,
            "" if each.default is False else tostring(each.default),
            meanings.get(each.key) or each.help,
        )
        for each in options
    )


def _athalye() -> Iterator[tuple[str, str, str]]:
    for action in athalye_options.parser("current")._actions:
        if not isinstance(action, argparse._HelpAction):
            text = (action.help or "").replace("%%", "%").partition(" (default ")
            default = "" if action.default in (None, False) else str(action.default)
            yield action.option_strings[-1], default, text[0] if default else "".join(text)


def _lines(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = ["| option | default | what it does |", "|---|---|---|"]
    for key, default, meaning in rows:
        assert meaning, f"say in MEANINGS what {key} does"
        shown = f"`{default}`" if default not in ("", "nil") else ""
        lines.append(f"| `{key}` | {shown} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

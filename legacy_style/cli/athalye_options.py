"""The options of anishathalye/neural-style d0a1148 and of its fork of 2017, for argparse, and ours.

As in the originals, an option may be shortened to what tells it from all others of theirs (`arguments.expand`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from legacy_style.cli import arguments
from legacy_style.engine.colors import TRANSFERS
from legacy_style.programs.athalye.images import Flavour

NAME = "neural-style-athalye"

NETWORK = "imagenet-vgg-verydeep-19.mat"


def parser(flavour: Flavour) -> argparse.ArgumentParser:
    """The options of one version, its defaults, and ours in a group of their own."""
    current = flavour == "current"
    result = arguments.Parser(
        description="Paint the content image in the style of the others: anishathalye/neural-style"
        + ("" if current else " as the Chinese-painting fork of 2017 had it")
        + ", on the PyTorch network of legacy-style."
    )
    _add_original(result, current)
    ours = result.add_argument_group("options of this version")
    ours.add_argument(
        "--flavour",
        choices=("current", "2017"),
        default="current",
        help="which of the two versions (default current)",
    )
    ours.add_argument(
        "--seed", type=int, metavar="N", help="repeat the noise of a run (default: another each time)"
    )
    ours.add_argument(
        "--color-transfer",
        choices=TRANSFERS,
        help="match, pca, chol or sym: give the style images the content's colours first; luminance: transfer the style"
        " of gray images; lab: give the result the content's colours",
    )
    ours.add_argument("--exif-rotate", action="store_true", help="turn photographs upright as EXIF says")
    ours.add_argument(
        "--matconvnet-orientation",
        choices=("wh", "hw"),
        help="wh: use the kernels transposed, as the original reads a .mat (default for a .mat);"
        " hw: as they were trained (default for other files)",
    )
    arguments.add_run_options(ours, "at each of --checkpoint-iterations, at the end")
    return result


def _add_original(result: argparse.ArgumentParser, current: bool) -> None:
    def add(name: str, help: str, **keywords: Any) -> None:
        keywords.setdefault("metavar", name[2:].upper().replace("-", "_"))
        default = keywords.get("default")
        result.add_argument(name, help=help if default is None else f"{help} (default {default})", **keywords)

    def switch(name: str, help: str) -> None:
        result.add_argument(name, help=help, action="store_true")

    add("--content", "the content image", required=True)
    add("--styles", "one style image or more", required=True, nargs="+", metavar="STYLE")
    add("--output", "the file to write", required=True)
    add("--iterations", "steps of Adam", type=int, default=1000 if current else 300)
    add("--print-iterations", "print the losses every so many iterations", type=int)
    example = "out_%%05d.jpg or out_{:05}.jpg" if current else "out_%%s.jpg"
    add("--checkpoint-output", f"name of the intermediate images, such as {example}", metavar="OUTPUT")
    add("--checkpoint-iterations", "write one every so many iterations", type=int)
    if current:
        switch("--progress-write", "write the losses to progress.txt beside the output")
        switch("--progress-plot", "draw the losses in progress.png beside the output; needs matplotlib")
    add("--width", "width of the output; the content's own unless given", type=int)
    add(
        "--style-scales",
        "sizes of the style images relative to the content",
        type=float,
        nargs="+",
        metavar="STYLE_SCALE",
    )
    add(
        "--network",
        f"the network: .mat, .caffemodel or .pth (default {NETWORK}; without it, the bundled VGG-16)",
        metavar="VGG_PATH",
    )
    add(
        "--content-weight-blend",
        "share of relu4_2 in the content loss, the rest is relu5_2's",
        type=float,
        default=1,
    )
    add("--content-weight", "weight of the content loss", type=float, default=5.0)
    add("--style-weight", "weight of the style loss", type=float, default=500.0)
    add(
        "--style-layer-weight-exp",
        "weight of each style layer relative to the one below",
        type=float,
        default=1,
    )
    add(
        "--style-blend-weights",
        "weights of the style images",
        type=float,
        nargs="+",
        metavar="STYLE_BLEND_WEIGHT",
    )
    add("--tv-weight", "weight of the total variation", type=float, default=100.0)
    add("--learning-rate", "how far Adam steps, in levels of 0..255", type=float, default=10.0)
    add("--beta1", "Adam's decay of the mean", type=float, default=0.9)
    add("--beta2", "Adam's decay of the variance", type=float, default=0.999)
    add("--eps", "Adam's epsilon", type=float, default=1e-8, metavar="EPSILON", dest="epsilon")
    add("--initial", "the image to start from; noise unless given")
    add(
        "--initial-noiseblend",
        "share of noise in the start image, 0 to 1; below 1 without --initial, the content is the rest",
        type=float,
    )
    switch("--preserve-colors", "keep the content's colours, take only the brightness over")
    add("--pooling", "max or avg", default="max")
    if current:
        switch("--overwrite", "replace the output if it exists")


def parse(words: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The parser of the flavour that `words` ask for, and what it makes of them; exits as argparse does."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--flavour", default="current")
    flavour: Flavour = "2017" if first.parse_known_args(words)[0].flavour == "2017" else "current"
    chosen, original = parser(flavour), argparse.ArgumentParser(add_help=False)
    _add_original(original, flavour == "current")
    in_full = arguments.expand(words, arguments.names(original), arguments.names(chosen))
    return chosen, chosen.parse_args(list(in_full))

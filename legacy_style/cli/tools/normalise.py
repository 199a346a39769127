"""Make Gatys' normalised network: MODEL rescaled so that every channel's mean activation over the images in
FOLDER is 1, its function unchanged up to those scales. OUT's extension says what is written.

Some images are held back; on them the deviation from 1 shows how far the means carry over, and the change of
the function, which must be rounding alone, is printed too.

\b
Example:
  legacy-style normalise models/vgg16_conv.pth photos/ vgg16_normalised.pth
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import torch
from torch import Tensor

from legacy_style.cli import process
from legacy_style.errors import OptionError
from legacy_style.formats import model_files
from legacy_style.programs.neural_style import pixels
from legacy_style.toolkit import convert, normalise
from legacy_style.torch7 import image as torch_image

IMAGES = {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}

# Rounding alone changes the function by about this; more is a mistake.
MOST_CHANGE = 1e-3


@click.command(help=__doc__)
@click.argument("model", type=click.Path(dir_okay=False))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(dir_okay=False))
@click.option("--until", metavar="LAYER", help="Keep the layers up to this one.")
@click.option(
    "--image-size",
    type=click.IntRange(32),
    default=256,
    show_default=True,
    help="Scale larger images to this many pixels on their longer side.",
)
@click.option(
    "--hold-back",
    type=click.IntRange(2),
    default=5,
    show_default=True,
    metavar="N",
    help="Try the result on every Nth image, and measure on the others.",
)
@click.option("--half", is_flag=True, help="Half precision.")
@click.option(
    "--matconvnet-orientation",
    type=click.Choice(["hw", "wh"]),
    default="hw",
    show_default=True,
    help="How to read a .mat's kernels.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def main(
    model: str,
    folder: Path,
    output: str,
    until: str | None,
    image_size: int,
    hold_back: int,
    half: bool,
    matconvnet_orientation: str,
    as_json: bool,
) -> int:
    """The command; see the module's docstring."""
    form = convert.Form(half=half)
    convert.kind_of(output)
    used, held = split(found(folder), hold_back)
    net = model_files.load(model, matconvnet_orientation=matconvnet_orientation)
    if until:
        net = convert.until(net, until)
    means = normalise.mean_activations(net, loaded(used, image_size, "Measuring"))
    made = normalise.normalised(net, means)
    convert.write(output, made, form)
    written = convert.check(output, made, form)
    tried = list(loaded(held, image_size, "Trying"))
    rows = normalise.deviations(net, written, means, tried)
    if as_json:
        answer = {
            "output": output,
            "measured": len(used),
            "held_back": len(held),
            "layers": [asdict(r) for r in rows],
        }
        click.echo(json.dumps(answer, indent=2))
    else:
        show(rows, len(used), len(held))
        process.echo(f"{output}: {Path(output).stat().st_size} bytes")
    process.echo(
        "Its losses are far smaller than those of the network that it was made from, so that the default -tv_weight"
        " smooths everything away, to a gray sheet: give -tv_weight 0",
        err=True,
    )
    worst = max((row.change for row in rows), default=0.0)
    if worst > MOST_CHANGE and not half:
        process.echo(f"legacy-style: the function changed by {worst:.2g} of the largest output", err=True)
        return 1
    return 0


def found(folder: Path) -> list[Path]:
    """The image files in the folder and the folders in it, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    if len(paths) < 2:
        raise OptionError(
            f"{folder}: has {len(paths)} images, expected two or more: one to measure on, one to try"
        )
    return paths


def split(paths: list[Path], hold_back: int) -> tuple[list[Path], list[Path]]:
    """What to measure on, and what to try the result on: every `hold_back`th, or the last."""
    held = paths[hold_back - 1 :: hold_back] or paths[-1:]
    return [path for path in paths if path not in held], held


def loaded(paths: list[Path], size: int, doing: str) -> Iterator[Tensor]:
    """The images in Caffe units, (1, 3, H, W), one at a time, with a line of progress for every tenth."""
    for number, path in enumerate(paths, 1):
        if number % 10 == 1 or number == len(paths):
            process.echo(f"{doing}: image {number} of {len(paths)}", err=True)
        image = torch_image.load_scaled(path, size, enlarge=False)
        yield torch.from_numpy(pixels.preprocess(image)).float()[None]


def show(rows: list[normalise.Deviation], measured: int, held: int) -> None:
    """Prints the table of deviations."""
    width = max([len(row.layer) for row in rows], default=5)
    process.echo(f"{held} images held back, {measured} measured; mean activations against 1:")
    process.echo(f"{'layer':{width}}  mean |m-1|  largest |m-1|  silent channels  change of the function")
    for r in rows:
        process.echo(f"{r.layer:{width}}  {r.mean:10.4g}  {r.largest:13.4g}  {r.silent:15}  {r.change:22.3g}")

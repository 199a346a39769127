"""Convert a model file: IN is a .caffemodel, .mat, .t7, .pth, .safetensors or .npz, told by its content; OUT's
extension (.pth, .safetensors, .npz, .caffemodel, .t7) says what is written.

The output is read back and compared bit for bit, and one image goes through both networks; the table shows
the largest difference per layer.

\b
Examples:
  legacy-style convert models/VGG_ILSVRC_19_layers.caffemodel models/vgg19.pth
  legacy-style convert --half --until pool5 models/VGG_ILSVRC_19_layers.caffemodel vgg19_conv.pth
  legacy-style convert imagenet-vgg-verydeep-19.mat vgg19.caffemodel --prototxt vgg19.prototxt
  legacy-style convert models/instance_norm/candy.t7 candy.pth
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import torch
from torch import Tensor

from legacy_style.cli import process
from legacy_style.files import write_whole
from legacy_style.formats import model_files
from legacy_style.programs.neural_style import pixels
from legacy_style.toolkit import convert
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7 import image_files


@click.command(help=__doc__)
@click.argument("source", metavar="IN", type=click.Path(dir_okay=False))
@click.argument("output", metavar="OUT", type=click.Path(dir_okay=False))
@click.option("--half", is_flag=True, help="Half precision: half the size (all but .caffemodel).")
@click.option("--until", metavar="LAYER", help="Keep the layers up to this one.")
@click.option(
    "--names",
    type=click.Choice(["caffe", "torchvision"]),
    default="caffe",
    show_default=True,
    help="What to call the weights (all but .caffemodel).",
)
@click.option(
    "--bgr/--rgb", default=True, help="The order of the channels that OUT expects (RGB: all but .caffemodel)."
)
@click.option("--caffe-version", type=click.Choice(["V1", "V2"]), help="Of a .caffemodel; else as IN has it.")
@click.option(
    "--prototxt", type=click.Path(dir_okay=False), help="Write the list of layers to this file, too."
)
@click.option(
    "--matconvnet-orientation",
    type=click.Choice(["hw", "wh"]),
    default="hw",
    show_default=True,
    help="How to read a .mat's kernels; wh transposes them, as anishathalye/neural-style does.",
)
@click.option("--allow-torchvision", is_flag=True, help="Accept the weights that torchvision trained itself.")
@click.option(
    "--image", type=click.Path(dir_okay=False), help="Try both networks on this image, not a made-up one."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def main(
    source: str,
    output: str,
    half: bool,
    until: str | None,
    names: str,
    bgr: bool,
    caffe_version: str | None,
    prototxt: str | None,
    matconvnet_orientation: str,
    allow_torchvision: bool,
    image: str | None,
    as_json: bool,
) -> None:
    """The command; see the module's docstring."""
    form = convert.Form(half, names, not bgr, caffe_version or "")
    convert.kind_of(output)
    if image is not None:
        image_files.check(image)
    process.echo(f"Reading {source}", err=True)
    net = model_files.load(
        source, matconvnet_orientation=matconvnet_orientation, allow_torchvision=allow_torchvision
    )
    if until:
        net = convert.until(net, until)
    tried = convert.test_image(*convert.input_size(net)) if image is None else caffe_image(image)
    process.echo(f"Writing {output}", err=True)
    convert.write(output, net, form)
    if prototxt:
        write_whole(prototxt, convert.prototxt(net).encode("utf-8", "surrogateescape"))
    process.echo("Reading it back, and running an image through both", err=True)
    written = convert.check(output, net, form)
    differences, ended = convert.compare(net, written, tried)
    size = Path(output).stat().st_size
    blobs = sum(len(layer.blobs) for layer in net.layers)
    if as_json:
        listed = [asdict(difference) for difference in differences]
        click.echo(
            json.dumps(
                {
                    "output": output,
                    "bytes": size,
                    "blobs": blobs,
                    "equal": True,
                    "layers": listed,
                    "ended": ended,
                },
                indent=2,
            )
        )
        return
    show(differences, ended)
    rounded = " after rounding to half precision" if half else ""
    process.echo(f"{output}: {size} bytes; all {blobs} blobs read back bit for bit{rounded}")


def caffe_image(path: str) -> Tensor:
    """An image file as the main program shows it to a network, its longer side 256 at most: (1, 3, H, W)."""
    loaded = torch_image.load_scaled(path, 256, enlarge=False)
    return torch.from_numpy(pixels.preprocess(loaded)).float()[None]


def show(differences: list[convert.Difference], ended: str) -> None:
    """Prints the table, and why it is shorter than the network."""
    if not differences and ended:
        process.echo(f"No image was run through both: {ended}")
        return
    width = max([len(d.layer) for d in differences], default=5)
    process.echo(f"{'layer':{width}}  largest difference  of outputs up to")
    for d in differences:
        process.echo(f"{d.layer:{width}}  {d.difference:18.6g}  {d.largest:16.6g}")
    if ended:
        process.echo(f"The image went no further: {ended}")

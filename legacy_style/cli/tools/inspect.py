"""Show what is in a model file (.caffemodel, .mat, .t7, .pth, .safetensors, .npz): layers, shapes, statistics, what
each layer sees of the image, which names the style options may use, and which published file it is.

\b
Examples:
  legacy-style inspect models/vgg16_conv.pth
  legacy-style inspect models/vgg16_conv.pth --filters filters.png
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import click
from PIL import Image

from legacy_style.cli import process
from legacy_style.files import replacing
from legacy_style.formats import model_files
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.toolkit import convert, download, inspection
from legacy_style.toolkit import diff as model_diff

_ORIENTATION = click.option(
    "--matconvnet-orientation",
    "orientation",
    type=click.Choice(["hw", "wh"]),
    default="hw",
    show_default=True,
    help="How to read a .mat's kernels.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.command(help=__doc__)
@click.argument("model", type=click.Path(dir_okay=False))
@click.option(
    "--filters", metavar="OUT.png", type=click.Path(dir_okay=False), help="Draw the first layer's filters."
)
@click.option(
    "--size",
    metavar="HEIGHTxWIDTH",
    help="The image that outputs are given for; else the model's own, or 224x224.",
)
@click.option("--no-statistics", is_flag=True, help="Leave the weights unread.")
@click.option("--no-checksum", is_flag=True, help="Do not look the file up in the registry.")
@_ORIENTATION
@_JSON
def main(
    model: str,
    filters: str | None,
    size: str | None,
    no_statistics: bool,
    no_checksum: bool,
    orientation: str,
    as_json: bool,
) -> None:
    """The command; see the module's docstring."""
    net = load(model, orientation)
    height, width = convert.input_size(net) if size is None else parsed_size(size)
    if filters is not None:
        picture = Image.fromarray(inspection.filters(net))
        with replacing(filters) as file:
            picture.save(file, "PNG")
    rows = inspection.rows(net, height, width, statistics=not no_statistics)
    entry = None if no_checksum else download.find_by_checksum(download.measure(net.path))
    known = None if entry is None else f"{entry.name}, {entry.licence}"
    if as_json:
        click.echo(
            json.dumps(
                {
                    "path": net.path,
                    "version": net.version,
                    "name": net.name,
                    "registry": known,
                    "mean_pixel_bgr": net.mean_pixel,
                    "notes": net.notes,
                    "image": [height, width],
                    "layers": [asdict(row) for row in rows],
                },
                indent=2,
            )
        )
        return
    show_head(net, known, no_checksum)
    show_table(rows, height, width)


def load(path: str, orientation: str) -> NetParameter:
    """A model of whatever origin, torchvision's own too: looking does no harm."""
    return model_files.load(path, matconvnet_orientation=orientation, allow_torchvision=True)


def parsed_size(text: str) -> tuple[int, int]:
    """Height and width from "480x640"."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= 65536 for part in parts):
        raise click.UsageError(f"--size is {text!r}, expected for example 480x640 (height x width)")
    return int(parts[0]), int(parts[1])


def show_head(net: NetParameter, known: str | None, unasked: bool) -> None:
    """Prints what the file is."""
    kind = f"Caffe {net.version}" if net.version else "not Caffe's own format"
    process.echo(f"{net.path}: {kind}{f', network {net.name!r}' if net.name else ''}")
    if not unasked:
        process.echo(f"registry: {known or 'no published file has this checksum'}")
    if net.mean_pixel is not None:
        process.echo("mean pixel (BGR): " + ", ".join(f"{value:g}" for value in net.mean_pixel))
    for note in net.notes:
        process.echo(f"the file says {note}")


def show_table(rows: list[inspection.LayerRow], height: int, width: int) -> None:
    """Prints one line per layer, more for further blobs."""
    table = [["", "layer", "type", "output", "sees", "step", "blob", "shape", "mean", "deviation", "range"]]
    for row in rows:
        geometry = row.geometry
        cells = ["*" if row.usable else "", row.name, row.type]
        cells.append("?" if geometry is None else sizes(geometry.shape))
        cells.append("?" if geometry is None else "all" if geometry.field is None else pair(geometry.field))
        cells.append("?" if geometry is None else pair(geometry.step))
        for index, blob in enumerate(row.blobs or [None]):
            table.append((cells if index == 0 else [""] * len(cells)) + blob_cells(blob))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        process.echo("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())
    total = sum(row.parameters for row in rows)
    process.echo(f"{total} parameters. Outputs are for images of {height}x{width} (height x width).")
    process.echo("* may be named by -content_layers and -style_layers")


def blob_cells(blob: inspection.BlobRow | None) -> list[str]:
    """The cells of one blob: name, shape, statistics."""
    if blob is None:
        return [""] * 5
    s = blob.statistics
    if s is None:
        return [blob.part, sizes(blob.shape), "", "", ""]
    bad = f", {s.not_finite} not finite" if s.not_finite else ""
    zeros = f", {s.zeros:.0%} zeros" if s.zeros > 0.005 else ""
    spread = f"{s.minimum:.3g} to {s.maximum:.3g}{zeros}{bad}"
    return [blob.part, sizes(blob.shape), f"{s.mean:.3g}", f"{s.deviation:.3g}", spread]


def sizes(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def pair(numbers: tuple[float, float]) -> str:
    """One number where both are the same."""
    return f"{numbers[0]:g}" if numbers[0] == numbers[1] else f"{numbers[0]:g}x{numbers[1]:g}"


@click.command()
@click.argument("a", type=click.Path(dir_okay=False))
@click.argument("b", type=click.Path(dir_okay=False))
@_ORIENTATION
@_JSON
def diff(a: str, b: str, orientation: str, as_json: bool) -> int:
    """Compare the weights of the model files A and B, layer by layer.

    They may be of different formats. What conversions do to weights is recognised: kernels that are transposed, RGB
    for BGR, half precision, scales. The exit status is 1 if they are not the same.
    """
    first, second = load(a, orientation), load(b, orientation)
    lines = model_diff.compare(first, second)
    verdict = model_diff.verdict(lines)
    if as_json:
        listed: list[dict[str, Any]] = [
            {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in asdict(line).items()}
            for line in lines
        ]
        click.echo(json.dumps({"verdict": verdict, "layers": listed}, indent=2))
    else:
        width = max([len(line.layer) for line in lines], default=5)
        for line in lines:
            factor = "" if line.factor is None else f" by {line.factor:.6g}"
            largest = "" if math.isnan(line.largest) else f", largest difference {line.largest:.6g}"
            process.echo(f"{line.layer:{width}}  {line.relation}{factor}{largest if line.largest else ''}")
        process.echo(f"{first.path} and {second.path}: {verdict}")
    return 0 if verdict.startswith("the same") else 1

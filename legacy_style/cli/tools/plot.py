"""Draw the losses of PICTURES, which were made with --metadata, over their iterations, on a logarithmic scale.

OUT is an .svg or a .png file.

\b
Example:
  legacy-style plot out.png other.png --output losses.svg
"""

from __future__ import annotations

import click

from legacy_style.cli import process
from legacy_style.errors import OptionError
from legacy_style.files import write_whole
from legacy_style.programs.neural_style import record
from legacy_style.toolkit import lossplot


@click.command(help=__doc__)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option(
    "-o", "--output", metavar="OUT", default="losses.svg", show_default=True, type=click.Path(dir_okay=False)
)
@click.option("--layers", is_flag=True, help="A curve for each layer too, where there is one picture.")
def main(pictures: tuple[str, ...], output: str, layers: bool) -> None:
    """The command; see the module's docstring."""
    if layers and len(pictures) > 1:
        raise OptionError("--layers draws the layers of one picture; name one")
    curves = []
    for picture in pictures:
        found = record.read(picture)
        if found is None:
            raise OptionError(f"{picture}: holds no losses; make the picture with --metadata")
        curves += lossplot.curves(picture, found, layers=layers)
    write_whole(output, lossplot.draw(curves, output))
    process.echo(f"{output}: {len(curves)} curve{'s' if len(curves) > 1 else ''}")

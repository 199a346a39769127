"""Give IMAGE the colours of REFERENCE and write it to OUT: what people do to a style image before a style transfer, so
that the picture keeps the photograph's colours.

Mean and covariance of the colours become those of REFERENCE (Gatys et al. 2016, "Preserving Color in Neural Artistic
Style Transfer", section 3). The modes pca, chol and sym are those of linear-color-transfer.py. The modes luminance and
lab are for the result of a style transfer: it keeps its lightness, and each pixel gets the colour that REFERENCE has
there.

\b
Examples:
  legacy-style colors painting.jpg photo.jpg painting_in_the_photo_s_colours.png
  legacy-style colors out.png photo.jpg out_in_the_photo_s_colours.png --mode lab
"""

from __future__ import annotations

import click

from legacy_style.cli import process
from legacy_style.engine import colors
from legacy_style.torch7 import image as torch_image


@click.command(help=__doc__)
@click.argument("image", type=click.Path(dir_okay=False))
@click.argument("reference", type=click.Path(dir_okay=False))
@click.argument("output", metavar="OUT", type=click.Path(dir_okay=False))
@click.option(
    "--mode",
    type=click.Choice([*colors.MODES, *colors.RECOLOR]),
    default="pca",
    show_default=True,
    help="Which of the maps with that mean and covariance; or pixel by pixel.",
)
def main(image: str, reference: str, output: str, mode: str) -> None:
    """The command; see the module's docstring."""
    torch_image.check_can_save(output)
    picture, other = torch_image.load(image), torch_image.load(reference)
    if mode in colors.RECOLOR:
        other = torch_image.scale_to(other, picture.shape[2], picture.shape[1])
        torch_image.save(output, colors.after(mode, other, picture))
    else:
        torch_image.save(output, colors.match(picture, other, mode))
    process.echo(f"{output}: the colours of {reference}")

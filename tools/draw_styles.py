"""Draws the style images of examples/: `python tools/draw_styles.py` in the checkout's folder.

They are ours, so a checkout needs no painting whose licence forbids copying. The same seed draws the same
pictures, up to the rounding of another machine's arithmetic.
"""

from __future__ import annotations

from pathlib import Path

import click
from drawing import impasto, ink_wash, mosaic

STYLES = {"ink_wash": ink_wash.draw, "impasto": impasto.draw, "mosaic": mosaic.draw}
SEED = 8


def save(name: str, folder: Path, size: tuple[int, int], seed: int) -> Path:
    """Draws one style and writes it to `folder`/NAME.jpg; returns that path."""
    path = folder / f"{name}.jpg"
    part = folder / f"{name}.part.jpg"
    STYLES[name](size, seed).save(part, quality=90, optimize=True)
    return part.replace(path)


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False), default="examples")
@click.option(
    "--only", type=click.Choice(sorted(STYLES)), multiple=True, help="Draw this one; may be repeated."
)
@click.option("--size", default="640x512", show_default=True, metavar="WIDTHxHEIGHT")
@click.option("--seed", default=SEED, show_default=True, help="Another seed draws another picture.")
def main(out: Path, only: tuple[str, ...], size: str, seed: int) -> None:
    """Draw the style images into the folder OUT (examples if not given)."""
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 64):
        raise click.BadParameter(f"{size!r} is not WIDTHxHEIGHT with both at least 64", param_hint="--size")
    out.mkdir(parents=True, exist_ok=True)
    for name in only or STYLES:
        click.echo(save(name, out, (int(width), int(height)), seed))


if __name__ == "__main__":
    main()

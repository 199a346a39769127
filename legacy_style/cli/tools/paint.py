"""`legacy-style paint PHOTO OUT`: a photograph, or a folder of them, in the style of a painter in the box."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from legacy_style.cli import process
from legacy_style.cli.gpu import GPU_OPTION

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm")


@click.command("paint", short_help="Paint a photograph, or a folder of them, in a second each.")
@click.argument("photo")
@click.argument("out")
@click.option(
    "--style",
    default="ink",
    show_default=True,
    help="A style in the box (ink), or a network that th train.lua wrote (NAME.t7).",
)
@click.option(
    "--size",
    default=1024,
    show_default=True,
    type=click.IntRange(0),
    help="Longer side that a larger photograph is scaled down to; 0: paint it as it is.",
)
@click.option(
    "--tile",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Rows of the photograph to work on at a time; 0: all, or 256 where it is large. The result is the same.",
)
@GPU_OPTION
def paint(photo: str, out: str, style: str, size: int, tile: int, gpu: int | None) -> None:
    """Paint PHOTO and write the picture OUT (.png or .jpg).

    Where PHOTO is a folder, every photograph in it is painted into the folder OUT, under its own name.

    \b
    Examples:
      legacy-style paint examples/china.jpg ink.png
      legacy-style paint photos/ painted/ --style tiny.t7
    """
    from legacy_style.errors import LegacyStyleError, UnsupportedError
    from legacy_style.programs import devices
    from legacy_style.programs.fast_neural_style import painter
    from legacy_style.torch7 import image, image_files

    jobs = list(_jobs(Path(photo), Path(out)))
    for source, _ in jobs[:1]:
        image_files.check(source)
    device = devices.of_option(gpu, partial(process.say, "legacy-style paint"))
    brush = painter.load(style, device)
    failed = 0
    for source, target in jobs:
        try:
            image.check_can_save(target)
            photograph = painter.load_photograph(str(source), size)
            try:
                picture = brush.paint(photograph, tile)
            except UnsupportedError as error:
                raise UnsupportedError(f"{source}: {error}") from None
            image.save(target, picture)
        except LegacyStyleError as error:
            if not Path(photo).is_dir():
                raise
            failed += 1
            process.say("left out", str(error))
        else:
            click.echo(str(target))
    if failed:
        raise LegacyStyleError(f"{failed} of the files in {photo} could not be painted")


def _jobs(photo: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Photograph and picture, one pair for a file and one for each photograph in a folder."""
    from legacy_style.errors import OptionError

    if not photo.is_dir():
        yield photo, out
        return
    names = sorted(path.name for path in photo.iterdir() if path.suffix.lower() in _EXTENSIONS)
    if not names:
        raise OptionError(
            f"{photo}: there are no photographs in it; names must end in {', '.join(_EXTENSIONS)}"
        )
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out}: is a file; give a folder for the pictures of a folder")
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = out / name
        yield photo / name, target.with_suffix(target.suffix.lower())

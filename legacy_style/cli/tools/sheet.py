"""Put many PICTURES, or the pictures of folders, on one sheet, with the options in which they differ.

The options are in pictures that were made with --metadata; others stand under their names.

\b
With --grid the pictures are painted first: every combination of the values, by neural_style.lua with the options
that follow two dashes. What is there already is not painted again.

\b
Examples:
  legacy-style sheet results/ --output sheet.png
  legacy-style sheet --grid style_weight=50,100,500 --grid content_weight=1,5 \\
      -- -content_image photo.jpg -style_image painting.jpg -image_size 256
"""

from __future__ import annotations

from pathlib import Path

import click

from legacy_style.cli import process
from legacy_style.errors import LegacyStyleError, OptionError
from legacy_style.files import write_whole
from legacy_style.programs.neural_style import record
from legacy_style.toolkit import contactsheet
from legacy_style.toolkit.contactsheet import SheetPicture

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm")


@click.command("sheet", help=__doc__)
@click.argument("pictures", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-o", "--output", metavar="OUT", default="sheet.png", show_default=True, help="The sheet, a PNG."
)
@click.option(
    "--size", default=256, show_default=True, type=click.IntRange(16, 4096), help="Longer side of a picture."
)
@click.option("--columns", default=0, type=click.IntRange(0), help="Pictures in a row; 0: as it looks best.")
@click.option(
    "--grid", multiple=True, metavar="NAME=V,V,…", help="Paint with each of these values of an option first."
)
@click.option(
    "--output-dir", metavar="DIR", default="grid", show_default=True, help="Folder of what --grid paints."
)
def main(
    pictures: tuple[str, ...], output: str, size: int, columns: int, grid: tuple[str, ...], output_dir: str
) -> None:
    """The command; see the module's docstring."""
    if Path(output).suffix.lower() != ".png":
        raise OptionError(f"{output}: a sheet is a PNG; end its name in .png")
    failed = 0
    if grid:
        from legacy_style.cli.tools import grid as grids

        found, failed = grids.paint(grid, pictures, output_dir)
    else:
        found = [Path(each) for each in pictures]
    results = [_result(path) for each in found for path in _pictures(each) if path != Path(output)]
    if not results:
        raise OptionError("there are no pictures to put on a sheet; name some, or a folder of them")
    write_whole(output, contactsheet.draw(contactsheet.arrange(results, columns), size))
    process.echo(f"{output}: {len(results)} picture{'s' if len(results) > 1 else ''}")
    if failed:
        raise LegacyStyleError(f"{failed} of the pictures could not be painted")


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.iterdir() if each.suffix.lower() in _EXTENSIONS)


def _result(path: Path) -> SheetPicture:
    """A picture with its options; one whose record is of no use stands under its name."""
    try:
        found = record.read(path)
    except LegacyStyleError as error:
        process.say("legacy-style", str(error))
        found = None
    except FileNotFoundError:
        raise OptionError(f"{path}: there is no such picture") from None
    return SheetPicture(path, found["options"] if found else {})

"""The sheet of labelled images that `python -m legacy_style.paper` makes, and what is told while it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from legacy_style.cli.process import Interrupts
from legacy_style.cli.watching import Show
from legacy_style.programs.athalye import images as athalye_images
from legacy_style.programs.progress import RunStep, WorkDone

if TYPE_CHECKING:
    from torch import Tensor

    from legacy_style.programs.paper.experiments import OnEvaluation, Terms

# On the sheet, in pixels: between images, and a line of text.
_GAP, _LINE = 6, 20


class Cell(NamedTuple):
    """One image of the sheet and what stands under it; `terms` None for an image that is shown as it is."""

    row: int
    column: int
    label: str
    terms: Terms | None
    image: Image.Image | None = None


def followed(
    show: Show,
    interrupts: Interrupts,
    work: Callable[[float], WorkDone],
    most: int,
    cell: Cell,
    done: Sequence[Cell],
    original: Image.Image | None,
    output: str,
) -> OnEvaluation:
    """What is told of the image of `cell`, which takes `most` evaluations.

    `work`: how far the sheet is, by the share of the image that is done. `done`: the cells that are finished;
    `original`: the image that it is made from; `output`: the sheet's file.

    What is kept of it is the sheet as far as it is, with the best image so far.
    """
    from legacy_style.programs.paper.experiments import to_image

    def follow(losses: list[float], image: Tensor, best: Tensor, share: float) -> bool:
        interrupts.check()
        so_far = work(share)

        def keep() -> str:
            path = Path(output)
            name = f"{path.with_suffix('')}_{so_far.part[0] + 1}_{len(losses)}{path.suffix}"
            save(name, [*done, cell._replace(image=to_image(best))])
            return name

        return show.follow(
            RunStep(
                iteration=len(losses),
                iterations=most,
                losses={cell.label: losses[-1]},
                work=so_far,
                picture=lambda: np.asarray(to_image(image)),
                keep=keep,
                title=cell.label,
                before=None if original is None else lambda: np.asarray(original),
            )
        )

    return follow


def save(path: str, cells: Sequence[Cell]) -> None:
    """Write the images of `cells` on one sheet, each with its label under it."""
    pictures = [cell.image for cell in cells if cell.image is not None]
    width, height = (max(side) for side in zip(*(picture.size for picture in pictures), strict=True))
    font = ImageFont.load_default(size=_LINE * 0.65)
    columns, rows = (
        max(positions) + 1 for positions in zip(*((c.column, c.row) for c in cells), strict=True)
    )
    step = (max(width, max(int(font.getlength(cell.label)) for cell in cells)) + _GAP, height + _LINE + _GAP)
    sheet = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for cell in cells:
        left, top = _GAP + cell.column * step[0], _GAP + cell.row * step[1]
        if cell.image is not None:
            sheet.paste(cell.image, (left, top))
        draw.text((left, top + height + 2), cell.label, "black", font)
    athalye_images.save(path, np.asarray(sheet))

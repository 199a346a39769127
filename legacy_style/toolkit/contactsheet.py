"""A contact sheet: many results in one picture, each with the options in which it differs from the others.

Where they differ in two options, and no two pictures have the same of both, these are its rows and columns. The options
are those in the records that --metadata keeps (`programs.neural_style.record`).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from legacy_style.errors import OptionError
from legacy_style.torch7 import image as torch_image

_GAP, _MARGIN, _LINE = 18, 28, 20  # pixels
_FONT = 15
_INK, _PAPER, _FRAME = "#1f1d1a", "#ffffff", "#d9d4c8"
_MOST_PIXELS = 200_000_000  # of a sheet

# Options that say where files lie or what was printed, not how a picture looks.
_ABOUT_FILES = ("output_image", "checkpoint", "resume", "metadata", "print_iter", "save_iter", "max_pixels")


@dataclass(frozen=True)
class SheetPicture:
    """A picture, and the options in its record; none where it has no record."""

    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SheetLayout:
    """Pictures in rows, None for a gap; what stands under each, before each row and above each column."""

    rows: list[list[SheetPicture | None]]
    labels: Mapping[Path, str] = field(default_factory=dict)
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()


def differing(results: Sequence[SheetPicture]) -> list[str]:
    """The names of the options in which results differ, in the order in which the records have them."""
    names = dict.fromkeys(name for result in results for name in result.options if name not in _ABOUT_FILES)
    return [name for name in names if len({_text(result, name) for result in results}) > 1]


def arrange(results: Sequence[SheetPicture], columns: int = 0) -> SheetLayout:
    """Rows and columns of two options where results differ in two; else `columns` in a row, 0: about a square."""
    names = differing(results)
    if len(names) == 2 and not columns:
        down, across = names
        places = {(_text(each, down), _text(each, across)): each for each in results}
        if len(places) == len(results):
            rows, heads = _values(results, down), _values(results, across)
            return SheetLayout(
                [[places.get((row, head)) for head in heads] for row in rows],
                row_names=[f"{down} {row}" for row in rows],
                column_names=[f"{across} {head}" for head in heads],
            )
    many = min(columns or math.ceil(math.sqrt(len(results))), len(results))
    labels = {
        each.path: ", ".join(f"{name} {_text(each, name)}" for name in names if name in each.options)
        or each.path.name
        for each in results
    }
    return SheetLayout([list(results[at : at + many]) for at in range(0, len(results), many)], labels)


def _values(results: Sequence[SheetPicture], name: str) -> list[str]:
    """The values of an option, by size where they are numbers, else in the order of the results."""
    values: dict[str, Any] = {_text(each, name): each.options.get(name) for each in results}
    if all(isinstance(value, int | float) for value in values.values()):
        return sorted(values, key=lambda text: float(values[text]))
    return list(values)


def _text(result: SheetPicture, name: str) -> str:
    value = result.options.get(name)
    if isinstance(value, float):
        return f"{value:.14g}"
    return Path(value).name if isinstance(value, str) and "/" in value and "," not in value else str(value)


def draw(layout: SheetLayout, size: int) -> bytes:
    """The sheet as a PNG, its pictures `size` pixels wide and high at most. Raises the errors of reading them."""
    pictures = {each.path: _small(each.path, size) for row in layout.rows for each in row if each is not None}
    wide = max(each.width for each in pictures.values())
    high = max(each.height for each in pictures.values())
    font = ImageFont.load_default(size=_FONT)
    labels = {path: _wrapped(text, font, wide) for path, text in layout.labels.items()}
    under = _LINE * max((len(lines) for lines in labels.values()), default=0)
    left = max((math.ceil(font.getlength(name)) + _GAP for name in layout.row_names), default=0)
    heads = [_wrapped(name, font, wide) for name in layout.column_names]
    top = _LINE * max((len(lines) for lines in heads), default=0)
    columns = max(len(row) for row in layout.rows)
    width = 2 * _MARGIN + left + columns * (wide + _GAP) - _GAP
    height = 2 * _MARGIN + top + len(layout.rows) * (high + under + _GAP) - _GAP
    if width * height > _MOST_PIXELS:
        raise OptionError(f"a sheet of {width}x{height} pixels is too large; choose a smaller --size")
    sheet = Image.new("RGB", (width, height), _PAPER)
    canvas = ImageDraw.Draw(sheet)

    def write(lines: Sequence[str], x: float, y: float, anchor: str) -> None:
        for number, line in enumerate(lines):
            canvas.text((x, y + number * _LINE), line, fill=_INK, font=font, anchor=anchor)

    for number, lines in enumerate(heads):
        write(lines, _MARGIN + left + number * (wide + _GAP) + wide / 2, _MARGIN, "ma")
    for down, row in enumerate(layout.rows):
        y = _MARGIN + top + down * (high + under + _GAP)
        if layout.row_names:
            write([layout.row_names[down]], _MARGIN, y + high / 2, "lm")
        for across, each in enumerate(row):
            x = _MARGIN + left + across * (wide + _GAP)
            if each is None:
                canvas.rectangle((x, y, x + wide - 1, y + high - 1), outline=_FRAME)
                continue
            picture = pictures[each.path]
            place = x + (wide - picture.width) // 2, y + (high - picture.height) // 2
            sheet.paste(picture, place)
            write(labels.get(each.path, []), x + wide / 2, y + high + 6, "ma")
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _small(path: Path, size: int) -> Image.Image:
    picture = Image.fromarray(torch_image.to_bytes(torch_image.load(path)))
    picture.thumbnail((size, size))
    return picture


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """Lines of at most `width` pixels; a word that is longer is cut."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width:
            lines.append("")
        shown = f"{lines[-1]} {word}".strip()
        while font.getlength(shown) > width:
            shown = f"{shown[:-2]}…" if len(shown) > 2 else ""
        lines[-1] = shown
    return lines

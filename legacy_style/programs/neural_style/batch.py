"""Many pictures in one go: which runs `--batch` means, and which of them are done already.

A batch is every photograph of a folder or a pattern, or every row of a CSV file; with a folder for -style_image, in
every style of it. What was painted stands in `batch.json` in the folder of the results, with a digest of everything
that decides on a picture: so a batch that was interrupted, or whose options or files have changed, paints what is
missing.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import glob
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from legacy_style.errors import FormatError, OptionError
from legacy_style.files import sha256, write_whole
from legacy_style.programs.neural_style import options as option_table
from legacy_style.programs.neural_style import region_maps
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.settings import model_file
from legacy_style.torch7 import cmdline
from legacy_style.torch7.cmdline import split_list

JOURNAL = "batch.json"
_FORMAT = "legacy-style batch 1"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm")

_SHORT = {"content": "content_image", "style": "style_image", "output": "output_image"}
"""Columns of a CSV file that may be named so."""

_FREE = ("output_image", "print_iter", "save_iter", "checkpoint", "metadata", "max_pixels")
"""Options that change nothing in the picture."""


def jobs(options: Options, pattern: str, folder: str) -> list[Options]:
    """The options of each picture, whose files lie in `folder`. Raises OptionError, also where two would be one file.

    `pattern`: a folder, names with * and ?, a CSV file, or nothing for the one content image of `options`.
    """
    if not folder:
        raise OptionError("--batch needs a folder for the pictures: give --output-dir")
    if options.checkpoint or options.resume:
        raise OptionError("--checkpoint and --resume belong to one run, and a batch is many: leave them out")
    found = list(
        _rows(options, pattern) if pattern.lower().endswith(".csv") else _photographs(options, pattern)
    )
    result = []
    seen: dict[str, str] = {}
    for each, output in found:
        path = str(Path(folder) / output)
        if path in seen:
            raise OptionError(
                f"--batch: {seen[path]} and {each.content_image} would both become {path}; rename one of them"
            )
        seen[path] = each.content_image
        result.append(each.changed(output_image=path))
    return result


def _photographs(options: Options, pattern: str) -> Iterator[tuple[Options, str]]:
    if not pattern:
        photos = [options.content_image]
    elif Path(pattern).is_dir():
        photos = _images(Path(pattern), "--batch")
    else:
        # Not Path.glob, which takes no pattern that begins at the root.
        matching = glob.glob(pattern, recursive=True)  # noqa: PTH207
        photos = sorted(name for name in matching if Path(name).is_file())
        if not photos:
            raise OptionError(
                f"--batch {pattern}: there is no such file; name a folder, or a pattern in quotes"
            )
    folder = Path(options.style_image)
    styles = _images(folder, "-style_image") if folder.is_dir() else [options.style_image]
    suffix = Path(options.output_image).suffix
    for style in styles:
        for photo in photos:
            name = Path(photo).stem if len(styles) == 1 else f"{Path(photo).stem}_{Path(style).stem}"
            yield options.changed(content_image=photo, style_image=style), name + suffix


def _images(folder: Path, option: str) -> list[str]:
    names = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    if not names:
        raise OptionError(
            f"{option} {folder}: there are no images in it; names end in {', '.join(EXTENSIONS)}"
        )
    return names


def _rows(options: Options, path: str) -> Iterator[tuple[Options, str]]:
    """The rows of a CSV file with the columns content, style, output, and any option; an empty cell changes nothing."""
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not text in UTF-8 (byte {error.start}); save it as such") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise FormatError(f"{path}, line {reader.line_num + 1}: {error}") from None
    known = {
        option.key.lstrip("-").replace("-", "_"): option
        for option in (*option_table.ORIGINAL, *option_table.EXTENSIONS)
    }
    names = [_SHORT.get(name, name) for name in reader.fieldnames or []]
    for name in names:
        if name not in known or not hasattr(Options, name):
            raise OptionError(
                f"{path}: the column {name!r} is no option; columns are content, style, output, and options"
            )
    if not rows:
        raise OptionError(f"{path}: there are no rows below its first line, which names the columns")
    for line, row in enumerate(rows, 2):
        cells = {_SHORT.get(str(name), str(name)): value for name, value in row.items()}
        if None in row or None in row.values():
            raise FormatError(f"{path}, line {line}: it has more or fewer cells than the first line")
        words = [word for name, value in cells.items() if value for word in _words(known[name], value)]
        try:
            parsed = cmdline.parse(tuple(known.values()), words) or {}
            changed = options.changed(
                **{key.lstrip("-").replace("-", "_"): value for key, value in parsed.items()}
            )
        except OptionError as error:
            raise OptionError(f"{path}, line {line}: {error}") from None
        output = Path(changed.output_image)
        default = Path(changed.content_image).stem + output.suffix
        yield changed, str(output) if cells.get("output_image") else default


def _words(option: cmdline.Option, value: str) -> list[str]:
    """A cell as words of a command line; a switch is on where its cell is 1, true or yes."""
    if not isinstance(option.default, bool):
        return [option.key, value]
    return [option.key] if value.lower() in ("1", "true", "yes") else []


class Journal:
    """What was painted in a folder, and from what. Raises FormatError for a file that is none."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / JOURNAL
        self._pictures: dict[str, dict[str, str]] = {}
        if self.path.exists():
            try:
                found = json.loads(self.path.read_bytes())
                if found["format"] != _FORMAT:
                    raise ValueError(found["format"])
                self._pictures = {str(name): dict(each) for name, each in found["pictures"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                raise FormatError(
                    f"{self.path}: not the journal of a batch; delete it, and all is painted again"
                ) from None

    def has(self, options: Options) -> bool:
        """Whether the picture of these options is there, as it was painted."""
        path = Path(options.output_image)
        known = self._pictures.get(self._name(options))
        return (
            known is not None
            and path.is_file()
            and known == {"from": digest(options), "picture": sha256(path)}
        )

    def add(self, options: Options) -> None:
        """Note that the picture of these options is painted."""
        self._pictures[self._name(options)] = {
            "from": digest(options),
            "picture": sha256(options.output_image),
        }
        content = {"format": _FORMAT, "pictures": self._pictures}
        write_whole(self.path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def _name(self, options: Options) -> str:
        return str(Path(options.output_image).relative_to(self.path.parent))


def digest(options: Options) -> str:
    """A digest of all that decides on a picture: the options, and what is in the model and the images.

    Raises OptionError.
    """
    told: dict[str, Any] = {
        name: value for name, value in dataclasses.asdict(options).items() if name not in _FREE
    }
    styles = split_list(options.style_image)
    maps = region_maps.parse_styles(options.style_regions, len(styles))
    files = [options.content_image, *styles, options.init_image, options.content_regions, options.mask]
    files += [each for each in maps if isinstance(each, str)]
    try:
        told["inputs"] = [sha256(name) for name in files if name]
        told["model_file"] = _digest_of_model(model_file(options))
    except OSError as error:
        raise OptionError(f"{error.filename}: {error.strerror}") from None
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _digest_of_model(path: str) -> str:
    """The SHA-256 of a model file, which one row after the other asks for."""
    found = Path(path).stat()
    return _sha256_of(path, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _sha256_of(path: str, *_: int) -> str:
    return sha256(path)


def names(many: Sequence[Options]) -> str:
    """How many pictures these are, in words."""
    return f"{len(many)} picture{'' if len(many) == 1 else 's'}"

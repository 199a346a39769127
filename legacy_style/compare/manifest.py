"""What to run and what to expect: rows of command line, expected picture, checksum, tolerances, certainty.

A manifest is a JSON file; docs/compare.md describes every field. Paths in it are relative to whichever folder
has the file: the ones given with --from, the manifest's own, then the cache of what was downloaded. Unknown
fields are refused, so that a misspelt tolerance cannot pass for a kept one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from legacy_style.errors import FormatError, OptionError
from legacy_style.files import write_whole

FORMAT = "legacy-style manifest 1"
PUBLISHED = Path(__file__).with_name("published.json")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODEL_DIGEST = re.compile(r"[0-9a-f]{8,64}|sha1:[0-9a-f]{40}")
_LINE = 200  # characters
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Tolerances:
    """What a row may differ by; None: not tested. Fractions but for the levels of 255.

    `objective`: how much larger than the expected picture's our total may be. `distance`: by how much
    the range that the seeds span is widened for content and style loss. `first_losses` and
    `first_total`: of every layer's printed loss, and of the total, at iteration 1; `losses` and
    `totals`: at all recorded iterations. `last_total`: how much larger the total at the last recorded
    iteration may be. `mean_difference` and `max_difference`: of the pixels, levels.
    """

    objective: float | None = 0.1
    distance: float | None = 0.25
    first_losses: float | None = None
    first_total: float | None = None
    losses: float | None = None
    totals: float | None = None
    last_total: float | None = None
    mean_difference: float | None = None
    max_difference: float | None = None


@dataclass(frozen=True)
class Printed:
    """The losses of one evaluation as they were printed, weighted."""

    iteration: int
    content: tuple[float, ...]
    style: tuple[float, ...]
    total: float


@dataclass(frozen=True)
class File:
    """An input or an expected picture: its SHA-256 and where it can be had, '' if unknown."""

    sha256: str = ""
    url: str = ""


@dataclass(frozen=True)
class Row:
    """One picture: the options that make it, as argv, and what is expected of it.

    `expected` is '' where only losses are known; `model` names an entry of the manifest's models, '' for any.
    `missing` says which input was never published, so that nothing can be run. `certainty` says how well the
    options are known.
    """

    name: str
    options: tuple[str, ...]
    expected: str = ""
    model: str = ""
    certainty: str = ""
    note: str = ""
    missing: str = ""
    seeds: tuple[int, ...] = ()
    printed: tuple[Printed, ...] = ()
    tolerances: Tolerances = Tolerances()


@dataclass(frozen=True)
class Manifest:
    """A whole set of rows, the files that they name, and the models.

    `models` maps a name to the digests of its files: SHA-256, its first 8 digits or more, or `sha1:` and
    a SHA-1.
    """

    path: Path
    about: str
    rows: tuple[Row, ...]
    files: Mapping[str, File] = field(default_factory=dict)
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read(path: Path) -> Manifest:
    """Read a manifest; raises FormatError, which says where, unless every field is as it should be."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as a manifest ({error})") from None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error})") from None
    top = _Fields(data, f"{path}")
    if top.take("format", str) != FORMAT:
        raise FormatError(f"{path}: not a manifest (expected the format {FORMAT!r})")
    about = top.take("about", str, "")
    files = {
        name: _file(_Fields(value, f"{path}, file {name}"))
        for name, value in top.take("files", dict, {}).items()
    }
    models = {
        name: tuple(
            _prefix(each, f"{path}, model {name}") for each in _strings(value, f"{path}, model {name}")
        )
        for name, value in top.take("models", dict, {}).items()
    }
    shared = top.take("tolerances", dict, {})
    rows = []
    for index, value in enumerate(top.take("rows", list)):
        name = value.get("name") if isinstance(value, dict) else None
        where = f"{path}, row {name or index + 1}"
        rows.append(_row(_Fields(value, where), shared, models))
    top.finish()
    if not rows:
        raise FormatError(f"{path}: has no rows, so it would compare nothing")
    names = [row.name for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FormatError(f"{path}: two rows are named {twice[0]}; give each its own name")
    return Manifest(path, about, tuple(rows), files, models)


def only(manifest: Manifest, names: Sequence[str]) -> Manifest:
    """The manifest with those rows alone, or whole for no names; raises OptionError for an unknown one."""
    known = [row.name for row in manifest.rows]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            raise OptionError(
                f"{manifest.path}: there is no row {name!r}; {hint}Its rows are {', '.join(known)}"
            )
    rows = tuple(row for row in manifest.rows if row.name in names or not names)
    return dataclasses.replace(manifest, rows=rows)


def parse_tolerances(texts: Sequence[str]) -> dict[str, float]:
    """`["losses=1e-3"]` to a dictionary; raises OptionError for a wrong name or number."""
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
            _tolerances(found, "--tolerance")
        except ValueError:
            raise OptionError(
                f"--tolerance {text}: give a name and a number, for example losses=1e-3"
            ) from None
        except FormatError as error:
            raise OptionError(str(error)) from None
    return found


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest that `read` gives back; fields at their defaults are left out."""
    data = {
        "format": FORMAT,
        "about": manifest.about,
        "files": {name: _without_defaults(file) for name, file in manifest.files.items()},
        "models": {name: list(digests) for name, digests in manifest.models.items()},
        "rows": [_without_defaults(row) | {"options": shlex.join(row.options)} for row in manifest.rows],
    }
    write_whole(path, (_json(data) + "\n").encode())


def _json(value: Any, indent: int = 0) -> str:
    """JSON with a line for whatever fits on one, so that people can read a row."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= _LINE or not isinstance(value, (dict, list)) or not value:
        return line
    if isinstance(value, list):
        parts = [_json(each, indent + 1) for each in value]
    else:
        parts = [
            f"{json.dumps(name, ensure_ascii=False)}: {_json(each, indent + 1)}"
            for name, each in value.items()
        ]
    blanks = "\n" + " " * (indent + 1)
    inner = f",{blanks}".join(parts)
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}{blanks}{inner}{blanks[:-1]}{closing}"


def _without_defaults(value: Any) -> dict[str, Any]:
    """A dataclass as a dictionary of the fields that are not at their defaults, all the way down."""
    result: dict[str, Any] = {}
    for each in dataclasses.fields(value):
        item = getattr(value, each.name)
        if each.default is not dataclasses.MISSING and item == each.default:
            continue
        if dataclasses.is_dataclass(item):
            item = _without_defaults(item)
        elif isinstance(item, tuple):
            item = [dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part for part in item]  # type: ignore[arg-type]  # an instance
        result[each.name] = item
    return result


class _Fields:
    """The fields of one JSON object, taken one by one; what is left over in the end is an error."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{where}: expected an object, found {json.dumps(value)[:60]}")
        self.left = dict(value)
        self.where = where

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        if name not in self.left:
            if default is None:
                raise FormatError(f"{self.where}: the field {name!r} is missing")
            return default
        value = self.left.pop(name)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise FormatError(f"{self.where}: {name!r} is {json.dumps(value)[:60]}, expected {_WORDS[kind]}")
        return value

    def finish(self) -> None:
        if self.left:
            raise FormatError(f"{self.where}: unknown field {sorted(self.left)[0]!r}")


_WORDS = {str: "a string", dict: "an object", list: "a list", float: "a number", int: "a whole number"}


def _file(fields: _Fields) -> File:
    digest = fields.take("sha256", str, "")
    if digest and not _SHA256.fullmatch(digest):
        raise FormatError(f"{fields.where}: {digest!r} is not a SHA-256 (64 hexadecimal digits)")
    file = File(digest, fields.take("url", str, ""))
    fields.finish()
    return file


def _row(fields: _Fields, shared: Mapping[str, Any], models: Mapping[str, Any]) -> Row:
    name = fields.take("name", str)
    if not _NAME.fullmatch(name):
        raise FormatError(
            f"{fields.where}: a name is made of letters, digits, '.', '_' and '-', not {name!r}"
        )
    try:
        options = tuple(shlex.split(fields.take("options", str)))
    except ValueError as error:
        raise FormatError(f"{fields.where}: 'options' cannot be split into words ({error})") from None
    row = Row(
        name,
        options,
        expected=fields.take("expected", str, ""),
        model=fields.take("model", str, ""),
        certainty=fields.take("certainty", str, ""),
        note=fields.take("note", str, ""),
        missing=fields.take("missing", str, ""),
        seeds=tuple(_numbers(fields.take("seeds", list, []), int, f"{fields.where}, seeds")),
        printed=tuple(
            _printed(_Fields(value, f"{fields.where}, printed")) for value in fields.take("printed", list, [])
        ),
        tolerances=_tolerances({**shared, **fields.take("tolerances", dict, {})}, fields.where),
    )
    fields.finish()
    if row.model and row.model not in models:
        raise FormatError(f"{fields.where}: the manifest's models have no {row.model!r}")
    if not row.expected and not row.printed:
        raise FormatError(f"{fields.where}: expects nothing; give 'expected', 'printed' or both")
    return row


def _printed(fields: _Fields) -> Printed:
    printed = Printed(
        fields.take("iteration", int),
        tuple(_numbers(fields.take("content", list), float, fields.where)),
        tuple(_numbers(fields.take("style", list), float, fields.where)),
        fields.take("total", float),
    )
    fields.finish()
    return printed


def _tolerances(values: Mapping[str, Any], where: str) -> Tolerances:
    known = {each.name for each in dataclasses.fields(Tolerances)}
    for name, value in values.items():
        if name not in known:
            raise FormatError(f"{where}: unknown tolerance {name!r}; there are {', '.join(sorted(known))}")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and math.isfinite(value) and value >= 0):
            raise FormatError(
                f"{where}: the tolerance {name!r} is {json.dumps(value)}, expected a number or null"
            )
    return Tolerances(**values)


def _numbers(values: Sequence[Any], kind: type, where: str) -> list[Any]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            raise FormatError(f"{where}: {json.dumps(value)[:60]} is not {_WORDS[kind]}")
    return [kind(value) for value in values]


def _strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise FormatError(f"{where}: expected a list of strings")
    return list(value)


def _prefix(digest: str, where: str) -> str:
    if not _MODEL_DIGEST.fullmatch(digest):
        raise FormatError(
            f"{where}: {digest!r} is not a SHA-256, its first 8 or more digits, or sha1:<SHA-1>"
        )
    return digest

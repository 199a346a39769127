"""Today's results as tomorrow's expectations: a manifest from a folder of pictures and their records.

Each picture with a sidecar (or, a PNG, with the record in its chunks) becomes a row. Its first and last
losses are kept, and every tolerance of the defaults; more can be asked for.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from legacy_style.compare.making import losses_of
from legacy_style.compare.manifest import File, Manifest, Printed, Row, Tolerances
from legacy_style.errors import FormatError, OptionError
from legacy_style.files import sha256
from legacy_style.programs.neural_style import record as metadata
from legacy_style.programs.neural_style.options import Options, as_words
from legacy_style.torch7.cmdline import split_list

_PICTURES = {".png", ".jpg", ".jpeg", ".ppm"}
_KEPT_LOSSES = 12

# Another thread count or processor changes first losses in their seventh digit. From random noise
# without a seed, they differ because the noise does.
_FIRST_FIXED, _FIRST_RANDOM = 1e-4, 1e-3


def manifest_of(folder: Path, path: Path, tolerances: Mapping[str, float]) -> Manifest:
    """The manifest, to be written to `path`, of all pictures with a record in `folder`.

    File names in it are relative to where it will lie. `tolerances` are set for every row. Raises OptionError
    where there is no picture with a record, FormatError where a record does not fit.
    """
    rows: list[Row] = []
    files: dict[str, File] = {}
    models: dict[str, tuple[str, ...]] = {}
    for picture in sorted(each for each in folder.iterdir() if each.suffix.lower() in _PICTURES):
        record = metadata.read(picture)
        if record is None:
            continue
        row, named, digest = _row(picture, record, path.absolute().parent, tolerances)
        if row.name in (each.name for each in rows):
            row = dataclasses.replace(row, name=picture.name)
        rows.append(row)
        for name, each in named.items():
            if files.setdefault(name, each) != each:
                raise FormatError(f"{picture}: made from another {name} than the pictures before it")
        if models.setdefault(row.model, (digest,)) != (digest,):
            raise FormatError(f"{picture}: made with another {row.model} than the pictures before it")
    if not rows:
        raise OptionError(
            f"{folder}: no picture in it has a record beside it (out.png.json) or inside it; "
            "make some with legacy-style compare run"
        )
    return Manifest(path, f"Results of {folder.name}", tuple(rows), files, models)


def _row(
    picture: Path, record: metadata.Record, base: Path, tolerances: Mapping[str, float]
) -> tuple[Row, dict[str, File], str]:
    """One row, the files that it names, and the SHA-256 of its model."""
    known = {each.name for each in dataclasses.fields(Options)}
    try:
        options = Options(**{name: value for name, value in record["options"].items() if name in known})
        digests = {name: str(digest) for name, digest in record["inputs"].items()}
        model, model_digest = str(record["model"]["file"]), str(record["model"]["sha256"])
        printed = _printed(losses_of(record))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{picture}: its record lacks or garbles {error}; make the picture again") from None
    named = {_relative(name, base): File(digest) for name, digest in digests.items()}
    expected = _relative(picture, base)
    named[expected] = File(sha256(picture))
    fixed = options.seed >= 0 or options.init != "random"
    own = dataclasses.replace(
        options,
        given=frozenset(),
        content_image=_relative(options.content_image, base),
        style_image=",".join(_relative(each, base) for each in split_list(options.style_image)),
        init_image=_relative(options.init_image, base) if options.init_image else "",
        output_image=picture.name,
        model_file=Options.model_file,
        proto_file=Options.proto_file,
        save_iter=Options.save_iter,
        resume="",
        checkpoint="",
        metadata=False,
    )
    values = {"first_losses": _FIRST_FIXED if fixed else _FIRST_RANDOM, **tolerances}
    row = Row(
        picture.stem,
        tuple(as_words(own)),
        expected=expected,
        model=model,
        certainty="recorded",
        note=f"made by legacy-style {record['versions']['legacy-style']}",
        printed=printed,
        tolerances=Tolerances(**values),
    )
    return row, named, model_digest


def _printed(losses: tuple[Printed, ...]) -> tuple[Printed, ...]:
    """The first, the last, and a few between for the plot."""
    step = -(-len(losses) // _KEPT_LOSSES) or 1
    return losses[:1] + losses[step:-1:step] + losses[1:][-1:]


def _relative(path: str | os.PathLike[str], base: Path) -> str:
    return os.path.relpath(Path(path).absolute(), base)

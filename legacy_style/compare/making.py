"""Pictures and their records: makes one picture of a row, and a manifest from pictures that were made.

A picture counts as done while options, model, inputs and this package's own code are those of its record. One that
was interrupted goes on from its checkpoint, under the same conditions.

In a manifest made from results, each picture with a sidecar (or, a PNG, with the record in its chunks) becomes a row.
Its first and last losses are kept, and every tolerance of the defaults; more can be asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from legacy_style.compare.manifest import File, Manifest, Printed, Row, Tolerances
from legacy_style.errors import FormatError, LegacyStyleError, OptionError
from legacy_style.files import sha256
from legacy_style.programs.neural_style import record, settings
from legacy_style.programs.neural_style.options import Options, as_words
from legacy_style.programs.neural_style.record import Record
from legacy_style.programs.neural_style.story import Progress, stylize
from legacy_style.torch7.cmdline import split_list

# Iterations. A checkpoint of L-BFGS at 512 pixels takes half a gigabyte; it goes when the picture is done.
_CHECKPOINT_EVERY = 200.0

_PICTURES = {".png", ".jpg", ".jpeg", ".ppm"}
_KEPT_LOSSES = 12

# Another thread count or processor changes first losses in their seventh digit. From random noise
# without a seed, they differ because the noise does.
_FIRST_FIXED, _FIRST_RANDOM = 1e-4, 1e-3

OnProgress = Callable[[Progress], None]


def make(wanted: Options, model_sha256: str, *, chunks: bool, on_progress: OnProgress) -> tuple[Record, bool]:
    """Make the picture `wanted.output_image`; gives its record, and whether an earlier run had made it.

    `chunks`: write the record into a PNG too. Raises what `stylize` raises.
    """
    picture = Path(wanted.output_image)
    inputs = settings.read(wanted, save=False).inputs
    made_from = {
        "options": dataclasses.asdict(wanted),
        "versions": record.versions(),
        "model": {"file": Path(wanted.model_file).name, "sha256": model_sha256},
        "inputs": {path: sha256(path) for path in inputs},
    }
    made = _done(picture, made_from)
    if made is not None:
        return made, True
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    draft = picture.parent / "unfinished" / f"{picture.stem}-{key}"
    draft.mkdir(parents=True, exist_ok=True)
    state = draft / "checkpoint"
    seconds = 0.0

    def count(progress: Progress) -> None:
        nonlocal seconds
        seconds = progress.seconds
        on_progress(progress)

    running = wanted.changed(
        output_image=str(draft / picture.name),
        save_iter=_CHECKPOINT_EVERY,
        checkpoint=str(state),
        resume=str(state) if state.exists() else "",
        metadata=False,  # it follows below, with the picture's own name
    )
    result = stylize(running, on_progress=count)
    made = record.describe(
        wanted,
        command=["python", "-m", "legacy_style", *as_words(wanted)],
        model=wanted.model_file,
        inputs=inputs,
        losses=result.losses,
        seconds=seconds,
    )
    Path(running.output_image).replace(picture)
    record.attach(picture, made, chunks=chunks)
    shutil.rmtree(draft)
    return made, False


def _done(picture: Path, made_from: Record) -> Record | None:
    """The record of a picture that was made from exactly this; None if there is none."""
    if not (picture.is_file() and record.sidecar_path(picture).is_file()):
        return None
    try:
        made = record.read(picture)
    except LegacyStyleError:
        return None
    if made is None or not isinstance(made.get("options"), dict):
        return None
    # Where it lay when it was made does not matter: work folders may be moved.
    found = made | {"options": made["options"] | {"output_image": str(picture)}}
    return made if all(found.get(name) == value for name, value in made_from.items()) else None


def losses_of(made: Record) -> tuple[Printed, ...]:
    """The losses in a picture's record, one per evaluation that was kept."""
    columns = made["losses"]
    rows = zip(columns["evaluation"], columns["content"], columns["style"], columns["total"], strict=True)
    return tuple(
        Printed(iteration, tuple(content), tuple(style), total) for iteration, content, style, total in rows
    )


def repeat_command(words: Sequence[str]) -> str:
    """What to type to make the picture again."""
    return shlex.join(["python", "-m", "legacy_style", *words])


def manifest_of(folder: Path, path: Path, tolerances: Mapping[str, float]) -> Manifest:
    """The manifest, to be written to `path`, of all pictures with a record in `folder`.

    File names in it are relative to where it will lie. `tolerances` are set for every row. Raises OptionError
    where there is no picture with a record, FormatError where a record does not fit.
    """
    rows: list[Row] = []
    files: dict[str, File] = {}
    models: dict[str, tuple[str, ...]] = {}
    for picture in sorted(each for each in folder.iterdir() if each.suffix.lower() in _PICTURES):
        made = record.read(picture)
        if made is None:
            continue
        row, named, digest = _row(picture, made, path.absolute().parent, tolerances)
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
    picture: Path, made: Record, base: Path, tolerances: Mapping[str, float]
) -> tuple[Row, dict[str, File], str]:
    """One row, the files that it names, and the SHA-256 of its model."""
    known = {each.name for each in dataclasses.fields(Options)}
    try:
        options = Options(**{name: value for name, value in made["options"].items() if name in known})
        digests = {name: str(digest) for name, digest in made["inputs"].items()}
        model, model_digest = str(made["model"]["file"]), str(made["model"]["sha256"])
        printed = _printed(losses_of(made))
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
        note=f"made by legacy-style {made['versions']['legacy-style']}",
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

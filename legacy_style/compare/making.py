"""Makes one picture of a row, with its record, unless it lies in the work folder already.

A picture counts as done while options, model, inputs and this package's own code are those of its
record. One that was interrupted goes on from its checkpoint, under the same conditions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from legacy_style.compare.manifest import Printed
from legacy_style.errors import LegacyStyleError
from legacy_style.files import sha256
from legacy_style.programs.neural_style import record as metadata
from legacy_style.programs.neural_style.options import Options, as_words
from legacy_style.programs.neural_style.record import Record
from legacy_style.programs.neural_style.settings import read
from legacy_style.programs.neural_style.story import Progress, stylize

# Iterations. A checkpoint of L-BFGS at 512 pixels takes half a gigabyte; it goes when the picture is done.
_CHECKPOINT_EVERY = 200.0

OnProgress = Callable[[Progress], None]


def make(wanted: Options, model_sha256: str, *, chunks: bool, on_progress: OnProgress) -> tuple[Record, bool]:
    """Make the picture `wanted.output_image`; gives its record, and whether an earlier run had made it.

    `chunks`: write the record into a PNG too. Raises what `stylize` raises.
    """
    picture = Path(wanted.output_image)
    inputs = read(wanted, save=False).inputs
    made_from = {
        "options": dataclasses.asdict(wanted),
        "versions": metadata.versions(),
        "model": {"file": Path(wanted.model_file).name, "sha256": model_sha256},
        "inputs": {path: sha256(path) for path in inputs},
    }
    record = _done(picture, made_from)
    if record is not None:
        return record, True
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
    record = metadata.describe(
        wanted,
        command=["python", "-m", "legacy_style", *as_words(wanted)],
        model=wanted.model_file,
        inputs=inputs,
        losses=result.losses,
        seconds=seconds,
    )
    Path(running.output_image).replace(picture)
    metadata.attach(picture, record, chunks=chunks)
    shutil.rmtree(draft)
    return record, False


def _done(picture: Path, made_from: Record) -> Record | None:
    """The record of a picture that was made from exactly this; None if there is none."""
    if not (picture.is_file() and metadata.sidecar_path(picture).is_file()):
        return None
    try:
        record = metadata.read(picture)
    except LegacyStyleError:
        return None
    if record is None or not isinstance(record.get("options"), dict):
        return None
    # Where it lay when it was made does not matter: work folders may be moved.
    found = record | {"options": record["options"] | {"output_image": str(picture)}}
    return record if all(found.get(name) == value for name, value in made_from.items()) else None


def losses_of(record: Record) -> tuple[Printed, ...]:
    """The losses in a picture's record, one per evaluation that was kept."""
    columns = record["losses"]
    rows = zip(columns["evaluation"], columns["content"], columns["style"], columns["total"], strict=True)
    return tuple(
        Printed(iteration, tuple(content), tuple(style), total) for iteration, content, style, total in rows
    )


def repeat_command(words: Sequence[str]) -> str:
    """What to type to make the picture again."""
    return shlex.join(["python", "-m", "legacy_style", *words])

"""Many pictures by one process: each is painted or left out with its reason, and a table at the end says which."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from legacy_style.cli import process
from legacy_style.errors import LegacyStyleError, OptionError
from legacy_style.programs.neural_style import stages
from legacy_style.programs.neural_style.batch import Journal, names
from legacy_style.programs.neural_style.options import MEMORY_ADVICE, Options
from legacy_style.programs.notices import why
from legacy_style.programs.progress import WorkDone

Log = Callable[[str], None]


@dataclass(frozen=True)
class PictureOutcome:
    """What became of one picture; `detail`: the reason, or how long it took."""

    path: str
    state: Literal["painted", "there", "failed"]
    detail: str


@dataclass(frozen=True)
class Place:
    """Which of `count` pictures one is, from 1; the work of those that were painted before it, and of all."""

    number: int
    count: int
    before: float
    total: float

    def __str__(self) -> str:
        return f"Picture {self.number} of {self.count}"

    def of_all(self, work: WorkDone) -> WorkDone:
        """How far all are, where this one is as far as `work` says."""
        return WorkDone((self.number, *work.part), self.before + work.done, self.total)


Paint = Callable[[Options, Place], object]


def run(jobs: Sequence[Options], folder: str, paint: Paint, log: Log) -> list[PictureOutcome]:
    """Paint what is not there yet, into `folder`, and print a line for each and a table of all.

    A picture that is stopped on the page of --watch is kept as it is, and the next one follows.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)

    def tell(line: str) -> None:
        log(process.plain(line))

    outcomes = []
    before, ahead = 0.0, [_work(each) for each in jobs]
    for number, options in enumerate(jobs, 1):
        tell(f"{number} of {len(jobs)}: {options.content_image} -> {options.output_image}")
        outcome = _one(options, journal, paint, Place(number, len(jobs), before, before + sum(ahead)))
        work = ahead.pop(0)
        if outcome.state == "painted":
            before += work
        if outcome.state == "failed":
            tell(f"left out: {outcome.detail}")
        outcomes.append(outcome)
    width = max(len(each.path) for each in outcomes)
    log("")
    for each in outcomes:
        tell(f"{each.state:<8}{each.path:<{width}}  {each.detail}")
    failed = sum(each.state == "failed" for each in outcomes)
    log(names(jobs) + (f", {failed} failed" if failed else ""))
    return outcomes


def _work(options: Options) -> float:
    """How much there is to do for a picture; nothing, where its options will be refused."""
    try:
        split = stages.split(options)
    except LegacyStyleError:
        return 0.0
    return sum(stages.work(each.image_size, each.num_iterations) for each in split)


def _one(options: Options, journal: Journal, paint: Paint, place: Place) -> PictureOutcome:
    path = options.output_image
    began = time.monotonic()
    try:
        if journal.has(options):
            return PictureOutcome(path, "there", "painted before")
        before = _made(path)
        paint(options, place)
        if _made(path) == before:
            raise OptionError(
                f"no image was saved: -num_iterations is {options.num_iterations:.14g}; give a whole number, 1 or more"
            )
        journal.add(options)
    except BrokenPipeError:  # of our own stdout
        raise
    except (LegacyStyleError, OSError, MemoryError, RuntimeError) as error:
        said = why(error, memory_advice=MEMORY_ADVICE)
        if said is None:
            raise
        return PictureOutcome(path, "failed", said)
    return PictureOutcome(path, "painted", f"{time.monotonic() - began:.1f} s")


def _made(path: str) -> tuple[int, int] | None:
    """What tells a file from the one that replaces it, None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns

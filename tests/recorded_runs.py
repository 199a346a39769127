"""Recorded runs of the original: run the same command line here, and say at which stage the outcome differs.

A recording is argv, exit status, stdout and the images written (INDEX.json, runs/NAME). The command line runs
in this process, in a folder that holds examples/, inputs/ and models/ as the recording's did. Where the
recorded images are not at hand (they are not ours to ship), stand-ins take their places, and everything but
losses and pixels is compared.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from legacy_style.cli.neural_style import main

# What the original's usage calls the program.
PROGRAM = "TORCH/bin/th"

LENT = ("examples", "inputs", "models")

LOSS = re.compile(r"(  (?:Content \d+|Style \d+|Total) loss: )(\S+)\t")

# What is printed has six decimals, so two equal losses may be printed this far apart.
LAST_DIGIT = 1.5e-6


@dataclass(frozen=True)
class Difference:
    """At which stage something differs, and how."""

    stage: str
    what: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.what}"


@dataclass(frozen=True)
class Evaluation:
    """The losses that one iteration printed: content, style, total."""

    iteration: int
    losses: list[float]


@dataclass(frozen=True)
class Run:
    """One recorded run. `words`: its command line after `th neural_style.lua`; `images`: what it wrote."""

    name: str
    words: list[str]
    status: int
    images: list[str]
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "runs" / self.name

    @cached_property
    def lines(self) -> list[str]:
        """stdout, each line without its newline."""
        return (self.folder / "stdout.txt").read_text().split("\n")[:-1]


@dataclass(frozen=True)
class Outcome:
    """What a command line did here: exit status, stdout's lines, stderr, and the files that it left."""

    status: int
    lines: list[str]
    stderr: str
    folder: Path

    @property
    def images(self) -> list[str]:
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if path.parts[0] not in LENT)


@lru_cache
def recorded(root: Path) -> dict[str, Run]:
    """All recorded runs by name."""
    index = json.loads((root / "INDEX.json").read_text())
    runs = [
        Run(
            name=each["name"],
            words=each["argv"][2:],
            status=each["exit_code"],
            images=sorted(file for file in each["files"] if file not in ("stdout.txt", "stderr.txt")),
            root=root,
        )
        for each in index["runs"]
    ]
    assert runs, f"no runs in {root}"
    return {run.name: run for run in runs}


def perform(run: Run, folder: Path) -> Outcome:
    """Run the recorded command line in the empty `folder`, on the CPU and one thread, as it was recorded."""
    lend(run.root, run.words, folder)
    for image in run.images:
        (folder / image).parent.mkdir(exist_ok=True)
    with working_in(folder), mock.patch("torch.cuda.is_available", return_value=False):
        return in_this_process(run.words, folder)


def in_this_process(words: list[str], folder: Path, *, quick: bool = True) -> Outcome:
    """Call the program with `words`; `folder` must be the current one. `quick`: small, so one thread is faster."""
    stdout, stderr = io.StringIO(), io.StringIO()
    limit = one_thread() if quick else contextlib.nullcontext()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), limit:
        status = main(words, PROGRAM)
    return Outcome(status, stdout.getvalue().split("\n")[:-1], stderr.getvalue(), folder)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def lend(root: Path, words: list[str], folder: Path) -> None:
    """Put examples/, inputs/ and models/ into `folder`, with stand-ins for images that are not at hand."""
    (folder / "models").symlink_to(root / "models")
    if has_inputs(root):
        for name in ("examples", "inputs"):
            (folder / name).symlink_to(root / name)
        return
    named = ["examples/inputs/tubingen.jpg", "examples/inputs/seated-nude.jpg"]
    named += [name for word in words for name in word.split(",") if name.startswith(("examples", "inputs"))]
    for number, name in enumerate(named):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw_stand_in(folder / name, number)


def has_inputs(root: Path) -> bool:
    """Whether the images that the command lines name are at hand, or stand-ins must do."""
    return (root / "examples").is_dir()


def draw_stand_in(path: Path, number: int) -> None:
    """Write waves in three colours, as wide and high as the default content image is in proportion."""
    y, x = np.mgrid[0:72, 0:96]
    waves = [np.sin(x / (3 + number) + phase) * np.cos(y / (5 + phase)) for phase in range(3)]
    Image.fromarray(np.uint8(127 + 120 * np.stack(waves, 2))).save(path)


def shape(line: str) -> str:
    """A line of stdout without the number that may differ."""
    match = LOSS.fullmatch(line)
    return match[1] if match else line


def evaluations(lines: list[str]) -> list[Evaluation]:
    """The losses of every iteration that was printed."""
    found: list[Evaluation] = []
    for line in lines:
        if line.startswith("Iteration "):
            found.append(Evaluation(int(line.split()[1]), []))
        elif match := LOSS.fullmatch(line):
            found[-1].losses.append(float(match[2]))
    return found


def compare_status(expected: int, outcome: Outcome) -> Iterator[Difference]:
    if outcome.status != expected:
        yield Difference(
            "exit status", f"{outcome.status}, recorded {expected}; stderr: {outcome.stderr.strip()}"
        )


def compare_stdout(lines: list[str], outcome: Outcome, *, beginning: bool = False) -> Iterator[Difference]:
    """Line by line, but for the losses; with `beginning`, ours may end earlier."""
    for number, (ours, theirs) in enumerate(zip(outcome.lines, lines, strict=False), 1):
        if shape(ours) != shape(theirs):
            yield Difference("stdout", f"line {number} is {ours!r}, recorded {theirs!r}")
            return
    if len(outcome.lines) > len(lines) or (len(outcome.lines) < len(lines) and not beginning):
        yield Difference("stdout", f"{len(outcome.lines)} lines, recorded {len(lines)}")


def compare_images(expected: list[str], outcome: Outcome) -> Iterator[Difference]:
    if outcome.images != expected:
        yield Difference("files", f"wrote {outcome.images}, recorded {expected}")


def compare_stderr(fragment: str, outcome: Outcome) -> Iterator[Difference]:
    if fragment not in outcome.stderr or (not fragment and outcome.stderr):
        yield Difference("stderr", f"{outcome.stderr.strip()!r}, expected {fragment!r}")


def compare_first_losses(lines: list[str], outcome: Outcome, tolerance: float) -> Iterator[Difference]:
    """Each loss of iteration 1, relative to itself."""
    for ours, theirs in _printed_by_both(lines, outcome):
        if theirs.iteration == 1:
            yield from _compare_losses(ours, theirs, [tolerance * abs(loss) for loss in theirs.losses])


def compare_course(lines: list[str], outcome: Outcome, allowed: list[float]) -> Iterator[Difference]:
    """Each loss of the printed iterations, relative to the total loss, as far as `allowed` goes."""
    for (ours, theirs), within in zip(_printed_by_both(lines, outcome), allowed, strict=False):
        yield from _compare_losses(ours, theirs, [within * abs(theirs.losses[-1])] * len(theirs.losses))


def _printed_by_both(lines: list[str], outcome: Outcome) -> Iterator[tuple[Evaluation, Evaluation]]:
    return zip(evaluations(outcome.lines), evaluations(lines), strict=False)


def _compare_losses(ours: Evaluation, theirs: Evaluation, allowed: list[float]) -> Iterator[Difference]:
    for one, other, within in zip(ours.losses, theirs.losses, allowed, strict=False):
        if not same_loss(one, other, within):
            yield Difference("losses", f"iteration {theirs.iteration}: {one}, recorded {other}")


def same_loss(ours: float, theirs: float, allowed: float) -> bool:
    if math.isnan(theirs):
        return math.isnan(ours)
    return ours == theirs or abs(ours - theirs) <= allowed + LAST_DIGIT


def compare_depth(lines: list[str], outcome: Outcome, part: float) -> Iterator[Difference]:
    """The smallest total loss that was printed: at least so far down as `part` of the recorded one's way.

    Both are measured from the first recorded total, as logarithms: half the way from 10,000 to 100 is 1,000.
    """
    ours, theirs = ([each.losses[-1] for each in evaluations(printed)] for printed in (outcome.lines, lines))
    if ours and not min(ours) <= theirs[0] ** (1 - part) * min(theirs) ** part + LAST_DIGIT:
        yield Difference("losses", f"the smallest is {min(ours)}, recorded {min(theirs)}")


def compare_pixels(
    run: Run, outcome: Outcome, image: str, levels: int, share: float, few: int = 0
) -> Iterator[Difference]:
    """At most `levels` apart, in a share of the values, or in no more than `few` of them."""
    with Image.open(outcome.folder / image) as ours, Image.open(run.folder / image) as theirs:
        kinds = [(each.format, each.mode, each.size) for each in (ours, theirs)]
        if kinds[0] != kinds[1]:
            yield Difference("pixels", f"{image} is {kinds[0]}, recorded {kinds[1]}")
            return
        apart = np.abs(np.int16(ours) - np.int16(theirs))
    differ = np.count_nonzero(apart)
    if apart.max() > levels or differ > max(share * apart.size, few if levels else 0):
        yield Difference(
            "pixels", f"{image}: up to {apart.max()} levels apart, {np.mean(apart > 0):.2%} differ"
        )

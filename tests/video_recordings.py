"""Recorded runs and traces of artistic_video.lua and artistic_video_multiPass.lua, replayed: python
tests/video_recordings.py

`SHIPPED` (tests/golden/artistic-videos) is a small part of `RECORDED` (../shared/golden/artistic-videos): both were
made by running manuelruder/artistic-videos 40e7447 unmodified on Torch7, on one thread. A run is its command line,
exit status, stdout and images. Where the recorded frames are not at hand, stand-ins take their places, and
everything but losses and pixels is compared. A trace is replayed frame by frame: each begins from the recorded
predecessors, so that what one frame's L-BFGS does not repeat, the next one does not inherit.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, tests/ is on the path, the checkout is not

import numpy as np
import spread
import torch
from PIL import Image
from recorded_runs import Difference, draw_stand_in, one_thread, working_in
from recordings import RECORDED as TORCH7_RECORDED
from recordings import SHARED
from recordings import SHIPPED as TORCH7_SHIPPED

from legacy_style.cli import artistic_video as cli
from legacy_style.programs.artistic_video import multi_pass, options, painter, settings, single
from legacy_style.torch7 import image as torch_image

SHIPPED = Path(__file__).parent / "golden" / "artistic-videos"
RECORDED = SHARED / "golden" / "artistic-videos"

NUMBER = re.compile(r"(  (?:Content|Temporal|Style) \d+ loss: |  Total loss: |Running time: )(\S+)\t")

LEAST = 1e-5
"""Relative to a loss, or to the largest of a gradient: what is allowed where less was measured (spread.py)."""


@dataclass(frozen=True)
class Run:
    name: str
    script: str
    words: list[str]
    status: int
    files: list[str]
    root: Path

    @property
    def lines(self) -> list[str]:
        return (self.root / "runs" / self.name / "stdout.txt").read_text().split("\n")[:-1]


@dataclass(frozen=True)
class Outcome:
    status: int
    lines: list[str]
    stderr: str
    files: list[str]


# What we do otherwise on purpose: why, the exit status, what stderr says, and whether stdout is a beginning of the
# recorded one (None: another run's).
@dataclass(frozen=True)
class Deviation:
    why: str
    status: int
    says: str
    files: int


_EARLY = "checked before anything is loaded"

DEVIATIONS = {
    "p_image": Deviation(
        "-init image works, which a misspelt name kept from working", 0, "-init image: the original", 6
    ),
    "p_init_bad": Deviation(f"{_EARLY}, and exit status 1", 1, "-init foo: Unknown initialization method", 0),
    "v_args": Deviation("a flag may stand in an -args file", 0, "", 2),
    "v_blend_bad": Deviation(_EARLY, 1, "must have the same number of elements", 0),
    "v_cont_first": Deviation(_EARLY, 1, "-init first needs the first frame", 0),
    "v_gpu": Deviation(
        f"the GPU is asked for later: frames are {_EARLY}", 1, "/marple8_01.ppm: No such file or directory", 0
    ),
    "v_init_bad": Deviation(f"{_EARLY}, and exit status 1", 1, "Invalid initialization method 'foo'", 0),
    "v_nocontent": Deviation(_EARLY, 1, "nope_01.ppm: No such file or directory", 0),
    "v_nostyle": Deviation(_EARLY, 1, "nope.png: No such file or directory", 0),
    "v_opt_bad": Deviation(_EARLY, 1, 'Unrecognized optimizer "foo"', 0),
    "v_prev_only": Deviation(f"{_EARLY}, and exit status 1", 1, "the first frame has no predecessor", 0),
}

# What stderr says where the original failed at the same place, or where we say something that it did not.
SAYS = {
    "v_args_missing": "-args nope.txt: No such file or directory; going on without it",
    "v_noflow": "nope_2_1.flo: No such file or directory",
    "v_nomodel": "nope.caffemodel: No such file or directory",
    "v_unknown": "invalid argument: -foo",
}

# Runs that are short, or amplify roundings little: their printed losses and their images are compared, as far as
# roundings let them.
MEASURED = ("v_iters_zero_adam", "v_rel12_norm", "v_tv10", "p_auto")

# The relative stop depends on losses that L-BFGS does not repeat: some processors stop before the 20th iteration, some
# after the 30th. The lines up to the 10th are compared.
UNREPEATED = {"v_tol": 38}


def recorded(root: Path) -> dict[str, Run]:
    """All recorded runs by name."""
    index = json.loads((root / "INDEX.json").read_text())["cases"]
    runs = {}
    for key, case in index.items():
        kind, _, name = key.partition("/")
        if kind == "runs":
            words = case["argv"]
            runs[name] = Run(name, words[1], words[2:], case["exit"], sorted(case["files_written"]), root)
    assert runs, f"no runs in {root}"
    return runs


def has_frames(root: Path) -> bool:
    return (root / "frames").is_dir()


def lend(root: Path, folder: Path) -> None:
    """Put copies of what the command lines name into the empty `folder`: no output ever reaches the originals."""
    for name in ("frames", "flow", "inputs"):
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name)
    models = TORCH7_RECORDED if TORCH7_RECORDED.is_dir() else TORCH7_SHIPPED
    (folder / "models").mkdir()
    model = "VGG_ILSVRC_19_layers.caffemodel"
    shutil.copyfile(models / "models" / model, folder / "models" / model)
    for path in (folder / "inputs").glob("*.txt"):
        shutil.copyfile(path, folder / path.name)
    (folder / "outf").mkdir()
    if not has_frames(root):
        (folder / "frames").mkdir()
        for number in range(1, 6):
            draw_stand_in(folder / "frames" / f"f_{number:02d}.ppm", number)
            with Image.open(folder / "frames" / f"f_{number:02d}.ppm") as image:
                image.resize((64, 48)).save(folder / "frames" / f"f_{number:02d}.ppm")
        draw_stand_in(folder / "inputs" / "square80.png", 7)
        with Image.open(folder / "inputs" / "square80.png") as image:
            image.resize((80, 80)).save(folder / "inputs" / "square80.png")
        for one in range(1, 6):
            for other in range(1, 6):
                if one != other:
                    kind = "forward" if one < other else "backward"
                    flow, mask = (
                        folder / "flow" / f"{kind}_{one}_{other}.flo",
                        folder / "flow" / f"reliable_{one}_{other}.pgm",
                    )
                    if not flow.is_file():
                        step = 1 if one < other else -1
                        shutil.copyfile(
                            folder / "flow" / ("forward_1_2.flo" if step > 0 else "backward_2_1.flo"), flow
                        )
                        shutil.copyfile(
                            folder / "flow" / ("reliable_1_2.pgm" if step > 0 else "reliable_2_1.pgm"), mask
                        )


def perform(run: Run, folder: Path) -> Outcome:
    """Run the recorded command line in the empty `folder`, on the CPU and one thread, as it was recorded."""
    lend(run.root, folder)
    if run.name == "v_cont_b":
        for path in (run.root / "runs" / "v_cont_a" / "files").iterdir():
            shutil.copyfile(path, folder / path.name)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        working_in(folder),
        mock.patch("torch.cuda.is_available", return_value=False),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        one_thread(),
    ):
        status = cli.serve(run.script, run.words, "TORCH/bin/th")
    files = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    )
    return Outcome(status, stdout.getvalue().split("\n")[:-1], stderr.getvalue(), files)


def shape(line: str) -> str:
    """A line without the number that may differ."""
    match = NUMBER.fullmatch(line)
    return match[1] if match else line


def compare(run: Run, outcome: Outcome, folder: Path) -> Iterator[Difference]:
    """What differs from the recording, or from what we do instead."""
    deviation = DEVIATIONS.get(run.name)
    status, files = (deviation.status, deviation.files) if deviation else (run.status, len(run.files))
    if outcome.status != status:
        yield Difference("exit status", f"{outcome.status}, expected {status}; {outcome.stderr.strip()}")
    says = deviation.says if deviation else SAYS.get(run.name, "")
    if says not in outcome.stderr or (not says and outcome.stderr):
        yield Difference("stderr", f"{outcome.stderr.strip()!r}, expected {says!r}")
    if len(outcome.files) != files or (deviation is None and outcome.files != run.files):
        yield Difference("files", f"wrote {outcome.files}, recorded {run.files}")
    if deviation is not None:
        return
    ours, theirs = outcome.lines, run.lines
    if run.name.endswith("_help"):
        ours = ours[: len(theirs)]  # our own options follow
    if run.name in UNREPEATED:
        ours, theirs = ours[: UNREPEATED[run.name]], theirs[: UNREPEATED[run.name]]
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False), 1):
        if shape(one) != shape(other):
            yield Difference("stdout", f"line {number} is {one!r}, recorded {other!r}")
            return
    if len(ours) != len(theirs):
        yield Difference("stdout", f"{len(ours)} lines, recorded {len(theirs)}")
    if not has_frames(run.root):
        return
    if run.name in MEASURED:
        known = spread.of_video_run(run.name)
        for name in run.files:
            if name in known.images:
                yield from compare_pixels(
                    run.root / "runs" / run.name / "files" / name, folder / name, known.images[name]
                )
        yield from compare_losses(ours, theirs, known.losses)


def printed_losses(lines: list[str]) -> list[list[float]]:
    """The losses of each printed evaluation, the total last."""
    found: list[list[float]] = [[]]
    for line in lines:
        if (match := NUMBER.fullmatch(line)) and "loss" in line:
            found[-1].append(float(match[2]))
            if "Total" in line:
                found.append([])
    return found[:-1]


def compare_losses(ours: list[str], theirs: list[str], allowed: list[float]) -> Iterator[Difference]:
    """Printed losses relative to the total loss of their evaluation, for as many evaluations as `allowed` says."""
    pairs = zip(printed_losses(ours), printed_losses(theirs), allowed, strict=False)
    for number, (some, others, tolerance) in enumerate(pairs, 1):
        for one, other in zip(some, others, strict=True):
            if abs(one - other) > max(tolerance, LEAST) * abs(others[-1]):
                yield Difference("losses", f"printed evaluation {number}: {one}, recorded {other}")


def compare_pixels(recorded_file: Path, ours: Path, allowed: tuple[int, float]) -> Iterator[Difference]:
    with Image.open(ours) as one, Image.open(recorded_file) as other:
        apart = np.abs(np.int16(one) - np.int16(other))
    if apart.max() > allowed[0] or np.mean(apart > 0) > allowed[1]:
        yield Difference(
            "pixels", f"{ours.name}: up to {apart.max()} levels apart, {np.mean(apart > 0):.2%} differ"
        )


def replay(run: Run, folder: Path) -> list[Difference]:
    return list(compare(run, perform(run, folder), folder))


# ---- traces

EVALUATION = re.compile(r"(\S+) eval (\d+) total (\S+) content (.*) temporal ?(.*) style (.*)")


class Trace:
    """One recorded trace while it is replayed: takes every evaluation, and says what differs.

    `seen`: the losses of evaluations, gradients, and saved images as they are here; what measure_spread.py measures.
    """

    def __init__(self, name: str) -> None:
        self.name, self.run = name, recorded(RECORDED)[name]
        log = (RECORDED / "traces" / name / "log.txt").read_text().split("\n")
        self.evaluations = {
            (match[1], int(match[2])): [float(value) for group in (4, 5, 6) for value in match[group].split()]
            for match in map(EVALUATION.fullmatch, log)
            if match
        }
        self.frames = list(dict.fromkeys(frame for frame, _ in self.evaluations))
        with np.load(RECORDED / "traces" / name / "arrays.npz") as arrays:
            self.arrays = dict(arrays)
        self.frame, self.differences, self.compared = -1, [], 0
        self.seen: dict[str, dict[str, Any]] = {"losses": {}, "gradients": {}, "images": {}}
        self.evaluate, self.save = painter.FramePainter.evaluate, torch_image.save

    def replay(self, folder: Path, *, compare: bool = True) -> list[Difference]:
        """What differs; with `compare` off, nothing is compared, and `seen` is all that is wanted."""
        self.allowed = spread.of_video_trace(self.name) if compare else None
        lend(RECORDED, folder)
        parsed = options.parse(self.run.script, self.run.words, lambda line: None)
        assert parsed is not None
        trace = self

        def evaluate(own, x, temporal, iteration):
            found = trace.evaluate(own, x, temporal, iteration)
            trace.look(own, x, temporal, iteration, found)
            return found

        def ignore(line: str) -> None:
            pass

        with (
            working_in(folder),
            one_thread(),
            mock.patch.object(painter.FramePainter, "evaluate", evaluate),
            mock.patch.object(torch_image, "save", self.saved),
        ):
            if self.run.script == options.SINGLE:
                single.run(settings.single(*parsed), log=ignore, notice=ignore, on_saved=ignore)
            else:
                multi_pass.run(settings.multi_pass(*parsed), log=ignore, notice=ignore, on_saved=ignore)
        return self.differences

    def look(self, own, x, temporal, iteration, found) -> None:
        """Compare one evaluation: its losses; at the first, also start, targets, weights and gradient."""
        if iteration == 1:
            self.frame += 1
        frame = self.frames[self.frame]
        theirs = self.evaluations.get((frame, iteration))
        if theirs is None:
            return
        if iteration == 1:
            self.close("start", self.arrays[f"{frame}_init"], x[0], 1e-5)
            for number, loss in enumerate(temporal, 1):
                self.close(
                    "temporal target",
                    self.arrays.get(f"{frame}_temporal_target_{number}"),
                    loss.target[0],
                    2e-5,
                )
                self.close(
                    "root of the mask",
                    self.arrays.get(f"{frame}_temporal_sqrtw_{number}"),
                    loss.roots[0],
                    1e-6,
                )
            self.gradient(f"{frame} 1", self.arrays.get(f"{frame}_grad_eval001"), found[1][0])
        self.losses(f"{frame} {iteration}", theirs, found[0])
        image = self.arrays.get(f"{frame}_x_eval{iteration:03d}")
        if image is not None:  # what the losses are at the recorded image
            at, gradient = self.evaluate(own, torch.from_numpy(image[None]), temporal, iteration)
            self.losses(f"{frame} recorded {iteration}", theirs, at)
            if iteration > 1:
                known = self.arrays.get(f"{frame}_grad_eval{iteration:03d}")
                self.gradient(f"{frame} recorded {iteration}", known, gradient[0])

    def gradient(self, where: str, theirs: np.ndarray | None, ours: torch.Tensor) -> None:
        if theirs is None:
            return
        self.seen["gradients"][where] = ours.numpy().copy()
        if self.allowed is not None:
            share = max(self.allowed.gradients[where], LEAST)
            self.close("gradient", theirs, ours, share * float(np.abs(theirs).max()))

    def losses(self, where: str, theirs: list[float], found: painter.FrameEvaluation) -> None:
        ours = [*found.content, *found.temporal, *found.style]
        self.seen["losses"][where] = ours
        if self.allowed is None or where not in self.allowed.losses:
            return
        tolerance = max(self.allowed.losses[where], LEAST)
        self.compared += 1
        if len(ours) != len(theirs):
            self.differences.append(Difference("losses", f"{where}: {len(ours)}, recorded {len(theirs)}"))
        for one, other in zip(ours, theirs, strict=False):
            if abs(one - other) > tolerance * abs(other) + 1e-6:
                self.differences.append(Difference("losses", f"{where}: {one}, recorded {other}"))

    def close(self, what: str, theirs: np.ndarray | None, ours: torch.Tensor, allowed: float) -> None:
        if theirs is None:
            return
        self.compared += 1
        apart = float(np.abs(theirs - ours.numpy()).max())
        if apart > allowed:
            self.differences.append(
                Difference(what, f"{self.frames[self.frame]}: {apart} apart, allowed {allowed}")
            )

    def saved(self, path, picture) -> None:
        """Save, compare, and put the recorded file in its place for the frames that follow."""
        self.save(path, picture)
        known = RECORDED / "runs" / self.name / "files" / str(path)
        with Image.open(path) as image:
            self.seen["images"][str(path)] = np.array(image)
        if self.allowed is not None and str(path) in self.allowed.images:
            self.compared += 1
            self.differences += compare_pixels(known, Path(path), self.allowed.images[str(path)])
        shutil.copyfile(known, path)


def traces() -> list[str]:
    return sorted(path.name for path in (RECORDED / "traces").iterdir()) if RECORDED.is_dir() else []


def main() -> int:
    root = RECORDED if RECORDED.is_dir() else SHIPPED
    differing = compared = 0
    runs = recorded(root)
    for name in [*runs, *(f"trace:{name}" for name in (traces() if root == RECORDED else []))]:
        with tempfile.TemporaryDirectory() as folder:
            if name in runs:
                found = replay(runs[name], Path(folder))
            else:
                trace = Trace(name.removeprefix("trace:"))
                found = trace.replay(Path(folder))
                compared += trace.compared
        differing += bool(found)
        why = f"deviates on purpose: {DEVIATIONS[name].why}" if name in DEVIATIONS else "agrees"
        print(f"{name:24} {'DIFFERS' if found else why}", flush=True)
        for difference in found:
            print(f"    {difference}")
    count = len(traces()) if root == RECORDED else 0
    print(
        f"{len(runs)} runs and {count} traces ({compared} values and arrays) of {root}: {len(runs) + count - differing}"
        f" held, {len(DEVIATIONS.keys() & runs)} of them deviations on purpose; {differing} differ"
    )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())

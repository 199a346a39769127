"""Recordings of train.lua and slow_neural_style.lua against this program: runs by their outcome, traces by parameters.

    python tests/training_runs.py [names...]

The recordings were made by running jcjohnson/fast-neural-style 813c834 unmodified on Torch7 (torch7 814ea4a, nn
8726825 with its change of batch norm of 2017-08-03 taken back, optim a5ceed7), on one thread. They lie in
../shared/golden/fast-neural-style, beside the checkout. A recording is argv, exit status, stdout, stderr and the files
written (INDEX.json, runs/NAME); for some also arrays: parameters after iterations, gradients, targets (traces/NAME).
Prints what differs and at which stage, then "N of N recordings held"; exits with 1 where one is not.
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
from functools import cached_property, lru_cache
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, tests/ is on the path, the checkout is not

import numpy as np
import torch
from recorded_runs import Difference, one_thread, working_in
from recordings import SHARED

from legacy_style.cli.slow_neural_style import main as slow_main
from legacy_style.cli.train import main as train_main
from legacy_style.formats import t7
from legacy_style.programs.fast_neural_style import slow, train
from legacy_style.programs.fast_neural_style.trainer import Trainer
from legacy_style.torch7.random import Generator

RECORDED = SHARED / "golden" / "fast-neural-style"
LENT = ("h5", "inputs", "models")
MAINS = {"train.lua": train_main, "slow_neural_style.lua": slow_main}

# What requiring Torch7's packages draws from the generator that the recordings had seeded before that.
DRAWN_BEFORE = 4

LOSS = re.compile(r"(Epoch \S+, Iteration \d+ / \d+, loss = |val loss = |Iteration \d+, loss = )(\S+)(\t.*)")
LAYOUT = re.compile(r"^layout path=\S+ type=(\S+) (weight|bias)=\S+ offset=(\d+)", re.MULTILINE)
LAST_DIGIT = 1.5e-6

FIRST = 2
"""So many losses agree in every run; what follows is chaotic in most: the original with two threads differs as much."""

TOLERANCE = 1e-5
"""Of these losses, relative to themselves."""

FEWER = {"mk_resnet_tanh3": 1}
"""Its losses are below 1, so that the second one's rounding is larger."""

STEADY = {
    **dict.fromkeys(("t_resume_in_zero_odd", "t_resume_bn_reflect"), 20),
    **dict.fromkeys(("t_tv", "t_upsample", "t_max_train", "t_same_layer_order", "t_resnet_pre"), 10),
    "t_lr_decay": 12,
    "t_resume_in_rs": 3,
    "t_scratch_bn": 5,
    "s_adam2": 12,
    "s_sgd": 4,
    "s_tv0": 4,
    "mk_in_C": 5,
    "mk_in_zero": 5,
}
"""Runs whose losses agree for longer than FIRST; parameters of these are compared too, where they were recorded."""

STEADY_TOLERANCE = 2e-5
PARAMETERS = 3e-5
"""Largest difference of a parameter. Biases in front of norms are left out: their true gradient is 0, and Adam turns
rounding into steps.
"""

GRADIENT = 6e-6
"""Relative L2 distance of the gradient of iteration 1: float32 in another order is up to 3e-6 away."""

_FOR_THE_BATCH = {"bn", "prev_N", "x_diff", "y_diff"}
"""What modules keep for the size of their last batch, which is ignored when it is read."""

REFUSED_EARLIER = frozenset(
    (
        *(
            "t_bad_agg",
            "t_bad_pad",
            "t_big_kernel",
            "t_no_loss",
            "t_task_foo",
            "t_val0",
            "s_adam",
            "s_bad_opt",
        ),
        *("t_no_h5", "t_no_style", "s_no_content"),
    )
)
"""Runs that the original broke off after more lines than we print: options are refused here, and files looked for,
before anything is made.
"""

DEVIATIONS = {
    "t_layer_bad": "a nested layer in train.lua works here; the original failed to print its name",
    "t_percep0": "-percep_loss_weight 0 works here; the original failed to write its history",
    "t_even_kernel": "the padding 1.5 of a 4x4 kernel is printed as the 1 that is computed with",
    "t_default_gpu": "without CUDA we run on the CPU; the original ended at once",
    "s_no_net": "exit status 1 where a loss network cannot be loaded; the original said so and ended with 0",
}

NOT_OURS = {
    "t_nnhead_resume_in_zero": "a later nn, whose instance norm does not normalise",
    "mk_candy_full": "its data was not recorded",
}


@dataclass(frozen=True)
class Run:
    """One recorded run; `words`: its command line after `th`, its script first."""

    name: str
    words: list[str]
    status: int
    written: list[str]
    kept: list[str]
    folder: Path

    @property
    def script(self) -> str:
        return Path(self.words[0]).name

    @cached_property
    def lines(self) -> list[str]:
        """stdout, each line without its newline."""
        return (self.folder / "stdout.txt").read_text().split("\n")[:-1]

    @property
    def trace(self) -> Path:
        return self.folder.parents[1] / "traces" / self.name


@dataclass(frozen=True)
class Outcome:
    """What a command line did here; `before`: files that it found; parameters and gradients by iteration."""

    status: int
    lines: list[str]
    stderr: str
    folder: Path
    before: frozenset[Path]
    parameters: dict[int, np.ndarray]
    gradients: dict[int, np.ndarray]

    @property
    def files(self) -> list[str]:
        found = {path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file()}
        return sorted(map(str, found - self.before))


@lru_cache
def recorded(root: Path) -> dict[str, Run]:
    """All recorded runs of the training programs by name."""
    index = json.loads((root / "INDEX.json").read_text())
    found = {}
    for key, case in index["cases"].items():
        kind, name = key.split("/")
        argv = case["argv"]
        words = argv[3:] if argv[1] == "-l" else argv[1:]
        if kind == "runs" and Path(words[0]).name in MAINS:
            written, kept = sorted(case["files_written"]), sorted(case["files_kept"])
            found[name] = Run(name, words, case["exit"], written, kept, root / key)
    assert found, f"no trainings in {root}"
    return found


def perform(run: Run, folder: Path) -> Outcome:
    """Run the recorded command line in the empty `folder`, on the CPU and one thread, as it was recorded."""
    root = run.folder.parents[1]
    for (
        name
    ) in LENT:  # copies, for a run may write where it reads: those that made a model wrote it to models/
        (folder / name).mkdir()
        for path in (root / name).iterdir():
            if f"{name}/{path.name}" not in run.written:
                shutil.copyfile(path, folder / name / path.name)
    before = frozenset(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    parameters: dict[int, np.ndarray] = {}
    gradients: dict[int, np.ndarray] = {}
    step = Trainer.step

    def watched(trainer: Trainer, x: torch.Tensor, y: torch.Tensor) -> float:
        loss = step(trainer, x, y)
        parameters[trainer.iteration] = trainer.parameters.numpy().copy()
        gradients[trainer.iteration] = trainer.gradients.numpy().copy()
        return loss

    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        working_in(folder),
        mock.patch("torch.cuda.is_available", return_value=False),
        mock.patch.object(train, "Generator", seeded),
        mock.patch.object(slow, "Generator", seeded),
        mock.patch.object(Trainer, "step", watched),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        one_thread(),
    ):
        status = MAINS[run.script](run.words[1:], "TORCH/bin/th")
    lines = stdout.getvalue().split("\n")[:-1]
    return Outcome(status, lines, stderr.getvalue(), folder, before, parameters, gradients)


def seeded(seed: int | None = None) -> Generator:
    """The generator that the recordings began with, after what was drawn before the first weight."""
    generator = Generator(123)
    generator.uniform(DRAWN_BEFORE)
    return generator


def losses(lines: list[str]) -> list[float]:
    return [float(match[2]) for line in lines if (match := LOSS.fullmatch(line))]


def shape(line: str) -> str:
    """A line without the loss in it."""
    match = LOSS.fullmatch(line)
    return match[1] + match[3] if match else line


def differences(run: Run, outcome: Outcome) -> Iterator[Difference]:
    """All that differs from the recording, stage by stage."""
    if run.name in DEVIATIONS:
        yield from _deviation(run, outcome)
        return
    if outcome.status != run.status:
        yield Difference("exit status", f"{outcome.status}, recorded {run.status}; {outcome.stderr.strip()}")
    yield from _stdout(run, outcome)
    yield from _losses(run, outcome)
    if outcome.files != run.written:
        yield Difference("files", f"wrote {outcome.files}, recorded {run.written}")
    yield from _checkpoint(run, outcome)
    if run.trace.is_dir():
        yield from _trace(run, outcome)


def _deviation(run: Run, outcome: Outcome) -> Iterator[Difference]:
    """The five runs that end otherwise here, each in its own way."""
    expected = {"t_layer_bad": 0, "t_percep0": 0, "t_even_kernel": 0, "t_default_gpu": 1, "s_no_net": 1}
    if outcome.status != expected[run.name]:
        yield Difference(
            "exit status", f"{outcome.status}, expected {expected[run.name]}; {outcome.stderr.strip()}"
        )
    if run.name == "t_even_kernel":
        yield from _lines([line.replace("1.5,1.5", "1,1") for line in run.lines], outcome)
    if run.name == "s_no_net":
        yield from _lines(run.lines, outcome)


def _stdout(run: Run, outcome: Outcome) -> Iterator[Difference]:
    if run.name in REFUSED_EARLIER:
        yield from _lines(run.lines[: len(outcome.lines)], outcome)
    else:
        yield from _lines(run.lines, outcome)


def _lines(expected: list[str], outcome: Outcome) -> Iterator[Difference]:
    for number, (ours, theirs) in enumerate(zip(outcome.lines, expected, strict=False), 1):
        if shape(ours) != shape(theirs):
            yield Difference("stdout", f"line {number} is {ours!r}, recorded {theirs!r}")
            return
    if len(outcome.lines) != len(expected):
        yield Difference("stdout", f"{len(outcome.lines)} lines, recorded {len(expected)}")


def _losses(run: Run, outcome: Outcome) -> Iterator[Difference]:
    exact, tolerance = FEWER.get(run.name, FIRST), TOLERANCE
    if run.name in STEADY:
        exact, tolerance = STEADY[run.name], STEADY_TOLERANCE
    for number, (one, other) in enumerate(zip(losses(outcome.lines), losses(run.lines), strict=False), 1):
        if number <= exact and not abs(one - other) <= tolerance * abs(other) + LAST_DIGIT:
            yield Difference("losses", f"the {number}th is {one}, recorded {other}")


def _checkpoint(run: Run, outcome: Outcome) -> Iterator[Difference]:
    """What the files of a checkpoint say of the options, and the names and kinds of all that is in them."""
    for name in run.kept:
        theirs, ours = run.folder / "files" / name, outcome.folder / name
        if not ours.is_file():
            continue  # told of already
        if name.endswith(".json"):
            one, other = json.loads(ours.read_text()), json.loads(theirs.read_text())
            if one["opt"] != other["opt"]:
                yield Difference(name, f"options {one['opt']}, recorded {other['opt']}")
            yield from _same_kind(name, one, other)
        elif name.endswith(".t7"):
            yield from _same_kind(name, t7.read(ours), t7.read(theirs))


def _same_kind(where: str, one: object, other: object) -> Iterator[Difference]:
    """Keys, classes, shapes and types, down to the leaves."""
    if isinstance(other, t7.TorchObject):
        if not isinstance(one, t7.TorchObject) or (one.typename, one.version) != (
            other.typename,
            other.version,
        ):
            yield Difference(where, f"{one}, recorded {other}")
            return
        one, other, where = one.fields, other.fields, f"{where} {other.typename}"
    if isinstance(other, dict):
        if not isinstance(one, dict) or set(one) != set(other):
            keys = sorted(map(str, set(one) ^ set(other))) if isinstance(one, dict) else one
            yield Difference(where, f"only one of the two has {keys}")
            return
        for key in set(other) - _FOR_THE_BATCH:
            yield from _same_kind(f"{where}.{key}", one[key], other[key])
    elif isinstance(other, list):
        if not isinstance(one, list) or len(one) != len(other):
            yield Difference(where, f"{one}, recorded {other}")
            return
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _same_kind(f"{where}[{number}]", left, right)
    elif isinstance(other, np.ndarray):
        if not isinstance(one, np.ndarray) or (one.shape, one.dtype) != (other.shape, other.dtype):
            found = (one.shape, one.dtype) if isinstance(one, np.ndarray) else one
            yield Difference(where, f"{found}, recorded {other.shape} {other.dtype}")
    elif type(one) is not type(other) and not {type(one), type(other)} <= {int, float}:
        yield Difference(where, f"{one!r}, recorded {other!r}")


def _trace(run: Run, outcome: Outcome) -> Iterator[Difference]:
    """The gradient of iteration 1, and parameters after the iterations that were recorded."""
    layout = LAYOUT.findall((run.trace / "log.txt").read_text())
    if not layout:
        return
    with np.load(run.trace / "arrays.npz") as archive:
        arrays = dict(archive)
    compared = _compared(layout, outcome.parameters[1].size)
    if "grad_001" in arrays:
        apart = np.linalg.norm(outcome.gradients[1] - arrays["grad_001"]) / np.linalg.norm(arrays["grad_001"])
        if not apart <= GRADIENT:
            yield Difference("gradient", f"{apart:.1e} apart (relative L2), allowed {GRADIENT}")
    for iteration, parameters in outcome.parameters.items():
        recording = arrays.get(f"params_{iteration:03d}")
        if recording is not None and iteration <= STEADY.get(run.name, 0):
            apart = np.abs(parameters - recording)[compared].max()
            if not apart <= PARAMETERS:
                yield Difference(
                    "parameters", f"{apart:.1e} apart after iteration {iteration}, allowed {PARAMETERS}"
                )


def _compared(layout: list[tuple[str, str, str]], count: int) -> np.ndarray:
    """Which parameters are compared: all but the biases of convolutions in front of norms."""
    compared = np.ones(count, bool)
    ends = [int(offset) for _, _, offset in layout[1:]] + [count]
    for number, ((kind, name, offset), end) in enumerate(zip(layout, ends, strict=True)):
        following = layout[number + 1][0] if number + 1 < len(layout) else ""
        if "Convolution" in kind and name == "bias" and "Normalization" in following:
            compared[int(offset) : end] = False
    return compared


def main(names: list[str]) -> int:
    runs = recorded(RECORDED)
    held = total = 0
    for name, run in runs.items():
        if (names and name not in names) or name in NOT_OURS:
            continue
        total += 1
        with tempfile.TemporaryDirectory() as folder:
            found = list(differences(run, perform(run, Path(folder))))
        held += not found
        print(f"{name}: {'held' if not found else '; '.join(map(str, found))}", flush=True)
    print(f"{held} of {total} recordings held; not ours: {', '.join(NOT_OURS)}")
    return 0 if held == total else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

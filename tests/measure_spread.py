"""How far correct processors are apart in every recording: measures it, and writes golden/torch7/spread.json.

    python tests/measure_spread.py [--videos] [--keep FOLDER]

Each recorded run and trace is computed here as it is, and then as other processors would: with another
instruction set, without oneDNN, and with sums in other orders whose roundings count eight times
(other_processor.py). What is written is the largest distance of any two of all these; spread.py reads it
and derives the tolerances. Nothing in it is taken from the recordings, or compared with them. Takes
about half an hour of one core; --keep lets it be interrupted and continued. Needs the full recordings.
--videos measures the traces of artistic_video.lua instead, and writes golden/artistic-videos/spread.json.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, tests/ is on the path, the checkout is not

import expectations
import numpy as np
import recorded_runs as runs
import torch
import trace_stages as traces
import video_recordings
from closeness import apart
from other_processor import OtherProcessor
from PIL import Image
from recordings import RECORDED
from spread import SPREAD, VIDEO_SPREAD

from legacy_style.programs.neural_style import options
from legacy_style.programs.neural_style.settings import read

Array = np.ndarray[Any, Any]

TIMES = 8
"""How many times roundings count: the margin of the tolerances."""

BEYOND = 1e9
"""Written where a distance is larger, or no number."""

SSE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}

# Environment, oneDNN or not, and the orders of sums.
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "SSE4.1": {"environment": SSE},
    "im2col": {"onednn": False},
    **{
        f"order {seed} x {times}": {"order": (seed, times)} for seed in (1, 2, 3) for times in (TIMES, -TIMES)
    },
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="measure_spread.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="where the results of each variant are kept")
    parser.add_argument("--videos", action="store_true", help="measure artistic_video.lua's recordings")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.variant:
        measured = measure(videos=given.videos, **VARIANTS[given.variant])
        (given.keep / f"{given.variant}.pickle").write_bytes(pickle.dumps(measured))
        return 0
    with contextlib.ExitStack() as stack:
        keep = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keep.mkdir(exist_ok=True)
        for name, variant in VARIANTS.items():
            if not (keep / f"{name}.pickle").exists():
                print(name, flush=True)
                command = [sys.executable, __file__, "--keep", str(keep), "--variant", name]
                command += ["--videos"] * given.videos
                subprocess.run(command, env={**os.environ, **variant.get("environment", {})}, check=True)
        every = {name: pickle.loads((keep / f"{name}.pickle").read_bytes()) for name in VARIANTS}
    (VIDEO_SPREAD if given.videos else SPREAD).write_text(written(spread(every)))
    return 0


def measure(
    environment: object = None,
    onednn: bool = True,
    order: tuple[int, int] | None = None,
    videos: bool = False,
) -> dict[str, Any]:
    """Everything that is recorded, computed by one kind of processor (its environment is this process's)."""
    torch.backends.mkldnn.set_flags(onednn)  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with OtherProcessor(*order) if order else contextlib.nullcontext():
        if videos:
            return measure_videos()
        for name, run in runs.recorded(RECORDED).items():
            if expectations.compares_losses(run):
                found[f"run:{name}"] = measure_run(run)
        for name, trace in traces.recorded(RECORDED).items():
            if name not in traces.REFUSED:
                found[f"trace:{name}"] = measure_trace(trace)
    return found


def measure_videos() -> dict[str, Any]:
    """artistic_video.lua's runs that are compared to their end, and all its traces."""
    found: dict[str, Any] = {}
    recorded = video_recordings.recorded(video_recordings.RECORDED)
    for name in video_recordings.MEASURED:
        with tempfile.TemporaryDirectory() as folder:
            outcome = video_recordings.perform(recorded[name], Path(folder))
            images = {}
            for file in recorded[name].files:
                with Image.open(Path(folder) / file) as image:
                    images[file] = np.array(image)
        found[f"run:{name}"] = {"losses": video_recordings.printed_losses(outcome.lines), "images": images}
    for name in video_recordings.traces():
        trace = video_recordings.Trace(name)
        with tempfile.TemporaryDirectory() as folder:
            trace.replay(Path(folder), compare=False)
        found[f"trace:{name}"] = trace.seen
    return found


def measure_run(run: runs.Run) -> dict[str, Any]:
    """The losses of each evaluation that is printed, and the images that are written."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = runs.perform(run, Path(folder))
        images = {}
        for name in run.images:
            with Image.open(Path(folder) / name) as image:
                images[name] = np.array(image)
    return {"losses": [each.losses for each in runs.evaluations(outcome.lines)], "images": images}


def measure_trace(trace: traces.Trace) -> dict[str, Any]:
    """Losses and gradients at each recorded image, x after one own step, and after all."""
    command = options.parse(trace.words)
    assert command is not None
    with tempfile.TemporaryDirectory() as folder:
        runs.lend(trace.root, trace.words, Path(folder))
        with runs.working_in(Path(folder)), torch.no_grad():
            given = read(command.options, save=False)  # where the model lies
            objective, start = traces.prepare(given)
            at = {each: traces.evaluate(trace, objective, each) for each in trace.evaluations}
            seen, _ = traces.own_steps(given, objective, start, given.num_iterations)
    return {"evaluations": at, "first": seen[1], "last": seen[-1]}


def spread(measured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The largest distance of any two variants, for each number that is compared."""
    found = {}
    for name in next(iter(measured.values())):
        variants = [each[name] for each in measured.values()]
        if name.startswith("run"):
            found[name] = spread_of_run(variants)
        else:
            found[name] = (spread_of_video if "images" in variants[0] else spread_of_trace)(variants)
    return found


def spread_of_run(variants: list[dict[str, Any]]) -> dict[str, Any]:
    losses = [
        relative_to_total(list(each)) for each in zip(*(one["losses"] for one in variants), strict=True)
    ]
    far = downhill(variants[0]["losses"])
    return {
        "losses": losses,
        "downhill": min(downhill(other["losses"]) / far for other in variants) if far else 0.0,
        "images": spread_of_images([each["images"] for each in variants]),
    }


def spread_of_images(variants: list[dict[str, Array]]) -> dict[str, list[float]]:
    """The largest difference in levels, and the largest share of values that differ, by name."""
    images: dict[str, list[float]] = {}
    for name in variants[0]:
        apart = [
            np.abs(np.int16(one) - np.int16(other)) for one, other in pairs(each[name] for each in variants)
        ]
        images[name] = [
            max(int(each.max()) for each in apart),
            max(float((each > 0).mean()) for each in apart),
        ]
    return images


def spread_of_video(variants: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses relative to themselves, gradients relative to their largest value, and images."""
    losses, gradients = {}, {}
    for where in variants[0]["losses"]:
        each = [variant["losses"][where] for variant in variants if where in variant["losses"]]
        # An evaluation that some processors do not come to says nothing.
        losses[where] = losses_apart(each) if len(each) == len(variants) else BEYOND
    for where in variants[0]["gradients"]:
        each = [variant["gradients"][where] for variant in variants if where in variant["gradients"]]
        largest = float(np.abs(each[0]).max())
        gradients[where] = max(float(np.abs(one - other).max()) for one, other in pairs(each)) / largest
    images = spread_of_images([variant["images"] for variant in variants])
    return {"losses": losses, "gradients": gradients, "images": images}


def pairs(values: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    return itertools.combinations(list(values), 2)


def relative_to_total(variants: list[list[float]]) -> float:
    """The largest distance of any loss (content, style, total) of one evaluation, relative to the first total."""
    apart = max(max(each) - min(each) for each in zip(*variants, strict=True))
    if apart == 0:
        return 0.0
    total = abs(variants[0][-1])
    return min(apart / total, BEYOND) if total and math.isfinite(apart) else BEYOND


def downhill(losses: list[list[float]]) -> float:
    """How far the total loss went down, as a logarithm: the first divided by the smallest."""
    totals = [each[-1] for each in losses]
    return math.log(totals[0] / min(totals)) if min(totals) > 0 else 0.0


def spread_of_trace(variants: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in variants[0]["evaluations"]:
        at = [each["evaluations"][number] for each in variants]
        found[str(number)] = {
            "losses": losses_apart([each.losses for each in at]),
            "gradient": max(
                apart(one.gradients[name], other.gradients[name])
                for one, other in pairs(at)
                for name in one.gradients
            ),
        }
    first, last = (
        max(np.abs(one - other).max() for one, other in pairs(each[key] for each in variants))
        for key in ("first", "last")
    )
    return {
        "evaluations": found,
        "first step": float(first / np.abs(variants[0]["first"]).max()),
        "last step": float(last),
    }


def losses_apart(variants: list[list[float]]) -> float:
    """The largest distance of a loss, relative to itself, but for what is next to nothing beside the total."""
    found = 0.0
    for each in zip(*variants, strict=True):
        apart = max(each) - min(each) - traces.NEXT_TO_NOTHING * abs(variants[0][0])
        if apart > 0:
            found = max(found, apart / abs(each[0]) if each[0] else BEYOND)
    return found


def written(found: dict[str, Any]) -> str:
    """As JSON, one recording a line, two digits a number, rounded up."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items()}
        if isinstance(value, list):
            return [rounded(each) for each in value]
        if isinstance(value, float) and value and math.isfinite(value):
            unit = 10.0 ** (math.floor(math.log10(value)) - 1)
            return float(f"{math.ceil(value / unit - 1e-9) * unit:.1e}")
        return value

    lines = [f"{json.dumps(name)}: {json.dumps(rounded(each))}" for name, each in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

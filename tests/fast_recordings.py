"""Recordings of fast_neural_style.lua against this program: runs by their outcome, traces stage by stage.

    python tests/fast_recordings.py [names...] [--recordings FOLDER]

The recordings were made by running jcjohnson/fast-neural-style 813c834 unmodified on Torch7 (torch7 814ea4a, nn 8726825
with its change of batch norm of 2017-08-03 taken back, image 5aa1881), on one thread. They lie in
../shared/golden/fast-neural-style, beside the checkout; a small part is shipped in tests/golden/fast_neural_style.
Prints what differs and at which stage, then "N of N recordings held"; exits with 1 where one is not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, tests/ is on the path, the checkout is not

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from recorded_runs import Difference, Outcome, one_thread, working_in
from recordings import SHARED

from legacy_style.cli.fast_neural_style import main as program
from legacy_style.formats import t7
from legacy_style.programs.fast_neural_style import network
from legacy_style.programs.fast_neural_style.median import median_filter
from legacy_style.torch7 import image

SHIPPED = Path(__file__).parent / "golden" / "fast_neural_style"
RECORDED = SHARED / "golden" / "fast-neural-style"
TORCH7 = SHARED / "golden" / "torch7"
SCRIPT = "fast_neural_style.lua"
PROGRAM = "TORCH/bin/th"  # what the original's usage calls it
HEADING = "\nPaints a photograph"  # where our part of -help begins

LEVELS, SHARE, FEW = 1, 1e-4, 8
"""A saved value may differ by so many levels, and so large a part of them, or so few in a small image: those that end
on a level's border. The modules in plain PyTorch differ in as many as 5.
"""

JPEG_LEVELS = 3
"""Where one value of a block differs by a level before it is compressed."""

LAYER, OUTPUT = 3e-6, 4e-4
"""The largest error of a layer, as a part of its largest value, and of the network's output, as values of 150."""

# What lay in indir, under which name; empty folders end in a slash.
_FOLDER = {
    "a.JPG": "square80.jpg",
    "b.png": "odd53x79.png",
    "c.jpeg": "square80.jpg",
    "gray.PNG": "gray97x61.png",
    "z.ppm": "odd97x61.ppm",
    ".hidden.png": "odd97x61.png",
    "notes.txt": "odd97x61.png",
}
FOLDERS = {
    "dir": {**_FOLDER, "sub.png/": ""},
    "dir_and_image": _FOLDER,
    "dir_pgm": {"p.pgm": "gray97x61.pgm"},
    "dir_empty": {},
}

REFUSALS = {
    "bad_number": "invalid type for option -median_filter (should be number)",
    "bare": "invalid argument: bare",
    "both_empty": "Must give exactly one of -input_image or -input_dir",
    "dashdash": "invalid argument: --image_size",
    "dir_no_out": "Must give -output_dir with -input_dir",
    "in_empty_jpg": "inputs/empty.jpg: an empty file",
    "in_garbage_png": "inputs/garbage.png: not an image",
    "in_nope_png": "inputs/nope.png: No such file or directory",
    "m_in_none_s33": "the image is too small for this network",
    "median_64": "-median_filter 64 is larger than the result",
    "no_input": "inputs/missing.png: No such file or directory",
    "none_too_small": "the image is too small for this network",
    "out_empty": "Must give -output_image with -input_image",
    "unknown_opt": "invalid argument: -foo",
}
"""What stderr says where the original failed as well."""

REMARKS = {
    "in_exif_rot_jpg": "its EXIF orientation (6: to be turned by 90 degrees) is ignored",
    "in_truncated_jpg": "64 of its 80 rows are missing and come out gray",
}
"""What stderr says of photographs that the original took without a word."""


@dataclass(frozen=True)
class Deviation:
    """What is done on purpose instead of what was recorded."""

    why: str
    status: int
    stderr: str
    lines: list[str] | None = None
    """stdout; None: as recorded, or only its beginning where the run fails."""
    like: str = ""
    """The recording whose files are written; none where it is empty."""


_CPU = "running on the CPU"
_EARLY = "checked before the network runs, not when all is done"

DEVIATIONS = {
    "bad_model": Deviation(
        "a model that cannot be loaded is an error, not exit status 0", 1, "inputs/odd97x61.png"
    ),
    "no_model": Deviation(
        "a model that cannot be loaded is an error, not exit status 0", 1, "models/nope.t7"
    ),
    "candy_s48": Deviation("an image smaller than its reflection is refused", 1, "the image is too small"),
    "dir_empty": Deviation("says that there is nothing to do", 0, "no image in indir"),
    "dir_missing": Deviation("a folder that is missing is an error", 1, "nodir: No such file or directory"),
    "dir_pgm": Deviation(_EARLY, 1, "can only save 1xHxW or HxW images as PGM", []),
    "ext_bmp": Deviation(_EARLY, 1, "unknown image type: bmp", []),
    "ext_gif": Deviation(_EARLY, 1, "unknown image type: gif", []),
    "ext_pgm": Deviation(_EARLY, 1, "can only save 1xHxW or HxW images as PGM", []),
    "gpu0": Deviation("runs without CUDA", 0, _CPU, ["Writing output image to out.png\t"], "backend_foo"),
    "gpu0_opencl": Deviation(
        "runs without OpenCL", 0, _CPU, ["Writing output image to out.png\t"], "backend_foo"
    ),
    "in_la97x61_png": Deviation(
        "gray with alpha is loaded, alpha dropped",
        0,
        "",
        ["Writing output image to out.png\t"],
        "in_gray97x61_png",
    ),
    "in_odd97x61_gif": Deviation("GIF is loaded", 0, "", ["Writing output image to out.png\t"], "*"),
    "model_is_net": Deviation(
        "a bare network runs, but must give an image", 1, "gives 24 channels, not an image"
    ),
    "nnhead_in_rs": Deviation(
        "instance norm normalises, as in the paper; that of nn after 2017-08-03 did not",
        0,
        "",
        None,
        "nnold_in_rs",
    ),
}


@dataclass(frozen=True)
class Recording:
    """One recorded command: `words` after `th fast_neural_style.lua`; `files`: those that it wrote."""

    name: str
    words: list[str]
    status: int
    files: list[str]
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "runs" / self.name

    @property
    def lines(self) -> list[str]:
        return (self.folder / "stdout.txt").read_text().split("\n")[:-1]

    @property
    def option(self) -> dict[str, str]:
        return dict(zip(self.words[::2], self.words[1::2], strict=False))


def recorded(root: Path) -> dict[str, Recording]:
    """All runs under `root` by name."""
    found = {}
    for key, case in json.loads((root / "INDEX.json").read_text())["cases"].items():
        kind, name = key.split("/")
        if kind == "runs" and SCRIPT in case["argv"]:
            words = case["argv"][case["argv"].index(SCRIPT) + 1 :]
            found[name] = Recording(name, words, case["exit"], sorted(case["files_written"]), root)
    assert found, f"no recordings in {root}"
    return found


def traces(root: Path) -> list[str]:
    """The names of all traces under `root` of runs of this program."""
    cases = json.loads((root / "INDEX.json").read_text())["cases"]
    return [
        key.split("/")[1]
        for key, case in cases.items()
        if key.startswith("traces") and SCRIPT in case["argv"]
    ]


def perform(recording: Recording, folder: Path) -> Outcome:
    """Run the command in the empty `folder`, on the CPU and one thread, with copies of the files that it names."""
    for word in recording.words:
        for home in (recording.root, TORCH7):
            if word.startswith(("models/", "inputs/")) and (home / word).is_file():
                (folder / word).parent.mkdir(exist_ok=True)
                shutil.copyfile(home / word, folder / word)
    before = {path for path in folder.rglob("*") if path.is_file()}
    if recording.name in FOLDERS:
        before |= set(fill(folder / "indir", FOLDERS[recording.name]))
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        working_in(folder),
        mock.patch("torch.cuda.is_available", return_value=False),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        one_thread(),
    ):
        status = program(recording.words, PROGRAM)
    for path in before:
        path.unlink()
    lines = stdout.getvalue().replace(str(folder.resolve()), "WORK").split("\n")[:-1]
    return Outcome(status, lines, stderr.getvalue(), folder)


def fill(folder: Path, contents: dict[str, str]) -> Iterator[Path]:
    """Make the folder that a run read; yields its files."""
    folder.mkdir()
    for name, source in contents.items():
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            shutil.copyfile(TORCH7 / "inputs" / source, folder / name)
            yield folder / name


def differences(recording: Recording, folder: Path) -> list[Difference]:
    """Run a command, and say at which stage its outcome differs from what was recorded or is meant."""
    outcome = perform(recording, folder)
    deviation = DEVIATIONS.get(recording.name)
    return list(_deviating(recording, deviation, outcome) if deviation else _as_recorded(recording, outcome))


def _as_recorded(recording: Recording, outcome: Outcome) -> Iterator[Difference]:
    yield from _status(recording.status, outcome)
    yield from _stdout(recording.lines, outcome, whole=True)
    said = {**REFUSALS, **REMARKS}.get(recording.name, _folder_refusal(recording))
    yield from _stderr(said, outcome)
    files = recording.files
    if (
        recording.name == "dir"
    ):  # names in order: what came behind the folder sub.png is not reached, b.png is
        files = sorted([*(file for file in files if file != "outd/z.ppm"), "outd/b.png"])
    yield from _files(recording.folder / "files", files, outcome)


def _folder_refusal(recording: Recording) -> str:
    return "sub.png: a folder, not an image" if recording.name == "dir" else ""


def _deviating(recording: Recording, deviation: Deviation, outcome: Outcome) -> Iterator[Difference]:
    yield from _status(deviation.status, outcome)
    yield from _stderr(deviation.stderr, outcome)
    if deviation.lines is not None:
        yield from _stdout(deviation.lines, outcome, whole=True)
    else:
        yield from _stdout(recording.lines, outcome, whole=deviation.status == 0)
    if deviation.like == "*":  # it must be written, and nothing like it was recorded
        if not outcome.images:
            yield Difference("files", "nothing was written")
    elif deviation.like:
        like = recording.root / "runs" / deviation.like / "files"
        yield from _files(like, sorted(path.name for path in like.iterdir()), outcome)
    else:
        yield from _files(recording.folder / "files", [], outcome)


def _status(expected: int, outcome: Outcome) -> Iterator[Difference]:
    if outcome.status != expected:
        yield Difference(
            "exit status", f"{outcome.status}, expected {expected}; stderr: {outcome.stderr.strip()}"
        )


def _stdout(lines: list[str], outcome: Outcome, *, whole: bool) -> Iterator[Difference]:
    """Line by line, a folder's in the order of their names; times do not count, nor what we add to -help."""
    text = "\n".join(outcome.lines)
    ours = [_comparable(line) for line in text.partition(f"\n{HEADING}")[0].split("\n") if outcome.lines]
    theirs = (
        sorted(map(_comparable, lines))
        if any("WORK/" in line for line in lines)
        else list(map(_comparable, lines))
    )
    if any("WORK/outd/" in line for line in ours):
        named = [line for line in theirs if line in ours]
        extra = [line for line in ours if line not in theirs]
        if ours != sorted(ours) or extra not in ([], ["Writing output image to WORK/outd/b.png\t"]):
            yield Difference("stdout", f"{ours}, recorded {theirs} ({named})")
        return
    if ours != (theirs if whole else theirs[: len(ours)]):
        yield Difference("stdout", f"{ours}, expected {theirs}")


def _comparable(line: str) -> str:
    before, took, seconds = line.rpartition(" took ")
    return before + took + "SECONDS" if took and float(seconds) >= 0 else line


def _stderr(fragment: str, outcome: Outcome) -> Iterator[Difference]:
    if fragment not in outcome.stderr or (not fragment and outcome.stderr):
        yield Difference("stderr", f"{outcome.stderr.strip()!r}, expected {fragment!r}")


def _files(theirs: Path, names: list[str], outcome: Outcome) -> Iterator[Difference]:
    if outcome.images != names:
        yield Difference("files", f"wrote {outcome.images}, expected {names}")
        return
    for name in names:
        if not (theirs / name).exists():
            continue
        ours, recorded = pixels(outcome.folder / name), pixels(theirs / name)
        if ours.shape != recorded.shape:
            yield Difference("size", f"{name} is {ours.shape}, recorded {recorded.shape}")
            continue
        apart = np.abs(ours - recorded)
        jpeg = name.lower().endswith(("jpg", "jpeg"))
        many = (apart > 0).sum() > max(SHARE * apart.size, FEW) and not jpeg
        if apart.max() > (JPEG_LEVELS if jpeg else LEVELS) or many:
            yield Difference(
                "pixels", f"{name}: {(apart > 0).sum()} of {apart.size} differ, by {apart.max()} at most"
            )


def pixels(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as opened:
        return np.asarray(opened).astype(np.int64)


def trace_differences(name: str, root: Path) -> list[Difference]:
    """Repeat a traced run one stage at a time, each from what was recorded of the stage before."""
    return list(_stages(name, root))


def _stages(name: str, root: Path) -> Iterator[Difference]:
    option = recorded(root)[name].option
    with np.load(root / "traces" / name / "arrays.npz") as archive:
        arrays = dict(archive)
    path = root / option["-model"]
    checkpoint = network.from_checkpoint(t7.read(path), str(path))
    if "image_load" in arrays and "image_scale" in arrays:
        scaled = image.scale(arrays["image_load"], float(option["-image_size"]))
        yield from _equal("scale", scaled, arrays["image_scale"])
    if "image_scale" in arrays:
        preprocessed = checkpoint.preprocessing.preprocess(arrays["image_scale"])
        yield from _equal("preprocess", preprocessed[None], arrays["preprocess"])
    yield from _layers(checkpoint.network, arrays)
    if "model_output" not in arrays:
        return
    picture = checkpoint.preprocessing.deprocess(arrays["model_output"])
    yield from _equal("deprocess", picture, arrays["deprocess"])
    median = int(option.get("-median_filter", "3"))
    filtered = median_filter(arrays["deprocess"][0], median) if median else arrays["deprocess"][0]
    yield from _equal("median filter", filtered, arrays["image_save"])


def _layers(net: torch.nn.Module, arrays: dict[str, NDArray[np.float32]]) -> Iterator[Difference]:
    """Every recorded layer, by its path as Torch7 counts, and the network's output."""
    expected = {key[5:]: array for key, array in arrays.items() if key[0] == "L" and key[4:5] == "_"}
    found: dict[str, NDArray[np.float32]] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
            found[path] = output.numpy().copy()  # before an in-place ReLU overwrites it

        return hook

    for name, module in net.named_modules():
        path = "-".join(str(int(number) + 1) for number in name.split(".")) if name else "model"
        if path in expected:
            module.register_forward_hook(keep(path))
    output = None
    with torch.no_grad(), contextlib.suppress(RuntimeError):  # too small an image
        output = net(torch.from_numpy(arrays["preprocess"].astype(np.float32))).numpy()
    for path, theirs in expected.items():
        if path not in found:
            yield Difference(f"layer {path}", "was not computed")
            return
        ours = found[path]
        if ours.shape != theirs.shape or np.abs(ours - theirs).max() > LAYER * np.abs(theirs).max():
            yield Difference(
                f"layer {path}", f"{ours.shape}, off by {_apart(ours, theirs)}; recorded {theirs.shape}"
            )
            return
    theirs_output = arrays.get("model_output")
    # Where the original read beyond the image, its output is nothing but NaN.
    if output is None and (theirs_output is None or np.isnan(theirs_output).all()):
        return
    if output is None or theirs_output is None or output.shape != theirs_output.shape:
        yield Difference("output", "one of the two has none of this size")
    elif np.abs(output - theirs_output).max() > OUTPUT:
        yield Difference("output", f"off by {_apart(output, theirs_output)}")


def _apart(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> object:
    return np.abs(ours - theirs).max() if ours.shape == theirs.shape else "its shape"


def _equal(stage: str, ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> Iterator[Difference]:
    if not np.array_equal(ours, theirs, equal_nan=True):
        yield Difference(stage, "is not equal")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="NAME of a run, or trace:NAME")
    parser.add_argument("--recordings", type=Path, default=RECORDED if RECORDED.is_dir() else SHIPPED)
    given = parser.parse_args(words)
    cases = all_cases(given.recordings)
    unknown = [name for name in given.names if name not in cases]
    if unknown:
        print(f"no recording of {', '.join(unknown)} in {given.recordings}", file=sys.stderr)
        return 2
    chosen = given.names or list(cases)
    held = 0
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            found = cases[name](Path(folder))
        held += not found
        for difference in found:
            print(f"{name}: {difference}")
    deviations = sum(name in DEVIATIONS for name in chosen)
    print(f"{held} of {len(chosen)} recordings held, {deviations} of them as deviations on purpose")
    return 0 if held == len(chosen) else 1


def all_cases(root: Path) -> dict[str, Callable[[Path], list[Difference]]]:
    """Every recording under `root` by name, NAME or trace:NAME, as a function of an empty folder."""
    runs = {
        name: lambda folder, recording=recording: differences(recording, folder)
        for name, recording in recorded(root).items()
    }
    traced = {
        f"trace:{name}": lambda folder, name=name: trace_differences(name, root) for name in traces(root)
    }
    return {**runs, **traced}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

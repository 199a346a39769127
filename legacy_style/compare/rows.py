"""One row: find its files, make it ready, run it with the network at hand, measure and judge.

Files are in folders, or fetched by URL; each is checked before it is used.

What stands in the way of a full judgement becomes a caveat; a row that cannot be run at all is blocked, and
only its expected picture is looked at.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from legacy_style.compare import making, metrics, verdicts
from legacy_style.compare.manifest import Manifest, Row
from legacy_style.compare.objective import Meter
from legacy_style.compare.verdicts import Outcome, Run, UsedNetwork
from legacy_style.errors import ChecksumError, LegacyStyleError, OptionError
from legacy_style.files import sha256
from legacy_style.programs.neural_style import options
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.story import Progress
from legacy_style.torch7 import image as torch7_image
from legacy_style.torch7.cmdline import split_list

Fetch = Callable[[str, Path, str], None]
"""(URL, path to write, SHA-256 or ''): writes the whole file or raises."""


@dataclass
class Files:
    """Finds the files of `manifest`: in `folders`, beside the manifest, in `cache`, at last by `fetch`.

    `fetch` None: nothing is fetched.
    """

    manifest: Manifest
    folders: Sequence[Path]
    cache: Path
    fetch: Fetch | None = None
    _checked: dict[str, Path] = field(default_factory=dict)

    def find(self, name: str) -> Path:
        """The path of a file that the manifest names.

        Raises OptionError where it is nowhere to be had, ChecksumError where it is another file than the
        manifest says.
        """
        if name not in self._checked:
            self._checked[name] = self._find(name)
        return self._checked[name]

    def _find(self, name: str) -> Path:
        known = self.manifest.files.get(name)
        digest = known.sha256 if known else ""
        cached = self._cached(name)
        for path in (*(folder / name for folder in (*self.folders, self.manifest.path.parent)), cached):
            if path.is_file():
                return _check(path, digest)
        places = ", ".join(str(folder) for folder in self.folders) or "--from FOLDER"
        if not known or not known.url:
            raise OptionError(f"{name}: not found (looked in {places}), and no URL is known for it")
        if self.fetch is None:
            raise OptionError(f"{name}: not found (looked in {places}), and nothing may be fetched")
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.fetch(known.url, cached, digest)
        except LegacyStyleError as error:
            raise type(error)(f"{name}: {error}") from None
        return _check(cached, digest)

    def _cached(self, name: str) -> Path:
        """A name of our own in the cache: a manifest's could lead out of it."""
        return self.cache / (hashlib.sha256(name.encode()).hexdigest()[:16] + Path(name).suffix)


def _check(path: Path, digest: str) -> Path:
    if digest and sha256(path) != digest:
        raise ChecksumError(f"{path}: another file than the manifest means (its SHA-256 is not {digest})")
    return path


@dataclass(frozen=True)
class Tick:
    """One evaluation, or with `iteration` None the end of a row, whose verdict is `text`."""

    row: str
    seed: int | None
    iteration: int | None
    of: float
    text: str


Tell = Callable[[Tick], None]


@dataclass(frozen=True)
class RunSettings:
    """How to run: `models` at hand, the work folder, limits on size and iterations (None: as the rows say).

    The limits do not hold for rows whose name fits one of the patterns in `full` (as in file names:
    `vgg16_*`).
    """

    models: tuple[Path, ...]
    work: Path
    image_size: float | None = None
    num_iterations: float | None = None
    full: tuple[str, ...] = ()
    seeds: int = 2
    chunks: bool = True
    jobs: int = 1


@dataclass(frozen=True)
class Task:
    """One row made ready: effective options without seed, files found, and what stands in the way."""

    row: Row
    options: Options
    seeds: tuple[int | None, ...]
    network: UsedNetwork
    expected: str
    content: str
    caveats: tuple[str, ...]
    blocked: bool
    work: Path
    chunks: bool


def identify(path: Path, manifest: Manifest) -> UsedNetwork:
    """Which of the manifest's models a file is, by its checksum."""
    digest = sha256(path)
    for name, known in manifest.models.items():
        for each in known:
            if each.startswith("sha1:"):
                if _sha1(path) == each.removeprefix("sha1:"):
                    return UsedNetwork(str(path), digest, name)
            elif digest.startswith(each):
                return UsedNetwork(str(path), digest, name)
    return UsedNetwork(str(path), digest, "")


def _sha1(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha1()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def prepare(row: Row, files: Files, settings: RunSettings, networks: Sequence[UsedNetwork]) -> Task:
    """Parse the row's command line, find its files and network, and write down every caveat."""
    caveats, blocked = [], bool(row.missing)
    if row.missing:
        caveats.append(f"cannot be run: {row.missing}")
    parsed = options.parse(row.options)
    if parsed is None:
        raise OptionError(f"{files.manifest.path}, row {row.name}: its options ask for help, and run nothing")
    wanted = parsed.options
    network = next((each for each in networks if each.name == row.model), networks[0])
    if row.model and network.name != row.model:
        made_with = f"another network: the expected result was made with {row.model}, ours with"
        caveats.append(f"{made_with} {network.name or Path(network.file).name}")
        blocked |= not row.expected  # losses of another network say nothing

    found: dict[str, Any] = {}
    names = {"content_image": [wanted.content_image], "style_image": split_list(wanted.style_image)}
    names["init_image"] = [wanted.init_image] if wanted.init == "image" and wanted.init_image else []
    for option, each in names.items():
        paths = [_find(files, name, caveats if not row.missing else []) for name in each]
        found[option] = ",".join(paths)
        blocked |= "" in paths
    expected = ""
    if row.expected:
        gone: list[str] = []
        expected = _find(files, row.expected, gone)
        if not expected and not row.printed:
            caveats += gone
            blocked = True
    in_full = any(fnmatch.fnmatchcase(row.name, pattern) for pattern in settings.full)
    changed = {} if in_full else _limits(wanted, settings, caveats)
    effective = wanted.changed(**found, **changed, model_file=network.file, save_iter=0.0)
    fixed = wanted.seed >= 0 or wanted.init != "random"
    seeds = (None,) if fixed else row.seeds or tuple(range(1, settings.seeds + 1))
    return Task(
        row=row,
        options=effective,
        seeds=seeds,
        network=network,
        expected=expected,
        content=found["content_image"],
        caveats=tuple(caveats),
        blocked=blocked,
        work=settings.work,
        chunks=settings.chunks,
    )


def _find(files: Files, name: str, complaints: list[str]) -> str:
    try:
        path = str(files.find(name).absolute())
    except LegacyStyleError as error:
        complaints.append(str(error))
        return ""
    if "," in path:
        raise OptionError(f"{path}: the command line cannot take a comma in a path; move the folder")
    return path


def _limits(wanted: Options, settings: RunSettings, caveats: list[str]) -> dict[str, Any]:
    """The options that --image-size and --num-iterations bring down, with the caveats that this means."""
    changed: dict[str, Any] = {}
    size, iterations = settings.image_size, settings.num_iterations
    if size is not None and size < wanted.image_size:
        changed["image_size"] = size
        caveats.append(f"another size: {size:g} pixels instead of {wanted.image_size:g}")
    if iterations is not None and iterations < wanted.num_iterations:
        changed["num_iterations"] = iterations
        caveats.append(f"fewer iterations: {iterations:g} instead of {wanted.num_iterations:g}")
    return changed


def run_task(task: Task, tell: Tell) -> Outcome:
    """Run, measure and judge one row."""
    outcome = Outcome(
        row=task.row,
        command=making.repeat_command(task.row.options if task.blocked else options.as_words(task.options)),
        network=task.network,
        expected=task.expected,
        content=task.content,
        styles=tuple(path for path in split_list(task.options.style_image) if path),
        caveats=task.caveats,
    )
    try:
        outcome = _run_and_measure(task, outcome, tell)
    except LegacyStyleError as error:
        outcome = dataclasses.replace(outcome, error=f"it failed: {error}")
    outcome = dataclasses.replace(outcome, verdict=verdicts.judge(outcome))
    tell(Tick(task.row.name, None, None, 0, outcome.verdict.kind))
    return outcome


def _run_and_measure(task: Task, outcome: Outcome, tell: Tell) -> Outcome:
    expected = metrics.load_bytes(task.expected) if task.expected else None
    content = None
    if task.options.original_colors == 1 and task.content:
        content = torch7_image.load(task.content)
        if expected is not None:
            tested = metrics.original_colors_test(expected, content)
            outcome = dataclasses.replace(outcome, expected_colors=tested)
    if task.blocked:
        return outcome
    runs = [_run(task, seed, tell) for seed in task.seeds]
    meter = Meter(task.options)
    scaled = ""
    if expected is not None and expected.shape[:2] != (meter.height, meter.width):
        scaled = f"scaled from {metrics.size_of(expected)} to {meter.width}x{meter.height}"
        smaller = torch7_image.scale_to(metrics.to_image(expected), meter.width, meter.height)
        expected = metrics.to_bytes(smaller)
    measured = []
    for run in runs:
        picture = metrics.load_bytes(run.picture)
        measured.append(
            dataclasses.replace(
                run,
                objective=meter(metrics.to_image(picture)),
                pixels=None if expected is None else metrics.compare(picture, expected),
                colors=None if content is None else metrics.original_colors_test(picture, content),
            )
        )
    return dataclasses.replace(
        outcome,
        content_layers=meter.content_layers,
        style_layers=meter.style_layers,
        runs=tuple(measured),
        expected_objective=None if expected is None else meter(metrics.to_image(expected)),
        scaled=scaled,
    )


def _run(task: Task, seed: int | None, tell: Tell) -> Run:
    """Make one picture of a row."""
    name = task.row.name if seed is None else f"{task.row.name}-seed{seed}"
    picture = task.work / f"{name}{Path(task.options.output_image).suffix}"
    wanted = task.options.changed(output_image=str(picture))
    if seed is not None:
        wanted = wanted.changed(seed=float(seed))

    def on_progress(progress: Progress) -> None:
        total = f"loss {progress.losses.total:.6g}"
        tell(Tick(task.row.name, seed, progress.iteration, progress.num_iterations, total))

    made, resumed = making.make(wanted, task.network.sha256, chunks=task.chunks, on_progress=on_progress)
    return Run(str(picture), seed, making.losses_of(made), made["seconds"], resumed)

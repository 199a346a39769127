"""Is today's picture still the right one? Compares it with what was published, recorded, or made yesterday.

`images` compares two pictures, `run` runs the command lines of a manifest and judges what comes out, `record`
makes a manifest from results. Exit status 0: nothing is different; 1: something is, or an error; 2: usage.
"""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from pathlib import Path

import click

from legacy_style.cli import process
from legacy_style.cli.legacy_style import NAME
from legacy_style.cli.progress import LiveLine
from legacy_style.cli.tools.numbers import NumberRange
from legacy_style.compare import making, manifest, objective, report, rows, runner
from legacy_style.compare.verdicts import KINDS, as_json
from legacy_style.engine import machine
from legacy_style.errors import OptionError
from legacy_style.formats import model_files
from legacy_style.programs.neural_style import options
from legacy_style.toolkit import download, known_files

EXISTING = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
PATH = click.Path(path_type=Path)

_MOST = 1 << 28  # bytes of a picture that is fetched


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.argument("a", type=EXISTING)
@click.argument("b", type=EXISTING)
@click.option("--content", type=EXISTING, help="The content image of both.")
@click.option(
    "--style", "styles", type=EXISTING, multiple=True, help="A style image of both; may be repeated."
)
@click.option(
    "--model-file", type=EXISTING, help="The network; default: VGG-19 if it is here, or the bundled VGG-16."
)
@click.option(
    "--options", "words", default="", help="Options of neural_style.lua: '-content_weight 1 -pooling avg'."
)
@click.option("--original-colors", is_flag=True, help="Test exactly that U and V are those of --content.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
def images(
    a: Path,
    b: Path,
    content: Path | None,
    styles: tuple[Path, ...],
    model_file: Path | None,
    words: str,
    original_colors: bool,
    json_wanted: bool,
) -> int:
    """Compare the pictures A and B.

    Pixels always; with --content and --style also the objective of both under one network. Exit status 1 if
    --original-colors fails.
    """
    if model_file is not None:
        words += f" -model_file {shlex.quote(str(model_file))}"
    parsed = options.parse(shlex.split(words))
    if parsed is None:
        raise OptionError("--options asks for help; leave -help out")
    found = objective.compare(
        (a, b), content=content, styles=styles, options=parsed.options, original_colors=original_colors
    )
    if json_wanted:
        click.echo(json.dumps(as_json(found), indent=1))
    else:
        click.echo("\n".join(objective.as_text(found, (str(a), str(b)))))
    return 0 if found.passed else 1


@main.command()
@click.argument("manifest_path", metavar="MANIFEST")
@click.option(
    "--from", "folders", type=FOLDER, multiple=True, help="A folder that has the files; may be repeated."
)
@click.option("--offline", is_flag=True, help="Fetch nothing by URL.")
@click.option(
    "--model-file", "models", type=EXISTING, multiple=True, help="A network at hand; may be repeated."
)
@click.option("--only", multiple=True, metavar="NAME", help="Only this row; may be repeated.")
@click.option("--image-size", type=NumberRange(min=1), help="No picture larger than this.")
@click.option("--num-iterations", type=NumberRange(min=1), help="No run longer than this.")
@click.option("--full", multiple=True, metavar="PATTERN", help="Rows without these limits: 'vgg16_*'.")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=2, show_default=True, help="Runs from random noise."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Rows at a time.")
@click.option(
    "--work", type=PATH, default=Path("compare"), show_default=True, help="Where pictures are kept."
)
@click.option(
    "--report",
    "report_path",
    type=PATH,
    help="The HTML; the JSON goes beside it. [default: WORK/report.html]",
)
@click.option("--junit", "junit_path", type=PATH, help="Write JUnit XML too.")
@click.option("--no-metadata", is_flag=True, help="Do not write the records into the PNGs.")
@click.option("--strict", is_flag=True, help="Exit status 1 also if a row is not comparable.")
def run(
    manifest_path: str,
    folders: tuple[Path, ...],
    offline: bool,
    models: tuple[Path, ...],
    only: tuple[str, ...],
    image_size: float | None,
    num_iterations: float | None,
    full: tuple[str, ...],
    seeds: int,
    jobs: int,
    work: Path,
    report_path: Path | None,
    junit_path: Path | None,
    no_metadata: bool,
    strict: bool,
) -> int:
    """Run the command lines of MANIFEST (a file, or `published`), and judge each picture.

    A comparison that was stopped goes on where it was when called again. --image-size and
    --num-iterations make it fit a small machine; rows that they change are reported as not comparable,
    with their measures.
    """
    path = manifest.PUBLISHED if manifest_path == "published" else Path(manifest_path)
    wanted = manifest.only(manifest.read(path), only)
    settings = rows.RunSettings(
        models=models or _models_at_hand(),
        work=work / "pictures",
        image_size=image_size,
        num_iterations=num_iterations,
        full=full,
        seeds=seeds,
        chunks=not no_metadata,
        jobs=jobs,
    )
    console = _Console(len(wanted.rows))
    found = rows.Files(wanted, folders, work / "files", None if offline else _fetch)
    try:
        machine.keep_freed_memory()
        outcomes = runner.run_manifest(wanted, found, settings, console)
    except KeyboardInterrupt:
        console.clear()
        process.echo(f"Stopped. The same command goes on from what is in {work}.", err=True)
        return 130
    console.clear()
    report_path = report_path or work / "report.html"
    command = shlex.join([NAME, *click.get_current_context().obj])
    about = report.About(wanted.about or path.name, str(path), command, datetime.datetime.now())
    report_path.parent.mkdir(parents=True, exist_ok=True)
    report.write(report_path, outcomes, about)
    if junit_path is not None:
        report.write_junit(junit_path, outcomes, about.title)
    kinds = [outcome.verdict.kind for outcome in outcomes]
    for outcome in outcomes:
        process.echo(f"{outcome.verdict.kind:15} {outcome.row.name}: {outcome.verdict.because[0]}")
    process.echo(
        ", ".join(f"{kinds.count(kind)} {kind}" for kind in reversed(KINDS)) + f". Report: {report_path}"
    )
    failed = "different" in kinds or (strict and "not comparable" in kinds)
    return 1 if failed else 0


@main.command("record")
@click.argument("folder", type=FOLDER)
@click.option("--output", type=PATH, help="The manifest. [default: FOLDER/manifest.json]")
@click.option(
    "--tolerance", "tolerances", multiple=True, metavar="NAME=NUMBER", help="For every row; may be repeated."
)
def record_command(folder: Path, output: Path | None, tolerances: tuple[str, ...]) -> None:
    """Make a manifest from the pictures in FOLDER that have records: bless today's results."""
    path = output or folder / "manifest.json"
    made = making.manifest_of(folder, path, manifest.parse_tolerances(tolerances))
    manifest.write(made, path)
    process.echo(f"{path}: {len(made.rows)} rows. Compare with: {NAME} compare run {shlex.quote(str(path))}")


def _models_at_hand() -> tuple[Path, ...]:
    default = Path(options.Options.model_file)
    return (default, model_files.bundled()) if default.is_file() else (model_files.bundled(),)


def _fetch(url: str, path: Path, sha256: str) -> None:
    entry = known_files.Entry(
        name=path.name,
        purpose="",
        author="",
        licence="",
        page="",
        checksum_source="the manifest",
        sha256=sha256,
        urls=(url,),
    )
    download.fetch(entry, path.parent, notice=lambda line: process.echo(line, err=True), most=_MOST)


class _Console(LiveLine):
    """Progress on stderr: a line for each row that is done, and on a terminal a live line for those that run."""

    def __init__(self, total: int) -> None:
        super().__init__(sys.stderr, shown=sys.stderr.isatty())
        self.total, self.done = total, 0
        self.running: dict[tuple[str, int | None], str] = {}

    def __call__(self, tick: rows.Tick) -> None:
        if tick.iteration is None:
            self.done += 1
            self.running = {key: text for key, text in self.running.items() if key[0] != tick.row}
            self.clear()
            process.echo(f"[{self.done}/{self.total}] {tick.row}: {tick.text}", err=True)
            return
        seed = "" if tick.seed is None else f" seed {tick.seed}"
        self.running[tick.row, tick.seed] = f"{tick.row}{seed} {tick.iteration}/{tick.of:g}, {tick.text}"
        if tick.iteration >= tick.of:
            self.running.pop((tick.row, tick.seed))
        self.show(lambda: [f"[{self.done}/{self.total}]", *self.running.values()])

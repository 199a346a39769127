"""List the model files that are known, fetch them into models/, and check them.

\b
Examples:
  legacy-style models list
  legacy-style models get                        (VGG-19 and its prototxt, the default of neural_style.lua)
  legacy-style models get nin_imagenet.caffemodel
  legacy-style models verify
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click

from legacy_style.cli import process
from legacy_style.cli.progress import LiveLine
from legacy_style.errors import LegacyStyleError
from legacy_style.toolkit import download, known_files
from legacy_style.toolkit.download import Entry, Fetched

DEFAULT = ("VGG_ILSVRC_19_layers_deploy.prototxt", "VGG_ILSVRC_19_layers.caffemodel")


@dataclass(frozen=True)
class RegistryAnswer:
    """What became of one file."""

    name: str
    ok: bool
    says: str  # a sentence
    path: str = ""
    bytes: int | None = None
    sha256: str = ""
    source: str = ""


_FOLDER = click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="The folder of the model files.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command("list")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_FOLDER
@_JSON
def list_command(names: tuple[str, ...], folder: Path, as_json: bool) -> None:
    """List the files that are known, and say which of them are here."""
    list_files([entry_called(name) for name in names] or download.registry(), folder, as_json)


@main.command("get")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_FOLDER
@click.option(
    "--from-file",
    "source",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Check this file, got elsewhere, and copy it; NAME is needed only where no checksum was published.",
)
@click.option("--force", is_flag=True, help="Fetch again what is here already.")
@_JSON
@click.option("--no-progress", is_flag=True, help="Show no progress on stderr.")
def get_command(
    names: tuple[str, ...], folder: Path, source: Path | None, force: bool, as_json: bool, no_progress: bool
) -> int:
    """Fetch files and check them; without a NAME, VGG-19 and its prototxt.

    A download that broke off is kept in NAME.part and continued. The exit status is 1 if a file is missing or wrong.
    """
    entries = [entry_called(name) for name in names]
    if source is None:
        wanted = entries or [entry_called(name) for name in DEFAULT]
        answers = fetched(wanted, folder, force, progress=not no_progress)
    elif len(entries) > 1:
        raise click.UsageError("--from-file takes one NAME at most")
    else:
        answers = iter([answer(source.name, partial(download.adopt, source, folder, *entries))])
    try:
        return 0 if report(answers, as_json) else 1
    except KeyboardInterrupt:
        click.echo("\nInterrupted: the .part file stays, and the same command continues it", err=True)
        return 130


@main.command("verify")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_FOLDER
@_JSON
def verify_command(names: tuple[str, ...], folder: Path, as_json: bool) -> int:
    """Check the files that are here against the published checksums, offline.

    The exit status is 1 if a file is wrong, or one of the NAMEs is not here.
    """
    return 0 if report(verified([entry_called(name) for name in names], folder), as_json) else 1


def old_words(words: list[str], folder: str) -> list[str]:
    """The words of tools/download_models.py, where list and verify were options, as `models` takes them.

    `folder` is the one that it used where --to did not name another.
    """
    if "--help" in words:
        return ["--help"]
    command = next((name for name in ("list", "verify") if f"--{name}" in words), "get")
    return [command, "--to", folder, *(word for word in words if word != f"--{command}")]


def entry_called(name: str) -> Entry:
    """The registry's entry of that name; a usage error that names the nearest ones if there is none."""
    entry = known_files.find(name)
    if entry is None:
        near = difflib.get_close_matches(name, [known.name for known in download.registry()], cutoff=0.3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise click.UsageError(f"no file {name!r} in the registry{hint} (legacy-style models list shows all)")
    return entry


def list_files(entries: list[Entry], folder: Path, as_json: bool) -> None:
    """Prints the entries, in full as JSON, or one line each."""
    here = [(folder / entry.name).exists() for entry in entries]
    if as_json:
        listed = [{**asdict(entry), "here": there} for entry, there in zip(entries, here, strict=True)]
        click.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    width = max(len(entry.name) for entry in entries)
    for entry, there in zip(entries, here, strict=True):
        size = "?" if entry.bytes is None else megabytes(entry.bytes)
        remarks = "" if entry.pinned else " (no published checksum)"
        mark = "here" if there else "-"
        process.echo(f"{entry.name:{width}}  {mark:4}  {size:>9}  {entry.purpose}{remarks}")


def verified(entries: list[Entry], folder: Path) -> Iterator[RegistryAnswer]:
    """Checks the entries' files, or every known file that is there."""
    present = [entry for entry in download.registry() if (folder / entry.name).exists()]
    for entry in entries or present:
        path = folder / entry.name
        if not path.exists():
            part = folder / f"{entry.name}.part"
            begun = f"; {part.name} holds {part.stat().st_size} bytes" if part.exists() else ""
            yield RegistryAnswer(entry.name, False, f"is not in {folder}{begun}")
        else:
            yield answer(entry.name, partial(download.verify, entry, folder))
    if not (entries or present):
        process.echo(f"{folder}: none of the known files is there", err=True)


def fetched(entries: list[Entry], folder: Path, force: bool, progress: bool) -> Iterator[RegistryAnswer]:
    """Fetches the entries one after another; one that fails does not stop the next."""
    for entry in entries:
        line = Line(entry.name, progress)
        get = partial(download.fetch, notice=line.notice, on_progress=line.show, force=force)
        yield answer(entry.name, partial(get, entry, folder))
        line.live.clear()


def answer(name: str, get: Callable[[], Fetched]) -> RegistryAnswer:
    """Does one file and puts what became of it, or the error, into words."""
    try:
        done = get()
    except (LegacyStyleError, OSError) as error:
        return RegistryAnswer(name, False, str(error))
    if done.entry.pinned:
        checked = "the published checksum"
    elif done.recorded:
        checked = f"no checksum is published, so sha256 {done.digests.sha256} is kept in {name}.sha256"
    else:
        checked = f"no checksum is published, but it is as the one before ({name}.sha256)"
    says = f"{done.digests.bytes} bytes, {checked}; {f'from {done.source}' if done.source else 'was there'}"
    return RegistryAnswer(
        done.entry.name, True, says, str(done.path), done.digests.bytes, done.digests.sha256, done.source
    )


def report(answers: Iterator[RegistryAnswer], as_json: bool) -> bool:
    """Prints the answers, each as soon as it is there unless as JSON; whether all are right."""
    got = []
    for item in answers:
        got.append(item)
        if not as_json:
            said = item.says if item.says.startswith(item.name) else f"{item.name}: {item.says}"
            process.echo(said if item.ok else f"legacy-style: {said}", err=not item.ok)
    if as_json:
        click.echo(json.dumps([asdict(item) for item in got], indent=2, ensure_ascii=False))
    return all(item.ok for item in got)


class Line:
    """Progress of one file on stderr: a live line on a terminal, every tenth part of the file elsewhere."""

    def __init__(self, name: str, wanted: bool) -> None:
        self.name = name
        self.wanted = wanted
        self.live = LiveLine(sys.stderr, shown=wanted and sys.stderr.isatty())
        self.last = -1

    def show(self, done: int, total: int | None) -> None:
        """Takes the number of bytes so far and, where it is known, in all."""
        share = f"{done / total:6.1%} of {megabytes(total)}" if total else megabytes(done)
        self.live.show(lambda: [f"{self.name}: {share}"])
        step = done * 10 // total if total else done >> 27
        if self.wanted and not self.live.shown and step != self.last:
            self.last = step
            process.echo(f"{self.name}: {share}", err=True)

    def notice(self, text: str) -> None:
        """Prints a remark on a line of its own."""
        self.live.clear()
        process.echo(text, err=True)


def megabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"

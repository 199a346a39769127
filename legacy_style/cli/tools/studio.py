"""`legacy-style studio`: paint photographs from a page in the browser."""

from __future__ import annotations

import contextlib
import html
import tempfile
import webbrowser
from pathlib import Path

import click

from legacy_style.files import write_whole

SNAPS = ("/snap", "/var/lib/snapd/snap")
"""Where they are mounted, on one system or another."""

_PREFIX = "legacy-style-"


@click.command("studio")
@click.option(
    "--port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the page; 0: any free one.",
)
@click.option(
    "--output-dir",
    metavar="DIR",
    default="",
    help="Keep the paintings in this folder. Without it they are kept until the studio ends.",
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def main(port: int, output_dir: str, no_browser: bool) -> None:
    """Open a page on which photographs are painted: choose a photograph and a style, watch, download.

    The page is for this machine alone, and needs no network. Ctrl-C ends the studio.
    """
    from legacy_style.watch.server import Server
    from legacy_style.watch.studio import Studio
    from legacy_style.watch.watcher import Watcher

    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, _readable_by_browsers() as lead:
        results = Path(output_dir or folder)
        results.mkdir(parents=True, exist_ok=True)
        studio = Studio(Watcher(), Path(folder), results)
        with Server(studio.routes(), port) as server:
            click.echo(f"The studio is at {server.address}\nCtrl-C ends it.")
            if not no_browser:
                webbrowser.open(_leading_to(server.address, Path(lead)))
            try:
                studio.work()
            except KeyboardInterrupt:
                click.echo("The studio is closed.")


def _readable_by_browsers() -> tempfile.TemporaryDirectory[str]:
    """A folder for oneself that a browser can read, until it is left.

    Where there are snaps, browsers are: they have a /tmp of their own, and see nothing hidden in the home folder.
    """
    if any(Path(each).is_dir() for each in SNAPS):
        with contextlib.suppress(OSError, RuntimeError):  # there is no home folder, or none to write to
            return tempfile.TemporaryDirectory(prefix=_PREFIX, dir=Path.home())
    return tempfile.TemporaryDirectory(prefix=_PREFIX)


def _leading_to(address: str, folder: Path) -> str:
    """The address of a file that leads a browser to `address`, whose secret every user could read in a command line."""
    path = folder / "open.html"
    path.touch(mode=0o600)
    target = html.escape(address)
    page = f'''<!doctype html><meta http-equiv="refresh" content="0; url={target}"><a href="{target}">The studio</a>'''
    write_whole(path, page.encode())
    return path.as_uri()

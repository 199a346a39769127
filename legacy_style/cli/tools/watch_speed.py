"""What `--watch` costs a run that is watched: processor time, by pairs of runs, and counted in the watched one."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import statistics
import tempfile
import time
import urllib.parse
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Cost:
    """Processor seconds of one run: all of them, and those that went into the page."""

    total: float
    watching: float = 0.0


@click.command(
    "watch",
    help="""Processor time of a run with a page that is read, against the same run without.

    The page has one reader, which takes all events and every new picture, as a browser does. Both runs are made in
    turn, and their ratio is the median of the pairs. How much of its time the watched run spent on the page is counted
    as well: what its own thread did for it, and all that the server's threads did.
    """,
)
@click.option("--size", default=256, show_default=True, help="Longer side, 3:2.")
@click.option("--iterations", default=60, show_default=True)
@click.option("--pairs", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(size: int, iterations: int, pairs: int, as_json: bool) -> None:
    import torch

    from legacy_style.toolkit import turns

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that all threads but this one are the server's
    found: list[tuple[Cost, Cost]] = []
    with tempfile.TemporaryDirectory() as folder:
        content, style = turns.write_pictures(folder)
        _paint(content, style, size, 3, watched=False)  # what is loaded once
        for number in range(pairs):
            order = (False, True) if number % 2 == 0 else (True, False)
            costs = {watched: _paint(content, style, size, iterations, watched=watched) for watched in order}
            found.append((costs[False], costs[True]))
    torch.set_num_threads(threads)
    result = {
        "size": size,
        "iterations": iterations,
        "plain, s": round(statistics.median(plain.total for plain, _ in found), 2),
        "watched, s": round(statistics.median(watched.total for _, watched in found), 2),
        "ratios": [round(watched.total / plain.total, 4) for plain, watched in found],
        "ratio": round(statistics.median(watched.total / plain.total for plain, watched in found), 4),
        "for the page, %": round(
            100 * statistics.median(watched.watching / watched.total for _, watched in found), 2
        ),
    }
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, value in result.items():
        click.echo(f"{name:<16}{value if not isinstance(value, list) else ' '.join(map(str, value))}")


def _paint(content: str, style: str, size: int, iterations: int, *, watched: bool) -> Cost:
    """One run, in this process."""
    from legacy_style.programs.neural_style.options import Options
    from legacy_style.programs.neural_style.output import Painting
    from legacy_style.programs.neural_style.story import stylize
    from legacy_style.watch import page, runs
    from legacy_style.watch.server import Server
    from legacy_style.watch.watcher import Watcher

    options = Options(
        content_image=content,
        style_image=style,
        image_size=float(size),
        num_iterations=float(iterations),
        init="image",
        gpu="-1",
    )
    if not watched:
        began = time.process_time()
        stylize(options, save=False)
        return Cost(time.process_time() - began)
    watcher, following = Watcher(), 0.0

    def on_progress(progress: Painting) -> bool:
        nonlocal following
        began = time.thread_time()
        stop = runs.follow(watcher, progress)
        following += time.thread_time() - began
        return stop

    with Server(page.routes(watcher)) as server:
        runs.begin(watcher, options)
        reader = multiprocessing.get_context("spawn").Process(
            target=_read, args=(server.address,), daemon=True
        )
        reader.start()
        while not watcher.viewers:
            time.sleep(0.05)
        began, own = time.process_time(), time.thread_time()
        result = stylize(options, on_progress=on_progress, save=False)
        total, own = time.process_time() - began, time.thread_time() - own
        runs.finish(watcher, result, "")
        watcher.close()
        reader.join()
    return Cost(total, total - own + following)


def _read(address: str) -> None:
    """Take the events and the pictures of a run, as its page in a browser does."""
    place = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(place.netloc)
    connection.request("GET", f"{place.path}events")
    seen = 0
    for line in connection.getresponse():
        if line.startswith(b"data: "):
            number = json.loads(line[6:])["picture"]
            if number not in (0, seen):
                other = http.client.HTTPConnection(place.netloc)
                other.request("GET", f"{place.path}picture?{number}")
                other.getresponse().read()
                seen = number

"""Measure how fast and how large a run is, side by side with a plain PyTorch program and with the bare machine.

`speed` takes all figures of one line in turn: an iteration of ours, one of the plain program, the convolutions alone.
Each of the three has a process of its own: ours sets up the memory allocator, which the plain program would not.
L-BFGS has all its correction pairs from the start. Ratios are medians over the rounds; the speed of a machine changes
from minute to minute, so only figures of one line can be compared.

\b
Examples:
  legacy-style benchmark speed
  legacy-style benchmark speed --size 1024 --optimizer adam --json
  legacy-style benchmark speed --device cuda
  legacy-style benchmark precision
  legacy-style benchmark start
  legacy-style benchmark tiles --size 4096
  legacy-style benchmark forward --size 512
  legacy-style benchmark watch
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import click
import torch
from torch import Tensor

from legacy_style.cli import process
from legacy_style.cli.tools import scaling, watch_speed
from legacy_style.engine import machine
from legacy_style.engine import memory as planning
from legacy_style.engine.objective import Objective
from legacy_style.engine.optimisers import Adam
from legacy_style.engine.session import Session
from legacy_style.errors import OptionError
from legacy_style.formats import model_files
from legacy_style.toolkit import card_speed, forward_speed, turns
from legacy_style.torch7 import optim


@click.group(help=__doc__)
def main() -> None:
    pass


_HEAD = (
    "size",
    "optimizer",
    "ours, s",
    "plain, s",
    "times",
    "of conv.",
    "ours, GB",
    "plain, GB",
    "conv. GFLOP/s",
)


@main.command(
    help="""Seconds an iteration, against a plain PyTorch program and the bare convolutions.

    The table: the seconds of both programs, how many times as fast ours is, its rate as a multiple of the bare
    convolutions', the peak memory of both, and the convolutions' rate.
    """
)
@click.option(
    "--size", "sizes", multiple=True, default=(256, 512), show_default=True, help="Longer side, 4:3."
)
@click.option(
    "--optimizer",
    "optimizers",
    type=click.Choice(["lbfgs", "adam"]),
    multiple=True,
    default=("lbfgs", "adam"),
    show_default=True,
)
@click.option("--rounds", default=15, show_default=True, help="Iterations of each that are measured.")
@click.option("--model", help="Model file; the bundled VGG-16 if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each line of the table.")
@click.option(
    "--processor-time",
    is_flag=True,
    help="Seconds that the processor works, with one thread: for a machine that has other work, and small images.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="With cuda, sizes and optimizers are those of docs/performance.md, whose table is printed.",
)
def speed(
    sizes: list[int],
    optimizers: list[str],
    rounds: int,
    model: str | None,
    as_json: bool,
    processor_time: bool,
    device: str,
) -> None:
    if device == "cuda":
        if processor_time:
            raise OptionError("--processor-time is for the CPU; leave it out with --device cuda")
        _speed_on_card(rounds, model, as_json)
        return
    net = turns.build_network(model)
    if not as_json:
        process.echo(_line(_HEAD))
    for size, optimizer in itertools.product(sizes, optimizers):
        height, width = size * 3 // 4, size
        gflop = sum(4e-9 * weight.numel() * h * w for weight, h, w in turns.weights(net, height, width))
        rows, peaks = turns.take_turns(rounds, model, height, width, optimizer, processor_time=processor_time)
        ours, plain, bare = (statistics.median(column) for column in zip(*rows, strict=True))
        times = round(statistics.median(row[1] / row[0] for row in rows), 2)
        rate = round(statistics.median(row[2] / row[0] for row in rows), 2)
        memory = [round(peak / 1e9, 2) for peak in peaks[:2]]
        result = {
            "size": f"{width}x{height}",
            "optimizer": optimizer,
            "threads": 1 if processor_time else torch.get_num_threads(),
            "gflop": round(gflop, 1),
            "seconds": {"ours": round(ours, 4), "plain": round(plain, 4), "convolutions": round(bare, 4)},
            "times as fast as plain": times,
            "of the convolution rate": rate,
            "convolution rate GFLOP/s": round(gflop / bare),
            "peak GB": {"ours": memory[0], "plain": memory[1]},
        }
        cells = (
            result["size"],
            optimizer,
            f"{ours:.3f}",
            f"{plain:.3f}",
            times,
            rate,
            *memory,
            round(gflop / bare),
        )
        click.echo(json.dumps(result) if as_json else _line(cells))


def _speed_on_card(rounds: int, model: str | None, as_json: bool) -> None:
    if not torch.cuda.is_available():
        raise OptionError(
            "--device cuda: there is no CUDA device here; leave the option out to measure the CPU"
        )
    card = torch.device("cuda", torch.cuda.current_device())
    figures = card_speed.measure(card, model, rounds=rounds, log=partial(click.echo, err=True))
    about = f"{torch.cuda.get_device_name(card)}, PyTorch {torch.__version__}"
    click.echo(
        json.dumps(card_speed.as_json(figures, about))
        if as_json
        else f"{about}\n\n{card_speed.table(figures)}"
    )


def _line(cells: Sequence[object]) -> str:
    return "".join(f"{cell!s:<13}" for cell in cells).rstrip()


@main.command(
    help="An evaluation in bfloat16, against one in float32; refused where the processor has no instructions for it."
)
@click.option("--size", default=512, show_default=True, help="Longer side of the image, 4:3.")
@click.option("--rounds", default=15, show_default=True, help="Evaluations of each that are measured.")
@click.option("--model", help="Model file; the bundled VGG-16 if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def precision(size: int, rounds: int, model: str | None, as_json: bool) -> None:
    machine.keep_freed_memory()
    coarse = machine.dtype("bfloat16", [torch.device("cpu")])
    objectives = {name: Objective(turns.build_network(model)) for name in ("float32", "bfloat16")}
    height, width = size * 3 // 4, size
    rows = []
    with torch.no_grad():
        content, style = turns.images(height, width)
        for objective in objectives.values():
            objective.capture(content, objective.network.losses_from("content"))
            objective.capture(style, objective.network.losses_from("style"))
        objectives["bfloat16"].network.compute_in(coarse)
        for _ in range(rounds + 1):
            rows.append(
                [
                    forward_speed.seconds(partial(objective, content + style))
                    for objective in objectives.values()
                ]
            )
    rows = rows[1:]  # the first round warms up caches and allocators
    result = {
        "size": f"{width}x{height}",
        "threads": torch.get_num_threads(),
        "seconds": {
            name: round(statistics.median(column), 4)
            for name, column in zip(objectives, zip(*rows, strict=True), strict=True)
        },
        "times as fast in bfloat16": round(statistics.median(row[0] / row[1] for row in rows), 2),
    }
    _print(result, as_json)


@main.command(help="Seconds from the command to the first evaluation, at 256 px with the bundled network.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def start(rounds: int, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "legacy_style",
            "-gpu",
            "-1",
            "-image_size",
            "256",
            "-num_iterations",
            "1",
        ]
        command += ["-print_iter", "1", "-output_image", f"{folder}/out.png", "-content_image"]
        content, style = turns.write_pictures(folder)
        command += [content, "-style_image", style]
        command += ["-model_file", str(model_files.bundled())]
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith("Iteration 1 "):
                        times.append(time.perf_counter() - began)
    _print({"seconds to the first evaluation": round(statistics.median(times), 2)}, as_json)


@main.command(
    help="One evaluation in tiles: time, arithmetic and peak memory, against the rate of a small image."
)
@click.option("--size", default=4096, show_default=True, help="Side of the square image.")
@click.option(
    "--tile", default=0, show_default=True, help="Side of the tiles; 0: as the program would choose."
)
@click.option("--memory", default=3.5, show_default=True, help="Gigabytes that may be used.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tiles(size: int, tile: int, memory: float, as_json: bool) -> None:
    machine.keep_freed_memory()
    with torch.no_grad():
        net = turns.build_network(None)
        machine.return_freed_memory()
        plan = planning.make(
            net,
            size,
            size,
            [(512, 512)],
            tile=tile,
            vectors=Adam(1, 10).vectors,
            ways=(),
            resident=planning.resident_memory(),
            available=int(memory * 1e9),
        )
        machine.spare_memory()
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).mul_(50)
        small = torch.zeros(1, 3, 512, 512)
        Objective(net).capture(small, net.losses_from("style"))
        objective = Session(net, tile=plan.tile).objective(size, size)
        began = time.perf_counter()
        objective.capture(image, net.losses_from("content"))
        capture = time.perf_counter() - began

        def feval(x: Tensor) -> tuple[float, Tensor]:
            values, grad = objective(x)
            return sum(values.values()), grad.view(-1)

        # Moments that have their memory already, as in every iteration but the first.
        moments = (torch.empty(image.numel()).zero_() for _ in range(2))
        state = optim.AdamState(0, *moments)
        seconds = forward_speed.seconds(lambda: optim.adam(feval, image, state, learning_rate=10))
        peak = turns.peak_memory()
        whole = Objective(net)
        whole.capture(small, net.losses_from("content"))
        whole(small)
        rate = small.numel() / min(forward_speed.seconds(lambda: whole(small)) for _ in range(3))
    result = {
        "size": f"{size}x{size}",
        "tile": plan.tile,
        "tiles": plan.tiles,
        "seconds to capture": round(capture, 1),
        "seconds an Adam iteration": round(seconds, 1),
        "arithmetic, of one piece": round(plan.overhead, 2),
        "time, of the rate at 512x512": round(seconds / (image.numel() / rate), 2),
        "peak GB predicted": round(plan.peak / 1e9, 2),
        "peak GB": round(peak / 1e9, 2),
    }
    _print(result, as_json)


@main.command(
    help="One pass of a fast-neural-style network on the CPU, against its modules in plain PyTorch, in turn."
)
@click.option("--size", default=512, show_default=True, help="Side of the square image.")
@click.option("--rounds", default=7, show_default=True, help="Passes of each that are measured.")
@click.option("--model", help="Checkpoint; the default architecture with random weights if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def forward(size: int, rounds: int, model: str | None, as_json: bool) -> None:
    speed = forward_speed.measure(model, size, size, rounds)
    result = {
        "size": f"{size}x{size}",
        "threads": torch.get_num_threads(),
        "seconds": {
            "ours": round(speed.ours, 3),
            "plain": round(speed.plain, 3),
            "plain, channels-last": round(speed.channels_last, 3),
        },
        "times as fast as plain": round(speed.times, 2),
        "times as fast as channels-last": round(speed.times_channels_last, 2),
    }
    _print(result, as_json)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        process.echo(f"{name:<34}{value}")


main.add_command(scaling.main)
main.add_command(watch_speed.main)

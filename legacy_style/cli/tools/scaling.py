"""What several processes that share an image say to each other, and what each of them computes and holds.

`measure`, started by torchrun, counts the bytes that process 0 hands to torch.distributed, and the seconds of an
evaluation. `table` computes the same for any number of processes from how the image would be cut, `gpus` plans the
memory of as many GPUs, and `alone` times what process 0 does by itself. docs/scaling.md tells what follows from them.

\b
Examples:
  legacy-style benchmark processes measure
  torchrun --nproc_per_node 2 --no-python legacy-style benchmark processes measure --size 384
  legacy-style benchmark processes table --megapixels 1000 1 10 100 1000
  legacy-style benchmark processes gpus --megapixels 256 1 2 4
  legacy-style benchmark processes alone
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch
import torch.distributed as dist

import legacy_style.programs.neural_style.story as stylize
from legacy_style.cli import process
from legacy_style.cli.tools.numbers import NumberRange
from legacy_style.engine import machine, memory, network
from legacy_style.engine.cards import Card
from legacy_style.engine.losses import ContentLoss, StyleLoss
from legacy_style.engine.network import Network
from legacy_style.engine.optimise import Progress
from legacy_style.engine.optimisers import Adam
from legacy_style.engine.processes import parts
from legacy_style.programs.neural_style import building, pixels
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.settings import read
from legacy_style.toolkit import turns
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7 import nn
from legacy_style.torch7.random import Generator

DOUBLE, FLOAT = 8, 4  # bytes: sums travel as float64, pixels as float32

MEGAPIXELS = NumberRange(0.01, 100_000)
"""Of smaller images little is left at the deepest layers; larger ones take minutes to plan."""


class Wire:
    """Counts the bytes that this process hands to torch.distributed, by what they are for."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.seconds = 0.0  # inside these functions, waiting for others included

    def tap(self) -> None:
        """Put the counting in front of torch.distributed's functions, for the rest of the process."""
        self._wrap("all_reduce", lambda tensor, *_: ("all-reduce", tensor.nbytes))
        self._wrap("broadcast", lambda tensor, *_: ("broadcast", tensor.nbytes))
        self._wrap("send", lambda tensor, *_: ("scatter", tensor.nbytes))
        self._wrap("recv", lambda tensor, *_: ("gather", tensor.nbytes))
        self._wrap(
            "batch_isend_irecv",
            lambda talks: ("halo", sum(each.tensor.nbytes for each in talks if each.op is dist.isend)),
        )

    def _wrap(self, name: str, weigh: Callable[..., tuple[str, int]]) -> None:
        original = getattr(dist, name)

        def counted(*given: Any) -> Any:
            kind, size = weigh(*given)
            self.bytes[kind] += size
            self.calls[kind] += 1
            began = time.perf_counter()
            answer = original(*given)
            self.seconds += time.perf_counter() - began
            return answer

        setattr(dist, name, counted)


def quick_options(size: int, iterations: int, optimizer: str, folder: str) -> Options:
    """A short run of the bundled network on two images that are written to `folder`, from the content image."""
    content, style = turns.write_pictures(folder)
    return Options(
        content_image=content,
        style_image=style,
        image_size=size,
        num_iterations=iterations,
        optimizer=optimizer,
        init="image",
        save_iter=0,
        print_iter=0,
        output_image=str(Path(folder, "out.png")),
    )


@dataclass
class Measured:
    """Of process 0: bytes and calls of an evaluation and of a whole run, by kind; seconds of an evaluation.

    `talking`: those of them that were spent in torch.distributed, waiting for other processes included.
    """

    evaluation: Counter[str]
    calls: Counter[str]
    run: Counter[str]
    seconds: float
    talking: float


def measure(options: Options) -> Measured | None:
    """Run `options` and count; None in every process but the first."""
    wire, marks = Wire(), list[tuple[Counter[str], Counter[str]]]()
    times = list[tuple[float, float]]()
    wire.tap()

    def mark(progress: Progress) -> None:
        marks.append((wire.bytes.copy(), wire.calls.copy()))
        times.append((progress.seconds, wire.seconds))

    stylize.stylize(options, on_progress=mark)
    if not marks:
        return None
    # The last evaluation saves as well, so that the one before it is looked at.
    before, after = marks[-3], marks[-2]
    seconds, talking = ([b[i] - a[i] for a, b in pairwise(times[1:-1])] for i in (0, 1))
    return Measured(
        after[0] - before[0],
        after[1] - before[1],
        wire.bytes,
        statistics.median(seconds),
        statistics.median(talking),
    )


@dataclass
class Share:
    """What the busiest process of many has to do in an evaluation."""

    parts: int
    owned: int  # pixels
    held: int
    tiles: int
    flops: float
    sent: int  # bytes: pixels of halos, and gradients of them
    summed: int  # bytes handed to the all-reduce of Gram matrices and losses


def share(net: Network, height: int, width: int, count: int, side: int) -> Share:
    """The busiest part of an image of height x width that `count` processes share in tiles of `side`."""
    layout = parts.partition(net, height, width, count)
    areas = [math.prod(b - a for a, b in rectangle) for rectangle in layout.held]
    busiest = areas.index(max(areas))
    rows, columns = layout.owned[busiest]
    owned = (rows[1] - rows[0]) * (columns[1] - columns[0])
    tiles = parts.own_tiles(net, layout, busiest, side)
    sweeps = 2 if len(tiles) == 1 else 3  # forward and backward; forward once more where there are several
    lengths = (memory.tile_lengths(net, tile.vertical, tile.horizontal) for tile in tiles)
    flops = sweeps * sum(memory.work(net, each).flops for each in lengths)
    # It lends pixels, and gives the gradient of what it holds back: with neighbours of its size, as much each way.
    halo = max(areas[busiest] - owned, 0)
    return Share(
        len(layout.owned), owned, areas[busiest], len(tiles), flops, 2 * 3 * FLOAT * halo, summed_bytes(net)
    )


def summed_bytes(net: Network) -> int:
    """What Gram matrices and losses hand to all-reduce in an evaluation.

    A style loss: C x C products and their number; a content loss: a sum of squares.
    """
    channels, numbers = 3, 0
    for step in net.steps:
        if isinstance(step, nn.SpatialConvolution):
            channels = step.weight.shape[0]
        elif isinstance(step, StyleLoss):
            numbers += channels**2 + 1
        elif isinstance(step, ContentLoss):
            numbers += 1
    return DOUBLE * numbers


def bundled_network(device: str = "cpu") -> Network:
    """The bundled network with the losses of the original's defaults; on "meta", without its weights."""
    settings = read(Options(), save=False)
    net = building.build_network(settings, building.load_chain(settings, _quiet, _quiet), _quiet)
    network.place(net, [torch.device(device)])
    return net


def _quiet(line: str) -> None:
    pass


@click.group("processes", help=__doc__)
def main() -> None:
    pass


@main.command("measure")
@click.option("--size", default=256, show_default=True, help="-image_size")
@click.option("--num-iterations", default=8, show_default=True, type=click.IntRange(min=6))
@click.option("--optimizer", default="lbfgs", show_default=True, type=click.Choice(["lbfgs", "adam"]))
def measure_command(size: int, num_iterations: int, optimizer: str) -> None:
    """Count bytes and seconds of the processes that torchrun has started, or of one."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(quick_options(size, num_iterations, optimizer, folder))
    if found is None:
        return
    process.echo(f"{found.seconds:.3f} s an evaluation, {found.talking:.3f} s of it in torch.distributed")
    for kind in sorted(found.run):
        calls = found.calls[kind]
        process.echo(
            f"{kind:10} {found.evaluation[kind]:>10} B an evaluation, {calls} calls; {found.run[kind]} B in all"
        )


@main.command()
@click.argument("counts", nargs=-1, required=True, type=click.IntRange(min=1))
@click.option("--megapixels", type=MEGAPIXELS, default=1000.0, show_default=True, help="Of a square image.")
@click.option("--tile", default=1536, show_default=True, help="--tile; parts up to it go in one piece.")
def table(counts: tuple[int, ...], megapixels: float, tile: int) -> None:
    """What the busiest of COUNTS processes owns, holds, computes, sends and sums in an evaluation."""
    side = math.isqrt(round(megapixels * 1e6))
    net = bundled_network()
    process.echo("| processes | owned, Mpx | held / owned | tiles | TFLOP | halo sent, MB | summed, MB |")
    process.echo("|---|---|---|---|---|---|---|")
    for count in counts:
        found = share(net, side, side, count, tile)
        process.echo(
            f"| {found.parts} | {found.owned / 1e6:.2f} | {found.held / found.owned:.3f} | {found.tiles}"
            f" | {found.flops / 1e12:.2f} | {found.sent / 1e6:.2f} | {found.summed * (count > 1) / 1e6:.2f} |"
        )


@main.command()
@click.argument("counts", nargs=-1, required=True, type=click.IntRange(min=1))
@click.option("--megapixels", type=MEGAPIXELS, default=100.0, show_default=True, help="Of a square image.")
@click.option(
    "--memory",
    "gigabytes",
    type=NumberRange(1, 1e6),
    default=80.0,
    show_default=True,
    help="Of a GPU, in GB.",
)
def gpus(counts: tuple[int, ...], megapixels: float, gigabytes: float) -> None:
    """The plan of the busiest of COUNTS GPUs that share an image: Adam, float32, a style image of the same size."""
    side = math.isqrt(round(megapixels * 1e6))
    net = bundled_network("meta")
    process.echo("| GPUs | owned, Mpx | tiles | of pixels | planned, GB | TFLOP | of one piece |")
    process.echo("|---|---|---|---|---|---|---|")
    for count in counts:
        layout = parts.partition(net, side, side, count)
        sizes = [(rows[1] - rows[0], columns[1] - columns[0]) for rows, columns in layout.held]
        busiest = max(sizes, key=math.prod)
        plan = plan_gpu(net, *busiest, round(gigabytes * 1e9), alone=count == 1)
        owned = max(math.prod(b - a for a, b in rectangle) for rectangle in layout.owned)
        tile = plan.tile or max(busiest)
        process.echo(
            f"| {len(sizes)} | {owned / 1e6:.2f} | {plan.tiles} | {tile} | {plan.peak / 1e9:.1f}"
            f" | {plan.flops / 1e12:.1f} | {plan.overhead:.2f} |"
        )


WEIGHTS_ON_GPU = 7
"""Times what the weights take in float32: themselves, and split in three parts for either way."""


def plan_gpu(net: Network, height: int, width: int, available: int, *, alone: bool) -> memory.Plan:
    """What a run with Adam would plan for a GPU with `available` bytes, which need not be there."""
    weights = sum(layer.weight.nbytes for layer in net.layers if isinstance(layer, nn.SpatialConvolution))
    return memory.make(
        net,
        height,
        width,
        [(height, width)],
        tile=0,
        vectors=Adam(1, learning_rate=1.0).vectors,
        ways=["more GPUs", "a smaller image"],
        resident=0,
        available=None,
        card=Card(WEIGHTS_ON_GPU * weights, available),
        may_move=alone,
    )


@main.command()
@click.option("--megapixels", type=MEGAPIXELS, default=4.0, show_default=True)
def alone(megapixels: float) -> None:
    """Seconds a megapixel of what process 0 does while the others wait, and of what every process does in full."""
    machine.keep_freed_memory()
    side = 1000 * math.sqrt(megapixels)
    rgb = turns.picture(round(side / math.sqrt(1.5)), round(side * math.sqrt(1.5)), 0)
    area = rgb[0].size / 1e6
    with tempfile.TemporaryDirectory() as folder:
        name = str(Path(folder, "picture.png"))
        _tell("save a PNG", area, lambda: torch_image.save(name, rgb))
        _tell("load a PNG", area, lambda: torch_image.load(name))
    _tell("scale it to half", area, lambda: torch_image.scale_to(rgb, rgb.shape[2] // 2, rgb.shape[1] // 2))
    caffe = pixels.preprocess(rgb)
    _tell("to Caffe's units", area, lambda: pixels.preprocess(rgb))
    _tell("and back", area, lambda: pixels.deprocess(caffe))
    _tell("draw noise", area, lambda: Generator(1).randn(3 * rgb[0].size))
    _tell("pass noise over", area, lambda: Generator(1).skip(3 * rgb[0].size))


def _tell(what: str, megapixels: float, work: Callable[[], object]) -> None:
    began = time.perf_counter()
    work()
    process.echo(f"{what:18} {(time.perf_counter() - began) / megapixels:.3f} s a megapixel")

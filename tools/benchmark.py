"""Measure how fast and how large a run is, side by side with a plain PyTorch program and with the bare machine.

All figures of one line are taken in turn: an iteration of ours, one of the plain program, the network's convolutions
alone. Each of the three has a process of its own: ours sets up the memory allocator, which the plain program would not.
L-BFGS has all its correction pairs from the start. Ratios are medians over the rounds; the speed of a machine changes
from minute to minute, so only figures of one line can be compared.

\b
Examples:
  python tools/benchmark.py speed
  python tools/benchmark.py speed --size 1024 --optimizer adam --json
  python tools/benchmark.py precision
  python tools/benchmark.py start
  python tools/benchmark.py tiles --size 4096
  python tools/benchmark.py load
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import _checkout  # noqa: F401 (for its effect on the path)
import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style import engine, loadcaffe, model_files, network, shapes
from legacy_style import plan as planning
from legacy_style.caffe import caffemodel
from legacy_style.caffe.netparam import Blob, LayerParameter, NetParameter
from legacy_style.errors import OptionError
from legacy_style.objective import Objective
from legacy_style.options import Options
from legacy_style.torch7 import nn, optim

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = ("relu4_2",)


def _quiet(line: str) -> None:
    pass


def _network(model: str | None) -> network.Network:
    chain, _ = loadcaffe.modules(model_files.load(model or model_files.bundled()))
    options = Options()
    net = network.build(
        chain,
        CONTENT,
        STYLE,
        content_weight=options.content_weight,
        style_weight=options.style_weight,
        tv_weight=options.tv_weight,
        pooling="max",
        normalize=False,
        log=_quiet,
    )
    network.place(net, [torch.device("cpu")], "")
    return net


def _images(height: int, width: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    content, style = torch.randn(2, 1, 3, height, width, generator=rng).mul_(50)
    return content, style


class Plain(torch.nn.Module):
    """The same objective as one would write it: nn.Sequential in PyTorch's own layout, autograd, torch.optim."""

    def __init__(self, chain: list[loadcaffe.Module], content: Tensor, style: Tensor) -> None:
        super().__init__()
        self.names: list[str] = []
        self.stages = torch.nn.ModuleList()
        for module in chain:
            layer = module.build()
            stage: torch.nn.Module
            if isinstance(layer, nn.SpatialConvolution):
                out, inside = layer.weight.shape[:2]
                stage = torch.nn.Conv2d(inside, out, 3, padding=1)
                stage.load_state_dict({"weight": layer.weight, "bias": layer.bias})
            else:
                pooling = isinstance(layer, nn.SpatialMaxPooling)
                stage = torch.nn.MaxPool2d(2, 2, ceil_mode=True) if pooling else torch.nn.ReLU()
            self.names.append(module.name)
            self.stages.append(stage)
            if module.name == STYLE[-1]:
                break
        self.requires_grad_(False)
        self.targets: dict[str, Tensor] = {}
        with torch.no_grad():
            content_maps = dict(self.maps(content))
            self.targets.update({name: content_maps[name] for name in CONTENT})
            self.targets.update({name: _gram(x) for name, x in self.maps(style) if name in STYLE})

    def maps(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, stage in zip(self.names, self.stages, strict=True):
            x = stage(x)
            yield name, x

    def forward(self, image: Tensor) -> Tensor:
        options = Options()
        down, right = image.diff(dim=2), image.diff(dim=3)
        total = options.tv_weight / 2 * (down.square().sum() + right.square().sum())
        for name, x in self.maps(image):
            if name in CONTENT:
                total = total + options.content_weight * F.mse_loss(x, self.targets[name])
            if name in STYLE:
                total = total + options.style_weight * F.mse_loss(_gram(x), self.targets[name])
        return total


def _gram(x: Tensor) -> Tensor:
    flat = x.flatten(2)[0]
    return flat @ flat.T / x.numel()


def _start(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))


_PAIRS = 100  # correction pairs of L-BFGS, the default of -lbfgs_num_correction


class Bowl:
    """A function that costs nothing to evaluate, for the iterations in which L-BFGS collects its pairs: 1/2 sum of
    a (x - bottom)^2, with a from 1 to 1000.
    """

    def __init__(self, height: int, width: int) -> None:
        self.bottom = _images(height, width)[0]
        self.steepness = torch.logspace(0, 3, self.bottom.numel()).view_as(self.bottom)

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        grad = self.steepness * (x - self.bottom)
        return float(torch.dot(grad.view(-1), (x - self.bottom).view(-1))) / 2, grad


Turn = Callable[[], None]
"""Called between two iterations: hands over the seconds since it last returned, and waits for its turn."""


def _ours(turn: Turn, model: str | None, height: int, width: int, optimizer: str) -> None:
    engine.set_up_cpu()
    content, style = _images(height, width)
    bowl, left = Bowl(height, width), _PAIRS
    with torch.no_grad():
        objective = Objective(_network(model))
        objective.capture(content, content=True)
        objective.capture(style, content=False)

        # An iteration is all that happens from one return of this function to the next.
        def feval(x: Tensor) -> tuple[float, Tensor]:
            nonlocal left
            if optimizer == "lbfgs" and left > 0:
                left -= 1
                loss, grad = bowl(x)
                return loss, grad.view(-1)
            content_losses, style_losses, grad = objective(x)
            turn()
            return sum(content_losses) + sum(style_losses), grad.view(-1)

        x, state = _start(height, width), optim.AdamState()
        if optimizer == "lbfgs":
            optim.lbfgs(feval, x, max_iter=math.inf, tol_fun=-1, tol_x=-1, n_correction=_PAIRS)
        while True:
            optim.adam(feval, x, state, learning_rate=10)


def _plain(turn: Turn, model: str | None, height: int, width: int, optimizer: str) -> None:
    chain, _ = loadcaffe.modules(model_files.load(model or model_files.bundled()))
    plain, bowl = Plain(chain, *_images(height, width)), Bowl(height, width)
    image = _start(height, width).requires_grad_()
    stepper: torch.optim.Optimizer

    def closure() -> float:
        stepper.zero_grad()
        loss = plain(image)
        loss.backward()
        return float(loss.detach())

    def shortcut() -> float:
        loss, image.grad = bowl(image.detach())
        return loss

    if optimizer == "lbfgs":
        stepper = torch.optim.LBFGS(
            [image], max_iter=1, history_size=_PAIRS, tolerance_grad=-1, tolerance_change=-1
        )
        for _ in range(_PAIRS):
            _step(stepper, shortcut)
    else:
        stepper = torch.optim.Adam([image], lr=10)
    while True:
        _step(stepper, closure)
        turn()


def _step(stepper: torch.optim.Optimizer, closure: Callable[[], float]) -> None:
    stepper.step(closure)


def _convolutions(turn: Turn, model: str | None, height: int, width: int, optimizer: str) -> None:
    """One forward and one backward convolution of every layer, alone, the direct way."""
    engine.set_up_cpu()
    jobs = []
    rng = torch.Generator().manual_seed(1)
    for weight, h, w in _weights(_network(model), height, width):
        for one in (weight, weight.flip(2, 3).transpose(0, 1)):
            x = torch.randn(1, one.shape[1], h, w, generator=rng)
            jobs.append([tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, one)])
    with torch.no_grad():
        while True:
            for x, one in jobs:
                F.conv2d(x, one, padding=1)
            turn()


def _weights(net: network.Network, height: int, width: int) -> Iterator[tuple[Tensor, int, int]]:
    """The kernels of every convolution, with height and width of its output."""
    for step, _, (_, h, w) in shapes.walk(net, height, width):
        if isinstance(step, nn.SpatialConvolution):
            yield step.weight, h, w


def _serve(pipe: Connection, program: Callable[..., None], *arguments: Any) -> None:
    """Run `program` with a function that makes it wait for its turn."""
    mark = time.perf_counter()

    def turn() -> None:
        nonlocal mark
        pipe.send(time.perf_counter() - mark)
        pipe.recv()
        mark = time.perf_counter()

    program(turn, *arguments)


_PAUSE = 0.02
"""Seconds until the threads of what ran last (libgomp's) have gone to sleep."""


def _take_turns(rounds: int, *arguments: Any) -> tuple[list[list[float]], list[int]]:
    """Run the three programs in turn; returns the seconds of each in each round, and their peak memory in bytes."""
    processes = multiprocessing.get_context("spawn")
    servers = []
    for program in (_ours, _plain, _convolutions):
        pipe, end = processes.Pipe()
        server = processes.Process(target=_serve, args=(end, program, *arguments), daemon=True)
        server.start()
        end.close()  # so that reading ends where the server does
        pipe.recv()  # one iteration, and all that goes before
        servers.append((pipe, server))
    rows: list[list[float]] = []
    for _ in range(rounds + 1):
        rows.append([])
        for pipe, _ in servers:
            time.sleep(_PAUSE)
            pipe.send(None)
            rows[-1].append(pipe.recv())
    peaks = [_peak_memory(server.pid) for _, server in servers]
    for _, server in servers:
        server.kill()
    return rows[1:], peaks  # the first round warms up caches and allocators


def _peak_memory(process: int | str | None = "self") -> int:
    """Bytes of physical memory that a process has held at most (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _seconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


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
def speed(sizes: list[int], optimizers: list[str], rounds: int, model: str | None, as_json: bool) -> None:
    net = _network(model)
    if not as_json:
        click.echo(_line(_HEAD))
    for size, optimizer in itertools.product(sizes, optimizers):
        height, width = size * 3 // 4, size
        gflop = sum(4e-9 * weight.numel() * h * w for weight, h, w in _weights(net, height, width))
        rows, peaks = _take_turns(rounds, model, height, width, optimizer)
        ours, plain, bare = (statistics.median(column) for column in zip(*rows, strict=True))
        times = round(statistics.median(row[1] / row[0] for row in rows), 2)
        rate = round(statistics.median(row[2] / row[0] for row in rows), 2)
        memory = [round(peak / 1e9, 2) for peak in peaks[:2]]
        result = {
            "size": f"{width}x{height}",
            "optimizer": optimizer,
            "threads": torch.get_num_threads(),
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
    engine.set_up_cpu()
    try:
        coarse = engine.dtype("bfloat16", [torch.device("cpu")])
    except OptionError as error:
        raise click.ClickException(str(error)) from error
    height, width = size * 3 // 4, size
    objectives = {"float32": Objective(_network(model)), "bfloat16": Objective(_network(model))}
    rows = []
    with torch.no_grad():
        content, style = _images(height, width)
        for objective in objectives.values():
            objective.capture(content, content=True)
            objective.capture(style, content=False)
        objectives["bfloat16"].network.compute_in(coarse)
        for _ in range(rounds + 1):
            rows.append([_seconds(partial(objective, content + style)) for objective in objectives.values()])
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
    examples = Path(__file__).parents[1] / "examples"
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
        command += [str(examples / "china.jpg"), "-style_image", str(examples / "ink_wash.jpg")]
        command += ["-model_file", str(model_files.bundled())]
        paths = [str(examples.parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
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
    engine.set_up_cpu()
    options = Options(optimizer="adam", tile=tile)
    with torch.no_grad():
        net = _network(None)
        engine.return_freed_memory()
        plan = planning.make(
            net,
            size,
            size,
            [(512, 512)],
            options,
            resident=planning.resident_memory(),
            available=int(memory * 1e9),
        )
        engine.spare_memory()
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).mul_(50)
        small = torch.zeros(1, 3, 512, 512)
        Objective(net).capture(small, content=False)
        objective = engine.objective(net, size, size, Options(tile=plan.tile))
        began = time.perf_counter()
        objective.capture(image, content=True)
        capture = time.perf_counter() - began

        def feval(x: Tensor) -> tuple[float, Tensor]:
            content, style, grad = objective(x)
            return sum(content) + sum(style), grad.view(-1)

        # Moments that have their memory already, as in every iteration but the first.
        moments = (torch.empty(image.numel()).zero_() for _ in range(2))
        state = optim.AdamState(0, *moments)
        seconds = _seconds(lambda: optim.adam(feval, image, state, learning_rate=10))
        peak = _peak_memory()
        whole = Objective(net)
        whole.capture(small, content=True)
        whole(small)
        rate = small.numel() / min(_seconds(lambda: whole(small)) for _ in range(3))
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


_VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
_VGG19_FULLY_CONNECTED = (("fc6", 4096, 25088), ("fc7", 4096, 4096), ("fc8", 1000, 4096))

# Run in a process of its own each: PATH -> seconds, bytes that the process grew by, bytes of the layers used.
_READ_OURS = """
import sys, time
from legacy_style.caffe import caffemodel
def peak():
    # Not getrusage: its figure includes what the parent process held.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before, began = peak(), time.perf_counter()
used = []
for layer in caffemodel.read(sys.argv[1]).layers:
    used += [blob.copy() for blob in layer.blobs]
    if layer.name == "conv5_1":
        break
print(time.perf_counter() - began, peak() - before, sum(array.nbytes for array in used))
"""
_READ_PROTOBUF = """
import sys, time
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[2]) / "tests"))
import caffe_messages
def peak():
    # Not getrusage: its figure includes what the parent process held.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before, began = peak(), time.perf_counter()
message = caffe_messages.CLASSES["NetParameter"]()
message.ParseFromString(Path(sys.argv[1]).read_bytes())
print(time.perf_counter() - began, peak() - before, 0)
"""


@main.command(
    help="Hand over the convolutions of a full VGG-19 .caffemodel, against Google's protobuf (development only)."
)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def load(rounds: int, as_json: bool) -> None:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "vgg19.caffemodel")
        caffemodel.write(path, _random_vgg19(), "V1")
        rows: dict[str, list[list[float]]] = {"ours": [], "protobuf": []}
        for _ in range(rounds):
            for name, program in (("ours", _READ_OURS), ("protobuf", _READ_PROTOBUF)):
                command = [sys.executable, "-c", program, path, str(root)]
                output = subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                ).stdout
                rows[name].append([float(word) for word in output.split()])
        size = Path(path).stat().st_size
    ours, protobuf = (
        [statistics.median(column) for column in zip(*rows[name], strict=True)] for name in rows
    )
    result = {
        "file MB": round(size / 1e6),
        "seconds": {"ours": round(ours[0], 3), "protobuf": round(protobuf[0], 3)},
        "times as fast": round(
            statistics.median(b[0] / a[0] for a, b in zip(rows["ours"], rows["protobuf"], strict=True)), 1
        ),
        "grows by MB": {"ours": round(ours[1] / 1e6), "protobuf": round(protobuf[1] / 1e6)},
        "of the layers used": round(ours[1] / ours[2], 2),
    }
    _print(result, as_json)


def _random_vgg19() -> NetParameter:
    rng = np.random.default_rng(0)
    layers = []

    def add(name: str, kind: str, *shape: int) -> None:
        blobs = [
            Blob.from_array(rng.random(size, np.float32))
            for size in (shape, (1, 1, 1, max(shape[0], shape[2])))
        ]
        layers.append(LayerParameter(name, kind, blobs=blobs))

    inside = 3
    for block, (channels, count) in enumerate(_VGG19_BLOCKS, 1):
        for number in range(1, count + 1):
            add(f"conv{block}_{number}", "Convolution", channels, inside, 3, 3)
            inside = channels
    for name, outputs, inputs in _VGG19_FULLY_CONNECTED:
        add(name, "InnerProduct", 1, 1, outputs, inputs)
    return NetParameter("VGG_ILSVRC_19_layers", layers)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        click.echo(f"{name:<34}{value}")


if __name__ == "__main__":
    main()

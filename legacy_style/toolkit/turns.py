"""The three programs that `legacy-style benchmark speed` measures in turn, each in a process of its own.

Ours, the same objective as one would write it in plain PyTorch, and the network's convolutions alone.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine import loadcaffe, machine, network, sizes
from legacy_style.engine.objective import Objective
from legacy_style.errors import DivergenceError, UnsupportedError
from legacy_style.formats import model_files
from legacy_style.programs.neural_style import building
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.settings import read
from legacy_style.torch7 import image, nn, optim

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = ("relu4_2",)


def _quiet(line: str) -> None:
    pass


def build_network(model: str | None) -> network.Network:
    settings = read(Options(model_file=model or str(model_files.bundled())), save=False)
    net = building.build_network(settings, building.load_chain(settings, _quiet, _quiet), _quiet)
    network.place(net, [torch.device("cpu")])
    return net


def images(height: int, width: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    content, style = torch.randn(2, 1, 3, height, width, generator=rng).mul_(50)
    return content, style


def picture(height: int, width: int, seed: int) -> NDArray[np.float64]:
    """An RGB image in [0, 1], (3, H, W), for where a photograph would do: coloured waves that grow finer, and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    finer = 9 - 4 * columns / width + seed
    waves = np.stack([np.sin(rows / finer + c) * np.cos(columns / (finer + c)) for c in range(3)])
    return np.clip(0.5 + 0.4 * waves + 0.05 * rng.standard_normal((3, height, width)), 0, 1)


def write_pictures(folder: str) -> tuple[str, str]:
    """A content image of 640x427 and a style image of 640x512, as PNG files in `folder`; returns their paths."""
    names = (str(Path(folder, "content.png")), str(Path(folder, "style.png")))
    for seed, (name, height) in enumerate(zip(names, (427, 512), strict=True)):
        image.save(name, picture(height, 640, seed))
    return names


class Plain(torch.nn.Module):
    """The same objective as one would write it: nn.Sequential in PyTorch's own layout, autograd, torch.optim."""

    def __init__(
        self,
        chain: list[loadcaffe.Module],
        content: Tensor,
        style: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        super().__init__()
        self.dtype, self.layout = dtype, layout
        self.names: list[str] = []
        self.stages = torch.nn.ModuleList()
        for module in chain:
            self.stages.append(_plain_layer(module.build()))
            self.names.append(module.name)
            if module.name == STYLE[-1]:
                break
        self.requires_grad_(False)
        self.to(content.device, dtype, memory_format=layout)  # type: ignore[call-overload]
        self.targets: dict[str, Tensor] = {}
        with torch.no_grad():
            self.targets.update({name: x for name, x in self.maps(content) if name in CONTENT})
            self.targets.update({name: _gram(x) for name, x in self.maps(style) if name in STYLE})

    def maps(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = x.to(self.dtype, memory_format=self.layout)
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


def _plain_layer(layer: nn.Layer) -> torch.nn.Module:
    if isinstance(layer, nn.SpatialConvolution) and layer.weight.shape[2:] == (3, 3):
        out, inside = layer.weight.shape[:2]
        convolution = torch.nn.Conv2d(inside, out, 3, padding=1)
        convolution.load_state_dict({"weight": layer.weight, "bias": layer.bias})
        return convolution
    if isinstance(layer, nn.SpatialMaxPooling):
        return torch.nn.MaxPool2d(2, 2, ceil_mode=True)
    if isinstance(layer, nn.ReLU):
        return torch.nn.ReLU()
    raise UnsupportedError(f"{layer.name}: only VGG's layers can be measured; give a VGG network to --model")


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

    def __init__(self, height: int, width: int, device: torch.device | None = None) -> None:
        self.bottom = images(height, width)[0].to(device)
        self.steepness = torch.logspace(0, 3, self.bottom.numel(), device=device).view_as(self.bottom)

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        grad = self.steepness * (x - self.bottom)
        return float(torch.dot(grad.view(-1), (x - self.bottom).view(-1))) / 2, grad


Turn = Callable[[], None]
"""Called between two iterations: hands over the seconds since it last returned, and waits for its turn."""


def _ours(turn: Turn, model: str | None, height: int, width: int, optimizer: str) -> None:
    machine.keep_freed_memory()
    content, style = images(height, width)
    bowl, left = Bowl(height, width), _PAIRS
    with torch.no_grad():
        objective = Objective(build_network(model))
        objective.capture(content, objective.network.losses_from("content"))
        objective.capture(style, objective.network.losses_from("style"))

        # An iteration is all that happens from one return of this function to the next.
        def feval(x: Tensor) -> tuple[float, Tensor]:
            nonlocal left
            if optimizer == "lbfgs" and left > 0:
                left -= 1
                loss, grad = bowl(x)
                return loss, grad.view(-1)
            values, grad = objective(x)
            turn()
            return sum(values.values()), grad.view(-1)

        x, state = _start(height, width), optim.AdamState()
        if optimizer == "lbfgs":
            optim.lbfgs(feval, x, max_iter=math.inf, tol_fun=-1, tol_x=-1, n_correction=_PAIRS)
            raise DivergenceError("L-BFGS found no way down any more; take another --size")
        while True:
            optim.adam(feval, x, state, learning_rate=10)


def _plain(turn: Turn, model: str | None, height: int, width: int, optimizer: str) -> None:
    chain, _ = loadcaffe.modules(model_files.load(model or model_files.bundled()))
    plain = Plain(chain, *images(height, width))
    for _ in plain_iterations(plain, _start(height, width), optimizer):
        turn()


def plain_iterations(plain: Plain, image: Tensor, optimizer: str) -> Iterator[None]:
    """Iterations from `image`, (1, 3, H, W), by torch.optim; L-BFGS has all its correction pairs from the start."""
    bowl = Bowl(image.shape[2], image.shape[3], image.device)
    image.requires_grad_()
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
        yield


def _step(stepper: torch.optim.Optimizer, closure: Callable[[], float]) -> None:
    stepper.step(closure)


def _convolutions(turn: Turn, model: str | None, height: int, width: int, optimizer: str) -> None:
    """One forward and one backward convolution of every layer, alone, the direct way."""
    machine.keep_freed_memory()
    jobs = []
    rng = torch.Generator().manual_seed(1)
    for weight, h, w in weights(build_network(model), height, width):
        for one in (weight, weight.flip(2, 3).transpose(0, 1)):
            x = torch.randn(1, one.shape[1], h, w, generator=rng)
            jobs.append([tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, one)])
    with torch.no_grad():
        while True:
            for x, one in jobs:
                F.conv2d(x, one, padding=1)
            turn()


def weights(net: network.Network, height: int, width: int) -> Iterator[tuple[Tensor, int, int]]:
    """The kernels of every convolution, with height and width of its output."""
    for step, _, (_, h, w) in sizes.walk(net, height, width):
        if isinstance(step, nn.SpatialConvolution):
            yield step.weight, h, w


def _serve(pipe: Connection, processor_time: bool, program: Callable[..., None], *arguments: Any) -> None:
    """Run `program` with a function that makes it wait for its turn."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that takes turns ends this one
    clock = time.perf_counter
    if processor_time:
        clock = time.process_time
        torch.set_num_threads(1)
    mark = clock()

    def turn() -> None:
        nonlocal mark
        pipe.send(clock() - mark)
        pipe.recv()
        mark = clock()

    with contextlib.suppress(EOFError, BrokenPipeError):
        program(turn, *arguments)


_PAUSE = 0.02
"""Seconds until the threads of what ran last (libgomp's) have gone to sleep."""


def take_turns(
    rounds: int, *arguments: Any, processor_time: bool = False
) -> tuple[list[list[float]], list[int]]:
    """Run the three programs in turn; returns the seconds of each in each round, and their peak memory in bytes.

    `processor_time`: each has one thread, and its seconds are those that the processor worked for it.
    """
    processes = multiprocessing.get_context("spawn")
    servers = []
    rows: list[list[float]] = []
    try:
        for program in (_ours, _plain, _convolutions):
            pipe, end = processes.Pipe()
            server = processes.Process(
                target=_serve, args=(end, processor_time, program, *arguments), daemon=True
            )
            servers.append((pipe, server))
            server.start()
            end.close()  # so that reading ends where the server does
            pipe.recv()  # one iteration, and all that goes before
        for _ in range(rounds + 1):
            rows.append([])
            for pipe, _ in servers:
                time.sleep(_PAUSE)
                pipe.send(None)
                rows[-1].append(pipe.recv())
        peaks = [peak_memory(server.pid) for _, server in servers]
    except (EOFError, BrokenPipeError) as error:
        raise UnsupportedError("one of the programs ended early, for the reason above") from error
    finally:
        for _, server in servers:
            server.kill()
            server.join()
    return rows[1:], peaks  # the first round warms up caches and allocators


def peak_memory(process: int | str | None = "self") -> int:
    """Bytes of physical memory that a process has held at most (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

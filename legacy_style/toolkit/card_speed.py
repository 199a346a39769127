"""What `legacy-style benchmark speed --device cuda` measures: whole iterations on one GPU, and the table of them.

Ours in each precision is what a run does, from one evaluation to the next. Beside it stand the same objective in plain
PyTorch in its best settings (TF32 or bfloat16, channels-last, cudnn.benchmark) and the convolutions of the network
alone, one forward and one back. Times are between CUDA events, medians of the rounds; memory is the peak of what
PyTorch's allocator gave out, weights included.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.kernels import split
from legacy_style.engine.optimise import FLOAT32_EVALUATIONS, Progress
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.session import Session
from legacy_style.formats import model_files
from legacy_style.toolkit import turns

COLUMNS = ((256, "lbfgs"), (512, "lbfgs"), (512, "adam"), (1024, "lbfgs"), (1024, "adam"), (2048, "adam"))
"""Longer sides, 3:2, and optimisers."""

PRECISIONS = ("float32", "tf32", "bfloat16")

PLAIN = ((torch.float32, "TF32"), (torch.bfloat16, "bfloat16"))
"""What the plain program computes in."""

WARM_UP = 4
"""Iterations that are not measured: in them algorithms are chosen and graphs recorded."""


@dataclass(frozen=True)
class Figure:
    """One cell of the table: milliseconds an iteration, and the peak memory in bytes."""

    milliseconds: float
    peak: int


class Clock:
    """Marks in the work of a device, and the times between them; on a CPU those of the wall clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[torch.cuda.Event | float] = []

    def mark(self) -> None:
        if self.device.type == "cuda":
            event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def median(self, rounds: int) -> float:
        """Milliseconds from one mark to the next: the median of the last `rounds`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        times = [_milliseconds(*pair) for pair in zip(self.marks, self.marks[1:], strict=False)]
        return statistics.median(times[-rounds:])


def _milliseconds(first: torch.cuda.Event | float, second: torch.cuda.Event | float) -> float:
    if isinstance(first, float) or isinstance(second, float):
        assert isinstance(first, float) and isinstance(second, float)
        return (second - first) * 1e3
    milliseconds: float = first.elapsed_time(second)
    return milliseconds


def measure(
    device: torch.device,
    model: str | None,
    columns: Sequence[tuple[int, str]] = COLUMNS,
    rounds: int = 20,
    *,
    autotune: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, list[Figure | None]]:
    """Every program's figures, one for each of the columns; None where a device is out of memory."""
    programs: dict[str, Callable[[Clock, int, int, str], None]] = {}
    net = turns.build_network(model)
    network.place(net, [device])
    for precision in PRECISIONS:
        programs[f"ours, {precision}"] = lambda *given, p=precision: _ours(net, p, rounds, autotune, *given)
    for dtype, name in PLAIN:
        programs[f"plain PyTorch, {name}, channels-last, autotuned"] = lambda *given, dtype=dtype: _plain(
            model, dtype, rounds, *given
        )
    for precision in PRECISIONS:
        programs[f"the convolutions alone, {precision}"] = lambda *given, p=precision: _convolutions(
            net, p, rounds, *given
        )
    table: dict[str, list[Figure | None]] = {name: [] for name in programs}
    for size, optimizer in columns:
        for name, program in programs.items():
            figure = _figure(device, rounds, program, size * 2 // 3, size, optimizer)
            table[name].append(figure)
            log(f"{size} {optimizer} {name}: {_cell(figure)}")
    return table


def _figure(
    device: torch.device,
    rounds: int,
    program: Callable[[Clock, int, int, str], None],
    height: int,
    width: int,
    optimizer: str,
) -> Figure | None:
    clock = Clock(device)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        program(clock, height, width, optimizer)
    except torch.OutOfMemoryError:
        return None
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else turns.peak_memory()
    return Figure(clock.median(rounds), peak)


@contextlib.contextmanager
def _best_settings() -> Iterator[None]:
    """As one would set PyTorch for speed: rounded factors, timed algorithms."""
    backend = torch.backends.cudnn
    before = backend.benchmark
    backend.benchmark = True
    try:
        with split.allowed():
            yield
    finally:
        backend.benchmark = before


def _ours(
    net: network.Network,
    precision: str,
    rounds: int,
    autotune: bool,
    clock: Clock,
    height: int,
    width: int,
    optimizer: str,
) -> None:
    net.autotune = autotune
    content, style = turns.images(height, width)
    session = Session(net)
    session.set_content(content)
    session.set_styles([style])
    # Evaluations are float32 first; from then on as the precision says.
    last = FLOAT32_EVALUATIONS + WARM_UP + rounds

    def mark(progress: Progress) -> bool:
        clock.mark()
        return progress.iteration > last

    chosen = Lbfgs(math.inf) if optimizer == "lbfgs" else Adam(math.inf, 10)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    session.run(content + style, chosen, precision=dtype, tf32=precision == "tf32", on_progress=mark)


def _plain(
    model: str | None,
    dtype: torch.dtype,
    rounds: int,
    clock: Clock,
    height: int,
    width: int,
    optimizer: str,
) -> None:
    chain, _ = loadcaffe.modules(model_files.load(model or model_files.bundled()))
    content, style = (image.to(clock.device) for image in turns.images(height, width))
    with _best_settings():
        plain = turns.Plain(chain, content, style, dtype=dtype, layout=torch.channels_last)
        iterations = turns.plain_iterations(plain, content + style, optimizer)
        for _ in range(WARM_UP + rounds + 1):
            next(iterations)
            clock.mark()


@torch.no_grad()
def _convolutions(
    net: network.Network, precision: str, rounds: int, clock: Clock, height: int, width: int, optimizer: str
) -> None:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    jobs: list[list[Tensor]] = []
    for weight, h, w in turns.weights(net, height, width):
        for one in (weight, weight.flip(2, 3).transpose(0, 1)):
            x = torch.randn(1, one.shape[1], h, w, device=clock.device)
            jobs.append([each.to(dtype, memory_format=torch.channels_last) for each in (x, one)])
    with _best_settings() if precision == "tf32" else contextlib.nullcontext():
        for _ in range(WARM_UP + rounds + 1):
            for x, one in jobs:
                F.conv2d(x, one, padding=1)
            clock.mark()


def table(figures: dict[str, list[Figure | None]], columns: Sequence[tuple[int, str]] = COLUMNS) -> str:
    """The figures as docs/performance.md has them: milliseconds an iteration, and the peak memory of each."""
    names = {"lbfgs": "L-BFGS", "adam": "Adam"}
    head = ["whole iteration, ms (peak, GB)", *(f"{size} {names[optimizer]}" for size, optimizer in columns)]
    rows = [head, ["---"] * len(head)]
    rows += [[name, *map(_cell, cells)] for name, cells in figures.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_json(
    figures: dict[str, list[Figure | None]], about: str, columns: Sequence[tuple[int, str]] = COLUMNS
) -> dict[str, Any]:
    """The figures as plain values, program by program and column by column."""
    return {
        "device": about,
        "columns": [f"{size} {optimizer}" for size, optimizer in columns],
        "programs": {name: [each and vars(each) for each in cells] for name, cells in figures.items()},
    }


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "out of memory"
    digits = 2 if figure.milliseconds < 10 else 1
    return f"{figure.milliseconds:.{digits}f} ({figure.peak / 1e9:.2f})"

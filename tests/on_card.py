"""All that a GPU alone can show, in under six minutes: `python tests/on_card.py [FILE]`. What holds, and the figures.

Checks the promises of each precision and kernel, that recorded runs are plain runs, that L-BFGS by products goes the
way of the two loops, one process with NCCL, and a GPU that is full; then measures the table for docs/performance.md,
and where the time of one case goes. After each part, all that was seen until then is written to FILE (on_card.json):
no part that fails takes the others with it. Exit status 1 where anything does not hold.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import thin_networks as thin
import torch
import torch.distributed as dist
import torch.nn.functional as F

from legacy_style.engine import cards, graphs, network, products
from legacy_style.engine.graphs import WARM_UP
from legacy_style.engine.kernels import convolution, fused, grams, split
from legacy_style.engine.objective import Objective
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.processes import parts
from legacy_style.engine.processes.group import Ranks
from legacy_style.engine.session import Session
from legacy_style.errors import LegacyStyleError
from legacy_style.toolkit import card_speed, turns
from legacy_style.torch7 import nn

CARD = torch.device("cuda", 0)
CPU = torch.device("cpu")
SECONDS = 330
"""The table and the profile, which come last, leave out what would take longer than this in all."""

BEGAN = time.monotonic()

CHECKS: list[Callable[[], Any]] = []

PRECISIONS = (
    ("float32", torch.float32, False),
    ("tf32", torch.float32, True),
    ("bfloat16", torch.bfloat16, False),
)


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    """A function that returns what was seen, and fails where that is not as promised."""
    CHECKS.append(function)
    return function


def apart(ours: torch.Tensor, exact: torch.Tensor) -> float:
    exact = exact.double().cpu()
    return ((ours.double().cpu() - exact).norm() / exact.norm()).item()


def bundled(
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    height: int = 192,
    width: int = 256,
    *,
    tf32: bool = False,
) -> Session:
    """The bundled network, with the targets of two smooth images: float32's, but for float64."""
    net = turns.build_network(None)
    network.place(net, [device])
    wide = torch.promote_types(dtype, torch.float32)
    net.compute_in(wide)
    session = Session(net)
    session.set_content(thin.smooth(height, width, 0).to(wide))
    session.set_styles([thin.smooth(height, width, 1).to(wide)])
    net.compute_in(dtype, tf32=tf32)
    return session


def image() -> torch.Tensor:
    return thin.smooth(192, 256, 2).float()


def gradient(session: Session, x: torch.Tensor) -> torch.Tensor:
    """In the precision that the network is in."""
    return session.objective(*x.shape[2:])(x.to(session.device))[1]


def maps(
    channels: int, height: int, width: int, seed: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    x = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed)) * 10
    return x.to(CARD, dtype).contiguous(memory_format=torch.channels_last)


def milliseconds(work: Callable[[], object], rounds: int = 20) -> float:
    """The median between CUDA events, after a warm-up."""
    clock = card_speed.Clock(CARD)
    for _ in range(4):
        work()
    clock.mark()
    for _ in range(rounds):
        work()
        clock.mark()
    return round(clock.median(rounds), 4)


@check
def the_machine() -> Any:
    properties = torch.cuda.get_device_properties(CARD)
    copied = torch.empty(2**28, device=CARD)
    other = torch.empty_like(copied)
    took = milliseconds(lambda: other.copy_(copied))
    return {
        "gpu": properties.name,
        "memory GB": round(properties.total_memory / 1e9, 1),
        "PyTorch": torch.__version__,
        "CUDA, cuDNN": [torch.version.cuda, torch.backends.cudnn.version()],
        "Python": platform.python_version(),
        "Triton's kernels work": fused.works(CARD),
        "copying, TB/s, read and written": round(2 * copied.numel() * 4 / took / 1e9, 2),
    }


@check
def settings_are_put_back() -> Any:
    def settings() -> list[object]:
        return [torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision]

    before = settings()
    bundled(CARD).evaluate(image())
    assert settings() == before, (before, settings())
    return before


@check
def precisions_keep_their_promises() -> Any:
    """At 64x48. At 256x192 some pooling has two maxima that float32 cannot tell apart, and only the median is held."""
    seen: dict[str, Any] = {}
    for height, width in ((48, 64), (192, 256)):
        x = thin.smooth(height, width, 2).float()
        exact = gradient(bundled(CARD, torch.float64, height, width), x.double())
        for name, dtype, tf32 in PRECISIONS:
            ours = gradient(bundled(CARD, dtype, height, width, tf32=tf32), x)
            pixels = (ours.double() - exact).abs().flatten() / exact.square().mean().sqrt()
            seen[f"{name}, {width}x{height}"] = {"all": apart(ours, exact), "median": pixels.median().item()}
    assert seen["float32, 64x48"]["all"] < 1e-4, seen
    assert seen["float32, 256x192"]["median"] < 1e-4, seen
    assert seen["tf32, 64x48"]["all"] < 0.05, seen
    return {"the gradient's error against float64": seen}


@check
def each_way_of_a_convolution_is_as_exact_as_it_says() -> Any:
    seen = {}
    for channels in (64, 256, 512):
        x = maps(channels, 48, 64, channels)
        generator = torch.Generator().manual_seed(5)
        weight = torch.randn(channels, channels, 3, 3, generator=generator).to(CARD) / (9 * channels) ** 0.5
        exact = F.conv2d(x.double(), weight.double(), padding=1)
        kernels = split.split_kernels(weight)
        seen[channels] = {
            "split": apart(split.convolve(kernels, x, (1, 1)), exact),
            "rounded": apart(split.convolve_rounded(weight, x, (1, 1)), exact),
        }
        assert seen[channels]["split"] < 5e-5, seen
        assert seen[channels]["rounded"] > 1e-5, ("TF32 was not used", seen)
        assert convolution.choose(CARD, torch.float32, (channels, channels, 3, 3), pad=(1, 1)) == "split"
    return seen


@check
def gram_matrices_are_as_exact_as_they_say() -> Any:
    seen = {}
    for channels, height, width in ((64, 341, 512), (512, 43, 64)):
        for dtype in (torch.float32, torch.bfloat16):
            flat = maps(channels, height, width, 7, dtype).relu_().permute(0, 2, 3, 1).reshape(-1, channels)
            way = grams.choose(CARD, dtype)
            matrix = torch.randn(channels, channels, dtype=torch.float64, device=CARD)
            matrix = matrix + matrix.T
            grad = torch.zeros_like(flat)
            grams.add_product(grad, flat, matrix, 1.0)
            seen[f"{way}, {channels} channels"] = errors = [
                apart(grams.products(flat), flat.double().T @ flat.double()),
                apart(grad, flat.double() @ matrix),
            ]
            assert errors[0] < 3e-5, seen
            assert errors[1] < (2**-7 if dtype == torch.bfloat16 else 5e-5), seen
    return {"Gram matrix, its gradient": seen}


@check
def tritons_kernels_are_their_plain_twins() -> Any:
    assert fused.works(CARD), "Triton builds nothing here: everything runs, slower"
    for channels, height, width in ((64, 341, 511), (24, 7, 9), (512, 1, 5)):
        for dtype in (torch.float32, torch.bfloat16):
            y, bias = maps(channels, height, width, 1, dtype), maps(channels, 1, 1, 2, dtype).flatten()
            y[0, 0, 0, 0] = float("nan")
            right = (y.float() + bias.float().view(1, -1, 1, 1)).to(dtype).relu()
            ours = fused.add_bias(y.clone(memory_format=torch.channels_last), bias, rectify=True)
            torch.testing.assert_close(ours, right, rtol=0, atol=0, equal_nan=True)
            layer = nn.SpatialMaxPooling("", (2, 2), (2, 2))
            layer.rectified = True
            layer.to(CARD)
            fused.install(layer)
            assert layer.backwards is not None
            x = maps(channels, height, width, 3, dtype).div_(5).round_()
            grad = maps(channels, (height + 1) // 2, (width + 1) // 2, 4, dtype)
            assert torch.equal(layer.backward(x, x, grad), nn.mask(layer.by_indices(x, grad), x))
        x, positive = maps(channels, height, width, 5), maps(channels, height, width, 6)
        parts = torch.empty((1, height, width, 3 * channels), device=CARD).permute(0, 3, 1, 2)
        fused.split(x, positive, parts)
        high, low, again = parts.split(channels, 1)
        assert torch.equal(high + low, torch.where(positive > 0, x, 0.0)) and torch.equal(high, again)
    return "to the bit"


class Counting(graphs.CudaRecorder):
    """Tells how often something was recorded."""

    recorded = 0

    def record(self, work):  # type: ignore[no-untyped-def]
        Counting.recorded += 1
        return super().record(work)


@check
def recorded_runs_are_plain_runs() -> Any:
    session, seen = bundled(CARD), {}
    for name, optimizer in (("L-BFGS", lambda: Lbfgs(30, 10)), ("Adam", lambda: Adam(30, 5.0))):
        results = []
        for warm_up in (10**9, WARM_UP):  # never recorded, then recorded
            graphs.WARM_UP = warm_up
            Counting.recorded = 0
            try:
                results.append(session.run(image(), optimizer(), recorder=Counting(CARD), notice=_fail))
            finally:
                graphs.WARM_UP = WARM_UP
        assert Counting.recorded == 2, f"{Counting.recorded} graphs, of an evaluation and a step"
        seen[name] = parted(*results)
        assert seen[name] < 1e-4, seen
    return {"losses part in 30 iterations by (0: to the bit)": seen}


def parted(one: Any, other: Any) -> float:
    """How far the losses of two runs part."""
    pairs = zip(one.losses, other.losses, strict=True)
    return max(abs(a.total - b.total) / b.total for a, b in pairs)


def _fail(line: str) -> None:
    raise AssertionError(line)


@check
def a_run_ahead_of_its_losses_is_one_that_waits() -> Any:
    session, seen = bundled(CARD), []
    for ahead in (False, True):
        images: list[torch.Tensor] = []
        finished = session.run(
            image(), Adam(12, 5.0), ahead=ahead, on_progress=lambda now, kept=images: kept.append(now.image())
        )
        seen.append((finished, images))
    (one, images), (other, images_too) = seen
    assert len(images) == len(images_too) == 12
    far = max(apart(a, b) for a, b in zip(images, images_too, strict=True))
    assert far < 1e-4 and parted(one, other) < 1e-4, (far, parted(one, other))
    return {"images part by": far}


@check
def what_cannot_be_recorded_runs_plainly() -> Any:
    x, said = torch.ones(2, device=CARD), list[str]()
    repeated = graphs.Repeated(lambda: x.add_(1).sum().item(), graphs.CudaRecorder(CARD), said.append)
    seen = [repeated() for _ in range(5)]
    assert seen == [4, 6, 8, 10, 12] and len(said) == 1, (seen, said)
    assert torch.cuda.current_stream(CARD) == torch.cuda.default_stream(CARD)
    return said[0]


@check
def lbfgs_by_products_is_the_two_loops() -> Any:
    session = bundled(CARD)
    ours, theirs = (session.run(image(), Lbfgs(40, in_steps=each)).losses for each in (True, False))
    far = [abs(a.total - b.total) / b.total for a, b in zip(ours, theirs, strict=True)]
    assert max(far[:10]) < 1e-3 and far[-1] < 0.1, far
    return {"losses part in 10 iterations by": max(far[:10]), "after 40 by": far[-1]}


@check
def a_step_that_overshot_is_taken_back() -> Any:
    worst = 0.0
    for size in (5003, 9999):
        slope = (torch.rand(size, generator=torch.Generator().manual_seed(1)) + 0.5).to(CARD)
        seen: list[torch.Tensor] = []

        def feval(
            x: torch.Tensor,
            _: object = None,
            slope: torch.Tensor = slope,
            seen: list[torch.Tensor] = seen,
            **_more: bool,
        ) -> tuple[float, torch.Tensor]:
            seen.append(x.clone())
            return 0.0, -slope + 1e-3 * x + 1e3 * (x - 10).clamp(min=0) ** 3

        Lbfgs(4).minimise(feval, torch.zeros(size, device=CARD), 0)
        worst = max(worst, (seen[3] - seen[1]).abs().max().item())
    assert worst < 0.05, worst
    return {"by all but": worst}


@check
def products_are_exact() -> Any:
    rows, vectors = torch.randn(100, 3 * 640 * 427, device=CARD), torch.randn(2, 3 * 640 * 427, device=CARD)
    ours = products.products(rows, vectors)
    exact = rows.double() @ vectors.double().T
    lengths = rows.double().norm(dim=1)[:, None] * vectors.double().norm(dim=1)
    far = ((ours - exact).abs() / lengths).max().item()
    assert far < 1e-8, far
    return {"to this part of |a||b|": far}


@check
def losses_are_those_of_the_cpu() -> Any:
    values, _ = bundled(CPU).evaluate(image())
    seen, _ = bundled(CARD).evaluate(image())
    far = max(abs(seen[name] - value) / value for name, value in values.items())
    assert far < 1e-5, far
    return {"to": far}


@check
def tiles_give_the_same_on_a_gpu_that_is_full() -> Any:
    session, said = bundled(CARD), list[str]()
    expected = session.run(image(), Adam(4, 5.0))
    launch, count = Objective.launch, itertools.count()

    def full(objective: Objective, x: torch.Tensor) -> Any:
        if len(objective.tiles) == 1 and next(count) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return launch(objective, x)

    Objective.launch = full  # type: ignore[method-assign, assignment]
    try:
        ours = session.run(image(), Adam(4, 5.0), notice=said.append)
    finally:
        Objective.launch = launch  # type: ignore[method-assign]
    assert len(said) == 1 and parted(ours, expected) < 1e-4, (said, parted(ours, expected))
    return {"said": said, "losses part by": parted(ours, expected)}


@check
def memory_stays_within_the_plan() -> Any:
    seen = {}
    for name, optimizer in (("Adam", Adam(8, 5.0)), ("L-BFGS", Lbfgs(8))):
        for size in (512, 1024):
            gc.collect()
            torch.cuda.empty_cache()
            session = bundled(CARD)
            height = size * 2 // 3
            planned = session.plan((height, size), [(160, 224)], optimizer.vectors)
            torch.cuda.reset_peak_memory_stats(CARD)
            session.set_content(thin.smooth(height, size, 0).float())
            session.run(thin.smooth(height, size, 2).float(), optimizer)
            reserved, peak = torch.cuda.max_memory_reserved(CARD), torch.cuda.max_memory_allocated(CARD)
            seen[f"{name}, {size}"] = [round(each / 1e9, 3) for each in (planned.peak, peak, reserved)]
            del session
    cards.give_back()
    for planned, peak, _ in seen.values():
        assert peak <= planned * 1.05, seen
    return {"GB: planned, given out, reserved": seen}


class Talking(Ranks):
    """One process that adds up as several do."""

    def all_reduce(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        for tensor in tensors:
            dist.all_reduce(tensor)
        return tensors


@check
def one_process_with_nccl_is_a_run_alone() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(f"{folder}/store", 1)
        dist.init_process_group("nccl", store=store, rank=0, world_size=1)
        try:
            torch.cuda.set_device(CARD)
            session = bundled(CARD)
            together, grad = parts.objective(session.net, 192, 256, 0, Talking())(image().to(CARD))
        finally:
            dist.destroy_process_group()
    alone, right = session.objective(192, 256)(image().to(CARD))
    far = max(abs(together[name] - value) / value for name, value in alone.items())
    assert far < 1e-6 and apart(grad, right) < 1e-5, (far, apart(grad, right))
    return {"losses part by": far, "the gradient by": apart(grad, right)}


@check
def what_each_kernel_takes() -> Any:
    """Milliseconds at 512 px: what the choosers chose between."""
    x, weight = maps(64, 341, 512, 1), maps(64, 3, 3, 2).expand(64, -1, -1, -1).contiguous()
    y, bias = maps(64, 341, 512, 3), torch.ones(64, device=CARD)
    kernels, last = split.split_kernels(weight), weight.contiguous(memory_format=torch.channels_last)
    flat = x.permute(0, 2, 3, 1).reshape(-1, 64)
    small, first = (
        maps(3, 341, 512, 4),
        nn.SpatialConvolution("", weight[:, :3].contiguous(), bias, pad=(1, 1)),
    )
    first.rectify = True
    first.to(CARD)
    seen = {"layer 1, cuDNN": milliseconds(lambda: first.forward(small))}
    seen["layer 1 back, cuDNN"] = milliseconds(lambda: first.backward(small, y, x))
    convolution.install(first)
    seen["layer 1, columns"] = milliseconds(lambda: first.forward(small))
    seen["layer 1 back, columns"] = milliseconds(lambda: first.backward(small, y, x))
    seen["64 to 64, split"] = milliseconds(lambda: split.convolve(kernels, x, (1, 1)))
    seen["64 to 64, rounded"] = milliseconds(lambda: split.convolve_rounded(last, x, (1, 1)))
    seen["64 to 64, float32"] = milliseconds(lambda: F.conv2d(x, last, padding=1))
    seen["bias and ReLU, one pass"] = milliseconds(lambda: fused.add_bias(y, bias, rectify=True))
    seen["bias and ReLU, two"] = milliseconds(lambda: y.add_(bias.view(1, -1, 1, 1)).relu_())
    pooling = nn.SpatialMaxPooling("", (2, 2), (2, 2))
    pooling.rectified = True
    pooling.to(CARD)
    grad = maps(64, 171, 256, 5)
    seen["pooling back, indices"] = milliseconds(lambda: pooling.backward(y, y, grad))
    fused.install(pooling)
    seen["pooling back, one pass"] = milliseconds(lambda: pooling.backward(y, y, grad))
    seen["Gram matrix, split"] = milliseconds(lambda: grams.products(flat))
    seen["Gram matrix, float32"] = milliseconds(lambda: grams._plain(flat))
    coarse = flat.bfloat16()
    seen["Gram matrix, bfloat16"] = milliseconds(lambda: grams.products(coarse))
    return seen


@check
def the_table() -> Any:
    """Column by column, from the smallest; a column that fails or would come too late is left out."""
    table: dict[str, Any] = {}
    took = 0.0
    for column in card_speed.COLUMNS:
        began = time.monotonic()
        if began - BEGAN + 2 * took > SECONDS:
            table[f"{column}"] = "left out: no time"
            continue
        try:
            figures = card_speed.measure(CARD, None, [column], rounds=12)
        except FAILURES:
            table[f"{column}"] = traceback.format_exc()
            continue
        took = time.monotonic() - began
        for name, (figure,) in figures.items():
            cell = figure and [round(figure.milliseconds, 3), round(figure.peak / 1e9, 3)]
            table.setdefault(name, {})[f"{column[0]} {column[1]}"] = cell
        write({"the table": table})
    return table


@check
def ours_with_timed_algorithms() -> Any:
    """512 px, Adam, with -cudnn_autotune, beside the same cell of the table."""
    if time.monotonic() - BEGAN > SECONDS:
        return "left out: no time"
    figures = card_speed.measure(CARD, None, [(512, "adam")], rounds=12, autotune=True)
    return {name: each and round(each.milliseconds, 3) for name, (each,) in figures.items() if "ours" in name}


@check
def where_the_time_goes() -> Any:
    """512 px, L-BFGS: milliseconds of each kernel in one iteration, and how long the GPU waits, by precision."""
    from torch.profiler import ProfilerActivity, profile

    seen = {}
    for name, dtype, tf32 in PRECISIONS:
        if time.monotonic() - BEGAN > SECONDS + 20:
            break
        session = bundled(CARD)
        session.set_content(thin.smooth(341, 512, 0).float())
        iterations, marks = 40, list[float]()
        tracer = profile(activities=[ProfilerActivity.CUDA])

        def follow(now: Any, tracer: Any = tracer, marks: list[float] = marks) -> None:
            marks.append(time.perf_counter())
            if now.iteration == 20:
                torch.cuda.synchronize()
                tracer.start()
            if now.iteration == 30:
                torch.cuda.synchronize()
                tracer.stop()

        session.run(
            thin.smooth(341, 512, 2).float(),
            Lbfgs(iterations),
            precision=dtype,
            tf32=tf32,
            on_progress=follow,
        )
        rows = [
            (each.key[:90], each.count / 10, round(each.self_device_time_total / 1e4, 4))
            for each in tracer.key_averages()
            if each.self_device_time_total > 0
        ]
        rows.sort(key=lambda row: -row[2])
        steady = [b - a for a, b in itertools.pairwise(marks[31:])]
        seen[name] = {
            "ms an iteration": round(statistics.median(steady) * 1e3, 3),
            "ms in kernels": round(sum(row[2] for row in rows), 3),
            "launches": round(sum(row[1] for row in rows)),
            "kernel, launches, ms": rows[:25],
        }
    return seen


FAILURES = (
    *(AssertionError, RuntimeError, LegacyStyleError, TypeError, ValueError, AttributeError, LookupError),
    *(OSError, ImportError, ArithmeticError),
)
"""What a part may fail with: the parts behind it are to be seen all the same."""

SEEN: dict[str, Any] = {}
TARGET = Path(sys.argv[1] if len(sys.argv) > 1 else "on_card.json")


def write(more: dict[str, Any]) -> None:
    """Write all that was seen until now, and `more`."""
    SEEN.update(more)
    TARGET.write_text(json.dumps(SEEN, indent=1, default=str) + "\n")


def main() -> int:
    if not torch.cuda.is_available():
        print("There is no CUDA device here.")
        return 1
    failed = 0
    for each in CHECKS:
        began, name = time.monotonic(), each.__name__.replace("_", " ")
        try:
            cards.give_back()
            measures = each in (
                the_table,
                ours_with_timed_algorithms,
            )  # plain PyTorch, too, which needs autograd
            with contextlib.nullcontext() if measures else torch.no_grad():
                seen = each()
        except FAILURES:
            failed += 1
            seen = traceback.format_exc()
            name = f"DOES NOT HOLD: {name}"
        write({name: seen, "seconds in all": round(time.monotonic() - BEGAN)})
        print(
            f"{name} ({time.monotonic() - began:.0f} s): {json.dumps(seen, default=str)[:1500]}", flush=True
        )
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} hold; everything is in {TARGET}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

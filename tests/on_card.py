"""All that a GPU alone can show, in under five minutes: `python tests/on_card.py`. Says what holds and what does not.

Checks the promises of each precision, that recorded runs are plain runs, that L-BFGS by products goes the way of the
two loops; then prints the table for docs/performance.md. Exit status 1 where anything does not hold.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable

import thin_networks as thin
import torch

from legacy_style.engine import graphs, network, products
from legacy_style.engine.graphs import WARM_UP
from legacy_style.engine.kernels import convolution, split
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.session import Session
from legacy_style.errors import LegacyStyleError
from legacy_style.toolkit import card_speed, turns

CARD = torch.device("cuda", 0)
CPU = torch.device("cpu")

CHECKS: list[Callable[[], str]] = []


def check(function: Callable[[], str]) -> Callable[[], str]:
    """A function that returns what was seen, and fails where that is not as promised."""
    CHECKS.append(function)
    return function


def apart(ours: torch.Tensor, exact: torch.Tensor) -> float:
    exact = exact.double().cpu()
    return ((ours.double().cpu() - exact).norm() / exact.norm()).item()


def bundled(device: torch.device, dtype: torch.dtype = torch.float32, *, tf32: bool = False) -> Session:
    """The bundled network, with the targets of two smooth images: float32's, but for float64."""
    net = turns.build_network(None)
    network.place(net, [device])
    wide = torch.promote_types(dtype, torch.float32)
    net.compute_in(wide)
    session = Session(net)
    session.set_content(thin.smooth(192, 256, 0).to(wide))
    session.set_styles([thin.smooth(160, 224, 1).to(wide)])
    net.compute_in(dtype, tf32=tf32)
    return session


def image() -> torch.Tensor:
    return thin.smooth(192, 256, 2).float()


def gradient(session: Session, x: torch.Tensor) -> torch.Tensor:
    """In the precision that the network is in."""
    return session.objective(192, 256)(x.to(session.device))[1]


@check
def precisions_keep_their_promises() -> str:
    exact = gradient(bundled(CARD, torch.float64), image().double())
    seen = {}
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bfloat16", torch.bfloat16, False),
    ):
        seen[name] = apart(gradient(bundled(CARD, dtype, tf32=tf32), image()), exact)
    assert seen["float32"] < 1e-4, seen
    assert seen["tf32"] < 0.05, seen
    return "the gradient's error against float64: " + ", ".join(f"{name} {e:.1e}" for name, e in seen.items())


@check
def each_way_of_a_convolution_is_as_exact_as_it_says() -> str:
    generator = torch.Generator().manual_seed(5)
    seen = {}
    for channels in (64, 256, 512):
        x = torch.randn(1, channels, 48, 64, generator=generator).to(CARD)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, generator=generator).to(CARD) / (9 * channels) ** 0.5
        exact = torch.nn.functional.conv2d(x.double(), weight.double(), padding=1)
        ours = split.convolve(split.split_kernels(weight), None, x, (1, 1))
        rounded = split.convolve_rounded(weight, None, x, (1, 1))
        seen[channels] = (apart(ours, exact), apart(rounded, exact))
        assert seen[channels][0] < 5e-5, seen
        assert convolution.choose(CARD, torch.float32, (channels, channels, 3, 3), pad=(1, 1)) == "split"
    return "split, then rounded: " + ", ".join(f"{c} channels {a:.1e} {b:.1e}" for c, (a, b) in seen.items())


class Counting(graphs.CudaRecorder):
    """Tells how often something was recorded."""

    recorded = 0

    def record(self, work):  # type: ignore[no-untyped-def]
        Counting.recorded += 1
        return super().record(work)


@check
def recorded_runs_are_plain_runs() -> str:
    session, seen = bundled(CARD), []
    for optimizer in (lambda: Lbfgs(30, 10), lambda: Adam(30, 5.0)):
        results = []
        for warm_up in (10**9, WARM_UP):  # never recorded, then recorded
            graphs.WARM_UP = warm_up
            Counting.recorded = 0
            results.append(session.run(image(), optimizer(), recorder=Counting(CARD), notice=_fail))
        assert Counting.recorded == 2, f"{Counting.recorded} graphs, of an evaluation and a step"
        plain, recorded = results
        far = max(
            abs(a.total - b.total) / b.total for a, b in zip(recorded.losses, plain.losses, strict=True)
        )
        assert far < 1e-4, far
        seen.append(f"{far:.1e}")
    graphs.WARM_UP = WARM_UP
    return f"losses part by {' and '.join(seen)} over 30 iterations of L-BFGS and Adam (0: to the bit)"


def _fail(line: str) -> None:
    raise AssertionError(line)


@check
def what_cannot_be_recorded_runs_plainly() -> str:
    x, said = torch.ones(2, device=CARD), list[str]()
    repeated = graphs.Repeated(lambda: x.add_(1).sum().item(), graphs.CudaRecorder(CARD), said.append)
    seen = [repeated() for _ in range(5)]
    assert seen == [4, 6, 8, 10, 12] and len(said) == 1, (seen, said)
    assert torch.cuda.current_stream(CARD) == torch.cuda.default_stream(CARD)
    return said[0]


@check
def lbfgs_by_products_is_the_two_loops() -> str:
    session = bundled(CARD)
    ours, theirs = (session.run(image(), Lbfgs(40, in_steps=each)).losses for each in (True, False))
    far = [abs(a.total - b.total) / b.total for a, b in zip(ours, theirs, strict=True)]
    assert max(far[:10]) < 1e-3 and far[-1] < 0.1, far
    return f"losses part by {max(far[:10]):.1e} in 10 iterations, by {far[-1]:.1e} after 40"


@check
def a_step_that_overshot_is_taken_back() -> str:
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
    return f"by all but {worst:.1e}"


@check
def products_are_exact() -> str:
    rows, vectors = torch.randn(100, 3 * 640 * 427, device=CARD), torch.randn(2, 3 * 640 * 427, device=CARD)
    ours = products.products(rows, vectors)
    exact = rows.double() @ vectors.double().T
    far = (
        ((ours - exact).abs() / (rows.double().norm(dim=1)[:, None] * vectors.double().norm(dim=1)))
        .max()
        .item()
    )
    assert far < 1e-8, far
    return f"to {far:.1e} of |a||b|"


@check
def losses_are_those_of_the_cpu() -> str:
    values, _ = bundled(CPU).evaluate(image())
    seen, _ = bundled(CARD).evaluate(image())
    far = max(abs(seen[name] - value) / value for name, value in values.items())
    assert far < 1e-5, far
    return f"to {far:.1e}"


@check
def the_table() -> str:
    figures = card_speed.measure(CARD, None, rounds=15)
    name = torch.cuda.get_device_name(CARD)
    return f"{name}, PyTorch {torch.__version__}\n\n{card_speed.table(figures)}\n"


def main() -> int:
    if not torch.cuda.is_available():
        print("There is no CUDA device here.")
        return 1
    failed = 0
    for each in CHECKS:
        began, name = time.monotonic(), each.__name__.replace("_", " ")
        try:
            with torch.no_grad() if each is not the_table else contextlib.nullcontext():
                seen = each()
        except (AssertionError, RuntimeError, LegacyStyleError):
            failed += 1
            seen = traceback.format_exc()
            name = f"DOES NOT HOLD: {name}"
        print(f"{name} ({time.monotonic() - began:.0f} s): {seen}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

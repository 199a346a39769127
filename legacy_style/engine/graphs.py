"""Work that is launched again and again, recorded once as a CUDA graph and from then on launched as a whole.

Launching a layer takes the processor longer than a GPU takes for a small image's. A graph may read and write none but
the tensors that were there when it was recorded, and what it allocated itself: whoever hands work to `Repeated` keeps
its inputs and its state in place, and changes nothing else from one call to the next. What it leaves lies in the same
memory each time. Work that waits for the device, or that is done otherwise from call to call, cannot be recorded; then
it is done plainly, and that is said once. Source: PyTorch's CUDA graph semantics, which forbid the same.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch

from legacy_style.engine.objective import Objective

T = TypeVar("T")

WARM_UP = 2
"""Calls that are done plainly before one is recorded: the first makes libraries' handles and, under -cudnn_autotune,
chooses algorithms, neither of which can be recorded. The last shows whether the work waits for the device.
"""


class Recorder(Protocol):
    def rehearse(self, work: Callable[[], T]) -> tuple[T, bool]:
        """Do `work`; returns what it leaves, and whether it waited for the device, so that it cannot be recorded."""

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What `work` leaves, as tensors without content yet, and what does the work. Raises RuntimeError."""


_WAITED = "called a synchronizing CUDA operation"
"""What PyTorch warns of (c10/cuda/CUDAFunctions.cpp, warn_or_error_on_sync)."""


class CudaRecorder:
    """Records on a stream of its own of one GPU; a graph keeps its memory as long as it is kept."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def rehearse(self, work: Callable[[], T]) -> tuple[T, bool]:
        """As in Recorder. A recording that fails is no way to find out: from then on PyTorch 2.6 to 2.14 believes that
        it still goes on, gives no memory back, and `empty_cache` is an error.
        """
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                left = work()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        others = [each for each in said if _WAITED not in str(each.message)]
        for each in others:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        return left, len(others) < len(said)

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        with torch.cuda.device(self.device):
            before, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
            try:
                # Other threads may use the GPU meanwhile; that of a progress display, for example.
                with torch.cuda.graph(graph, stream=_stream(self.device), capture_error_mode="thread_local"):
                    left = work()
            finally:
                torch.cuda.set_stream(before)  # torch.cuda.graph does not where recording fails
        return left, graph.replay


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: for each stream that it has seen, cuBLAS keeps a workspace."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types
    return stream


def recorder_for_steps(x: torch.Tensor, processes: int) -> CudaRecorder | None:
    """The recorder for an optimiser's steps on x, wherever the network is; None where x is not on a GPU as a whole."""
    return CudaRecorder(x.device) if x.device.type == "cuda" and processes == 1 else None


def recorder_for(objective: Objective, x: torch.Tensor) -> CudaRecorder | None:
    """The recorder for evaluations at x; None where none are recorded: not on one GPU, or in several tiles."""
    devices = {x.device, *(layer.device for layer in objective.network.layers)}
    if len(devices) > 1 or x.device.type != "cuda" or len(objective.tiles) != 1 or objective.is_shared:
        return None
    return CudaRecorder(x.device)


def _reason(error: BaseException) -> str:
    """Why a recording broke: what CUDA says last only follows from the first error.

    The errors are kept by no variable of the caller's: their tracebacks hold the tensors of what was recorded.
    """
    while error.__context__ is not None:
        error = error.__context__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class Repeated(Generic[T]):
    """`work` as a call, recorded where there is a `recorder`. `notice` takes the line that says that it cannot be."""

    def __init__(
        self, work: Callable[[], T], recorder: Recorder | None, notice: Callable[[str], None]
    ) -> None:
        self.work, self.recorder, self.notice = work, recorder, notice
        self._calls = 0
        self._recorded: tuple[T, Callable[[], None]] | None = None

    def __call__(self) -> T:
        self._calls += 1
        if self._recorded is None and self.recorder is not None and self._calls >= WARM_UP:
            if self._calls == WARM_UP:
                left, waited = self.recorder.rehearse(self.work)
                if waited:
                    self._give_up("something in it waits for the GPU, as to read a number")
                return left
            try:
                self._recorded = self.recorder.record(self.work)
            except RuntimeError as error:
                self._give_up(_reason(error))
        if self._recorded is None:
            return self.work()
        left, replay = self._recorded
        replay()
        return left

    def _give_up(self, reason: str) -> None:
        self.recorder = None
        self.notice(f"No CUDA graph could be recorded, so that this run is slower: {reason}")

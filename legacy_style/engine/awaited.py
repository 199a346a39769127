"""Numbers that a device is still computing, to be read later: the host goes on and launches what comes next."""

from __future__ import annotations

import torch
from torch import Tensor


class Awaited:
    """A copy of `values`, one-dimensional, as they are once the device has done what was launched until now."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.device.type != "cuda":
            self._copy = values.clone()
            return
        # Memory that the device writes to by itself.
        self._copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._copy.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch gives it no types
        self._event.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """The numbers; waits for what was launched before them, and for nothing that came after."""
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._copy.tolist()
        return numbers

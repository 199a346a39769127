"""The memory of a GPU: what is there, and what a run does where it is not enough."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch

WORKSPACES = 500_000_000
"""Bytes for what cuDNN and cuBLAS take for themselves: a guess, not measured."""


@dataclass(frozen=True)
class Card:
    """What of a GPU's memory this process holds, and what it may grow to, that included; in bytes."""

    held: int
    available: int


def card(device: torch.device) -> Card:
    """The GPU as it is now."""
    free, _ = torch.cuda.mem_get_info(device)
    # What PyTorch has reserved but does not use is there for this process alone.
    return Card(torch.cuda.memory_allocated(device), free + torch.cuda.memory_reserved(device))


def give_back() -> None:
    """Give what is no longer used back to the GPUs, after an error whose traceback may still have held it."""
    gc.collect()
    torch.cuda.empty_cache()

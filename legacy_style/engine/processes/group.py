"""Several processes that work on one image: how they find each other, talk, and end together.

torchrun, or whoever else sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, starts the program once per
process; torch.distributed connects them, by gloo, and by nccl where tensors lie on GPUs. Notes: process 0
alone reads images, prints and saves; where a run fails, every process ends with an error of its own; a process
that dies breaks the connections of the others at once, one that hangs does so after LEGACY_STYLE_TIMEOUT.
"""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from legacy_style.engine import checkpoint
from legacy_style.errors import OptionError, RankError
from legacy_style.torch7.cmdline import tonumber

TIMEOUT = "LEGACY_STYLE_TIMEOUT"
"""Environment variable: seconds after which a process that does not answer is given up."""

_DEFAULT_TIMEOUT = 600.0
"""Several times what a process may be busy with while all others wait: an evaluation, or saving the image."""

_NEW = ".new"

_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Ranks:
    """The processes of this run. `rank`: this one's number; `local`: that on its machine, of `local_size`.

    Where there is only one, sums are what is summed, and nobody is there to talk to. Raises RankError where
    another process has died or does not answer.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0, local_size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.local, self.local_size = local, local_size
        self.device = torch.device("cpu")  # where sums are made: this process's GPU, if it has one

    def use(self, device: torch.device) -> None:
        """Take `device` as this process's own."""
        self.device = device
        if device.type == "cuda" and self.size > 1:
            torch.cuda.set_device(device)

    def all_reduce(self, tensors: list[Tensor]) -> list[Tensor]:
        """The sum of each tensor over all processes, float64; the same bits in every process."""
        if self.size == 1 or not tensors:
            return tensors
        flat = torch.cat([tensor.to(self.device, torch.float64).view(-1) for tensor in tensors])
        with _talking():
            dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [
            part.view(tensor.shape).to(tensor.device) for part, tensor in zip(parts, tensors, strict=True)
        ]

    def all_reduce_numbers(self, numbers: list[float]) -> list[float]:
        """The sum of each number over all processes."""
        if self.size == 1:
            return numbers
        sums: list[float] = self.all_reduce([torch.tensor(numbers, dtype=torch.float64)])[0].tolist()
        return sums

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        self.all_reduce_numbers([0.0])

    def broadcast(self, numbers: list[float]) -> list[float]:
        """The numbers of process 0, however many; those of the others do not matter."""
        if self.size == 1:
            return numbers
        with _talking():
            count = torch.tensor(len(numbers))
            dist.broadcast(count, 0)
            values = torch.zeros(int(count), dtype=torch.float64)
            if self.rank == 0:
                values.copy_(torch.tensor(numbers, dtype=torch.float64))
            dist.broadcast(values, 0)
        result: list[float] = values.tolist()
        return result

    def minimum(self, number: float) -> float:
        """The smallest of the numbers of all processes."""
        value = torch.tensor(number, dtype=torch.float64)
        if self.size > 1:
            with _talking():
                dist.all_reduce(value, dist.ReduceOp.MIN)
        return value.item()

    def send(self, tensor: Tensor, to: int) -> None:
        with _talking():
            dist.send(tensor.contiguous(), to)

    def receive(self, tensor: Tensor, source: int) -> Tensor:
        """`tensor`, filled with what `source` sends."""
        with _talking():
            dist.recv(tensor, source)
        return tensor

    def exchange(self, outgoing: Mapping[int, Tensor], incoming: Mapping[int, Tensor]) -> None:
        """Send and receive at once: contiguous tensors by the number of the other process."""
        talks = [dist.P2POp(dist.isend, tensor, peer) for peer, tensor in outgoing.items()]
        talks += [dist.P2POp(dist.irecv, tensor, peer) for peer, tensor in incoming.items()]
        if talks:
            with _talking():
                for talk in dist.batch_isend_irecv(talks):
                    talk.wait()


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those of the run, as long as the context lasts.

    Raises RankError where the others do not come, die, or do not answer; OptionError where the environment
    makes no sense. An error that leaves the context ends the run, for it breaks the connections of the others.
    """
    if not all(name in os.environ for name in _LAUNCHED) or os.environ["WORLD_SIZE"] == "1":
        yield Ranks()
        return
    timeout = _timeout()
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    ranks = Ranks(rank, size, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", size))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    with _talking():
        store = _store(timeout)
        dist.init_process_group(
            backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=timeout
        )
    try:
        yield ranks
    except BaseException as error:
        # What the failed calls still hold would keep the connections open.
        for failed in filter(None, (error, error.__cause__)):
            traceback.clear_frames(failed.__traceback__)
        raise
    finally:
        _leave()


@contextmanager
def _talking() -> Iterator[None]:
    """What torch.distributed raises where it cannot talk, as a RankError."""
    try:
        yield
    except RuntimeError as error:
        longer = 2 * _timeout().total_seconds()
        raise RankError(
            f"a connection between the processes of this run broke ({error}), because another one failed, died, or did"
            f" not answer in time; if it was only slow, give it more with {TIMEOUT}={longer:g}"
        ) from error


def _leave() -> None:
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


_times = iter(range(2**62))


def _store(timeout: timedelta) -> Any:
    """Where the processes find each other, with names of its own for every time that they join."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"legacy-style {attempt} {next(_times)}", _shared_store(timeout))


@lru_cache
def _shared_store(timeout: timedelta) -> Any:
    store: Any = next(rendezvous("env://", timeout=timeout))[0]
    return store


def _timeout() -> timedelta:
    text = os.environ.get(TIMEOUT, str(_DEFAULT_TIMEOUT))
    seconds = tonumber(text)
    if seconds is None or not 0 < seconds < math.inf:
        raise OptionError(f"{TIMEOUT}={text} is not a number of seconds; give for example {TIMEOUT}=600")
    return timedelta(seconds=seconds)


def _number(name: str, default: int = 0) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise OptionError(
            f"the environment variable {name} is {os.environ[name]!r}, not a number; torchrun sets it"
        ) from None


def write_together(ranks: Ranks, path: str, write: Callable[[str], None]) -> None:
    """`write` a file of which every process has a part; whenever they are killed, there is a whole one.

    All have either the old part and perhaps the new one, or the new one, perhaps under its first name.
    """
    if ranks.size == 1:
        write(path)
        return
    write(path + _NEW)
    ranks.barrier()
    Path(path + _NEW).replace(path)


def read_together(ranks: Ranks, path: str) -> dict[str, Any]:
    """A checkpoint, of whose parts every process has one: the latest that all processes have."""
    if ranks.size == 1:
        return checkpoint.read(path)
    names = [name for name in (path, path + _NEW) if Path(name).exists()] or [path]
    found = {content["calls"]: content for content in map(checkpoint.read, names)}
    latest = ranks.minimum(max(found))
    if latest not in found:
        raise OptionError(
            f"--resume {path}: its parts are not of one run: this one is of iteration {max(found)}, another"
            f" of {latest:.0f}; resume with as many processes as wrote it, on the same machines"
        )
    return found[int(latest)]

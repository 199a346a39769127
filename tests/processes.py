"""Several processes that share an image, as torchrun starts them, forked from one that has torch loaded."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "legacy_style.stylize"])


def together(size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[Any]:
    """What `function(*arguments)` returns in each of `size` processes, in order; fails where one fails."""
    port = free_port()
    running = []
    for rank in range(size):
        ours, theirs = _context.Pipe()
        process = _context.Process(target=_work, args=(theirs, rank, size, port, function, arguments))
        process.start()
        theirs.close()
        running.append((process, ours))
    try:
        answers = [pipe.recv() if pipe.poll(timeout) else (False, "no answer") for _, pipe in running]
    finally:
        for process, _ in running:
            process.kill()
            process.join()
    failures = [answer for good, answer in answers if not good]
    assert not failures, "\n".join(failures)
    return [answer for _, answer in answers]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun puts into the environment of a process."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LEGACY_STYLE_TIMEOUT": "60",
    }


def free_port() -> int:
    """A port that nobody uses, below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _work(
    pipe: Connection,
    rank: int,
    size: int,
    port: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(environment(rank, size, port))
    torch.set_num_threads(1)
    try:
        pipe.send((True, function(*arguments)))
    except BaseException:
        pipe.send((False, f"process {rank}: {traceback.format_exc()}"))

"""Several processes that share an image, as torchrun starts them, but forked from one that has torch loaded."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "legacy_style.programs.neural_style.story"])

DIED = "died"


def together(size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[Any]:
    """What `function(*arguments)` returns in each of `size` processes, in order, DIED where a process is killed.

    Fails where one raises an error or takes longer than `timeout` seconds.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    running = []
    for rank in range(size):
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(theirs, rank, size, store.port, function, arguments))
        process.start()
        theirs.close()
        running.append((process, ours))
    try:
        answers = [_answer(pipe, timeout) for _, pipe in running]
    finally:
        for process, _ in running:
            process.kill()
            process.join()
    failures = [answer for good, answer in answers if not good]
    assert not failures, "\n".join(failures)
    return [answer for _, answer in answers]


def _answer(pipe: Connection, timeout: float) -> tuple[bool, Any]:
    if not pipe.poll(timeout):
        return False, "no answer"
    try:
        answer: tuple[bool, Any] = pipe.recv()
    except EOFError:
        return True, DIED
    return answer


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun puts into the environment of a process."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "LEGACY_STYLE_TIMEOUT": "60",
    }


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

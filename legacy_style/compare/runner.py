"""Runs the rows of a manifest, several at a time, and goes on where a stopped comparison left off.

Each row is run, measured and judged in one process (rows.py). Progress goes through `tell`, never to a
stream. Worker processes leave SIGINT to this one, which ends them with SIGTERM; each saves what it has.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import FrameType
from typing import Any

from legacy_style.compare import rows
from legacy_style.compare.manifest import Manifest
from legacy_style.compare.rows import Files, RunSettings, Task, Tell
from legacy_style.compare.verdicts import Outcome
from legacy_style.engine import machine
from legacy_style.errors import OptionError


def run_manifest(manifest: Manifest, files: Files, settings: RunSettings, tell: Tell) -> list[Outcome]:
    """Run every row; the outcomes are in the manifest's order.

    Raises OptionError where a worker process dies; KeyboardInterrupt passes through. Either way what was
    finished is kept, and the same call goes on from there.
    """
    networks = [rows.identify(path, manifest) for path in settings.models]
    tasks = [rows.prepare(row, files, settings, networks) for row in manifest.rows]
    settings.work.mkdir(parents=True, exist_ok=True)
    if settings.jobs == 1:
        return [rows.run_task(task, tell) for task in tasks]
    return _in_processes(tasks, settings.jobs, tell)


# Of a worker process: where its ticks go, and whether it was told to end.
_queue: Any = None
_ending = False


def _in_processes(tasks: Sequence[Task], jobs: int, tell: Tell) -> list[Outcome]:
    context = multiprocessing.get_context("spawn")  # fork would copy OpenMP's threads half
    queue = context.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(queue, tell), daemon=True)
    listener.start()
    others = {*multiprocessing.active_children()}
    outcomes: dict[int, Outcome] = {}
    try:
        with _threads_shared_by(jobs):
            pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(queue,))
            with pool:
                futures = {pool.submit(_work, task): index for index, task in enumerate(tasks)}
                try:
                    for future in as_completed(futures):
                        outcomes[futures[future]] = future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    for worker in {*multiprocessing.active_children()} - others:
                        worker.terminate()
                    raise
    except BrokenProcessPool:
        raise OptionError(
            "a worker process died, perhaps for want of memory; run the same command again with fewer --jobs:"
            " what was finished is kept"
        ) from None
    finally:
        queue.put(None)
        listener.join(timeout=5)
    return [outcomes[index] for index in range(len(tasks))]


@contextlib.contextmanager
def _threads_shared_by(jobs: int) -> Iterator[None]:
    """The worker processes share the cores, unless OMP_NUM_THREADS says otherwise."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


def _listen(queue: Any, tell: Tell) -> None:
    while (tick := queue.get()) is not None:
        tell(tick)


def _start(queue: Any) -> None:
    global _queue
    _queue = queue
    machine.keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)


def _end(signum: int, frame: FrameType | None) -> None:
    """Interrupt the row that runs, which saves what it has, and start no other."""
    global _ending
    if not _ending:
        _ending = True
        raise KeyboardInterrupt


def _work(task: Task) -> Outcome:
    if _ending:
        raise KeyboardInterrupt
    return rows.run_task(task, _queue.put)

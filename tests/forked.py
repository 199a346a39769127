"""Python programs in processes of their own that need not load PyTorch anew, which takes seconds: they are forked from
a process that has loaded it.

`start` is subprocess.Popen for `python …`, with text in its pipes. A program has its own streams, folder, environment
and signals, and loads all of legacy_style itself. What is not its own: what environment variables say to Python and
to libraries while they are loaded, and that Python takes everything apart at its end. The tests of that start a Python.

Each program has a parent that waits for it, and writes its number and then its status into a pipe.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn

CHECKOUT = Path(__file__).parents[1]
LOADED = ("torch", "numpy", "PIL.Image", "PIL.ImageDraw", "click", "requests", "torch.distributed")
DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE


class Forked:
    """A program that runs; its methods are those of subprocess.Popen."""

    def __init__(self, order: dict[str, Any], streams: Sequence[int]) -> None:
        self.returncode: int | None = None
        pipes: list[IO[str] | None] = []
        theirs = []
        for number, stream in enumerate(streams):
            ours = None
            if stream == PIPE:
                read, write = os.pipe()
                end, stream = (write, read) if number == 0 else (read, write)
                ours = os.fdopen(end, "r" if number else "w")
            elif stream == DEVNULL:
                stream = os.open(os.devnull, os.O_RDWR)
            else:
                stream = os.dup(stream)
            pipes.append(ours)
            theirs.append(stream)
        self.stdin, self.stdout, self.stderr = pipes
        self._status, status = os.pipe()
        theirs.append(status)
        socket.send_fds(_server(), [json.dumps(order).encode()], theirs)
        for each in theirs:
            os.close(each)
        self._said = b""
        while b"\n" not in self._said:
            piece = os.read(self._status, 100)
            assert piece, "the server of programs has ended"
            self._said += piece
        self.pid = int(self._said.partition(b"\n")[0])

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for its end, as Popen does; end it where the test failed."""
        if error[0] is not None:
            self.kill()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.wait()
        if self._status >= 0:
            os.close(self._status)
            self._status = -1

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a forked program", timeout or 0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        while self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                return None
            piece = os.read(self._status, 100)
            self._said += piece
            if not piece:
                self.returncode = os.waitstatus_to_exitcode(int(self._said.split()[1]))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, given: str | None = None, timeout: float | None = None) -> tuple[Any, Any]:
        """All that it writes after `given`: (stdout, stderr), None for what is no pipe."""
        said: list[str | None] = [None, None]

        def read(place: int, pipe: IO[str]) -> None:
            with pipe:
                said[place] = pipe.read()

        readers = [
            threading.Thread(target=read, args=(place, pipe), daemon=True)
            for place, pipe in enumerate((self.stdout, self.stderr))
            if pipe is not None and not pipe.closed
        ]
        for each in readers:
            each.start()
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.write(given or "")
                self.stdin.close()
        for each in readers:
            each.join(timeout)
            if each.is_alive():
                raise subprocess.TimeoutExpired("a forked program", timeout or 0)
        self.wait(timeout)
        return said[0], said[1]


Running = Forked | subprocess.Popen[str]


def start(
    *words: str,
    cwd: str | Path | None = None,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    stderr: int = PIPE,
    anew: bool = sys.platform != "linux",
    **environment: str,
) -> Running:
    """`python words…` in `cwd`, on one thread, with `environment` over this process's own.

    `anew`: not forked, but a Python from its beginning to its end.
    """
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **environment}
    if anew:
        command, streams = [sys.executable, *words], {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen(command, cwd=cwd, env=variables, text=True, **streams)
    order = {"words": words, "cwd": str(cwd or Path.cwd()), "environment": variables}
    return Forked(order, (stdin, stdout, stderr))


def run(*words: str, **keywords: Any) -> subprocess.CompletedProcess[Any]:
    """What `start` starts, when it has ended."""
    with start(*words, **keywords) as program:
        out, err = program.communicate(timeout=60)
    return subprocess.CompletedProcess(words, program.wait(), out, err)


@functools.cache
def _server() -> socket.socket:
    """The connection to the process that forks; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"import forked; forked.serve({theirs.fileno()})()"
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(Path(__file__).parent)]),
        "PYTHONUNBUFFERED": "",
        # Threads would not be there after a fork.
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=variables,
        pass_fds=[theirs.fileno()],
        stdin=DEVNULL,
        stdout=DEVNULL,
        start_new_session=True,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve(connection: int) -> Callable[[], None]:
    """Fork for each order; returns what is left to do in the process that it is for, or sys.exit at the end."""
    for name in LOADED:
        __import__(name)
    gc.freeze()  # so that collecting garbage does not copy what the programs share
    orders = socket.socket(fileno=connection)
    while True:
        data, streams, _, _ = socket.recv_fds(orders, 1 << 20, 4)
        if not data:
            return sys.exit
        if os.fork() == 0:
            orders.close()
            return _parent(json.loads(data), streams)
        for each in streams:
            os.close(each)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _parent(order: dict[str, Any], streams: list[int]) -> Callable[[], None]:
    *streams, status = streams
    program = os.fork()
    if program == 0:
        os.close(status)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["environment"])
        return functools.partial(_run_and_end, order["words"])
    for each in [*streams, 0, 1, 2]:
        os.close(each)
    os.write(status, f"{program}\n".encode())
    os.write(status, str(os.waitpid(program, 0)[1]).encode())
    os._exit(0)


def _run_and_end(words: list[str]) -> NoReturn:
    """Run `python words…`, and end as Python does, but for the taking apart of all that was loaded."""
    status = 0
    try:
        _run(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    # As Python itself ends: it waits for threads, and typeshed does not know by what.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _run(words: list[str]) -> None:
    sys.path.remove(str(Path(__file__).parent))
    first, *rest = words
    if first == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif first == "-m":
        name, *rest = rest
        sys.argv = [name, *rest]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")

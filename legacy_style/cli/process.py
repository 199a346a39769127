"""What every entry point shares: its streams, its signals, and how each kind of end becomes an exit status.

Notes: file names that are no valid text are printed as the bytes that they are, as Lua does; a reader
that goes away ends the program silently with status 141, as SIGPIPE ended the original; SIGINT is taken even
where the shell set it to be ignored (a job in the background of a script), as LuaJIT takes it; control characters
in a file's name are printed as Python writes them, so that a line on stderr is one line.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from legacy_style.cli import hints
from legacy_style.errors import RankError, shortened
from legacy_style.programs.notices import why

FAILED = 1
BROKEN_PIPE = 141  # 128 + SIGPIPE, a shell's status for a program that wrote to nobody

# Those of ASCII and Latin-1, Unicode's two line ends, and what turns the direction of writing.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Interrupts:
    """While entered, the first SIGINT or SIGTERM raises KeyboardInterrupt in the main thread.

    Those after it do nothing, so that the image is saved in peace and the process ends with its own status.
    `signum` is that of the first, or 0. `saved`: the image that the program saved last, for what is said at its end.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.saved = ""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if not self.signum:
            self.signum = signum
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt again where it was swallowed (in a destructor, or by a module in C)."""
        if self.signum:
            raise KeyboardInterrupt


def run(
    program: Callable[[Interrupts], int],
    name: str,
    *,
    output: str = "-output_image",
    memory_advice: str = "choose a smaller image",
    unsaved: str = "no image was saved",
) -> int:
    """Call an entry point's body and return the exit status, having said in one line why it ended early.

    `name` stands before what is said on stderr; `output` is the option that names the result, if there is one,
    `memory_advice` what to do where there is not enough memory, and `unsaved` what an interrupted run without an
    image says of that. Errors that are nobody's fault but ours are not caught. After
    a signal this ends the process itself.
    """
    _choose_wait_policy()
    sys.stdout = _as_bytes(sys.stdout)
    sys.stderr = _as_bytes(sys.stderr)
    with Interrupts() as interrupts:
        try:
            status = program(interrupts)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            _abandon_streams()
            return BROKEN_PIPE
        except KeyboardInterrupt:
            return _interrupted(name, interrupts, unsaved)
        except RankError as error:
            # A signal, if there was one, came from torchrun, because of what this error is about.
            _tell(name, f"{error}; {_last(interrupts, unsaved)}")
            _abandon_streams()
            return FAILED
        except Exception as error:
            elsewhere = f"name another folder with {output}" if output else ""
            message = why(error, elsewhere=elsewhere, memory_advice=memory_advice)
            # A KeyboardInterrupt inside C code (a module that is being loaded) comes out as another error.
            if message is None and not interrupts.signum:
                raise
            if interrupts.signum:  # what failed is, as a rule, the saving of what there was
                return _interrupted(name, interrupts, message or unsaved)
            assert message is not None
            _tell(name, message)
            _abandon_streams()
            return FAILED


def run_argparse(
    program: Callable[[Sequence[str], Interrupts], int],
    words: Sequence[str] | None,
    name: str,
    *,
    output: str,
    memory_advice: str,
) -> int:
    """`run` for a program whose `words` (None: the process's own) argparse reads, with a hint after a usage error."""
    given = sys.argv[1:] if words is None else list(words)
    try:
        return run(partial(program, given), name, output=output, memory_advice=memory_advice)
    except SystemExit as end:  # argparse, after --help or a usage error
        if end.code and (hint := hints.of_words(given)):
            say(name, hint)
        return end.code if isinstance(end.code, int) else FAILED


def _choose_wait_policy() -> None:
    """Let OpenMP's threads sleep while they wait: spinning, they burn the cores that other processes need.

    It is read when torch is loaded, so that a process that has done so keeps its own, as one whose user chose does.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _interrupted(name: str, interrupts: Interrupts, unsaved: str) -> int:
    what = "terminated" if interrupts.signum == signal.SIGTERM else "interrupted"
    _tell(name, "; ".join(filter(None, (what, _last(interrupts, unsaved)))))
    _abandon_streams()
    if interrupts.signum:
        # Not by way of Python's own exit: where a KeyboardInterrupt has passed through an exec (dataclasses
        # use it while torch is loaded), Python ends by killing itself with SIGINT, whatever the status.
        os._exit(128 + interrupts.signum)
    return 128 + signal.SIGINT


def _last(interrupts: Interrupts, unsaved: str) -> str:
    return f"the last image that was saved is {interrupts.saved}" if interrupts.saved else unsaved


def _tell(name: str, message: str) -> None:
    """Why the program ends, with a hint; of several processes, each says its number."""
    hint = hints.of_message(message)
    number = f"process {os.environ.get('RANK')}: " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    say(name, f"{number}{message}; {hint}" if hint else f"{number}{message}")


def say(name: str, message: str) -> None:
    """One line to stderr, whatever is in `message`: what the program `name` has to say."""
    try:
        print(f"{name}: {plain(shortened(message))}", file=sys.stderr, flush=True)
    except OSError:
        _abandon_streams()


def echo(line: str, *, err: bool = False) -> None:
    """One line to stdout, or to stderr, whatever is in `line`: what a command of ours found."""
    print(plain(line), file=sys.stderr if err else sys.stdout, flush=True)


def plain(text: str) -> str:
    """`text` with control characters written out: they would break the line, or tell the terminal what to do."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _as_bytes(stream: TextIO | None) -> TextIO:
    """The stream, made to write any file name as the bytes that it is; one that goes nowhere for None."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape", newline="\n")
    return stream


def _abandon_streams() -> None:
    """Send what is left in the streams nowhere, lest Python complain about it while it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)

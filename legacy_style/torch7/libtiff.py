"""What libtiff says while Pillow decodes a TIFF, which says no more than an error number.

libtiff writes its errors to stderr, unless it has another handler for them: a C function that gets the name of a
module or file, a format, and what belongs into it. Notes: the handler is the process's, but it is called in the thread
that decodes, so that each thread hears its own. One thread at a time sets it: of two, the second could put back what
the first had taken away. Where libtiff is built into Pillow's module (on Windows), it cannot be reached, and what it
says stays on stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

from PIL import _imaging

# void handler(const char *module, const char *format, va_list), whose last one is, or is passed as, a pointer.
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_LONGEST = 1024  # bytes of a line

_listening = threading.RLock()


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """The lines that libtiff has for this thread in the block, which one thread at a time is in."""
    with _listening:
        yield from _heard()


def _heard() -> Iterator[list[str]]:
    lines: list[str] = []
    try:
        # A symbol is looked for in the libraries that the module was linked with, too.
        library = ctypes.CDLL(_imaging.__file__)
        set_handler, vsnprintf = library.TIFFSetErrorHandler, library.vsnprintf
    except (OSError, AttributeError):
        yield lines
        return
    set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
    vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)
    mine = threading.get_ident()
    before: int | None = None

    def hear(module: bytes | None, form: bytes, values: int | None) -> None:
        if threading.get_ident() != mine:
            if before:
                _Handler(before)(module, form, values)
            return
        line = ctypes.create_string_buffer(_LONGEST)
        vsnprintf(line, _LONGEST, form, values)
        where = f"{module.decode(errors='replace')}: " if module else ""
        lines.append(where + line.value.decode(errors="replace"))

    handler = _Handler(hear)  # which must be there as long as libtiff may call it
    before = set_handler(ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield lines
    finally:
        set_handler(before)

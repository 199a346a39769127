"""Files that appear whole or not at all, why one does not, and checksums: the one atomic write, the one SHA-256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends without an error.

    It is a temporary file in the same folder until then, and is deleted if anything goes wrong. A symbolic link is
    followed and stays; permissions of an existing file are kept, a new one gets those of a plain write; the content is
    on the disk before the name changes. A device or a pipe is written to directly, for it cannot be replaced. Raises
    OSError as plain writing would, whose `filename` is `path`.
    """
    target = Path(os.path.realpath(path))
    # Always the same name: what a killed process leaves behind, the next one overwrites.
    temporary = target.parent / f".{target.name}.part"
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file
            return
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o7777)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        # The system names the temporary file, or, where a disk is full, none.
        if error.filename is None or Path(os.fsdecode(error.filename)) in (target, temporary):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    except RuntimeError as error:
        # What torch.save makes of a full disk; its cause says it better.
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, os.fspath(path)) from error


def reason(error: OSError, elsewhere: str = "choose another place") -> str:
    """Why a file could not be written, in words; where the disk is full, also what to do, `elsewhere` being one way."""
    said = error.strerror or str(error)
    if error.errno not in _FULL:
        return said
    return f"{said}; free some space{f', or {elsewhere}' if elsewhere else ''}"


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], file: BinaryIO | None = None) -> Iterator[BinaryIO]:
    """The file at `path` from its beginning: `file` where it is open already, so that what was checked is what is read.

    Raises OSError where it cannot be opened.
    """
    if file is not None:
        file.seek(0)
        yield file
        return
    with Path(path).open("rb") as opened:
        yield opened


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk too, where the system can open folders (Windows cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Fetch model files: resumed, retried, and never under their name before they are right.

Notes: bytes go to `NAME.part`, which stays when a download is cut off, is continued by the next one, and becomes
`NAME` only once the checksums fit. A file without a published checksum is always fetched from its beginning, since
nothing shows that two halves belong together. Proxies, certificates and redirects are left to requests (HTTPS_PROXY,
REQUESTS_CA_BUNDLE and so on).
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import requests
import urllib3

from legacy_style import files
from legacy_style.errors import ChecksumError, DownloadError
from legacy_style.toolkit import known_files
from legacy_style.toolkit.known_files import (
    Digests,
    Entry,
    find_by_checksum,
    measure,
    measure_stream,
    registry,
)

__all__ = [
    "DownloadError",
    "Entry",
    "Fetched",
    "Patience",
    "adopt",
    "fetch",
    "find_by_checksum",
    "measure",
    "registry",
]

_BLOCK = 1 << 16
_HEAD = 512  # bytes by which a web page is told from a model
_MOST = 4 << 30  # bytes of a file whose length was not published; the largest known model has 0.6 GB

Notice = Callable[[str], None]
OnProgress = Callable[[int, "int | None"], None]  # bytes so far, bytes in all where that is known


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds, and how often to try one address when nothing more comes from it."""

    attempts: int = 5  # two if there is no server at all
    pause: float = 1.0  # before the second attempt, then doubled
    longest_pause: float = 60.0
    connect: float = 15.0
    read: float = 60.0  # without a byte


@dataclass(frozen=True)
class Fetched:
    """A file that is in its place and was checked."""

    entry: Entry
    path: Path
    digests: Digests
    source: str  # the address or file that it came from; "" if it was there already
    recorded: bool = False  # whether NAME.sha256 was written, there being no published SHA-256


class _TryAgain(Exception):
    """The transfer failed in a way that may pass."""

    def __init__(self, why: str, *, after: float = 0.0, reached: bool = True) -> None:
        super().__init__(why)
        self.after = after  # seconds that the server asks to wait
        self.reached = reached  # whether there was a server at all


class _Refused(Exception):
    """This address will not give the file."""


@dataclass
class _Transfer:
    """One file on its way: what is asked of every address in turn."""

    entry: Entry
    part: Path
    session: requests.Session
    patience: Patience
    notice: Notice
    on_progress: OnProgress
    most: int  # bytes that the file may have
    total: int | None = None  # the file's length, as published or as the server said
    whole: bool = False  # whether the part is one response whose end was announced

    def have(self) -> int:
        """The bytes that are here and may be continued."""
        return self.part.stat().st_size if self.entry.pinned and self.part.exists() else 0

    def drop(self) -> None:
        self.part.unlink(missing_ok=True)


def fetch(
    entry: Entry,
    folder: Path,
    *,
    patience: Patience = Patience(),
    notice: Notice = lambda line: None,
    on_progress: OnProgress = lambda done, total: None,
    force: bool = False,
    most: int = _MOST,
) -> Fetched:
    """Has the entry's file in `folder`, checked, downloading it where needed.

    A file that is there is checked and kept; `force` replaces it. `most`: bytes that it may have where its length was
    not published. Raises ChecksumError if that file or what
    an address sent is another file, DownloadError if no address gave it. What came of it stays in NAME.part.
    """
    path = folder / entry.name
    if path.exists() and not force:
        return verify(entry, folder)
    if entry.inside:
        return _unpack(entry, folder, patience=patience, notice=notice, on_progress=on_progress)
    if not entry.urls:
        raise DownloadError(f"{entry.name} is not offered for download: {entry.notes}. See {entry.page}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session:
        part = folder / f"{entry.name}.part"
        transfer = _Transfer(entry, part, session, patience, notice, on_progress, entry.bytes or most)
        digests, url = _from_any(transfer, folder)
    transfer.part.replace(path)
    return Fetched(entry, path, digests, url, known_files.record(entry, folder, digests))


def verify(entry: Entry, folder: Path) -> Fetched:
    """Checks the entry's file in `folder` against what was published, or recorded here; raises ChecksumError.

    Where neither says anything, the file is taken for right and its SHA-256 is recorded.
    """
    path = folder / entry.name
    digests = measure(path)
    known_files.check(entry, path, digests, folder)
    return Fetched(entry, path, digests, "", known_files.record(entry, folder, digests))


def adopt(source: Path, folder: Path, entry: Entry | None = None) -> Fetched:
    """Checks a file that was got by other means and copies it into `folder` under the entry's name.

    Without an entry the file is recognised by its checksums. Raises ChecksumError if it is another file.
    """
    if entry is None:
        digests = measure(source)
        entry = find_by_checksum(digests)
        if entry is None:
            what = known_files.describe(source, digests)
            raise ChecksumError(f"{source}: no file of the registry has sha256 {digests.sha256}. {what}")
    path = folder / entry.name
    if path.exists() and path.samefile(source):
        return replace(verify(entry, folder), source=str(source))
    path.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file, files.replacing(path) as copy:
        head = file.read(_HEAD)
        file.seek(0)
        digests = measure_stream(file, copy.write)  # of what is copied: the source may change meanwhile
        known_files.check(entry, source, digests, folder)
        if foreign := known_files.unfit(entry, head):
            raise ChecksumError(f"{source}: not {entry.name}. {foreign}")
    return Fetched(entry, path, digests, str(source), known_files.record(entry, folder, digests))


def _unpack(
    entry: Entry, folder: Path, *, patience: Patience, notice: Notice, on_progress: OnProgress
) -> Fetched:
    """Fetches the archive that holds the entry's file and takes it out."""
    archive = known_files.find(entry.inside)
    assert archive is not None, entry
    whole = fetch(archive, folder, patience=patience, notice=notice, on_progress=on_progress)
    path = folder / entry.name
    try:
        with tarfile.open(whole.path) as tar:
            member = next(
                (item for item in tar if item.isfile() and Path(item.name).name == entry.name), None
            )
            stream = tar.extractfile(member) if member else None
            if stream is None:
                raise DownloadError(f"{whole.path}: holds no {entry.name}")
            with stream, files.replacing(path) as file:
                digests = measure_stream(stream, file.write)
                known_files.check(entry, path, digests, folder)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ChecksumError(f"{whole.path}: not a readable archive ({error})") from error
    return Fetched(entry, path, digests, str(whole.path), known_files.record(entry, folder, digests))


def _from_any(transfer: _Transfer, folder: Path) -> tuple[Digests, str]:
    """Tries every address in turn; the checksums of the part, which is right, and where it came from."""
    refusals: list[str] = []
    wrong_file = False
    for url in transfer.entry.urls:
        if refusals:
            transfer.notice(f"{transfer.entry.name}: trying {url}")
        try:
            return _from_address(transfer, url, folder), url
        except ChecksumError as error:
            wrong_file = True
            reason = str(error)
        except _Refused as error:
            reason = str(error)
        except OSError as error:
            raise DownloadError(f"{transfer.part}: cannot be written: {files.reason(error)}") from error
        refusals.append(f"{url}: {reason}")
    kept = transfer.have()
    message = f"{transfer.entry.name}: no address gave the file: {'; '.join(refusals)}"
    if kept:
        message += f"; {transfer.part} keeps {kept} bytes; the same command continues there"
    message += f"; a file got elsewhere (see {transfer.entry.page}) is taken with --from-file"
    raise ChecksumError(message) if wrong_file else DownloadError(message)


def _from_address(transfer: _Transfer, url: str, folder: Path) -> Digests:
    """Asks one address until the file is complete and right.

    An attempt that brought at least a hundredth of the file (1 MiB where its length is unknown) starts the
    count of failures anew, so a poor connection ends where the file does.
    """
    failures, most, afresh = 0, transfer.have(), False
    while True:
        try:
            transfer.whole = False
            _receive(transfer, url)
        except _TryAgain as error:
            have = transfer.have()
            worthwhile = (transfer.total or 100 << 20) // 100
            failures = 0 if have - most > worthwhile else failures + 1
            most = max(most, have)
            if failures >= (transfer.patience.attempts if error.reached else 2):
                if have and (digests := _right(transfer, folder)):
                    return digests  # all was there, and the server was wrong about the length
                raise _Refused(f"{error}, {failures} times in a row") from error
            pause = transfer.patience.pause * 2 ** max(failures - 1, 0)
            pause = min(max(pause, error.after), transfer.patience.longest_pause)
            name = transfer.entry.name
            transfer.notice(f"{name}: {error}; next attempt in {pause:.3g} s, from byte {have}")
            time.sleep(pause)
            continue
        digests = measure(transfer.part)
        try:
            known_files.check(transfer.entry, transfer.part, digests, folder)
        except ChecksumError as error:
            transfer.drop()
            if afresh or transfer.whole:
                raise
            transfer.notice(f"{url}: {error}; starting afresh")
            afresh, most = True, 0
        else:
            return digests


def _right(transfer: _Transfer, folder: Path) -> Digests | None:
    """The part's checksums if they are the published ones."""
    digests = measure(transfer.part)
    try:
        known_files.check(transfer.entry, transfer.part, digests, folder)
    except ChecksumError:
        return None
    return digests


def _receive(transfer: _Transfer, url: str) -> None:
    """One request for what is missing, appended to the part; returns once the part is complete."""
    offset = transfer.have()
    expected = transfer.entry.bytes
    if expected is not None and offset == expected:
        return
    if expected is not None and offset > expected:
        transfer.drop()
        offset = 0
    headers = {"Accept-Encoding": "identity"}  # ranges count the bytes sent, and models do not compress
    if offset:
        headers["Range"] = f"bytes={offset}-"
    timeout = (transfer.patience.connect, transfer.patience.read)
    try:
        with transfer.session.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if response.status_code == 416 and offset:
                return  # the server's file ends where the part does, or it is another one: checksums tell
            start = _start(transfer, response, offset)
            announced = _announced(transfer, response, start)
            _store(transfer, response, start)
            transfer.whole = start == 0 and announced
    except (
        requests.ConnectionError,
        requests.Timeout,
        urllib3.exceptions.HTTPError,
    ) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = "REQUESTS_CA_BUNDLE names a file of further certificates to trust"
            raise _Refused(f"{_plain(error)}; {hint}") from error
        if expected is None or transfer.have() != expected:
            reached = not isinstance(error.args[0] if error.args else None, urllib3.exceptions.MaxRetryError)
            raise _TryAgain(_plain(error), reached=reached) from error
    except requests.RequestException as error:
        raise _Refused(_plain(error)) from error


def _start(transfer: _Transfer, response: requests.Response, offset: int) -> int:
    """The byte at which the response's body begins; raises if it holds no part of the file."""
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _TryAgain(f"HTTP {status} {response.reason}", after=float(wait) if wait.isdecimal() else 0.0)
    if status == 416:
        transfer.drop()
        raise _TryAgain("the server has no such range")
    if status == 206:
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) > offset:
            transfer.drop()
            raise _TryAgain(f"asked from byte {offset}, got {response.headers.get('Content-Range')!r}")
        return int(found[1])
    if status != 200:
        raise _Refused(f"HTTP {status} {response.reason}")
    if offset:
        transfer.notice(f"{response.url}: sends the file from its beginning")
    return 0


def _announced(transfer: _Transfer, response: requests.Response, start: int) -> bool:
    """Notes the file's length; whether the server said how long it is."""
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    total = start + int(length) if length.isdecimal() and not encoded else None
    if found := re.search(r"/(\d+)$", response.headers.get("Content-Range", "")):
        total = int(found[1])
    expected = transfer.entry.bytes
    if expected is not None and total not in (None, expected):
        transfer.notice(f"{response.url}: says that the file has {total} bytes, expected {expected}")
    transfer.total = total if expected is None else expected
    return total is not None


def _store(transfer: _Transfer, response: requests.Response, start: int) -> None:
    """Writes the body to the part from byte `start`, up to the published length; raises if it ends early."""
    total, have = transfer.total, start
    if total is not None and total > transfer.most:
        raise _Refused(_too_long(transfer, total))
    if total is not None and (room := shutil.disk_usage(transfer.part.parent).free) < total - start:
        raise DownloadError(f"{transfer.part}: needs {total - start} bytes more, the disk has {room}")
    blocks, head = _blocks(response), b""
    if start == 0:  # nothing of an earlier part is given up for a web page
        while len(head) < _HEAD and (block := next(blocks, b"")):
            head += block
        if total and not head:
            raise _TryAgain(f"sent 0 of {total} bytes")
        if foreign := known_files.unfit(transfer.entry, head):
            kind = response.headers.get("Content-Type", "no type")
            raise _Refused(f"sent no model. {foreign} ({kind}, from {response.url})")
    with transfer.part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        for block in chain((head,), blocks):
            file.write(block[: transfer.entry.bytes - have] if transfer.entry.bytes else block)
            have = file.tell()
            if have > transfer.most:
                break
            transfer.on_progress(have, total)
            if have == transfer.entry.bytes:  # a server that announced more would keep us waiting
                break
        file.flush()
        os.fsync(file.fileno())
    if have > transfer.most:
        transfer.drop()
        raise _Refused(_too_long(transfer, have))
    if total is not None and have < total:
        raise _TryAgain(f"sent {have} of {total} bytes")


def _too_long(transfer: _Transfer, length: int) -> str:
    return f"sends {length} bytes or more, and at most {transfer.most} are taken of a file of unknown length"


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes in.

    `iter_content` would wait for full blocks, and lose what a cut connection had brought of the last one.
    """
    read = getattr(response.raw, "read1", response.raw.read)  # urllib3 before 2.1 has no read1
    while block := read(_BLOCK, decode_content=True):
        yield block


def _plain(error: Exception) -> str:
    """The cause of a failed request in one line."""
    cause: BaseException = error
    while inner := [
        item for item in (*cause.args, getattr(cause, "reason", 0)) if isinstance(item, Exception)
    ]:
        cause = inner[-1]
    sentence = re.sub(r"^\w+\(host=.*?\): ", "", str(cause))
    return f"{type(cause).__name__}: {sentence}"

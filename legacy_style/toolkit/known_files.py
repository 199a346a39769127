"""The model files that this program knows, by models/registry.json, and what a file turns out to be.

Notes: an entry may pin a SHA-256, a SHA-1, an MD5, only the first digits of a SHA-256, or nothing, since
that is what was published. Where no full SHA-256 is pinned, the first file that was accepted leaves its own
in `NAME.sha256` beside it (in sha256sum's format), and later files of that name are held to it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from legacy_style.errors import ChecksumError, FormatError
from legacy_style.files import write_whole

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One file of the registry; checksums in lower-case hexadecimal, "" where none was published."""

    name: str  # with the folder under models/, where the program that uses it looks there
    purpose: str
    author: str
    licence: str
    page: str  # the web page that offers or describes it
    checksum_source: str  # who published the checksums, or that nobody did
    bytes: int | None = None
    sha256: str = ""
    sha256_begins: str = ""  # the first digits, where only those were published
    sha1: str = ""
    md5: str = ""
    urls: tuple[str, ...] = ()  # in the order in which to try them
    inside: str = ""  # the entry of the archive that holds this file, where it is not offered by itself
    notes: str = ""

    @property
    def pinned(self) -> bool:
        """Whether any checksum was published."""
        return bool(self.sha256 or self.sha256_begins or self.sha1 or self.md5)


@dataclass(frozen=True)
class Digests:
    """A file's length and checksums, in lower-case hexadecimal."""

    bytes: int
    md5: str
    sha1: str
    sha256: str


@functools.lru_cache(maxsize=1)
def registry() -> list[Entry]:
    """Every entry of models/registry.json, in its order."""
    path = registry_path()
    listed = json.loads(path.read_text(encoding="utf-8"))["files"]
    return [Entry(**{**fields, "urls": tuple(fields.get("urls", ()))}) for fields in listed]


def registry_path() -> Path:
    """models/registry.json: inside the installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    folder = package / "models"
    return (folder if folder.is_dir() else package.parent / "models") / "registry.json"


def find(name: str) -> Entry | None:
    """The entry called `name`."""
    return next((entry for entry in registry() if entry.name == name), None)


def find_by_checksum(digests: Digests) -> Entry | None:
    """The entry whose published checksums are a file's own, whatever the file is called."""
    return next((entry for entry in registry() if entry.pinned and not _differences(entry, digests)), None)


def measure(path: str | os.PathLike[str]) -> Digests:
    """Reads a file once for all its checksums."""
    with Path(path).open("rb") as file:
        return measure_stream(file)


def measure_stream(file: IO[bytes], copy: Callable[[bytes], object] = lambda block: None) -> Digests:
    """The checksums of all that is left in `file`; `copy` gets every block of it."""
    md5 = hashlib.md5(usedforsecurity=False)
    sha1 = hashlib.sha1(usedforsecurity=False)
    sha256 = hashlib.sha256()
    size = 0
    while block := file.read(_CHUNK):
        size += len(block)
        for digest in (md5, sha1, sha256):
            digest.update(block)
        copy(block)
    return Digests(size, md5.hexdigest(), sha1.hexdigest(), sha256.hexdigest())


def check(entry: Entry, path: Path, digests: Digests, folder: Path) -> None:
    """Raises ChecksumError unless the file at `path` is the entry's.

    `folder` is where the entry's own file lies or will lie: what an earlier one left there in NAME.sha256
    counts where no full SHA-256 was published.
    """
    wrong = _differences(entry, digests)
    earlier = recorded(entry, folder)
    if not wrong and earlier and earlier != digests.sha256:
        wrong = [f"sha256 {digests.sha256}, the first one here had {earlier} ({entry.name}.sha256)"]
    if wrong:
        raise ChecksumError(f"{path}: not {entry.name}: {'; '.join(wrong)}. {describe(path, digests)}")


def _differences(entry: Entry, digests: Digests) -> list[str]:
    wrong = []
    if entry.bytes is not None and entry.bytes != digests.bytes:
        wrong.append(f"{digests.bytes} bytes, expected {entry.bytes}")
    for kind in ("sha256", "sha1", "md5"):
        expected, found = getattr(entry, kind), getattr(digests, kind)
        if expected and expected != found:
            wrong.append(f"{kind} {found}, expected {expected}")
            break
    if not digests.sha256.startswith(entry.sha256_begins):
        wrong.append(f"sha256 {digests.sha256}, expected one that begins with {entry.sha256_begins}")
    return wrong


def describe(path: Path, digests: Digests) -> str:
    """What a wrong file is, as far as can be told: another known file, a web page, or its first bytes."""
    other = find_by_checksum(digests)
    if other:
        return f"It is {other.name} ({other.purpose})"
    with path.open("rb") as file:
        start = file.read(512)
    return describe_start(start) or f"It begins with {start[:32]!r}"


def unfit(entry: Entry, start: bytes) -> str:
    """A sentence on why a file that begins so cannot be the entry's; "" where it may be.

    A web page never is; where no checksum will tell later, neither is any text, since models are binary.
    """
    sentence = describe_start(start)
    if not sentence and not entry.pinned and b"\0" not in start and start.isascii():
        sentence = f"It is text: {_shown(start)}"
    return sentence


def describe_start(start: bytes) -> str:
    """A sentence on what is surely no model, from a file's first bytes; "" where it may be one."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb"<(!doctype|!--|html|head|body|script|\?xml)", text, re.IGNORECASE):
        return f"It is a web page: {_shown(text)}"
    if text.startswith(b"version https://git-lfs"):
        return "It is a git-lfs pointer, not the file that it points to"
    if re.match(rb"[{\[]\s*[\"{\[]", text):
        return f"It is a JSON answer: {_shown(text)}"
    return "" if start else "It is empty"


def _shown(text: bytes) -> str:
    return " ".join(text[:120].decode("utf-8", "replace").split())


def recorded(entry: Entry, folder: Path) -> str:
    """The SHA-256 that the first accepted file left beside it; "" if there is none, or one was published."""
    note = folder / f"{entry.name}.sha256"
    if entry.sha256 or not note.is_file():
        return ""
    digits = note.read_text(encoding="utf-8", errors="replace").split(maxsplit=1)[:1]
    if not digits or len(digits[0]) != 64 or set(digits[0]) - set("0123456789abcdef"):
        raise FormatError(
            f"{note}: expected 64 hexadecimal digits and a name; delete it to have it written again"
        )
    return digits[0]


def record(entry: Entry, folder: Path, digests: Digests) -> bool:
    """Writes NAME.sha256 where no full SHA-256 was published and none was recorded; whether it did."""
    if entry.sha256 or recorded(entry, folder):
        return False
    write_whole(folder / f"{entry.name}.sha256", f"{digests.sha256}  {Path(entry.name).name}\n".encode())
    return True

"""How a picture was made, kept with the picture: a JSON file beside it, and text chunks inside a PNG.

Notes: the chunks are put into the finished file, in front of its pixel data, which stays as it is
byte for byte. A run of many evaluations keeps only some of its losses, so that every reader still takes
the chunk (Pillow's limit is 1 MiB). By default nothing is written: the files of an old command line are
those of the original.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import legacy_style
from legacy_style import __version__
from legacy_style.errors import FormatError
from legacy_style.files import sha256, write_whole

FORMAT = "legacy-style result 1"

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 2**24  # bytes; nothing that was written here comes near
_KEYWORD = "legacy-style"  # of the chunk that holds the whole record as JSON
_KEYWORDS = ("Software", "Comment", _KEYWORD)
_PACKAGE = Path(legacy_style.__file__).parent
_PACKAGES = ("torch", "numpy", "scipy", "pillow")
_KEPT_EVALUATIONS = 5000
_DIGITS = 9  # of a loss

Record = dict[str, Any]


class LossesLike(Protocol):
    """What `stylize.Losses` has: weighted as printed."""

    @property
    def content(self) -> tuple[float, ...]: ...
    @property
    def style(self) -> tuple[float, ...]: ...
    @property
    def total(self) -> float: ...


def describe(
    options: Any,
    *,
    command: Sequence[str],
    model: str | os.PathLike[str],
    losses: Sequence[LossesLike],
    inputs: Sequence[str | os.PathLike[str]] = (),
    seconds: float | None = None,
) -> Record:
    """Everything that made a picture, as JSON can hold it.

    `options`: the effective `Options`; `command`: argv, for people to run again; `model`: the file that
    the network was read from; `inputs`: the images that were read; `losses`: one per evaluation, of
    which the first, the last and about 5000 between are kept, `evaluation` counting from 1.
    """
    return {
        "format": FORMAT,
        "command": list(command),
        "options": {name: _plain(value) for name, value in dataclasses.asdict(options).items()},
        "versions": versions(),
        "model": {"file": Path(model).name, "sha256": sha256(model)},
        "inputs": {os.fspath(path): sha256(path) for path in inputs},
        "seconds": seconds,
        "losses": losses_over_time(losses),
    }


def losses_over_time(losses: Sequence[LossesLike]) -> dict[str, Any]:
    """The losses of a run, one per evaluation, as a record has them."""
    step = -(-len(losses) // _KEPT_EVALUATIONS) or 1
    kept = sorted({*range(0, len(losses), step), *range(len(losses))[-1:]})
    return {
        "evaluation": [index + 1 for index in kept],
        "content": [[_short(loss) for loss in losses[index].content] for index in kept],
        "style": [[_short(loss) for loss in losses[index].style] for index in kept],
        "total": [_short(losses[index].total) for index in kept],
    }


def _plain(value: Any) -> Any:
    """What JSON can hold: infinity and nan, for which it has nothing, as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """The versions that a result depends on; `code` is a digest of this package's own source."""
    sources = sorted(_PACKAGE.rglob("*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    found = {"legacy-style": __version__, "code": code, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def attach(picture: str | os.PathLike[str], record: Record, *, chunks: bool = True) -> Path:
    """Write the record beside `picture`, and with `chunks` into a PNG; gives the sidecar's path.

    The sidecar says of which picture it is (`picture`, the SHA-256 of the file).
    """
    path = Path(picture)
    data = path.read_bytes()
    if chunks and data.startswith(_PNG_MAGIC):
        data = annotate_png(data, text_chunks(record))
        write_whole(path, data)
    sidecar = sidecar_path(path)
    told = record | {"picture": hashlib.sha256(data).hexdigest()}
    write_whole(sidecar, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
    return sidecar


def sidecar_path(picture: str | os.PathLike[str]) -> Path:
    """`out.png.json` beside `out.png`."""
    path = Path(picture)
    return path.with_name(path.name + ".json")


def read(picture: str | os.PathLike[str]) -> Record | None:
    """The record of a picture, from the sidecar or else from its chunks; None where there is neither.

    A sidecar that is of another picture does not count where there are chunks. Raises FormatError where nothing else is
    there, or something that is no such record.
    """
    path = Path(picture)
    sidecar, data = sidecar_path(path), path.read_bytes()
    stale = False
    with contextlib.suppress(FileNotFoundError):
        record = parse(sidecar.read_bytes(), str(sidecar))
        stale = record.pop("picture", None) not in (None, hashlib.sha256(data).hexdigest())
        if not stale:
            return record
    text = read_png(data).get(_KEYWORD)
    if text is not None:
        return parse(text.encode(), f"{path}, chunk {_KEYWORD}")
    if stale:
        raise FormatError(
            f"{sidecar}: the record of another picture than {path.name}, which was changed or made again without"
            " --metadata; delete the record, or make the picture again with it"
        )
    return None


def parse(data: bytes, where: str) -> Record:
    """JSON to a record, or FormatError."""
    try:
        record = json.loads(data)
    except ValueError as error:
        raise FormatError(f"{where}: not JSON ({error}); delete it and run the command again") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise FormatError(f"{where}: not the record of a result (expected the format {FORMAT!r})")
    return record


def text_chunks(record: Record) -> dict[str, str]:
    """Keyword -> text: PNG's own Software, what people look for (command, model), and the whole record."""
    texts = (
        f"legacy-style {record['versions']['legacy-style']}",
        shlex.join(record["command"]),
        json.dumps(record, ensure_ascii=False, separators=(",", ":")),
    )
    return dict(zip(_KEYWORDS, texts, strict=True))


def annotate_png(data: bytes, text: Mapping[str, str]) -> bytes:
    """A PNG file with international text chunks added in front of its first IDAT chunk; all else is kept.

    Raises FormatError where `data` is no PNG.
    """
    added = b"".join(_itxt(keyword, value) for keyword, value in text.items())
    for kind, start, _end in _chunks(data):
        if kind == b"IDAT":
            return data[:start] + added + data[start:]
    raise FormatError("a PNG without pixel data (no IDAT chunk) cannot carry text")


def read_png(data: bytes) -> dict[str, str]:
    """Keyword -> text of the chunks that `annotate_png` writes; {} where there are none, or no PNG."""
    if not data.startswith(_PNG_MAGIC):
        return {}
    found = {}
    for kind, start, end in _chunks(data):
        keyword, _, rest = data[start + 8 : end - 4].partition(b"\0")
        if kind == b"iTXt" and keyword.decode("latin-1") in _KEYWORDS:
            try:
                found[keyword.decode("latin-1")] = _text(rest)
            except (IndexError, ValueError, zlib.error) as error:
                raise FormatError(f"a broken iTXt chunk (byte {start}): {error}") from None
    return found


def _text(rest: bytes) -> str:
    """The text of an iTXt chunk from what follows its keyword."""
    packed, (_language, _translated, text) = rest[0], rest[2:].split(b"\0", 2)
    if packed:
        inflate = zlib.decompressobj()
        text = inflate.decompress(text, MAX_TEXT)
        if inflate.unconsumed_tail or not inflate.eof:
            raise ValueError(f"it breaks off, or holds more than {MAX_TEXT} bytes")
    return text.decode()


def _short(loss: float) -> float:
    return float(f"{loss:.{_DIGITS}g}")


def _itxt(keyword: str, text: str) -> bytes:
    # Keyword, 0, compressed, deflate, no language, no translated keyword (PNG 1.2, 11.3.4.5).
    return _chunk(b"iTXt", keyword.encode("latin-1") + b"\0\1\0\0\0" + zlib.compress(text.encode(), 9))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Type, first byte and end of each chunk, length and checksum included; raises FormatError."""
    if not data.startswith(_PNG_MAGIC):
        raise FormatError(f"not a PNG (begins with {data[:8]!r})")
    chunks, at = [], len(_PNG_MAGIC)
    while at < len(data):
        if at + 12 > len(data):
            raise FormatError(f"a PNG that breaks off inside a chunk's header (byte {at})")
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            raise FormatError(f"a PNG that breaks off inside a chunk (byte {at})")
        chunks.append((data[at + 4 : at + 8], at, end))
        at = end
    return chunks

"""The folder that holds a video's finished frames, so that a run that was killed goes on where it was.

Each frame is a PNG that appears whole or not at all; the next one is made from that file and not from memory, so a
run that was interrupted gives the same video as one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from legacy_style.errors import OptionError
from legacy_style.files import reason, sha256, write_whole
from legacy_style.programs.video.source import Picture
from legacy_style.torch7 import image as torch_image

_RECORD = "run.json"


class WorkFolder:
    """The work folder of one run. `done`: so many frames from the beginning are finished."""

    def __init__(self, folder: str, record: Mapping[str, str], *, fresh: bool) -> None:
        """Open or make the folder; `record` is what must be the same for a run to go on.

        Raises OptionError, saying what changed, where it holds another run's frames and `fresh` is not asked for.
        """
        self.folder = Path(folder)
        known = self._known()
        if known is not None and known != dict(record) and not fresh:
            changes = "; ".join(
                f"{name} was {known.get(name, 'not given')} and is {record.get(name, 'not given')}"
                for name in sorted({*known, *record})
                if known.get(name) != record.get(name)
            )
            raise OptionError(
                f"{folder} holds the frames of another run: {changes}. Give --fresh to begin anew, or another"
                " folder with --work"
            )
        if known is None and self.folder.is_dir() and any(self.folder.iterdir()):
            raise OptionError(
                f"{folder} is not empty, and no work folder of this program; name another with --work"
            )
        if fresh:
            self.remove()
        try:
            self.folder.mkdir(exist_ok=True)
            write_whole(self.folder / _RECORD, json.dumps(dict(record), indent=1).encode())
        except OSError as error:
            raise OptionError(
                f"{folder}: the work folder cannot be written ({reason(error, '')}); name another with --work"
            ) from error
        self.done = 0
        while self.path(self.done + 1).is_file():
            self.done += 1

    def path(self, number: int) -> Path:
        return self.folder / f"frame_{number:06d}.png"

    def save(self, number: int, image: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> None:
        """Keep a finished frame, RGB (3, H, W) in [0,1]."""
        torch_image.save(self.path(number), image)
        self.done = max(self.done, number)

    def load(self, number: int) -> Picture:
        """A finished frame as bytes."""
        pixels = torch_image.load(self.path(number))
        return np.ascontiguousarray((pixels * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))

    def remove(self) -> None:
        """Delete what this program wrote there, and the folder if nothing else is in it."""
        if not self.folder.is_dir():
            return
        for path in [
            *self.folder.glob("frame_??????.png"),
            *self.folder.glob(".*.part"),
            self.folder / _RECORD,
        ]:
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _known(self) -> dict[str, str] | None:
        try:
            known = json.loads((self.folder / _RECORD).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return known if isinstance(known, dict) else None


def digest(path: str) -> str:
    """What tells a source from another: a file's SHA-256, of a folder that of its files' names, sizes and times."""
    if not Path(path).is_dir():
        return sha256(path)
    total = hashlib.sha256()
    for each in sorted(Path(path).iterdir()):
        if each.is_file():
            total.update(f"{each.name} {each.stat().st_size} {each.stat().st_mtime_ns}\n".encode())
    return total.hexdigest()

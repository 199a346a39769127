"""Images that a command line names, looked at before anything slow is loaded; and the examples that ship, to try.

The originals' defaults are examples of their own repositories, which are not here, so that a command line without
images of its own needs advice.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from legacy_style.errors import OptionError
from legacy_style.torch7 import image_files


def _folder() -> Path:
    """In the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "examples"
    return inside if inside.is_dir() else package.parent / "examples"


FOLDER = _folder()

_MISSING = os.strerror(errno.ENOENT)


def check(option: str, path: str, default: str, instead: str) -> None:
    """Raise, as reading it would, where the image that `option` names cannot be read; it is not decoded.

    Where the original's `default` is missing, the advice is to give an image, or the words `instead`, in which {china}
    and {ink_wash} stand for the examples that ship.
    """
    if not path or Path(path).exists():
        image_files.check(path)
        return
    if path != default:
        raise OptionError(f"{path}: {_MISSING}; give {option} an image that is there")
    names = {name: _shown(FOLDER / f"{name}.jpg") for name in ("china", "ink_wash")}
    ours = f", or try the examples that are here: {instead.format(**names)}" if FOLDER.is_dir() else ""
    raise OptionError(f"{path}: {_MISSING}; it is an example of the original's: give {option} an image{ours}")


def _shown(path: Path) -> str:
    """A path as one would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)

"""The state of a run in a file: written whole or not at all, and taken up again bit for bit.

A checkpoint holds the image that an evaluation was looking at and the optimiser's state before it, so a resumed run
evaluates that image once more and goes on as if it had never stopped. The random generator is not in it: it draws the
start image and nothing after that. Files are read with `weights_only=True`: they hold tensors and plain values, no
code.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from legacy_style.errors import FormatError, OptionError
from legacy_style.files import reason, replacing

FORMAT = "legacy-style checkpoint 1"

_CONTENT = {"options", "inputs", "x", "calls", "losses", "optimizer"}

Plain = str | float | bool | None


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state, and at which iterations.

    `options` are those that a continuation must have the same, `inputs` are digests of what they only name.
    """

    path: str
    is_due: Callable[[int], bool]
    options: Mapping[str, Plain] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)


def digest(*tensors: Tensor) -> str:
    """A SHA-256 over the shapes and bytes of `tensors`, hexadecimal."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        total.update(tensor.cpu().contiguous().numpy().data)
    return total.hexdigest()


def write(path: str, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; `content` is made of tensors and plain values.

    Raises OptionError where the file cannot be written; what it held before is then still there.
    """
    try:
        with replacing(path) as file:
            torch.save({"format": FORMAT, **content}, file)
    except OSError as error:
        raise OptionError(f"{path}: the checkpoint could not be written: {reason(error)}") from error


def check_can_write(path: str) -> None:
    """Raise OptionError where `write` could not write `path`."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OptionError(f"--checkpoint {path}: this is a folder; give the name of a file in it")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK | os.X_OK):
        raise OptionError(
            f"--checkpoint {path}: the folder {target.parent} is missing or not writable; choose another"
        )


def read(path: str) -> dict[str, Any]:
    """The content of a checkpoint; raises OptionError where it cannot be read, FormatError where it is none."""
    try:
        with Path(path).open("rb") as file:
            return _load(path, file)
    except OSError as error:
        raise OptionError(
            f"--resume {path}: {error.strerror}; give the file that --checkpoint wrote"
        ) from error


def unpacked(file: BinaryIO) -> tuple[Any, str]:
    """What torch.save put into an open file, and what is wrong with that, "" where nothing is."""
    try:
        with zipfile.ZipFile(file) as archive:
            # torch.save compresses nothing: a file that does would fill the memory.
            for each in archive.infolist():
                if each.compress_type != zipfile.ZIP_STORED:
                    return None, f"not of this program: {each.filename} in it is compressed"
            broken = archive.testzip()  # torch reads over wrong checksums
        if broken:
            return None, f"damaged: {broken} in it has a wrong checksum"
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True), ""
    # zipfile and torch raise errors of many kinds for archives that are broken, or not of torch's kind.
    except Exception:
        return None, "broken, or of another kind"


def _load(path: str, file: BinaryIO) -> dict[str, Any]:
    content, damage = unpacked(file)
    if damage:
        raise _not_one(path, f"not a checkpoint, or a broken one: it is {damage}")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= _CONTENT:
        raise _not_one(path, f"not a checkpoint of this version of the program, {FORMAT!r}")
    what = _wrong(content)
    if what:
        raise _not_one(path, f"not a checkpoint any more: its {what} cannot be")
    if "products" in content:  # of several processes, as earlier versions kept them
        content["optimizer"]["products"] = content["products"]
    return content


def _wrong(content: Mapping[str, Any]) -> str | None:
    """Which part of a checkpoint is not of its kind."""
    x, calls, losses, state = (content[name] for name in ("x", "calls", "losses", "optimizer"))
    if not isinstance(content["options"], dict) or not isinstance(content["inputs"], dict):
        return "options"
    if not isinstance(x, Tensor) or x.dim() != 4 or x.dtype != torch.float32:
        return "image"
    if type(calls) is not int or calls < 0:
        return "number of iterations"
    if not isinstance(losses, list) or len(losses) != calls or not all(map(_are_losses, losses)):
        return "losses"
    return None if isinstance(state, dict) and _is_state(state, x.numel()) else "optimiser's state"


def _are_losses(entry: object) -> bool:
    if not isinstance(entry, tuple) or not 3 <= len(entry) <= 4 or type(entry[2]) is not float:
        return False
    groups = (*entry[:2], *entry[3:])
    return all(isinstance(some, tuple | list) and all(type(n) is float for n in some) for some in groups)


def _is_state(state: Mapping[str, Any], n: int) -> bool:
    """Whether all tensors fit an image of n elements, and each other."""
    numbers = {
        name: each for name, each in state.items() if name in ("t", "n_iter", "func_eval", "correction")
    }
    if not all(type(each) in (int, float) and each >= 0 for each in numbers.values()):
        return False
    vectors = [
        state[name] for name in ("m", "v", "direction", "g_old", "best") if state.get(name) is not None
    ]
    if type(state.get("best_total", 0.0)) is not float:
        return False
    if not all(
        isinstance(each, Tensor) and each.numel() == n and each.dtype == torch.float32 for each in vectors
    ):
        return False
    if "rows" not in state:
        return True
    rows, rho = state["rows"], state.get("rho")
    if not (isinstance(rows, list) and isinstance(rho, list) and len(rows) == len(rho)):
        return False
    known = {"n_iter", "func_eval", "h_diag", "t", "correction", "steps", "changes", "direction", "g_old"}
    if not state.keys() >= known or type(state["correction"]) is not int or len(rows) > state["correction"]:
        return False
    if sorted(map(repr, rows)) != sorted(map(repr, range(len(rows)))) or type(state["h_diag"]) is not float:
        return False
    if state["n_iter"] and not all(isinstance(state[name], Tensor) for name in ("direction", "g_old")):
        return False
    pairs = [state["steps"], state["changes"]] if state["correction"] else []
    return all(type(each) is float for each in rho) and all(
        isinstance(each, Tensor) and tuple(each.shape) == (len(rows), n) for each in pairs
    )


def _not_one(path: str, what: str) -> FormatError:
    return FormatError(f"{path}: {what}; give the file that --checkpoint wrote")


def check_same(
    path: str,
    content: Mapping[str, Any],
    options: Mapping[str, Plain],
    defaults: Mapping[str, Plain],
    inputs: Mapping[str, str],
    dash: str = "-",
) -> None:
    """Raise OptionError, saying what changed, where options, images or model are not those of the checkpoint.

    An option that the checkpoint does not know had its default. `dash` stands before the names of options.
    """
    before = {name: content["options"].get(name, defaults.get(name)) for name in options}
    changes = [
        f"{dash}{name} was {before[name]!r} and is {value!r}"
        for name, value in options.items()
        if before[name] != value
    ]
    changes += [f"{what} changed" for what, value in inputs.items() if content["inputs"].get(what) != value]
    if changes:
        raise OptionError(
            f"--resume {path}: this is not the run of the checkpoint: {'; '.join(changes)}. Give the options and files"
            " that it was begun with, or begin anew without --resume"
        )

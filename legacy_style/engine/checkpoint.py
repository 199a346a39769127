"""The state of a run in a file: written whole or not at all, and taken up again bit for bit.

A checkpoint holds the image that an evaluation was looking at and the optimiser's state before it, so a resumed run
evaluates that image once more and goes on as if it had never stopped. The random generator is not in it: it draws the
start image and nothing after that. Files are read with `weights_only=True`: they hold tensors and plain values, no
code.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from legacy_style.errors import FormatError, OptionError
from legacy_style.files import replacing
from legacy_style.programs.neural_style.options import Options
from legacy_style.torch7.optim import AdamState, LbfgsState

FORMAT = "legacy-style checkpoint 1"

# These may differ between a run and its continuation: they change what is written and when, never the picture.
_FREE = {"print_iter", "save_iter", "output_image", "checkpoint", "resume", "metadata", "max_pixels"}

_CONTENT = {"options", "inputs", "x", "calls", "losses", "optimizer"}

State = AdamState | LbfgsState


def binding(options: Options) -> dict[str, str | float | bool]:
    """The options that a continuation must have the same."""
    return {each.name: getattr(options, each.name) for each in fields(options) if each.name not in _FREE}


def digest(*tensors: Tensor) -> str:
    """A SHA-256 over the shapes and bytes of `tensors`, hexadecimal."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        total.update(tensor.cpu().contiguous().numpy().data)
    return total.hexdigest()


def write(path: str, content: Mapping[str, Any], state: State) -> None:
    """Write a checkpoint with the optimiser's `state`; `content` is made of tensors and plain values.

    Raises OptionError where the file cannot be written; what it held before is then still there.
    """
    whole = {"format": FORMAT, **content, "optimizer": _pack(state)}
    try:
        with replacing(path) as file:
            torch.save(whole, file)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        raise OptionError(
            f"{path}: the checkpoint could not be written ({error}); choose another place"
        ) from error


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


def _load(path: str, file: BinaryIO) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()  # torch reads over wrong checksums
        file.seek(0)
        content = None if broken else torch.load(file, map_location="cpu", weights_only=True)
    # What zipfile and torch raise for archives that are broken, or not of torch's kind.
    except (
        zipfile.BadZipFile,
        zlib.error,
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        OSError,
    ) as error:
        raise _not_one(path, "not a checkpoint, or a broken one") from error
    if broken:
        raise _not_one(path, f"not a checkpoint any more: {broken} in it has a wrong checksum")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= _CONTENT:
        raise _not_one(path, f"not a checkpoint of this version of the program, {FORMAT!r}")
    return content


def _not_one(path: str, what: str) -> FormatError:
    return FormatError(f"{path}: {what}; give the file that --checkpoint wrote")


def check_same(path: str, content: Mapping[str, Any], options: Options, inputs: Mapping[str, str]) -> None:
    """Raise OptionError, saying what changed, where options, images or model are not those of the checkpoint."""
    changes = [
        f"-{name} was {content['options'].get(name)!r} and is {value!r}"
        for name, value in binding(options).items()
        if content["options"].get(name) != value
    ]
    changes += [f"{what} changed" for what, value in inputs.items() if content["inputs"].get(what) != value]
    if changes:
        raise OptionError(
            f"--resume {path}: this is not the run of the checkpoint: {'; '.join(changes)}. Give the options and files"
            " that it was begun with, or begin anew without --resume"
        )


def _pack(state: State) -> dict[str, Any]:
    if isinstance(state, AdamState):
        return {"t": state.t, "m": state.m, "v": state.v}
    used = len(state.rows)
    return {
        **{name: getattr(state, name) for name in ("n_iter", "func_eval", "h_diag", "t", "rows", "rho")},
        **{name: getattr(state, name) for name in ("direction", "g_old")},
        "correction": 0 if state.steps is None else state.steps.shape[0],
        "steps": None if state.steps is None else state.steps[:used].clone(),
        "changes": None if state.changes is None else state.changes[:used].clone(),
    }


def restore_adam(packed: Mapping[str, Any], device: torch.device) -> AdamState:
    return AdamState(packed["t"], *(_to(packed[name], device) for name in ("m", "v")))


def restore_lbfgs(packed: Mapping[str, Any], like: Tensor) -> LbfgsState:
    """The state for an image whose vector is on the device of `like`."""
    state = LbfgsState(
        **{name: packed[name] for name in ("n_iter", "func_eval", "h_diag", "t", "rows", "rho")}
    )
    state.direction, state.g_old = _to(packed["direction"], like.device), _to(packed["g_old"], like.device)
    if packed["correction"]:
        state.make_room(like, packed["correction"])
        assert state.steps is not None and state.changes is not None
        used = len(state.rows)
        state.steps[:used] = packed["steps"]
        state.changes[:used] = packed["changes"]
    return state


def _to(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)

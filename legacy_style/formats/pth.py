"""PyTorch files (.pth, .pt) of weights, opened lazily and so that a broken or hostile one does no harm.

Read by torch.load with weights_only=True and, but for the format of before PyTorch 1.6, mmap=True: a tensor's
bytes stay in the file until they are used. Notes: a pickle is checked before torch.load sees it, because
even its restricted unpickler can be led to fill memory or to overflow the stack; and whatever still goes
wrong in there is reported as a broken file, since the errors are those of whatever the bytes lead it into. Objects
beside the weights (options, numbers of NumPy, a schedule) become stand-ins: none of their code is loaded. Those that
are dicts or lists with a class of their own become plain ones, with what is in them. A dict out of a file may have any
attributes, in front of its methods, which are therefore called by the name of their class.
"""

from __future__ import annotations

import io
import os
import pickletools
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from legacy_style.errors import FormatError, IncompleteError, UnsupportedError
from legacy_style.files import reading
from legacy_style.formats import zipcheck
from legacy_style.formats.pickle_stack import PickleStack

# The first bytes of torch.save's format of before 1.6: PROTO 2, then its magic number as a LONG1.
LEGACY_SIGNATURE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# That format's pickles: magic number, version, the writer's system, the object, the storages' names; and
# how many bytes they take at most.
_LEGACY_PICKLES = 5
_LEGACY_HEAD = 1 << 24

# A state dict's pickle takes about forty operations and four tuples a tensor, and handles less than two hundred
# values. Hashing nested tuples recurses in C.
_MOST_OPERATIONS = 200_000
_MOST_TUPLES = 20_000
_MOST_HANDLED = 10_000_000

# What a dict of tensors is made of. `encode` is how protocol 2 writes bytes.
_HARMLESS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "torch device",
    "_codecs encode",
    *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Bool", "Byte", "Char")),
    *(f"torch {kind}Storage" for kind in ("Short", "Int", "Long")),
    *(f"torch {kind}" for kind in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8")),
}

# Modules whose classes get no stand-in: what a hostile file calls, and what torch.load has of its own.
_REFUSED = {"__builtin__", "builtins", "nt", "os", "posix", "subprocess", "sys", "torch"}
# Types that objects name: `list` is what a defaultdict makes, `object` the base of a class of Python 2.
_NAMED_TYPES = {
    f"__builtin__ {name}" for name in ("dict", "float", "int", "list", "object", "set", "str", "tuple")
}
_MOST_CLASSES = 200

# Where training programs keep the weights among other things.
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")

# The key under which our files keep the list of layers among the state dict's metadata, where load_state_dict
# looks for modules' versions and overlooks everything else.
METADATA_KEY = "legacy_style"


class _StandIn:
    """An object of a class that is not loaded; it keeps nothing."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Dict:
    """In place of a kind of dict: what is put into it is kept, which torch.load allows for plain dicts alone."""

    def __new__(cls, *arguments: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]  # not a _Dict, on purpose
        return OrderedDict()


class _List:
    """In place of a kind of list."""

    def __new__(cls, *arguments: Any) -> list[Any]:  # type: ignore[misc]  # not a _List, on purpose
        return []


# What modules of Python 2 are called now; a torch.load that renames them as pickle does asks for these names.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


Classes = dict[str, set[str]]
"""The classes of a pickle that need a stand-in, "module class", and what their objects are filled like."""


def _stand_ins(name: str, filled: Set[str]) -> Iterator[type[_StandIn | _Dict | _List]]:
    """Classes under a pickle's `name`, "module class", old and new, for objects that are `filled` so."""
    module, _, own = name.partition(" ")
    base = _Dict if filled == {"dict"} else _List if filled == {"list"} else _StandIn
    for each in {module, _RENAMED.get(module, module)}:
        yield type(own, (base,), {"__module__": each})


def read(path: str, file: BinaryIO | None = None) -> tuple[dict[str, Tensor], str | None]:
    """Name -> tensor on the CPU, float16 to float64, for every such tensor in the file; and the prototxt, if
    any.

    `file` is the one at `path` where it is open already. Raises FormatError where the file is broken, UnsupportedError
    where it holds something else than a state dict.
    """
    with reading(path, file) as opened:
        return _read(path, opened)


def _read(path: str, file: BinaryIO) -> tuple[dict[str, Tensor], str | None]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(max(len(LEGACY_SIGNATURE), 264))
    zipped = head.startswith(zipcheck.SIGNATURE)
    file.seek(0)
    classes: Classes = {}
    if zipped:
        classes = _check_archive(path, file)
    elif head.startswith(LEGACY_SIGNATURE):
        # In memory, since reading from a file makes room first for as much as a pickle asks for.
        pickled = io.BytesIO(file.read(_LEGACY_HEAD))
        for _ in range(_LEGACY_PICKLES):
            classes |= _check_pickle(pickled, size, path)
    else:
        raise FormatError(f"{path}: is no PyTorch file")
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals(
                [stand_in for each in classes.items() for stand_in in _stand_ins(*each)]
            ),
        ):
            # Those are on what a damaged pickle makes of PyTorch's own classes.
            warnings.simplefilter("ignore")
            file.seek(0)
            # PyTorch maps only what it opens by name.
            loaded = torch.load(path if zipped else file, map_location="cpu", weights_only=True, mmap=zipped)
            if zipped and not os.path.samestat(os.fstat(file.fileno()), Path(path).stat()):
                raise FormatError(f"{path}: was replaced while it was read; read it again")
    except FormatError:
        raise
    except Exception as error:  # Any error at all: see the module's docstring.
        if not zipped and "unexpected EOF" in str(error):
            raise IncompleteError(path, _first_line(error)) from error
        if classes:
            raise UnsupportedError(
                f"{path}: the Python objects beside its tensors ({', '.join(sorted(classes)[:3])}) cannot be left aside"
                f" ({_first_line(error)}); save only the state_dict() of the network"
            ) from error
        raise FormatError(
            f"{path}: PyTorch cannot read this file, which is damaged ({_first_line(error)})"
        ) from error
    state = _state_dict(loaded, path)
    tensors = {
        name: _checked(value, name, path) for name, value in dict.items(state) if _is_weight(name, value)
    }
    if not tensors:
        raise FormatError(f"{path}: holds no tensor of floating-point numbers, expected a network's weights")
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > 2 * size:
        raise FormatError(
            f"{path}: promises {total} bytes of weights in a file of {size}; it is damaged or hostile"
        )
    return tensors, prototxt(state)


def _check_archive(path: str, file: BinaryIO) -> Classes:
    """Check a zip archive and its pickle; the names of the classes that need a stand-in."""
    members = zipcheck.members(path, file, stored_only=True)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if any(name.endswith("constants.pkl") for name in members):
        raise UnsupportedError(
            f"{path}: is a TorchScript program; save its state_dict() with torch.save instead"
        )
    if len(pickles) != 1:
        raise FormatError(
            f"{path}: is a zip archive without the data.pkl of a PyTorch file or arrays of NumPy"
        )
    for info in members.values():
        zipcheck.data_offset(path, info, file)
    with zipfile.ZipFile(file) as archive:
        try:
            pickled = io.BytesIO(archive.read(pickles[0]))
        except zipcheck.UNREADABLE as error:
            raise FormatError(f"{path}: data.pkl cannot be read: {error}") from error
    return _check_pickle(pickled, os.fstat(file.fileno()).st_size, path)


def _check_pickle(pickled: io.BytesIO, size: int, path: str) -> Classes:
    """The classes of the next pickle that need a stand-in.

    Raises where it could run code, or is out of all proportion.
    """
    classes, stack = set[str](), PickleStack()
    tuples = operations = number = 0
    with warnings.catch_warnings():
        # Damaged names may look like escape sequences that Python warns of.
        warnings.simplefilter("ignore")
        try:
            for opcode, argument, position in pickletools.genops(pickled):
                name = opcode.name
                if name == "PROTO" and argument != 2:
                    raise UnsupportedError(
                        f"{path}: is pickled with protocol {argument}; load it in PyTorch and save it again "
                        "with torch.save"
                    )
                if name in ("GLOBAL", "STACK_GLOBAL", "INST") and argument not in _HARMLESS:
                    what = str(argument or "a class").replace(" ", ".")
                    if name != "GLOBAL" or not _may_be_left_out(str(argument)):
                        raise UnsupportedError(
                            f"{path}: holds a Python object ({what}) beside tensors, and unpickling it could run "
                            "code; save only the state_dict() of the network"
                        )
                    classes.add(str(argument))
                stack.follow(opcode, argument)
                operations += 1
                tuples += name.startswith("TUPLE")
                if isinstance(argument, int) and name in ("BININT", "BININT1", "BININT2", "LONG1"):
                    number = argument
                # The last number in a storage's id is how many values it has.
                too_much = name == "BINPERSID" and number > size
                too_much = too_much or len(classes) > _MOST_CLASSES or stack.handled > _MOST_HANDLED
                if too_much or tuples > _MOST_TUPLES or operations > _MOST_OPERATIONS:
                    raise FormatError(
                        f"{path}: promises more than a file of its size holds (byte {position} of its pickle)"
                    )
        except (ValueError, EOFError, UnicodeError, OverflowError, LookupError) as error:
            if pickled.tell() == size:
                raise IncompleteError(path, f"its pickle has no end: {error}") from error
            raise FormatError(f"{path}: its pickle is broken: {error}") from error
    return {name: stack.filled[name] for name in sorted(classes)}


def _may_be_left_out(name: str) -> bool:
    """Whether a class, "module class", may have a stand-in."""
    return name in _NAMED_TYPES or name.partition(".")[0].partition(" ")[0] not in _REFUSED


def _state_dict(loaded: Any, path: str) -> dict[Any, Any]:
    """The dict that holds the network's tensors, which may lie within others, with other tensors beside it."""
    for _ in range(3):
        if not isinstance(loaded, dict):
            raise UnsupportedError(
                f"{path}: holds a {type(loaded).__name__}, expected a state dict: save the network's "
                "state_dict()"
            )
        inner = {key: value for key, value in dict.items(loaded) if isinstance(value, dict)}
        usual = [inner[key] for key in _USUAL_KEYS if key in inner and _most_axes(inner[key]) >= 0]
        others = [value for value in inner.values() if _most_axes(value) > 1]
        if usual:
            loaded = usual[0]
        elif _most_axes(loaded) > 1:
            return loaded
        elif len(others) == 1:
            loaded = others[0]
        elif _most_axes(loaded) >= 0:
            return loaded
        elif len(inner) == 1:
            loaded = next(iter(inner.values()))
        else:
            break
    if isinstance(loaded, dict) and _most_axes(loaded) >= 0:
        return loaded
    raise FormatError(f"{path}: holds no dict of tensors, expected a state dict as torch.save writes it")


def _most_axes(state: dict[Any, Any]) -> int:
    """The most axes that a tensor in it has, -1 where it holds none: weights have two or more, a record has none."""
    return max((value.dim() for value in dict.values(state) if isinstance(value, Tensor)), default=-1)


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.is_floating_point()


def _checked(tensor: Tensor, name: str, path: str) -> Tensor:
    """`tensor`, if it is a plain one that its storage can hold: strides of 0 make much of little."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise UnsupportedError(
            f"{path}: {name} is no dense tensor; load the file in PyTorch and save it as one"
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise FormatError(
            f"{path}: {name} has the shape {tuple(tensor.shape)}, which is more than the file holds of it"
        )
    return tensor.detach()


def prototxt(state: dict[Any, Any]) -> str | None:
    """The list of layers among the state dict's metadata, where one of our files has it."""
    metadata = getattr(state, "_metadata", None)
    ours = dict.get(metadata, METADATA_KEY) if isinstance(metadata, dict) else None
    text = dict.get(ours, "prototxt") if isinstance(ours, dict) else None
    return text if isinstance(text, str) else None


def _first_line(error: Exception) -> str:
    # Around its reason torch.load says how to load the file in a way that runs its code.
    reason = str(error).rpartition("WeightsUnpickler error:")[2].partition(" Please use ")[0]
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__

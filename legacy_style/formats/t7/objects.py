"""What a .t7 file holds, as Python objects.

| Torch7 | Python |
|---|---|
| nil | None |
| number | int where it is whole (and below 2^53, and not -0), else float |
| boolean | bool |
| string | str, decoded as UTF-8; other bytes become lone surrogates, and bytes again when written |
| table with the keys 1..n | list, in the order of its keys |
| any other table, also an empty one | dict, in the file's order; `Pairs` where a key is neither a string nor a number |
| tensor | NumPy array, a view of its storage's memory |
| storage | `Storage` |
| any other class | `TorchObject` |
| function | `Function`, which is never run |

An object that the file refers to several times is one Python object. Tensors that share a storage are views of
one array. Types of CUDA, OpenCL and half precision are read as their CPU twins.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How Torch7 (File.lua) numbers the kinds of objects. 6 is a function of before 2015, which has no index; 7 and
# 8 differ in what stands for an upvalue.
NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN, OLD_FUNCTION, LEGACY_FUNCTION, FUNCTION = range(9)

# Torch7's names of element types, in NumPy's words.
DTYPES = {
    "Byte": "|u1",
    "Char": "|i1",
    "Short": "<i2",
    "Int": "<i4",
    "Long": "<i8",
    "Half": "<f2",
    "Float": "<f4",
    "Double": "<f8",
}
TYPE_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}

# Types of other devices, which hold the same bytes. "Cuda" alone and cltorch's "Cl" are single precision.
_TWINS = {"Cuda": "Float", "Cl": "Float"} | {f"Cuda{name}": name for name in DTYPES if name != "Float"}

# The classes of torch/tds that write themselves in a way of their own: their entries are the field "items".
TDS = ("tds.Hash", "tds.Vec")

# The dimensions that every NumPy can have; Torch7's networks use up to five.
MOST_DIMENSIONS = 32


@dataclass(eq=False)
class TorchObject:
    """An instance of a Torch7 class: its name ("nn.Linear"), its fields, the version of its class.

    Fields are named by strings, or by numbers where the class keeps a list in itself. Version 0 means that
    the file is older than versions.
    """

    typename: str
    fields: dict[Any, Any] = field(default_factory=dict)
    version: int = 1

    def get(self, name: str, default: Any = None) -> Any:
        """The field of that name, or `default`."""
        return self.fields.get(name, default)


@dataclass(eq=False)
class Storage:
    """A storage that stands by itself, for example the list of sizes of an nn.View; its elements in one row."""

    values: NDArray[Any]  # (n,)


@dataclass(eq=False)
class Function:
    """A Lua function: bytecode that is kept as data and never run, and the variables that it had captured."""

    code: bytes
    upvalues: Any = None
    kind: int = FUNCTION  # OLD_FUNCTION, LEGACY_FUNCTION or FUNCTION


@dataclass(eq=False)
class Pairs:
    """A table with keys that a dict does not tell apart or cannot hold: booleans, tables, objects."""

    items: list[tuple[Any, Any]] = field(default_factory=list)


def element_type(typename: str) -> tuple[str, str] | None:
    """ "torch.CudaTensor" -> ("Float", "Tensor"); None where the class is neither a tensor nor a storage."""
    name = typename.removeprefix("torch.")
    for kind in ("Tensor", "Storage"):
        if name != typename and name.endswith(kind):
            own = name.removesuffix(kind)
            own = _TWINS.get(own, own)
            if own in DTYPES:
                return own, kind
    return None


def root(array: NDArray[Any]) -> NDArray[Any]:
    """The array whose memory `array` is a view of; itself where it is none."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return owner


def address(array: NDArray[Any]) -> int:
    """Where the first element of `array` lies in memory."""
    place: int = array.__array_interface__["data"][0]
    return place


def shown(value: object) -> str:
    """What a file holds, for a message: on one line, and cut short."""
    return " ".join(reprlib.repr(value).split())

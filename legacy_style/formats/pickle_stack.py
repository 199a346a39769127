"""Which classes a pickle fills like a dict or a list, found out by following its stack; nothing is made or called.

Python's pickletools says of each operation what it takes from the stack and what it leaves there, as in its own `dis`.
A subclass of dict or list has its entries put in by operations of their own, whatever else is in its state.
"""

from __future__ import annotations

import pickletools
from collections import defaultdict
from typing import Any, NamedTuple

_FILLS = {"SETITEM": "dict", "SETITEMS": "dict", "APPEND": "list", "APPENDS": "list"}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")


class _Made(NamedTuple):
    """What stands on the stack: the class of that name, or an object of it; "" for anything else.

    `size`: how many values it is if it is written out, of a tuple those in it too.
    """

    name: str = ""
    is_class: bool = False
    size: int = 1


class PickleStack:
    """`filled`: of a class, "module class", what its objects are filled like: "dict", "list" or both.

    `handled`: how many values all operations took, written out. A tuple that holds another twice, which holds another
    twice, and so on, is small in memory, but not where it is hashed as a key, or printed.
    """

    def __init__(self) -> None:
        self.filled: defaultdict[str, set[str]] = defaultdict(set)
        self.handled = 0
        self._stack: list[_Made | None] = []  # None: a mark
        self._memo: dict[int, _Made | None] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do the next operation of a pickle; LookupError where there is not on the stack what it takes."""
        name, before = opcode.name, opcode.stack_before
        left: list[_Made | None] = [
            None if each is pickletools.markobject else _Made() for each in opcode.stack_after
        ]
        taken, size = len(before), 0
        if pickletools.markobject in before:
            while (above := self._stack.pop()) is not None:
                size += above.size
            taken = before.index(pickletools.markobject)
        if taken > len(self._stack):
            raise LookupError(f"{name} finds too little on the stack")
        size += sum(each.size for each in self._stack[len(self._stack) - taken :] if each is not None)
        self.handled += size
        if name in _PUTS:
            self._memo[argument] = self._stack[-1]
        elif name in _GETS:
            left = [self._memo[argument]]
        elif name == "GLOBAL":
            left = [_Made(argument, is_class=True)]
        elif name.startswith("TUPLE"):
            left = [_Made(size=1 + size)]
        elif taken:
            first = self._stack[-taken]
            if name in _FILLS or name == "BUILD":
                left = [first]
            elif name in ("NEWOBJ", "REDUCE") and first is not None and first.is_class:
                left = [_Made(first.name)]
            if name in _FILLS and first is not None and first.name and not first.is_class:
                self.filled[first.name].add(_FILLS[name])
        if taken:
            del self._stack[-taken:]
        self._stack += left

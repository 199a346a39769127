"""Lua's tables as lists and dicts, once all of a file's tables are known.

A table can refer to itself, so every list and dict is made empty first and filled afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from legacy_style.formats.t7.objects import Function, Pairs, TorchObject


@dataclass(eq=False)
class Table:
    """A table as it was read: its pairs in the file's order."""

    items: list[tuple[Any, Any]] = field(default_factory=list)


def resolve(value: Any, tables: Iterable[Table], holders: Iterable[TorchObject | Function]) -> Any:
    """`value` with every `Table` replaced; the fields of the `holders` are replaced in place."""
    made: dict[int, list[Any] | dict[Any, Any] | Pairs] = {}

    def known(item: Any) -> Any:
        return made[id(item)] if isinstance(item, Table) else item

    tables = list(tables)
    for table in tables:
        made[id(table)] = _container(table)
    for table in tables:
        container = made[id(table)]
        if isinstance(container, list):
            last = dict(table.items)
            container.extend(known(last[place]) for place in range(1, len(last) + 1))
        elif isinstance(container, dict):
            container.update((key, known(item)) for key, item in table.items)
        else:
            container.items.extend((known(key), known(item)) for key, item in table.items)
    for holder in holders:
        if isinstance(holder, Function):
            holder.upvalues = known(holder.upvalues)
        else:
            holder.fields = {key: known(item) for key, item in holder.fields.items()}
    return known(value)


def is_name(key: Any) -> bool:
    """Whether a dict can have this key of a table: a string or a number, for True would be the key 1."""
    return isinstance(key, (str, int, float)) and not isinstance(key, bool)


def _container(table: Table) -> list[Any] | dict[Any, Any] | Pairs:
    """An empty list, dict or `Pairs`, as the keys of `table` ask for."""
    if not all(is_name(key) for key, _item in table.items):
        return Pairs()
    keys = {key for key, _item in table.items}  # a key that is there twice counts once, as in Lua
    return [] if keys and keys == set(range(1, len(keys) + 1)) else {}

"""Reads: what a description was read from, and whether all of it is still the same.

Describing the code of an operation takes milliseconds, since it follows every name; an operation is
called hundreds of times while a graph is built. That nothing has changed meanwhile shows in a fraction
of that: each name still means the same object, and each container holds the same ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from pathlib import PurePath
from types import CellType
from typing import Any

#: Stands for a name that is not there.
MISSING: Any = object()
#: What never changes, once it is.
_PLAIN = (str, int, float, complex, bytes, type(None), date, timedelta, PurePath)


class Reads:
    """What was read, kept by identity.

    Attributes
    ----------
    certain
        Whether a change would show. An array may change inside, and is not looked through for it.
    """

    def __init__(self) -> None:
        self.certain = True
        self._names: list[tuple[Mapping[str, Any], str, Any]] = []
        self._attributes: list[tuple[Any, str, Any]] = []
        self._cells: list[tuple[CellType, Any]] = []
        self._contents: list[tuple[Callable[[Any], Iterable[Any]], Any, tuple[Any, ...]]] = []

    def name(self, names: Mapping[str, Any], name: str) -> Any:
        """What a name means; ``MISSING`` if nothing."""
        found = names.get(name, MISSING)
        self._names.append((names, name, found))
        return found

    def attributes(self, value: Any, *attributes: str) -> None:
        """These attributes were read."""
        self._attributes += [(value, name, getattr(value, name, MISSING)) for name in attributes]

    def cell(self, cell: CellType) -> Any:
        """What is in a cell of a closure; ``MISSING`` if it is not filled yet."""
        found = _inside(cell)
        self._cells.append((cell, found))
        return found

    def content(self, value: Any, items: Callable[[Any], Iterable[Any]] = iter) -> None:
        """All of a container was read, as ``items`` gives it."""
        self._contents.append((items, value, tuple(items(value))))

    def value(self, value: Any) -> None:
        """A value was read as a whole."""
        if isinstance(value, _PLAIN) or _is_scalar(value):
            return
        if isinstance(value, Mapping):
            self.content(value, pairs)
            self._each(pairs(value))
        elif isinstance(value, list | set):
            self.content(value)
            self._each(value)
        elif isinstance(value, tuple | frozenset):
            self._each(value)
        elif isinstance(value, slice):
            self._each((value.start, value.stop, value.step))
        else:
            self.certain = False

    def _each(self, values: Iterable[Any]) -> None:
        for value in values:
            self.value(value)

    def same(self) -> bool:
        """Whether reading all of it again would find the same."""
        return (
            self.certain
            and all(names.get(name, MISSING) is found for names, name, found in self._names)
            and all(getattr(v, name, MISSING) is found for v, name, found in self._attributes)
            and all(_inside(cell) is found for cell, found in self._cells)
            and all(_alike(items(value), before) for items, value, before in self._contents)
        )


def pairs(mapping: Mapping[Any, Any]) -> list[Any]:
    """Keys and values of a mapping, as :meth:`Reads.content` takes them."""
    return [part for pair in mapping.items() for part in pair]


def _is_scalar(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def _inside(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _alike(found: Iterable[Any], before: tuple[Any, ...]) -> bool:
    now = tuple(found)
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))

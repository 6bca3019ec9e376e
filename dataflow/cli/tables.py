"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

#: Columns of a table that goes into a file or a pipe, where nothing need be cut off.
PIPE_WIDTH = 10_000


def console() -> Console:
    """Where tables go: the terminal in its width, anything else without cutting lines."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
    """Print a table, or the sentence ``empty`` if it has no rows.

    A column whose name ends in ``>`` is aligned to the right.
    """
    listed = [[_cell(value) for value in row] for row in rows]
    if not listed and empty:
        console().print(escape(empty))
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.endswith(">")
        drawn.add_column(column.rstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in listed:
        drawn.add_row(*row)
    console().print(drawn)


def fields(pairs: Mapping[str, object]) -> None:
    """Print one thing: a name and a value per line; what is empty is left out."""
    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    for name, value in pairs.items():
        text = _cell(value)
        if text:
            drawn.add_row(name, text)
    console().print(drawn)


def documents(value: Any) -> None:
    """Print records as indented JSON."""
    from dataflow.documents import to_document

    def plain(one: Any) -> Any:
        if isinstance(one, Mapping):
            return {str(name): plain(part) for name, part in one.items()}
        if isinstance(one, list | tuple):
            return [plain(part) for part in one]
        return one if one is None or isinstance(one, str | int | float) else to_document(one)

    print(json.dumps(plain(value), indent=2))


def pairs(tags: Mapping[str, str]) -> str:
    """Tags as they are typed: ``a=1, b=2``."""
    return ", ".join(f"{name}={value}" for name, value in sorted(tags.items()))


def moment(seconds: float) -> str:
    """A time since the epoch in this machine's zone, or nothing for 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return escape(pairs(value))
    if isinstance(value, list | tuple | set | frozenset):
        return escape(", ".join(str(part) for part in value))
    return escape(str(value))


def _somebody_looks() -> bool:
    from dataflow.config import read_settings

    return sys.stderr.isatty() and read_settings().progress


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A sign of life on stderr, where that is a terminal, with the seconds so far; gone afterwards."""
    if not _somebody_looks():
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        drawn.add_task(escape(what), total=None)
        yield


@contextmanager
def progress(total: int, what: str, *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar on stderr, where that is a terminal; what it gives is called after each step."""
    if not shown or not _somebody_looks():
        yield lambda said: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, said="")
        yield lambda said: bar.update(task, advance=1, said=escape(said))


@contextmanager
def counted(what: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """The same where it turns out later how many there are; gets those that are done, and all."""
    if not shown or not _somebody_looks():
        yield lambda done, total: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

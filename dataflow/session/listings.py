"""What a session lists besides datasets: jobs, and what crossed links. Tables that show themselves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

from dataflow import _html
from dataflow._quantities import format_bytes, format_seconds
from dataflow.execution.programs import Program
from dataflow.execution.view import JobView, LedgerEntry

T = TypeVar("T")

#: Rows shown; all are there.
SHOWN = 50


class _Table(Sequence[T], Generic[T]):
    """A sequence of records that shows itself as a table."""

    header: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    nothing = ""

    def __init__(self, entries: Iterable[T]) -> None:
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return (
            type(self)(self._entries[index]) if isinstance(index, slice) else self._entries[index]
        )

    def __repr__(self) -> str:
        if not self:
            return self.nothing
        rows = [self._row(entry) for entry in self._entries[:SHOWN]]
        return "\n".join([_html.plain_table(self.header, rows), *self._below()])

    def _repr_html_(self) -> str:
        if not self:
            return _html.block(self.nothing).text
        rows = [self._row(entry) for entry in self._entries[:SHOWN]]
        table = _html.table(self.header, rows, numbers=self.numbers)
        return _html.block(table, *self._below()).text

    def _row(self, entry: T) -> tuple[str, ...]:
        raise NotImplementedError

    def _below(self) -> list[str]:
        more = len(self) - SHOWN
        return [f"… and {more} more"] if more > 0 else []


class Ledger(_Table[LedgerEntry]):
    """What crossed links for a job, beside what the plan had predicted."""

    header = ("data", "from", "to", "bytes", "predicted", "seconds")
    numbers = (3, 4, 5)
    nothing = "nothing crossed a link"

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return sum(entry.nbytes for entry in self)

    def _row(self, entry: LedgerEntry) -> tuple[str, ...]:
        return (
            entry.label or entry.key[:12],
            entry.source,
            entry.target,
            format_bytes(entry.nbytes),
            "" if entry.predicted is None else format_bytes(entry.predicted),
            format_seconds(entry.seconds) if entry.seconds else "",
        )

    def _below(self) -> list[str]:
        predicted = sum(entry.predicted or 0 for entry in self)
        return [
            *super()._below(),
            f"{format_bytes(self.nbytes)} in all, {format_bytes(predicted)} predicted",
        ]


class Programs(_Table[Program]):
    """Runs of shell operations, in the order in which they were first told of."""

    header = ("program", "status", "at", "batch job", "host", "seconds", "memory", "")
    numbers = (5, 6)
    nothing = "no shell operation has begun"

    def _row(self, entry: Program) -> tuple[str, ...]:
        used = entry.accounting
        took = (entry.ended or 0.0) - entry.began if entry.began and entry.ended else None
        return (
            entry.label,
            entry.status,
            entry.site,
            entry.batch,
            entry.host,
            "" if took is None else format_seconds(max(took, 0.0)),
            format_bytes(used.memory) if used is not None and used.memory else "",
            entry.reason,
        )


class Logs(_Table[Program]):
    """What programs wrote to their streams: the last 64 KiB of each."""

    header = ("program", "stream", "")
    nothing = "no shell operation has ended"

    def __repr__(self) -> str:
        if not self:
            return self.nothing
        return "\n".join(
            f"--- {entry.label} at {entry.site} ({entry.status}), {file.name}, {file.nbytes} bytes\n"
            f"{file.text}"
            for entry in self
            for file in (*entry.of("stdout"), *entry.of("stderr"))
        )

    def _repr_html_(self) -> str:
        return _html.block(_html.preformatted(repr(self))).text


class Jobs(_Table[JobView]):
    """Jobs, newest first."""

    header = ("job", "status", "user", "at", "created", "tags", "")
    nothing = "no jobs"

    def _row(self, entry: JobView) -> tuple[str, ...]:
        return (
            entry.id,
            entry.status,
            entry.user,
            entry.coordinator,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created)),
            " ".join(f"{name}={value}" for name, value in sorted(entry.tags.items())),
            entry.message,
        )

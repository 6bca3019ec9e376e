"""Differencing: two sets of rows that differ by less than an owner's floor. Pure.

Who asks the same question of all rows, and of all rows but one, has the answer for the one. So of
what was computed with before, whoever asked, a new set of rows has to be far: it is the very same
set, or their numbers of rows differ by the floor at least. If two sets differ in fewer rows than
the floor, so do their numbers; so no such pair is let through, whatever chose the rows. What also
is refused are sets that only happen to have about as many rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowSet:
    """Rows that an operation gets: how many, and a digest of their values in any order.

    An empty digest says that nobody can tell these rows from others.
    """

    rows: int
    digest: str = ""


def is_same(one: RowSet, other: RowSet) -> bool:
    """Whether two sets are known to have the same rows, in the same columns."""
    return one == other and bool(one.digest)


def too_close(rows: RowSet, before: Iterable[RowSet], floor: int) -> bool:
    """Whether a set differs from one of those before it, and perhaps by fewer rows than the floor."""
    return any(not is_same(rows, known) and abs(rows.rows - known.rows) < floor for known in before)

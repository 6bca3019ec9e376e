"""Conflict: the least that would have to change for an impossible request to become possible.

Every site refuses a step by one clause: the first rule that speaks against it. To make room for all
steps that have no site, for each of them the clause of some site has to go; one clause may stand
in the way of many. The fewest clauses that are enough are found by trying. Behind a clause that goes
another one may stand, which the table does not say. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataflow.policy.check import AGREEMENT, AWAY, EXCLUDED, MEMORY, SCOPE, STORES

#: The rule of sites that have no room for what a step keeps there.
DISK = "disk"
PINNED, UNHEARD = "pinned", "unknown"
#: What is easier to change comes first, between equally few: the user's own words before the owners'.
_ORDER = (PINNED, SCOPE, EXCLUDED, DISK, MEMORY, AGREEMENT, "trust", AWAY, UNHEARD, STORES)
#: Beyond so many tries the best that was met is told.
_TRIES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Clause:
    """What stands in the way: a rule, in words, and the sites that it closes."""

    rule: str
    because: str
    sites: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.sites)}: {self.because} ({self.rule})"


Refusal = tuple[str, str]
#: Site → (rule, reason), for one step that no site may run.
Row = Mapping[str, Refusal]


def least_change(rows: Sequence[Row]) -> tuple[Clause, ...]:
    """The fewest clauses without which each step has a site, and the sites that they then open.

    Parameters
    ----------
    rows
        One for each step without a site; a step to which no site is known cannot be helped, and is
        left out.
    """
    choices = _choices(rows)
    best: list[frozenset[Refusal]] = [frozenset(clause for row in choices for clause in row[:1])]
    tries = [_TRIES]

    def go(at: int, taken: frozenset[Refusal]) -> None:
        tries[0] -= 1
        if tries[0] < 0 or _price(taken) >= _price(best[0]):
            return
        while at < len(choices) and taken & set(choices[at]):
            at += 1
        if at == len(choices):
            best[0] = taken
            return
        for clause in choices[at]:
            go(at + 1, taken | {clause})

    go(0, frozenset())
    taken = best[0]
    found = []
    for rule, because in sorted(taken, key=_place):
        sites = dict.fromkeys(
            site for row in rows for site, refusal in row.items() if refusal == (rule, because)
        )
        found.append(Clause(rule=rule, because=because, sites=tuple(sites)))
    return tuple(found)


def _choices(rows: Sequence[Row]) -> list[list[Refusal]]:
    """Per step the clauses of which one has to go, each question once, the fewest choices first."""
    found = {tuple(sorted(set(row.values()), key=_place)) for row in rows if row}
    return [list(row) for row in sorted(found, key=lambda row: (len(row), row))]


def _place(clause: Refusal) -> tuple[int, Refusal]:
    rule, _ = clause
    return (_ORDER.index(rule) if rule in _ORDER else len(_ORDER)), clause


def _price(taken: frozenset[Refusal]) -> tuple[int, list[tuple[int, Refusal]]]:
    return len(taken), sorted(_place(clause) for clause in taken)

"""Twice: where a graph may be run a second time, and what has to be brought there. Pure.

An archetype may want results to be reproduced before they are given out: another site, which all
owners permit as compute provider, runs the graph once more. What an owner forces on his rows is
done by his own site; the second run begins with what came out of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataflow.errors import NotGranted
from dataflow.graph.operation import Step
from dataflow.policy.rights import Right, Rows, follow
from dataflow.sites import Topology

Rights = Mapping[str, Sequence[Right]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """A second run: its site, the keys that are brought there, and those of its steps, in order."""

    site: str
    brought: tuple[str, ...]
    steps: tuple[str, ...]


def is_wanted(rights: Rights) -> bool:
    """Whether some owner wants results to be reproduced."""
    return any(
        right.archetype is not None and right.archetype.twice
        for found in rights.values()
        for right in found
    )


def second_run(
    steps: Sequence[Step],
    outputs: Sequence[str],
    rights: Rights,
    given: Mapping[str, Rows],
    topology: Topology,
    *,
    first: Sequence[str],
    excluded: Mapping[str, str],
    installed: Mapping[str, frozenset[str]],
) -> Second:
    """The second run of these outputs, at the first site by name that may do it.

    Parameters
    ----------
    steps
        Of the plan, in order.
    given
        Rows that stored results among the sources carry.
    first
        Sites of the first run, which the second is not at.
    excluded
        Sites that must not be used, with the reasons.
    installed
        Site → operations that it runs, ``name@version``; only stewards are bound by it.

    Raises
    ------
    NotGranted
        If there is no such site; with each one's reason.
    """
    rows = {**given, **{key: {key: 0} for key in rights}}
    readings = follow(steps, rows, rights)
    carried = {**rows, **{key: reading.carries for key, reading in readings.items()}}
    by_key = {step.key: step for step in steps}
    refused: dict[str, str] = {}
    for site in sorted(topology.sites, key=lambda site: site.name):
        name = site.name
        if name in first:
            continue
        why = excluded.get(name) or (
            "does not answer" if name in topology.away else "has stores only" * site.stores_only
        )
        found: Second | None = None
        if not why:
            found, why = _at(name, by_key, outputs, carried, rights)
        if found is not None and site.trust == "steward":
            names = [f"{s.operation.name}@{s.operation.version}" for s in _of(found, by_key)]
            lacks = sorted(set(names) - installed.get(name, frozenset()))
            why = f"a steward site, and {', '.join(lacks)} is not installed there" if lacks else ""
        if found is not None and not why:
            return found
        refused[name] = why
    raise NotGranted(
        {"second run": "no site may do it: " + "; ".join(f"{s}: {w}" for s, w in refused.items())}
    )


def _of(second: Second, steps: Mapping[str, Step]) -> list[Step]:
    return [steps[key] for key in second.steps]


def _at(
    site: str,
    steps: Mapping[str, Step],
    outputs: Sequence[str],
    carried: Mapping[str, Rows],
    rights: Rights,
) -> tuple[Second | None, str]:
    """What a second run at a site takes; or why it cannot be there."""
    reasons: list[str] = []

    def moves(key: str) -> bool:
        """Whether what a key stands for may be brought there."""
        for source, applied in carried.get(key, {}).items():
            for right in rights.get(source, ()):
                denial = right.goes_to(site, applied)
                if denial is not None:
                    reasons.append(denial.because)
                    return False
        return True

    there: dict[str, bool] = {}
    runs: set[str] = set()
    for key, step in steps.items():
        for one in step.inputs:
            if one not in there:
                there[one] = moves(one)
        if all(there[one] for one in step.inputs):
            runs.add(key)
            there[key] = True
        else:  # its rows may come, when it has been done where it has to be
            there[key] = bool(carried.get(key)) and moves(key)
    if not runs.issuperset(outputs):
        return None, reasons[0] if reasons else "a result cannot be made there"
    needed: set[str] = set()
    stack = list(outputs)
    while stack:
        key = stack.pop()
        if key not in needed:
            needed.add(key)
            stack.extend(steps[key].inputs if key in runs else ())
    return (
        Second(
            site=site,
            brought=tuple(sorted(needed - runs)),
            steps=tuple(key for key in steps if key in needed & runs),
        ),
        "",
    )

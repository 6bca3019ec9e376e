"""Flooring: how many rows each step of an order has to get, and of which datasets they are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from dataflow.graph.operation import Step
from dataflow.policy.rights import Reading, Right, Rows


def floors(
    steps: Sequence[Step],
    rows: Mapping[str, Rows],
    readings: Mapping[str, Reading],
    rights: Mapping[str, Sequence[Right]],
) -> dict[str, tuple[int, ...]]:
    """Rows that each input must have of whoever computes; who only selects may go below."""
    found: dict[str, tuple[int, ...]] = {}
    for step, owned in _computing(steps, rows, readings, rights):
        wanted = tuple(max(one.values(), default=0) for one in owned)
        if any(wanted):
            found[step.key] = wanted
    return found


def guarded(
    steps: Sequence[Step],
    rows: Mapping[str, Rows],
    readings: Mapping[str, Reading],
    rights: Mapping[str, Sequence[Right]],
) -> dict[str, dict[str, int]]:
    """Key of each input that somebody computes with → datasets with a floor whose rows it has."""
    found: dict[str, dict[str, int]] = {}
    for step, owned in _computing(steps, rows, readings, rights):
        for key, one in zip(step.inputs, owned, strict=True):
            if one:
                found[key] = one
    return found


def uncounted(
    steps: Sequence[Step], known: Mapping[str, Sequence[int]], whole: Collection[str]
) -> Step | None:
    """A command that would get rows that nobody counts: not those of a registered dataset.

    Parameters
    ----------
    known
        The floors of each step.
    whole
        Keys of registered datasets: how many rows these have their owner says.
    """
    for step in steps:
        for key, floor in zip(step.inputs, known.get(step.key, ()), strict=False):
            if step.operation.command and floor and key not in whole:
                return step
    return None


def _computing(
    steps: Sequence[Step],
    rows: Mapping[str, Rows],
    readings: Mapping[str, Reading],
    rights: Mapping[str, Sequence[Right]],
) -> Iterator[tuple[Step, list[dict[str, int]]]]:
    """Steps that pass no rows on, and for each input the floors of the datasets whose rows it has."""
    least = {key: max((r.row_floor for r in found), default=0) for key, found in rights.items()}
    for step in steps:
        if readings[step.key].carries:
            continue
        carried = [
            readings[key].carries if key in readings else rows.get(key, {}) for key in step.inputs
        ]
        yield step, [{k: least[k] for k in one if least.get(k, 0)} for one in carried]

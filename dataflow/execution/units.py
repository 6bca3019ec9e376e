"""The plan of a job as seen from one of its units: where it runs, what it reads, what is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dataflow.datasets import Replica
from dataflow.placement.plan import Plan, Segment, Transfer

if TYPE_CHECKING:
    from dataflow.execution.state import JobState


def part_of(plan: Plan, name: str) -> Segment | Transfer:
    """What the plan says of a unit."""
    return plan.segment_by_id.get(name) or plan.transfer_by_id[name]


def site_of(plan: Plan, name: str) -> str:
    """The site that runs a unit."""
    part = part_of(plan, name)
    return (part.at or part.target) if isinstance(part, Transfer) else part.site


def sites_of(plan: Plan, name: str) -> tuple[str, ...]:
    """The sites that a unit cannot do without."""
    part = part_of(plan, name)
    if not isinstance(part, Transfer):
        return (part.site,)
    return tuple(dict.fromkeys(site for site in (part.source, part.target, part.at) if site))


def all_stored(state: JobState, name: str) -> bool:
    """Whether all that a unit makes is stored where it should be."""
    part = part_of(state.plan, name)
    if isinstance(part, Transfer):
        return (part.key, part.target) in state.stored
    return all((key, part.site) in state.stored for key in part.outputs)


def attempt_wanted(state: JobState, name: str) -> int:
    """Number of the order of a unit that must be under way; 0 if none must."""
    unit = state.units[name]
    if unit.status == "running":
        return unit.attempt
    begins = state.status == "running" and not state.replan and unit.status == "waiting"
    return unit.attempt + 1 if begins and ready(state, name) else 0


def ready(state: JobState, name: str) -> bool:
    """Whether all that a unit reads is where it runs."""
    part = part_of(state.plan, name)
    if isinstance(part, Transfer):
        return part.replica is not None or (part.key, part.source) in state.stored
    return all(
        key in part.replicas or (key, part.site) in state.stored or _held(state, key, part.site)
        for key in part.inputs
    )


def _held(state: JobState, key: str, site: str) -> bool:
    replica = state.plan.replicas.get(key)
    return replica is not None and replica.site == site


def inputs_of(state: JobState, name: str) -> dict[str, Replica]:
    """The copies that a unit reads, by key."""
    return dict(copies_of(state, part_of(state.plan, name)))


def copies_of(state: JobState, part: Segment | Transfer) -> Iterator[tuple[str, Replica]]:
    """The copies that a part of the plan reads, with their keys, as far as they are there."""
    if isinstance(part, Transfer):
        stored = state.stored.get((part.key, part.source))
        replica = part.replica or (stored.replica if stored else None)
        if replica is not None:
            yield part.key, replica
        return
    for key in part.inputs:
        stored = state.stored.get((key, part.site))
        if key in part.replicas:
            yield key, part.replicas[key]
        elif stored is not None:
            yield key, stored.replica
        elif _held(state, key, part.site):
            yield key, state.plan.replicas[key]

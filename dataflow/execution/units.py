"""The plan of a job as seen from one of its units: where it runs, what it reads, what is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dataflow.datasets import Replica
from dataflow.placement.plan import Comparison, Plan, Release, Segment, Transfer

if TYPE_CHECKING:
    from dataflow.execution.state import JobState


Part = Segment | Transfer | Release | Comparison


def part_of(plan: Plan, name: str) -> Part:
    """What the plan says of a unit."""
    part = plan.segment_by_id.get(name) or plan.transfer_by_id.get(name)
    return part or plan.comparison_by_id.get(name) or plan.release_by_id[name]


def running(state: JobState) -> list[tuple[str, str]]:
    """What runs now, and where."""
    return [
        described(state.plan, part_of(state.plan, name))
        for name, unit in state.units.items()
        if unit.status == "running"
    ]


def described(plan: Plan, part: Part) -> tuple[str, str]:
    """What a unit does, and where, as people are told."""
    if isinstance(part, Transfer):
        return f"{plan.label(part.key)} moves", f"{part.source} → {part.target}"
    if isinstance(part, Comparison):
        return f"{plan.label(part.key)} is compared", f"{part.site}, {part.other}"
    if isinstance(part, Release):
        return f"{plan.label(part.key)} is given up", part.site
    labels = [plan.label(key) for key in part.steps]
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return ", ".join(labels[:3]) + more, part.site


def is_patient(plan: Plan, name: str) -> bool:
    """Whether a unit waits for its site as long as it takes."""
    transfer = plan.transfer_by_id.get(name)
    return transfer is not None and transfer.patient


def site_of(plan: Plan, name: str) -> str:
    """The site that runs a unit."""
    part = part_of(plan, name)
    return (part.at or part.target) if isinstance(part, Transfer) else part.site


def sites_of(plan: Plan, name: str) -> tuple[str, ...]:
    """The sites that a unit cannot do without."""
    part = part_of(plan, name)
    if is_patient(plan, name):
        return ()
    if isinstance(part, Comparison):
        return part.site, part.other
    if not isinstance(part, Transfer):
        return (part.site,)
    return tuple(dict.fromkeys(site for site in (part.source, part.target, part.at) if site))


def all_stored(state: JobState, name: str) -> bool:
    """Whether all that a unit makes is stored where it should be."""
    part = part_of(state.plan, name)
    if isinstance(part, Transfer):
        return (part.key, part.target) in state.stored
    if isinstance(part, Release):
        return part.replica.url in state.released
    if isinstance(part, Comparison):
        return part.key in state.compared
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
    again = state.plan.again
    if isinstance(part, Comparison):
        mine = part.replica is not None or (part.key, part.site) in state.stored
        return mine and (part.key, part.other) in state.stored
    if isinstance(part, Transfer):
        if again is not None and any(
            part.key == c.key and part.key not in state.compared for c in again.comparisons
        ):
            return False  # a result that is not given out yet
        return part.replica is not None or (part.key, part.source) in state.stored
    if isinstance(part, Release):
        return copy_of(state, part) is not None
    if again is not None and part is again.segment:
        # After the first run, in whose environment it is to be.
        first = all(c.replica or (c.key, c.site) in state.stored for c in again.comparisons)
        if not first:
            return False
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


def copy_of(state: JobState, part: Release) -> Replica | None:
    """The copy for which another one is given up, once it is there."""
    stored = state.stored.get((part.key, part.target))
    if stored is not None:
        return stored.replica
    held = state.plan.replicas.get(part.key)
    return held if held is not None and held.site == part.target else None


def copies_of(state: JobState, part: Part) -> Iterator[tuple[str, Replica]]:
    """The copies that a part of the plan reads, with their keys, as far as they are there."""
    if isinstance(part, Release):
        yield part.key, part.replica
        return
    if isinstance(part, Comparison):
        second = state.stored.get((part.key, part.other))
        if second is not None:
            yield part.key, second.replica
        return
    if isinstance(part, Transfer):
        stored = state.stored.get((part.key, part.source))
        replica = part.replica or (stored.replica if stored else None)
        if part.patient and replica is not None:
            # One that failed goes to the next copy that this job has made.
            others = [
                found.replica
                for (key, site), found in state.stored.items()
                if key == part.key and site not in (part.source, part.target)
            ]
            copies = [replica, *others]
            replica = copies[state.units[part.id].failures % len(copies)]
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

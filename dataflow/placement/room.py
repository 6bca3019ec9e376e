"""Room: what a plan keeps at sites, and where there is none left for it. Pure.

Results and copies lie in the first store for results of a site. Where its owner has said how much may be
there, what the catalog knows of is counted off, and a plan must do with the rest: a site is no
candidate for a step that needs more than that by itself, and what would not fit together is put elsewhere. A
size that nobody knows rules nothing out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataflow._quantities import format_bytes
from dataflow.datasets import Replica
from dataflow.errors import PlacementError
from dataflow.graph.operation import Step
from dataflow.placement.amounts import amounts_of
from dataflow.placement.conflict import DISK
from dataflow.placement.cost import transfers
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan
from dataflow.placement.problem import Floats, Problem
from dataflow.placement.segments import cut
from dataflow.policy.check import Verdict
from dataflow.sites import Topology

Rooms = Mapping[str, int]
Verdicts = Mapping[str, Mapping[str, Verdict]]


def rooms_of(topology: Topology, replicas: Mapping[str, Sequence[Replica]]) -> dict[str, int]:
    """Bytes that are left at each site whose owner has said how many there are.

    Parameters
    ----------
    replicas
        Copies by key, of all that is known.
    """
    limited = {}
    for site in topology.sites:
        stores = topology.stores_at(site.name)
        first = next((store for store in stores if store.purpose == "results"), None)
        if first is not None and first.room:
            limited[site.name, first.name] = first.room
    if not limited:
        return {}
    for copies in replicas.values():
        for copy in copies:
            if (copy.site, copy.store) in limited:
                limited[copy.site, copy.store] -= copy.nbytes
    return {site: max(0, left) for (site, _), left in limited.items()}


def within_room(
    verdicts: Verdicts,
    steps: Sequence[Step],
    problem: Problem,
    rooms: Rooms,
    *,
    kept: Collection[str],
    guessed: Collection[str],
) -> Verdicts:
    """The verdicts, and a refusal where a step by itself needs more room than there is.

    Parameters
    ----------
    kept
        Keys of the results that are stored wherever they are made.
    guessed
        Keys of those whose size nobody knows.
    """
    if not rooms:
        return verdicts
    found, held = dict(verdicts), len(problem.held)
    for task, step in enumerate(steps):
        own = problem.nbytes[task] if step.key in kept and step.key not in guessed else 0.0
        brought = [problem.held_bytes[item] for item in problem.inputs[task] if item < held]
        needs: Floats = own + (np.sum(brought, axis=0) if brought else np.zeros(len(problem.sites)))
        row = found[step.key]
        refused = {
            name: refusal(float(needs[number]), rooms[name])
            for number, name in enumerate(problem.sites)
            if name in rooms and needs[number] > rooms[name] and name in row and row[name].allowed
        }
        if refused:
            found[step.key] = {**row, **refused}
    return found


def refusal(needed: float, left: float) -> Verdict:
    """Why a site is none for a step."""
    return Verdict(
        False,
        DISK,
        f"needs room for {format_bytes(round(needed))}, and there is {format_bytes(round(left))}",
    )


@dataclass(frozen=True, slots=True)
class Overfull:
    """A site that would hold more than it can, and the steps that best go elsewhere: none, if none can."""

    site: str
    needed: float
    room: int
    tasks: tuple[int, ...] = ()

    def said(self) -> str:
        """The same for people."""
        return (
            f"results and copies of this plan need {format_bytes(round(self.needed))} at {self.site}, "
            f"where there is room for {format_bytes(self.room)}\n"
            f"What you can do: remove results nobody needs at {self.site}, have its owner give more "
            "(room: of its store), or ask for fewer results at once."
        )


def overfull(
    problem: Problem,
    sites: Sequence[int],
    rooms: Rooms,
    *,
    kept: Collection[str],
    guessed: Collection[str],
) -> Overfull | None:
    """The first site that a choice of sites fills beyond its room; ``None`` if all fits.

    Of the steps that can go elsewhere it names as many of the largest as make the rest fit.
    """
    if not rooms:
        return None
    held = len(problem.held)
    asked = {t for t, key in enumerate(problem.tasks) if key in kept}
    stored = {task for part in cut(problem, sites, asked) for task in part.outputs}
    used = np.zeros(len(problem.sites))
    share = np.zeros(len(problem.tasks))  # what leaves a site with each of its steps, at most
    for item, target in transfers(problem, sites):
        if item >= held and problem.tasks[item - held] in guessed:
            continue
        nbytes = problem.arrival(item, sites, target)[1]
        used[target] += nbytes
        readers = [task for task in problem.users[item] if sites[task] == target]
        share[readers] += nbytes / max(1, len(readers))
    for task in stored:
        if problem.tasks[task] not in guessed:
            used[sites[task]] += problem.nbytes[task]
            share[task] += problem.nbytes[task]
    for number, name in enumerate(problem.sites):
        if name in rooms and used[number] > rooms[name]:
            elsewhere = problem.within.sum(axis=1) > 1
            mine = [t for t, at in enumerate(sites) if at == number and elsewhere[t] and share[t]]
            largest = _largest(mine, share, float(used[number]) - rooms[name])
            return Overfull(name, float(used[number]), rooms[name], largest)
    return None


def _largest(tasks: Sequence[int], share: Floats, excess: float) -> tuple[int, ...]:
    """As many of the largest as come to this excess; all, if they do not."""
    found = []
    for task in sorted(tasks, key=lambda t: -share[t]):
        if excess <= 0:
            break
        found.append(task)
        excess -= float(share[task])
    return tuple(found)


def has_room(plan: Plan, rooms: Rooms, measured: Measurements) -> Plan:
    """The plan, if all that it keeps and copies fits.

    Parameters
    ----------
    measured
        What the plan was made by: it says what results take in stores.

    Raises
    ------
    PlacementError
        If it does not, and where.
    """
    if not rooms:
        return plan
    used: dict[str, float] = {}
    guessed = {key for key, extent in plan.extents.items() if extent.guessed.startswith("unknown")}
    for transfer in plan.transfers:
        if transfer.replica is not None or transfer.key not in guessed:
            used[transfer.target] = used.get(transfer.target, 0.0) + transfer.nbytes
    kept = _stored_bytes(plan, measured)
    for segment in plan.segments:
        for key in segment.outputs:
            if key not in guessed:
                used[segment.site] = used.get(segment.site, 0.0) + kept[key]
    for site, nbytes in used.items():
        if site in rooms and nbytes > rooms[site]:
            raise PlacementError(Overfull(site, nbytes, rooms[site]).said())
    return plan


def _stored_bytes(plan: Plan, measured: Measurements) -> dict[str, float]:
    """Bytes that the result of each step takes in a store, as it was planned."""
    sizes = {key: extent.nbytes for key, extent in plan.extents.items()}
    nbytes = amounts_of(plan.steps, (), plan.topology, {}, measured, sizes).nbytes.tolist()
    return {step.key: each for step, each in zip(plan.steps, nbytes, strict=True)}

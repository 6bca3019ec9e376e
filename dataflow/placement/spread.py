"""Spread: copies of results, and of datasets, at sites that were asked for; added to a plan.

Pure. What is to be copied exists when the rest of the plan is through, so that the copies are
priced on top of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataflow.datasets import Replica
from dataflow.graph.keys import digest
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Likely, Plan, Release, Transfer
from dataflow.placement.prices import per_byte
from dataflow.placement.way import way
from dataflow.sites import Link, Topology

#: Key of a result → site that shall have a copy → whether there is no other that would do.
Wanted = Mapping[str, Mapping[str, bool]]


def spread(
    plan: Plan,
    wanted: Wanted,
    *,
    topology: Topology,
    replicas: Mapping[str, Sequence[Replica]],
    measurements: Measurements,
) -> Plan:
    """The plan with a transfer to each site that shall have a copy and has none.

    A copy that must be at one site and no other waits for that site as long as it takes.

    Parameters
    ----------
    replicas
        Copies by key that exist already; from the nearest of them at a site that answers is copied.
    """
    if not wanted:
        return plan
    roads = {
        (link.source, link.target): link for row in measurements.apply_to(topology) for link in row
    }
    held = {(t.key, t.target) for t in plan.transfers}
    added: list[Transfer] = []
    for key, sites in wanted.items():
        copies = [copy for copy in replicas.get(key, ()) if copy.site not in topology.away]
        there = {copy.site for copy in replicas.get(key, ())} | _made_at(plan, key)
        added += [
            _transfer(plan, key, site, patient, copies, roads, topology)
            for site, patient in sites.items()
            if site not in there and (key, site) not in held
        ]
    transfers = (*plan.transfers, *added)
    later, more = max((t.seconds for t in added), default=0.0), sum(t.nbytes for t in added)
    return replace(
        plan,
        id=digest([plan.id, [t.id for t in added]]) if added else plan.id,
        transfers=transfers,
        copies={**plan.copies, **{key: tuple(sites) for key, sites in wanted.items()}},
        seconds=plan.seconds + later,
        nbytes=plan.nbytes + more,
        likely=_beside(plan.likely, later, more),
        money=plan.money + sum(t.nbytes * per_byte(topology, t.source, t.target) for t in added),
    )


def _beside(likely: Likely | None, later: float, more: int) -> Likely | None:
    if likely is None:
        return None
    (low, high), (few, many) = likely.seconds, likely.nbytes
    return Likely(seconds=(low + later, high + later), nbytes=(few + more, many + more))


def moved(plan: Plan, key: str, target: str, source: Replica) -> Plan:
    """A plan that copies to ``target`` as one that moves there: ``source`` is given up in the end.

    A copy that is cut off leaves nothing behind.
    """
    release = Release(
        id=f"r:{key[:12]}:{source.site}", key=key, site=source.site, target=target, replica=source
    )
    transfers = tuple(replace(t, clean=True, patient=False) for t in plan.transfers)
    return replace(plan, id=digest([plan.id, release.id]), transfers=transfers, releases=(release,))


def _made_at(plan: Plan, key: str) -> set[str]:
    made = plan.assignment_by_key.get(key)
    return {made.site} if made is not None and made.reused is None else set()


def _transfer(
    plan: Plan,
    key: str,
    target: str,
    patient: bool,
    copies: Sequence[Replica],
    roads: Mapping[tuple[str, str], Link],
    topology: Topology,
) -> Transfer:
    made = _made_at(plan, key)
    if made:
        replica, source, nbytes = None, made.pop(), plan.extents[key].nbytes
    else:
        usable = copies or [plan.replicas[key]]
        replica = min(
            usable, key=lambda r: (roads[r.site, target].seconds(r.nbytes), r.site, r.url)
        )
        source, nbytes = replica.site, replica.nbytes
    road = roads[source, target]
    return replace(
        way(topology, road, replica),
        id=f"t:{key[:12]}:{source}:{target}",
        key=key,
        nbytes=nbytes,
        seconds=road.seconds(nbytes),
        patient=patient,
    )

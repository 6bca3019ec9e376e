"""Again: a second run of a graph at another site, added to a finished plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataflow.datasets import Replica
from dataflow.graph.keys import digest
from dataflow.placement.plan import Comparison, Plan, SecondRun, Segment, Transfer
from dataflow.placement.way import way
from dataflow.policy.twice import Second
from dataflow.sites import Topology


def run_again(
    plan: Plan,
    second: Second,
    outputs: Sequence[str],
    *,
    topology: Topology,
    replicas: Mapping[str, Sequence[Replica]],
) -> Plan:
    """The plan with a second run of these outputs, and their comparison.

    Parameters
    ----------
    replicas
        Copies by key that exist already.
    """
    site = second.site
    held: dict[str, Replica] = {}
    transfers: list[Transfer] = []
    stored: set[str] = set()
    for key in second.brought:
        made = plan.assignment_by_key.get(key)
        if made is not None and made.reused is None:
            stored.add(key)
            transfers.append(_brought(plan, key, made.site, site, None, topology))
            continue
        copies = [copy for copy in replicas.get(key, ()) if copy.site not in topology.away]
        copies = copies or [plan.replicas[key]]
        there = next((copy for copy in copies if copy.site == site), None)
        if there is not None:
            held[key] = there
            continue
        copy = min(copies, key=lambda c: (topology.link(c.site, site).seconds(c.nbytes), c.site))
        transfers.append(_brought(plan, key, copy.site, site, copy, topology))
    work = sum(plan.assignment_by_key[key].seconds for key in second.steps)
    segment = Segment(
        id=f"s:again:{digest([*second.steps, site])[:12]}:{site}",
        site=site,
        steps=second.steps,
        inputs=second.brought,
        outputs=tuple(outputs),
        seconds=work,
        replicas=held,
    )
    comparisons = tuple(_comparison(plan, key, site) for key in outputs)
    names = ", ".join(plan.label(key) for key in outputs)
    note = f"{names}: run again at {site}, and given out if both runs come to the same"
    return replace(
        plan,
        id=digest([plan.id, segment.id]),
        segments=tuple(_storing(part, stored) for part in plan.segments),
        again=SecondRun(
            site=site, segment=segment, transfers=tuple(transfers), comparisons=comparisons
        ),
        notes=(*plan.notes, note),
    )


def _storing(segment: Segment, keys: set[str]) -> Segment:
    """A segment that also stores those of its steps that the second run begins with."""
    more = [key for key in segment.steps if key in keys and key not in segment.outputs]
    return replace(segment, outputs=(*segment.outputs, *more)) if more else segment


def _brought(
    plan: Plan, key: str, source: str, target: str, replica: Replica | None, topology: Topology
) -> Transfer:
    road = topology.link(source, target)
    nbytes = replica.nbytes if replica is not None else plan.extents[key].nbytes
    return replace(
        way(topology, road, replica),
        id=f"t:again:{key[:12]}:{source}:{target}",
        key=key,
        nbytes=nbytes,
        seconds=road.seconds(nbytes),
    )


def _comparison(plan: Plan, key: str, other: str) -> Comparison:
    made = plan.assignment_by_key[key]
    site = made.site if made.reused is None else made.reused.site
    return Comparison(
        id=f"c:{key[:12]}:{site}", key=key, site=site, other=other, replica=made.reused
    )

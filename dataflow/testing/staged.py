"""Plans and journals for views to show: real plans, over sites that are not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Extent, Replica, Variable
from dataflow.execution.events import (
    Crossed,
    Ended,
    Event,
    JobCreated,
    JobStarted,
    Progress,
    Report,
    Stored,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.state import apply, replay
from dataflow.execution.units import attempt_wanted, part_of
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.participant.planning import plan_graph
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan, Segment, Transfer
from dataflow.sites import Link, Site, Topology

SITES = ("amsterdam", "delft", "groningen", "utrecht")


@operation(kind="opaque", output=1_000_000)
def smooth(run: Any, width: int = 3) -> Any:
    return run


@operation(kind="opaque", output=1_000)
def compare(one: Any, other: Any) -> Any:
    return one - other


def dataset(name: str, site: str) -> Dataset:
    variable = Variable(name="x", dims=("t",), shape=(10**6,), dtype="float64", nbytes=8 * 10**6)
    return Dataset(
        id=f"id-{name}",
        name=name,
        key=f"{name:x<32}",
        kind="array",
        extent=Extent(nbytes=8 * 10**6, variables=(variable,)),
        site=site,
    )


def snapshot(count: int = 2) -> Snapshot:
    sites = tuple(Site(name=name, workers=2) for name in SITES)
    links = tuple(
        Link(source=a, target=b, bandwidth=1e7, latency=0.02)
        for a in SITES
        for b in SITES
        if a != b
    )
    datasets = tuple(dataset(f"run{n}", SITES[n % 2]) for n in range(count))
    copies = {
        one.key: (
            Replica(
                key=one.key,
                site=one.site,
                store="data",
                url="file:///x",
                format="zarr",
                nbytes=8_000_000,
            ),
        )
        for one in datasets
    }
    return Snapshot(
        datasets=datasets,
        replicas=copies,
        topology=Topology(sites=sites, links=links, away=frozenset({"utrecht"})),
    )


def graph(steps: int = 3, known: Snapshot | None = None) -> Graph:
    """Chains of smoothing, two at a time compared in the end."""
    known = known or snapshot()
    ends = [of_dataset(one) for one in known.datasets]
    number = 0
    while number < steps - len(ends) // 2:
        ends[number % len(ends)] = smooth(ends[number % len(ends)], width=number + 1)
        number += 1
    pairs = [compare(ends[n], ends[n + 1]) for n in range(0, len(ends) - 1, 2)]
    return merge(pairs)


def participant(known: Snapshot) -> Any:
    """What plans for a session, in this world."""

    def plan(graph: Graph, **asked: Any) -> Plan:
        return plan_graph(graph, known, Measurements(), **asked)

    return SimpleNamespace(plan=plan)


def plan(steps: int = 3, count: int = 2, **asked: Any) -> Plan:
    known = snapshot(count)
    made: Plan = participant(known).plan(graph(steps, known), **asked)
    return made


def journal(
    plan: Plan, *, progress: int = 0, until: float = 1.0, start: float = 1_000.0
) -> list[Event]:
    """What the journal of a run would say: every unit in its order, a second each.

    Parameters
    ----------
    progress
        Reports of progress in all, spread over the units.
    until
        Share of the units that come to an end.
    """
    events: list[Event] = [JobCreated(job="job", plan=plan, user="anna", time=start)]
    events.append(JobStarted(time=start))
    state, time = replay(events), start
    count = len(state.units)
    each = progress // max(1, count)
    for number in range(count):
        name = next((unit for unit in state.units if attempt_wanted(state, unit)), None)
        if name is None:
            break
        part = part_of(plan, name)
        site = part.target if isinstance(part, Transfer) else part.site
        keys = part.outputs if isinstance(part, Segment) else (part.key,)
        new: list[Event] = [UnitStarted(unit=name, site=site, attempt=1, time=time)]
        reports: list[Report] = [Progress(done=n, total=each) for n in range(each)]
        if number < until * count:
            if isinstance(part, Transfer):
                reports.append(
                    Crossed(
                        key=part.key,
                        source=part.source,
                        target=part.target,
                        nbytes=part.nbytes + 1_000,
                        seconds=1.0,
                    )
                )
            reports += [_stored(plan, key, site) for key in keys]
            reports.append(Ended(seconds=1.0))
        for place, report in enumerate(reports):
            at = time + (place + 1) / len(reports)
            new.append(UnitReported(unit=name, attempt=1, report=report, number=place, time=at))
        for event in new:
            state = apply(state, event)
        events += new
        time += 1.0
        if number >= until * count:
            break
    return events


def _stored(plan: Plan, key: str, site: str) -> Stored:
    extent = plan.extents[key]
    found = Dataset(
        id=key[:8], name=plan.label(key), key=key, kind="array", extent=extent, site=site
    )
    copy = Replica(
        key=key,
        site=site,
        store="results",
        url=f"file:///{key}",
        format="zarr",
        nbytes=extent.nbytes,
    )
    return Stored(key=key, replica=copy, dataset=found)

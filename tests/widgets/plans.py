"""Plans for views to show: real ones, over three sites of which one does not answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Extent, Replica, Variable
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.participant.planning import plan_graph
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan
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
    return participant(known).plan(graph(steps, known), **asked)

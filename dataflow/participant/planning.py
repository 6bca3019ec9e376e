"""Planning: from what this participant knows to a plan, and to another one when a job is stuck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Replica
from dataflow.errors import PlacementError
from dataflow.execution.state import JobState
from dataflow.graph.graph import Graph
from dataflow.placement.make import graph_of, make_plan
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Keep, Plan
from dataflow.placement.solve import Rule
from dataflow.policy.check import check
from dataflow.sites import Link, Topology

#: Bytes per second over a road that is closed.
BLOCKED = 1.0


def plan_graph(
    graph: Graph,
    snapshot: Snapshot,
    measurements: Measurements,
    *,
    scope: Mapping[str, str] | None = None,
    excluded: Mapping[str, str] | None = None,
    result_at: str = "",
    keep: Keep = "results",
    rule: Rule = "cheapest",
    reuse: bool = True,
    pinned: Mapping[str, str] | None = None,
    near: str = "",
) -> Plan:
    """A plan for a graph in the world as the snapshot shows it.

    Raises
    ------
    PlacementError
        If the scope names a step or a site that is not there, or no plan is possible.
    """
    scope, excluded, pinned = dict(scope or {}), dict(excluded or {}), dict(pinned or {})
    _check_scope(graph, snapshot, scope, excluded)
    _check_pinned(graph, snapshot, pinned)
    verdicts = check(graph, snapshot.topology, scope=scope, excluded=excluded)
    return make_plan(
        graph,
        topology=snapshot.topology,
        replicas=snapshot.replicas,
        verdicts=verdicts,
        measurements=measurements,
        result_at=result_at,
        keep=keep,
        rule=rule,
        reuse=reuse,
        pinned=pinned,
        near=near,
        options={"scope": scope, "excluded": excluded, "pinned": pinned},
    )


def plan_rest(state: JobState, snapshot: Snapshot, measurements: Measurements, near: str) -> Plan:
    """A plan for what is left of a job: without the sites it lost, with what it has stored.

    Raises
    ------
    PlacementError
        If there is no other way.
    """
    plan = state.plan
    graph = graph_of(plan)
    scope, excluded, pinned = (_words(plan, name) for name in ("scope", "excluded", "pinned"))
    excluded |= dict.fromkeys(state.lost, "lost during this job")
    verdicts = check(graph, snapshot.topology, scope=scope, excluded=excluded)
    return make_plan(
        graph,
        topology=snapshot.topology,
        replicas=_copies(state, snapshot, graph, excluded),
        verdicts=verdicts,
        measurements=measurements,
        result_at=plan.result_at,
        keep=plan.keep,
        rule=plan.options.get("rule", "cheapest"),
        pinned={step: site for step, site in pinned.items() if site not in excluded},
        near=near,
        options={**plan.options, "scope": scope, "excluded": excluded},
    )


def without_way_out(topology: Topology, site: str) -> Topology:
    """The world in which the roads out of a site are so slow that no plan takes them by choice."""
    blocked = [
        Link(source=site, target=other.name, bandwidth=BLOCKED, latency=0.0)
        for other in topology.sites
        if other.name != site
    ]
    links = [link for link in topology.links if link.source != site]
    return replace(topology, links=(*links, *blocked))


def _copies(
    state: JobState, snapshot: Snapshot, graph: Graph, excluded: Mapping[str, str]
) -> Mapping[str, Sequence[Replica]]:
    """All usable copies: the catalog's, and what this job has stored, which may be newer."""
    found: dict[str, dict[tuple[str, str], Replica]] = {}
    reuse = state.plan.options.get("reuse", True)
    for key, copies in snapshot.replicas.items():
        if reuse or key in graph.sources:
            found[key] = {(copy.site, copy.url): copy for copy in copies}
    for (key, _), stored in state.stored.items():
        found.setdefault(key, {})[stored.replica.site, stored.replica.url] = stored.replica
    return {
        key: [c for c in copies.values() if c.site not in excluded and c.url not in state.gone]
        for key, copies in found.items()
    }


def _words(plan: Plan, name: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in (plan.options.get(name) or {}).items()}


def _check_pinned(graph: Graph, snapshot: Snapshot, pinned: Mapping[str, str]) -> None:
    sites, labels = snapshot.topology.site_by_name, {step.label for step in graph.steps.values()}
    for word, site in pinned.items():
        if word not in labels and word not in graph.steps:
            raise PlacementError(
                f"pinned: no step is called {word!r}; there are {', '.join(sorted(labels))}"
            )
        if site not in sites:
            raise PlacementError(f"pinned: no site {site!r}; there are {', '.join(sorted(sites))}")


def _check_scope(
    graph: Graph, snapshot: Snapshot, scope: Mapping[str, str], excluded: Mapping[str, Any]
) -> None:
    sites = snapshot.topology.site_by_name
    names = {step.label for step in graph.steps.values()}
    names |= {step.operation.name for step in graph.steps.values()}
    names |= {step.operation.role for step in graph.steps.values()} - {""}
    for word, site in scope.items():
        if word not in names:
            raise PlacementError(
                f"scope: no step, operation or role is called {word!r}; there are "
                + ", ".join(sorted(names))
            )
        if site not in sites:
            raise PlacementError(f"scope: no site {site!r}; there are {', '.join(sorted(sites))}")
    for site in excluded:
        if site not in sites:
            raise PlacementError(f"without: no site {site!r}; there are {', '.join(sorted(sites))}")

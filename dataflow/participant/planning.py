"""Planning: from what this participant knows to a plan, and to another one when a job is stuck."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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


def with_relays(topology: Topology, me: str, hidden: Collection[str]) -> Topology:
    """The roads as they are for plans that are made, and kept, at ``me``.

    Parameters
    ----------
    hidden
        Sites whose agents nobody can ask but ``me``, and ``me`` if it has no agent. What goes to or
        from one of them goes over ``me``, unless the target has measured the road itself and so can
        ask the source.
    """
    known = {(link.source, link.target) for link in topology.links if link.origin == "measured"}
    names = [site.name for site in topology.sites]
    over = []
    for source in names:
        for target in names:
            direct = target == me or not {source, target} & set(hidden)
            if source == target or direct or (source, target) in known:
                continue
            first, second = topology.link(source, me), topology.link(me, target)
            over.append(
                Link(
                    source=source,
                    target=target,
                    bandwidth=min(first.bandwidth, second.bandwidth),
                    latency=first.latency + second.latency,
                    origin="assumed",
                    via=me,
                )
            )
    replaced = {(link.source, link.target) for link in over}
    kept = [link for link in topology.links if (link.source, link.target) not in replaced]
    return replace(topology, links=(*kept, *over))


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

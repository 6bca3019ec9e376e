"""Planning: from what this participant knows to a plan, and to another one when a job is stuck."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Replica
from dataflow.errors import NoAllowedSite, PlacementError, PolicyError
from dataflow.execution.state import JobState
from dataflow.graph.graph import Graph, of_dataset
from dataflow.participant.owners import Asking, ask_owners, asked_again, part_of
from dataflow.participant.reproducing import reproduced
from dataflow.placement.aim import Objective, aim_of
from dataflow.placement.limits import keep_limits
from dataflow.placement.make import graph_of, make_plan
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Keep, Plan
from dataflow.placement.room import has_room, rooms_of
from dataflow.placement.solve import Rule
from dataflow.placement.spread import Wanted, moved, spread
from dataflow.placement.steady import steadily
from dataflow.policy.archetype import Load
from dataflow.policy.check import Verdict
from dataflow.policy.scope import At, Bind, Scope, choose, has_both, scope_of, too_far
from dataflow.sites import Link, Topology
from dataflow.stores import store_for

#: What a road is taken for that nobody can use: no plan takes it if there is any other.
CLOSED_BANDWIDTH, CLOSED_LATENCY = 1e-3, 1e9


def plan_graph(
    graph: Graph,
    snapshot: Snapshot,
    measurements: Measurements,
    *,
    scope: Scope | str | Mapping[str, str] | None = None,
    excluded: Mapping[str, str] | None = None,
    result_at: str = "",
    keep: Keep = "results",
    rule: Rule = "cheapest",
    reuse: bool = True,
    pinned: Mapping[str, str] | None = None,
    near: str = "",
    told: Mapping[str, Any] | None = None,
    asking: Asking | None = None,
    loads: Mapping[str, Load] | None = None,
    partial: bool = False,
    objective: Objective = "balanced",
    deadline: float | None = None,
    budget: float | None = None,
    quantile: float | None = None,
) -> Plan:
    """A plan for a graph in the world as the snapshot shows it.

    Parameters
    ----------
    told
        What else the plan's options are to remember.
    asking
        How the owners of the data are asked.
    loads
        Site → its load, for the choice of the archetype.
    partial
        If a site is lost during the run, results that need it may be left out.
    objective, deadline, budget
        See :func:`dataflow.placement.aim.aim_of`.
    quantile
        See :func:`dataflow.placement.make.make_plan`.

    Raises
    ------
    NotGranted
        If owners do not grant it.
    ScopeError
        If the scope cannot be read, names what is not there, or cannot be honoured.
    PlacementError
        If no plan is possible.
    """
    aim = aim_of(objective, deadline=deadline, budget=budget)
    scope, excluded, pinned = scope_of(scope), dict(excluded or {}), dict(pinned or {})
    _check_scope(graph, snapshot, scope, excluded, keep)
    _check_pinned(graph, snapshot, pinned)
    answer = ask_owners(
        graph, snapshot, asking or Asking(), scope=scope, excluded=excluded, loads=loads
    )
    replicas = answer.readable(snapshot.replicas)
    rooms = rooms_of(snapshot.topology, snapshot.replicas)
    plan = make_plan(
        answer.graph,
        topology=snapshot.topology,
        replicas=replicas,
        verdicts=answer.verdicts,
        measurements=measurements,
        result_at=result_at,
        keep=keep,
        rule=rule,
        reuse=reuse,
        pinned=pinned,
        near=near,
        options={
            "scope": scope.document(),
            "excluded": excluded,
            "pinned": pinned,
            **({"partial": True} if partial else {}),
            **_asked_for(objective, deadline, budget, quantile),
            **(told or {}),
        },
        aim=aim,
        quantile=quantile,
        rooms=rooms,
    )
    wanted = _wanted(answer.graph, snapshot, scope, answer.verdicts, excluded)
    measured = measurements.at(quantile)
    whole = spread(
        plan, wanted, topology=snapshot.topology, replicas=replicas, measurements=measured
    )
    whole = reproduced(answer.written_into(whole), answer, snapshot, replicas, excluded)
    return keep_limits(has_room(_open_roads(whole), rooms, measured), aim)


def _asked_for(
    objective: Objective, deadline: float | None, budget: float | None, quantile: float | None
) -> dict[str, Any]:
    """What the options remember of an aim; nothing of the usual one."""
    words: Any = None
    if isinstance(objective, Mapping):
        words = dict(objective)
    elif objective != "balanced":
        words = objective if isinstance(objective, str) else list(objective)
    asked = {"objective": words, "deadline": deadline, "budget": budget, "quantile": quantile}
    return {name: value for name, value in asked.items() if value is not None}


def plan_move(
    dataset: Dataset,
    to: str,
    snapshot: Snapshot,
    measurements: Measurements,
    *,
    source: str | None = None,
    **asked: Any,
) -> Plan:
    """A plan that brings a dataset to a site and gives up its copy at ``source`` then.

    Raises
    ------
    ScopeError
        If the site is not known, or takes no copies.
    PlacementError
        If it is not clear which copy is meant, or that one cannot be given up.
    """
    copies = [copy for copy in snapshot.replicas_of(dataset) if copy.site != to]
    meant = [copy for copy in copies if source in (None, copy.site)]
    sites = ", ".join(dict.fromkeys(copy.site for copy in copies))
    if not meant:
        where = f"at {source!r}" if source else f"outside of {to!r}"
        raise PlacementError(
            f"{dataset.name!r} has no copy {where} to be moved; copies are at {sites or to}"
        )
    if len(meant) > 1:
        raise PlacementError(
            f"{dataset.name!r} has several copies: {sites}\n"
            "What you can do: say which is given up, with source=."
        )
    (given_up,) = meant
    topology = snapshot.topology
    if given_up.site in topology.away:
        raise PlacementError(f"{given_up.site} does not answer, and cannot give its copy up")
    if given_up.site in topology.stores_only:
        raise PlacementError(f"{given_up.site} is stores only: nobody is there to give a copy up")
    if store_for(given_up.url, topology.stores_at(given_up.site)) is None:
        raise PlacementError(
            f"{given_up.url} lies in no store of {given_up.site}, which does not delete it\n"
            "What you can do: session.replicate() makes a copy and leaves this one."
        )
    held = [copy for copy in copies if copy is given_up]
    held += [copy for copy in snapshot.replicas_of(dataset) if copy.site == to]
    known = replace(snapshot, replicas={**snapshot.replicas, dataset.key: tuple(held)})
    scope = Scope((Bind("", At(to)),))
    if to in topology.away:
        raise scope.wrong(f"{to} does not answer")
    plan = plan_graph(of_dataset(dataset), known, measurements, scope=scope, **asked)
    there = next((copy for copy in held if copy.site == to), None)
    if there is not None:
        plan = replace(plan, replicas={**plan.replicas, dataset.key: there})
    return moved(replace(plan, result_at=to), dataset.key, to, given_up)


def plan_rest(
    state: JobState, snapshot: Snapshot, measurements: Measurements, near: str, now: float = 0.0
) -> Plan:
    """A plan for what is left of a job: without the sites it lost, with what it has stored.

    Where the user allows a partial answer, results for which there is no other way are left out.

    Raises
    ------
    NotGranted
        If owners do not grant the rest any more.
    PlacementError
        If there is no other way.
    """
    plan, graph = state.plan, graph_of(state.plan)
    known = (snapshot, measurements, near, now)
    try:
        return _rest_of(graph, state, *known)
    except (PlacementError, PolicyError):
        if not plan.options.get("partial") or len(graph.outputs) < 2:
            raise
        left, missing = [], dict(plan.missing)
        for output in graph.outputs:
            try:
                _rest_of(part_of(graph, [output]), state, *known)
                left.append(output)
            except (PlacementError, PolicyError):
                missing[plan.label(output)] = state.replan
        if not left:
            raise
    rest = _rest_of(part_of(graph, left), state, *known)
    return replace(rest, missing={**missing, **rest.missing})


def _rest_of(
    graph: Graph,
    state: JobState,
    snapshot: Snapshot,
    measurements: Measurements,
    near: str,
    now: float,
) -> Plan:
    plan = state.plan
    if plan.releases:
        raise PlacementError("a move is not begun anew on another way; the source is as it was")
    excluded, pinned = (_words(plan, name) for name in ("excluded", "pinned"))
    scope = scope_of(plan.options.get("scope") or None)
    excluded |= dict.fromkeys(state.lost, "lost during this job")
    asking = asked_again(plan.request, state.user, now)
    there = {
        key: tuple(copy for copy in copies if copy.url not in state.gone)
        for key, copies in snapshot.replicas.items()
    }
    seen = replace(snapshot, replicas=there) if state.gone else snapshot
    answer = ask_owners(graph, seen, asking, scope=scope, excluded=excluded)
    copies = answer.readable(_copies(state, snapshot, answer.graph, excluded))
    # a deadline was for the whole: the rest goes on without, as well as it can
    aim = aim_of(plan.options.get("objective") or "balanced")
    decided = {step: site for step, site in pinned.items() if site not in excluded}
    rooms = rooms_of(snapshot.topology, snapshot.replicas)
    quantile = plan.options.get("quantile")
    measured = measurements.at(quantile)

    def made(present: Mapping[str, str]) -> Plan:
        return make_plan(
            answer.graph,
            topology=snapshot.topology,
            replicas=copies,
            verdicts=answer.verdicts,
            measurements=measurements,
            result_at=plan.result_at,
            keep=plan.keep,
            rule=plan.options.get("rule", "cheapest"),
            pinned={**present, **decided},
            near=near,
            options={**plan.options, "excluded": excluded},
            aim=aim,
            quantile=quantile,
            rooms=rooms,
        )

    rest = steadily(made, plan, excluded, aim)
    whole = spread(
        rest,
        _wanted(answer.graph, snapshot, scope, answer.verdicts, excluded),
        topology=snapshot.topology,
        replicas=copies,
        measurements=measured,
    )
    done = state.compared
    whole = answer.written_into(whole)
    whole = reproduced(whole, answer, snapshot, copies, excluded, compared=done)
    return has_room(_open_roads(whole), rooms, measured)


def _open_roads(plan: Plan) -> Plan:
    """The plan, if all its copies can be carried over.

    Raises
    ------
    PlacementError
        If one can not: nobody who opens the store of a site of stores takes part in it.
    """
    bare = plan.topology.stores_only
    for transfer in plan.transfers:
        if plan.topology.link(transfer.source, transfer.target).origin != "closed":
            continue
        ends = [site for site in (transfer.source, transfer.target) if site in bare]
        able = {site for site, store in plan.topology.views if store.site in ends}
        raise PlacementError(
            f"nobody can bring {plan.label(transfer.key)!r} from {transfer.source} to "
            f"{transfer.target}: {' and '.join(ends)} has stores only, which "
            f"{transfer.source if transfer.target in bare else transfer.target} does not open, and "
            "neither does this session\n"
            "What you can do: declare that store in the site file of one of them, with a credential "
            f"of its own; now it stands in those of {', '.join(sorted(able)) or 'nobody'}."
        )
    return plan


def with_relays(topology: Topology, me: str, hidden: Collection[str]) -> Topology:
    """The roads as they are for plans that are made, and kept, at ``me``.

    Parameters
    ----------
    hidden
        Sites whose agents nobody can ask but ``me``, and ``me`` if it has no agent. What goes to or
        from one of them goes over ``me``, unless the target has measured the road itself and so can
        ask the source.

    A site of stores is read and written by whoever opens them itself; for others ``me`` does, if it
    can. Where it cannot, the road is closed.
    """
    known = {(link.source, link.target) for link in topology.links if link.origin == "measured"}
    names = [site.name for site in topology.sites]
    over = []
    for source in names:
        for target in names:
            if source == target:
                continue
            if {source, target} & topology.stores_only:
                who = source if target in topology.stores_only else target
                if _carries(topology, source, target, who):
                    continue
                if not _carries(topology, source, target, me):
                    over.append(
                        Link(
                            source=source,
                            target=target,
                            bandwidth=CLOSED_BANDWIDTH,
                            latency=CLOSED_LATENCY,
                            origin="closed",
                        )
                    )
                    continue
            elif target == me or not {source, target} & set(hidden) or (source, target) in known:
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


def _carries(topology: Topology, source: str, target: str, who: str) -> bool:
    """Whether ``who`` opens all that it takes, of sites of stores, to carry a copy over itself.

    It can ask the agent of a site that has one.
    """
    bare = topology.stores_only
    reads = source not in bare or any(s.site == source for s in topology.opened_at(who))
    writes = target not in bare or any(
        s.site == target and s.purpose == "results" for s in topology.opened_at(who)
    )
    return who not in bare and reads and writes


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
    graph: Graph, snapshot: Snapshot, scope: Scope, excluded: Mapping[str, Any], keep: Keep
) -> None:
    sites = snapshot.topology.site_by_name
    words = [word for key in graph.steps for word in _words_of(graph, key)]
    words += [word for key in graph.outputs for word in _words_of(graph, key)]
    scope.check(words, list(sites))
    for key, step in graph.steps.items():
        if key not in graph.outputs and keep != "all":
            bind = scope.bind_of(*_words_of(graph, key))
            if bind is not None and bind.word and has_both(bind.place):
                raise scope.wrong(
                    f"&: the result of {step.label!r} is not asked for, so that it is not stored "
                    "at several sites\nWhat you can do: plan it as a result of its own, or with "
                    "keep='all'.",
                    bind.position,
                )
    for site in excluded:
        if site not in sites:
            raise PlacementError(f"without: no site {site!r}; there are {', '.join(sorted(sites))}")


def _words_of(graph: Graph, key: str) -> tuple[str, ...]:
    """What a scope may call a step, or a dataset that is asked for as it is."""
    step = graph.steps.get(key)
    if step is None:
        return (graph.sources[key].name, graph.sources[key].id)
    return tuple(w for w in (step.label, step.operation.name, step.operation.role) if w)


def _wanted(
    graph: Graph,
    snapshot: Snapshot,
    scope: Scope,
    verdicts: Mapping[str, Mapping[str, Verdict]],
    excluded: Mapping[str, str],
) -> Wanted:
    """Which results and datasets the scope wants at which sites, beside where they are made."""
    topology = snapshot.topology

    def takes(site: str, key: str) -> bool:
        results = any(store.purpose == "results" for store in topology.stores_at(site))
        holds = any(copy.site == site for copy in snapshot.replicas_of(key))
        return (results or holds) and site not in topology.away and site not in excluded

    found: dict[str, dict[str, bool]] = {}
    for key in graph.outputs:
        bind = scope.bind_of(*_words_of(graph, key))
        if key in graph.steps:
            if bind is not None and has_both(bind.place):
                row = verdicts[key]
                found[key] = choose(bind.place, lambda site, row=row: bool(row[site]))  # type: ignore[misc]
        elif bind is not None:
            found[key] = choose(bind.place, lambda site, key=key: takes(site, key))  # type: ignore[misc]
        elif scope.around:
            far = too_far(scope, topology)
            near = [site for site in topology.site_by_name if site not in far]
            found[key] = {
                _nearest_of(snapshot, key, [s for s in near if takes(s, key)], far): False
            }
        for site, only in found.get(key, {}).items():
            _check_target(
                scope, bind, topology, site, only and site not in excluded, takes(site, key)
            )
    return found


def _nearest_of(
    snapshot: Snapshot, key: str, sites: Sequence[str], refused: Mapping[str, str]
) -> str:
    """One of the sites: where a copy is, else where one is soonest."""
    if not sites:
        raise NoAllowedSite(snapshot.resolve(key).name, refused)
    copies = snapshot.replicas_of(key)
    held = [copy.site for copy in copies if copy.site in sites]
    if held:
        return held[0]
    road = snapshot.topology.link
    return min(sites, key=lambda site: min(road(c.site, site).seconds(c.nbytes) for c in copies))


def _check_target(
    scope: Scope, bind: Bind | None, topology: Topology, site: str, only: bool, takes: bool
) -> None:
    """Refuse a copy that cannot come about; a site that is merely away may come back."""
    if takes or (only and site in topology.away):
        return
    position = bind.position if bind is not None else -1
    if site in topology.away:
        raise scope.wrong(f"none of {bind.place if bind else site} answers", position)
    raise scope.wrong(f"{site} has no store that takes copies, or may not be used", position)

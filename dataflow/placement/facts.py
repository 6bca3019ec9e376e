"""Facts: from records (graph, sites, copies, verdicts, measurements) to the solver's arrays.

Here it is settled what has to run at all: a step whose result is stored somewhere within reach is
not run, and neither is what only led to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dataflow.datasets import Dataset, Replica
from dataflow.errors import NoAllowedSite, PlacementError
from dataflow.graph.extents import UNKNOWN
from dataflow.graph.graph import Graph
from dataflow.graph.operation import Operation, Step
from dataflow.placement.amounts import amounts_of, never_run, only_combines, roads_of
from dataflow.placement.conflict import PINNED, UNHEARD, Row, least_change
from dataflow.placement.lifetimes import within_walltime
from dataflow.placement.measurements import GUESSED_FIXED, GUESSED_RATE, Measurements
from dataflow.placement.prices import prices_of
from dataflow.placement.problem import Bools, Floats, Problem
from dataflow.placement.room import Rooms, within_room
from dataflow.policy.check import AWAY, EXCLUDED, Verdict
from dataflow.sites import Link, Topology

Verdicts = Mapping[str, Mapping[str, Verdict]]
Replicas = Mapping[str, Sequence[Replica]]

#: Bytes by which sites are compared as to how near they are.
_NEAR_BYTES = 1e6


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """What does not depend on how the graph is split: sites, roads, copies within reach.

    ``gone`` are the sites that neither run nor serve anything for this plan; ``lost`` the copies of
    which none is within reach; ``rooms`` the bytes that may still be kept at sites, where that is limited.
    """

    topology: Topology
    measurements: Measurements
    names: tuple[str, ...]
    roads: Mapping[tuple[str, str], Link]
    copies: Mapping[str, tuple[Replica, ...]]
    lost: Replicas
    gone: frozenset[str]
    rooms: Rooms = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """One question to the solver, and what its numbers stand for.

    ``steps`` are those that run, ``reused`` those whose stored result is read or asked for,
    ``sizes`` bytes in memory by key, ``fixed`` and ``per_byte`` (``T x S``) the seconds that steps
    take, ``guessed`` the keys whose size nobody knows, ``untimed`` the operations that never ran
    anywhere, and ``kept`` the keys that are stored wherever they are made.
    """

    graph: Graph
    world: World
    problem: Problem
    verdicts: Verdicts
    steps: tuple[Step, ...]
    reused: tuple[str, ...]
    fetch: Sequence[Sequence[Replica]]
    sizes: Mapping[str, int]
    fixed: Floats
    per_byte: Floats
    guessed: tuple[str, ...]
    untimed: tuple[str, ...]
    kept: frozenset[str]


def world(
    graph: Graph,
    *,
    topology: Topology,
    replicas: Replicas,
    verdicts: Verdicts,
    measurements: Measurements,
    near: str = "",
    rooms: Rooms | None = None,
) -> World:
    """Sites in the order of preference, the roads between them and the copies within reach."""
    away = set(topology.away)
    rows = list({id(row): row for row in verdicts.values()}.values())
    for site in topology.sites:
        if rows and all(
            site.name in row and row[site.name].rule in (AWAY, EXCLUDED) for row in rows
        ):
            away.add(site.name)
    known = {site.name for site in topology.sites}
    roads = roads_of(measurements, topology)
    names = sorted(
        known,
        key=lambda name: (roads[near, name].seconds(_NEAR_BYTES) if near in known else 0, name),
    )
    copies: dict[str, tuple[Replica, ...]] = {}
    lost: dict[str, list[Replica]] = {}
    for key, found in replicas.items():
        here = tuple(r for r in found if r.site in known and r.site not in away)
        if here:
            copies[key] = here
        else:
            lost[key] = list(found)
    return World(
        topology=topology,
        measurements=measurements,
        names=tuple(names),
        roads=roads,
        copies=copies,
        lost=lost,
        gone=frozenset(away),
        rooms=rooms or {},
    )


def pose(
    graph: Graph,
    world: World,
    *,
    verdicts: Verdicts,
    sizes: Mapping[str, int],
    result_at: str = "",
    keep_all: bool = False,
    reuse: bool = True,
    pinned: Mapping[str, str] | None = None,
    made_of: Mapping[str, Collection[str]] | None = None,
) -> Facts:
    """The question to the solver for one (perhaps split) graph.

    Parameters
    ----------
    graph, world, verdicts
        Verdicts for every step of this graph.
    sizes
        Bytes in memory by key, see :func:`~dataflow.placement.amounts.sizes_of`.
    made_of
        For steps that were split the datasets that the whole step is made of; breaks ties between
        collectors.

    Raises
    ------
    NoAllowedSite
        If the verdicts leave a step no site.
    PlacementError
        If there is no copy within reach of something that has to be read.
    """
    held, tasks = _needed(graph, world, keep_all=keep_all, reuse=reuse)
    number = {key: i for i, key in enumerate((*held, *tasks))}
    steps = tuple(graph.steps[key] for key in tasks)
    fetch = [[_nearest(world, key, target) for target in world.names] for key in held]
    where = {name: i for i, name in enumerate(world.names)}
    measured = world.measurements
    untimed = tuple(dict.fromkeys(s.operation.name for s in steps if never_run(s, measured)))
    amounts = amounts_of(steps, world.names, world.topology, world.roads, measured, sizes)
    collectors = tuple(i for i, step in enumerate(steps) if step.stage == "combine")
    verdicts = within_walltime(
        verdicts,
        steps,
        amounts.seconds,
        [world.topology.site_by_name[name] for name in world.names],
        [not (only_combines(step) or never_run(step, measured)) for step in steps],
    )
    egress, watts = prices_of(world.topology, world.names)
    unset = np.ones((len(steps), len(where)), dtype=bool)
    problem = Problem(
        sites=world.names,
        workers=tuple(max(1, world.topology.site_by_name[n].workers) for n in world.names),
        bandwidth=amounts.bandwidth,
        latency=amounts.latency,
        begins=amounts.begins,
        lead=amounts.lead,
        held=tuple(held),
        tasks=tuple(tasks),
        inputs=tuple(tuple(dict.fromkeys(number[k] for k in step.inputs)) for step in steps),
        held_source=np.array(
            [[where[r.site] for r in row] for row in fetch], dtype=np.intp
        ).reshape(len(held), len(where)),
        held_bytes=np.array(
            [
                [r.nbytes if r.site != n else 0 for r, n in zip(row, world.names, strict=True)]
                for row in fetch
            ],
            dtype=float,
        ).reshape(len(held), len(where)),
        nbytes=amounts.nbytes,
        seconds=amounts.seconds,
        allowed=unset,
        within=unset,
        deliver=tuple(number[key] for key in graph.outputs) if result_at else (),
        client=where[result_at] if result_at else -1,
        collectors=collectors,
        input_bytes={
            task: _bytes_at(world, sizes, (made_of or {}).get(tasks[task], ()))
            for task in collectors
        },
        egress=egress,
        watts=watts,
    )
    guessed = [key for key in tasks if graph.extents[key].guessed.startswith(UNKNOWN)]
    guessed = [key for key in guessed if not _measured(graph.steps[key], world)]
    kept = frozenset(tasks if keep_all else graph.outputs)
    verdicts = within_room(verdicts, steps, problem, world.rooms, kept=kept, guessed=guessed)
    allowed, within = _allowed(steps, world, verdicts, pinned or {})
    problem = replace(problem, allowed=allowed, within=within)
    return Facts(
        graph=graph,
        world=world,
        problem=problem,
        verdicts=verdicts,
        steps=steps,
        reused=tuple(key for key in held if key in graph.steps),
        fetch=fetch,
        sizes=sizes,
        fixed=amounts.fixed,
        per_byte=amounts.per_byte,
        guessed=tuple(guessed),
        kept=kept,
        untimed=untimed,
    )


def _needed(
    graph: Graph, world: World, *, keep_all: bool, reuse: bool
) -> tuple[list[str], list[str]]:
    """Keys that are there already and are read or asked for; and steps to run, in order."""
    steps = graph.steps
    wanted = set(graph.outputs) | (set(steps) if keep_all else set())
    held: dict[str, None] = {}
    tasks: list[str] = []
    for key in list(steps)[::-1]:
        if key not in wanted:
            continue
        if reuse and key in world.copies:
            held[key] = None
            continue
        tasks.append(key)
        wanted.update(steps[key].inputs)
    for key, dataset in graph.sources.items():
        if key in wanted:
            if key not in world.copies:
                raise _out_of_reach(dataset, world.lost.get(key, ()), world.topology)
            held[key] = None
    order = [key for key in (*graph.sources, *steps) if key in held]
    return order, tasks[::-1]


def _out_of_reach(dataset: Dataset, lost: Sequence[Replica], topology: Topology) -> PlacementError:
    if not lost:
        return PlacementError(
            f"dataset {dataset.name!r} has no copy at any site\n"
            "What you can do: register it again where its bytes are (session.register)."
        )
    sites = ", ".join(dict.fromkeys(replica.site for replica in lost))
    return PlacementError(
        f"dataset {dataset.name!r} cannot be read now: its only copies are at {sites}, which "
        "cannot be reached or may not be used\n"
        f"What you can do: wait for {sites} to come back and plan again, or register another "
        "copy of the same bytes."
    )


def _nearest(world: World, key: str, target: str) -> Replica:
    """The copy that is soonest at ``target``: its own, or by size and road."""

    def price(replica: Replica) -> tuple[float, int, str, str]:
        if replica.site == target:
            return (-1.0, replica.nbytes, "", replica.url)
        seconds = world.roads[replica.site, target].seconds(replica.nbytes)
        return (seconds, replica.nbytes, replica.site, replica.url)

    return min(world.copies[key], key=price)


def _measured(step: Step, world: World) -> bool:
    return world.measurements.ratio(step.operation, step.stage) is not None


def _allowed(
    steps: Sequence[Step], world: World, verdicts: Verdicts, pinned: Mapping[str, str]
) -> tuple[Bools, Bools]:
    """What the verdicts allow, and where the solver has to look within that.

    A part of a split step goes to its data: it is looked for only where all its inputs are, if it
    may run at one of these sites. What is pinned is looked for at one site.
    """
    known: dict[int, list[bool]] = {}
    rows, within = [], []
    stuck: list[tuple[Step, Row]] = []
    for step in steps:
        verdict = verdicts[step.key]
        row = known.get(id(verdict))
        if row is None:
            row = [name in verdict and verdict[name].allowed for name in world.names]
            known[id(verdict)] = row
        narrow = row
        wanted = pinned.get(step.key) or pinned.get(step.label)
        if wanted:
            narrow = [fine and n == wanted for fine, n in zip(row, world.names, strict=True)]
        elif step.stage == "part":
            homes = [{r.site for r in world.copies.get(key, ())} for key in step.inputs]
            local = set.intersection(*homes)
            narrow = [fine and n in local for fine, n in zip(row, world.names, strict=True)]
            narrow = narrow if any(narrow) else row
        if not any(narrow):
            stuck.append((step, _refusals(verdict, world, wanted)))
        rows.append(row)
        within.append(narrow)
    if stuck:
        step, refusals = stuck[0]
        reasons = {site: because for site, (_, because) in refusals.items()}
        least = least_change([row for _, row in stuck])
        raise NoAllowedSite(step.label, reasons, [str(clause) for clause in least])
    shape = (len(steps), len(world.names))
    return np.array(rows, dtype=bool).reshape(shape), np.array(within, dtype=bool).reshape(shape)


def _refusals(verdict: Mapping[str, Verdict], world: World, wanted: str | None) -> Row:
    """Why each site may not run a step: rule and reason."""
    reasons = {}
    for name in (site.name for site in world.topology.sites):
        if name not in verdict:
            reasons[name] = (UNHEARD, "nothing is known of this site")
        elif not verdict[name].allowed:
            reasons[name] = (verdict[name].rule, verdict[name].because)
        else:
            reasons[name] = (PINNED, f"it has to run at {wanted}")
    return reasons


def _bytes_at(world: World, sizes: Mapping[str, int], keys: Collection[str]) -> Floats:
    """Bytes of ``keys`` that each site holds."""
    total = np.zeros(len(world.names))
    for key in keys:
        sites = {replica.site for replica in world.copies.get(key, ())}
        total += np.array([sizes[key] if name in sites else 0 for name in world.names])
    return total


def time_is_guessed(operation: Operation) -> str:
    """What is assumed of an operation that never ran."""
    return (
        f"{operation.name} never ran: taken to need {GUESSED_FIXED * 1000:.0f} ms and to read "
        f"{GUESSED_RATE / 1e6:.0f} MB/s"
    )

"""Assemble: from a solution in numbers to the plan as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from dataflow._quantities import format_bytes, format_rate, format_seconds
from dataflow.datasets import Extent, Replica
from dataflow.graph.graph import Graph
from dataflow.graph.keys import digest
from dataflow.graph.operation import Step
from dataflow.placement.aim import BALANCED, PRICE, Aim
from dataflow.placement.cost import Tally, bytes_moved, simulate, transfers
from dataflow.placement.facts import Facts, time_is_guessed
from dataflow.placement.likely import Expected, near
from dataflow.placement.numbers import model_of
from dataflow.placement.plan import Assignment, Candidate, Keep, Plan, Segment, Transfer
from dataflow.placement.problem import Bools, Floats, Problem
from dataflow.placement.segments import Cut, cut, duration
from dataflow.placement.solve import Solution
from dataflow.placement.way import way
from dataflow.policy.check import memory_needed

#: Up to this many steps the price of each candidate is a simulated run, beyond it an estimate.
SIMULATED_STEPS = 20
#: Bytes of a lazy input without chunks that a worker is taken to hold at once.
STREAMED_BYTES = 128_000_000

_bytes = cache(format_bytes)
_seconds = cache(format_seconds)


def assemble(
    original: Graph,
    facts: Facts,
    solution: Solution,
    *,
    result_at: str,
    keep: Keep,
    options: Mapping[str, Any],
    aim: Aim = BALANCED,
    notes: Sequence[str] = (),
    likely: Expected | None = None,
) -> Plan:
    """The plan that says in records what a solution says in numbers."""
    graph, problem, sites = facts.graph, facts.problem, solution.sites
    keys = (*problem.held, *problem.tasks)
    moved = _transfers(facts, solution)
    outputs = set(graph.outputs)
    stored = {i for i, key in enumerate(problem.tasks) if keep == "all" or key in outputs}
    segments = [_segment(facts, keys, part) for part in cut(problem, sites, stored)]
    assignments = _assignments(facts, solution, likely)
    for step, between in zip(facts.steps, likely.steps if likely else (), strict=False):
        assignments[step.key] = replace(assignments[step.key], likely=between)
    chosen = set(problem.tasks) | set(facts.reused)
    steps = tuple(step for key, step in graph.steps.items() if key in chosen)
    running = {step.key: step for step in steps}
    originals = tuple(step for key, step in original.steps.items() if running.get(key) is not step)
    content = [
        list(graph.outputs),
        [[step.key, step.stage, assignments[step.key].site] for step in steps],
        [transfer.id for transfer in moved],
        [segment.id for segment in segments],
        keep,
        result_at,
    ]
    return Plan(
        id=digest(content),
        sources=dict(original.sources),
        steps=steps,
        outputs=graph.outputs,
        extents=_extents(original, facts),
        assignments=tuple(assignments[step.key] for step in steps),
        segments=tuple(segments),
        transfers=moved,
        replicas={key: _copy_at(facts, item, sites) for item, key in enumerate(problem.held)},
        seconds=solution.seconds,
        nbytes=sum(transfer.nbytes for transfer in moved),
        topology=facts.world.topology,
        result_at=result_at,
        keep=keep,
        notes=(*notes, *_notes(facts, moved)),
        options=dict(options),
        originals=originals,
        least=solution.least,
        money=solution.money,
        energy=solution.energy,
        model=model_of(facts, aim),
        likely=likely.whole if likely else None,
    )


def _transfers(facts: Facts, solution: Solution) -> tuple[Transfer, ...]:
    problem, names = facts.problem, facts.world.names
    held = len(problem.held)
    found = []
    for item, target in transfers(problem, solution.sites):
        source, nbytes, busy = problem.arrival(item, solution.sites, target)
        key = problem.held[item] if item < held else problem.tasks[item - held]
        replica = facts.fetch[item][target] if item < held else None
        road = facts.world.roads[names[source], names[target]]
        found.append(
            replace(
                way(facts.world.topology, road, replica),
                id=f"t:{key[:12]}:{names[source]}:{names[target]}",
                key=key,
                nbytes=round(nbytes),
                seconds=busy + road.latency,
            )
        )
    return tuple(found)


def _segment(facts: Facts, keys: Sequence[str], part: Cut) -> Segment:
    problem = facts.problem
    site = facts.world.names[part.site]
    steps = tuple(problem.tasks[task] for task in part.tasks)
    outputs = tuple(problem.tasks[task] for task in part.outputs)
    inputs = tuple(keys[item] for item in part.inputs)
    return Segment(
        id=f"s:{digest([site, steps, inputs, outputs])[:12]}:{site}",
        site=site,
        steps=steps,
        inputs=inputs,
        outputs=outputs,
        seconds=duration(problem, part),
        replicas={
            keys[item]: facts.fetch[item][part.site]
            for item in part.inputs
            if item < len(problem.held) and problem.held_source[item, part.site] == part.site
        },
    )


def _copy_at(facts: Facts, item: int, sites: Sequence[int]) -> Replica:
    """The copy to show for a held item: the one that is delivered, or else the first that is read."""
    problem = facts.problem
    if problem.client >= 0 and item in problem.deliver:
        return facts.fetch[item][problem.client]
    users = problem.users[item]
    return facts.fetch[item][sites[users[0]] if users else 0]


def _extents(original: Graph, facts: Facts) -> dict[str, Extent]:
    extents = {**original.extents, **facts.graph.extents}
    for key, nbytes in facts.sizes.items():
        if extents[key].nbytes != nbytes:
            extents[key] = replace(extents[key], nbytes=nbytes, guessed="from earlier runs")
    return extents


def _assignments(
    facts: Facts, solution: Solution, likely: Expected | None
) -> dict[str, Assignment]:
    problem, names = facts.problem, facts.world.names
    sites = solution.sites
    found: dict[str, Assignment] = {}
    for key in facts.reused:
        replica = _copy_at(facts, problem.held.index(key), sites)
        because = "its result is stored there already"
        found[key] = Assignment(
            key=key, site=replica.site, seconds=0.0, memory=0, because=because, reused=replica
        )
    more_seconds, more_bytes = _changes(problem, solution)
    price = more_seconds + PRICE * more_bytes
    there = _bytes_there(problem, sites)
    total = solution.nbytes
    streams: dict[int, int] = {}
    extents = facts.graph.extents
    numbers = range(len(names))
    for task, step in enumerate(facts.steps):
        here = sites[task]
        verdicts = facts.verdicts[step.key]
        allowed = problem.allowed[task]
        seconds_row, bytes_row = more_seconds[task].tolist(), more_bytes[task].tolist()
        candidates = []
        for site in numbers:
            name = names[site]
            if site == here:
                candidates.append(
                    Candidate(
                        site=name,
                        allowed=True,
                        because="chosen",
                        seconds=solution.seconds,
                        nbytes=round(total),
                        likely=None if likely is None else likely.whole.seconds,
                    )
                )
            elif allowed[site]:
                candidates.append(
                    Candidate(
                        site=name,
                        allowed=True,
                        because=_difference(seconds_row[site], bytes_row[site]),
                        seconds=max(0.0, solution.seconds + seconds_row[site]),
                        nbytes=max(0, round(total + bytes_row[site])),
                        likely=_likely(likely, sites, task, site, total, bytes_row[site]),
                    )
                )
            else:
                verdict = verdicts.get(name)
                reason = "nothing is known of this site" if verdict is None else verdict.because
                reason = reason or "it was decided that it runs elsewhere"
                rule = "" if verdict is None or verdict.allowed else verdict.rule
                candidates.append(Candidate(site=name, allowed=False, because=reason, rule=rule))
        found[step.key] = Assignment(
            key=step.key,
            site=names[here],
            seconds=float(problem.seconds[task, here]),
            memory=max(
                memory_needed(step, [extents[key] for key in step.inputs]),
                _streamed(step, extents, streams),
            ),
            because=_because(
                float(there[task]),
                sum(facts.sizes[key] for key in step.inputs),
                _next_best(price[task], allowed, here),
                names,
                seconds_row,
                bytes_row,
            ),
            candidates=tuple(candidates),
            starts=solution.start[task],
        )
    return found


def _likely(
    likely: Expected | None,
    sites: Sequence[int],
    task: int,
    site: int,
    total: float,
    more: float,
) -> tuple[float, float] | None:
    """Between what and what a plan is with one step elsewhere; ``None`` where its bytes tell them apart."""
    if likely is None or len(sites) > SIMULATED_STEPS or not near(total, total + more):
        return None
    return likely.with_sites([*sites[:task], site, *sites[task + 1 :]])


def _changes(problem: Problem, solution: Solution) -> tuple[Floats, Floats]:
    """Seconds and bytes that each single move adds, ``T x S`` each."""
    tally = Tally(problem, np.array(solution.sites, dtype=np.intp))
    nbytes = tally.changes(problem.held_bytes, problem.move_bytes)
    seconds = tally.changes(problem.held_seconds, problem.move_seconds) + tally.work_changes()
    if len(problem.tasks) <= SIMULATED_STEPS:
        for task, site in np.argwhere(problem.allowed):
            moved = list(solution.sites)
            moved[task] = int(site)
            seconds[task, site] = simulate(problem, moved).seconds - solution.seconds
            nbytes[task, site] = bytes_moved(problem, moved) - solution.nbytes
    return seconds, nbytes


def _bytes_there(problem: Problem, sites: Sequence[int]) -> Floats:
    """Bytes of each step's input that need not move."""
    tasks, items = problem.edges
    here = np.array(sites, dtype=np.intp)
    held = len(problem.held)
    size = np.concatenate([problem.held_bytes.max(axis=1, initial=0.0), problem.nbytes])
    local = np.empty(len(tasks), dtype=bool)
    old = items < held
    local[old] = problem.held_source[items[old], here[tasks[old]]] == here[tasks[old]]
    local[~old] = here[items[~old] - held] == here[tasks[~old]]
    total = np.zeros(len(problem.tasks))
    np.add.at(total, tasks, np.where(local, size[items], 0.0))
    return total


def _next_best(price: Floats, allowed: Bools, here: int) -> int:
    """The allowed site that would be cheapest after the chosen one; -1 if there is none."""
    others = np.where(allowed, price, np.inf)
    others[here] = np.inf
    best = int(np.argmin(others))
    return best if np.isfinite(others[best]) else -1


def _because(
    there: float,
    read: float,
    other: int,
    names: Sequence[str],
    seconds: Sequence[float],
    nbytes: Sequence[float],
) -> str:
    """Why the chosen site won, in one line."""
    if other < 0:
        return "the only site that may run it"
    if there > 0:
        have = f"{_bytes(round(there))} already there"
    else:
        have = f"{_bytes(round(read))} comes here" if read else "it reads nothing"
    return f"{have}; the next best, {names[other]}, {_would(seconds[other], nbytes[other])}"


def _would(seconds: float, nbytes: float) -> str:
    if nbytes >= 1:
        return f"would move {_bytes(round(nbytes))} more"
    if nbytes <= -1:
        return f"would move {_bytes(round(-nbytes))} less, {_later(seconds)}"
    return f"would move as much, {_later(seconds)}"


def _later(seconds: float) -> str:
    if abs(seconds) < 1e-6:
        return "and end at the same time"
    return f"and end {_seconds(round(abs(seconds), 4))} {'later' if seconds > 0 else 'earlier'}"


def _difference(seconds: float, nbytes: float) -> str:
    return _would(seconds, nbytes).removeprefix("would ")


def _streamed(step: Step, extents: Mapping[str, Extent], known: dict[int, int]) -> int:
    """Bytes of chunks that a worker holds at once for a lazy step: one of each input, one result."""
    if not step.operation.lazy or step.operation.command:
        return 0
    total = 0
    for key in (*step.inputs, step.key):
        extent = extents[key]
        if id(extent) not in known:
            known[id(extent)] = _largest_chunk(extent)
        total += known[id(extent)]
    return total


def _largest_chunk(extent: Extent) -> int:
    largest = 0
    for variable in extent.variables:
        chunk = min(variable.nbytes, STREAMED_BYTES)
        if variable.chunks is not None and variable.shape and min(variable.shape) > 0:
            elements = float(np.prod(variable.shape, dtype=float))
            inside = float(np.prod(np.minimum(variable.chunks, variable.shape), dtype=float))
            chunk = round(variable.nbytes * inside / elements)
        largest = max(largest, chunk)
    return largest or min(extent.nbytes, STREAMED_BYTES)


def _notes(facts: Facts, moved: Sequence[Transfer]) -> list[str]:
    """Guesses that the price rests on."""
    notes = []
    if facts.guessed:
        labels = [facts.graph.label(key) for key in facts.guessed]
        notes.append(f"size not known before it runs, taken as its largest input: {_few(labels)}")
    if facts.untimed:
        operations = {step.operation.name: step.operation for step in facts.steps}
        if len(facts.untimed) == 1:
            notes.append(time_is_guessed(operations[facts.untimed[0]]))
        else:
            first = time_is_guessed(operations[facts.untimed[0]]).partition(": ")[2]
            notes.append(f"never ran, each {first}: {_few(facts.untimed)}")
    roads = {(t.source, t.target): facts.world.roads[t.source, t.target] for t in moved}
    for (source, target), road in roads.items():
        if road.origin == "timed":
            notes.append(
                f"the bandwidth from {source} to {target} was never measured or declared: taken as "
                f"{format_rate(road.bandwidth)}"
            )
        if road.origin == "assumed":
            notes.append(
                f"the link from {source} to {target} was never measured or declared: taken as "
                f"{format_rate(road.bandwidth)}, {format_seconds(road.latency)}"
            )
    return notes


def _few(words: Sequence[str], most: int = 6) -> str:
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest} more" if rest > 0 else "")

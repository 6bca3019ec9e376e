"""Bridge: the engine's list passes and searches for a graph of operations.

The engine sees one size per item and turns of its own at each site; a plan is judged by the cost
model of plans, in which turns follow the graph. So what comes from here are proposals.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dataflow.placement.engine import compiled
from dataflow.placement.engine.cuts import least_bytes
from dataflow.placement.engine.instance import Instance, Integers, capacity, make, offsets
from dataflow.placement.engine.rivals import Lists
from dataflow.placement.engine.search import place
from dataflow.placement.problem import Problem

#: Up to this many steps the loops run as they stand: done before Numba would be loaded.
PLAIN_STEPS = 300
#: Up to this many steps cuts for the fewest bytes are made as well, without Numba.
_CUT_STEPS = 16
#: Up to this many steps list passes over few sites are made as well, without Numba.
_PART_STEPS = 60
#: What the search is allowed beyond: seconds at least, and per step, of an ordinary machine.
_LEAST, _PER_STEP = 0.01, 1e-5


def instance_of(problem: Problem) -> Instance:
    """The arrays of the engine; a step is endless where the solver does not look.

    A held item has the size of its largest copy that moves.
    """
    width, held, count = len(problem.sites), len(problem.held), len(problem.tasks)
    here = problem.held_source == np.arange(width)
    bandwidth = np.where(np.isfinite(problem.bandwidth), problem.bandwidth, 1.0)
    return make(
        sites=problem.sites,
        workers=problem.workers,
        bandwidth=bandwidth,
        latency=problem.latency,
        size=np.concatenate([problem.held_bytes.max(axis=1, initial=0.0), problem.nbytes]),
        producer=np.concatenate([np.full(held, -1), np.arange(count)]).astype(np.int64),
        homes=offsets([*(np.flatnonzero(row).tolist() for row in here), *([[]] * count)]),
        allowed=np.ones((held + count, width), bool),
        seconds=np.where(problem.within, problem.seconds, np.inf).reshape(count, width),
        inputs=offsets(problem.inputs),
        deliver=problem.deliver if problem.client >= 0 else (),
        client=max(0, problem.client),
    )


def is_ready(steps: int) -> bool:
    """Whether a graph of so many steps can be searched without waiting for a compiler."""
    return steps <= PLAIN_STEPS or _kept()


_found: list[bool] = []


def _kept() -> bool:
    """Whether compiled loops are there, and loaded; asked once they are, no more."""
    if not _found and compiled.is_kept():
        from dataflow.placement.engine.warm import warm

        warm()  # loading programs is not planning
        _found.append(True)
    return bool(_found)


def proposals(
    problem: Problem, *, exchange: float, per_byte: float
) -> Iterator[tuple[str, Integers]]:
    """Choices of sites by the engine, each with the name of its method; nothing if it is not ready.

    Parameters
    ----------
    exchange
        What a factor in bytes is worth as a factor in seconds, for the search.
    per_byte
        Seconds that a byte is worth, for list passes.
    """
    steps = len(problem.tasks)
    if not steps or len(problem.sites) < 2 or not is_ready(steps):
        return
    if steps > PLAIN_STEPS:
        instance = instance_of(problem)
        weight = _weight(exchange)
        placed = place(instance, weight, budget=max(_LEAST, _PER_STEP * steps), relays=False)
        yield f"search: {placed.origin}", placed.choice.site
        return
    with compiled.plainly():
        found = list(_lists(instance_of(problem), per_byte))
    yield from found


def _lists(instance: Instance, per_byte: float) -> Iterator[tuple[str, Integers]]:
    lists = Lists(instance)
    yield "heft", lists.heft().site
    rest, (listed, _) = lists.ahead(2.0), lists.ranked(2.0)
    first, _ = lists.assign(listed, rest, price=per_byte)
    yield "list", first
    if instance.steps <= _PART_STEPS:
        for group in _groups(instance):
            use = lists.only(*group)
            site, _ = lists.assign(listed, lists.ahead(2.0, use), price=per_byte, use=use)
            yield f"list over {len(group)} sites", site
    if instance.steps <= _CUT_STEPS:
        yield "cuts", least_bytes(instance, first).site


def _groups(instance: Instance) -> list[tuple[int, ...]]:
    """Groups of sites to be content with: the strongest, down to two."""
    power = np.argsort(-capacity(instance), kind="stable").tolist()
    return [tuple(power[:k]) for k in range(instance.width - 1, 1, -1)][:3]


def _weight(exchange: float) -> float:
    """The weight between makespan (0) and bytes (1) that stands for an exchange rate."""
    share = max(0.0, exchange - 0.02) / 0.05
    return min(0.99, share / (1.0 + share))

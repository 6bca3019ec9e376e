"""Bounds: what no plan can beat, in seconds and in bytes.

Seconds: the longest chain with every step at its best site and every transfer alone on the best
route; and the work of all steps that cannot start before one moment nor end after another, on all
workers together. Bytes: what has to leave every place where it may be made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dataflow.placement.engine.compiled import kernel
from dataflow.placement.engine.instance import Floats, Instance

#: So many thresholds are tried for each end of the window that work has to fit into.
_THRESHOLDS = 24


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Proven least makespan (seconds) and bytes over links."""

    makespan: float
    nbytes: float

    def gap(self, makespan: float, nbytes: float) -> tuple[float, float]:
        """How far a plan may be from the best: 0.1 is at most 10 % above."""
        return (
            makespan / self.makespan - 1 if self.makespan else float(makespan > 0),
            nbytes / self.nbytes - 1 if self.nbytes else float(nbytes > 0),
        )


def bounds(instance: Instance) -> Bounds:
    """Bounds that cost about as much as one list pass."""
    routes = shortest(instance.latency), shortest(instance.pace)
    head, end, nbytes = earliest(
        *instance.graph, instance.home_at, instance.homes, instance.sequence, *routes
    )
    tail = latest(*instance.graph, instance.sequence, *routes)
    longest = max(end, float((head + tail).max(initial=0.0)))
    work, after = _work(instance), tail - instance.least_seconds
    return Bounds(makespan=max(longest, float(windows(head, after, work))), nbytes=float(nbytes))


def shortest(cost: Floats) -> Floats:
    """Least cost over any number of hops between all pairs."""
    found = cost.copy()
    for middle in range(len(found)):
        found = np.minimum(found, found[:, middle, None] + found[None, middle, :])
    return found


def _work(instance: Instance) -> Floats:
    """Least share of one second of the whole federation that each step takes, times its seconds.

    Sites are weighted by their speed; any weights give a valid bound, these the exact one where
    every site is the same number of times faster for all steps.
    """
    if not instance.steps:
        return np.zeros(0)
    speed = np.where(instance.speed > 0, instance.speed, 1.0)
    share = speed / (speed * instance.workers).sum()
    work: Floats = (instance.seconds * share).min(axis=1)
    return work


# --- loops ----------------------------------------------------------------------------------------


@kernel
def windows(head: Any, after: Any, work: Any) -> float:
    """Largest of start + work + rest over all steps that start no earlier and have no less to follow."""
    last_head, last_after = 0.0, 0.0
    for step in range(len(work)):
        last_head = max(last_head, head[step])
        last_after = max(last_after, after[step])
    wide, high = last_head / (_THRESHOLDS - 1), last_after / (_THRESHOLDS - 1)
    mass = np.zeros((_THRESHOLDS, _THRESHOLDS))
    for step in range(len(work)):
        a = int(head[step] / wide) if wide > 0 else 0
        b = int(after[step] / high) if high > 0 else 0
        if a * wide > head[step]:  # rounded up
            a -= 1
        if b * high > after[step]:
            b -= 1
        mass[min(max(a, 0), _THRESHOLDS - 1), min(max(b, 0), _THRESHOLDS - 1)] += work[step]
    best = 0.0
    for a in range(_THRESHOLDS - 1, -1, -1):
        for b in range(_THRESHOLDS - 1, -1, -1):
            if a + 1 < _THRESHOLDS:
                mass[a, b] += mass[a + 1, b]
            if b + 1 < _THRESHOLDS:
                mass[a, b] += mass[a, b + 1]
            if a + 1 < _THRESHOLDS and b + 1 < _THRESHOLDS:
                mass[a, b] -= mass[a + 1, b + 1]
            if mass[a, b] > 1e-9:
                best = max(best, a * wide + b * high + mass[a, b] * (1 - 1e-9))
    return best


@kernel
def earliest(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, home_at: Any, homes: Any, sequence: Any, late: Any, slow: Any,
) -> Any:  # fmt: skip
    """Per step the earliest start; the earliest end of all with deliveries; bytes that must move."""
    steps, width = seconds.shape
    there = np.full((len(size), width), np.inf)
    for item in range(len(size)):
        for at in range(home_at[item], home_at[item + 1]):
            home = homes[at]
            for site in range(width):
                takes = late[home, site] + size[item] * slow[home, site]
                there[item, site] = min(there[item, site], takes)
    head, last = np.zeros(steps), 0.0
    ends = np.empty(width)
    for index in range(steps):
        step = sequence[index]
        head[step] = np.inf
        least = np.inf
        for site in range(width):
            ends[site] = np.inf
            if seconds[step, site] == np.inf:
                continue
            begin = 0.0
            for at in range(input_at[step], input_at[step + 1]):
                begin = max(begin, there[inputs[at], site])
            head[step] = min(head[step], begin)
            ends[site] = begin + seconds[step, site]
            least = min(least, ends[site])
        last = max(last, least)
        for at in range(output_at[step], output_at[step + 1]):
            item = outputs[at]
            for site in range(width):
                if ends[site] < np.inf:
                    for other in range(width):
                        takes = ends[site] + late[site, other] + size[item] * slow[site, other]
                        there[item, other] = min(there[item, other], takes)
    nbytes = 0.0
    meets = np.empty(width, np.bool_)
    for item in range(len(size)):
        if deliver[item]:
            last = max(last, there[item, client])
        # one reader (or the client) that can be nowhere where the item begins: it has to move
        for site in range(width):
            meets[site] = False
            if producer[item] >= 0:
                meets[site] = seconds[producer[item], site] < np.inf
        for at in range(home_at[item], home_at[item + 1]):
            meets[homes[at]] = True
        must = deliver[item] and not meets[client]
        for at in range(reader_at[item], reader_at[item + 1]):
            apart = True
            for site in range(width):
                if meets[site] and seconds[readers[at], site] < np.inf:
                    apart = False
            must = must or apart
        if must:
            nbytes += size[item]
    return head, last, nbytes


@kernel
def latest(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, sequence: Any, late: Any, slow: Any,
) -> Any:  # fmt: skip
    """Per step the least seconds from its start to the end of everything that follows from it."""
    steps, width = seconds.shape
    after = np.zeros((steps, width))
    tail = np.zeros(steps)
    for index in range(steps - 1, -1, -1):
        step = sequence[index]
        for at in range(output_at[step], output_at[step + 1]):
            item = outputs[at]
            for here in range(width):
                if deliver[item]:
                    takes = late[here, client] + size[item] * slow[here, client]
                    after[step, here] = max(after[step, here], takes)
                for place in range(reader_at[item], reader_at[item + 1]):
                    reader = readers[place]
                    least = np.inf
                    for there in range(width):
                        takes = late[here, there] + size[item] * slow[here, there]
                        least = min(least, takes + after[reader, there])
                    after[step, here] = max(after[step, here], least)
        tail[step] = np.inf
        for here in range(width):
            after[step, here] += seconds[step, here]
            tail[step] = min(tail[step], after[step, here])
    return tail

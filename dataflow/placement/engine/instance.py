"""Instance: a placement problem as flat arrays, for graphs of five to a million steps.

The numbers of :class:`~dataflow.placement.problem.Problem` and of the interchange document, laid
out for the inner loops: lists of lists as one array with offsets (``inputs[input_at[t]:
input_at[t + 1]]``), what may not be as endless time. Nothing here has a name except the sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflow.errors import PlacementError
from dataflow.placement.engine.compiled import kernel

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """A placement problem in arrays; ``S`` sites, ``I`` items, ``T`` steps.

    Attributes
    ----------
    sites, name
        Names of the sites; a name for the problem.
    workers
        Workers of each site.
    pace, latency
        ``S x S``: seconds per byte and seconds, from row to column; 0 on the diagonal.
    size, producer, allowed
        Per item its bytes, the step that makes it (-1: a dataset) and (``I x S``) where copies
        of it may be.
    home_at, homes
        Per item the sites that hold it at the start.
    seconds
        ``T x S``: how long each step runs on one worker of each site; endless where it may not.
    input_at, inputs, output_at, outputs, reader_at, readers
        Items that a step reads (each once) and makes, and the steps that read an item.
    deliver, client
        Whether an item must end at the site of this number.
    sequence
        The steps in an order in which they can run.
    """

    name: str = ""
    sites: tuple[str, ...]
    workers: Integers
    pace: Floats
    latency: Floats
    size: Floats
    producer: Integers
    allowed: Bools
    home_at: Integers
    homes: Integers
    seconds: Floats
    input_at: Integers
    inputs: Integers
    output_at: Integers
    outputs: Integers
    reader_at: Integers
    readers: Integers
    deliver: Bools
    client: int
    sequence: Integers

    @property
    def width(self) -> int:
        """Number of sites."""
        return len(self.workers)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return int(self.seconds.shape[0])

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.size)

    @cached_property
    def source(self) -> Integers:
        """``I x S``: from where a dataset is fetched to a site; -1 for what a step makes."""
        found: Integers = nearest(self.home_at, self.homes, self.size, self.pace, self.latency)
        return found

    @cached_property
    def total_bytes(self) -> float:
        """Bytes of all items."""
        return float(self.size.sum())

    @cached_property
    def least_seconds(self) -> Floats:
        """Per step how long it runs at the site where it is fastest."""
        least: Floats = self.seconds.min(axis=1, initial=np.inf)
        return least

    @cached_property
    def speed(self) -> Floats:
        """Per site how fast it is for the steps that may run there (1: none is faster); 0 if none may."""
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = self.least_seconds[:, None] / self.seconds
        open_ = np.isfinite(self.seconds) & (relative > 0)
        many = open_.sum(axis=0)
        found: Floats = np.where(open_, relative, 0.0).sum(axis=0) / np.maximum(many, 1)
        return found

    @cached_property
    def graph(self) -> tuple[Any, ...]:
        """The arrays that every inner loop reads, in the order in which it takes them."""
        return (
            self.workers, self.pace, self.latency, self.size, self.producer, self.source,
            self.seconds, self.input_at, self.inputs, self.output_at, self.outputs,
            self.reader_at, self.readers, self.deliver, self.client,
        )  # fmt: skip


def offsets(lists: Sequence[Sequence[int]]) -> tuple[Integers, Integers]:
    """Lists of numbers as one array, and where each begins."""
    at = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, lists), np.int64, len(lists)), out=at[1:])
    flat = np.fromiter((number for one in lists for number in one), np.int64, int(at[-1]))
    return at, flat


def invert(at: Integers, flat: Integers, count: int) -> tuple[Integers, Integers]:
    """Who names each number: the lists turned round, ascending."""
    owners = np.repeat(np.arange(len(at) - 1), np.diff(at))
    order = np.argsort(flat, kind="stable")
    back = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(flat, minlength=count), out=back[1:])
    return back, owners[order].astype(np.int64)


def make(
    *,
    sites: Sequence[str],
    workers: Sequence[int] | Integers,
    bandwidth: Any,
    latency: Any,
    size: Any,
    producer: Any,
    homes: tuple[Integers, Integers],
    allowed: Bools,
    seconds: Floats,
    inputs: tuple[Integers, Integers],
    deliver: Sequence[int],
    client: int,
    name: str = "",
) -> Instance:
    """Arrays from arrays: what can be derived is, and what cannot be right is named.

    Parameters
    ----------
    bandwidth, latency
        ``S x S``, bytes/s and seconds; the diagonal is not looked at.
    homes, inputs
        Offsets and numbers, see :func:`offsets`.
    seconds
        ``T x S``; endless where a step itself may not run. Where its items may not be is added here.

    Raises
    ------
    PlacementError
        The graph has a cycle, or a step or a delivery has no site left; says which.
    """
    width, items, steps = len(workers), len(producer), seconds.shape[0]
    away = ~np.eye(width, dtype=bool)
    pace = np.zeros((width, width))
    pace[away] = 1.0 / np.asarray(bandwidth, np.float64)[away]
    late = np.where(away, np.asarray(latency, np.float64), 0.0)
    producer = np.asarray(producer, np.int64)
    made = np.flatnonzero(producer >= 0)
    output_at, outputs = _grouped(producer[made], made, steps)
    input_at, flat = inputs
    reader_at, readers = invert(input_at, flat, items)
    delivered = np.zeros(items, bool)
    delivered[np.asarray(deliver, np.int64)] = True
    allowed = np.ascontiguousarray(allowed)
    seconds = np.ascontiguousarray(seconds, np.float64).copy()
    forbid(seconds, input_at, flat, allowed)
    forbid(seconds, output_at, outputs, allowed)
    sequence = topological(input_at, flat, output_at, outputs, reader_at, readers, producer)
    if len(sequence) < steps:
        stuck = sorted(set(range(steps)) - set(sequence.tolist()))
        raise PlacementError(f"the graph has a cycle: step {stuck[0]} needs what comes after it")
    instance = Instance(
        name=name, sites=tuple(sites), workers=np.asarray(workers, np.int64), pace=pace,
        latency=late, size=np.asarray(size, np.float64), producer=producer, allowed=allowed,
        home_at=homes[0], homes=homes[1], seconds=seconds, input_at=input_at, inputs=flat,
        output_at=output_at, outputs=outputs, reader_at=reader_at, readers=readers,
        deliver=delivered, client=int(client), sequence=sequence,
    )  # fmt: skip
    _feasible(instance)
    return instance


def _grouped(owner: Integers, members: Integers, count: int) -> tuple[Integers, Integers]:
    at = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=count), out=at[1:])
    return at, members[np.argsort(owner, kind="stable")].astype(np.int64)


def _feasible(instance: Instance) -> None:
    nowhere = np.flatnonzero(~np.isfinite(instance.seconds).any(axis=1))
    if len(nowhere):
        raise PlacementError(conflict(instance, int(nowhere[0])))
    bad = np.flatnonzero(instance.deliver & ~instance.allowed[:, instance.client])
    if len(bad):
        site = instance.sites[instance.client]
        raise PlacementError(
            f"item {bad[0]} must be delivered to {site!r}, where it may not be\n"
            "What you can do: allow it there, or deliver something derived from it."
        )


def capacity(instance: Instance) -> Floats:
    """How much each site can do at once, in workers of the fastest; none where nothing may run."""
    return instance.speed * instance.workers


def conflict(instance: Instance, step: int) -> str:
    """Why a step has no site: the fewest items whose conditions leave nothing."""
    near = [
        *instance.inputs[instance.input_at[step] : instance.input_at[step + 1]].tolist(),
        *instance.outputs[instance.output_at[step] : instance.output_at[step + 1]].tolist(),
    ]
    rules = [(f"item {item}", instance.allowed[item]) for item in near]
    kept = list(rules)
    for rule in rules:  # whatever can be left out is; what remains is minimal
        rest = [other for other in kept if other is not rule]
        if rest and not np.logical_and.reduce([mask for _, mask in rest]).any():
            kept = rest
    if kept and not np.logical_and.reduce([mask for _, mask in kept]).any():
        named = "; ".join(
            f"{what} may be at {', '.join(instance.sites[s] for s in np.flatnonzero(mask)) or 'no site'}"
            for what, mask in kept
        )
        return f"no site may run step {step}: {named}\nWhat you can do: allow one of these at a site of another."
    return (
        f"no site may run step {step}: its own list of sites and those of its items do not meet\n"
        "What you can do: allow it at a site where all of its inputs and outputs may be."
    )


# --- loops ----------------------------------------------------------------------------------------


@kernel
def nearest(home_at: Any, homes: Any, size: Any, pace: Any, latency: Any) -> Any:
    """``I x S``: the replica with the least latency + transfer time to each site."""
    items, width = len(size), pace.shape[0]
    found = np.full((items, width), -1, np.int64)
    for item in range(items):
        for target in range(width):
            best = np.inf
            for at in range(home_at[item], home_at[item + 1]):
                home = homes[at]
                takes = latency[home, target] + size[item] * pace[home, target]
                if home == target:
                    takes = -1.0
                if takes < best:
                    best = takes
                    found[item, target] = home
    return found


@kernel
def forbid(seconds: Any, at: Any, flat: Any, allowed: Any) -> None:
    """Make a step endless wherever one of its items may not be."""
    for step in range(seconds.shape[0]):
        for index in range(at[step], at[step + 1]):
            for site in range(seconds.shape[1]):
                if not allowed[flat[index], site]:
                    seconds[step, site] = np.inf


@kernel
def topological(
    input_at: Any,
    inputs: Any,
    output_at: Any,
    outputs: Any,
    reader_at: Any,
    readers: Any,
    producer: Any,
) -> Any:
    """Steps in an order in which they can run; shorter than all of them if there is a cycle."""
    steps = len(input_at) - 1
    waiting = np.zeros(steps, np.int64)
    order = np.empty(steps, np.int64)
    count = 0
    for step in range(steps):
        for at in range(input_at[step], input_at[step + 1]):
            if producer[inputs[at]] >= 0:
                waiting[step] += 1
        if waiting[step] == 0:
            order[count] = step
            count += 1
    done = 0
    while done < count:
        step = order[done]
        done += 1
        for at in range(output_at[step], output_at[step + 1]):
            item = outputs[at]
            for place in range(reader_at[item], reader_at[item + 1]):
                reader = readers[place]
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    order[count] = reader
                    count += 1
    return order[:count]

"""Amounts: seconds, bytes and roads of a problem, as earlier runs and guesses have them. Pure.

What is expected of the same steps, data and sites when everything goes well, or badly, is the same
question asked of other quantiles of the same measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataflow.graph.extents import UNKNOWN
from dataflow.graph.graph import Graph
from dataflow.graph.operation import Step
from dataflow.placement.measurements import Measurements, Stock, names_of
from dataflow.placement.problem import Floats, Problem
from dataflow.sites import Link, Topology

Roads = Mapping[tuple[str, str], Link]


@dataclass(frozen=True, kw_only=True, eq=False)
class Amounts:
    """The numbers of a problem that are predictions.

    Attributes
    ----------
    fixed, per_byte
        ``T x S``: seconds of each step at each site, at least (with what its order takes for each
        step) and per byte that it reads.
    seconds
        ``T x S``: the same for what it reads.
    nbytes
        ``T``: bytes of each result when it moves.
    bandwidth, latency
        ``S x S``: of the roads, and what it takes to begin at the other end.
    begins
        ``S``: seconds until the first step runs at a site; ``None`` if nobody knows.
    lead
        Seconds until anything moves.
    """

    fixed: Floats
    per_byte: Floats
    seconds: Floats
    nbytes: Floats
    bandwidth: Floats
    latency: Floats
    begins: Floats | None
    lead: float

    def put_into(self, problem: Problem) -> Problem:
        """The same question with these numbers."""
        return replace(
            problem,
            seconds=self.seconds,
            nbytes=self.nbytes,
            bandwidth=self.bandwidth,
            latency=self.latency,
            begins=self.begins,
            lead=self.lead,
        )


def roads_of(measured: Measurements, topology: Topology) -> dict[tuple[str, str], Link]:
    """The road between each pair of sites."""
    rows = measured.apply_to(topology)
    return {(link.source, link.target): link for row in rows for link in row}


def amounts_of(
    steps: Sequence[Step],
    names: Sequence[str],
    topology: Topology,
    roads: Roads,
    measured: Measurements,
    sizes: Mapping[str, int],
) -> Amounts:
    """What these steps take at these sites.

    Parameters
    ----------
    sizes
        Bytes in memory by key, see :func:`sizes_of`.
    """
    sites = [topology.site_by_name[name] for name in names]
    known: dict[tuple[str, ...], tuple[list[float], list[float], Stock | None]] = {}
    paces = []
    for step in steps:
        token = names_of(step.operation, step.stage)
        if token not in known:
            found = [measured.pace(step.operation, s, topology, step.stage)[0] for s in sites]
            stock = measured.stock(step.operation, step.stage)
            known[token] = ([p.fixed for p in found], [p.per_byte for p in found], stock)
        paces.append(known[token])
    fixed, per_byte = (
        np.array([pace[k] for pace in paces], dtype=float).reshape(len(steps), len(sites))
        for k in (0, 1)
    )
    read = np.array([sum(sizes[key] for key in step.inputs) for step in steps], dtype=float)
    orders = np.array([measured.beginning(site) for site in sites], dtype=float)
    begins, each = orders.reshape(len(sites), 2).T
    fixed = fixed + each
    latency = _matrix(names, roads, "latency")
    if begins.any():
        latency = latency + np.where(np.eye(len(sites)) > 0, 0.0, begins[None, :])
    begins = begins + measured.start
    return Amounts(
        fixed=fixed,
        per_byte=per_byte,
        seconds=fixed + per_byte * read[:, None],
        nbytes=np.array(
            [
                _stored(stock, sizes[step.key])
                for step, (*_, stock) in zip(steps, paces, strict=True)
            ],
            dtype=float,
        ),
        bandwidth=_matrix(names, roads, "bandwidth"),
        latency=latency,
        begins=begins if begins.any() else None,
        lead=measured.start,
    )


def sizes_of(graph: Graph, measurements: Measurements) -> dict[str, int]:
    """Bytes in memory of every source and result, as well as they are known.

    Where the graph knows nothing, the ratio of output to input of earlier runs is used; the rest
    follows from it through the graph.
    """
    extents = graph.extents
    sizes = {key: extent.nbytes for key, extent in extents.items()}
    if not measurements.output_ratio:
        return sizes
    for key, step in graph.steps.items():
        guessed = extents[key].guessed
        largest = max((sizes[wanted] for wanted in step.inputs), default=sizes[key])
        ratio = measurements.ratio(step.operation, step.stage)
        if guessed.startswith(UNKNOWN) and ratio is not None and step.stage in ("whole", "part"):
            sizes[key] = max(1, round(ratio * sum(sizes[wanted] for wanted in step.inputs)))
        elif guessed.startswith((UNKNOWN, "same")):
            sizes[key] = largest
    return sizes


def never_run(step: Step, measured: Measurements) -> bool:
    """Whether the time of a step rests on nothing; what puts parts together counts as known."""
    names = names_of(step.operation, step.stage)
    return not (only_combines(step) or any(name in measured.paces for name in names))


def only_combines(step: Step) -> bool:
    """Whether a step adds up parts, whose time says nothing of the operation's own."""
    return step.stage in ("merge", "combine")


def _stored(stock: Stock | None, nbytes: int) -> float:
    """Bytes of a result when it moves, if it takes so many in memory."""
    if stock is None:
        return float(nbytes)
    return max(1.0, float(round(stock.fixed + stock.ratio * nbytes)))


def _matrix(names: Sequence[str], roads: Roads, field: str) -> Floats:
    local = float("inf") if field == "bandwidth" else 0.0
    rows = [[local if a == b else getattr(roads[a, b], field) for b in names] for a in names]
    return np.array(rows, dtype=float).reshape(len(names), len(names))

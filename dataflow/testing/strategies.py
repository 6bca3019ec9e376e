"""Hypothesis strategies for records, graphs and whole worlds to plan in.

The operations below are real: they work on NumPy arrays and on xarray objects, so that a graph
drawn here can be run as well as planned. Hypothesis is imported here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent, Replica, Variable
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import OperationFunction, operation
from dataflow.placement.measurements import Measurements, Pace, identity
from dataflow.policy.check import Verdict, check
from dataflow.sites import Link, Site, Topology

SITE_NAMES = ("ams", "delft", "nikhef", "uva", "wur")


@operation(kind="elementwise")
def square(x: Any) -> Any:
    """Each element times itself."""
    return x * x


@operation(kind="elementwise")
def product(x: Any, y: Any) -> Any:
    """Element times element."""
    return x * y


@operation(kind="linear", output="scalar")
def total(x: Any) -> Any:
    """Sum of all elements."""
    return x.sum()


@operation(kind="linear")
def reverse(x: Any, *, factor: int = 3) -> Any:
    """The elements from last to first, times a factor; says nothing of its result's size."""
    return x[::-1] * factor


@operation(kind="linear", output="scalar")
def weighted(x: Any, y: Any) -> Any:
    """Sum of one and twice the sum of the other."""
    return x.sum() + 2 * y.sum()


@operation(kind="reduction", output="scalar", combine=np.maximum, finish=np.negative)
def lowest_top(x: Any) -> Any:
    """Minus the largest element: a reduction whose last step matters."""
    return x.max()


@operation(kind="opaque", output="same")
def centre(x: Any) -> Any:
    """Distance from the mean: not linear in pieces, not elementwise."""
    return x - x.mean()


@operation(kind="opaque")
def spread(x: Any, y: Any) -> Any:
    """One number of two arrays, of unknown size beforehand."""
    return abs(x.max() - y.min())


#: With the number of arguments that each is called with.
OPERATIONS: tuple[tuple[OperationFunction[..., Any], tuple[int, ...]], ...] = (
    (square, (1,)),
    (product, (2,)),
    (total, (1, 2, 3)),
    (weighted, (2,)),
    (lowest_top, (1, 2, 3)),
    (centre, (1,)),
    (spread, (2,)),
)


def datasets(elements: int = 12) -> st.SearchStrategy[Dataset]:
    """Registered arrays of one dimension and so many elements."""
    return st.builds(
        lambda name: dataset(name, elements), st.text("abcdefgh", min_size=1, max_size=4)
    )


def dataset(name: str, elements: int = 12, *, site: str = "ams") -> Dataset:
    """A registered array of floats; its key is its name."""
    array = Variable(
        name=name, dims=("x",), shape=(elements,), dtype="float64", nbytes=8 * elements
    )
    extent = Extent(nbytes=array.nbytes, variables=(array,))
    return Dataset(id=f"d-{name}", name=name, key=name, kind="array", extent=extent, site=site)


@st.composite
def graphs(
    draw: st.DrawFn,
    *,
    max_datasets: int = 4,
    min_steps: int = 1,
    max_steps: int = 8,
    elements: int = 12,
) -> Graph:
    """Graphs of real operations over arrays of one length, with shared and repeated inputs."""
    count = draw(st.integers(1, max_datasets).map(lambda less: max_datasets + 1 - less))
    pool = [of_dataset(dataset(f"run{n}", elements)) for n in range(1, count + 1)]
    arrays = list(pool)
    for _ in range(draw(st.integers(min_steps, max_steps))):
        way = draw(st.sampled_from(["operation", "operation", "add", "subtract", "scale"]))
        if way == "operation":
            function, counts = draw(st.sampled_from(OPERATIONS))
            inputs = [draw(st.sampled_from(arrays)) for _ in range(draw(st.sampled_from(counts)))]
            made = function(*inputs)
        elif way == "scale":
            made = draw(st.sampled_from([2, -1, 0.5])) * draw(st.sampled_from(pool))
        else:
            left, right = draw(st.sampled_from(pool)), draw(st.sampled_from(arrays))
            made = left + right if way == "add" else left - right
        pool.append(made)
        if made.shape == (elements,):
            arrays.append(made)
    last = draw(st.lists(st.sampled_from(pool[count:]), min_size=1, max_size=3))
    return merge([pool[-1], *last])


@st.composite
def topologies(draw: st.DrawFn, *, min_sites: int = 1, max_sites: int = 4) -> Topology:
    """Sites with different workers and speeds; some links declared, some not."""
    names = SITE_NAMES[: draw(st.integers(min_sites, max_sites))]
    sites = tuple(
        Site(
            name=name,
            workers=draw(st.integers(1, 3)),
            speed=draw(st.sampled_from([0.5, 1.0, 2.0])),
        )
        for name in names
    )
    pairs = [(a, b) for a in names for b in names if a != b]
    known = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links = tuple(
        Link(
            source=a,
            target=b,
            bandwidth=draw(st.sampled_from([1e3, 1e5, 1e7])),
            latency=draw(st.sampled_from([0.0, 0.01, 0.2])),
        )
        for a, b in known
    )
    return Topology(sites=sites, links=links)


def replica(key: str, site: str, nbytes: int) -> Replica:
    """A copy in a directory of a site."""
    return Replica(
        key=key,
        site=site,
        store="data",
        url=f"file:///{site}/{key}",
        format="zarr",
        nbytes=nbytes,
        fingerprint=key,
    )


@dataclass(frozen=True, kw_only=True)
class World:
    """All that a plan is made from."""

    graph: Graph
    topology: Topology
    replicas: Mapping[str, Sequence[Replica]]
    verdicts: Mapping[str, Mapping[str, Verdict]]
    measurements: Measurements


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    max_sites: int = 4,
    min_steps: int = 3,
    max_steps: int = 9,
    stored: bool = True,
) -> World:
    """A graph, sites, copies, verdicts and measurements.

    Every step has an allowed site; with ``stored`` some results may exist already.
    """
    graph = draw(graphs(min_steps=min_steps, max_steps=max_steps))
    topology = draw(topologies(min_sites=min(2, max_sites), max_sites=max_sites))
    names = [site.name for site in topology.sites]
    held = list(graph.sources)
    if stored and draw(st.sampled_from([False, False, True])):
        held += draw(st.lists(st.sampled_from(list(graph.steps)), unique=True, max_size=2))
    replicas = {
        key: [
            replica(key, site, draw(st.sampled_from([100_000, 1_000, 10])))
            for site in draw(
                st.one_of(
                    st.sampled_from([[name] for name in names]),
                    st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True),
                )
            )
        ]
        for key in held
    }
    verdicts: dict[str, dict[str, Verdict]] = {}
    for key, row in check(graph, topology).items():
        some = st.lists(st.sampled_from(names), min_size=1, unique=True)
        allowed = draw(st.one_of(st.just(names), some))
        verdicts[key] = {
            name: verdict
            if name in allowed
            else Verdict(False, "agreement", f"the owner does not let it run at {name}")
            for name, verdict in row.items()
        }
    paces = {
        identity(step.operation): {
            draw(st.sampled_from(names)): Pace(
                fixed=draw(st.sampled_from([0.0, 0.1])), per_byte=draw(st.sampled_from([0.0, 1e-4]))
            )
        }
        for step in graph.steps.values()
        if draw(st.booleans())
    }
    return World(
        graph=graph,
        topology=topology,
        replicas=replicas,
        verdicts=verdicts,
        measurements=Measurements(paces=paces),
    )

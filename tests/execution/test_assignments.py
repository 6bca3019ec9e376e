"""Random graphs give the same result for every legal assignment of sites.

Each plan is carried out as the driver would: what the state of the job wants becomes an order, and
a site answers it from what lies at that site and nothing else. The functions are real, and run by
the code that workers run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent, Replica
from dataflow.errors import PlacementError
from dataflow.execution.events import (
    Crossed,
    Ended,
    JobCreated,
    JobStarted,
    Order,
    Report,
    SegmentOrder,
    Stored,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.orders import order_of, wanted
from dataflow.execution.stages import carried, evaluate
from dataflow.execution.state import JobState, apply, begin
from dataflow.graph.graph import Graph
from dataflow.graph.operation import Functions
from dataflow.placement.make import make_plan
from dataflow.placement.plan import Plan
from dataflow.sites import Link
from dataflow.testing.strategies import World, worlds


def values_of(graph: Graph, seed: int) -> dict[str, xr.DataArray]:
    rng = np.random.default_rng(seed)
    return {
        key: xr.DataArray(rng.integers(-9, 10, dataset.extent.shape).astype(float), dims="x")
        for key, dataset in graph.sources.items()
    }


def in_one_place(graph: Graph, data: Mapping[str, Any]) -> dict[str, Any]:
    """Every step after the other on gathered data."""
    found = dict(data)
    for key, step in graph.steps.items():
        values = [found[wanted] for wanted in step.inputs]
        found[key] = carried(evaluate(step, graph.functions[step.operation.code], values, {}))
    return {key: found[key] for key in graph.outputs}


class Sites:
    """What lies where; each order sees its own site only."""

    def __init__(self, world: World, functions: Mapping[str, Functions], data: Any) -> None:
        self.functions = functions
        self.lying: dict[tuple[str, str], Any] = {
            (replica.site, key): data[key]
            for key, copies in world.replicas.items()
            for replica in copies
        }

    def carry_out(self, order: Order) -> Iterator[Report]:
        if not isinstance(order, SegmentOrder):
            value = self.lying[order.replica.site, order.key]
            self.lying[order.site, order.key] = value
            yield Crossed(
                key=order.key,
                source=order.replica.site,
                target=order.site,
                nbytes=value.nbytes,
                seconds=0.0,
            )
            yield stored(order.key, order.site)
            return
        assert all(replica.site == order.site for replica in order.inputs.values())
        values = {key: self.lying[order.site, key] for key in order.inputs}
        for step in order.steps:
            functions = self.functions[step.operation.code]
            given = [values[key] for key in step.inputs]
            values[step.key] = carried(evaluate(step, functions, given, order.extents))
        for key in order.outputs:
            self.lying[order.site, key] = values[key]
            yield stored(key, order.site)


def stored(key: str, site: str) -> Stored:
    extent = Extent(nbytes=8)
    dataset = Dataset(id=key, name=key, key=key, kind="array", extent=extent, site=site)
    replica = Replica(key=key, site=site, store="r", url=f"x:{site}/{key}", format="zarr", nbytes=8)
    return Stored(key=key, replica=replica, dataset=dataset)


def carry_out(plan: Plan, sites: Sites, draw: Any) -> JobState:
    """Run a plan, units that may run at the same time in any order."""
    state = apply(begin(JobCreated(job="j", plan=plan)), JobStarted())
    while not state.over:
        units = wanted(state).units
        assert units, "the job is stuck"
        name = draw(sorted(units))
        attempt = units[name]
        order = order_of(state, name, attempt)
        state = apply(state, UnitStarted(unit=name, site=order.site, attempt=attempt))
        for number, report in enumerate([*sites.carry_out(order), Ended()]):
            event = UnitReported(unit=name, attempt=attempt, report=report, number=number)
            state = apply(state, event)
    return state


def with_slow_roads(world: World) -> World:
    """The same world where every byte counts, so that steps are taken apart wherever they can be."""
    names = [site.name for site in world.topology.sites]
    links = tuple(
        Link(source=a, target=b, bandwidth=1.0, latency=0.0) for a in names for b in names if a != b
    )
    return replace(world, topology=replace(world.topology, links=links))


def legal(world: World) -> list[dict[str, str]]:
    """All assignments of the user's steps to sites that the verdicts allow."""
    rows = [
        [(key, site) for site, verdict in world.verdicts[key].items() if verdict]
        for key in world.graph.steps
    ]
    return [dict(choice) for choice in itertools.product(*rows)]


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_every_legal_assignment_gives_the_same(data: st.DataObject, seed: int) -> None:
    world = data.draw(worlds(max_sites=3, min_steps=1, max_steps=4, stored=False))
    if seed % 4:
        world = with_slow_roads(world)
    choices = legal(world)
    assume(1 < len(choices) <= 81)
    values = values_of(world.graph, seed)
    expected = in_one_place(world.graph, values)
    ran = 0
    for pinned in choices:
        try:
            plan = make_plan(
                world.graph,
                topology=world.topology,
                replicas=world.replicas,
                verdicts=world.verdicts,
                pinned=pinned,
                keep=("results", "all")[seed % 2],  # type: ignore[arg-type]
            )
        except PlacementError:
            continue  # a source lies nowhere within reach
        for key, site in pinned.items():
            if key in plan.assignment_by_key:
                assert plan.assignment_by_key[key].site == site
        functions = dict(world.graph.functions)
        sites = Sites(world, functions, values)
        state = carry_out(plan, sites, lambda names: names[seed % len(names)])
        assert state.status == "done"
        for key, copies in state.results().items():
            value = sites.lying[copies[0].site, key]
            np.testing.assert_allclose(np.asarray(value), np.asarray(expected[key]), rtol=1e-12)
        ran += 1
    assume(ran > 0)


@settings(max_examples=150)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_the_planners_own_choice_gives_the_same(data: st.DataObject, seed: int) -> None:
    world = data.draw(worlds(max_sites=4, min_steps=2, max_steps=9, stored=False))
    if seed % 4:
        world = with_slow_roads(world)
    values = values_of(world.graph, seed)
    try:
        plan = make_plan(
            world.graph,
            topology=world.topology,
            replicas=world.replicas,
            verdicts=world.verdicts,
            measurements=world.measurements,
        )
    except PlacementError:
        assume(False)
    sites = Sites(world, dict(world.graph.functions), values)
    state = carry_out(plan, sites, lambda names: names[seed % len(names)])
    expected = in_one_place(world.graph, values)
    for key, copies in state.results().items():
        value = sites.lying[copies[0].site, key]
        np.testing.assert_allclose(np.asarray(value), np.asarray(expected[key]), rtol=1e-12)

"""What is likely of a plan: around its figures, wider where less is known, and used where asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import PlacementError
from dataflow.graph.graph import of_dataset
from dataflow.placement.compare import difference
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import (
    Band,
    Crossing,
    Measurements,
    Pace,
    Stock,
    identity,
)
from dataflow.placement.plan import Likely, Plan
from dataflow.policy.check import check
from dataflow.sites import Link, Site, Topology
from dataflow.testing.strategies import World, dataset, replica, square, total, worlds

SURE = Band(low=0.99, high=1.01)


def of_world(world: World, measurements: Measurements, **how: object) -> Plan:
    return make_plan(
        world.graph,
        topology=world.topology,
        replicas=world.replicas,
        verdicts=world.verdicts,
        measurements=measurements,
        **how,  # type: ignore[arg-type]
    )


@given(worlds(), st.floats(0.02, 0.5), st.floats(0, 1))
def test_figures_are_among_what_is_likely(world: World, beginning: float, per_byte: float) -> None:
    known = replace(
        world.measurements,
        beginnings={world.topology.sites[0].name: Pace(fixed=beginning, per_byte=0.0)},
        stored={
            identity(step.operation): Stock(fixed=100.0, ratio=per_byte)
            for step in world.graph.steps.values()
        },
    )
    plan = of_world(world, known)
    assert plan.likely is not None
    low, high = plan.likely.seconds
    assert low <= plan.seconds * (1 + 1e-9)
    assert high >= plan.seconds * (1 - 1e-9)
    few, many = plan.likely.nbytes
    assert few <= plan.nbytes + len(plan.transfers)
    assert many >= plan.nbytes - len(plan.transfers)
    for assignment in plan.assignments:
        if assignment.reused is None:
            assert assignment.likely is not None
            assert assignment.likely[0] <= assignment.seconds * (1 + 1e-9)
            assert assignment.likely[1] >= assignment.seconds * (1 - 1e-9)


@given(worlds())
def test_who_wants_to_be_sure_is_told_of_more_seconds(world: World) -> None:
    plan = of_world(world, world.measurements)
    sure = of_world(world, world.measurements, quantile=0.9, pinned=_sites(plan))
    assert sure.seconds >= plan.seconds * (1 - 1e-9)
    assert sure.likely is not None


def _sites(plan: Plan) -> dict[str, str]:
    return {a.key: a.site for a in plan.assignments if a.reused is None}


RUN = dataset("run", 1_000_000)
TWO = Topology(
    sites=(Site(name="near"), Site(name="steady")),
    links=(Link(source="near", target="steady", bandwidth=1e9, latency=0.0),),
)


def choose(near: Band, steady: Band, **how: object) -> Plan:
    from dataflow.graph.graph import of_dataset

    graph = total(of_dataset(RUN))
    key = next(iter(graph.sources))
    paces = {
        "near": Pace(fixed=1.0, per_byte=0.0, band=near),
        "steady": Pace(fixed=1.5, per_byte=0.0, band=steady),
    }
    return make_plan(
        graph,
        topology=TWO,
        replicas={key: [replica(key, "near", 8_000_000)]},
        verdicts=check(graph, TWO),
        measurements=Measurements(
            paces={identity(total.operation): paces},
            crossings={"near": {"steady": Crossing(nbytes=8e6, seconds=0.01, band=SURE)}},
        ),
        **how,  # type: ignore[arg-type]
    )


def test_a_site_that_is_sometimes_slow_is_left_by_who_wants_to_be_sure() -> None:
    wild = Band(low=0.9, high=20.0)
    assert choose(wild, SURE).assignments[0].site == "near"
    sure = choose(wild, SURE, quantile=0.9)
    assert sure.assignments[0].site == "steady"
    assert sure.seconds == pytest.approx(1.25, rel=0.05)
    assert choose(SURE, SURE, quantile=0.9).assignments[0].site == "near"


@pytest.mark.parametrize("quantile", [0, 1, -0.5, 90, True, "much", float("nan")])
def test_a_share_is_a_share(quantile: object) -> None:
    with pytest.raises(PlacementError, match="quantile"):
        choose(SURE, SURE, quantile=quantile)


def test_plans_that_cannot_be_told_apart_say_so() -> None:
    plan = choose(SURE, SURE)
    assert plan.likely is not None
    wide = Likely(seconds=(0.5, 2.0), nbytes=plan.likely.nbytes)
    steadier = Likely(seconds=(0.7, 1.8), nbytes=plan.likely.nbytes)
    one, other = replace(plan, likely=wide), replace(plan, seconds=1.3, likely=steadier)
    assert difference(one, other).alike
    assert "within what can be predicted" in repr(difference(one, other))
    assert not difference(one, replace(other, nbytes=10**6)).alike
    later = Likely(seconds=(0.7, 2.6), nbytes=plan.likely.nbytes)
    assert not difference(one, replace(other, likely=later)).alike
    as_quick = Likely(seconds=(0.5001, 2.6), nbytes=plan.likely.nbytes)
    assert not difference(one, replace(other, likely=as_quick)).alike
    assert difference(plan, replace(plan, seconds=plan.seconds * 1.001)).alike


def test_four_times_the_work_is_not_as_long() -> None:
    from dataflow.graph.graph import merge, of_dataset

    runs = [dataset(f"run{number}", 1000) for number in range(8)]

    def of(count: int) -> Plan:
        graph = merge([square(of_dataset(run)) for run in runs[:count]])
        return make_plan(
            graph,
            topology=TWO,
            replicas={key: [replica(key, "near", 8000)] for key in graph.sources},
            verdicts=check(graph, TWO),
            pinned={step.key: "near" for step in graph.steps.values()},
        )

    one, eight = of(1), of(8)
    assert one.likely is not None
    assert eight.likely is not None
    assert one.likely.seconds[0] < eight.seconds  # the intervals may meet
    assert not difference(one, eight).alike


@pytest.mark.parametrize(
    ("steady", "alike"), [(Band(low=0.5, high=2.0), True), (Band(low=0.95, high=1.3), False)]
)
def test_a_margin_within_the_noise_is_called_that(steady: Band, alike: bool) -> None:
    from dataflow.graph.graph import of_dataset

    slower = Site(name="steady", speed=0.8)
    topology = replace(TWO, sites=(TWO.sites[0], slower))
    graph = square(of_dataset(RUN))
    key = next(iter(graph.sources))
    pace = Pace(fixed=1.25, per_byte=0.0, band=steady)
    quick = Pace(fixed=1.0, per_byte=0.0, band=Band(low=0.95, high=1.3))
    plan = make_plan(
        graph,
        topology=topology,
        replicas={key: [replica(key, site, 8_000_000) for site in ("near", "steady")]},
        verdicts=check(graph, topology),
        measurements=Measurements(
            paces={identity(square.operation): {"near": quick, "steady": pace}}
        ),
    )
    why = plan.why(plan.label(plan.outputs[0]))
    assert why.margin is not None
    assert why.margin.site == "steady"
    assert why.margin.alike is alike
    assert ("cannot be told whether steady" in repr(why)) is alike
    assert "eight of ten such runs take" in plan.table()
    assert "eight of ten such runs take" in plan._repr_html_()


@given(worlds(), st.floats(0.01, 100))
def test_what_passes_before_the_first_order_is_added_once(world: World, start: float) -> None:
    plain = of_world(world, world.measurements)
    known = replace(world.measurements, starting=Pace(fixed=start, per_byte=0.0))
    late = of_world(world, known, pinned=_sites(plain))
    if plain.segments or plain.transfers:
        assert late.seconds == pytest.approx(plain.seconds + start)


def test_data_stay_where_a_job_begins_late() -> None:
    topology = Topology(
        sites=(Site(name="a"), Site(name="b")),
        links=(
            Link(source="a", target="b", bandwidth=12.5e6, latency=0.001),
            Link(source="b", target="a", bandwidth=12.5e6, latency=0.001),
        ),
    )
    graph = square(of_dataset(dataset("x", 125_000, site="a")))
    plan = make_plan(
        graph,
        topology=topology,
        replicas={"x": [replica("x", "a", 1_000_000)]},
        verdicts=check(graph, topology),
        measurements=Measurements(starting=Pace(fixed=0.5, per_byte=0.0)),
    )
    assert [a.site for a in plan.assignments] == ["a"]
    assert plan.nbytes == 0
    assert plan.seconds >= 0.5

"""Room: no plan keeps more at a site than fits, and what stands in the way is named."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dataflow.datasets import Replica
from dataflow.errors import NoAllowedSite, PlacementError
from dataflow.graph.graph import merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.placement import make
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import Measurements, Stock, identity
from dataflow.placement.plan import Plan
from dataflow.placement.room import has_room, rooms_of
from dataflow.placement.spread import spread
from dataflow.policy.check import check
from dataflow.sites import Site, Topology
from dataflow.stores import Store
from dataflow.testing.strategies import World, dataset, replica, worlds

NAMES = ("ams", "uva")
WORLD = Topology(sites=tuple(Site(name=name) for name in NAMES))


@operation(kind="opaque", output=1_000)
def first(x: object) -> object:
    return x


@operation(kind="opaque", output=1_000)
def other(x: object) -> object:
    return x


def of(*sites: str, rooms: dict[str, int] | None = None, **how: object) -> Plan:
    run = of_dataset(dataset("run", 1000))
    graph = merge([first(run), other(run)])
    key = next(iter(graph.sources))
    return make_plan(
        graph,
        topology=WORLD,
        replicas={key: [replica(key, site, 8000) for site in sites]},
        verdicts=check(graph, WORLD),
        rooms=rooms,
        **how,  # type: ignore[arg-type]
    )


def placed(plan: Plan) -> list[str]:
    return sorted(a.site for a in plan.assignments)


def test_results_go_where_there_is_room() -> None:
    assert placed(of("ams")) == ["ams", "ams"]
    full = of("ams", rooms={"ams": 999})
    assert placed(full) == ["uva", "uva"]
    why = full.why(full.label(full.outputs[0]))
    refused = next(c for c in why.candidates if not c.allowed)
    assert (refused.site, refused.rule) == ("ams", "disk")
    assert "needs room for 1 kB, and there is 999 B" in repr(why)


def test_what_does_not_fit_together_is_taken_apart() -> None:
    assert placed(of("ams", "uva", rooms={"ams": 1500, "uva": 1500})) == ["ams", "uva"]


def test_a_great_deal_is_put_elsewhere_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [of_dataset(dataset(f"run{number}", 125)) for number in range(70)]
    graph = merge([first(run) for run in runs])
    homes = {key: [replica(key, "ams", 1000)] for key in graph.sources}
    monkeypatch.setattr(make, "MOST_ROUNDS", 5)
    plan = make_plan(
        graph,
        topology=WORLD,
        replicas=homes,
        verdicts=check(graph, WORLD),
        rooms={"ams": 20_500},
    )
    assert placed(plan).count("ams") == 20


def test_copies_and_results_have_to_fit_together() -> None:
    plan = of("ams", pinned={"first": "ams", "other": "uva"})
    elsewhere = next(a.key for a in plan.assignments if a.site == "uva")
    none = Measurements()
    whole = spread(plan, {elsewhere: {"ams": True}}, topology=WORLD, replicas={}, measurements=none)
    assert has_room(whole, {"ams": 2000}, none) is whole
    assert has_room(plan, {"ams": 1000}, none) is plan
    with pytest.raises(PlacementError, match=r"need 2 kB at ams, where there is room for 1\.5 kB"):
        has_room(whole, {"ams": 1500}, none)
    (step,) = (step for step in plan.steps if step.key != elsewhere)
    small = Stock(fixed=10.0, ratio=0.0)
    squeezed = Measurements(stored={identity(step.operation): small})
    assert has_room(whole, {"ams": 1500}, squeezed), "results take in a store what they took there"


def test_the_least_that_stands_in_the_way_is_named() -> None:
    with pytest.raises(NoAllowedSite) as caught:
        of("ams", rooms={"ams": 999, "uva": 8500})
    assert "(disk)" in str(caught.value)
    assert "room for" in str(caught.value)
    with pytest.raises(PlacementError, match=r"need 2 kB at ams, where there is room for 1\.5 kB"):
        of("ams", rooms={"ams": 1500}, pinned=dict.fromkeys(("first", "other"), "ams"))
    with pytest.raises(PlacementError, match="at uva, where there is room for"):
        of("ams", rooms={"uva": 1500}, result_at="uva", pinned={"first": "ams", "other": "ams"})


def test_room_is_what_the_catalog_leaves() -> None:
    topology = Topology(
        sites=(Site(name="ams"), Site(name="uva")),
        stores=(
            Store(name="data", site="ams", url="file:///d", purpose="data"),
            Store(name="results", site="ams", url="file:///r", room=10_000),
            Store(name="results", site="uva", url="file:///u"),
        ),
    )

    def at(site: str, store: str, nbytes: int) -> Replica:
        return Replica(
            key="k", site=site, store=store, url=f"file:///{store}/x", format="zarr3", nbytes=nbytes
        )

    held = {"k": [at("ams", "results", 4000), at("ams", "data", 9999), at("uva", "results", 5)]}
    assert rooms_of(topology, held) == {"ams": 6000}
    assert rooms_of(topology, {"k": [at("ams", "results", 99_999)]}) == {"ams": 0}


@given(worlds(), st.data())
def test_no_plan_keeps_more_than_fits(world: World, data: st.DataObject) -> None:
    names = [site.name for site in world.topology.sites]
    rooms = data.draw(st.dictionaries(st.sampled_from(names), st.integers(0, 10**6)))
    assume(rooms)
    try:
        plan = make_plan(
            world.graph,
            topology=world.topology,
            replicas=world.replicas,
            verdicts=world.verdicts,
            rooms=rooms,
        )
    except PlacementError:
        return
    used = dict.fromkeys(names, 0)
    unknown = {key for key, extent in plan.extents.items() if extent.guessed.startswith("unknown")}
    stored = {(key, segment.site) for segment in plan.segments for key in segment.outputs}
    for key, site in stored:
        if key not in unknown:
            used[site] += plan.extents[key].nbytes
    for transfer in plan.transfers:
        if transfer.replica is not None or transfer.key not in unknown:
            used[transfer.target] += transfer.nbytes
    assert all(used[site] <= room for site, room in rooms.items())

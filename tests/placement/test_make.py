"""Plans: legal, complete, priced right, the same every time."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow import documents
from dataflow.datasets import Replica
from dataflow.errors import NoAllowedSite, PlacementError
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.graph.serialize import from_document, to_document
from dataflow.placement.make import graph_of, make_plan, relied_upon
from dataflow.placement.measurements import Measurements, Pace, identity
from dataflow.placement.plan import Plan
from dataflow.policy.check import Verdict, check
from dataflow.sites import Link, Site, Topology
from dataflow.testing.strategies import (
    World,
    centre,
    dataset,
    lowest_top,
    replica,
    square,
    topologies,
    total,
    weighted,
    worlds,
)


@operation(kind="opaque", output="scalar")
def median(x: Any, y: Any) -> Any:
    return x, y


@operation(kind="linear")
def summed(x: Any) -> Any:
    return x.sum()


def sites(*names: str, **fields: Any) -> Topology:
    return Topology(sites=tuple(Site(name=name, **fields) for name in names))


def plan(
    graph: Graph, topology: Topology, replicas: Mapping[str, Sequence[Replica]], **how: Any
) -> Plan:
    how.setdefault("verdicts", check(graph, topology))
    return make_plan(graph, topology=topology, replicas=replicas, **how)


def of_world(world: World, **how: Any) -> Plan:
    return make_plan(
        world.graph,
        topology=world.topology,
        replicas=world.replicas,
        verdicts=world.verdicts,
        measurements=world.measurements,
        **how,
    )


def array(name: str, elements: int) -> Graph:
    return of_dataset(dataset(name, elements))


def at(found: Plan, label: str) -> str:
    return found.why(label).site


# --- what every plan must keep --------------------------------------------------------------------

HOW = st.fixed_dictionaries(
    {
        "keep": st.sampled_from(["results", "all"]),
        "rule": st.sampled_from(["cheapest", "largest-input", "largest-intermediate", "random"]),
        "reuse": st.booleans(),
    }
)


@given(worlds(), HOW, st.booleans())
def test_every_plan_is_legal_complete_and_priced_right(
    world: World, how: dict[str, Any], deliver: bool
) -> None:
    result_at = world.topology.sites[-1].name if deliver else ""
    found = of_world(world, result_at=result_at, **how)
    _keeps_verdicts(found, world)
    _can_be_carried_out(found)
    assert found.nbytes == _bytes_by_hand(found)
    assert found.seconds == pytest.approx(_seconds_by_hand(found), abs=1e-9)
    assert set(found.outputs) == set(world.graph.outputs)
    if how["keep"] == "all":
        stored = {key for segment in found.segments for key in segment.outputs}
        reused = {a.key for a in found.assignments if a.reused}
        assert stored | reused == {step.key for step in found.steps}


def _keeps_verdicts(found: Plan, world: World) -> None:
    for assignment in found.assignments:
        if assignment.reused is not None:
            assert assignment.reused in world.replicas[assignment.key]
            continue
        step = found.step_by_key[assignment.key]
        while step.key not in world.verdicts:
            step = found.step_by_key.get(step.mother) or next(
                s for s in found.originals if s.key == step.mother
            )
        row = world.verdicts[step.key]
        assert row[assignment.site].allowed
        for candidate in assignment.candidates:
            assert candidate.allowed == row[candidate.site].allowed
            if not candidate.allowed:
                assert candidate.because == row[candidate.site].because
        assert [c.site for c in assignment.candidates if c.because == "chosen"] == [assignment.site]


def _can_be_carried_out(found: Plan) -> None:
    """Play it: a unit runs when what it needs is there; in the end everything is where it must be."""
    there: set[tuple[str, str]] = set()
    segments, transfers = list(found.segments), list(found.transfers)
    assert len({(t.key, t.target) for t in transfers}) == len(transfers)
    assert len({u.id for u in (*segments, *transfers)}) == len(segments) + len(transfers)
    while segments or transfers:
        go = [
            t
            for t in transfers
            if (t.replica is not None and t.replica.site == t.source) or (t.key, t.source) in there
        ]
        run = [
            s
            for s in segments
            if all((key, s.site) in there or key in s.replicas for key in s.inputs)
        ]
        assert go or run, "units wait for one another"
        for segment in run:
            made = set(segment.inputs)
            assert set(segment.replicas) <= made
            assert all(r.site == segment.site for r in segment.replicas.values())
            for key in segment.steps:
                assert set(found.step_by_key[key].inputs) <= made, "a step before its input"
                made.add(key)
                assert found.assignment_by_key[key].site == segment.site
            assert set(segment.outputs) <= set(segment.steps)
            there |= {(key, segment.site) for key in segment.outputs}
            segments.remove(segment)
        for transfer in go:
            assert transfer.source != transfer.target
            there.add((transfer.key, transfer.target))
            transfers.remove(transfer)
    run_keys = [key for segment in found.segments for key in segment.steps]
    waiting = [a.key for a in found.assignments if a.reused is None]
    assert sorted(run_keys) == sorted(waiting), "each step is in one segment"
    for key in found.outputs:
        if found.result_at:
            held = found.replicas.get(key)
            ends = (key, found.result_at) in there or (held and held.site == found.result_at)
            assert ends
        else:
            assert key in found.replicas or any(k == key for k, _ in there)


def _bytes_by_hand(found: Plan) -> int:
    """From assignments alone: each key once to each other site that needs it."""
    where = {a.key: a.site for a in found.assignments if a.reused is None}
    needed = {(k, site) for key, site in where.items() for k in found.step_by_key[key].inputs}
    if found.result_at:
        needed |= {(key, found.result_at) for key in found.outputs}
    here = {(key, s.site) for s in found.segments for key in s.replicas}
    here |= {(key, r.site) for key, r in found.replicas.items()}
    copies = {t.key: t.replica.nbytes for t in found.transfers if t.replica}
    return sum(
        found.extents[key].nbytes if key in where else copies[key]
        for key, site in needed
        if where.get(key) != site and (key, site) not in here
    )


def _seconds_by_hand(found: Plan) -> float:
    """The execution model, slowly: nothing is known of it but its page."""
    order = {key: n for n, key in enumerate(a.key for a in found.assignments if a.reused is None)}
    where = {a.key: a for a in found.assignments if a.reused is None}
    inputs = {key: set(found.step_by_key[key].inputs) for key in order}
    present = {(key, s.site) for s in found.segments for key in s.replicas}
    free = {site.name: max(1, site.workers) for site in found.topology.sites}
    waiting = dict.fromkeys(order)
    links: dict[tuple[str, str], float] = {}
    queue = list(found.transfers)
    events: list[tuple[float, int, str, str]] = []
    now = last = 0.0

    def urgency(key: str, target: str) -> tuple[int, int]:
        readers = [order[k] for k in order if key in inputs[k] and where[k].site == target]
        held = [k for k in found.sources | found.step_by_key if k not in order]
        return (0, min(readers)) if readers else (1, -1 if key in held else order[key])

    while True:
        for key in sorted(waiting, key=lambda k: order[k]):
            site = where[key].site
            if free[site] and all((k, site) in present for k in inputs[key]):
                free[site] -= 1
                del waiting[key]
                heapq.heappush(events, (now + where[key].seconds, 0, key, site))
        for transfer in sorted(queue, key=lambda t: urgency(t.key, t.target)):
            road = (transfer.source, transfer.target)
            exists = transfer.replica is not None or (transfer.key, transfer.source) in present
            if exists and links.get(road, 0.0) <= now:
                latency = found.topology.link(*road).latency
                links[road] = now + transfer.seconds - latency
                queue.remove(transfer)
                heapq.heappush(events, (links[road], 1, "", ""))
                appears = now + (transfer.seconds - latency) + latency
                heapq.heappush(events, (appears, 2, transfer.key, transfer.target))
        if not events:
            return last
        now = events[0][0]
        while events and events[0][0] <= now + 1e-12:
            moment, what, key, site = heapq.heappop(events)
            now = max(now, moment)
            if what != 1:
                present.add((key, site))
                last = now
            if what == 0:
                free[site] += 1


@given(worlds(), HOW)
def test_the_same_plan_every_time(world: World, how: dict[str, Any]) -> None:
    first = of_world(world, **how)
    again = from_document(to_document(world.graph))
    turned = replace(world.topology, sites=world.topology.sites[::-1], taken_at=9.0)
    second = of_world(replace(world, graph=again, topology=turned), **how)
    assert second.id == first.id
    assert [(a.key, a.site) for a in second.assignments] == [
        (a.key, a.site) for a in first.assignments
    ]


@given(worlds())
def test_a_plan_can_be_saved(world: World) -> None:
    found = of_world(world)
    assert documents.from_json(Plan, documents.to_json(found)) == found


@given(worlds(), HOW)
def test_the_graph_comes_back_out_of_a_plan(world: World, how: dict[str, Any]) -> None:
    graph = graph_of(of_world(world, **how))
    assert dict(graph.steps) == dict(world.graph.steps)
    assert graph.outputs == world.graph.outputs
    assert dict(graph.sources) == dict(world.graph.sources)


@given(worlds(stored=False), st.data())
def test_planning_again_uses_what_is_stored_and_avoids_what_is_lost(
    world: World, data: st.DataObject
) -> None:
    first = of_world(world)
    done = {}
    for segment in first.segments[: data.draw(st.integers(0, len(first.segments)))]:
        for key in segment.outputs:
            done[key] = [replica(key, segment.site, first.extents[key].nbytes)]
    second = make_plan(
        graph_of(first),
        topology=world.topology,
        replicas={**world.replicas, **done},
        verdicts=world.verdicts,
        measurements=world.measurements,
    )
    _can_be_carried_out(second)
    assert not done.keys() & {key for s in second.segments for key in s.steps}


@given(topologies(min_sites=2))
def test_a_world_of_one_dataset(topology: Topology) -> None:
    graph = array("run1", 10)
    found = plan(graph, topology, {"run1": [replica("run1", "ams", 80)]}, result_at="delft")
    assert [t.target for t in found.transfers] == ["delft"]
    assert (found.steps, found.segments) == ((), ())
    assert found.nbytes == 80
    assert plan(graph, topology, {"run1": [replica("run1", "ams", 80)]}).nbytes == 0


# --- check values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [total, summed, lowest_top])
def test_two_datasets(function: Any) -> None:
    """KO-03."""
    graph = function(array("a", 10**6), array("b", 10**5))
    copies = {"a": [replica("a", "p1", 8 * 10**6)], "b": [replica("b", "p2", 8 * 10**5)]}
    found = plan(graph, sites("p0", "p1", "p2"), copies)
    name = function.operation.name
    assert at(found, f"{name}[a]") == "p1"
    assert at(found, f"{name}[b]") == "p2"
    assert at(found, name) == "p1"
    assert relied_upon(found) == [graph.steps[graph.key]]
    (moved,) = found.transfers
    assert found.label(moved.key) == f"{name}[b]"
    assert found.nbytes == (8 if function.operation.output else 8 * 10**5)


def test_parts_go_to_their_data_even_where_a_faster_site_is_near() -> None:
    fast = Topology(
        sites=(Site(name="p1", speed=0.5), Site(name="p2", speed=4.0)),
        links=(Link(source="p1", target="p2", bandwidth=1e10, latency=0.0),),
    )
    graph = total(array("a", 10**6), array("b", 10**5))
    copies = {"a": [replica("a", "p1", 8 * 10**6)], "b": [replica("b", "p2", 8 * 10**5)]}
    found = plan(graph, fast, copies)
    assert at(found, "total[a]") == "p1"


def test_non_linear_goes_to_the_larger_input() -> None:
    """KO-05."""
    graph = median(array("a", 1_250_000), array("b", 25_000_000))
    copies = {"a": [replica("a", "p1", 10**7)], "b": [replica("b", "p2", 2 * 10**8)]}
    found = plan(graph, sites("p0", "p1", "p2"), copies)
    assert at(found, "median") == "p2"
    assert found.nbytes == 10**7
    why = found.why("median")
    assert why.because == "200 MB already there; the next best, p1, would move 190 MB more"
    prices = {c.site: c.nbytes for c in why.candidates}
    assert prices == {"p0": 210_000_000, "p1": 200_000_000, "p2": 10_000_000}
    assert "p1" in repr(why)
    assert "<table>" in why._repr_html_()


def test_two_holders() -> None:
    """KO-08: one of them runs it; the nearer one, and the other if it is gone or busy."""
    topology = replace(
        sites("p1", "p2", "p3"),
        links=(Link(source="p3", target="p2", bandwidth=1e9, latency=0.001),),
    )
    graph = square(array("a", 1000))
    copies = {"a": [replica("a", site, 8000) for site in ("p1", "p2")]}
    assert at(plan(graph, topology, copies), "square") == "p1"
    assert at(plan(graph, topology, copies, near="p3"), "square") == "p2"
    gone = replace(topology, away=frozenset({"p1"}))
    assert at(plan(graph, gone, copies), "square") == "p2"
    excluded = check(graph, topology, excluded={"p1": "lost while it ran"})
    assert at(plan(graph, topology, copies, verdicts=excluded), "square") == "p2"
    busy = Measurements(load={"p1": 0.9})
    assert at(plan(graph, topology, copies, measurements=busy), "square") == "p2"


def test_a_copy_at_a_lost_site_is_not_read() -> None:
    graph = median(array("a", 1000), array("b", 10))
    copies = {"a": [replica("a", s, 8000) for s in ("p1", "p2")], "b": [replica("b", "p3", 80)]}
    topology = sites("p1", "p2", "p3")
    verdicts = check(graph, topology, excluded={"p1": "lost"}, scope={"median": "p3"})
    found = plan(graph, topology, copies, verdicts=verdicts)
    assert [(t.source, t.target) for t in found.transfers] == [("p2", "p3")]


def test_sites_read_copies_of_their_own() -> None:
    graph = merge([square(array("a", 1000)), centre(array("a", 1000))])
    copies = {"a": [replica("a", site, 8000) for site in ("p1", "p2")]}
    verdicts = check(graph, sites("p1", "p2"), scope={"square": "p1", "centre": "p2"})
    found = plan(graph, sites("p1", "p2"), copies, verdicts=verdicts)
    assert found.nbytes == 0
    assert {s.site: s.replicas["a"].site for s in found.segments} == {"p1": "p1", "p2": "p2"}


def test_collector_rules() -> None:
    @operation(kind="linear", output=8000)
    def histogram(x: Any) -> Any:
        return x

    graph = histogram(array("a", 10**6), array("b", 10**5), array("c", 10**5))
    where = {"a": "p1", "b": "p2", "c": "p2"}
    copies = {k: [replica(k, s, 8 * (10**6 if k == "a" else 10**5))] for k, s in where.items()}
    topology = sites("p0", "p1", "p2")
    merged = plan(graph, topology, copies)
    assert merged.nbytes == 8000, "the partial results of p2 are merged before they travel"
    assert at(merged, "histogram") == "p1"
    for rule, site in (("largest-input", "p1"), ("largest-intermediate", "p1")):
        assert at(plan(graph, topology, copies, rule=rule), "histogram") == site
    spread = {
        at(plan(graph, topology, copies, rule="random", seed=n), "histogram") for n in range(9)
    }
    assert spread == {"p1", "p2"}
    with pytest.raises(PlacementError, match="no collector rule 'best'"):
        plan(graph, topology, copies, rule="best")


def test_least_bytes_decide_where_parts_meet() -> None:
    ratio = {identity(summed.operation): 0.5}
    graph = summed(array("a", 10**6), array("b", 10**5))
    copies = {"a": [replica("a", "p1", 8 * 10**6)], "b": [replica("b", "p2", 8 * 10**5)]}
    found = plan(graph, sites("p1", "p2"), copies, measurements=Measurements(output_ratio=ratio))
    assert found.nbytes == 4 * 10**5
    assert found.extents[graph.key].guessed == "from earlier runs"


def test_nothing_is_split_that_moves_more_when_split() -> None:
    ratio = {identity(summed.operation): 10.0}
    graph = summed(array("a", 10**6), array("b", 10**5))
    copies = {"a": [replica("a", "p1", 8 * 10**6)], "b": [replica("b", "p2", 8 * 10**5)]}
    found = plan(graph, sites("p1", "p2"), copies, measurements=Measurements(output_ratio=ratio))
    assert [step.stage for step in found.steps] == ["whole"]
    assert found.nbytes == 8 * 10**5
    assert relied_upon(found) == []


def test_several_arguments_are_split_where_it_saves() -> None:
    graph = weighted(array("a", 10**6), array("b", 10**6))
    copies = {k: [replica(k, s, 8 * 10**6)] for k, s in (("a", "p1"), ("b", "p2"))}
    found = plan(graph, sites("p1", "p2"), copies)
    assert found.nbytes == 8
    assert [step.stage for step in found.steps] == ["part", "part", "combine"]


def test_memory_may_be_too_small_for_the_whole_and_enough_for_parts() -> None:
    @operation(kind="linear", output="scalar", lazy=False)
    def loaded(x: Any) -> Any:
        return x.sum()

    graph = loaded(array("a", 1000), array("b", 1000))
    copies = {k: [replica(k, s, 8000)] for k, s in (("a", "p1"), ("b", "p2"))}
    found = plan(graph, sites("p1", "p2", memory=10_000), copies)
    assert [step.stage for step in found.steps] == ["part", "part", "combine"]
    with pytest.raises(NoAllowedSite, match="needs 16 kB at once, a worker there has 10 kB"):
        plan(loaded(array("a", 2000)), sites("p1", memory=10_000), copies)


def test_a_faster_site_wins_when_work_dwarfs_the_way() -> None:
    graph = centre(array("a", 1000))
    slow = Measurements(paces={identity(centre.operation): {"p1": Pace(fixed=100.0, per_byte=0.0)}})
    topology = Topology(sites=(Site(name="p1"), Site(name="p2", speed=10.0)))
    copies = {"a": [replica("a", "p1", 8000)]}
    found = plan(graph, topology, copies, measurements=slow)
    assert at(found, "centre") == "p2"
    assert found.seconds == pytest.approx(10.0, abs=0.1)
    assert "less, and end" in found.why("centre").because


def test_reuse() -> None:
    inner = square(array("a", 1000))
    graph = centre(inner)
    copies = {"a": [replica("a", "p1", 8000)], inner.key: [replica(inner.key, "p2", 8000)]}
    found = plan(graph, sites("p1", "p2"), copies)
    reused, runs = found.assignments
    assert reused.reused == copies[inner.key][0]
    assert (runs.site, found.nbytes) == ("p2", 0)
    assert "1 reused" in repr(found)
    again = plan(graph, sites("p1", "p2"), copies, reuse=False)
    assert all(a.reused is None for a in again.assignments)
    done = plan(graph, sites("p1"), {graph.key: [replica(graph.key, "p1", 8000)]})
    assert (done.segments, done.transfers, len(done.steps)) == ((), (), 1)
    assert dict(graph_of(done).steps) == dict(graph.steps)


def test_a_stored_result_that_is_asked_for_is_shown_where_it_must_end() -> None:
    inner = square(array("a", 1000))
    stored = [replica(inner.key, site, 8000) for site in ("p1", "p2")]
    graph = merge([inner, centre(inner)])
    verdicts = check(graph, sites("p1", "p2"), scope={"centre": "p1"})
    copies = {"a": [replica("a", "p1", 8000)], inner.key: stored}
    found = plan(graph, sites("p1", "p2"), copies, verdicts=verdicts, result_at="p2")
    assert found.replicas[inner.key] == found.assignment_by_key[inner.key].reused == stored[1]
    assert found.segments[0].replicas[inner.key] == stored[0]
    assert [found.label(t.key) for t in found.transfers] == ["centre"]


def test_pinned() -> None:
    graph = square(array("a", 1000))
    copies = {"a": [replica("a", "p1", 8000)]}
    for name in (graph.key, "square"):
        assert at(plan(graph, sites("p1", "p2"), copies, pinned={name: "p2"}), "square") == "p2"
    verdicts = check(graph, sites("p1", "p2"), scope={"square": "p1"})
    with pytest.raises(NoAllowedSite, match="p2: the scope says p1"):
        plan(graph, sites("p1", "p2"), copies, verdicts=verdicts, pinned={"square": "p2"})


def test_no_allowed_site_says_why_for_each() -> None:
    graph = square(array("a", 1000))
    topology = replace(
        sites("p1", "p2", "p3"), sites=(*sites("p1", "p2").sites, Site(name="p3", trust="steward"))
    )
    verdicts = check(graph, topology, excluded={"p1": "lost", "p2": "walltime over"})
    with pytest.raises(NoAllowedSite) as caught:
        plan(graph, topology, {"a": [replica("a", "p3", 8)]}, verdicts=verdicts)
    assert set(caught.value.refusals) == {"p1", "p2", "p3"}
    assert "lost" in str(caught.value)
    assert "steward" in str(caught.value)


def test_data_out_of_reach() -> None:
    graph = square(array("a", 1000))
    topology = replace(sites("p1", "p2"), away=frozenset({"p2"}))
    with pytest.raises(PlacementError, match="'a' cannot be read now: its only copies are at p2"):
        plan(graph, topology, {"a": [replica("a", "p2", 8)]})
    with pytest.raises(PlacementError, match="'a' has no copy at any site"):
        plan(graph, topology, {})
    with pytest.raises(PlacementError, match="'p2' does not answer"):
        plan(graph, topology, {}, result_at="p2")
    with pytest.raises(PlacementError, match="no site 'p9'; there are p1, p2"):
        plan(graph, topology, {}, result_at="p9")


def test_notes_name_every_guess() -> None:
    @operation
    def mystery(x: Any, y: Any) -> Any:
        return x, y

    graph = mystery(array("a", 1000), array("b", 1000))
    copies = {k: [replica(k, s, 8000)] for k, s in (("a", "p1"), ("b", "p2"))}
    notes = "\n".join(plan(graph, sites("p1", "p2"), copies).notes)
    assert "size not known before it runs" in notes
    assert "mystery never ran" in notes
    assert "never measured or declared" in notes


def test_large_plans_too() -> None:
    pool = [array(f"d{n}", 1000) for n in range(5)]
    copies = {f"d{n}": [replica(f"d{n}", f"p{n % 3}", 8000)] for n in range(5)}
    for n in range(150):
        pool.append((square, centre)[n % 2](pool[n // 2]))
        pool.append(total(pool[n], pool[n + 1]))
    graph = merge(pool[5:])
    found = plan(graph, sites("p0", "p1", "p2"), copies)
    _can_be_carried_out(found)
    assert found.nbytes == _bytes_by_hand(found)


def test_unknown_verdicts_are_refusals() -> None:
    graph = square(array("a", 1000))
    verdicts = {graph.key: {"p1": Verdict(True, "allowed", "")}}
    found = plan(graph, sites("p1", "p2"), {"a": [replica("a", "p2", 8000)]}, verdicts=verdicts)
    assert at(found, "square") == "p1"

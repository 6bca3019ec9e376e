"""What runs teach: exactly where they are clear, never nonsense where they are not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent
from dataflow.execution.events import (
    Crossed,
    Ended,
    JobCreated,
    JobStarted,
    Stored,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.observe import (
    JOBS,
    LARGE,
    ORDERS,
    ROAD,
    Observation,
    fold,
    held_up,
    link_of,
    measurements_of,
    observations,
    of_job,
    pace_id,
)
from dataflow.execution.series import KEPT_RUNS
from dataflow.execution.state import apply, replay
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.operation import operation
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import Measurements, Pace, identity
from dataflow.placement.plan import Plan
from dataflow.policy.check import check
from dataflow.sites import ASSUMED_LATENCY, Link, Site, Topology
from dataflow.testing.strategies import dataset, replica, square, total, worlds

# --- from reports to observations ---------------------------------------------------------------


@operation(kind="opaque")
def pair(x: Any, y: Any) -> Any:
    return x, y


@operation(kind="elementwise")
def half(x: Any) -> Any:
    return x / 2


def of(graph: Graph, homes: Mapping[str, str], **how: Any) -> Plan:
    topology = Topology(sites=(Site(name="ams"), Site(name="uva")))
    replicas = {key: [replica(key, site, 800_000)] for key, site in homes.items()}
    verdicts = check(graph, topology)
    return make_plan(graph, topology=topology, replicas=replicas, verdicts=verdicts, **how)


def array(name: str) -> Graph:
    return of_dataset(dataset(name, 100_000))


def stored(key: str, site: str = "ams", nbytes: int = 800_000, **fields: Any) -> Stored:
    made = Dataset(id=key, name=key, key=key, kind="array", extent=Extent(nbytes=nbytes), site=site)
    given = {"seconds": 3.0, **fields}
    return Stored(key=key, replica=replica(key, site, nbytes), dataset=made, **given)


def homes(*graphs: Graph) -> dict[str, str]:
    keys = [graph.outputs[0] for graph in graphs]
    return dict(zip(keys, ["ams", "uva"], strict=False))


def test_a_stored_result_is_one_observation() -> None:
    x = array("x")
    plan = of(total(x), homes(x))
    (key,) = plan.outputs
    seen = [stored(key, nbytes=8), Ended()]
    expected = Observation(
        operation=identity(total.operation),
        site="ams",
        input_nbytes=800_000,
        output_nbytes=8,
        seconds=3.0,
        stored_nbytes=8,
    )
    assert observations(plan, seen) == [expected]
    reported = [UnitReported(unit="u", attempt=1, report=report) for report in seen]
    assert observations(plan, reported) == [expected]


@pytest.mark.parametrize(
    "fields",
    [{"reused": True}, {"site": "uva"}, {"seconds": 0.0}, {"seconds": math.nan}, {"seconds": -1}],
)
def test_what_was_not_computed_there_teaches_nothing(fields: Mapping[str, Any]) -> None:
    x = array("x")
    plan = of(total(x), homes(x))
    assert observations(plan, [stored(plan.outputs[0], **fields)]) == []
    assert observations(plan, [stored("somewhere else from")]) == []
    assert observations(plan, [stored(next(iter(plan.sources)))]) == []


def test_steps_that_leave_nothing_behind_share_the_time_as_predicted() -> None:
    x = array("x")
    plan = of(total(half(square(x))), homes(x))
    found = observations(plan, [stored(plan.outputs[0], nbytes=8)])
    assert [o.operation for o in found] == [identity(f.operation) for f in (square, half, total)]
    assert [o.output_nbytes for o in found] == [None, None, 8]
    assert [o.input_nbytes for o in found] == [800_000] * 3
    predicted = [assignment.seconds for assignment in plan.assignments]
    assert sum(o.seconds for o in found) == pytest.approx(3.0)
    for observation, seconds in zip(found, predicted, strict=True):
        assert observation.seconds == pytest.approx(3.0 * seconds / sum(predicted))


def test_stored_steps_stand_for_themselves() -> None:
    x = array("x")
    plan = of(total(square(x)), homes(x), keep="all")
    first, last = (step.key for step in plan.steps)
    found = observations(plan, [stored(first, seconds=5.0, nbytes=100), stored(last, seconds=1.0)])
    assert [(o.input_nbytes, o.output_nbytes, o.seconds) for o in found] == [
        (800_000, 100, 5.0),
        (100, 800_000, 1.0),
    ]


def test_parts_and_what_combines_them_are_filed_apart() -> None:
    x, y = array("x"), array("y")
    plan = of(total(x, y), homes(x, y))
    assert sorted(step.stage for step in plan.steps) == ["combine", "part", "part"]
    places = plan.assignment_by_key
    reports = [stored(step.key, places[step.key].site) for step in plan.steps]
    found = observations(plan, reports)
    assert found
    name = identity(total.operation)
    parts = [o for o in found if o.operation == f"{name}/part"]
    assert {o.input_nbytes for o in parts} == {800_000}
    assert {o.site for o in parts} == {"ams", "uva"}
    assert {o.operation for o in found} - {f"{name}/part"} == {f"{name}/combine"}


@given(worlds(), st.data())
def test_no_run_is_counted_twice(world: Any, data: Any) -> None:
    plan = make_plan(
        world.graph,
        topology=world.topology,
        replicas=world.replicas,
        verdicts=world.verdicts,
        measurements=world.measurements,
    )
    outputs = [(key, segment.site) for segment in plan.segments for key in segment.outputs]
    reports = [stored(key, site, seconds=2.0) for key, site in data.draw(st.permutations(outputs))]
    found = observations(plan, reports)
    assert len(found) <= sum(len(segment.steps) for segment in plan.segments)
    assert sum(o.seconds for o in found) <= 2.0 * len(reports) * (1 + 1e-9)
    assert all(o.seconds >= 0 and o.input_nbytes >= 0 for o in found)


# --- from observations to records ---------------------------------------------------------------


def run(nbytes: int, seconds: float, made: int | None = None, site: str = "ams") -> Observation:
    return Observation(
        operation="f@1", site=site, input_nbytes=nbytes, output_nbytes=made, seconds=seconds
    )


def folded(runs: Sequence[Observation]) -> dict[str, Any]:
    body: dict[str, Any] | None = None
    for one in runs:
        # As it comes back from a catalog.
        body = json.loads(json.dumps(fold(body, one), allow_nan=False))
    assert body is not None
    return body


SIZES = st.integers(0, 10**13)
AMOUNTS = st.floats(0, 1e6)


@given(
    st.lists(SIZES, min_size=2, max_size=24),
    st.floats(0, 1e4),
    st.one_of(st.just(0.0), st.floats(1e-13, 1e-6)),
)
def test_runs_without_noise_give_the_pace_back(
    sizes: list[int], fixed: float, per_byte: float
) -> None:
    assume(max(sizes) > 2 * min(sizes) and max(sizes) > 1000)
    body = folded([run(n, fixed + per_byte * n) for n in sizes])
    longest = fixed + per_byte * max(sizes)
    assert body["fixed"] == pytest.approx(fixed, rel=1e-6, abs=1e-6 * longest)
    assert body["per_byte"] == pytest.approx(per_byte, rel=1e-6, abs=1e-6 * longest / max(sizes))


def known_of(*bodies: Any) -> Measurements:
    """What is known of records, each by a writer of its own."""
    written = [(f"writer {number}", body) for number, body in enumerate(bodies)]
    return measurements_of(written, {"ams", "uva"})


@given(st.lists(st.tuples(SIZES, AMOUNTS, st.one_of(st.none(), SIZES)), min_size=1, max_size=40))
def test_whatever_was_seen_the_pace_is_possible(runs: list[tuple[int, float, int | None]]) -> None:
    body = folded([run(*one) for one in runs])
    assert body["runs"] == len(runs)
    for name in ("fixed", "per_byte"):
        assert math.isfinite(body[name])
        assert body[name] >= 0
    # The line passes the runs: at their mean it is not above all of them.
    seconds = [one[1] for one in runs]
    assert body["fixed"] <= max(seconds) * (1 + 1e-9)
    ratio = body["output_ratio"]
    assert ratio is None or (math.isfinite(ratio) and ratio >= 0)
    found = known_of(body).paces["f@1"]["ams"]
    assert found.fixed == pytest.approx(body["fixed"])
    assert found.per_byte == pytest.approx(body["per_byte"])
    assert found.runs == len(runs)


@given(st.floats(), st.floats(), st.floats())
def test_numbers_out_of_bounds_do_no_harm(nbytes: float, seconds: float, made: float) -> None:
    wild = Observation(
        operation="f@1",
        site="ams",
        input_nbytes=nbytes,  # type: ignore[arg-type]
        output_nbytes=made,  # type: ignore[arg-type]
        seconds=seconds,
    )
    body = folded([run(10, 1.0), wild, run(10**9, 2.0)])
    assert math.isfinite(body["fixed"])
    assert math.isfinite(body["per_byte"])


def test_a_single_size() -> None:
    small = folded([run(LARGE - 1, 2.0)] * 3)
    assert (small["fixed"], small["per_byte"]) == (pytest.approx(2.0), 0.0)
    large = folded([run(10 * LARGE, 2.0)] * 3)
    assert (large["fixed"], large["per_byte"]) == (0.0, pytest.approx(2.0 / (10 * LARGE)))


def test_larger_and_yet_quicker_is_not_extrapolated() -> None:
    body = folded([run(10**8, 3.0), run(10**9, 1.0)])
    assert body["per_byte"] == 0.0
    assert 1.0 <= body["fixed"] < 3.0


def test_a_line_that_would_start_below_zero_starts_at_zero() -> None:
    body = folded([run(10**8, 1.0), run(2 * 10**8, 4.0), run(3 * 10**8, 7.0)])
    assert body["fixed"] == 0.0
    assert 1e-8 <= body["per_byte"] <= 7e-8 / 3


def test_new_machines_are_believed_soon() -> None:
    sizes = [10**8, 10**9] * 20
    slow = [run(n, 1e-7 * n) for n in sizes]
    assert folded(slow)["per_byte"] == pytest.approx(1e-7)
    assert folded([*slow, run(10**9, 10.0)])["per_byte"] == pytest.approx(1e-7), "one is no rule"
    both = folded(slow + [run(n, 1e-8 * n) for n in sizes[:16]])
    assert both["per_byte"] == pytest.approx(1e-8)


def test_a_cold_start_is_not_the_rule() -> None:
    body = folded([run(1000, 40.0), run(1000, 1.0), run(1000, 1.1)])
    assert 1.0 <= body["fixed"] <= 1.2
    band = known_of(body).paces["f@1"]["ams"].band
    assert band.high > 2, "and yet it may come again"


def test_records_do_not_grow() -> None:
    body = folded([run(n, 1.0, n) for n in range(100)])
    assert (len(body["lately"]), body["runs"]) == (KEPT_RUNS, 100)


def test_output_ratio_counts_bytes_of_stored_results() -> None:
    body = folded([run(1000, 1.0, 100), run(3000, 1.0, None), run(1000, 1.0, 300)])
    assert body["output_ratio"] == pytest.approx(0.2, abs=0.03)
    assert folded([run(1000, 1.0)])["output_ratio"] is None
    assert folded([run(0, 1.0, 8)])["output_ratio"] is None


@pytest.mark.parametrize(
    "old",
    [
        {},
        {"sums": {"weight": 1.0}},
        {"lately": 3, "runs": 1},
        {"lately": [[1.0, 1.0, None, None]]},
        {"lately": [[1.0, 1.0, None, None]] * 2, "runs": 1},
        {"lately": [[1.0, 1.0, None]], "runs": 1},
        {"lately": [["much", 1.0, None, None]], "runs": 1},
        {"lately": [[1.0, math.inf, None, None]], "runs": 1},
        {"lately": [[1.0, 1.0, -1.0, None]], "runs": 1},
        {"lately": [[1.0, 1.0, None, None]] * 25, "runs": 25},
    ],
)
def test_records_that_are_not_ours_count_as_none(old: Mapping[str, Any]) -> None:
    assert fold(old, run(10, 1.0)) == fold(None, run(10, 1.0))
    assert known_of({"operation": "f@1", "site": "ams", **old}).paces == {}


def test_records_without_a_place_are_passed_over() -> None:
    good = fold(None, run(10, 1.0))
    records = [{**good, "site": 3}, {"what": "a link"}, good]
    assert known_of(*records).paces == {"f@1": {"ams": Pace(fixed=1.0, per_byte=0.0)}}


def test_what_several_sites_wrote_is_put_together() -> None:
    here = folded([run(10**7, 1.1, 10), run(10**7, 1.1, 10)])
    there = folded([run(10**8, 2.0, 100)])
    away = folded([run(10**9, 5.0, 1000, site="uva")])
    known = known_of(away, here, there)
    assert known.paces["f@1"]["ams"].fixed == pytest.approx(1.0)
    assert known.paces["f@1"]["ams"].per_byte == pytest.approx(1e-8)
    assert known.paces["f@1"]["ams"].runs == 3
    assert known.paces["f@1"]["uva"] == Pace(fixed=0.0, per_byte=5e-9)
    assert known.output_ratio["f@1"] == pytest.approx(1e-6)


def test_ids() -> None:
    assert pace_id("f@1", "ams") == "pace:f@1:ams"


# --- orders, sizes, roads -----------------------------------------------------------------------


def seen(operation: str, site: str, nbytes: int, seconds: float, **more: Any) -> Observation:
    return Observation(
        operation=operation,
        site=site,
        input_nbytes=nbytes,
        output_nbytes=None,
        seconds=seconds,
        **more,
    )


def test_a_finished_job_shows_what_its_orders_took() -> None:
    x, y = array("x"), array("y")
    plan = of(pair(x, y), homes(x, y))
    (transfer,), (segment,) = plan.transfers, plan.segments
    state = replay([JobCreated(job="j", plan=plan, time=9.5), JobStarted(time=9.7)])
    said = [
        (transfer.id, stored(transfer.key, transfer.target), transfer.target),
        (segment.id, stored(segment.outputs[0], segment.site, nbytes=900), segment.site),
    ]
    at = 10.0
    for unit, report, site in said:
        state = apply(state, UnitStarted(unit=unit, site=site, attempt=1, time=at))
        crossed = Crossed(
            key=transfer.key,
            source=transfer.source,
            target=transfer.target,
            nbytes=800_000,
            seconds=1.0,
        )
        reports = [crossed, report, Ended()] if unit == transfer.id else [report, Ended()]
        at += 3.5
        for number, one in enumerate(reports):
            state = apply(
                state, UnitReported(unit=unit, attempt=1, report=one, number=number, time=at)
            )
    assert state.status == "done"
    found = {(o.operation, o.site): o for o in of_job(state)}
    road = found[ROAD, f"{transfer.source}>{transfer.target}"]
    assert (road.input_nbytes, road.seconds) == (800_000, 3.5)
    assert found[ORDERS, segment.site].seconds == pytest.approx(0.5)
    assert found[JOBS, ""].seconds == pytest.approx(0.5)
    made = found[identity(pair.operation), segment.site]
    assert (made.stored_nbytes, made.seconds) == (900, 3.0)


def test_orders_count_when_there_are_a_few() -> None:
    runs = [seen(ORDERS, "ams", 1, seconds) for seconds in (30.0, 0.2, 0.3)]
    assert known_of(folded(runs[:2])).beginnings == {}
    known = known_of(folded(runs))
    assert known.beginning(Site(name="ams")) == (pytest.approx(0.3, rel=0.05), 0.0)
    assert known.beginning(Site(name="uva")) == known.beginning(Site(name="ams")), (
        "as at other sites"
    )
    assert known.beginning(Site(name="s3", stores_only=True)) == (0.0, 0.0)
    more = [*runs, seen(ORDERS, "ams", 5, 0.7), seen(ORDERS, "ams", 9, 1.1)]
    begins, each = known_of(folded(more)).beginning(Site(name="ams"))
    assert begins == pytest.approx(0.2, abs=0.1)
    assert each == pytest.approx(0.1, abs=0.03)


def test_a_job_starts_later_than_it_is_given() -> None:
    body = folded([seen(JOBS, "", 0, seconds) for seconds in (0.3, 0.04, 0.05)])
    assert known_of(body).start == pytest.approx(0.05, abs=0.02)
    assert known_of().start == 0.0


def kept(nbytes: int, stored: int) -> Observation:
    return Observation(
        operation="f@1",
        site="ams",
        input_nbytes=nbytes,
        output_nbytes=nbytes,
        seconds=1.0,
        stored_nbytes=stored,
    )


def test_small_results_that_were_packed_are_packed_again() -> None:
    """Rows of a table: what they take is known after one run, not only that it is less."""
    tables = [kept(285_000, 8_500), kept(318_000, 16_500)] * 3
    known = known_of(folded(tables)).stored["f@1"]
    assert 0.02 < known.ratio < 0.06
    assert 8_000 < known.fixed + known.ratio * 300_000 < 18_000
    # Large ones tell it better, and of them alone the ratio is taken.
    known = known_of(folded([*tables, kept(20_000_000, 10_000_000)])).stored["f@1"]
    assert known.ratio == pytest.approx(0.5)


def test_small_results_tell_what_is_stored_beside_them_and_nothing_of_large_ones() -> None:
    small = [kept(n, 1500 + n) for n in (8, 1000, 1010)]
    known = known_of(folded(small)).stored["f@1"]
    assert (known.fixed, known.ratio) == (pytest.approx(1500), 1.0)
    both = [*small, *(kept(n, n // 4) for n in (10**8, 10**9, 10**9))]
    known = known_of(folded(both)).stored["f@1"]
    assert known.ratio == pytest.approx(0.25)
    assert known.fixed == pytest.approx(2000, abs=600)


def test_who_waits_for_others_of_its_job_says_nothing_of_orders() -> None:
    x, y = array("x"), array("y")
    plan = of(pair(x, y), homes(x, y))
    (transfer,), (segment,) = plan.transfers, plan.segments
    state = replay([JobCreated(job="j", plan=plan, time=9.5), JobStarted(time=9.7)])
    for unit, began, over in ((transfer.id, 10.0, 13.0), (segment.id, 13.0, 16.0)):
        known = replace(state.units[unit], status="ended", attempt=1, began=began, over=over)
        state = replace(state, units={**state.units, unit: known})
    assert not held_up(state, transfer.id)
    twin = replace(state.units[transfer.id], began=12.8, over=13.1)
    twice = replace(plan, transfers=(transfer, replace(transfer, id="another")))
    both = replace(state, plan=twice, units={**state.units, "another": twin})
    assert held_up(both, "another"), "its own 0.3 s are 0.08 s of what came beside it"
    assert not held_up(both, transfer.id), "3 s are not"
    assert not held_up(both, segment.id), "it needs no road"
    few = replace(
        both, plan=replace(plan, transfers=tuple(replace(t, nbytes=800) for t in twice.transfers))
    )
    assert not held_up(few, "another"), "so few bytes hold up nobody"
    away = replace(
        both,
        plan=replace(plan, transfers=(transfer, replace(transfer, id="another", target="delft"))),
    )
    assert not held_up(away, "another"), "plans do not count that roads begin as one"


@pytest.mark.parametrize(
    "run",
    [[1e-300, 1.0, None, None], [10, 1e13, None, None], [10, 1.0, 0.5, None], [10, 1.0, 8, 1e-9]],
)
def test_what_cannot_be_was_not_seen(run: list[Any]) -> None:
    body = {"operation": "f@1", "site": "ams", "runs": 3, "lately": [run] * 3}
    assert known_of(body) == Measurements()


def test_nobody_speaks_twice_or_of_sites_that_are_not_there() -> None:
    good = folded([run(10, 1.0)] * 4)
    wild = {**good, "lately": [[10, 1e9, None, None]] * 4}
    many = [("eve", wild)] * 20
    honest = [("ams", good), ("uva", good)]
    found = measurements_of([*honest, *many], {"ams", "uva"}).paces["f@1"]["ams"]
    assert found.fixed == pytest.approx(1.0)
    elsewhere = [folded([seen(what, "nowhere", 1, 9.0)] * 4) for what in (ORDERS, JOBS, "f@1")]
    road = folded([seen(ROAD, "ams>nowhere", 10**6, 9.0)] * 4)
    assert known_of(*elsewhere, road) == Measurements()


def test_many_writers_are_soon_put_together() -> None:
    bodies = [folded([run(n + i, 1.0) for n in range(24)]) for i in range(100)]
    found = known_of(*bodies).paces["f@1"]["ams"]
    assert found.runs == 2400
    assert found.fixed == pytest.approx(1.0)


def test_a_road_is_a_delay_and_a_rate() -> None:
    runs = [seen(ROAD, "ams>uva", n, 0.2 + n / 10e6) for n in (1000, 400_000, 2_000_000)]
    known = known_of(folded(runs))
    road = known.apply_to(Topology(sites=(Site(name="ams"), Site(name="uva")), links=(KNOWN,)))
    assert road[0][1].bandwidth == pytest.approx(10e6)
    assert road[0][1].latency == pytest.approx(0.2)
    assert road[1][0].origin == "assumed"


def test_small_copies_say_nothing_of_the_rate() -> None:
    runs = [seen(ROAD, "ams>uva", 5000, 0.3)] * 3
    known = known_of(folded(runs))
    road = known.apply_to(Topology(sites=(Site(name="ams"), Site(name="uva")), links=(KNOWN,)))
    assert road[0][1].bandwidth == KNOWN.bandwidth
    assert road[0][1].seconds(5000) == pytest.approx(0.3)


# --- links --------------------------------------------------------------------------------------

CROSSED = Crossed(key="k", source="ams", target="uva", nbytes=10_000_000, seconds=1.1)
KNOWN = Link(source="ams", target="uva", bandwidth=20e6, latency=0.1)


def test_a_transfer_moves_the_average() -> None:
    link = link_of(CROSSED, KNOWN, now=7.0)
    assert link is not None
    assert link.bandwidth == pytest.approx(0.7 * 20e6 + 0.3 * 10e6)
    assert (link.latency, link.origin, link.measured_at) == (0.1, "measured", 7.0)
    for _ in range(50):
        link = link_of(CROSSED, link, now=8.0)
    assert link is not None
    assert link.bandwidth == pytest.approx(10e6)


def test_what_was_assumed_counts_nothing() -> None:
    assumed = replace(KNOWN, origin="assumed")
    link = link_of(CROSSED, assumed, now=7.0)
    assert link is not None
    assert link.bandwidth == pytest.approx(10e6)
    unknown = link_of(CROSSED, None, now=7.0)
    assert unknown is not None
    assert unknown.latency == ASSUMED_LATENCY
    assert (unknown.source, unknown.target) == ("ams", "uva")


@pytest.mark.parametrize(
    "changed",
    [{"nbytes": 255_999}, {"seconds": 0.0}, {"seconds": math.inf}, {"target": "ams"}],
)
def test_transfers_that_say_nothing(changed: Mapping[str, Any]) -> None:
    assert link_of(replace(CROSSED, **changed), KNOWN, now=7.0) is None


@given(st.floats(1e-9, 1e6), st.floats(0, 10), st.integers(256_000, 10**15))
def test_bandwidth_stays_possible(seconds: float, latency: float, nbytes: int) -> None:
    known = replace(KNOWN, latency=latency, origin="assumed")
    link = link_of(replace(CROSSED, seconds=seconds, nbytes=nbytes), known, now=1.0)
    assert link is not None
    assert nbytes / seconds <= link.bandwidth <= 2.000001 * nbytes / seconds

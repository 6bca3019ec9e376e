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
from dataflow.execution.events import Crossed, Ended, Stored, UnitReported
from dataflow.execution.observe import (
    LARGE,
    Observation,
    fold,
    link_of,
    measurements_of,
    observations,
    pace_id,
)
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.operation import operation
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import Pace, identity
from dataflow.placement.plan import Plan
from dataflow.policy.check import check
from dataflow.sites import ASSUMED_LATENCY, Link, Site, Topology
from dataflow.testing.strategies import dataset, replica, square, total, worlds

# --- from reports to observations ---------------------------------------------------------------


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


def test_parts_count_and_combining_does_not() -> None:
    x, y = array("x"), array("y")
    plan = of(total(x, y), homes(x, y))
    assert sorted(step.stage for step in plan.steps) == ["combine", "part", "part"]
    places = plan.assignment_by_key
    reports = [stored(step.key, places[step.key].site) for step in plan.steps]
    found = observations(plan, reports)
    assert found
    assert {o.operation for o in found} == {identity(total.operation)}
    assert {o.input_nbytes for o in found} == {800_000}
    assert {o.site for o in found} == {"ams", "uva"}


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
    st.lists(SIZES, min_size=2, max_size=60),
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
    found = measurements_of([body]).paces["f@1"]["ams"]
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
    assert 1.0 < body["fixed"] < 3.0


def test_a_line_that_would_start_below_zero_starts_at_zero() -> None:
    body = folded([run(10**8, 0.0), run(2 * 10**8, 4.0)])
    assert body["fixed"] == 0.0
    assert 1e-8 < body["per_byte"] < 2e-8


def test_new_machines_are_believed_soon() -> None:
    sizes = [10**8, 10**9] * 50
    slow = folded([run(n, 1e-7 * n) for n in sizes])["per_byte"]
    both = folded([run(n, 1e-7 * n) for n in sizes] + [run(n, 1e-8 * n) for n in sizes[:60]])
    assert slow == pytest.approx(1e-7)
    # Sixty runs later an eighth of the old is left.
    assert both["per_byte"] == pytest.approx(1e-8 + (1e-7 - 1e-8) / 8, rel=0.1)


def test_output_ratio_counts_bytes_of_stored_results() -> None:
    body = folded([run(1000, 1.0, 100), run(3000, 1.0, None), run(1000, 1.0, 300)])
    assert body["output_ratio"] == pytest.approx(0.2, abs=0.01)
    assert folded([run(1000, 1.0)])["output_ratio"] is None
    assert folded([run(0, 1.0, 8)])["output_ratio"] is None


@pytest.mark.parametrize(
    "old",
    [
        {},
        {"sums": 3},
        {"sums": {"weight": 1.0}},
        {"sums": {**fold(None, run(1, 1.0))["sums"], "x": "much"}},
        {"sums": {**fold(None, run(1, 1.0))["sums"], "y": math.inf}},
        {"sums": {**fold(None, run(1, 1.0))["sums"], "xx": -1.0}},
        {"sums": {**fold(None, run(1, 1.0))["sums"], "weight": 0.0}},
    ],
)
def test_records_that_are_not_ours_count_as_none(old: Mapping[str, Any]) -> None:
    assert fold(old, run(10, 1.0)) == fold(None, run(10, 1.0))
    assert measurements_of([{"operation": "f@1", "site": "ams", **old}]).paces == {}


def test_records_without_a_place_are_passed_over() -> None:
    good = fold(None, run(10, 1.0))
    records = [{**good, "site": 3}, {"what": "a link"}, good]
    assert measurements_of(records).paces == {"f@1": {"ams": Pace(fixed=1.0, per_byte=0.0)}}


def test_what_several_sites_wrote_is_put_together() -> None:
    here = folded([run(10**7, 1.1, 10), run(10**7, 1.1, 10)])
    there = folded([run(10**8, 2.0, 100)])
    away = folded([run(10**9, 5.0, 1000, site="uva")])
    known = measurements_of([away, here, there])
    assert known.paces["f@1"]["ams"].fixed == pytest.approx(1.0)
    assert known.paces["f@1"]["ams"].per_byte == pytest.approx(1e-8)
    assert known.paces["f@1"]["ams"].runs == 3
    assert known.paces["f@1"]["uva"] == Pace(fixed=0.0, per_byte=5e-9)
    assert known.output_ratio["f@1"] == pytest.approx(1e-6)


def test_ids() -> None:
    assert pace_id("f@1", "ams") == "pace:f@1:ams"


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

"""A second run: after the first, in its environment, and compared before anything is given out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr

from dataflow.datasets import Dataset, Lineage, Replica, Reproduction
from dataflow.errors import NotReproduced, PolicyError, from_document, to_document
from dataflow.execution.compare_run import run_compare
from dataflow.execution.events import (
    Compared,
    CompareOrder,
    Ended,
    Event,
    JobCreated,
    JobStarted,
    Report,
    SegmentOrder,
    Stored,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.failures import Broken
from dataflow.execution.in_worker import environment, run
from dataflow.execution.orders import order_of, wanted
from dataflow.execution.release_run import OwnRecords
from dataflow.execution.state import JobState, apply, begin
from dataflow.execution.to_dask import Place, Work
from dataflow.execution.units import site_of
from dataflow.graph.graph import of_dataset
from dataflow.placement.again import run_again
from dataflow.placement.make import make_plan
from dataflow.placement.plan import Plan
from dataflow.policy.check import Verdict
from dataflow.policy.twice import Second
from dataflow.sites import Site, Topology
from dataflow.storage.manifest import Manifest, dataset_of, replica_of
from dataflow.storage.publish import find_result
from dataflow.storage.results import write_result
from dataflow.storage.transfer import StoreSource
from dataflow.testing.strategies import dataset, replica
from tests.policy.test_rights import mean

RUN = dataset("run", 1000)
HERE = replica("run", "vu", 8000)
WORLD = Topology(sites=(Site(name="surf"), Site(name="vu")))
VERSIONS = {"python": "3.11.7", "numpy": "2.3.0"}


def planned() -> Plan:
    graph = mean(of_dataset(RUN))
    here = {"vu": Verdict(True, "", ""), "surf": Verdict(False, "agreement", "kept at vu")}
    plan = make_plan(graph, topology=WORLD, replicas={"run": (HERE,)}, verdicts={graph.key: here})
    second = Second(site="surf", brought=("run",), steps=(graph.key,))
    return run_again(plan, second, graph.outputs, topology=WORLD, replicas={"run": (HERE,)})


def told(state: JobState, name: str, *reports: Report) -> JobState:
    """The state after the order of a unit was sent and these were reported of it."""
    events: list[Event] = [UnitStarted(unit=name, site=site_of(state.plan, name), attempt=1)]
    events += [
        UnitReported(unit=name, attempt=1, report=report, number=number)
        for number, report in enumerate((*reports, Ended()))
    ]
    for event in events:
        state = apply(state, event)
    return state


def stored(key: str, site: str) -> Stored:
    lineage = Lineage(
        operation="mean", version="1", kind="opaque", inputs=("run",), environment=VERSIONS
    )
    made = replace(dataset(key, 1), key=key, site=site, lineage=lineage)
    return Stored(key=key, replica=replica(key, site, 8), dataset=made)


def test_the_second_run_follows_the_first_and_then_they_are_compared() -> None:
    plan = planned()
    assert plan.again is not None
    (first,), (brought,), (compared,) = (
        plan.segments,
        plan.again.transfers,
        plan.again.comparisons,
    )
    (key,) = plan.outputs
    state = apply(begin(JobCreated(job="j", plan=plan, user="anna")), JobStarted())
    assert set(wanted(state).units) == {first.id, brought.id}
    state = told(state, brought.id, stored("run", "surf"))
    assert set(wanted(state).units) == {first.id}, "in the environment of the first, once known"
    state = told(state, first.id, stored(key, "vu"))
    again = plan.again.segment.id
    assert set(wanted(state).units) == {again}
    order = order_of(state, again, 1)
    assert isinstance(order, SegmentOrder)
    assert (order.site, order.environment) == ("surf", VERSIONS)
    assert order_of(state, first.id, 1).environment == {}  # type: ignore[union-attr]
    state = told(state, again, stored(key, "surf"))
    assert set(wanted(state).units) == {compared.id}
    order_to_compare = order_of(state, compared.id, 1)
    assert isinstance(order_to_compare, CompareOrder)
    assert (order_to_compare.site, order_to_compare.copy.site) == ("vu", "surf")
    state = told(state, compared.id, Compared(key=key, site="vu", other="surf", equal=True))
    assert state.status == "done"
    assert [copy.site for copy in state.results()[key]] == ["vu"]


def test_a_result_goes_nowhere_else_before_it_is_compared() -> None:
    from dataflow.placement.measurements import Measurements
    from dataflow.placement.spread import spread

    plan = planned()
    (key,) = plan.outputs
    world = replace(WORLD, sites=(*WORLD.sites, Site(name="desk")))
    plan = spread(
        plan, {key: {"desk": True}}, topology=world, replicas={}, measurements=Measurements()
    )
    state = apply(begin(JobCreated(job="j", plan=plan)), JobStarted())
    state = told(state, plan.segments[0].id, stored(key, "vu"))
    (copy,) = plan.transfers
    assert copy.id not in wanted(state).units
    seen = Compared(key=key, site="vu", other="surf", equal=True)
    compared = replace(state, compared={key: seen})
    assert copy.id in wanted(compared).units


def test_a_worker_refuses_another_environment(tmp_path: Path) -> None:
    (step,) = mean(of_dataset(RUN)).steps.values()
    place = Place(root=tmp_path.as_uri(), store="results")
    pinned = {**environment(), "numpy": "0.1"}
    work = Work(step=step, site="surf", attempt="a", place=place, inputs=(), environment=pinned)
    outcome = run(work)
    assert outcome.failure is not None
    assert outcome.failure.fault == "user"
    error = from_document(outcome.failure.error)
    assert isinstance(error, PolicyError)
    assert f"numpy {environment()['numpy']}, not 0.1" in str(error)


class Site1:
    """Results of two sites in two stores, and the first one's records."""

    def __init__(self, folder: Path, first: Any, second: Any) -> None:
        self.root, self.published = folder / "vu", []  # type: ignore[var-annotated]
        self.site, self.clock = Site(name="vu"), lambda: 5.0
        self.said = True
        self.other = folder / "surf"
        made = [self._written(self.root, "vu", first), self._written(self.other, "surf", second)]
        lineage = Lineage(operation="mean", version="1", kind="opaque", inputs=())
        self.dataset = dataset_of(made[0], id="d", name="mean", site="vu", lineage=lineage)
        self.copy: Replica = replica_of(made[1], "surf", "results")
        self.second = StoreSource(replica=self.copy, manifest=made[1])

    def _written(self, root: Path, site: str, value: Any) -> Manifest:
        root.mkdir()
        provenance = {"site": site, "job": site, "created": len(site)}
        return write_result(
            value, root=root.as_uri(), key="k", attempt=f"by-{site}", provenance=provenance
        )

    async def find(self, key: str) -> Manifest | None:
        return find_result(self.root.as_uri(), key)

    async def place(self) -> Place:
        return Place(root=self.root.as_uri(), store="results")

    def source_of(self, replica: Replica, errand: Any) -> StoreSource:
        assert replica == self.copy
        return self.second

    def publish(self, records: Any) -> None:
        self.published += records

    def compare(self) -> list[Report]:
        order = CompareOrder(id="o", job="j", site="vu", key="k", copy=self.copy, user="anna")
        own = OwnRecords(
            datasets=lambda key: [self.dataset],
            replicas=list,
            stores=list,
            withdraw=lambda replica: None,
            second=lambda copy: copy if self.said else None,
        )
        reports: list[Report] = []
        asyncio.run(run_compare(order, self, own, reports.append))  # type: ignore[arg-type]
        return reports


TABLE = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
ARRAY = xr.DataArray([[1.0, 2.0]], dims=("x", "y"), attrs={"units": "m"})


@pytest.mark.parametrize("value", [TABLE, ARRAY], ids=["table", "array"])
def test_equal_results_of_two_sites_are_equal_whoever_made_them(tmp_path: Path, value: Any) -> None:
    site = Site1(tmp_path, value, value.copy())
    (report,) = site.compare()
    assert report == Compared(key="k", site="vu", other="surf", equal=True)
    (record,) = site.published
    assert isinstance(record, Dataset)
    assert record.lineage is not None
    said = record.lineage.reproduced
    assert said is not None
    assert (said.site, said.equal, said.time) == ("surf", True, 5.0)


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        (TABLE, TABLE.assign(a=[1.0, 2.5]), "part-000000.parquet"),
        (ARRAY, ARRAY + 1e-12, "c/0/0"),
        (ARRAY, ARRAY.assign_attrs(units="cm"), "zarr.json"),
    ],
    ids=["table", "array", "attributes"],
)
def test_what_differs_is_said_and_written_down(
    tmp_path: Path, first: Any, second: Any, where: str
) -> None:
    site = Site1(tmp_path, first, second)
    with pytest.raises(Broken) as ended:
        site.compare()
    error = from_document(ended.value.failure.error)
    assert isinstance(error, NotReproduced)
    assert from_document(to_document(error)).args == error.args
    assert any(where in path for path in error.differs)
    (record,) = site.published
    assert record.lineage.reproduced.equal is False
    assert record.lineage.reproduced.differs == error.differs


def test_records_of_the_first_run_have_to_be_there(tmp_path: Path) -> None:
    site = Site1(tmp_path, TABLE, TABLE)
    site.copy = replace(site.copy, site="vu")
    with pytest.raises(Broken, match="no second run"):
        site.compare()


def test_what_its_own_site_does_not_call_a_result_is_compared_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow.execution.compare_run.HEARD_SECONDS", 0.0)
    site = Site1(tmp_path, TABLE, TABLE)
    site.said = False
    with pytest.raises(Broken, match="surf does not say that it has made"):
        site.compare()
    assert site.published == []


def test_what_was_proven_is_not_spoilt_by_a_later_order(tmp_path: Path) -> None:
    site = Site1(tmp_path, TABLE, TABLE.assign(a=[1.0, 2.5]))
    assert site.dataset.lineage is not None
    proven = replace(site.dataset.lineage, reproduced=Reproduction(site="desk", equal=True))
    site.dataset = replace(site.dataset, lineage=proven)
    with pytest.raises(Broken):
        site.compare()
    assert site.published == []

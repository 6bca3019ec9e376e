"""Copies that wait for their site, moves that give the source up last, and who has replied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Replica
from dataflow.errors import (
    CorruptResult,
    PlacementError,
    PolicyError,
    SiteRefused,
    SiteUnreachable,
    StorageError,
    to_document,
)
from dataflow.execution.events import (
    Asked,
    Broke,
    Crossed,
    Ended,
    Event,
    JobCreated,
    JobStarted,
    Released,
    ReleaseOrder,
    Report,
    SiteLost,
    Stored,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.failures import Broken
from dataflow.execution.observe import link_of
from dataflow.execution.orders import order_of, wanted
from dataflow.execution.release_run import OwnRecords, may_release
from dataflow.execution.replies import replies_of
from dataflow.execution.state import JobState, apply, begin
from dataflow.execution.units import site_of
from dataflow.graph.graph import of_dataset
from dataflow.participant.planning import plan_graph, plan_move, plan_rest
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan
from dataflow.sites import Site, Topology
from dataflow.storage.manifest import FileEntry
from dataflow.storage.release import compare, delete_replica
from dataflow.storage.transfer import listing_of
from dataflow.stores import Store
from dataflow.testing.strategies import dataset, replica

NAMES = ("ams", "delft", "uva")
RUN = dataset("run", 1000)
HERE = replace(replica("run", "uva", 8000), url="file:///uva/run.npy")
WORLD = Snapshot(
    datasets=(RUN,),
    replicas={"run": (HERE,)},
    topology=Topology(
        sites=tuple(Site(name=name) for name in NAMES),
        stores=tuple(Store(name="results", site=name, url=f"file:///{name}") for name in NAMES),
    ),
)
UNREACHABLE = Broke(error=to_document(SiteUnreachable("uva", "no answer")), fault="site")


def copying(scope: str = "ams & delft") -> Plan:
    told = {"window": 6.0}
    return plan_graph(of_dataset(RUN), WORLD, Measurements(), scope=scope, told=told)


def running(plan: Plan, **how: Any) -> JobState:
    state = begin(JobCreated(job="j", plan=plan, time=1.0, user="anna", **how))
    return apply(state, JobStarted(time=2.0))


def sent(state: JobState, name: str) -> JobState:
    event = UnitStarted(
        unit=name, site=site_of(state.plan, name), attempt=wanted(state).units[name]
    )
    return apply(state, event)


def told(state: JobState, name: str, *reports: Report) -> JobState:
    for report in reports:
        unit = state.units[name]
        event: Event = UnitReported(
            unit=name, attempt=unit.attempt, report=report, number=unit.reported
        )
        state = apply(state, event)
    return state


def arrived(state: JobState, name: str) -> JobState:
    site = site_of(state.plan, name)
    copy = replace(HERE, site=site, url=f"file:///{site}/copies/run")
    return told(sent(state, name), name, Stored(key="run", replica=copy, dataset=RUN), Ended())


def to(plan: Plan, site: str) -> str:
    return next(transfer.id for transfer in plan.transfers if transfer.target == site)


def said(state: JobState, now: float) -> dict[str, str]:
    return {reply.site: reply.status for reply in replies_of(state, now)}


def test_a_copy_waits_for_its_site_as_long_as_it_takes() -> None:
    plan = copying()
    state = arrived(running(plan), to(plan, "ams"))
    late = to(plan, "delft")
    state = apply(sent(state, late), SiteLost(site="delft", reason="silent"))
    assert not state.replan, "no other site would do"
    for _ in range(20):
        state = told(state, late, UNREACHABLE)
        assert state.status == "running"
        state = sent(state, late)
    assert said(state, 5.0) == {"ams": "ok", "delft": "waiting"}
    assert said(state, 60.0) == {"ams": "ok", "delft": "timeout"}
    state = arrived(told(state, late, UNREACHABLE), late)
    assert state.status == "done"
    assert said(state, 60.0) == {"ams": "ok", "delft": "ok"}


def test_a_copy_that_failed_is_taken_from_the_next_one_that_has_it() -> None:
    plan = copying()
    state = arrived(running(plan), to(plan, "ams"))
    late = to(plan, "delft")
    state = sent(state, late)
    assert order_of(state, late, 1).replica.site == "uva"  # type: ignore[union-attr]
    state = sent(told(state, late, UNREACHABLE), late)
    assert order_of(state, late, 2).replica.site == "ams"  # type: ignore[union-attr]


def test_what_a_site_says_no_to_is_not_waited_for() -> None:
    plan = copying()
    state = arrived(running(plan), to(plan, "ams"))
    late = to(plan, "delft")
    no = Broke(error=to_document(SiteRefused("delft", "no room")), fault="site")
    state = told(sent(told(sent(state, late), late, no), late), late, no)
    assert state.status == "failed"
    assert said(state, 60.0) == {"ams": "ok", "delft": "failed"}
    cancelled = apply(running(plan), Asked(what="cancel"))
    assert set(said(cancelled, 60.0).values()) == {"failed"}


def test_one_of_several_is_looked_for_anew() -> None:
    plan = copying("ams || delft")
    (first,) = plan.transfers
    state = apply(sent(running(plan), first.id), SiteLost(site="ams", reason="silent"))
    assert state.replan
    assert [t.target for t in plan_rest(state, WORLD, Measurements(), "").transfers] == ["delft"]


# --- moves --------------------------------------------------------------------------------------


def moving(**how: Any) -> Plan:
    return plan_move(RUN, "ams", WORLD, Measurements(), **how)


def test_a_move_gives_the_source_up_when_the_copy_is_there() -> None:
    plan = moving()
    (transfer,), (release,) = plan.transfers, plan.releases
    assert (transfer.clean, transfer.patient) == (True, False)
    state = running(plan)
    assert set(wanted(state).units) == {transfer.id}, "first the copy"
    state = arrived(state, transfer.id)
    assert set(wanted(state).units) == {release.id}
    state = sent(state, release.id)
    order = order_of(state, release.id, 1)
    assert isinstance(order, ReleaseOrder)
    assert (order.site, order.replica, order.copy.site) == ("uva", HERE, "ams")
    gone = Released(key="run", site="uva", url=HERE.url)
    state = told(state, release.id, gone, Ended())
    assert state.status == "done"
    assert [copy.site for copy in state.results()["run"]] == ["ams"]


def test_a_move_that_is_cut_off_ends_failed_with_the_source_as_it_was() -> None:
    plan = moving()
    (transfer,) = plan.transfers
    state = running(plan, retries=0)
    cut = Crossed(key="run", source="uva", target="ams", nbytes=10**8, seconds=1.0, whole=False)
    state = told(sent(state, transfer.id), transfer.id, cut, UNREACHABLE)
    assert state.replan
    with pytest.raises(PlacementError, match="the source is as it was"):
        plan_rest(state, WORLD, Measurements(), "")
    assert link_of(cut, None, 1.0) is None, "its time says nothing"
    assert link_of(replace(cut, whole=True), None, 1.0) is not None


def test_what_is_moved_has_to_be_clear_before_anything_is() -> None:
    two = (HERE, replace(HERE, site="delft", url="file:///delft/run.npy"))
    several = replace(WORLD, replicas={"run": two})
    with pytest.raises(PlacementError, match="several copies: uva, delft"):
        plan_move(RUN, "ams", several, Measurements())
    plan = plan_move(RUN, "ams", several, Measurements(), source="delft")
    assert [release.site for release in plan.releases] == ["delft"]
    plan = plan_move(RUN, "delft", several, Measurements())
    assert (plan.transfers, plan.releases[0].site) == ((), "uva"), "it has one already"
    assert set(wanted(running(plan)).units) == {plan.releases[0].id}
    with pytest.raises(PlacementError, match="no copy at 'ams'"):
        plan_move(RUN, "delft", WORLD, Measurements(), source="ams")
    outside = replace(WORLD, replicas={"run": (replace(HERE, url="file:///elsewhere/run"),)})
    with pytest.raises(PlacementError, match="in no store of uva"):
        plan_move(RUN, "ams", outside, Measurements())
    away = replace(WORLD, topology=replace(WORLD.topology, away=frozenset({"ams"})))
    with pytest.raises(PlacementError, match="ams does not answer"):
        plan_move(RUN, "ams", away, Measurements())


def own(owner: str, *replicas: Replica) -> OwnRecords:
    record: Dataset = replace(RUN, owner=owner)
    return OwnRecords(
        datasets=lambda key: [record],
        replicas=lambda: replicas,
        stores=lambda: WORLD.topology.stores_at("uva"),
        withdraw=lambda replica: None,
        second=lambda copy: None,
    )


def test_a_site_gives_up_only_what_is_the_users_own() -> None:
    order = ReleaseOrder(
        id="o", job="j", site="uva", key="run", replica=HERE, copy=HERE, user="anna"
    )
    assert may_release(order, HERE, own("anna", HERE)).name == "results"
    inside = replace(HERE, key="other", url=f"{HERE.url}/part")
    for records, why in (
        (own("bob", HERE), "belongs to bob"),
        (own("", HERE), "belongs to the site"),
        (own("anna", HERE, inside), "other datasets lie"),
    ):
        with pytest.raises(Broken) as caught:
            may_release(order, HERE, records)
        assert caught.value.failure.fault == "user"
        assert why in str(caught.value.failure.error["args"])
        assert caught.value.failure.error["kind"] == PolicyError.kind


def test_a_copy_is_compared_byte_by_byte_before_it_is_deleted(tmp_path: Path) -> None:
    np.save(tmp_path / "run.npy", np.arange(1000))
    lying = replace(HERE, url=(tmp_path / "run.npy").as_uri(), format="npy")
    (file,) = listing_of(lying)
    import xxhash

    digest = xxhash.xxh3_128_hexdigest((tmp_path / "run.npy").read_bytes())
    good = FileEntry(file.path, file.size, None, digest)
    compare(lying, [good], where="there")
    for bad in (
        FileEntry(file.path, file.size, None, None),
        FileEntry(file.path, file.size, None, "0" * 32),
        FileEntry(file.path, file.size - 1, None, digest),
        FileEntry("other.npy", file.size, None, digest),
    ):
        with pytest.raises(CorruptResult, match="there"):
            compare(lying, [bad], where="there")
    with pytest.raises(StorageError, match="a whole store"):
        delete_replica(replace(lying, url=tmp_path.as_uri()), root=tmp_path.as_uri())
    for _ in range(2):
        delete_replica(lying, root=tmp_path.as_uri())
        assert not (tmp_path / "run.npy").exists()

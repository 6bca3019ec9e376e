"""What people see of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from dataflow.datasets import Dataset, Extent, Replica
from dataflow.documents import from_document, to_document
from dataflow.errors import OperationFailed
from dataflow.errors import to_document as error_document
from dataflow.execution.events import (
    Asked,
    Broke,
    Crossed,
    Ended,
    Event,
    JobCreated,
    JobStarted,
    Ran,
    SiteLost,
    Stored,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.orders import wanted
from dataflow.execution.programs import Program, ProgramStatus
from dataflow.execution.state import JobState, replay
from dataflow.execution.view import JobView, LedgerEntry, known_of, ledger_of, view_of
from dataflow.graph.graph import of_dataset
from dataflow.placement.make import make_plan
from dataflow.placement.plan import Plan
from dataflow.policy.check import check
from dataflow.sites import Site, Topology
from dataflow.testing.strategies import centre, dataset, replica

WORLD = Topology(sites=(Site(name="ams"), Site(name="uva")))


def plan_of(**how: Any) -> Plan:
    graph = centre(of_dataset(dataset("run1")))
    copies = {"run1": [replica("run1", "uva", 1000)]}
    verdicts = check(graph, WORLD, scope={"centre": "uva"})
    return make_plan(graph, topology=WORLD, replicas=copies, verdicts=verdicts, **how)


PLAN = plan_of(result_at="ams")
(KEY,) = PLAN.outputs
(SEGMENT,), (MOVE,) = PLAN.segments, PLAN.transfers


def state_of(*events: Event, plan: Plan = PLAN) -> JobState:
    first = JobCreated(job="j", plan=plan, user="anna", tags={"paper": "fig3"}, time=1.0)
    return replay([first, JobStarted(time=2.0), *events])


def stored(site: str) -> Stored:
    copy = Replica(key=KEY, site=site, store="r", url=f"sim://{site}", format="zarr", nbytes=8)
    made = Dataset(
        id=f"d-{site}", name="centre", key=KEY, kind="array", extent=Extent(nbytes=8), site=site
    )
    return Stored(key=KEY, replica=copy, dataset=made)


def crossed(nbytes: int, seconds: float = 0.5, key: str = KEY, source: str = "uva") -> Crossed:
    return Crossed(key=key, source=source, target="ams", nbytes=nbytes, seconds=seconds)


def unit(name: str, site: str, *reports: Any) -> list[Event]:
    started = UnitStarted(unit=name, site=site, attempt=1, time=3.0)
    told = [
        UnitReported(unit=name, attempt=1, report=report, number=n, time=4.0 + n)
        for n, report in enumerate(reports)
    ]
    return [started, *told]


FIRST = unit(SEGMENT.id, "uva", stored("uva"), Ended())
SECOND = unit(MOVE.id, "ams", crossed(600), crossed(400), stored("ams"), Ended())


def test_running() -> None:
    view = view_of(state_of(), "ams")
    assert view == JobView(
        id="j",
        status="running",
        user="anna",
        tags={"paper": "fig3"},
        coordinator="ams",
        created=1.0,
        updated=2.0,
        total=2,
        outputs=(KEY,),
    )


def test_results_that_were_there_before() -> None:
    state = state_of()
    copy, known = stored("uva").replica, stored("uva").dataset
    reused = replace(state, plan=replace(state.plan, replicas={**state.plan.replicas, KEY: copy}))
    assert view_of(reused, "ams").results == {}
    asked: list[str] = []
    view = view_of(reused, "ams", before=lambda key: asked.append(key) or known)
    assert list(view.results.values()) == [known]
    assert asked == [KEY]
    assert view_of(state, "ams", before=lambda key: known).results == {}, "it is still to be made"


def test_results_as_far_as_they_are_stored() -> None:
    view = view_of(state_of(*FIRST), "ams")
    assert (view.done, view.total) == (1, 2)
    assert view.results == {"centre": stored("uva").dataset}
    view = view_of(state_of(*FIRST, *SECOND), "ams")
    assert (view.status, view.done, view.updated) == ("done", 2, 7.0)
    assert view.error is None
    assert view.message == ""


def test_error() -> None:
    error = error_document(OperationFailed("centre", "uva", "ValueError: no", "line 1\nline 2"))
    view = view_of(state_of(*unit(SEGMENT.id, "uva", Broke(error=error, fault="user"))), "ams")
    assert view.status == "failed"
    assert view.error == error
    assert view.message == "operation 'centre' failed at 'uva': ValueError: no"


@pytest.mark.parametrize("error", [{}, {"kind": "dataflow", "args": []}, {"kind": "new-one"}])
def test_error_without_words(error: Mapping[str, Any]) -> None:
    view = view_of(state_of(*unit(SEGMENT.id, "uva", Broke(error=error, fault="user"))), "ams")
    assert view.message


def test_looking_for_another_way() -> None:
    view = view_of(state_of(SiteLost(site="uva", reason="cut")), "ams")
    assert view.message == "site uva does not answer; looking for another way"


def test_view_travels() -> None:
    for state in (state_of(*FIRST, *SECOND), state_of(Asked(what="cancel", by="anna"))):
        view = view_of(state, "ams")
        assert from_document(JobView, to_document(view)) == view


def test_ledger_adds_up_and_compares() -> None:
    other = crossed(7, key="a" * 40, source="elsewhere")
    state = state_of(*FIRST, *SECOND)
    state = replace(state, crossed=(*state.crossed, other))
    assert ledger_of(state) == [
        LedgerEntry(
            job="j",
            key=KEY,
            source="uva",
            target="ams",
            nbytes=1000,
            seconds=1.0,
            predicted=MOVE.nbytes,
            label="centre",
        ),
        LedgerEntry(
            job="j",
            key="a" * 40,
            source="elsewhere",
            target="ams",
            nbytes=7,
            seconds=0.5,
            predicted=None,
            label="a" * 12,
        ),
    ]
    assert ledger_of(state_of()) == []


def test_unknown_is_shown_and_never_a_state() -> None:
    assert wanted(state_of()).units
    assert replace(view_of(state_of(), "ams"), status="unknown").status == "unknown"


# --- programs ---------------------------------------------------------------------------------


def ran(status: ProgramStatus, key: str = KEY, **more: Any) -> UnitReported:
    program = Program(key=key, label="count", site="uva", run="r1", status=status, **more)
    return UnitReported(unit=SEGMENT.id, attempt=1, report=Ran(program=program), number=0, time=3.0)


SENT = UnitStarted(unit=SEGMENT.id, site="uva", attempt=1, time=2.5)


def test_programs_are_told_as_they_stand() -> None:
    view = view_of(state_of(SENT, ran("pending", batch="17.2", reason="it is held")), "ams")
    (program,) = view.programs
    assert (program.status, program.batch) == ("pending", "17.2")
    assert view.message == "count waits at uva as batch job 17.2: it is held"
    assert view_of(state_of(SENT, ran("running")), "ams").message == ""
    assert from_document(JobView, to_document(view)) == view


def test_a_cancelled_job_has_no_program_that_runs() -> None:
    state = state_of(SENT, ran("running"), Asked(what="cancel", by="eve", time=4.0), ran("running"))
    (program,) = view_of(state, "ams").programs
    assert (program.status, program.ended) == ("cancelled", 4.0)


def test_a_job_whose_program_is_out_of_sight_is_unknown_and_not_failed() -> None:
    view = view_of(state_of(SENT, ran("running", batch="17")), "ams")
    assert known_of(view, ["elsewhere"]) == view
    unseen = known_of(view, ["uva"])
    assert unseen.status == "unknown"
    assert [one.status for one in unseen.programs] == ["unknown"]
    assert "does not answer; it is waited for" in unseen.message
    ended = view_of(state_of(SENT, ran("done", batch="17")), "ams")
    assert known_of(ended, ["uva"]).status == "running"

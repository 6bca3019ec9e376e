"""The state of a job: each status, each fault, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.datasets import Dataset, Extent, Replica
from dataflow.errors import (
    CorruptResult,
    JobCancelled,
    JobError,
    JobTimedOut,
    OperationFailed,
    SiteUnreachable,
    TransferFailed,
    UnreadableDataset,
    WorkerLost,
    from_document,
    to_document,
)
from dataflow.execution.events import (
    Asked,
    Broke,
    Crossed,
    Ended,
    Event,
    Fault,
    JobCreated,
    JobQueued,
    JobStarted,
    Progress,
    ReplanFailed,
    Replanned,
    Report,
    SegmentOrder,
    SiteLost,
    Stored,
    TimeLimitReached,
    TransferOrder,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.orders import order_id, order_of, wanted
from dataflow.execution.state import MOST_REPLANS, JobState, apply, begin, is_fact, replay
from dataflow.execution.units import site_of
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.placement.make import make_plan
from dataflow.placement.plan import Plan
from dataflow.policy.check import check
from dataflow.sites import Site, Topology
from dataflow.testing.strategies import centre, dataset, replica, square, weighted

WORLD = Topology(sites=tuple(Site(name=name) for name in ("ams", "delft", "uva")))
RUN = replica("run1", "uva", 1000)


def graph() -> Graph:
    return centre(square(of_dataset(dataset("run1"))))


def plan_of(
    made: Graph | None = None,
    *,
    square_at: str = "uva",
    centre_at: str = "ams",
    copies: dict[str, list[Replica]] | None = None,
    **how: Any,
) -> Plan:
    """``square`` where the data is, ``centre`` elsewhere: two segments and a transfer."""
    made = made or graph()
    verdicts = check(made, WORLD, scope={"square": square_at, "centre": centre_at})
    return make_plan(
        made, topology=WORLD, replicas=copies or {"run1": [RUN]}, verdicts=verdicts, **how
    )


PLAN = plan_of()
FIRST, SECOND = (segment.id for segment in PLAN.segments)
(MOVE,) = (transfer.id for transfer in PLAN.transfers)
SQUARE, CENTRE = (step.key for step in PLAN.steps)


def created(plan: Plan = PLAN, **how: Any) -> JobState:
    return begin(JobCreated(job="j", plan=plan, time=1.0, **how))


def running(plan: Plan = PLAN, **how: Any) -> JobState:
    return apply(created(plan, **how), JobStarted(time=2.0))


def after(state: JobState, *events: Event) -> JobState:
    for event in events:
        state = apply(state, event)
    return state


def sent(state: JobState, name: str) -> JobState:
    attempt = wanted(state).units[name]
    return apply(state, UnitStarted(unit=name, site=site_of(state.plan, name), attempt=attempt))


def told(state: JobState, name: str, *reports: Report, attempt: int = 0) -> JobState:
    for report in reports:
        unit = state.units[name]
        event = UnitReported(
            unit=name, attempt=attempt or unit.attempt, report=report, number=unit.reported
        )
        state = apply(state, event)
    return state


def stored(key: str, site: str, url: str = "") -> Stored:
    copy = Replica(
        key=key, site=site, store="r", url=url or f"sim://{site}/{key}", format="zarr", nbytes=8
    )
    data = Dataset(id=key, name=key, key=key, kind="array", extent=Extent(nbytes=8), site=site)
    return Stored(key=key, replica=copy, dataset=data)


def broke(error: Exception, fault: Fault) -> Broke:
    return Broke(error=to_document(error), fault=fault)


KILLED = broke(WorkerLost("square", "uva", "killed"), "worker")
FULL = broke(JobError("disk full"), "site")


def through(state: JobState, *names: str) -> JobState:
    for name in names:
        state = sent(state, name)
        if name in state.plan.transfer_by_id:
            part = state.plan.transfer_by_id[name]
            state = told(state, name, stored(part.key, part.target), Ended())
        else:
            segment = state.plan.segment_by_id[name]
            reports = [stored(key, segment.site) for key in segment.outputs]
            state = told(state, name, *reports, Ended())
    return state


# --- statuses -------------------------------------------------------------------------------------


def test_created_wants_nothing() -> None:
    state = created(user="anna", tags={"a": "b"}, retries=3, time_limit=9.0)
    assert state.status == "created"
    assert (state.user, state.tags, state.retries) == ("anna", {"a": "b"}, 3)
    assert not wanted(state).units
    assert not state.over


def test_queued_wants_nothing() -> None:
    state = after(created(), JobQueued(time=2.0))
    assert state.status == "queued"
    assert not wanted(state).units
    assert after(running(), JobQueued()).status == "running"


def test_running_wants_what_is_ready() -> None:
    state = running()
    assert (state.status, state.started, state.updated) == ("running", 2.0, 2.0)
    assert wanted(state).units == {FIRST: 1}
    state = through(state, FIRST)
    assert wanted(state).units == {MOVE: 1}
    state = through(state, MOVE)
    assert wanted(state).units == {SECOND: 1}
    assert state.done == 2


def test_unit_begins_as_soon_as_its_inputs_are_stored() -> None:
    state = told(sent(running(), FIRST), FIRST, stored(SQUARE, "uva"))
    assert wanted(state).units == {FIRST: 1, MOVE: 1}


def test_done() -> None:
    state = through(running(), FIRST, MOVE, SECOND)
    assert state.status == "done"
    assert state.over
    assert state.error is None
    assert not wanted(state).units
    assert state.results() == {CENTRE: (stored(CENTRE, "ams").replica,)}


def test_started_again_after_a_restart() -> None:
    state = sent(running(), FIRST)
    again = after(state, JobStarted(time=9.0))
    assert again.started == 2.0
    assert wanted(again) == wanted(state)


def test_nothing_to_do_is_done_at_once() -> None:
    held = {"run1": [RUN], CENTRE: [replica(CENTRE, "delft", 8)]}
    plan = plan_of(copies=held)
    assert created(plan).status == "created"
    state = running(plan)
    assert state.status == "done"
    assert state.results() == {CENTRE: (held[CENTRE][0],)}


def test_suspended_lets_end_what_runs() -> None:
    state = after(sent(running(), FIRST), Asked(what="suspend"))
    assert state.status == "suspended"
    assert wanted(state).units == {FIRST: 1}
    state = told(state, FIRST, stored(SQUARE, "uva"), Ended())
    assert not wanted(state).units
    assert after(state, JobStarted()).status == "suspended"
    state = after(state, Asked(what="resume"))
    assert wanted(state).units == {MOVE: 1}


def test_suspended_before_it_began() -> None:
    state = after(created(), Asked(what="suspend"))
    assert after(state, Asked(what="resume")).status == "created"
    state = after(state, JobStarted(), Asked(what="resume"))
    assert state.status == "running"


def test_job_can_be_done_while_suspended() -> None:
    state = sent(through(running(), FIRST, MOVE), SECOND)
    state = after(state, Asked(what="suspend"))
    assert told(state, SECOND, stored(CENTRE, "ams"), Ended()).status == "done"


def test_requests_that_change_nothing() -> None:
    state = running()
    assert after(state, Asked(what="resume")) is state
    state = after(state, Asked(what="suspend"))
    assert after(state, Asked(what="suspend", time=99.0)) is state


def test_cancelled() -> None:
    state = after(sent(running(), FIRST), Asked(what="cancel", by="anna"))
    assert state.status == "cancelled"
    assert not wanted(state).units
    assert state.error is not None
    error = from_document(state.error)
    assert isinstance(error, JobCancelled)
    assert error.by == "anna"


def test_timed_out() -> None:
    state = after(running(time_limit=5.0), TimeLimitReached())
    assert state.status == "timed-out"
    assert state.error is not None
    error = from_document(state.error)
    assert isinstance(error, JobTimedOut)
    assert error.limit == 5.0


@pytest.mark.parametrize("end", ["done", "failed", "cancelled", "timed-out"])
def test_an_end_is_an_end(end: str) -> None:
    at = sent(through(running(), FIRST, MOVE), SECOND)
    last = {
        "done": lambda: told(at, SECOND, stored(CENTRE, "ams"), Ended()),
        "failed": lambda: told(at, SECOND, broke(OperationFailed("f", "ams", "x"), "user")),
        "cancelled": lambda: after(at, Asked(what="cancel")),
        "timed-out": lambda: after(at, TimeLimitReached()),
    }
    state = last[end]()
    assert state.status == end
    for event in (
        JobStarted(),
        JobQueued(),
        Asked(what="cancel"),
        Asked(what="suspend"),
        Asked(what="resume"),
        TimeLimitReached(),
        SiteLost(site="ams", reason="cut"),
        Replanned(plan=PLAN, because="x"),
        ReplanFailed(error={}),
        UnitStarted(unit=SECOND, site="ams", attempt=2),
        UnitReported(unit=SECOND, attempt=1, report=FULL, number=9),
        UnitReported(unit=SECOND, attempt=1, report=Ended(), number=9),
    ):
        then = apply(state, event)
        assert (then.status, then.error) == (state.status, state.error)
        assert not wanted(then).units


def test_facts_count_after_the_end() -> None:
    state = after(sent(running(), FIRST), Asked(what="cancel"))
    crossed = Crossed(key="k", source="a", target="b", nbytes=1, seconds=0.1)
    state = told(state, FIRST, stored(SQUARE, "uva"), crossed, Ended())
    assert (SQUARE, "uva") in state.stored
    assert state.crossed == (crossed,)
    assert state.status == "cancelled"


def test_journal_must_begin_with_the_creation() -> None:
    for events in ([], [JobStarted()]):
        with pytest.raises(JobError, match="does not begin"):
            replay(events)
    first = JobCreated(job="j", plan=PLAN, time=1.0)
    assert replay([first, JobStarted(time=2.0), first]) == running()


# --- orders and reports ---------------------------------------------------------------------------


def test_only_the_order_that_is_wanted_counts_as_sent() -> None:
    state = running()
    for name, attempt in ((FIRST, 0), (FIRST, 2), (FIRST, -1), (MOVE, 1), ("nothing", 1)):
        assert apply(state, UnitStarted(unit=name, site="uva", attempt=attempt)) is state


def test_order_that_is_sent_again_has_a_new_list() -> None:
    crossed = Crossed(key="k", source="a", target="b", nbytes=1, seconds=0.1)
    state = told(sent(running(), FIRST), FIRST, crossed)
    assert state.units[FIRST].reported == 1
    state = apply(state, UnitStarted(unit=FIRST, site="uva", attempt=1))
    assert state.units[FIRST].reported == 0
    assert state.units[FIRST].attempt == 1
    assert len(told(state, FIRST, crossed).crossed) == 2


def test_report_that_was_heard_already_changes_nothing() -> None:
    crossed = Crossed(key="k", source="a", target="b", nbytes=1, seconds=0.1)
    state = told(sent(running(), FIRST), FIRST, crossed)
    again = UnitReported(unit=FIRST, attempt=1, report=crossed, number=0)
    assert apply(state, again) is state


def test_reports_of_an_abandoned_attempt_are_facts_and_no_more() -> None:
    state = sent(told(sent(running(), FIRST), FIRST, KILLED), FIRST)
    for report in (KILLED, FULL, Ended(), Progress(done=1, total=2)):
        assert told(state, FIRST, report, attempt=1) is state
    assert (SQUARE, "uva") in told(state, FIRST, stored(SQUARE, "uva"), attempt=1).stored


def test_ended_without_outputs_is_a_failure_of_the_site() -> None:
    state = told(sent(running(), FIRST), FIRST, Ended())
    assert state.units[FIRST].failures == 1
    assert wanted(state).units == {FIRST: 2}
    elsewhere = told(sent(state, FIRST), FIRST, stored(SQUARE, "delft"), Ended())
    assert elsewhere.lost == {"uva"}


def test_orders() -> None:
    state = running(user="anna", tags={"a": "b"})
    order = order_of(state, FIRST, 1)
    assert isinstance(order, SegmentOrder)
    assert order.id == order_id(state, FIRST, 1) == f"j:{FIRST}:1"
    assert (order.site, order.user, order.tags, order.plan) == ("uva", "anna", {"a": "b"}, PLAN.id)
    assert order.inputs == {"run1": RUN}
    assert order.datasets == {"run1": PLAN.sources["run1"]}
    assert (order.outputs, order.results) == ((SQUARE,), ())
    state = through(state, FIRST)
    transfer = order_of(state, MOVE, 1)
    assert isinstance(transfer, TransferOrder)
    made = stored(SQUARE, "uva")
    assert (transfer.site, transfer.replica, transfer.dataset) == (
        "ams",
        made.replica,
        made.dataset,
    )
    last = order_of(through(state, MOVE), SECOND, 1)
    assert isinstance(last, SegmentOrder)
    assert last.inputs == {SQUARE: stored(SQUARE, "ams").replica}
    assert (last.outputs, last.results) == ((CENTRE,), (CENTRE,))


def test_order_reads_results_of_earlier_jobs() -> None:
    held = {"run1": [RUN], SQUARE: [replica(SQUARE, "ams", 8)]}
    plan = plan_of(copies=held)
    state = running(plan)
    ((name, attempt),) = wanted(state).units.items()
    known = stored(SQUARE, "ams").dataset
    order = order_of(state, name, attempt, {SQUARE: known})
    assert isinstance(order, SegmentOrder)
    assert order.datasets == {SQUARE: known}
    guessed = order_of(state, name, attempt)
    assert isinstance(guessed, SegmentOrder)
    assert guessed.datasets[SQUARE].name == "square"
    assert guessed.datasets[SQUARE].kind == "array"


def test_order_says_how_large_absent_arguments_are() -> None:
    copies = {f"run{n}": [replica(f"run{n}", s, 10**9)] for n, s in ((1, "uva"), (2, "ams"))}
    made = weighted(of_dataset(dataset("run1", 10**8)), of_dataset(dataset("run2", 10**8)))
    plan = make_plan(made, topology=WORLD, replicas=copies, verdicts=check(made, WORLD))
    state = running(plan)
    absent = []
    for name in wanted(state).units:
        order = order_of(state, name, 1)
        assert isinstance(order, SegmentOrder)
        keys = [key for step in order.steps for _, key in step.absent]
        assert all(order.extents[key].nbytes == 8 * 10**8 for key in keys)
        absent += keys
    assert sorted(absent) == ["run1", "run2"]


def test_facts() -> None:
    assert is_fact(Ended())
    assert is_fact(KILLED)
    assert not is_fact(Progress(done=1, total=2))


def test_results_where_they_were_asked_for_come_first() -> None:
    plan = plan_of(result_at="delft")
    state = running(plan)
    while not state.over:
        state = through(state, *wanted(state).units)
    assert [copy.site for copy in state.results()[CENTRE]] == ["delft", "ams"]


# --- faults ---------------------------------------------------------------------------------------


def test_users_error_is_never_tried_again() -> None:
    wrong = broke(OperationFailed("square", "uva", "ValueError: no"), "user")
    state = told(sent(running(retries=9), FIRST), FIRST, wrong)
    assert state.status == "failed"
    assert state.error == wrong.error


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_lost_workers(retries: int) -> None:
    state = running(retries=retries)
    for attempt in range(1, retries + 2):
        assert wanted(state).units == {FIRST: attempt}
        state = told(sent(state, FIRST), FIRST, KILLED)
    assert state.status == "failed"
    assert state.error == KILLED.error


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_failing_site_is_done_without(retries: int) -> None:
    state = running(retries=retries)
    for _ in range(retries + 1):
        state = told(sent(state, FIRST), FIRST, FULL)
    assert state.lost == {"uva"}
    assert state.replan == "site uva fails"
    assert state.cause == FULL.error
    assert wanted(state).replan
    assert not wanted(state).units


def test_what_else_runs_at_a_failing_site_is_abandoned() -> None:
    copies = {f"run{n}": [replica(f"run{n}", "uva", 1000)] for n in (1, 2)}
    made = merge([square(of_dataset(dataset("run1"))), centre(of_dataset(dataset("run2")))])
    state = running(plan_of(made, centre_at="uva", copies=copies), retries=0)
    names = list(wanted(state).units)
    assert len(names) == 2
    for name in names:
        state = sent(state, name)
    state = told(state, names[0], FULL)
    assert not wanted(state).units


@pytest.mark.parametrize(
    ("error", "culprit"),
    [
        (TransferFailed("k", "uva", "ams", "reset"), "uva"),
        (SiteUnreachable("uva", "cut"), "uva"),
        (SiteUnreachable("ams", "shutting down"), "ams"),
        (SiteUnreachable("mars", "too far"), "ams"),
        (JobError("disk full"), "ams"),
    ],
)
def test_culprit_of_a_transfer(error: Exception, culprit: str) -> None:
    state = sent(through(running(retries=0), FIRST), MOVE)
    state = told(state, MOVE, broke(error, "site"))
    assert state.lost == {culprit}


def test_culprit_of_a_segment_is_its_site() -> None:
    state = sent(running(retries=0), FIRST)
    state = told(state, FIRST, broke(SiteUnreachable("delft", "cut"), "site"))
    assert state.lost == {"uva"}


@pytest.mark.parametrize(
    "error", [{}, {"kind": 1, "args": None}, {"args": "text"}, {"args": []}, {"args": [[1], {}]}]
)
@pytest.mark.parametrize("fault", ["user", "worker", "site", "input"])
def test_strange_errors_do_no_harm(error: dict[str, Any], fault: Fault) -> None:
    for name in (FIRST, MOVE):
        state = running(retries=0) if name == FIRST else through(running(retries=0), FIRST)
        state = told(sent(state, name), name, Broke(error=error, fault=fault))
        assert state.over or state.replan


def test_lost_source_of_a_transfer_while_a_new_plan_is_made() -> None:
    state = sent(through(running(retries=0), FIRST), MOVE)
    state = after(state, SiteLost(site="uva", reason="cut"))
    state = told(state, MOVE, broke(TransferFailed("k", "uva", "ams", "x"), "site"))
    assert state.status == "running"
    assert state.replan


# --- lost sites -----------------------------------------------------------------------------------


def test_lost_site() -> None:
    state = after(sent(running(), FIRST), SiteLost(site="uva", reason="cable pulled"))
    assert state.lost == {"uva"}
    assert wanted(state).replan
    assert not wanted(state).units
    assert state.cause == to_document(SiteUnreachable("uva", "cable pulled"))
    assert apply(state, SiteLost(site="uva", reason="again")) is state
    failed = after(state, ReplanFailed(error=state.cause))
    assert failed.status == "failed"
    assert failed.error == state.cause


def test_lost_site_that_is_not_needed_any_more() -> None:
    state = through(running(), FIRST, MOVE)
    state = after(state, SiteLost(site="uva", reason="cut"))
    assert not state.replan
    assert through(state, SECOND).status == "done"


def test_another_plan_goes_on_where_the_first_one_was() -> None:
    copies = {f"run{n}": [replica(f"run{n}", s, 1000) for s in ("uva", "ams")] for n in (1, 2)}
    made = square(of_dataset(dataset("run1"))) + centre(of_dataset(dataset("run2")))
    before = plan_of(made, square_at="uva", centre_at="ams", copies=copies)
    anew = plan_of(made, square_at="delft", centre_at="ams", copies=copies)
    both = before.segment_by_id.keys() & anew.segment_by_id.keys()
    assert both
    state = running(before)
    for name in wanted(state).units:
        state = sent(state, name)
    state = after(state, SiteLost(site="uva", reason="cut"), Replanned(plan=anew, because="x"))
    assert not state.replan
    for name in both & wanted(state).units.keys():
        assert state.units[name].status == "running"
        assert wanted(state).units[name] == 1
    while not state.over:
        assert wanted(state).units
        running_now = [n for n, unit in state.units.items() if unit.status == "running"]
        for name in running_now:
            segment = state.plan.segment_by_id[name]
            reports = [stored(key, segment.site) for key in segment.outputs]
            state = told(state, name, *reports, Ended())
        state = through(state, *wanted(state).units)
    assert state.status == "done"


def test_plan_that_uses_a_lost_site_is_none() -> None:
    state = after(sent(running(), FIRST), SiteLost(site="uva", reason="cut"))
    state = after(state, Replanned(plan=PLAN, because="x"))
    assert state.status == "failed"
    assert state.error == to_document(SiteUnreachable("uva", "cut"))


def test_no_plan_although_nobody_asked() -> None:
    state = running()
    assert apply(state, ReplanFailed(error={})) is state


def test_numbers_of_orders_are_not_used_again() -> None:
    """A unit that a second plan has not, and a third has again, is another order."""
    other = plan_of(square_at="delft", centre_at="delft")
    state = sent(running(), FIRST)
    state = after(state, Replanned(plan=other, because="x"))
    assert FIRST not in state.units
    state = after(state, Replanned(plan=PLAN, because="x"))
    assert wanted(state).units == {FIRST: 2}


# --- inputs that are gone -------------------------------------------------------------------------


def gone(url: str) -> Broke:
    return broke(UnreadableDataset(url, "there is no such thing"), "input")


def test_gone_result_is_made_again() -> None:
    state = sent(through(running(), FIRST), MOVE)
    url = stored(SQUARE, "uva").replica.url
    state = told(state, MOVE, gone(url))
    assert state.gone == {url}
    assert (SQUARE, "uva") not in state.stored
    assert wanted(state).replan
    assert not wanted(state).units
    state = after(state, Replanned(plan=PLAN, because="x"))
    assert wanted(state).units == {FIRST: 2}
    state = through(state, FIRST)
    assert not state.gone
    assert wanted(state).units == {MOVE: 2}
    assert through(state, MOVE, SECOND).status == "done"


def test_all_who_read_what_is_gone_are_abandoned() -> None:
    copies = {f"run{n}": [replica(f"run{n}", "uva", 1000)] for n in (1, 2)}
    run1, run2 = (of_dataset(dataset(name)) for name in copies)
    state = running(plan_of(merge([square(run1), centre(run1), centre(run2)]), copies=copies))
    for name in wanted(state).units:
        state = sent(state, name)
    (reader,) = wanted(state).units.keys() & state.plan.segment_by_id.keys()
    assert len(wanted(state).units) == 3
    state = told(state, reader, gone(copies["run1"][0].url))
    (other,) = wanted(state).units
    assert state.plan.transfer_by_id[other].key == "run2"


def test_old_news_does_not_bring_back_what_is_gone() -> None:
    state = sent(through(running(), FIRST), MOVE)
    state = told(state, MOVE, gone(stored(SQUARE, "uva").replica.url))
    stale = UnitReported(unit=FIRST, attempt=1, report=stored(SQUARE, "uva"), number=0)
    assert apply(state, stale) is state


def test_output_that_is_gone_before_its_unit_ended() -> None:
    state = told(sent(running(), FIRST), FIRST, stored(SQUARE, "uva"))
    state = told(sent(state, MOVE), MOVE, gone(stored(SQUARE, "uva").replica.url))
    state = after(state, Replanned(plan=PLAN, because="x"))
    assert wanted(state).units == {FIRST: 1}
    state = told(state, FIRST, Ended())
    assert wanted(state).units == {FIRST: 2}
    assert through(state, FIRST, MOVE, SECOND).status == "done"


def test_what_is_stored_need_not_be_made_for_the_new_plan() -> None:
    state = sent(through(running(), FIRST), MOVE)
    state = after(state, Replanned(plan=PLAN, because="x"))
    assert wanted(state).units == {MOVE: 1}
    assert state.units[FIRST].status == "ended"


def test_gone_too_often() -> None:
    state = running()
    for _ in range(MOST_REPLANS):
        state = told(sent(state, FIRST), FIRST, gone(RUN.url))
        state = after(state, Replanned(plan=PLAN, because="x"))
        assert state.status == "running"
    state = told(sent(state, FIRST), FIRST, gone(RUN.url))
    assert state.status == "failed"
    assert state.error == gone(RUN.url).error


def test_only_the_inputs_that_are_named_are_gone() -> None:
    copies = {f"run{n}": [replica(f"run{n}", "uva", 1000)] for n in (1, 11)}
    made = square(of_dataset(dataset("run1"))) + square(of_dataset(dataset("run11")))
    plan = plan_of(made, copies=copies)
    state = running(plan)
    name = next(n for n in wanted(state).units if len(plan.segment_by_id[n].inputs) == 2)
    one, eleven = copies["run1"][0].url, copies["run11"][0].url
    state = sent(state, name)
    assert told(state, name, gone(eleven)).gone == {eleven}
    assert told(state, name, gone(one)).gone == {one}
    inside = broke(CorruptResult(f"{one}/zarr.json", "cut short"), "input")
    assert told(state, name, inside).gone == {one}
    sentence = broke(JobError(f"could not read {one}."), "input")
    assert told(state, name, sentence).gone == {one}
    assert told(state, name, broke(JobError("something"), "input")).gone == {one, eleven}


def test_what_is_stored_elsewhere_makes_nothing_ready() -> None:
    state = told(sent(running(), FIRST), FIRST, stored(SQUARE, "delft"))
    assert wanted(state).units == {FIRST: 1}

"""State of a job: events in, what must be under way out. Pure.

A job's state is the fold of :func:`apply` over its journal; :func:`~dataflow.execution.orders.wanted`
says what the driver
must have running now. Asking for the whole of it every time, and not for the next step, makes a
restart nothing special: read the journal, fold, and see to what is wanted.

====================  =======================================================================
status                meaning
====================  =======================================================================
``created``           in the journal
``queued``            the coordinator has no room yet
``running``           taken up
``suspended``         on request: what runs may end, nothing new begins
``done``              all results are stored; the end
``failed``            with an error; the end
``cancelled``         on request; the end
``timed-out``         by the job's own limit; the end
``unknown``           never a state: shown for a job whose coordinator does not answer
====================  =======================================================================

Guarantees: after an end the status does not change; reports of abandoned attempts count as far as
they are facts (something is stored, bytes crossed) and no further; a unit is never wanted at a
lost site, before its inputs exist, or after more than ``retries`` failures, save a patient copy, which
waits for its road as long as it takes; it has ended when all
its outputs are stored; no two orders have the same number, whatever plans come between; the user's
own errors are never retried. A site that fails more often than that is done without, if there is
another way. :func:`apply` never raises: what is not wanted or comes too late changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from dataflow.datasets import Dataset, Replica
from dataflow.errors import (
    JobCancelled,
    JobError,
    JobTimedOut,
    PlacementError,
    SiteRefused,
    SiteUnreachable,
    TransferFailed,
    to_document,
)
from dataflow.execution.events import (
    Asked,
    Broke,
    Compared,
    Crossed,
    Ended,
    ErrorDocument,
    Event,
    Fault,
    JobCreated,
    JobQueued,
    JobStarted,
    JobStatus,
    Ran,
    Released,
    ReplanFailed,
    Replanned,
    Report,
    SiteLost,
    Stored,
    TimeLimitReached,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.programs import Program, stopped, taken_in
from dataflow.execution.units import (
    all_stored,
    attempt_wanted,
    inputs_of,
    is_patient,
    part_of,
    site_of,
    sites_of,
)
from dataflow.placement.plan import Plan, Transfer

ENDS: frozenset[JobStatus] = frozenset({"done", "failed", "cancelled", "timed-out"})
#: How often a job may be planned anew because inputs were gone, before it is given up.
MOST_REPLANS = 3


@dataclass(frozen=True, slots=True)
class Unit:
    """A segment or transfer of the plan, as far as it got.

    ``attempt`` counts orders, from 1; ``failures`` those that count against the limit;
    ``reported`` is the number of reports seen of this attempt, since it was last sent; ``began`` and
    ``over`` are when that was, and when it had ended (s since the epoch).
    """

    status: str = "waiting"  # waiting, running, ended
    attempt: int = 0
    failures: int = 0
    reported: int = 0
    began: float = 0.0
    over: float = 0.0


@dataclass(frozen=True, kw_only=True)
class JobState:
    """All that is known of a job from its journal.

    Attributes
    ----------
    units
        Units of the present plan by name.
    dropped
        Units of earlier plans, so that their orders' numbers are not used again.
    stored
        ``(key, site)`` → the report that it is committed there.
    crossed
        The ledger so far.
    programs
        Key of a shell operation's step → its last run.
    released
        URLs of copies that were given up, as was asked for.
    compared
        Key of a result → what a second run of it came to.
    lost
        Sites that did not answer; not used again by this job.
    gone
        URLs of inputs that turned out to be gone or changed, and were not made again since.
    replan
        Why a new plan is needed; empty if it is not.
    cause
        The error that made a new plan necessary: what the user hears if there is none.
    """

    job: str
    plan: Plan
    status: JobStatus = "created"
    user: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    retries: int = 1
    time_limit: float | None = None
    created: float = 0.0
    updated: float = 0.0
    started: float | None = None
    units: Mapping[str, Unit] = field(default_factory=dict)
    dropped: Mapping[str, Unit] = field(default_factory=dict)
    stored: Mapping[tuple[str, str], Stored] = field(default_factory=dict)
    crossed: tuple[Crossed, ...] = ()
    programs: Mapping[str, Program] = field(default_factory=dict)
    released: frozenset[str] = frozenset()
    compared: Mapping[str, Compared] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    replan: str = ""
    replans: int = 0
    cause: ErrorDocument | None = None
    error: ErrorDocument | None = None

    @property
    def over(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.status in ENDS

    @cached_property
    def done(self) -> int:
        """Units of the present plan that are through."""
        return sum(unit.status == "ended" for unit in self.units.values())

    def dataset(self, key: str) -> Dataset | None:
        """The dataset with a key, if this job has stored it or its graph began with it."""
        made = next((s.dataset for (k, _), s in self.stored.items() if k == key), None)
        return made or self.plan.sources.get(key)

    def results(self) -> dict[str, tuple[Replica, ...]]:
        """Key of each result asked for → the copies that this job knows of."""
        found: dict[str, tuple[Replica, ...]] = {}
        second = self.plan.again.site if self.plan.again is not None else ""
        for key in self.plan.outputs:
            made = [s.replica for (k, _), s in self.stored.items() if k == key]
            copies = [copy for copy in made if copy.site != second]
            if key in self.plan.replicas:
                copies.append(self.plan.replicas[key])
            copies = [copy for copy in copies if copy.url not in self.released]
            found[key] = tuple(dict.fromkeys(_last_first(copies, self.plan.result_at)))
        return found


def begin(event: JobCreated) -> JobState:
    """The state of a job that was just submitted."""
    return JobState(
        job=event.job,
        plan=event.plan,
        user=event.user,
        tags=dict(event.tags),
        retries=event.retries,
        time_limit=event.time_limit,
        created=event.time,
        updated=event.time,
        units=_units_of(event.plan),
    )


def replay(events: Iterable[Event]) -> JobState:
    """The state after all of a journal's events.

    Raises
    ------
    JobError
        If the first of them is not :class:`~dataflow.execution.events.JobCreated`.
    """
    remaining = iter(events)
    first = next(remaining, None)
    if not isinstance(first, JobCreated):
        raise JobError("this journal does not begin with the creation of a job")
    state = begin(first)
    for event in remaining:
        state = apply(state, event)
    return state


def apply(state: JobState, event: Event) -> JobState:
    """The state after one more event; events that no longer matter change nothing."""
    if isinstance(event, JobCreated):
        return state
    after = _apply(state, event)
    if after is state:
        return state
    after = replace(after, updated=max(state.updated, event.time))
    if after.over and after.status != "done":
        after = replace(after, programs=stopped(after.programs, event.time))
    if after.started is None or after.over or after.replan:
        return after
    if all(unit.status == "ended" for unit in after.units.values()):
        return replace(after, status="done")
    return after


def _apply(state: JobState, event: Event) -> JobState:
    if isinstance(event, UnitReported):
        return _reported(state, event)
    if state.over:
        return state
    match event:
        case JobQueued():
            return replace(state, status="queued") if state.status == "created" else state
        case JobStarted():
            status: JobStatus = "suspended" if state.status == "suspended" else "running"
            started = event.time if state.started is None else state.started
            return replace(state, status=status, started=started)
        case UnitStarted():
            return _started(state, event)
        case SiteLost():
            return _lost(state, event)
        case Replanned():
            return _replanned(state, event)
        case ReplanFailed():
            return _failed(state, event.error) if state.replan else state
        case Asked():
            return _asked(state, event)
        case TimeLimitReached():
            error = to_document(JobTimedOut(state.job, state.time_limit or 0.0))
            return replace(state, status="timed-out", error=error)
    return state


def _started(state: JobState, event: UnitStarted) -> JobState:
    """The order that is wanted goes out; once more after its site forgot it, with a new list."""
    unit = state.units.get(event.unit)
    if unit is None or event.attempt < 1 or event.attempt != attempt_wanted(state, event.unit):
        return state
    sent = replace(
        unit, status="running", attempt=event.attempt, reported=0, began=event.time, over=0.0
    )
    return _with(state, event.unit, sent)


def _reported(state: JobState, event: UnitReported) -> JobState:
    report = event.report
    unit = state.units.get(event.unit)
    if unit is None or unit.attempt != event.attempt or unit.status != "running":
        return _fact(state, report)
    if event.number < unit.reported:
        return state  # heard already
    unit = replace(unit, reported=event.number + 1)
    state = _with(state, event.unit, unit)
    if isinstance(report, Stored):
        return replace(_fact(state, report, fresh=True), gone=state.gone - {report.replica.url})
    if state.over:
        return _fact(state, report)
    if isinstance(report, Ended):
        return _ended(state, event.unit, replace(unit, over=event.time))
    if isinstance(report, Broke):
        return _broke(state, event.unit, unit, report.error, report.fault)
    return _fact(state, report)


def _fact(state: JobState, report: Report, *, fresh: bool = False) -> JobState:
    """What is true whoever reports it: something is stored, bytes crossed.

    Only an attempt that runs (``fresh``) can tell that what was gone is there again.
    """
    if isinstance(report, Stored) and (fresh or report.replica.url not in state.gone):
        return replace(state, stored={**state.stored, (report.key, report.replica.site): report})
    if isinstance(report, Crossed):
        return replace(state, crossed=(*state.crossed, report))
    if isinstance(report, Ran):
        return replace(state, programs=taken_in(state.programs, report.program))
    if isinstance(report, Released):
        return replace(state, released=state.released | {report.url})
    if isinstance(report, Compared):
        return replace(state, compared={**state.compared, report.key: report})
    return state


def _ended(state: JobState, name: str, unit: Unit) -> JobState:
    if all_stored(state, name):
        return _with(state, name, replace(unit, status="ended"))
    # One was found gone meanwhile, or the site does not keep its word.
    site = site_of(state.plan, name)
    error = SiteRefused(site, f"it ended {name} without all of its outputs being stored")
    return _broke(state, name, unit, to_document(error), "site")


def _broke(state: JobState, name: str, unit: Unit, error: ErrorDocument, fault: Fault) -> JobState:
    if fault == "user":
        return _failed(state, error)
    if fault == "input":
        return _without_inputs(state, name, error)
    again = _with(state, name, replace(unit, status="waiting", failures=unit.failures + 1))
    if unit.failures < state.retries:
        return again
    if is_patient(state.plan, name):
        # It waits for the road; what the site says no to, waiting does not mend.
        waits = error.get("kind") in (SiteUnreachable.kind, TransferFailed.kind)
        return again if waits else _failed(state, error)
    if fault == "worker":
        return _failed(state, error)
    culprit = _culprit(state.plan, name, error)
    if culprit in state.lost:
        return again if state.replan else _failed(state, error)
    return _without(again, culprit, f"site {culprit} fails", error)


def _failed(state: JobState, error: ErrorDocument) -> JobState:
    return replace(state, status="failed", error=error, replan="", cause=None)


def _culprit(plan: Plan, name: str, error: ErrorDocument) -> str:
    """The site to do without after a failure that was nobody's code."""
    part = part_of(plan, name)
    if isinstance(part, Transfer):
        named = next(iter(_args(error)), "")
        unreachable = error.get("kind") == SiteUnreachable.kind and named == part.source
        if unreachable:
            return part.source
        if part.at:
            return part.target  # what a site of stores has not taken
        if error.get("kind") == TransferFailed.kind:
            return part.source
    return site_of(plan, name)


def _without_inputs(state: JobState, name: str, error: ErrorDocument) -> JobState:
    """Inputs of a unit are gone: they have to be found elsewhere or made again."""
    gone = _inputs_named(state, name, error)
    if state.replans >= MOST_REPLANS or not gone:
        return _failed(state, error)
    units = {
        other: replace(unit, status="waiting")
        if unit.status == "running" and not gone.isdisjoint(_urls(state, other))
        else unit
        for other, unit in state.units.items()
    }
    return replace(
        state,
        units=units,
        gone=state.gone | gone,
        stored={k: s for k, s in state.stored.items() if s.replica.url not in gone},
        replan=f"an input of {name} is gone",
        replans=state.replans + 1,
        cause=error,
    )


def _inputs_named(state: JobState, name: str, error: ErrorDocument) -> frozenset[str]:
    """URLs of the unit's inputs that the error names; all, if it names none."""
    urls = _urls(state, name)
    text = " ".join(str(arg) for arg in _args(error))
    named = {url for url in urls if re.search(re.escape(url) + r"(?![\w-]|\.\w)", text)}
    return frozenset(named or urls)


def _urls(state: JobState, name: str) -> set[str]:
    return {replica.url for replica in inputs_of(state, name).values()}


def _args(error: ErrorDocument) -> Sequence[object]:
    """Arguments in an error's document; it may come from anywhere."""
    args = error.get("args")
    return args if isinstance(args, list | tuple) else ()


def _lost(state: JobState, event: SiteLost) -> JobState:
    if event.site in state.lost:
        return state
    needed = any(
        unit.status != "ended" and event.site in sites_of(state.plan, name)
        for name, unit in state.units.items()
    )
    if not needed:
        return replace(state, lost=state.lost | {event.site})
    cause = to_document(SiteUnreachable(event.site, event.reason))
    return _without(state, event.site, f"site {event.site} does not answer", cause)


def _without(state: JobState, site: str, why: str, cause: ErrorDocument) -> JobState:
    """Do without a site from now on: its orders are abandoned, and a new plan is needed."""
    units = {
        name: replace(unit, status="waiting")
        if unit.status == "running"
        and site_of(state.plan, name) == site
        and not is_patient(state.plan, name)
        else unit
        for name, unit in state.units.items()
    }
    return replace(state, units=units, lost=state.lost | {site}, replan=why, cause=cause)


def _replanned(state: JobState, event: Replanned) -> JobState:
    """What runs goes on if it is in the new plan as well, and what is stored need not be again."""
    plan = event.plan
    used = {site for name in _units_of(plan) for site in sites_of(plan, name)} & state.lost
    if used:
        error = PlacementError(f"the new plan uses {', '.join(sorted(used))}, which was lost")
        return _failed(state, state.cause or to_document(error))
    known = {**state.dropped, **state.units}
    after = replace(state, plan=plan, replan="", cause=None)
    units = {}
    for name, unit in _units_of(plan).items():
        old = known.pop(name, unit)
        goes_on = name in state.units and (
            old.status == "running" or (old.status == "ended" and all_stored(after, name))
        )
        units[name] = old if goes_on else replace(old, status="waiting")
    return replace(after, units=units, dropped=known)


def _asked(state: JobState, event: Asked) -> JobState:
    if event.what == "cancel":
        error = to_document(JobCancelled(state.job, event.by))
        return replace(state, status="cancelled", error=error)
    if event.what == "suspend":
        return state if state.status == "suspended" else replace(state, status="suspended")
    if state.status == "suspended":
        return replace(state, status="running" if state.started is not None else "created")
    return state


def _units_of(plan: Plan) -> dict[str, Unit]:
    names = (*plan.segment_by_id, *plan.transfer_by_id, *plan.release_by_id)
    return {name: Unit() for name in (*names, *plan.comparison_by_id)}


def _with(state: JobState, name: str, unit: Unit) -> JobState:
    return replace(state, units={**state.units, name: unit})


def _last_first(copies: list[Replica], site: str) -> list[Replica]:
    """Copies at the site where the result was asked for come first."""
    return sorted(copies, key=lambda replica: replica.site != site)


def is_fact(report: Report) -> bool:
    """Whether a report belongs in the journal; progress does not."""
    return report.type != "progress"

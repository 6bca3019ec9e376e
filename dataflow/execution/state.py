"""State of a job: events in, what must be under way out. Pure.

A job's state is the fold of :func:`apply` over its journal; :func:`wanted` says what the driver
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
lost site, before its inputs exist, or more than ``1 + retries`` times after a failure; the user's
own errors are never retried. A site that fails more often than that is done without, if there is
another way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from dataflow.datasets import Dataset, Replica
from dataflow.errors import (
    JobCancelled,
    JobError,
    JobTimedOut,
    SiteUnreachable,
    TransferFailed,
    to_document,
)
from dataflow.execution.events import (
    Asked,
    Broke,
    Crossed,
    Ended,
    ErrorDocument,
    Event,
    JobCreated,
    JobQueued,
    JobStarted,
    JobStatus,
    Order,
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
from dataflow.placement.plan import Plan, Segment, Transfer

ENDS: frozenset[JobStatus] = frozenset({"done", "failed", "cancelled", "timed-out"})
#: How often a job may be planned anew because inputs were gone, before it is given up.
MOST_REPLANS = 3


@dataclass(frozen=True, slots=True)
class Unit:
    """A segment or transfer of the plan, as far as it got.

    ``attempt`` counts orders sent, from 1; ``failures`` those that count against the limit;
    ``reported`` is the number of reports seen of this attempt.
    """

    status: str = "waiting"  # waiting, running, ended
    attempt: int = 0
    failures: int = 0
    reported: int = 0


@dataclass(frozen=True, kw_only=True)
class JobState:
    """All that is known of a job from its journal.

    Attributes
    ----------
    stored
        ``(key, site)`` → the report that it is committed there.
    crossed
        The ledger so far.
    lost
        Sites that did not answer; not used again by this job.
    gone
        URLs of inputs that turned out to be gone or changed.
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
    stored: Mapping[tuple[str, str], Stored] = field(default_factory=dict)
    crossed: tuple[Crossed, ...] = ()
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

    def results(self) -> dict[str, tuple[Replica, ...]]:
        """Key of each result asked for → the copies that this job knows of."""
        found: dict[str, tuple[Replica, ...]] = {}
        for key in self.plan.outputs:
            copies = [s.replica for (k, _), s in self.stored.items() if k == key]
            if key in self.plan.replicas:
                copies.append(self.plan.replicas[key])
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
    if not after.over and not after.replan and after.status in ("running", "suspended"):
        if all(unit.status == "ended" for unit in after.units.values()):
            after = replace(after, status="done")
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
            return replace(state, status=status, started=state.started or event.time)
        case UnitStarted():
            return _started(state, event)
        case SiteLost():
            return _lost(state, event)
        case Replanned():
            return _replanned(state, event)
        case ReplanFailed():
            return replace(state, status="failed", error=event.error, replan="")
        case Asked():
            return _asked(state, event)
        case TimeLimitReached():
            error = to_document(JobTimedOut(state.job, state.time_limit or 0.0))
            return replace(state, status="timed-out", error=error)
    return state


def _started(state: JobState, event: UnitStarted) -> JobState:
    unit = state.units.get(event.unit)
    if unit is None or unit.status == "ended" or event.attempt <= unit.attempt:
        return state
    return _with(
        state, event.unit, replace(unit, status="running", attempt=event.attempt, reported=0)
    )


def _reported(state: JobState, event: UnitReported) -> JobState:
    report = event.report
    unit = state.units.get(event.unit)
    current = unit is not None and unit.attempt == event.attempt and unit.status == "running"
    if unit is not None and current:
        state = _with(
            state, event.unit, replace(unit, reported=max(unit.reported, event.number + 1))
        )
        unit = state.units[event.unit]
    if isinstance(report, Stored):
        return replace(state, stored={**state.stored, (report.key, report.replica.site): report})
    if isinstance(report, Crossed):
        return replace(state, crossed=(*state.crossed, report))
    if unit is None or not current or state.over:
        return state
    if isinstance(report, Ended):
        return _with(state, event.unit, replace(unit, status="ended"))
    if isinstance(report, Broke):
        return _broke(state, event.unit, unit, report)
    return state


def _broke(state: JobState, name: str, unit: Unit, report: Broke) -> JobState:
    if report.fault == "user":
        return replace(state, status="failed", error=report.error)
    if report.fault == "input":
        gone = _inputs_named(state, name, report.error)
        if state.replans >= MOST_REPLANS or not gone:
            return replace(state, status="failed", error=report.error)
        waiting = _with(state, name, replace(unit, status="waiting"))
        return replace(
            waiting,
            gone=state.gone | gone,
            stored={k: s for k, s in state.stored.items() if s.replica.url not in gone},
            replan=f"an input of {name} is gone",
            replans=state.replans + 1,
            cause=report.error,
        )
    again = _with(state, name, replace(unit, status="waiting", failures=unit.failures + 1))
    if unit.failures < state.retries:
        return again
    culprit = _culprit(state, name, report.error)
    if report.fault == "worker" or culprit in state.lost:
        return replace(state, status="failed", error=report.error)
    return replace(
        again,
        lost=state.lost | {culprit},
        replan=f"site {culprit} fails",
        cause=report.error,
    )


def _culprit(state: JobState, name: str, error: ErrorDocument) -> str:
    """The site to do without after a failure that was nobody's code."""
    part = _part(state.plan, name)
    args = error.get("args") or ("",)
    if error.get("kind") == SiteUnreachable.kind:
        return str(args[0])
    if error.get("kind") == TransferFailed.kind and isinstance(part, Transfer):
        return part.source
    return _site(state.plan, name)


def _inputs_named(state: JobState, name: str, error: ErrorDocument) -> frozenset[str]:
    """URLs of the unit's inputs that the error names; all, if it names none."""
    urls = {replica.url for replica in _inputs(state, name).values()}
    text = " ".join(str(arg) for arg in error.get("args", ()))
    return frozenset(url for url in urls if url in text) or frozenset(urls)


def _lost(state: JobState, event: SiteLost) -> JobState:
    units = {
        name: replace(unit, status="waiting")
        if unit.status == "running" and _site(state.plan, name) == event.site
        else unit
        for name, unit in state.units.items()
    }
    return replace(
        state,
        units=units,
        lost=state.lost | {event.site},
        replan=f"site {event.site} does not answer",
        cause=to_document(SiteUnreachable(event.site, event.reason)),
    )


def _replanned(state: JobState, event: Replanned) -> JobState:
    """Units that run already and are in the new plan as well go on; all others begin anew."""
    units = {}
    for name, unit in _units_of(event.plan).items():
        old = state.units.get(name)
        if old is None:
            units[name] = unit
        elif old.status == "running":
            units[name] = old
        else:
            units[name] = replace(old, status="waiting")
    return replace(state, plan=event.plan, units=units, replan="", cause=None)


def _asked(state: JobState, event: Asked) -> JobState:
    if event.what == "cancel":
        error = to_document(JobCancelled(state.job, event.by))
        return replace(state, status="cancelled", error=error)
    if event.what == "suspend":
        return replace(state, status="suspended")
    if state.status == "suspended":
        return replace(state, status="running" if state.started is not None else "created")
    return state


# --- what must be under way ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the driver must have under way: units by name with their attempt, or a new plan."""

    units: Mapping[str, int] = field(default_factory=dict)
    replan: bool = False


def wanted(state: JobState) -> Wanted:
    """What must be running now; everything else of this job must not."""
    if state.over or state.status in ("created", "queued"):
        return Wanted()
    units = {name: unit.attempt for name, unit in state.units.items() if unit.status == "running"}
    if state.replan:
        return Wanted(units, replan=True)
    if state.status == "running":
        for name, unit in state.units.items():
            if unit.status == "waiting" and _ready(state, name):
                units[name] = unit.attempt + 1
    return Wanted(units)


def order_id(state: JobState, unit: str, attempt: int) -> str:
    """Identity of an order: the same after every restart of the coordinator."""
    return f"{state.job}:{unit}:{attempt}"


def order_of(
    state: JobState, name: str, attempt: int, datasets: Mapping[str, Dataset] | None = None
) -> Order:
    """The order that makes a site run a unit.

    Parameters
    ----------
    datasets
        Records of results of earlier jobs that the plan reads, as the catalog has them.
    """
    plan = state.plan
    inputs = _inputs(state, name)
    known = {key: _dataset(state, key, replica, datasets or {}) for key, replica in inputs.items()}
    unit = plan.segment_by_id.get(name)
    if unit is None:
        transfer = plan.transfer_by_id[name]
        return TransferOrder(
            id=order_id(state, name, attempt),
            job=state.job,
            site=transfer.target,
            key=transfer.key,
            replica=inputs[transfer.key],
            dataset=known[transfer.key],
            user=state.user,
        )
    steps = tuple(plan.step_by_key[key] for key in unit.steps)
    return SegmentOrder(
        id=order_id(state, name, attempt),
        job=state.job,
        plan=plan.id,
        site=unit.site,
        steps=steps,
        inputs=inputs,
        datasets=known,
        extents={key: plan.extents[key] for step in steps for _, key in step.absent},
        outputs=unit.outputs,
        results=tuple(key for key in unit.outputs if key in plan.outputs),
        tags=state.tags,
        user=state.user,
    )


def site_of(state: JobState, unit: str) -> str:
    """The site that runs a unit."""
    return _site(state.plan, unit)


# --- the plan as seen from a unit ------------------------------------------------------------------


def _units_of(plan: Plan) -> dict[str, Unit]:
    return {part.id: Unit() for part in (*plan.segments, *plan.transfers)}


def _part(plan: Plan, name: str) -> Segment | Transfer:
    return plan.segment_by_id.get(name) or plan.transfer_by_id[name]


def _site(plan: Plan, name: str) -> str:
    part = _part(plan, name)
    return part.target if isinstance(part, Transfer) else part.site


def _ready(state: JobState, name: str) -> bool:
    part = _part(state.plan, name)
    if isinstance(part, Transfer):
        return part.replica is not None or (part.key, part.source) in state.stored
    return all(
        key in part.replicas or (key, part.site) in state.stored or _held(state, key, part.site)
        for key in part.inputs
    )


def _held(state: JobState, key: str, site: str) -> bool:
    replica = state.plan.replicas.get(key)
    return replica is not None and replica.site == site


def _inputs(state: JobState, name: str) -> dict[str, Replica]:
    """The copies that a unit reads, by key."""
    return dict(_copies(state, _part(state.plan, name)))


def _copies(state: JobState, part: Segment | Transfer) -> Iterator[tuple[str, Replica]]:
    if isinstance(part, Transfer):
        stored = state.stored.get((part.key, part.source))
        replica = part.replica or (stored.replica if stored else None)
        if replica is not None:
            yield part.key, replica
        return
    for key in part.inputs:
        stored = state.stored.get((key, part.site))
        if key in part.replicas:
            yield key, part.replicas[key]
        elif stored is not None:
            yield key, stored.replica
        elif _held(state, key, part.site):
            yield key, state.plan.replicas[key]


def _dataset(state: JobState, key: str, replica: Replica, known: Mapping[str, Dataset]) -> Dataset:
    if key in state.plan.sources:
        return state.plan.sources[key]
    for (stored_key, _), stored in state.stored.items():
        if stored_key == key:
            return stored.dataset
    if key in known:
        return known[key]
    step = state.plan.step_by_key.get(key)
    extent = state.plan.extents[key]
    kinds = {"parquet": "table", "csv": "table", "files": "files"}
    several = "dataset" if len(extent.variables) > 1 else "array"
    return Dataset(
        id=key,
        name=step.label if step else key,
        key=key,
        kind=kinds.get(replica.format, several),  # type: ignore[arg-type]
        extent=extent,
        site=replica.site,
    )


def _with(state: JobState, name: str, unit: Unit) -> JobState:
    return replace(state, units={**state.units, name: unit})


def _last_first(copies: list[Replica], site: str) -> list[Replica]:
    """Copies at the site where the result was asked for come first."""
    return sorted(copies, key=lambda replica: replica.site != site)


def is_fact(report: Report) -> bool:
    """Whether a report belongs in the journal; progress does not."""
    return not report.type == "progress"

"""JobView and LedgerEntry: what people see of a job, from its state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from dataflow.datasets import Dataset
from dataflow.errors import from_document
from dataflow.execution.events import ErrorDocument, JobStatus
from dataflow.execution.programs import Program, away
from dataflow.execution.replies import Reply, replies_of
from dataflow.execution.state import ENDS, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as it stands.

    Attributes
    ----------
    coordinator
        Site that keeps its journal.
    done, total
        Units (segments and transfers) that are through, and all.
    results
        Label of a result → its dataset, as far as it is stored; also where it was there before.
    outputs
        Keys of all results, in the order in which they were asked for.
    message
        One line for people: the error, or what is going on.
    programs
        The last run of each shell operation, in the order in which they were first told of.
    replies
        What each site says to the copies that were asked for.
    """

    id: str
    status: JobStatus
    user: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    coordinator: str = ""
    created: float = 0.0
    updated: float = 0.0
    done: int = 0
    total: int = 0
    results: Mapping[str, Dataset] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    error: ErrorDocument | None = None
    message: str = ""
    programs: tuple[Program, ...] = ()
    replies: tuple[Reply, ...] = ()

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in ENDS


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """Bytes that crossed one link for a job.

    ``predicted`` is what the plan said for this copy, ``None`` if it had none; ``label`` is a word
    for the key.
    """

    job: str
    key: str
    source: str
    target: str
    nbytes: int
    seconds: float = 0.0
    predicted: int | None = None
    label: str = ""


def view_of(
    state: JobState,
    coordinator: str,
    now: float | None = None,
    before: Callable[[str], Dataset | None] = lambda key: None,
) -> JobView:
    """What to show of a job, at ``now`` or as it was when something happened last.

    Parameters
    ----------
    before
        Says which dataset has a key that this job did not make: a result that was there before.
    """
    found = {}
    for key in state.plan.outputs:
        dataset = state.dataset(key)
        if dataset is None and key in state.plan.replicas:
            dataset = before(key)
        if dataset is not None:
            found[state.plan.label(key)] = dataset
    return JobView(
        id=state.job,
        status=state.status,
        user=state.user,
        tags=state.tags,
        coordinator=coordinator,
        created=state.created,
        updated=state.updated,
        done=state.done,
        total=len(state.units),
        results=found,
        outputs=state.plan.outputs,
        error=state.error,
        message=_message(state),
        programs=tuple(state.programs.values()),
        replies=replies_of(state, state.updated if now is None else now),
    )


def known_of(view: JobView, silent: Collection[str]) -> JobView:
    """The view while some sites do not answer: their programs are unknown, and the job with them."""
    programs = away(view.programs, silent)
    lost = [one for one in programs if one.status == "unknown"]
    if view.status != "running" or not lost:
        return replace(view, programs=programs)
    sites = ", ".join(sorted({one.site for one in lost}))
    return replace(
        view,
        status="unknown",
        programs=programs,
        message=f"{lost[0].label} goes on at {sites}, which does not answer; it is waited for",
    )


def _message(state: JobState) -> str:
    if state.error is not None:
        error = from_document(state.error)
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    if state.replan:
        return f"{state.replan}; looking for another way"
    if state.plan.missing:
        left_out = "; ".join(f"{label} ({why})" for label, why in state.plan.missing.items())
        return f"incomplete, without {left_out}"
    return "" if state.over else _waiting(tuple(state.programs.values()))


def _waiting(programs: tuple[Program, ...]) -> str:
    """What programs wait for, if that is all that goes on."""
    pending = [one for one in programs if one.status == "pending"]
    if not pending or any(one.status == "running" for one in programs):
        return ""
    first = pending[0]
    number = f" as batch job {first.batch}" if first.batch else ""
    more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
    why = f": {first.reason}" if first.reason else ""
    return f"{first.label}{more} waits at {first.site}{number}{why}"


def ledger_of(state: JobState) -> list[LedgerEntry]:
    """What crossed links, one entry per copy and link, in the order of arrival.

    What was relayed crossed two links, and was not counted twice: it has two entries.
    """
    planned = {(t.key, t.source, t.target): t for t in state.plan.transfers}
    sums: dict[tuple[str, str, str, str], tuple[int, float]] = {}
    for crossed in state.crossed:
        way = (crossed.key, crossed.source, crossed.via, crossed.target)
        nbytes, seconds = sums.get(way, (0, 0.0))
        sums[way] = (nbytes + crossed.nbytes, seconds + crossed.seconds)
    found = []
    for (key, source, via, target), (nbytes, seconds) in sums.items():
        plan = planned.get((key, source, target))
        stops = list(dict.fromkeys((source, via or target, target)))
        found += [
            LedgerEntry(
                job=state.job,
                key=key,
                source=here,
                target=there,
                nbytes=nbytes,
                seconds=seconds,
                predicted=plan.nbytes if plan is not None else None,
                label=_label(state, key),
            )
            for here, there in pairwise(stops)
        ]
    return found


def _label(state: JobState, key: str) -> str:
    try:
        return state.plan.label(key)
    except KeyError:
        return key[:12]

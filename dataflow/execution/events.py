"""What can happen to a job, and what may be asked of a site: plain records.

The journal of a job is the list of its events. Orders and reports are the two halves of the
conversation between the driver and a site; both cross HTTP as JSON.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from dataflow.agreements import Request
from dataflow.datasets import Dataset, Extent, Replica
from dataflow.execution.programs import Program
from dataflow.graph.operation import Step
from dataflow.placement.plan import Plan

JobStatus = Literal[
    "created",
    "queued",
    "running",
    "suspended",
    "done",
    "failed",
    "cancelled",
    "timed-out",
    "unknown",
]
#: Whose fault a failure is decides what may be done about it: ``user`` is never retried,
#: ``worker`` and ``site`` are, ``input`` sends the driver back to make the input again.
Fault = Literal["user", "worker", "site", "input"]
ErrorDocument = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Why somebody reads at a site: for which job and user, by which request, to take it where."""

    job: str = ""
    user: str = ""
    request: Request = field(default_factory=Request)
    to: str = ""


# --- orders: driver → site ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOrder:
    """Run these steps at your site and store these outputs. Same ``id``, same order: sending it
    again attaches to the one that runs.

    ``inputs`` are replicas at the site, by key, and ``datasets`` says what they are; ``extents`` has
    the shapes of absent arguments; ``seconds`` and ``memory`` (bytes) what the plan expects of a step.
    Every key in ``outputs`` is stored; those in ``results`` are what the user asked for, and get the ``tags``. The code of each step must have been handed over
    before. ``originals`` are steps as the user built them of which some of ``steps`` are shares, and
    how these were cut: they prove the keys, and nothing of them is run. ``origins``, ``entered``,
    ``rows`` and ``services`` say for each step what its result is made of, and whose rows it carries
    (see :class:`~dataflow.datasets.Lineage`), ``temporary`` which results may not be kept,
    ``unheard`` of which inputs the site had not heard anything when it let the order in,
    ``floors`` how many rows each input of a step must have, ``guarded`` of which datasets with a floor the rows
    of an input are, ``unproven`` which results are not given out
    before they are reproduced; the site writes them itself. ``environment``: versions that workers
    must have, where it is a second run.
    """

    id: str
    job: str
    plan: str
    site: str
    steps: tuple[Step, ...]
    inputs: Mapping[str, Replica]
    datasets: Mapping[str, Dataset]
    extents: Mapping[str, Extent]
    outputs: tuple[str, ...]
    results: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    walltime: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    request: Request = field(default_factory=Request)
    originals: tuple[Step, ...] = ()
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    entered: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    temporary: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    floors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    guarded: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unproven: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    type: Literal["segment"] = "segment"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOrder:
    """Fetch this replica from that site into your results store.

    ``target`` is a site of stores, if it is to be put into its store instead of yours.
    ``relayed``: the site cannot be asked by you; whoever gave this order brings what you want of it.
    ``clean``: if it does not come whole, remove what came.
    """

    id: str
    job: str
    site: str
    key: str
    replica: Replica
    dataset: Dataset | None = None
    relayed: bool = False
    target: str = ""
    clean: bool = False
    user: str = ""
    request: Request = field(default_factory=Request)
    type: Literal["transfer"] = "transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOrder:
    """Give up this replica of yours, records and bytes, if ``copy`` at another site equals it."""

    id: str
    job: str
    site: str
    key: str
    replica: Replica
    copy: Replica
    user: str = ""
    type: Literal["release"] = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOrder:
    """Compare your result ``key`` with ``copy``, what another site came to in a second run.

    What comes out is written into your record of the result; one that differs is not given out.
    """

    id: str
    job: str
    site: str
    key: str
    copy: Replica
    user: str = ""
    request: Request = field(default_factory=Request)
    type: Literal["compare"] = "compare"


Order = SegmentOrder | TransferOrder | ReleaseOrder | CompareOrder


def errand_of(order: TransferOrder) -> Errand:
    """The errand on which a copy is fetched."""
    return Errand(job=order.job, user=order.user, request=order.request, to=order.site)


# --- reports: site → driver --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An output (or a copy) is committed at the site.

    ``seconds`` is the work of this output; ``reused`` that it was there already.
    """

    key: str
    replica: Replica
    dataset: Dataset
    seconds: float = 0.0
    reused: bool = False
    type: Literal["stored"] = "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """Bytes that came over a link for this order: one entry of the ledger.

    ``via`` is the site that carried them over; whoever keeps the job writes that down. ``whole`` says
    that the copy arrived: the time of one that did not says nothing of the road.
    """

    key: str
    source: str
    target: str
    nbytes: int
    seconds: float
    via: str = ""
    whole: bool = True
    type: Literal["crossed"] = "crossed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A replica of the site is given up: it is in no record any more, and its bytes are gone."""

    key: str
    site: str
    url: str
    type: Literal["released"] = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A result was compared with that of the second run at ``other``; ``differs`` are files."""

    key: str
    site: str
    other: str
    equal: bool
    differs: tuple[str, ...] = ()
    type: Literal["compared"] = "compared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The order is done; nothing follows."""

    seconds: float = 0.0
    type: Literal["ended"] = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broke:
    """The order failed; nothing follows. ``error`` is :func:`dataflow.errors.to_document`."""

    error: ErrorDocument
    fault: Fault
    type: Literal["broke"] = "broke"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an order is: ``done`` of ``total`` chunks, and a word for people."""

    done: int
    total: int
    message: str = ""
    type: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a run of a shell operation stands now; the whole record each time."""

    program: Program
    type: Literal["ran"] = "ran"


Report = Stored | Crossed | Released | Compared | Ended | Broke | Progress | Ran


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What a site wants of the source of a relayed order: a range of a file, or without a path all
    files' names and sizes. ``number`` counts the wants of the order.
    """

    number: int
    path: str | None = None
    start: int = 0
    end: int = 0


class SiteAccess(Protocol):
    """What a driver may ask of a site, whether in this process or far away.

    Every method may raise :class:`~dataflow.errors.SiteUnreachable` or
    :class:`~dataflow.errors.SiteRefused`.
    """

    name: str

    async def start(self, order: Order) -> None:
        """Begin an order, or attach to it if its id is known."""

    async def follow(self, order: str, since: int, wait: float) -> Sequence[Report]:
        """Reports number ``since`` and later; waits up to ``wait`` s for the first of them.

        Raises
        ------
        KeyError
            If the site does not know the order (it restarted): send it again.
        """

    async def cancel(self, order: str) -> None:
        """Stop an order; unknown or ended ones are ignored."""

    async def give_code(self, code: str, payload: bytes) -> None:
        """Hand over the payload of an operation, named by its digest."""

    async def has_code(self, codes: Sequence[str]) -> Sequence[str]:
        """Those of ``codes`` that the site already holds."""


@runtime_checkable
class TakesWants(Protocol):
    """A site that carries out relayed orders, in this process or far away."""

    async def wants(self, order: str, wait: float) -> Sequence[Want]:
        """What a relayed order waits for now; waits up to ``wait`` s for the first.

        Raises
        ------
        KeyError
            If the site does not know the order.
        """

    async def bring(
        self, order: str, number: int, answer: bytes | AsyncIterable[bytes], nbytes: int = 0
    ) -> None:
        """Answer a want: bytes, or for a want without a path the files as a JSON document.

        Bytes may come piece by piece, ``nbytes`` in all.
        """

    async def cannot_bring(self, order: str, number: int, error: ErrorDocument) -> None:
        """Tell why a want is not answered."""


# --- events: the journal -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCreated:
    """A plan was submitted."""

    job: str
    plan: Plan
    user: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    retries: int = 1
    time_limit: float | None = None
    time: float = 0.0
    type: Literal["job-created"] = "job-created"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQueued:
    """The job waits for its coordinator to have room."""

    time: float = 0.0
    type: Literal["job-queued"] = "job-queued"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """The coordinator took the job up; again after a restart of the coordinator."""

    time: float = 0.0
    type: Literal["job-started"] = "job-started"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitStarted:
    """The order of a unit (segment or transfer) is on its way to its site."""

    unit: str
    site: str
    attempt: int
    time: float = 0.0
    type: Literal["unit-started"] = "unit-started"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReported:
    """A site reported something about a unit; ``number`` is the report's place in its list."""

    unit: str
    attempt: int
    report: Report
    number: int = 0
    time: float = 0.0
    type: Literal["unit-reported"] = "unit-reported"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLost:
    """A site did not answer for longer than allowed while it had work of this job."""

    site: str
    reason: str
    time: float = 0.0
    type: Literal["site-lost"] = "site-lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replanned:
    """The rest of the job goes on under a new plan."""

    plan: Plan
    because: str
    time: float = 0.0
    type: Literal["replanned"] = "replanned"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplanFailed:
    """There is no other plan; the job cannot go on."""

    error: ErrorDocument
    time: float = 0.0
    type: Literal["replan-failed"] = "replan-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A person asked for something."""

    what: Literal["cancel", "suspend", "resume"]
    by: str = ""
    time: float = 0.0
    type: Literal["asked"] = "asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimitReached:
    """The job's own time limit passed."""

    time: float = 0.0
    type: Literal["time-limit-reached"] = "time-limit-reached"


Event = (
    JobCreated
    | JobQueued
    | JobStarted
    | UnitStarted
    | UnitReported
    | SiteLost
    | Replanned
    | ReplanFailed
    | Asked
    | TimeLimitReached
)

"""Routes of jobs, orders and codes: what people and drivers ask of a site."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from dataflow.agent.answers import nothing, record, refusal, refusals
from dataflow.agent.auth import Identity
from dataflow.agent.bodies import Asking, CannotBring, Codes, NewOrder, Submission, Submitted
from dataflow.agent.polls import Since, Wait, held
from dataflow.agent.served import Asker, KnowsOwners, Own, Served
from dataflow.agent.strict import StrictRoute
from dataflow.documents import to_document
from dataflow.errors import PolicyError, SiteRefused
from dataflow.execution.events import Event, Report, TakesWants, TransferOrder, Want

router = APIRouter(route_class=StrictRoute)

Id = Annotated[str, Path(min_length=1, max_length=200)]
Number = Annotated[int, Path(ge=0, le=2**53)]
CodeDigest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
What = Literal["cancel", "suspend", "resume"]

#: Kind of the error document that says "this site does not know that order".
UNKNOWN_ORDER = "unknown-order"


@router.post(
    "/v1/jobs",
    tags=["jobs"],
    summary="Submit a plan: this site coordinates the job",
    status_code=201,
    response_model=Submitted,
    responses=refusals(409, 503),
)
async def submit(own: Own, asker: Asker, body: Submission) -> Response:
    """Answers as soon as the job is in the journal; sending the same job again changes nothing."""
    if body.payloads:
        _only_lab(own)
    created = replace(body.created, user=asker.speaks_for(body.created.user))
    job = await own.submit(created, body.payloads)
    return record(Submitted(job=job), Submitted, 201)


@router.get(
    "/v1/jobs", tags=["jobs"], summary="All jobs that this site knows of", responses=refusals()
)
async def jobs(own: Own) -> Response:
    return record([to_document(view) for view in await own.jobs()], list[dict[str, Any]])


@router.get(
    "/v1/jobs/{job}",
    tags=["jobs"],
    summary="State of one job",
    responses=refusals(404, 503),
)
async def job(own: Own, job: Id) -> Response:
    """Of any job of the federation: the agent asks the site that coordinates it."""
    view = await own.job(job)
    return record(view, type(view))


@router.get(
    "/v1/jobs/{job}/events",
    tags=["jobs"],
    summary="The journal of a job, from an entry on; waits for news",
    response_model=list[Event],
    responses=refusals(404, 503),
)
async def job_events(
    request: Request, own: Own, job: Id, since: Since = 0, wait: Wait = 0.0
) -> Response:
    events = await held(request, own.job_events(job, since, wait), [])
    return record(list(events), list[Event])


@router.post(
    "/v1/jobs/{job}/{what}",
    tags=["jobs"],
    summary="Cancel, suspend or resume a job",
    status_code=204,
    responses=refusals(404, 409, 503),
)
async def ask(own: Own, asker: Asker, job: Id, what: What, body: Asking | None = None) -> Response:
    await _must_own(own, asker, job)
    await own.ask(job, what, asker.speaks_for(body.by if body else ""))
    return nothing()


@router.get(
    "/v1/ledger",
    tags=["jobs"],
    summary="Bytes that crossed links, by this site's own count",
    responses=refusals(404, 503),
)
async def ledger(
    own: Own, job: Annotated[str | None, Query(min_length=1, max_length=200)] = None
) -> Response:
    """Of one job, or of all."""
    return record([to_document(entry) for entry in await own.ledger(job)], list[dict[str, Any]])


@router.post(
    "/v1/orders",
    tags=["orders"],
    summary="Run a segment or fetch a copy at this site",
    status_code=204,
    responses=refusals(503),
)
async def start(own: Own, asker: Asker, body: NewOrder) -> Response:
    """The same order again attaches to the one that runs; another with its id is refused."""
    order = body.order
    if order.site != own.site.name:
        raise SiteRefused(own.site.name, f"this order is for site {order.site!r}")
    relayed = isinstance(order, TransferOrder) and order.relayed
    if relayed and own.site.trust == "steward" and asker.role not in ("site", "admin"):
        raise SiteRefused(own.site.name, "a steward fetches copies itself; a user brings it none")
    await own.runner.start(replace(order, user=asker.speaks_for(order.user)))
    return nothing()


@router.get(
    "/v1/orders/{order}/reports",
    tags=["orders"],
    summary="Reports of an order, from a number on; waits for news",
    response_model=list[Report],
    responses=refusals(404),
)
async def follow(
    request: Request, own: Own, asker: Asker, order: Id, since: Since = 0, wait: Wait = 0.0
) -> Response:
    """404 with kind ``unknown-order``: the site was restarted; send the order again."""
    _must_own_order(own, asker, order)
    try:
        reports = await held(request, own.runner.follow(order, since, wait), [])
    except KeyError:
        return refusal(404, UNKNOWN_ORDER, order)
    return record(list(reports), list[Report])


@router.post(
    "/v1/orders/{order}/cancel",
    tags=["orders"],
    summary="Stop an order; unknown and ended ones are ignored",
    status_code=204,
    responses=refusals(),
)
async def cancel(own: Own, asker: Asker, order: Id) -> Response:
    _must_own_order(own, asker, order)
    await own.runner.cancel(order)
    return nothing()


@router.get(
    "/v1/orders/{order}/wants",
    tags=["orders"],
    summary="What a relayed order wants of its source; waits for the first",
    response_model=list[Want],
    responses=refusals(404),
)
async def wants(request: Request, own: Own, asker: Asker, order: Id, wait: Wait = 0.0) -> Response:
    """A copy between two sites that cannot ask each other: whoever gave the order brings it."""
    _must_own_order(own, asker, order)
    try:
        found = await held(request, _takes_wants(own).wants(order, wait), [])
    except KeyError:
        return refusal(404, UNKNOWN_ORDER, order)
    return record(list(found), list[Want])


@router.put(
    "/v1/orders/{order}/wants/{number}",
    tags=["orders"],
    summary="Bring what a relayed order wants",
    status_code=204,
    responses=refusals(404),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def bring(request: Request, own: Own, asker: Asker, order: Id, number: Number) -> Response:
    _must_own_order(own, asker, order)
    try:
        await _takes_wants(own).bring(order, number, await request.body())
    except KeyError:
        return refusal(404, UNKNOWN_ORDER, order)
    return nothing()


@router.put(
    "/v1/orders/{order}/wants/{number}/error",
    tags=["orders"],
    summary="Tell why a want cannot be answered",
    status_code=204,
    responses=refusals(404),
)
async def cannot_bring(
    own: Own, asker: Asker, order: Id, number: Number, body: CannotBring
) -> Response:
    _must_own_order(own, asker, order)
    try:
        await _takes_wants(own).cannot_bring(order, number, body.error)
    except KeyError:
        return refusal(404, UNKNOWN_ORDER, order)
    return nothing()


def _takes_wants(own: Served) -> TakesWants:
    if not isinstance(own.runner, TakesWants):
        raise SiteRefused(own.site.name, "nothing can be relayed to this site")
    return own.runner


@router.put(
    "/v1/codes/{digest}",
    tags=["orders"],
    summary="Hand over the code of an operation, named by its digest",
    status_code=204,
    responses=refusals(),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def give_code(request: Request, own: Own, digest: CodeDigest) -> Response:
    """The agent keeps the bytes as they are; only workers open them. Stewards refuse."""
    _only_lab(own)
    await own.runner.give_code(digest, await request.body())
    return nothing()


@router.post(
    "/v1/codes/missing",
    tags=["orders"],
    summary="Those of the codes that this site does not hold",
    response_model=list[str],
    responses=refusals(),
)
async def missing(own: Own, body: Codes) -> Response:
    held_here = set(await own.runner.has_code(body.codes))
    return record([code for code in body.codes if code not in held_here], list[str])


def _only_lab(own: Served) -> None:
    if own.site.trust != "lab":
        raise SiteRefused(
            own.site.name, "a steward takes no code; it runs operations that are installed here"
        )


async def _must_own(own: Served, asker: Identity, job: str) -> None:
    if asker.role in ("site", "admin"):
        return
    user = (await own.job(job)).user
    if user != asker.user:
        raise PolicyError(f"job {job} belongs to {user!r}; only its owner may do that")


def _must_own_order(own: Served, asker: Identity, order: str) -> None:
    """Orders that are not known belong to nobody: the runner says what it thinks of them."""
    if asker.role in ("site", "admin"):
        return
    runner = own.runner
    if not isinstance(runner, KnowsOwners):
        raise PolicyError(f"nobody can say whose order {order} is")
    if runner.owner(order) not in (asker.user, None):
        raise PolicyError(f"order {order} is somebody else's; only its owner may do that")

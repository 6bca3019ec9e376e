"""The application of an agent: HTTP around a participant, described by OpenAPI.

Nothing is decided here. A route checks the form of what comes in, calls the participant, and
writes down what it says; :mod:`dataflow.agent.door` has asked who it is before.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from importlib.metadata import version
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.security import HTTPBearer
from starlette.middleware import Middleware
from starlette.responses import Response

from dataflow.agent import agreements, answers, jobs, metrics, negotiations, runs, serve_data
from dataflow.agent.answers import nothing, record, refusals
from dataflow.agent.auth import Authenticate
from dataflow.agent.bodies import Health, Hint, Join, Page, Registration, SiteAnswer
from dataflow.agent.door import Door
from dataflow.agent.polls import Since, Wait, held
from dataflow.agent.served import Asker, Own, Served, only_readers_look
from dataflow.agent.strict import StrictRoute
from dataflow.catalog.access import KnownSite
from dataflow.datasets import Dataset
from dataflow.errors import PolicyError
from dataflow.stores import store_for
from dataflow.versions import versions

#: Most bytes that the body of a request may have.
BODY_LIMIT = 64 * 2**20

DESCRIPTION = """\
One site of a dataflow federation: its catalog, its jobs, its data and a way to run segments of
plans on its own workers. Every agent is the same program; connect to any of them.

Errors are documents `{"kind": …, "args": […]}`; the kinds are stable.
"""

router = APIRouter(route_class=StrictRoute)


def create_app(
    participant: Served, authenticate: Authenticate, *, body_limit: int = BODY_LIMIT
) -> FastAPI:
    """The application that serves ``participant`` to those whom ``authenticate`` knows.

    The participant is neither started nor closed here. Setting ``app.state.stopping`` ends all
    long polls.
    """
    answered: Counter[tuple[str, int]] = Counter()
    app = FastAPI(
        title=f"dataflow agent of {participant.site.name}",
        summary="Move the computation to the data",
        description=DESCRIPTION,
        version=version("jupyter-dataflow"),
        docs_url=None,  # these pages would load their programs from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[
            Depends(only_readers_look),
            Depends(HTTPBearer(auto_error=False, description="A token of the site's token file")),
        ],
        middleware=[
            Middleware(Door, authenticate=authenticate, body_limit=body_limit, answered=answered)
        ],
    )
    app.state.participant = participant
    app.state.stopping = asyncio.Event()
    app.state.answers = answered
    app.state.versions = dict(versions())
    answers.install(app)
    for part in (
        router,
        agreements.router,
        negotiations.router,
        jobs.router,
        serve_data.router,
        metrics.router,
        runs.router,
    ):
        app.include_router(part)
    return app


@router.get(
    "/v1/health", tags=["site"], summary="Whether the agent is alive", response_model=Health
)
async def health() -> Response:
    """The only thing that anybody may ask without a token."""
    return record(Health(), Health)


@router.get(
    "/v1/site",
    tags=["site"],
    summary="This site, its stores and its version",
    response_model=SiteAnswer,
    responses=refusals(),
)
async def site(request: Request, own: Own) -> Response:
    answer = SiteAnswer(
        site=own.site,
        stores=own.topology().stores_at(own.site.name),
        version=version("jupyter-dataflow"),
        versions=request.app.state.versions,
        time=time.time(),
        dashboard=own.dashboard(),
    )
    return record(answer, SiteAnswer)


@router.get(
    "/v1/peers",
    tags=["catalog"],
    summary="All sites of the federation that this one knows, itself marked",
    response_model=list[KnownSite],
    responses=refusals(),
)
async def peers(own: Own) -> Response:
    return record(list(await own.sync.peers()), list[KnownSite])


@router.get(
    "/v1/records",
    tags=["catalog"],
    summary="Records of a site, as this site knows them, after a sequence number; waits for news",
    response_model=Page,
    responses=refusals(),
)
async def records(
    request: Request,
    own: Own,
    asker: Asker,
    site: Annotated[str, Query(max_length=200)] = "",
    since: Since = 0,
    wait: Wait = 0.0,
) -> Response:
    """Without ``site``: its own. A site's own word is the truth; of others it has copies."""
    name = site or own.site.name
    epoch, rows = await held(request, own.sync.records(name, since, wait), ("", ()))
    return record(Page(site=name, epoch=epoch, rows=agreements.rows_for(asker, rows)), Page)


@router.post(
    "/v1/hint",
    tags=["catalog"],
    summary="A site has news: worth pulling",
    status_code=204,
    responses=refusals(),
)
async def hint(own: Own, asker: Asker, body: Hint) -> Response:
    """An address counts only from agents and administrators: our token would be shown there."""
    address = body.address if asker.role in ("site", "admin") else None
    await own.sync.hint(body.site, body.sequence, epoch=body.epoch, address=address)
    return nothing()


@router.post(
    "/v1/join",
    tags=["site"],
    summary="Join the federation of the agent at an address",
    status_code=204,
    responses=refusals(503),
)
async def join(own: Own, asker: Asker, body: Join) -> Response:
    """Our token for another site would be shown at this address: an administrator decides."""
    if asker.role != "admin":
        raise PolicyError("joining sites is for administrators")
    await own.join(body.address, body.credentials)
    return nothing()


@router.post(
    "/v1/datasets",
    tags=["catalog"],
    summary="Register data that lies in a store of this site",
    status_code=201,
    response_model=Dataset,
    responses=refusals(404, 409),
)
async def register(own: Own, asker: Asker, body: Registration) -> Response:
    """The data stays where it is; it is read only to learn its shape and its size."""
    if own.site.trust == "steward" and asker.role == "user":
        # Or somebody could give data a name, or a tag, by which an agreement grants them.
        raise PolicyError("a steward's data are registered by its administrators")
    _must_lie_in_a_store(own, body.url)
    dataset = await own.register(
        body.url,
        name=body.name,
        tags=body.tags,
        variable=body.variable,
        owner=asker.speaks_for(body.owner),
        replica_of=body.replica_of,
    )
    return record(dataset, Dataset, 201)


def _must_lie_in_a_store(own: Served, url: str) -> None:
    """What a stranger registers must lie where the owner has opened a store, and nowhere else."""
    leaves = ".." in unquote(url).replace("\\", "/").split("/")
    if leaves or store_for(url, own.stores()) is None:
        raise PolicyError(f"{url} does not lie in a store of site {own.site.name!r}")

"""Routes of runs: the cells that a notebook at this site has executed so far."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from dataflow.agent.answers import record, refusals
from dataflow.agent.polls import Since, Wait, held
from dataflow.agent.served import Asker, Own, RunsNotebooks
from dataflow.agent.strict import StrictRoute
from dataflow.errors import PolicyError, UnknownJob
from dataflow.participant.notebooks import Cells

router = APIRouter(route_class=StrictRoute)

Run = Annotated[str, Path(min_length=1, max_length=200)]


@router.get(
    "/v1/runs/{run}/cells",
    tags=["jobs"],
    summary="Cells that a notebook here has executed, from a byte on; waits for news",
    response_model=Cells,
    responses=refusals(404),
)
async def cells(
    request: Request, own: Own, asker: Asker, run: Run, since: Since = 0, wait: Wait = 0.0
) -> Response:
    """Outputs may show what an owner granted to one user: only he, and who speaks for him, sees them."""
    if not isinstance(own, RunsNotebooks):
        raise UnknownJob(run, [own.site.name])
    user = own.notebooks.owner(run)
    if asker.role not in ("site", "admin") and asker.user != user:
        raise PolicyError("this is somebody else's notebook")
    found = await held(request, own.notebooks.cells(run, since, wait), Cells(next=since))
    return record(found, Cells)

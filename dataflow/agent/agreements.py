"""Routes of agreements: what the owners of data at this site grant to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from dataflow.agent.answers import nothing, record, refusals
from dataflow.agent.auth import Identity
from dataflow.agent.bodies import AgreementBody
from dataflow.agent.served import Asker, Own
from dataflow.agent.strict import StrictRoute
from dataflow.agreements import Agreement
from dataflow.catalog.entries import RecordRow
from dataflow.documents import from_json, to_json
from dataflow.errors import ConfigError, PolicyError
from dataflow.policy.agreement import as_seen_by

router = APIRouter(route_class=StrictRoute, tags=["agreements"])

Name = Annotated[str, Path(min_length=1, max_length=200)]


@router.get(
    "/v1/agreements",
    summary="What owners of data here grant, as far as it is yours to know",
    response_model=list[Agreement],
    responses=refusals(),
)
async def agreements(own: Own, asker: Asker) -> Response:
    """Users see the relations that are for them; other agents and administrators see all."""
    found = [_seen(agreement, asker) for agreement in own.agreements()]
    return record(found, list[Agreement])


@router.put(
    "/v1/agreements/{name}",
    summary="Put an agreement in the place of the one of this name",
    status_code=204,
    responses=refusals(),
)
async def agree(own: Own, asker: Asker, name: Name, body: AgreementBody) -> Response:
    """For administrators. Holds at once: what rests on a relation that is gone ends."""
    _only_admin(asker)
    if body.agreement.name != name:
        raise ConfigError(f"this agreement is called {body.agreement.name!r}, not {name!r}")
    own.agree(body.agreement, asker.user)
    return nothing()


@router.delete(
    "/v1/agreements/{name}",
    summary="Take all relations of an agreement back",
    status_code=204,
    responses=refusals(),
)
async def withdraw(own: Own, asker: Asker, name: Name) -> Response:
    """For administrators. What the agreement is about stays closed."""
    _only_admin(asker)
    own.withdraw(name, asker.user)
    return nothing()


def rows_for(asker: Identity, rows: Sequence[RecordRow]) -> tuple[RecordRow, ...]:
    """Rows of a log as somebody may see them: of agreements, users see what is for them."""
    if asker.role in ("site", "admin"):
        return tuple(rows)
    return tuple(_seen_row(row, asker) for row in rows)


def _seen_row(row: RecordRow, asker: Identity) -> RecordRow:
    if row.kind != "agreement" or row.deleted:
        return row
    try:
        agreement = from_json(Agreement, row.body)
    except ValueError:  # of another version: nobody can say what it tells of whom
        return replace(row, body="{}")
    return replace(row, body=to_json(as_seen_by(agreement, asker.user), Agreement))


def _seen(agreement: Agreement, asker: Identity) -> Agreement:
    return agreement if asker.role in ("site", "admin") else as_seen_by(agreement, asker.user)


def _only_admin(asker: Identity) -> None:
    if asker.role != "admin":
        raise PolicyError("agreements are made by administrators of the site")

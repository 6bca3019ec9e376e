"""Routes of negotiations: how users and owners come to a relation."""

from __future__ import annotations

import asyncio
from typing import Annotated, Protocol, runtime_checkable

from fastapi import APIRouter, Path
from starlette.responses import Response

from dataflow.agent.answers import record, refusals
from dataflow.agent.auth import Identity
from dataflow.agent.bodies import NegotiationBody, TermsBody
from dataflow.agent.served import Asker, Own, Served
from dataflow.agent.strict import StrictRoute
from dataflow.errors import PolicyError
from dataflow.participant.negotiating import Negotiations, Party
from dataflow.policy.negotiation import Move, Negotiation

router = APIRouter(route_class=StrictRoute, tags=["agreements"])

Id = Annotated[str, Path(min_length=1, max_length=100)]


@runtime_checkable
class Negotiates(Protocol):
    """A participant whose owners negotiate."""

    @property
    def negotiations(self) -> Negotiations: ...


@router.get(
    "/v1/negotiations",
    summary="Your negotiations with the owners of data here; an administrator's are all",
    response_model=list[Negotiation],
    responses=refusals(),
)
async def negotiations(own: Own, asker: Asker) -> Response:
    own_ones, party = _of(own), _party(asker)

    def listed() -> Response:
        return record(own_ones.all(party), list[Negotiation])

    return await asyncio.to_thread(listed)  # there may be many, and they may be long


@router.post(
    "/v1/negotiations",
    summary="Ask for a relation; administrators offer one to a user",
    status_code=201,
    response_model=Negotiation,
    responses=refusals(),
)
async def begin(own: Own, asker: Asker, body: NegotiationBody) -> Response:
    made = _of(own).begin(body.agreement, body.terms, _party(asker), body.user)
    return record(made, Negotiation, 201)


@router.get(
    "/v1/negotiations/{id}",
    summary="Where a negotiation stands",
    response_model=Negotiation,
    responses=refusals(404),
)
async def negotiation(own: Own, asker: Asker, id: Id) -> Response:
    return record(_of(own).get(id, _party(asker)), Negotiation)


@router.post(
    "/v1/negotiations/{id}/{move}",
    summary="Make a move; finalize writes the relation into the agreement",
    response_model=Negotiation,
    responses=refusals(404, 409),
)
async def move(own: Own, asker: Asker, id: Id, move: Move, body: TermsBody) -> Response:
    return record(_of(own).move(id, move, _party(asker), body.terms), Negotiation)


def _of(own: Served) -> Negotiations:
    if not isinstance(own, Negotiates):
        raise PolicyError(f"the owners of data at {own.site.name!r} do not negotiate")
    return own.negotiations


def _party(asker: Identity) -> Party:
    """Only people negotiate; what an agent says in somebody's name is not that person's word."""
    if asker.role == "site":
        raise PolicyError("agents do not negotiate: their users do, with tokens of their own")
    return Party(asker.user, admin=asker.role == "admin")

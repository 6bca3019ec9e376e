"""Negotiation: how two sides come to a relation, move by move, and in no other order.

The states and moves are those of the Dataspace Protocol's contract negotiation (and of DYNAMOS,
which follows it): whoever wants data is the *consumer*, whoever decides about them the *provider*.

>>> asked = begin(
...     id="n1", site="uva", agreement="wages", user="anna", side="consumer", by="anna", at=0.0,
...     terms=Relation(id="", request_types=("mean",), datasets=("wageGap",), archetypes=("fetch",)),
... )
>>> moved(asked, "agree", side="provider", by="root", at=1.0).state
'agreed'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from dataflow.agreements import ANY, Relation, wrong_in
from dataflow.documents import to_json
from dataflow.errors import ConfigError, OutOfOrder, PolicyError

Side = Literal["consumer", "provider"]
State = Literal["requested", "offered", "accepted", "agreed", "verified", "finalized", "terminated"]
Move = Literal["request", "offer", "accept", "agree", "verify", "finalize", "terminate"]

ENDED: frozenset[State] = frozenset(("finalized", "terminated"))
#: Whose a move is; both sides may give up.
SIDES: Mapping[Move, tuple[Side, ...]] = {
    "request": ("consumer",),
    "offer": ("provider",),
    "accept": ("consumer",),
    "agree": ("provider",),
    "verify": ("consumer",),
    "finalize": ("provider",),
    "terminate": ("consumer", "provider"),
}
#: State and move → the next state.
_NEXT: Mapping[tuple[State, Move], State] = {
    ("offered", "request"): "requested",
    ("requested", "offer"): "offered",
    ("offered", "accept"): "accepted",
    ("requested", "agree"): "agreed",
    ("accepted", "agree"): "agreed",
    ("agreed", "verify"): "verified",
    ("verified", "finalize"): "finalized",
    **{
        (state, "terminate"): "terminated"
        for state in ("requested", "offered", "accepted", "agreed", "verified")
    },
}
#: Moves that bring terms.
WITH_TERMS: frozenset[Move] = frozenset(("request", "offer"))
#: After so many moves somebody has to begin anew: nobody fills a site's disk with proposals.
MOST_MOVES = 100
#: JSON of terms, in bytes; for the same reason.
MOST_NBYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One move: who, for which side, when (s since the epoch)."""

    move: Move
    side: Side
    by: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiation:
    """Where two sides stand.

    Attributes
    ----------
    id
        Becomes that of the relation.
    site, agreement
        Into which agreement of which site the relation goes.
    user
        The consumer: for whom the relation will be.
    terms
        The relation as proposed last, or agreed.
    """

    id: str
    site: str
    agreement: str
    user: str
    state: State
    terms: Relation
    steps: tuple[Step, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing can become of it any more that is not yet."""
        return self.state in ENDED

    def moves(self, side: Side) -> list[Move]:
        """What a side can do now."""
        found = [move for (state, move) in _NEXT if state == self.state and side in SIDES[move]]
        return found if len(self.steps) < MOST_MOVES else [m for m in found if m == "terminate"]

    def __repr__(self) -> str:
        return f"<Negotiation {self.id} of {self.user} with {self.site}: {self.state}>"


def begin(
    *,
    id: str,
    site: str,
    agreement: str,
    user: str,
    terms: Relation,
    side: Side,
    by: str,
    at: float,
) -> Negotiation:
    """A consumer's request, or a provider's offer.

    Raises
    ------
    ConfigError
        If the terms grant or mean nothing, or are too long.
    PolicyError
        If it is for nobody, or for everybody.
    """
    if user in ("", ANY):
        raise PolicyError("a negotiation is with one user; relations for all are in the agreement")
    move: Move = "request" if side == "consumer" else "offer"
    return Negotiation(
        id=id,
        site=site,
        agreement=agreement,
        user=user,
        state="requested" if side == "consumer" else "offered",
        terms=_bound(terms, id, user),
        steps=(Step(move=move, side=side, by=by, at=at),),
    )


def moved(
    known: Negotiation, move: Move, *, side: Side, by: str, at: float, terms: Relation | None = None
) -> Negotiation:
    """The negotiation after a move.

    Parameters
    ----------
    terms
        Of a request or an offer, which answer with other terms; those of the last one otherwise.

    Raises
    ------
    OutOfOrder
        If the move is not possible in this state, or for this side.
    ConfigError
        If terms come with a move that brings none, or they grant
        or mean nothing, or are too long.
    """
    possible = known.moves(side)
    if move not in possible:
        raise OutOfOrder(known.id, known.state, move, side, possible)
    if terms is not None and move not in WITH_TERMS:
        raise ConfigError(
            f"{move!r} is about the terms as they are; only {' and '.join(sorted(WITH_TERMS))} bring others"
        )
    return replace(
        known,
        state=_NEXT[known.state, move],
        terms=known.terms if terms is None else _bound(terms, known.id, known.user),
        steps=(*known.steps, Step(move=move, side=side, by=by, at=at)),
    )


def _bound(terms: Relation, id: str, user: str) -> Relation:
    """Terms as the relation that they would become: for this user and nobody else."""
    empty = [
        name
        for name in ("request_types", "datasets", "archetypes", "purposes")
        if not getattr(terms, name)
    ]
    if empty:
        raise ConfigError(
            f"these terms grant nothing: {', '.join(empty)} "
            f"{'is' if len(empty) == 1 else 'are'} empty\n"
            "What you can do: say what is asked for; '*' is everything"
        )
    bound = replace(terms, id=id, users=(user,), groups=(), origin="agreed")
    if reason := wrong_in(bound):
        raise ConfigError(f"these terms mean nothing: {reason}")
    size = len(to_json(bound).encode(errors="replace"))
    if size > MOST_NBYTES:
        raise ConfigError(
            f"these terms are {size:,} bytes of JSON, and no terms may have more than {MOST_NBYTES:,}\n"
            "What you can do: name data by a tag, or by '*'"
        )
    return bound

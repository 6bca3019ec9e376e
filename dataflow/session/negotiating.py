"""Negotiating: how a session asks owners for a relation, and answers for those of its own site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataflow.agreements import Relation
from dataflow.errors import DataflowError
from dataflow.participant.negotiating import Negotiations as OfSite
from dataflow.participant.negotiating import Party
from dataflow.policy.negotiation import Move, Negotiation

if TYPE_CHECKING:
    from dataflow.session.session import Session


class Negotiations:
    """Negotiations of a session's user with owners anywhere; :attr:`.Session.negotiations`.

    Whoever opened the session answers for its own site as an administrator, and elsewhere where a
    token says so.

    Examples
    --------
    >>> wanted = Relation(  # doctest: +SKIP
    ...     id="", request_types=("sqlDataRequest",), datasets=("wageGap",),
    ...     archetypes=("computeToData",),
    ... )
    >>> asked = session.negotiations.begin("uva", "wages", wanted)  # doctest: +SKIP
    >>> asked = session.negotiations.get(asked)  # doctest: +SKIP
    >>> if asked.state == "agreed":  # doctest: +SKIP
    ...     session.negotiations.move(asked, "verify")
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, site: str, agreement: str, terms: Relation, *, user: str = "") -> Negotiation:
        """Ask for a relation in an agreement of a site; as its administrator, offer one to ``user``.

        Parameters
        ----------
        terms
            What is asked for; ``id`` and ``users`` are set by the site, to the negotiation's id and
            to you.

        Raises
        ------
        ConfigError
            If the terms grant nothing.
        PolicyError
            If the site has no such agreement.
        """
        own = self._own(site)
        if own is not None:
            return own.begin(agreement, terms, self._party(), user)
        found: Negotiation = self._ask(site, "negotiate", agreement, terms, user)
        return found

    def move(
        self, negotiation: Negotiation, move: Move, terms: Relation | None = None
    ) -> Negotiation:
        """Make a move: ``request`` and ``offer`` answer with other terms, ``accept`` takes an offer.

        ``agree`` is the owner's word, ``verify`` yours after it, and ``finalize`` the owner's again:
        it writes the relation into the agreement. Both sides may ``terminate``.

        Raises
        ------
        OutOfOrder
            If it is not possible now, or not for you; it says what is.
        """
        own = self._own(negotiation.site)
        if own is not None:
            return own.move(negotiation.id, move, self._party(), terms)
        found: Negotiation = self._ask(negotiation.site, "move", negotiation.id, move, terms)
        return found

    def get(self, negotiation: Negotiation) -> Negotiation:
        """Where a negotiation stands now."""
        own = self._own(negotiation.site)
        if own is not None:
            return own.get(negotiation.id, self._party())
        found: Negotiation = self._ask(negotiation.site, "negotiation", negotiation.id)
        return found

    def all(self, site: str | None = None) -> list[Negotiation]:
        """Yours at one site or at all that answer; of sites that you administer, everybody's."""
        if site is not None:
            return list(self._at(site))
        found: list[Negotiation] = []
        topology = self._session.topology()
        for one in topology.sites:
            if one.name in topology.away or one.stores_only:
                continue
            try:
                found += self._at(one.name)
            except DataflowError:  # says itself that it does not answer, when it is asked alone
                continue
        return found

    def _at(self, site: str) -> Sequence[Negotiation]:
        own = self._own(site)
        if own is not None:
            return own.all(self._party())
        found: Sequence[Negotiation] = self._ask(site, "negotiations")
        return found

    def _own(self, site: str) -> OfSite | None:
        participant = self._session._participant
        return participant.negotiations if site == participant.federation.me else None

    def _ask(self, site: str, what: str, *words: Any) -> Any:
        session = self._session
        return session._run(getattr(session._participant.ways.to(site), what)(*words))

    def _party(self) -> Party:
        return Party(self._session.user, admin=True)

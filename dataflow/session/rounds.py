"""Rounds: a state that owners' data change round after round; owners are asked again as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dataflow import _html
from dataflow.datasets import Dataset
from dataflow.errors import DataflowError, NotGranted
from dataflow.graph.graph import Graph, of_dataset
from dataflow.session.arguments import one_graph

if TYPE_CHECKING:
    from dataflow.session.session import Session

#: So long (s) the news of an agreement that a site follows already may take, and between two looks.
NEWS_SECONDS, GLANCE_SECONDS = 10.0, 0.1

#: Makes the graph of one round out of the state so far and the data of those who take part, by name.
Build = Callable[[Graph, Mapping[str, Graph]], Graph]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: its job, whose data it used, and who was left out and why."""

    number: int
    job: str
    clients: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, repr=False)
class Rounds:
    """What became of rounds.

    Attributes
    ----------
    status
        ``done`` after all rounds, ``failed`` if they ended before.
    rounds
        Those that have ended well, in order.
    wanted
        How many there should have been.
    reason
        Why they ended before; empty if they did not.
    state
        The state after the last round that ended well; ``None`` if none did.
    """

    status: Literal["done", "failed"]
    rounds: tuple[Round, ...]
    wanted: int
    reason: str = ""
    state: Dataset | None = None

    @property
    def stopped_before(self) -> int | None:
        """Number of the round that was not made; ``None`` if all were."""
        return len(self.rounds) if self.status == "failed" else None

    def __repr__(self) -> str:
        why = f", stopped before round {self.stopped_before}: {self.reason}" if self.reason else ""
        return f"<Rounds {self.status}, {len(self.rounds)} of {self.wanted}{why}>"

    def _repr_html_(self) -> str:
        rows = [
            (one.number, ", ".join(one.clients), said(one.refused), one.job) for one in self.rounds
        ]
        head = _html.Markup(f"<p>{_html.escape(repr(self).strip('<>'))}</p>")
        return _html.block(head, _html.table(("round", "data of", "without", "job"), rows)).text


def run(
    session: Session,
    build: Build,
    start: Graph | str,
    clients: Sequence[str],
    count: int,
    *,
    always: Sequence[str],
    check_every: int,
    each: Callable[[Round], None] | None,
    tags: Mapping[str, str],
    asked: Mapping[str, Any],
) -> Rounds:
    """Make rounds; see :meth:`dataflow.Session.rounds`."""
    if count < 1 or check_every < 0 or not clients:
        raise ValueError(
            f"{count} rounds with {len(clients)} clients, asked every {check_every} rounds: there "
            "must be a round, a client, and no negative number"
        )
    owners = _Owners(session, clients, always, asked)
    state = session[start] if isinstance(start, str) else one_graph(start)
    made: list[Round] = []
    reached: Dataset | None = None
    reason = ""
    while len(made) < count and not reason:
        number = len(made)
        if number == 0 or (check_every and number % check_every == 0):
            owners.ask()
        job, reason = "", owners.reason
        while not job and not reason:
            present = tuple(owners.present)
            try:
                job, reached = _round(session, build(state, owners.present), asked, tags, number)
            except NotGranted as error:
                # A relation ended after its owner was asked, or he was not asked: once more without
                # him, if that is whose it was.
                reason = owners.reason if owners.ask_until_it_is_heard() else str(error)
            except DataflowError as error:
                reason = f"{error.kind}: {error}"
        if job and reached is not None:
            state = of_dataset(reached)
            made.append(Round(number=number, job=job, clients=present, refused=owners.refused))
            if each is not None:
                each(made[-1])
    return Rounds(
        status="failed" if reason else "done",
        rounds=tuple(made),
        wanted=count,
        reason=reason,
        state=reached,
    )


class _Owners:
    """Whose data may be used, as they said when they were asked last."""

    def __init__(
        self,
        session: Session,
        clients: Sequence[str],
        always: Sequence[str],
        asked: Mapping[str, Any],
    ) -> None:
        self._session = session
        self._graphs = {name: session[name] for name in (*clients, *always)}
        self._always = frozenset(always)
        self._asked = {n: asked[n] for n in ("request", "purpose", "archetype") if n in asked}
        self.refused: dict[str, str] = {}

    def ask(self) -> bool:
        """Ask everybody; whether somebody says something else than before."""
        before, self.refused = self.refused, {}
        for name, graph in self._graphs.items():
            missing = self._session.verdicts(graph, **self._asked).missing
            if missing:
                self.refused[name] = "; ".join(dict.fromkeys(missing.values()))
        return self.refused.keys() != before.keys()

    def ask_until_it_is_heard(self) -> bool:
        """The same after a site has refused: the news of that may still be on its way."""
        limit = time.monotonic() + NEWS_SECONDS
        while not self.ask():
            if time.monotonic() > limit:
                return False
            time.sleep(GLANCE_SECONDS)
        return True

    @property
    def present(self) -> dict[str, Graph]:
        """Data of clients that may be used."""
        away = self._always | self.refused.keys()
        return {name: graph for name, graph in self._graphs.items() if name not in away}

    @property
    def reason(self) -> str:
        """Why there can be no round; empty if there can."""
        if lost := {name: self.refused[name] for name in self._always & self.refused.keys()}:
            return said(lost)
        return "" if self.present else f"nobody's data may be used: {said(self.refused)}"


def said(refused: Mapping[str, str]) -> str:
    """Refusals in one line."""
    return "; ".join(f"{name}: {why}" for name, why in refused.items())


def _round(
    session: Session, graph: Graph, asked: Mapping[str, Any], tags: Mapping[str, str], number: int
) -> tuple[str, Dataset]:
    """Run one round to its end: the job, and the new state.

    Raises
    ------
    DataflowError
        If it does not end well.
    """
    plan = session.plan(graph, strict=True, **asked)
    job = session.submit(plan, tags={**tags, "round": str(number)})
    (state,) = job.datasets()
    return job.id, state

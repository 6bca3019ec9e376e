"""Questions to other sites' agents: each with its time, and what the times tell of the roads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from dataflow.catalog.access import Connect, PeerAccess
from dataflow.catalog.others import Address
from dataflow.errors import DataflowError
from dataflow.patience import Patience

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Questions:
    """Asks at addresses, and remembers how long answers take there.

    Parameters
    ----------
    connect, clock
        As for `Sync`.
    usual
        An answer that takes longer than this (s) on a fast road is given up.
    """

    def __init__(self, connect: Connect, clock: Callable[[], float], usual: float) -> None:
        self._connect, self._clock, self._usual = connect, clock, usual
        self._accesses: dict[Address, PeerAccess] = {}
        self._roads: dict[Address, Patience] = {}

    def road(self, place: Address) -> Patience:
        """What is known of the time that answers from an address take."""
        return self._roads.setdefault(place, Patience())

    async def ask(
        self,
        place: Address,
        question: Callable[[PeerAccess], Awaitable[T]],
        wait: float = 0.0,
        *,
        at_once: bool = False,
    ) -> T | None:
        """The answer, or ``None`` if there is none in time; it may be held back for ``wait`` s.

        What is answered ``at_once`` tells the delay, and so does what is held back too long.
        """
        road, begun = self.road(place), self._clock()
        try:
            if place not in self._accesses:
                self._accesses[place] = self._connect(*place)
            usual = wait + self._usual
            async with asyncio.timeout(road.stretched(usual)):
                again = usual + road.more
                answer = await _soonest(lambda: question(self._accesses[place]), again)
            taken = self._clock() - begun
            if at_once:
                road.answered(taken)
            elif wait:
                road.took(taken - wait)
            return answer
        except (DataflowError, OSError, TimeoutError) as error:
            log.debug("no_answer", address=place[0], reason=str(error) or type(error).__name__)
        except Exception:
            log.exception("answer_unreadable", address=place[0])
        road.failed()
        return None


async def _soonest(ask: Callable[[], Awaitable[T]], every: float) -> T:
    """The first answer, or failure, to a question that is asked again while nothing comes.

    One that got lost in a cut is not waited for when the road is whole again.
    """
    asked: set[asyncio.Future[T]] = set()
    try:
        while True:
            asked.add(asyncio.ensure_future(ask()))
            done, _ = await asyncio.wait(asked, timeout=every, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return done.pop().result()
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

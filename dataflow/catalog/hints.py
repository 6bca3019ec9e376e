"""Hints: others are told that there are new rows of ours, and come for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from dataflow.catalog.entries import Peer
from dataflow.catalog.others import Address
from dataflow.catalog.questions import Questions
from dataflow.errors import CatalogError


class Hints:
    """Tells of one participant's own log.

    Parameters
    ----------
    me
        It, and where it answers.
    held
        Epoch and last number of its log.
    places
        Where those are who answer now.
    period
        Seconds in which new rows are gathered to be told of at once.
    """

    def __init__(
        self,
        me: Peer,
        held: Callable[[], tuple[str, int]],
        places: Callable[[], Sequence[Address]],
        questions: Questions,
        period: float,
    ) -> None:
        self._me, self._held, self._places = me, held, places
        self._questions, self._period = questions, period

    async def tell(self, place: Address) -> None:
        """Say at an address how far our log goes."""
        if self._me.address is None:
            return  # nobody could read us, and would try for ever
        epoch, seq = self._held()
        me = self._me
        await self._questions.ask(
            place, lambda at: at.hint(me.site, seq, epoch=epoch, address=me.address)
        )

    async def send(self) -> None:
        """Tell everybody of our own new rows, once for many; never ends.

        Who follows us has them already; this wakes those who gave up for a while.
        """
        told = self._held()
        while True:
            await asyncio.sleep(self._period)
            with suppress(CatalogError):  # a file that cannot be read now: look again
                if told != (now := self._held()):
                    await asyncio.gather(*(self.tell(place) for place in self._places()))
                    told = now

"""News: who waits for something to happen to the records of one participant, and is woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from dataflow.catalog.entries import RecordRow
from dataflow.catalog.log import Log

#: News are collected for so long before they are handed out: a job writes several rows in a moment.
GATHERING = 0.05
#: The same while there are always news: whoever runs one job after the other would else make each
#: follower ask several times for every one of them.
BUSY_GATHERING = 0.25
#: News that come so soon (s) after the last ones mean that there are always news.
BUSY = 0.5


class News:
    """Wakes whoever waits.

    Parameters
    ----------
    clock
        Seconds, never going back.
    period
        Seconds after which whoever waits looks again, woken or not.
    """

    def __init__(self, clock: Callable[[], float], period: float) -> None:
        self._clock, self._period = clock, period
        self._event = asyncio.Event()
        #: Site → when news of its log were handed out last.
        self._handed_out: dict[str, float] = {}

    def announce(self) -> None:
        """Something has happened."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def until(self, done: Callable[[], bool], timeout: float) -> bool:
        """Wait until it is so; false if it is not in time."""
        end = self._clock() + timeout
        while not done():
            rest = end - self._clock()
            if rest <= 0:
                return False
            await heard(self._event, min(rest, self._period))
        return True

    async def page(
        self, log: Log, site: str, since: int, wait: float
    ) -> tuple[str, list[RecordRow]]:
        """A page of a log; one that is empty is waited for."""
        end, waited = self._clock() + wait, False
        while True:
            epoch, rows = log.page(site, since)
            rest = end - self._clock()
            busy = self._clock() - self._handed_out.get(site, -BUSY) < BUSY
            if rows and rest > 0 and (waited or (busy and since > 0)):
                await asyncio.sleep(min(BUSY_GATHERING if busy else GATHERING, rest))
                self._handed_out[site] = self._clock()
                return log.page(site, since)
            # Whoever asks beyond our end speaks of another life of the log: tell at once.
            if rows or rest <= 0 or not epoch or since > log.latest(site):
                return epoch, rows
            await heard(self._event, min(rest, self._period))
            waited = True


async def heard(event: asyncio.Event, seconds: float) -> None:
    """Until the event or the end of the time, whichever comes first."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

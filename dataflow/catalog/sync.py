"""Sync: every participant pulls the logs of all others, directly where it can.

No site leads. A participant that knows one address learns the others there, tells its own, and
from then on asks each for the rows it lacks. A site that cannot be reached is read from any other
that holds a copy: epoch and ``seq`` decide which copy is newer, never who served it.

Guarantees
----------
- After the network heals, all copies become equal to the logs they copy, without a restart.
- A row reaches a copy only as its own site wrote it, and in order.
- A site that has not answered for ``away_after`` seconds, and some round trips where these are
  long, is away, and is back with its next answer. Only an answer to us counts: news about a site is
  no proof that we can reach it.
- A site that moved is found again as soon as it, or anybody who knows, can be reached.
- A site whose file was lost or put back learns from the others that they remember more than it
  does, and begins a new epoch; then its present word holds everywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial

import structlog

from dataflow.catalog.access import Connect, KnownSite
from dataflow.catalog.entries import Peer, RecordRow
from dataflow.catalog.hints import Hints
from dataflow.catalog.log import is_epoch
from dataflow.catalog.news import News, heard
from dataflow.catalog.others import Address, Other
from dataflow.catalog.questions import Questions
from dataflow.catalog.records import Records
from dataflow.errors import CatalogError

log = structlog.get_logger(__name__)

#: Longest pause between two attempts to reach a site: so long may healing go unnoticed.
LONGEST_PAUSE = 2.0
#: Longest question for news (s): it is answered at once when there are any, so that asking seldom
#: costs nothing but what idle agents cost each other.
LONGEST_QUESTION = 10.0
#: A question takes this part of the time after which silence means away, at most.
_OF_AWAY = 0.4
#: An answer that takes longer than this, and longer than ``away_after``, is given up.
PATIENCE = 5.0


class Sync:
    """Keeps the copies of all other sites' logs fresh.

    Parameters
    ----------
    records
        Our file.
    me
        Our site, and where it answers; without an address others cannot read our log.
    connect
        Gives access to the agent at an address; called once for each address and credential. It
        must not block. What it gives stays with whoever made it: `close` closes no connection.
    clock
        Seconds, never going back.
    away_after
        Seconds without an answer until a site is away.
    period
        Seconds between two looks for news where no hint comes; where a question can wait for its
        answer, they are as far apart as ``away_after`` allows.
    """

    def __init__(
        self,
        records: Records,
        me: Peer,
        connect: Connect,
        clock: Callable[[], float] = time.monotonic,
        away_after: float = 5.0,
        period: float = 0.5,
    ) -> None:
        if me.site != records.site:
            raise CatalogError(f"{records} cannot be synchronised as {me.site!r}")
        self._log, self._me, self._clock = records, me, clock
        self._away_after, self._period = away_after, period
        self._questions = Questions(connect, clock, max(PATIENCE, away_after))
        self._unsettled_until = 0.0
        self._others: dict[str, Other] = {}
        self._joining: dict[Address, asyncio.Task[None]] = {}
        self._news = News(clock, period)
        held = partial(self._held, me.site)
        self._hints = Hints(me, held, self._reached, self._questions, period)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hinter: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] = lambda: None

    # --- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin: publish where we answer, and call everybody whom the file remembers."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._unwatch = self._log.watch(self._written)
        self._log.put("peer", self._me.site, self._me)
        for site in self._log.versions():
            if site != self._me.site:
                self._other(site)
        self._hinter = asyncio.create_task(self._hints.send(), name="sync hints")

    async def close(self) -> None:
        """Stop; nothing of ours runs afterwards. Harmless when repeated."""
        self._unwatch()
        tasks = [*self._joining.values(), *(other.task for other in self._others.values())]
        tasks += [other.look for other in self._others.values()]
        running = [task for task in (*tasks, self._hinter) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._joining.clear()
        self._others.clear()
        self._hinter = self._loop = None

    async def __aenter__(self) -> Sync:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def join(self, address: str, credentials: str | None = None, site: str | None = None) -> None:
        """Find the federation by the agent at an address, which is tried until it answers.

        Call it after `start`. A site named here is away until it has answered; another site that
        answers in its place is not taken for it.
        """
        place = (address, credentials)
        if site is None:
            if place not in self._joining:
                self._joining[place] = asyncio.create_task(self._find(place), name=f"join {place}")
        elif site != self._me.site:
            self._give(site, place)

    # --- what we know -----------------------------------------------------------------------

    def away(self) -> frozenset[str]:
        """Sites that have not answered us for ``away_after`` seconds, or never since the start."""
        named = {*self._log.versions(), *self._others} - {self._me.site}
        return frozenset(site for site in named if not self._present(site))

    def silent(self) -> Mapping[str, float]:
        """Seconds since each other site answered us last; those that never did are not there."""
        now = self._clock()
        return {
            site: now - other.heard_at
            for site, other in self._others.items()
            if other.heard_at is not None
        }

    def _present(self, site: str) -> bool:
        other = self._others.get(site)
        if other is None or other.heard_at is None:
            return False
        late = self._questions.road(other.reached).more if other.reached is not None else 0.0
        return self._clock() - other.heard_at <= self._away_after + late

    def round_trip(self, site: str) -> float | None:
        """Seconds of a question to a site and its answer, as of late; ``None`` if it is away."""
        other = self._others.get(site)
        if other is None or other.reached is None or not self._present(site):
            return None
        return self._questions.road(other.reached).shortest

    def expect(self, site: str) -> None:
        """The way to a site has come about just now: ask it at once; :meth:`settle` waits for that."""
        other = self._others.get(site)
        if other is not None and not self._present(site):
            other.tried = False
            other.wake.set()

    async def settle(self, timeout: float = 5.0) -> frozenset[str]:
        """Wait until every site known now has answered or failed once; who is away then."""
        await self._news.until(
            lambda: not self._joining and all(other.tried for other in self._others.values()),
            timeout,
        )
        return self.away()

    async def ask_again(self, sites: Collection[str], timeout: float) -> bool:
        """Ask these once more, now; whether one that was away has answered.

        Ends with the first that answers, when all have failed, or after ``timeout`` s.
        """
        away = self.away().intersection(sites)
        for site in away:
            self.expect(site)
        asked = [self._others[site] for site in away if site in self._others]
        await self._news.until(
            lambda: bool(away - self.away()) or all(one.tried for one in asked), timeout
        )
        return bool(away - self.away())

    async def look(self, site: str) -> None:
        """Take what a site has written by now, if it answers: news are gathered for longer than a look takes.

        Who looks while somebody else does waits for the same answer.
        """
        other = self._others.get(site)
        if other is None or other.reached is None or other.failures:
            return
        if other.look is None or other.look.done():
            other.look = asyncio.create_task(self._look(other, other.reached))
        await asyncio.wait([other.look])

    async def _look(self, other: Other, place: Address) -> None:
        since = self._log.latest(other.site)
        answer = await self._questions.ask(place, lambda at: at.records(other.site, since, 0.0))
        if answer is not None:
            self._take(other.site, *answer)

    async def wait_until_seen(self, site: str, seq: int, timeout: float) -> bool:
        """Wait until our copy of ``site`` goes as far as ``seq``; false if it does not in time."""
        return await self._news.until(lambda: self._log.latest(site) >= seq, timeout)

    async def wait_until(self, done: Callable[[], bool], timeout: float) -> bool:
        """Wait until something has been heard; false if it is not in time."""
        return await self._news.until(done, timeout)

    def _written(self, site: str, seq: int) -> None:
        """Called by the thread that wrote."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.announce)

    # --- what others ask of us: an agent answers with these -----------------------------------

    async def records(self, site: str, since: int, wait: float) -> tuple[str, list[RecordRow]]:
        """A page of a log, ours or a copy; see `PeerAccess`."""
        return await self._news.page(self._log, site, since, wait)

    async def peers(self) -> list[KnownSite]:
        """All sites whose records we hold; see `PeerAccess`."""
        addresses = {site: peer.address for site, peer in self._doors().items()}
        addresses[self._me.site] = self._me.address
        return [
            KnownSite(
                site=site,
                epoch=epoch,
                seq=seq,
                address=addresses.get(site),
                answering=site == self._me.site,
            )
            for site, (epoch, seq) in self._log.origins().items()
        ]

    async def hint(
        self, site: str, seq: int, *, epoch: str = "", address: str | None = None
    ) -> None:
        """Somebody has news: look there now; see `PeerAccess`.

        A site of which nothing is known, not even where it answers, is not looked for.
        """
        if site == self._me.site:
            return
        if address is None and site not in self._others and site not in self._log.versions():
            return
        other = self._other(site)
        if address is not None:
            other.hinted = address
        if (epoch, seq) > self._held(site) or not self._present(site):
            other.wake.set()

    # --- one task for each other site ---------------------------------------------------------

    def _other(self, site: str) -> Other:
        other = self._others.get(site)
        if other is None:
            other = self._others[site] = Other(site)
            self._unsettle()
            other.task = asyncio.create_task(self._follow(other), name=f"sync {site}")
        return other

    def _unsettle(self) -> None:
        """The circle has changed: ask often for a while."""
        self._unsettled_until = self._clock() + self._away_after

    def _give(self, site: str, place: Address) -> None:
        other = self._other(site)
        if place not in other.given:
            other.given.append(place)
            other.wake.set()

    def _doors(self) -> dict[str, Peer]:
        """Where each site answers, by its own word."""
        return dict(self._log.written("peer"))

    def _reached(self) -> list[Address]:
        others = self._others.values()
        return [one.reached for one in others if one.reached and not one.failures]

    def _held(self, site: str) -> tuple[str, int]:
        return self._log.origins().get(site, ("", 0))

    async def _follow(self, other: Other) -> None:
        while True:
            other.wake.clear()
            try:
                reached = await self._reach(other)
            except Exception:  # a full disk, say: it passes, and so must this
                log.exception("look_for_news_failed", site=other.site)
                reached = False
            other.failures = 0 if reached else other.failures + 1
            # Who was told meanwhile that the way has come about wants to know what a new look finds.
            asked = not other.tried and (reached or not other.wake.is_set())
            if asked or (other.tried and other.failures == 1):
                other.tried = True
                self._unsettle()
                self._news.announce()
            if not reached:
                await heard(other.wake, self._pause(other.failures - 1))

    def _pause(self, failures: int) -> float:
        return min(LONGEST_PAUSE, self._period * 2.0 ** min(failures, 8))

    async def _reach(self, other: Other) -> bool:
        """One look for news, at the first address at which the site itself answers."""
        if other.failures == 0 and other.reached is not None:
            return await self._pull(other, other.reached)
        for place in other.addresses(self._doors().get(other.site)):
            if await self._meet(other, place):
                other.reached, other.hinted = place, None
                return await self._pull(other, place)
        return False

    async def _pull(self, other: Other, place: Address) -> bool:
        since, period = self._log.latest(other.site), self._question(place)
        # The first question is whether it is there: no news is an answer too, and at once.
        wait = period if other.tried else 0.0
        answer = await self._questions.ask(
            place, lambda at: at.records(other.site, since, wait), wait
        )
        if answer is None:
            return False
        other.heard_at = self._clock()
        if not self._take(other.site, *answer) and self._log.latest(other.site) == since:
            await asyncio.sleep(self._period)  # the same answer would come at once, for ever
        if self._clock() - other.viewed_at < period:
            return True
        return await self._meet(other, place)

    def _question(self, place: Address) -> float:
        """Seconds that a question for news may wait, and after which we ask about third sites.

        Short while sites get to know each other, and while one that was lost may still be asked
        through others; then as long as silence can be told from absence.
        """
        if self._clock() < self._unsettled_until:
            return self._period
        longest = min(_OF_AWAY * self._away_after, LONGEST_QUESTION)
        late = 2 * self._questions.road(place).round_trip
        return max(self._period, min(longest, self._away_after - late - self._period))

    async def _meet(self, other: Other, place: Address) -> bool:
        """Whether this site, and no other, answers here; takes what it knows of third sites."""
        view = await self._view(place)
        if view is None:
            return False
        if not any(seen.answering and seen.site == other.site for seen in view):
            log.info("another_site_answers", site=other.site, address=place[0])
            return False
        other.heard_at = other.viewed_at = self._clock()
        await self._relay(place, view)
        return True

    def _take(self, site: str, epoch: str, rows: Sequence[RecordRow]) -> bool:
        """Whether we now hold what was answered: all of it, or a part with more to ask for."""
        held = self._held(site)
        if epoch == held[0] and not rows:
            return True
        try:
            self._log.apply(site, rows, epoch)
        except CatalogError as error:
            log.error("rows_refused", site=site, reason=str(error))
            return False
        return self._held(site) != held

    # --- news of third sites ------------------------------------------------------------------

    async def _view(self, place: Address) -> Sequence[KnownSite] | None:
        """What is known at an address; if that is too little of us, tell it."""
        view = await self._questions.ask(place, lambda at: at.peers(), at_once=True)
        if view is None:
            return None
        doors = self._doors()
        for seen in view:
            if seen.site != self._me.site:
                other = self._other(seen.site)
                if not seen.answering and not other.addresses(doors.get(seen.site)):
                    other.hinted = seen.address
        remembered = next((seen for seen in view if seen.site == self._me.site), None)
        if remembered is None:
            await self._hints.tell(place)
        elif not remembered.answering:
            self._compare(remembered, place)
            if (remembered.epoch, remembered.seq) < self._held(self._me.site):
                await self._hints.tell(place)
        return view

    def _compare(self, remembered: KnownSite, place: Address) -> None:
        """Begin a new life of our log if others remember a later one, or more of this one."""
        ahead = (remembered.epoch, remembered.seq) > self._held(self._me.site)
        if ahead and is_epoch(remembered.epoch):
            log.warning("own_log_is_behind", remembered_at=place[0], epoch=remembered.epoch)
            self._log.renew_epoch(above=remembered.epoch)

    async def _relay(self, place: Address, view: Sequence[KnownSite]) -> None:
        """Read from here the logs of sites that we cannot reach ourselves."""
        for seen in view:
            other = self._others.get(seen.site)
            if seen.answering or other is None or (other.failures == 0 and other.tried):
                continue
            held = self._held(seen.site)
            while held < (seen.epoch, seen.seq):
                since, site = held[1], seen.site
                answer = await self._questions.ask(place, lambda at: at.records(site, since, 0.0))  # noqa: B023
                if answer is None:
                    return
                self._take(site, *answer)
                if held == self._held(site):
                    break
                held = self._held(site)

    async def _find(self, place: Address) -> None:
        """Ask at an address of which the site is not known, until something answers."""
        failures, view = 0, None
        while view is None:
            if failures:
                await asyncio.sleep(self._pause(failures - 1))
            failures += 1
            with suppress(CatalogError):
                view = await self._view(place)
        for seen in view:
            if seen.answering and seen.site != self._me.site:
                self._give(seen.site, place)
        del self._joining[place]
        self._news.announce()

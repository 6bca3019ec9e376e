"""Measuring: the roads to this participant, once each of the others is there and again daily."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from dataflow.catalog.records import Records
from dataflow.catalog.sync import Sync
from dataflow.client.distance import distance
from dataflow.client.probe import measure_link, measure_store
from dataflow.errors import DataflowError
from dataflow.participant.opened import Opened
from dataflow.participant.roads import Roads
from dataflow.participant.ways import Ways
from dataflow.sites import Link, Site, Topology

#: A measured link is measured again after this many seconds.
LINK_VALID_SECONDS = 24 * 3600.0
#: A store that could not be measured is tried again after this many seconds: it is asked for real.
STORE_AGAIN_SECONDS = 300.0
#: A delay that differs by more than this (s), and by this share, has changed.
LEAST_CHANGE, CHANGED = 0.004, 0.2
#: Seconds between two looks, and between two for the delay of one road.
LOOK_SECONDS, DELAY_SECONDS = 1.0, 3.0


def measured_lately(known: Link | None, probed: float | None, now: float) -> bool:
    """Whether the bandwidth of a road is known well enough for today.

    Parameters
    ----------
    known
        The road as it is told to others.
    probed
        When its bandwidth was last measured from here (s since the epoch), as far as we remember: a
        delay that changed makes the record younger, and not what it says of the bandwidth.
    """
    if known is None or known.origin != "measured" or known.measured_at is None:
        return False
    return now - (known.measured_at if probed is None else probed) <= LINK_VALID_SECONDS


class Measuring:
    """What one participant finds out about the roads to it.

    Parameters
    ----------
    name, has_site
        The participant's; what one without a site measures is told to nobody.
    kept
        Where one without a site keeps what it has measured, for its next session.
    topology
        The world as it is known now.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        has_site: bool,
        kept: Roads,
        records: Records,
        sync: Sync,
        opened: Opened,
        ways: Ways,
        topology: Callable[[], Topology],
        clock: Callable[[], float],
    ) -> None:
        self._name, self._has_site, self._kept = name, has_site, kept
        self._records, self._sync, self._opened, self._ways = records, sync, opened, ways
        self._topology, self._clock = topology, clock
        #: Roads from other sites to a participant that is no site, and to sites of stores.
        self.roads: dict[tuple[str, str], Link] = {}
        #: When the bandwidth of a road was measured.
        self._probed: dict[str, float] = {}
        #: When sites of stores were measured, or could not be.
        self._asked: dict[str, float] = {}
        #: When the delay of a road was last looked at.
        self._looked: dict[str, float] = {}

    async def run(self) -> None:
        """Measure the way from each other site to this one, once it is there and again daily.

        Of a site of stores also the way there.
        """
        while True:
            topology = self._topology()
            for site in topology.sites:
                if site.name == self._name or site.name in topology.away:
                    continue
                if site.stores_only and self._opened.at(site.name) is None:
                    continue
                if self._measured_lately(site.name) or self._recalled(site):
                    continue
                with suppress(DataflowError, OSError):
                    found = await self._measure(site)
                    for link in found:
                        self._keep(link)
                        self._probed[site.name] = self._clock()
                    if not self._has_site:
                        self._kept.keep(site.name, site.address, found)
            await asyncio.sleep(LOOK_SECONDS)

    async def follow_delays(self) -> None:
        """Keep the delay of each road as it is of late. Never ends.

        It is known as soon as a site has answered a few times, and needs no quiet machine as a
        bandwidth does: until that is measured too, the road is one whose delay is known.
        """
        while True:
            sites = [site for site in self._topology().sites if site.name != self._name]
            await asyncio.gather(*(self._follow(site) for site in sites))
            await asyncio.sleep(LOOK_SECONDS)

    async def _follow(self, site: Site) -> None:
        source = site.name
        seen = self._sync.round_trip(source)
        if seen is None or self._known(source).origin not in ("assumed", "timed", "measured"):
            return
        if site.address is not None:
            # The looks for news would tell it too, and are late whenever their agent is busy.
            at = self._clock()
            if at - self._looked.get(source, 0.0) < DELAY_SECONDS:
                return
            self._looked[source] = at
            seen = min(seen, await distance(site.address) or seen)
        known = self._known(source)
        with suppress(DataflowError, OSError):  # a full disk, say: it passes
            if known.origin == "assumed":
                self._keep(replace(known, latency=seen, origin="timed"))
            elif abs(seen - known.latency) > max(LEAST_CHANGE, CHANGED * known.latency):
                measured_at = self._clock() if known.origin == "measured" else None
                self._keep(replace(known, latency=seen, measured_at=measured_at))

    def _known(self, source: str) -> Link:
        return self.roads.get((source, self._name)) or self._topology().link(source, self._name)

    def _keep(self, link: Link) -> None:
        if self._has_site:
            self._records.add(link)
        else:  # no site, nothing to tell others of
            self.roads[link.source, link.target] = link

    def _recalled(self, site: Site) -> bool:
        """Whether an earlier session has measured the roads of a site lately; they are known then."""
        if self._has_site:
            return False
        for link in self._kept.of(site.name, site.address):
            self.roads[link.source, link.target] = link
            if link.measured_at is not None:
                self._probed[site.name] = link.measured_at
        return self._measured_lately(site.name)

    def _measured_lately(self, source: str) -> bool:
        known: Link | None = self.roads.get((source, self._name)) or self._records.get(
            "link", f"{source}>{self._name}", self._name
        )
        return measured_lately(known, self._probed.get(source), self._clock())

    async def _measure(self, site: Site) -> Sequence[Link]:
        clock, now = time.perf_counter, self._clock
        store = self._opened.at(site.name) if site.stores_only else None
        if store is not None:
            asked = self._asked.get(site.name)
            if asked is not None and now() - asked < STORE_AGAIN_SECONDS:
                return []
            self._asked[site.name] = now()
            known = self._opened.files(store)
            return await measure_store(store, here=self._name, clock=clock, now=now, files=known)
        agent = self._ways.to(site.name)
        there, here = site.name, self._name
        return [await measure_link(agent, source=there, target=here, clock=clock, now=now)]

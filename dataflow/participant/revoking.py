"""Revoking: what runs or lies at this site ends when no agreement carries it any more.

An agreement was changed, here or elsewhere, or ran out: orders that rest on it are ended, and copies
and rows that it let come here are removed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from dataflow.agreements import Agreement, Archetype
from dataflow.catalog.records import Records
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Replica
from dataflow.errors import DataflowError
from dataflow.execution.runner import SiteRunner
from dataflow.execution.state import ENDS
from dataflow.participant.audit import Audit
from dataflow.participant.gate import Gate
from dataflow.policy.archetype import SHIPPED
from dataflow.policy.holding import World, lost
from dataflow.stores import Store

log = structlog.get_logger(__name__)

#: Seconds between two looks whether what runs and lies here is still granted.
RECHECK_SECONDS = 0.5
#: Seconds after which copies are looked at although nobody has told us of anything: time passes too.
ANYWAY_SECONDS = 30.0
#: A look at all copies takes at most this share of the time.
SHARE = 0.1


class Revoking:
    """The end of what is not granted any more, at one site.

    Parameters
    ----------
    store_of
        The store by which this site gets at a copy.
    """

    def __init__(
        self,
        runner: SiteRunner,
        gate: Gate,
        records: Records,
        store_of: Callable[[Replica], Store | None],
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self._runner, self._gate, self._records = runner, gate, records
        self._store_of, self._audit, self._clock = store_of, audit, clock
        self._seen = -1
        self._next_look = 0.0
        #: What a store did not remove when it was asked.
        self._left: list[tuple[Replica, str]] = []

    async def run(self) -> None:
        """Look for as long as this site runs."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                await self.look()
            except Exception:  # asked again soon, and nothing new is let in without the gate
                log.exception("agreements_not_rechecked", site=self._records.site)

    async def look(self) -> None:
        """End and remove what may not be here, as far as is known now."""
        if self._runner.busy:
            self._runner.recheck(self._gate.still)
        if not self._gate.minds:
            return
        seen, now = sum(self._records.versions().values()), time.monotonic()
        if (seen == self._seen and now < self._next_look) or now < self._next_look - ANYWAY_SECONDS:
            return
        left, self._left = self._left, []
        went = [*left, *await asyncio.to_thread(self._lost)]
        took = time.monotonic() - now
        self._seen, self._next_look = seen, now + took / SHARE + ANYWAY_SECONDS
        for replica, because in went:
            await self._remove(replica, because)

    def _lost(self) -> list[tuple[Replica, str]]:
        """Copies of ours that have to go, with the reasons."""
        me, world = self._records.site, self._world()
        found = []
        for writer, replica in self._records.written("replica"):
            if writer == me and replica.fingerprint.startswith("manifest:"):
                because = lost(replica, world, me)
                if because:
                    found.append((replica, because))
        return found

    async def _remove(self, replica: Replica, because: str) -> None:
        store = self._store_of(replica)
        if store is None:
            return
        try:
            if not await self._runner.clear(replica, store):
                self._seen = -1  # it is being written: looked at again
                return
        except (DataflowError, OSError) as error:
            log.warning("copy_not_removed", url=replica.url, reason=str(error))
            self._left.append((replica, because))
            return
        self._audit.write(what="removed", object=replica.key, clause=because, to=replica.site)

    def _world(self) -> World:
        snapshot = self._records.snapshot()
        stewards = {s.name for s in snapshot.topology.sites if s.trust == "steward"}
        over = {job.id for job in self._records.jobs() if job.status in ENDS}
        agreements: dict[str, list[Agreement]] = {}
        for agreement in snapshot.agreements:
            agreements.setdefault(agreement.site, []).append(agreement)
        return World(
            agreements=lambda site: agreements.get(site, ()),
            archetypes=lambda site: _archetypes(snapshot, site),
            steward=lambda site: site in stewards,
            known=snapshot.with_key,
            over=lambda job: job in over,
            time=self._clock(),
        )


def _archetypes(snapshot: Snapshot, site: str) -> Mapping[str, Archetype]:
    own = snapshot.archetypes.get(site, ())
    return {**SHIPPED, **{archetype.name: archetype for archetype in own}}

"""Loading: how busy this site's workers are, told to those who choose an archetype by it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from dataflow.backends.base import Backend, TellsLoad
from dataflow.catalog.records import Records
from dataflow.policy.archetype import Load

log = structlog.get_logger(__name__)

#: Seconds between two looks, and what a look counts beside those before it: a short step is no load.
LOOK_SECONDS, NEW = 1.0, 0.3
#: A share that has changed by less than this is not told of, unless the site became loaded or free.
TELLING = 0.2


class Loading:
    """The load of one site, looked at as long as it runs, and written down when it has changed.

    Parameters
    ----------
    threshold
        From which share on the site counts as loaded.
    """

    def __init__(self, site: str, backend: Backend, records: Records, threshold: float) -> None:
        self._site, self._backend, self._records = site, backend, records
        self._threshold = threshold
        self._now = Load(threshold=threshold)
        self._told: Load | None = None

    async def run(self) -> None:
        """Look again and again; never ends."""
        while True:
            try:
                self.look()
            except Exception:  # nothing depends on it but a preference
                log.exception("load_not_told", site=self._site)
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take one look, and tell if there is something to tell."""
        backend = self._backend
        cpu, memory = backend.load() if isinstance(backend, TellsLoad) else (0.0, 0.0)
        before = self._now
        now = Load(
            cpu=before.cpu + NEW * (cpu - before.cpu),
            memory=before.memory + NEW * (memory - before.memory),
            threshold=self._threshold,
        )
        self._now = now
        if _telling(self._told, now):
            self._told = now
            body = {"load": self._site, "cpu": round(now.cpu, 3), "memory": round(now.memory, 3)}
            self._records.put("measurement", f"load:{self._site}", {**body, "from": now.threshold})


def loads_of(written: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Load]:
    """Site → its load, as each has told of itself; those that tell nothing are not there.

    Parameters
    ----------
    written
        Site and body of each record of kind ``measurement``.
    """
    found: dict[str, Load] = {}
    for site, body in written:
        if body.get("load") != site:
            continue  # of something else, or somebody speaks of another
        shares = [body.get(name) for name in ("cpu", "memory", "from")]
        if all(isinstance(share, int | float) and share == share for share in shares):
            cpu, memory, threshold = (float(share) for share in shares if share is not None)
            found[site] = Load(cpu=cpu, memory=memory, threshold=threshold)
    return found


def _telling(told: Load | None, now: Load) -> bool:
    if told is None or told.loaded != now.loaded:
        return True
    return max(abs(told.cpu - now.cpu), abs(told.memory - now.memory)) >= TELLING

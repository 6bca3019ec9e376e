"""Tidying: what dead writers left in the stores of this site, and copies that nobody reads any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from dataflow.errors import DataflowError
from dataflow.storage.credentials import resolve
from dataflow.storage.layout import COMMIT
from dataflow.storage.publish import remove_result
from dataflow.storage.upkeep import collect_garbage
from dataflow.stores import Store

log = structlog.get_logger(__name__)

#: Seconds until the first round, and between two.
FIRST_SECONDS, EVERY_SECONDS = 300.0, 24 * 3600.0
#: Seconds for which an attempt may have written nothing and still be alive.
ATTEMPT_SECONDS = 3 * 24 * 3600.0
#: Seconds that a fetched copy is kept for the next reader.
COPY_SECONDS = 14 * 24 * 3600.0


async def tidy_daily(
    stores: Callable[[], Sequence[Store]], cache: Path, clock: Callable[[], float]
) -> None:
    """Tidy once a day for as long as this site runs; what fails is tried again the next day."""
    await asyncio.sleep(FIRST_SECONDS)
    while True:
        await asyncio.to_thread(tidy, stores(), cache, clock())
        await asyncio.sleep(EVERY_SECONDS)


def tidy(stores: Sequence[Store], cache: Path, now: float) -> None:
    """Remove dead attempts from stores of results, and old copies from the cache.

    A store that several sites open may be tidied by each: what is young is left alone.
    """
    for store in stores:
        if store.purpose != "results":
            continue
        try:
            removed = collect_garbage(
                store.url,
                older_than=ATTEMPT_SECONDS,
                now=now,
                credentials=resolve(store.credentials),
                options=store.options,
            )
        except (DataflowError, OSError) as error:
            log.warning("store_not_tidied", store=store.name, reason=str(error))
        else:
            log.info("store_tidied", store=store.name, attempts=len(removed))
    for commit in cache.glob(f"copies/*/*/{COMMIT}"):
        try:
            if now - commit.stat().st_mtime > COPY_SECONDS:
                remove_result(cache.as_uri(), commit.parent.name, area="copies")
        except (DataflowError, OSError) as error:
            log.warning("copy_not_removed", path=str(commit.parent), reason=str(error))

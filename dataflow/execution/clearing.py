"""Clearing: data that lost its right leaves the stores of this site, whole or half-written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from dataflow.datasets import Replica
from dataflow.errors import ConfigError, DataflowError
from dataflow.execution.events import Order, SegmentOrder, TransferOrder
from dataflow.execution.failures import Broken
from dataflow.execution.workplace import Workplace, claim_of
from dataflow.storage.credentials import resolve
from dataflow.storage.layout import Area, key_prefix
from dataflow.storage.publish import remove_result
from dataflow.storage.upkeep import discard_uncommitted
from dataflow.stores import Store

log = structlog.get_logger(__name__)

#: Seconds until a second look for what an ended order has written.
AGAIN_SECONDS = 10.0
_AREAS: tuple[Area, ...] = ("results", "copies")


def area_of(replica: Replica, store: Store) -> Area | None:
    """Where in a store a committed result or copy lies; ``None`` for anything else."""
    root = store.url.rstrip("/")
    for area in _AREAS:
        if replica.url.startswith(f"{root}/{key_prefix(area, replica.key)}/"):
            return area
    return None


async def clear(
    replica: Replica,
    store: Store,
    workplace: Workplace,
    withdraw: Callable[[Replica], None],
) -> bool:
    """Remove a committed result or copy from the catalog and from its store.

    Registered data are never touched. False if it is being written at this moment: it is to be
    asked again then.

    Raises
    ------
    DataflowError
        If the store does not do it; the catalog has forgotten it all the same.
    """
    area = area_of(replica, store)
    if area is None:
        return True
    name = claim_of(area, replica.key, "" if store.site == workplace.site.name else store.site)
    if workplace.claims.taken(name):
        return False
    workplace.claims.take([name])
    try:
        withdraw(replica)  # first: readers are sent elsewhere, and nobody begins to read
        await asyncio.to_thread(
            remove_result,
            store.url,
            replica.key,
            area=area,
            credentials=resolve(store.credentials),
            options=store.options,
        )
    finally:
        workplace.claims.release([name])
    return True


async def clear_attempts(order: Order, workplace: Workplace) -> None:
    """Remove what an order that was ended has written and not committed.

    Twice: a worker that was stuck in a write when it was told to stop finishes that one.
    """
    if not isinstance(order, SegmentOrder | TransferOrder):
        return
    await _clear_attempts(order, workplace)
    await asyncio.sleep(AGAIN_SECONDS)
    await _clear_attempts(order, workplace)


async def _clear_attempts(order: SegmentOrder | TransferOrder, workplace: Workplace) -> None:
    at = "" if isinstance(order, SegmentOrder) else order.target
    try:
        place = await workplace.place(at)
    except Broken:
        return  # no store, nothing written
    area: Area = "results" if isinstance(order, SegmentOrder) else "copies"
    keys = order.outputs if isinstance(order, SegmentOrder) else (order.key,)
    for key in keys:
        name = claim_of(area, key, at)
        await workplace.claims.free(name)
        workplace.claims.take([name])
        try:
            await asyncio.to_thread(
                discard_uncommitted,
                place.root,
                key,
                area=area,
                credentials=place.credentials,
                options=place.options,
            )
        except (DataflowError, ConfigError, OSError) as error:
            log.warning("attempt_not_removed", order=order.id, key=key, reason=str(error))
        finally:
            workplace.claims.release([name])

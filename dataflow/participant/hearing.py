"""Hearing: a steward begins with data only when it has been told what they are made of.

Copies may be faster than news: a result is sent on while the record of its maker is still on its way.
A lab takes the coordinator's word for what it reads until then; a steward takes nobody's.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from dataflow.catalog.records import Records
from dataflow.catalog.sync import Sync
from dataflow.execution.events import Order, SegmentOrder
from dataflow.sites import Site

#: So long (s) a record may be later than the copy that it is about.
LATE_SECONDS = 5.0
#: Seconds between two looks at whoever should have written it.
_GLANCE_SECONDS = 0.25


async def hear_of_inputs(order: Order, site: Site, records: Records, sync: Sync) -> None:
    """Wait until a steward knows each input of an order, or the time is over; labs do not wait."""
    if site.trust != "steward" or not isinstance(order, SegmentOrder):
        return

    def unknown() -> list[str]:
        snapshot = records.snapshot()
        return [key for key in order.inputs if not snapshot.with_key(key)]

    with suppress(TimeoutError):
        async with asyncio.timeout(LATE_SECONDS):
            while missing := unknown():
                makers = {order.datasets[key].site for key in missing if key in order.datasets}
                await asyncio.gather(*(sync.look(maker) for maker in makers))
                await sync.wait_until(lambda: not unknown(), _GLANCE_SECONDS)

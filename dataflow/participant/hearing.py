"""Hearing: a steward begins with data only when it has been told what they are made of.

Copies may be faster than news: a result is sent on while the record of its maker is still on its way.
A lab takes the coordinator's word for what it reads until then; a steward takes nobody's.
"""

from __future__ import annotations

from dataflow.catalog.records import Records
from dataflow.catalog.sync import Sync
from dataflow.execution.events import Order, SegmentOrder
from dataflow.sites import Site

#: So long (s) a record may be later than the copy that it is about.
LATE_SECONDS = 10.0


async def hear_of_inputs(order: Order, site: Site, records: Records, sync: Sync) -> None:
    """Wait until a steward knows each input of an order, or the time is over; labs do not wait."""
    if site.trust != "steward" or not isinstance(order, SegmentOrder):
        return

    def unknown() -> list[str]:
        snapshot = records.snapshot()
        return [key for key in order.inputs if not snapshot.with_key(key)]

    makers = {order.datasets[key].site for key in unknown() if key in order.datasets}
    for maker in makers:
        await sync.hint(maker, records.latest(maker) + 1)
    await sync.wait_until(lambda: not unknown(), LATE_SECONDS)

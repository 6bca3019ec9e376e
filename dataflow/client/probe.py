"""Measuring the road from another site's agent to here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dataflow.sites import Link

if TYPE_CHECKING:
    from dataflow.client.agent_client import AgentClient

#: Bytes to fetch in turn: more only if the road proves fast enough.
SIZES = (64_000, 1_000_000, 8_000_000)
#: A fetch that takes longer (s) tells enough.
ENOUGH_SECONDS = 0.25
_ROUND_TRIPS = 5


async def measure_link(
    client: AgentClient,
    *,
    source: str,
    target: str,
    clock: Callable[[], float],
    now: Callable[[], float],
) -> Link:
    """The link from ``source``, which ``client`` asks, to ``target``, which is here.

    Latency is the round trip of a request for nothing (the shortest of five: a busy machine can
    only make it longer), as that is what a transfer costs at least. Bandwidth is that of the last of a few growing fetches: 9 MB
    altogether on a fast road, and not much more than a quarter of a second on a slow one.

    Parameters
    ----------
    clock
        Seconds that only run forward, such as :func:`time.perf_counter`.
    now
        Seconds since the epoch, for the record.

    Raises
    ------
    SiteUnreachable, SiteRefused
        As any request.
    """

    async def seconds(nbytes: int) -> float:
        begun = clock()
        await client.probe(nbytes)
        return clock() - begun

    latency = min([await seconds(0) for _ in range(_ROUND_TRIPS)])
    bandwidth = 0.0
    for nbytes in SIZES:
        taken = await seconds(nbytes)
        # At least half of it: round trips vary, and no road is endlessly wide.
        bandwidth = nbytes / max(taken - latency, taken / 2, 1e-9)
        if taken > ENOUGH_SECONDS:
            break
    return Link(
        source=source,
        target=target,
        bandwidth=bandwidth,
        latency=latency,
        origin="measured",
        measured_at=now(),
    )

"""Measuring the road from another site's agent to here, and to and from a site of stores."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataflow.sites import Link
from dataflow.storage.credentials import resolve

if TYPE_CHECKING:
    from dataflow.client.agent_client import AgentClient
    from dataflow.stores import Store

#: Bytes to fetch in turn: more only if the road proves fast enough.
SIZES = (64_000, 1_000_000, 8_000_000)
#: A fetch that takes longer (s) tells enough.
ENOUGH_SECONDS = 0.25
_ROUND_TRIPS = 5
#: What takes as long (s) was no busy moment.
_NO_MOMENT_SECONDS = 5.0
#: Objects to choose from where nothing may be written.
_LISTED = 100


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
    only make it longer), as that is what a transfer costs at least. Bandwidth is that of the last of a few
    growing fetches: 9 MB altogether on a fast road, and not much more than a quarter of a second on a slow
    one. What seems much slower than the one before is fetched twice, and the quicker counts: one moment in
    which an agent had other things to do would else be taken for the road, for a day.

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
    return await _measured(client.probe, SIZES, source, target, clock, now)


async def measure_store(
    store: Store,
    *,
    here: str,
    clock: Callable[[], float],
    now: Callable[[], float],
    files: Sequence[tuple[str, int]] = (),
) -> tuple[Link, ...]:
    """The links between a site of stores and here, by one of its stores that is opened here.

    Both of them, where results may be written: what is fetched is put there first, and deleted
    again. Else the one from there, by the largest of ``files``, paths and sizes of what is known to
    lie there, or of the first hundred objects; none if that is too small to tell anything.

    Raises
    ------
    StorageError, ConfigError
        If the store does not answer, or its credential is not there.
    """
    return await _Rounds(store, here, clock, now, tuple(files)).measure()


@dataclass(frozen=True, slots=True)
class _Rounds:
    """Puts and gets of one store, by the clock."""

    store: Store
    here: str
    clock: Callable[[], float]
    now: Callable[[], float]
    files: tuple[tuple[str, int], ...]

    async def measure(self) -> tuple[Link, ...]:
        from dataflow.storage.open import object_store  # with zarr
        from dataflow.storage.publish import plain_errors

        with plain_errors(self.store.url):
            opened = await asyncio.to_thread(
                object_store,
                self.store.url,
                credentials=resolve(self.store.credentials),
                options=self.store.options,
                mkdir=False,
            )
            if self.store.purpose != "results":
                return await self._by_what_lies_there(opened)
            return await self._by_an_object_of_ours(opened)

    async def _by_an_object_of_ours(self, opened: Any) -> tuple[Link, ...]:
        from obstore.exceptions import BaseError

        name, largest = f"results/probe-{uuid.uuid4().hex}", 0

        async def put(nbytes: int) -> None:
            nonlocal largest
            await opened.put_async(name, bytes(nbytes), use_multipart=False)
            largest = max(largest, nbytes)

        site = self.store.site
        try:
            there = await _measured(put, SIZES, self.here, site, self.clock, self.now)
            back = await self._back(opened, name, largest)
        finally:
            with suppress(OSError, BaseError):  # what it was about is told by then
                await opened.delete_async(name)
        return there, back

    async def _by_what_lies_there(self, opened: Any) -> tuple[Link, ...]:
        known = self.files or await asyncio.to_thread(_listed, self.store, opened)
        name, nbytes = max(known, key=lambda file: file[1], default=("", 0))
        return (await self._back(opened, name, nbytes),) if nbytes >= SIZES[0] else ()

    async def _back(self, opened: Any, name: str, largest: int) -> Link:
        async def get(nbytes: int) -> None:
            if nbytes:
                await opened.get_range_async(name, start=0, end=nbytes)
            else:
                await opened.head_async(name)

        sizes = [nbytes for nbytes in SIZES if nbytes <= largest]
        return await _measured(get, sizes, self.store.site, self.here, self.clock, self.now)


def _listed(store: Store, opened: Any) -> tuple[tuple[str, int], ...]:
    if store.url.startswith(("http://", "https://")):
        return ()  # which cannot list
    first: Sequence[Any] = next(iter(opened.list(chunk_size=_LISTED)), [])
    return tuple((str(entry["path"]), int(entry["size"])) for entry in first)


async def _measured(
    move: Callable[[int], Awaitable[None]],
    sizes: Sequence[int],
    source: str,
    target: str,
    clock: Callable[[], float],
    now: Callable[[], float],
) -> Link:
    async def seconds(nbytes: int) -> float:
        begun = clock()
        await move(nbytes)
        return clock() - begun

    def pace(nbytes: int, taken: float) -> float:
        # At least half of it: round trips vary, and no road is endlessly wide.
        return nbytes / max(taken - latency, taken / 2, 1e-9)

    latency = min([await seconds(0) for _ in range(_ROUND_TRIPS)])
    bandwidth = 0.0
    for nbytes in sizes:
        taken = await seconds(nbytes)
        slow = pace(nbytes, taken) < bandwidth / 2 or (not bandwidth and taken > ENOUGH_SECONDS)
        if slow and taken < _NO_MOMENT_SECONDS:
            taken = min(taken, await seconds(nbytes))
        bandwidth = pace(nbytes, taken)
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

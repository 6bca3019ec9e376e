"""Draining a real worker of Dask: what is begun ends there, the rest is begun elsewhere, and data stay."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from dataflow.backends.drain import can_leave, drain


def where(seconds: float) -> str:
    from distributed import get_worker

    time.sleep(seconds)
    return str(get_worker().name)


async def until(true: Any) -> None:
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit, "waited in vain"
        await asyncio.sleep(0.02)


def test_nothing_is_begun_by_a_worker_that_waits_for_another_to_take_its_data() -> None:
    from distributed import Client, Scheduler, Worker

    async def story() -> None:
        local: Any = {"host": "127.0.0.1", "dashboard": False}
        async with (
            Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler,  # type: ignore[no-untyped-call]
            Worker(scheduler.address, name="old", nthreads=1, **local) as old,
            Client(scheduler.address, asynchronous=True) as client,
        ):
            futures = client.map(where, [0.0, 0.5, 0.0, 0.0], pure=False)
            worker = scheduler.workers[old.address]
            await until(lambda: worker.has_what and worker.processing)
            assert drain(scheduler, "old")
            assert not drain(scheduler, "old"), "it has been told before"
            await until(lambda: len(worker.has_what) == 2)
            assert not can_leave(scheduler, "old"), "there is nobody for what it has"
            await asyncio.sleep(0.3)
            assert len(worker.has_what) == 2, "and it begins nothing more"
            async with Worker(scheduler.address, name="new", nthreads=1, **local):
                await until(lambda: can_leave(scheduler, "old"))
                gone = await scheduler.retire_workers(names=["old"], close_workers=True)
                assert list(gone) == [old.address]
                found = await client.gather(futures)
                assert found == ["old", "old", "new", "new"]

    asyncio.run(story())


def test_who_is_not_there_may_leave() -> None:
    from distributed import Scheduler

    async def story() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:  # type: ignore[no-untyped-call]
            assert not drain(scheduler, "nobody")
            assert can_leave(scheduler, "nobody")

    asyncio.run(story())

"""Workers that stand still are lost in seconds; workers that are merely busy are left alone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dataflow.backends.local import LocalBackend
from dataflow.backends.pulse import SILENT, STUCK, Sign, lost

BUSY, STOPPED = Sign("running", 1.0), Sign("stopped", 1.0)


@pytest.mark.parametrize(
    ("silence", "signs", "why"),
    [
        (SILENT + 1, [None, None, None], "host has not answered"),
        (SILENT + 1, [BUSY, None, None, None], "host has not answered"),
        (SILENT + 1, [STOPPED, STOPPED], "stood still"),
        (STUCK + 1, [BUSY, BUSY, BUSY], "has not run"),
        (SILENT - 1, [None, None, None], ""),
        (SILENT + 1, [None, None], ""),
        (SILENT + 1, [None, BUSY], ""),
        (SILENT + 1, [None, BUSY, None], ""),
        (SILENT + 1, [BUSY, STOPPED], ""),
        (SILENT + 1, [STOPPED, BUSY], ""),
        (SILENT + 1, [BUSY, BUSY], ""),
        (STUCK + 1, [BUSY, Sign("running", 1.1)], ""),
    ],
)
def test_silence_alone_proves_nothing(silence: float, signs: list[Sign | None], why: str) -> None:
    found = lost(silence, signs)
    assert bool(found) == bool(why)
    assert why in found


async def _story(directory: Path, begin: Any) -> None:
    backend = LocalBackend(workers=1, threads=1, memory=10**9, directory=directory)
    try:
        await begin(await backend.client())
    finally:
        await backend.close()


@pytest.mark.slow
def test_a_worker_that_stands_still_is_lost_and_replaced(tmp_path: Path) -> None:
    told = tmp_path / "pid"

    def number_and_wait(path: str) -> None:
        Path(path).write_text(str(os.getpid()))
        time.sleep(600)

    async def story(client: Any) -> None:
        from distributed import KilledWorker

        future = client.submit(number_and_wait, str(told))
        async with asyncio.timeout(60):
            while not told.exists() or not told.read_text():
                await asyncio.sleep(0.05)
        pid = int(told.read_text())
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(90):
            with pytest.raises(KilledWorker):
                await future
            assert await client.submit(os.getpid) != pid

    asyncio.run(_story(tmp_path / "workers", story))


@pytest.mark.slow
def test_a_worker_that_holds_the_lock_is_left_alone(tmp_path: Path) -> None:
    def sleep_with_the_lock(seconds: float) -> float:
        """Nothing else of the process runs meanwhile, heartbeats neither."""
        import ctypes

        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return seconds

    async def story(client: Any) -> None:
        before = await client.submit(os.getpid, pure=False)
        seconds = SILENT + 4
        assert await client.submit(sleep_with_the_lock, seconds) == seconds
        assert await client.submit(os.getpid, pure=False) == before

    asyncio.run(_story(tmp_path / "workers", story))

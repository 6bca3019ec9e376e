"""Real worker processes: started once, reachable from here only, gone with the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import dask
import psutil
import pytest

from dataflow.backends.base import Backend
from dataflow.backends.local import LocalBackend
from dataflow.testing.backends import BackendContract


@contextlib.asynccontextmanager
async def running(directory: Path, workers: int = 1) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(workers=workers, threads=1, memory=10**9, directory=directory)
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Workers start as with users who have configured nothing."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        yield


class TestContract(BackendContract):
    """What every backend promises; its workers stay while the agent runs."""

    elastic = False

    def make(self, directory: Path) -> LocalBackend:
        return LocalBackend(workers=2, threads=1, memory=10**9, directory=directory)


def test_started_once_by_the_first_who_asks(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "scratch", workers=2) as backend:
            as_backend: Backend = backend
            assert as_backend.dashboard is None
            assert not (tmp_path / "scratch").exists()
            before = len(psutil.Process().children(recursive=True))
            one, two, _ = await asyncio.gather(backend.client(), backend.client(), backend.start())
            assert one is two
            assert len(await one.nthreads()) == 2
            assert set((await one.nthreads()).values()) == {1}
            # Two workers, and Python's own process that counts what they share.
            assert len(psutil.Process().children(recursive=True)) - before <= 3
            assert await one.submit(os.getpid) != os.getpid()
            where = await one.run(lambda dask_worker: dask_worker.local_directory)
            assert all(Path(at).is_relative_to(tmp_path / "scratch") for at in where.values())
        assert backend.dashboard is None
        with pytest.raises(RuntimeError, match="closed"):
            await backend.client()

    asyncio.run(story())


def test_listens_on_loopback_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as backend:
            await backend.start()
            me = psutil.Process()
            listening = [
                connection.laddr.ip
                for process in (me, *me.children(recursive=True))
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
            assert listening
            assert set(listening) == {"127.0.0.1"}

    asyncio.run(story())


def test_pages_are_loaded_when_somebody_looks(tmp_path: Path) -> None:
    """In a process of its own, which has not loaded them for anybody else."""
    script = f"""
import asyncio, sys, urllib.error, urllib.request
from pathlib import Path
from dataflow.backends.local import LocalBackend

def look(page):
    with urllib.request.urlopen(page, timeout=60) as answer:
        return answer.read().decode()

async def main():
    folder = Path({str(tmp_path)!r})
    backend = LocalBackend(workers=1, threads=1, memory=10**9, directory=folder)
    try:
        await backend.start()
        page = backend.dashboard
        await asyncio.to_thread(look, page + "/json/counts.json")
        assert "bokeh" not in sys.modules
        found = await asyncio.gather(*(asyncio.to_thread(look, page) for _ in range(3)))
        assert "bokeh" in sys.modules
        assert all("Dask" in one and "Bokeh" in one for one in found), found
        assert "Workers" in await asyncio.to_thread(look, page + "/workers")
        try:
            await asyncio.to_thread(look, page + "/no-such-page")
        except urllib.error.HTTPError as error:
            assert error.code == 404
        else:
            raise AssertionError("there is no such page")
    finally:
        await backend.close()

if __name__ == "__main__":
    asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=200, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_dashboard_counts(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as backend:
            client = await backend.client()
            await client.submit(sum, [1, 2])
            address = backend.dashboard
            assert address is not None
            assert address.startswith("http://127.0.0.1:")

            def counts() -> dict[str, int]:
                with urllib.request.urlopen(f"{address}/json/counts.json") as answer:
                    found: dict[str, int] = json.load(answer)
                    return found

            assert (await asyncio.to_thread(counts))["workers"] == 1

    asyncio.run(story())


def test_busy_worker_is_stopped_and_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as backend:
            client = await backend.client()
            (address,) = await client.nthreads()
            pid = await client.submit(os.getpid)
            started = tmp_path / "started"

            def note_and_sleep(path: Path, seconds: float) -> str:
                with path.open("a") as file:
                    file.write("x")
                time.sleep(seconds)
                return "slept"

            busy = client.submit(note_and_sleep, started, 600)
            waiting = client.submit(str.upper, "behind it", key="waiting")
            while not started.exists():
                await asyncio.sleep(0.01)
            busy.release()
            begun = time.monotonic()
            await backend.stop_worker(address)
            assert time.monotonic() - begun < 5
            assert not psutil.pid_exists(pid)
            # What stood behind it is not counted as failed.
            assert await waiting == "BEHIND IT"
            await backend.stop_worker("tcp://127.0.0.1:1")

    asyncio.run(story())


def test_dead_worker_fails_its_task_at_once(tmp_path: Path) -> None:
    from distributed import KilledWorker

    async def story() -> None:
        async with running(tmp_path, workers=2) as backend:
            client = await backend.client()
            begun = time.monotonic()
            with pytest.raises(KilledWorker):
                await client.submit(_end_me)
            assert time.monotonic() - begun < 10
            assert await client.submit(sum, [1, 2]) == 3

    asyncio.run(story())


def _end_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_starts_anew_when_the_cluster_died(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as backend:
            first = await backend.client()
            await backend._cluster.close()
            assert backend.dashboard is None
            again = await backend.client()
            assert again is not first
            assert await again.submit(sum, [1, 2]) == 3

    asyncio.run(story())


def test_worker_that_did_not_come_up_is_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as backend:
            client = await backend.client()
            pid = await client.submit(os.getpid)
            (nanny,) = backend._cluster.workers.values()
            tried = asyncio.Event()

            async def fail() -> None:
                tried.set()
                raise OSError("no memory for a process")

            nanny.instantiate = fail
            os.kill(pid, signal.SIGKILL)
            await tried.wait()
            del nanny.instantiate
            waiting = client.submit(sum, [1, 2])
            await asyncio.sleep(1)
            assert not waiting.done()
            assert await backend.client() is client
            assert await waiting == 3

    asyncio.run(story())


def test_nanny_that_ended_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as backend:
            client = await backend.client()
            (nanny,) = backend._cluster.workers.values()
            await nanny.close()
            assert await backend.client() is client
            assert await client.submit(sum, [1, 2]) == 3

    asyncio.run(story())


def test_worker_may_take_its_time_to_come_back(tmp_path: Path) -> None:
    import dask

    async def story() -> None:
        async with running(tmp_path) as backend:
            client = await backend.client()
            (nanny,) = backend._cluster.workers.values()
            with dask.config.set({"distributed.deploy.lost-worker-timeout": "10 ms"}):
                os.kill(nanny.pid, signal.SIGKILL)
                while backend._cluster.scheduler.workers:
                    await asyncio.sleep(0.01)
                assert await client.submit(sum, [1, 2]) == 3
                await asyncio.sleep(0.1)
            assert list(backend._cluster.workers.values()) == [nanny]
            assert nanny.status.name == "running"

    asyncio.run(story())


def test_who_waits_may_be_cancelled(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as backend:
            waiting = asyncio.create_task(backend.client())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await (await backend.client()).submit(sum, [1, 2]) == 3

    asyncio.run(story())


SCRIPT = """
import asyncio, sys
from pathlib import Path
from dataflow.backends.local import LocalBackend

async def main():
    backend = LocalBackend(workers=2, threads=1, memory=10**9, directory=Path(sys.argv[1]))
    client = await backend.client()
    print(*(await client.run(lambda: __import__("os").getpid())).values(), flush=True)
    if sys.argv[2] == "stay":
        await asyncio.sleep(600)
    await backend.close()

asyncio.run(main())  # without the line that guards a main module
"""


@pytest.mark.parametrize("end", ["killed", "closed"])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, end: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    word = "stay" if end == "killed" else "go"
    agent = subprocess.Popen(
        [sys.executable, "-W", "error", script, tmp_path / "scratch", word],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert agent.stdout is not None
    assert agent.stderr is not None
    try:
        pids = []
        for line in agent.stdout:
            if line.replace(" ", "").strip().isdigit():
                pids = [int(word) for word in line.split()]
                break
        assert len(pids) == 2, agent.stderr.read()
        if end == "killed":
            agent.send_signal(signal.SIGKILL)
        assert agent.wait(60) == (-signal.SIGKILL if end == "killed" else 0)
        begun = time.monotonic()
        while any(map(psutil.pid_exists, pids)):
            assert time.monotonic() - begun < 10, "workers outlive their agent"
            time.sleep(0.05)
    finally:
        agent.kill()
        agent.communicate()


def test_a_stranger_on_the_same_machine_is_not_talked_to(tmp_path: Path) -> None:
    """Without the certificate of this process nobody gets at its workers, or at the scheduler."""
    from distributed import Client
    from distributed.security import Security

    async def story() -> None:
        async with running(tmp_path / "scratch") as backend:
            client = await backend.client()
            address = client.scheduler.address
            assert address.startswith("tls://127.0.0.1:")
            port = address.rpartition(":")[2]
            for scheme, security in (("tcp", None), ("tls", Security.temporary())):
                stranger = f"{scheme}://127.0.0.1:{port}"
                with pytest.raises(OSError, match=r"(?i)timed out|connect|certificate"):
                    async with Client(
                        stranger, asynchronous=True, timeout=2, security=security
                    ) as other:
                        await other.run_on_scheduler(os.getpid)

    asyncio.run(story())

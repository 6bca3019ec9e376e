"""Workers as processes of this machine, reachable over the loopback interface only."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import multiprocessing.spawn
import threading
from pathlib import Path
from typing import Any

import psutil
import structlog

log = structlog.get_logger(__name__)

#: What every worker imports while it starts, so that the first task does not have to.
IMPORTS = ("dask.array", "pydantic", "dataflow.storage.results", "dataflow.execution.to_dask")

#: Arrow's own allocator keeps what it freed, which Dask takes for memory in use.
ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system"}

#: How long Dask's client holds messages back to send several at once. Its own 10 ms are most of what
#: a short step takes.
BATCH_SECONDS = 0.001

_LOOPBACK = "127.0.0.1"
_WORKER_PROCESS = "Dask Worker process"


class LocalBackend:
    """A :class:`~dataflow.backends.base.Backend` of processes on this machine.

    Parameters
    ----------
    workers, threads, memory
        Processes, threads of each, and bytes of memory that each may use before it is ended.
    directory
        Where workers keep what does not fit into memory.
    """

    def __init__(self, *, workers: int, threads: int, memory: int, directory: Path) -> None:
        self.workers, self.threads, self.memory = workers, threads, memory
        self.directory = directory
        self._cluster: Any = None
        self._client: Any = None
        self._starting: asyncio.Task[None] | None = None
        self._reviving: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def start(self) -> None:
        """Start the workers, unless they run."""
        await self.client()

    async def client(self) -> Any:
        """An asynchronous client of the running scheduler; see the protocol."""
        if not self._alive():
            if self._closed:
                raise RuntimeError("this backend is closed")
            if self._starting is None:
                self._starting = asyncio.create_task(self._begin())
                self._starting.add_done_callback(self._started)
            # Whoever waits may be cancelled; a half-started cluster would be left behind.
            await asyncio.shield(self._starting)
        self._revive()
        return self._client

    @property
    def dashboard(self) -> str | None:
        """Address of the scheduler's pages, which other machines cannot reach."""
        if not self._alive():
            return None
        return f"http://{_LOOPBACK}:{self._cluster.scheduler.http_server.port}"

    async def stop_worker(self, address: str) -> None:
        """End one worker process; its nanny starts another."""
        if not self._alive():
            return
        nanny = next(
            (one for one in self._cluster.workers.values() if one.worker_address == address), None
        )
        if nanny is None or nanny.pid is None:
            return
        log.info("worker-stopped", address=address)
        try:
            worker = psutil.Process(nanny.pid)
            family = [worker, *worker.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # Before Dask notices by itself, or it would count this against all other tasks that the
        # worker had. Not before the end of the process: a worker that is told would end for good.
        await self._cluster.scheduler.remove_worker(
            address, stimulus_id="dataflow-stop-worker", expected=True, close=False
        )
        while nanny.pid == worker.pid:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """End all workers; nothing can be run afterwards."""
        self._closed = True
        if self._starting is not None:
            await asyncio.wait({self._starting})
        await self._end()

    def __repr__(self) -> str:
        state = "running" if self._alive() else "not running"
        return f"<LocalBackend {self.workers} x {self.threads} threads, {state}>"

    def _alive(self) -> bool:
        if self._cluster is None or self._client is None:
            return False
        running = (self._cluster.status, self._cluster.scheduler.status)
        return all(s.name == "running" for s in running) and self._client.status == "running"

    def _revive(self) -> None:
        """Have workers tried again that did not come up when they were last replaced.

        A nanny tries once. What kept it (no memory for a process, a full disk) may be over.
        """
        if len(self._cluster.workers) < self.workers:
            # Dask gives up a worker that does not come back in time.
            self._cluster.scale(self.workers)
        for nanny in self._cluster.workers.values():
            process = nanny.process
            if nanny.status.name == "running" and (
                process is None or process.status.name in ("stopped", "failed")
            ):
                self._reviving.add(task := asyncio.ensure_future(nanny.instantiate()))
                task.add_done_callback(self._revived)

    def _revived(self, task: asyncio.Future[Any]) -> None:
        self._reviving.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("worker-not-started", error=str(task.exception()))

    async def _begin(self) -> None:
        await self._end()
        # Takes a second the first time, in which the event loop has better things to do.
        distributed = await asyncio.to_thread(importlib.import_module, "distributed")
        _leave_main_alone()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._cluster = await distributed.LocalCluster(
            n_workers=self.workers,
            threads_per_worker=self.threads,
            memory_limit=self.memory,
            processes=True,
            asynchronous=True,
            host=_LOOPBACK,
            # Else every account of the machine could run what it likes in ours.
            protocol="tls",
            security=await asyncio.to_thread(_own_security),
            dashboard_address=f"{_LOOPBACK}:0",
            local_directory=str(self.directory),
            preload=list(IMPORTS),
            env=ENVIRONMENT,
            silence_logs=logging.CRITICAL,
            # Who may fail how often is the driver's decision, which knows what a task means.
            scheduler_kwargs={"allowed_failures": 0},
        )
        self._client = await distributed.Client(
            self._cluster, asynchronous=True, set_as_default=False
        )
        self._client.scheduler_comm.interval = BATCH_SECONDS
        log.info("workers-started", workers=self.workers, threads=self.threads)

    def _started(self, starting: asyncio.Task[None]) -> None:
        self._starting = None
        if not starting.cancelled() and starting.exception() is not None:
            log.warning("workers-not-started", error=str(starting.exception()))

    async def _end(self) -> None:
        if self._reviving:
            await asyncio.wait(self._reviving)
        client, cluster = self._client, self._cluster
        self._client = self._cluster = None
        if client is not None:
            await client.close()
        if cluster is not None:
            await cluster.close()


def _own_security() -> Any:
    """A certificate of this process's own: who does not have it is not talked to."""
    from distributed.security import Security

    return Security.temporary()  # type: ignore[no-untyped-call]


_patching = threading.Lock()


def _leave_main_alone() -> None:
    """Keep worker processes from importing the program that started them.

    A spawned process imports the main module of its parent first. For a script without
    ``if __name__ == "__main__"`` that means to run it again, cluster and all. Workers need nothing
    of it: functions of the main module travel by value.
    """
    with _patching:
        preparation = multiprocessing.spawn.get_preparation_data
        if getattr(preparation, "leaves_main_alone", False):
            return

        def prepared(name: str) -> dict[str, object]:
            data: dict[str, object] = preparation(name)
            if name.startswith(_WORKER_PROCESS):
                data.pop("init_main_from_name", None)
                data.pop("init_main_from_path", None)
            return data

        prepared.leaves_main_alone = True  # type: ignore[attr-defined]
        multiprocessing.spawn.get_preparation_data = prepared

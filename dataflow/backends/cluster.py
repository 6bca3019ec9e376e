"""What all backends share: one Dask scheduler in this process, its client, and their life."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import structlog

from dataflow.backends.base import Demand, Lease
from dataflow.backends.nanny import end_worker
from dataflow.backends.pages import offer
from dataflow.backends.programs import RunsPrograms
from dataflow.backends.pulse import watch

log = structlog.get_logger(__name__)

#: How long Dask's client holds messages back to send several at once. Its own 10 ms are most of what
#: a short step takes.
BATCH_SECONDS = 0.001

#: What every worker imports while it starts, so that the first task does not have to.
IMPORTS = ("dask.array", "dataflow.storage.results", "dataflow.execution.ready")

#: How often Dask looks at itself. At its own pace (20, 10 and 100 ms) that takes 4 % of a processor in
#: an agent and 3 % in each of its workers, all the time.
PACE = {
    "distributed.admin.tick.interval": "500ms",
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.memory.monitor-interval": "250ms",
}

#: Who may fail how often is the driver's decision, which knows what a task means. Pages come when
#: somebody looks at them.
SCHEDULER_OPTIONS = {"allowed_failures": 0, "dashboard": False}


class ClusterBackend(ABC):
    """A :class:`~dataflow.backends.base.Backend` around a Dask cluster whose scheduler lives here.

    Parameters
    ----------
    directory
        For files of the workers, and of the scheduler.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._cluster: Any = None
        self._client: Any = None
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    @abstractmethod
    async def _make_cluster(self) -> Any:
        """A started asynchronous cluster, as distributed has them."""

    def _tend(self) -> None:  # noqa: B027
        """Called whenever somebody asks for the client: see to workers that are missing."""

    async def start(self) -> None:
        """Start the scheduler and what belongs to it, unless it runs."""
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
        self._tend()
        return self._client

    @property
    def dashboard(self) -> str | None:
        """Address of the scheduler's pages, which other machines cannot reach."""
        if not self._alive():
            return None
        server = self._cluster.scheduler.http_server
        return f"http://127.0.0.1:{server.port}" if server is not None else None

    @property
    def programs(self) -> RunsPrograms | None:
        """Workers run them."""
        return None

    async def request(self, demand: Demand) -> None:  # noqa: B027
        """Workers are there, or come by themselves."""

    async def release(self, order: str) -> None:  # noqa: B027
        """Workers stay."""

    def leases(self) -> Sequence[Lease]:
        """The worker processes that the scheduler knows."""
        if not self._alive():
            return ()
        return [
            Lease(id=str(worker.name), status="running", host=worker.host)
            for worker in self._cluster.scheduler.workers.values()
        ]

    def load(self) -> tuple[float, float]:
        """By what the workers said last; see :class:`~dataflow.backends.base.TellsLoad`."""
        if not self._alive():
            return 0.0, 0.0
        workers = list(self._cluster.scheduler.workers.values())
        threads = sum(worker.nthreads for worker in workers)
        room = sum(worker.memory_limit or 0 for worker in workers)
        percent = sum(float(worker.metrics.get("cpu") or 0.0) for worker in workers)
        held = sum(float(worker.metrics.get("memory") or 0.0) for worker in workers)
        return (percent / 100 / threads if threads else 0.0), (held / room if room else 0.0)

    def trouble(self) -> str:
        """Nothing stands in the way."""
        return ""

    @abstractmethod
    async def stop_worker(self, address: str) -> None:
        """End one worker process; see the protocol."""

    async def close(self) -> None:
        """End all workers; nothing can be run afterwards."""
        self._closed = True
        if self._starting is not None:
            await asyncio.wait({self._starting})
        await self._end()

    def __repr__(self) -> str:
        state = "running" if self._alive() else "not running"
        return f"<{type(self).__name__} {self._about()}, {state}>"

    def _about(self) -> str:
        return str(self.directory)

    def _alive(self) -> bool:
        if self._cluster is None or self._client is None:
            return False
        running = (self._cluster.status, self._cluster.scheduler.status)
        return all(s.name == "running" for s in running) and self._client.status == "running"

    async def _begin(self) -> None:
        await self._end()
        self.directory.mkdir(parents=True, exist_ok=True)
        # Takes a second the first time, in which the event loop has better things to do.
        await asyncio.to_thread(_keep_pace)
        self._cluster = await self._make_cluster()
        offer(self._cluster.scheduler)
        from distributed import Client

        self._client = await Client(  # type: ignore[no-untyped-call]
            self._cluster, asynchronous=True, set_as_default=False
        )
        self._client.scheduler_comm.interval = BATCH_SECONDS
        self._watching = asyncio.create_task(watch(self._cluster.scheduler, self._lose))
        log.info("workers-started", backend=repr(self))

    def _started(self, starting: asyncio.Task[None]) -> None:
        self._starting = None
        if not starting.cancelled() and starting.exception() is not None:
            log.warning("workers-not-started", error=str(starting.exception()))

    async def _lose(self, address: str, reason: str, answers: bool) -> None:
        """A worker has fallen silent: what it ran is lost, and its place is for another.

        ``answers`` says whether its nanny does.
        """
        await end_worker(self._cluster.scheduler, address, by_nanny=answers)

    async def _end(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        client, cluster = self._client, self._cluster
        self._client = self._cluster = None
        if client is not None:
            await client.close()
        if cluster is not None:
            await cluster.close()


def environment() -> dict[str, str]:
    """What workers find in their environment, on whatever host: the pace is that of this process."""
    import dask

    _keep_pace()
    return {
        # Arrow's own allocator keeps what it freed, which Dask takes for memory in use.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        **{
            f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": str(dask.config.get(name))
            for name in PACE
        },
    }


@cache
def _keep_pace() -> None:
    """Put our pace in the place of Dask's; what the user's own configuration says stays."""
    import dask
    import distributed  # noqa: F401 - its defaults would come over ours later

    for name, value in PACE.items():
        *outer, inner = name.split(".")
        said: dict[str, Any] = {inner: value}
        for part in reversed(outer):
            said = {part: said}
        dask.config.update_defaults(said)


def own_security() -> Any:
    """A certificate of this process's own: who does not have it is not talked to."""
    from distributed.security import Security

    return Security.temporary()  # type: ignore[no-untyped-call]

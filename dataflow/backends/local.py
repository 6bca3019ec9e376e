"""Workers as processes of this machine, reachable over the loopback interface only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing.spawn
import threading
from pathlib import Path
from typing import Any

import psutil
import structlog

from dataflow.backends.base import Demand
from dataflow.backends.cluster import (
    IMPORTS,
    SCHEDULER_OPTIONS,
    ClusterBackend,
    environment,
    own_security,
)
from dataflow.backends.forking import prepare
from dataflow.backends.wanted import refusal
from dataflow.errors import SiteRefused

log = structlog.get_logger(__name__)

_LOOPBACK = "127.0.0.1"
_WORKER_PROCESS = "Dask Worker process"
#: States of a nanny from which it does not come back.
_ENDED = frozenset({"closed", "failed"})


class LocalBackend(ClusterBackend):
    """A :class:`~dataflow.backends.base.Backend` of processes on this machine.

    Parameters
    ----------
    workers, threads, memory
        Processes, threads of each, and bytes of memory that each may use before it is ended.
    directory
        Where workers keep what does not fit into memory.
    """

    def __init__(self, *, workers: int, threads: int, memory: int, directory: Path) -> None:
        super().__init__(directory)
        self.workers, self.threads, self.memory = workers, threads, memory
        self._reviving: set[asyncio.Future[Any]] = set()

    async def request(self, demand: Demand) -> None:
        """Workers are there, or come by themselves; see the protocol."""
        why = refusal(demand, most=self.workers, memory=self.memory, wall=None)
        if why:
            raise SiteRefused("here", why)

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

    def _tend(self) -> None:
        """Have workers tried again that did not come up when they were last replaced.

        A nanny tries once. What kept it (no memory for a process, a full disk) may be over.
        """
        nannies = self._cluster.workers
        for name in [name for name, nanny in nannies.items() if nanny.status.name in _ENDED]:
            del nannies[name]
        if len(nannies) < self.workers:
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

    async def _make_cluster(self) -> Any:
        import distributed

        _leave_main_alone()
        changed = await asyncio.to_thread(prepare)
        return await _patient(distributed)(
            n_workers=self.workers,
            threads_per_worker=self.threads,
            memory_limit=self.memory,
            processes=True,
            asynchronous=True,
            host=_LOOPBACK,
            # Else every account of the machine could run what it likes in ours.
            protocol="tls",
            security=await asyncio.to_thread(own_security),
            dashboard_address=f"{_LOOPBACK}:0",
            local_directory=str(self.directory),
            preload=list(IMPORTS),
            env={**changed, **environment()},
            silence_logs=logging.CRITICAL,
            scheduler_kwargs=SCHEDULER_OPTIONS,
        )

    async def _end(self) -> None:
        if self._reviving:
            await asyncio.wait(self._reviving)
        await super()._end()

    def _about(self) -> str:
        return f"{self.workers} x {self.threads} threads"


def _patient(distributed: Any) -> Any:
    """A local cluster that waits for workers to come back for as long as it takes them.

    Dask's own closes the nanny of a worker that has been away for 15 s, also in the moment in which
    the worker is back at last and runs something; on a busy machine that happens. Nannies start
    their workers again by themselves, and we see to nannies.
    """

    class PatientCluster(distributed.LocalCluster):  # type: ignore[misc]
        def _update_worker_status(self, op: str, msg: Any) -> None:
            distributed.deploy.cluster.Cluster._update_worker_status(self, op, msg)

    return PatientCluster


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

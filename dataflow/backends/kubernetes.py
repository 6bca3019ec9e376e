"""Workers as Jobs in a Kubernetes namespace; the scheduler runs here, in the agent.

The agent may be a Pod of the namespace or run anywhere outside that Pods can reach, and it needs no
more than rights inside one namespace: no operator, no definitions of its own. What it makes, and why
nothing of it stays behind, stands in :mod:`dataflow.backends.manifests`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from dataflow.backends import manifests
from dataflow.backends.base import Demand, Lease
from dataflow.backends.cluster import (
    IMPORTS,
    SCHEDULER_OPTIONS,
    ClusterBackend,
    environment,
    own_security,
)
from dataflow.backends.drain import can_leave, drain
from dataflow.backends.kubernetes_api import KubernetesApi
from dataflow.backends.kubernetes_watch import Watched
from dataflow.backends.kubernetes_workers import MOST_FAILED, Worker, Workers
from dataflow.backends.manifests import Owner, WorkerSpec
from dataflow.backends.surroundings import Surroundings, is_ours, own_address, tls_address
from dataflow.backends.wanted import Wall, refusal, workers_wanted
from dataflow.config.kubernetes import KubernetesSettings
from dataflow.errors import SiteError, SiteRefused

log = structlog.get_logger(__name__)

#: Seconds between two looks at all workers while nothing is heard of them.
LOOK_EVERY = 1.0
#: Seconds until what was refused is tried again.
REFUSED_AGAIN = 2.0
#: Seconds that the API server may be silent until it is said to be in the way.
SILENCE = 15.0
#: Seconds for a Job to get its Pod until events are asked why it has none.
POD_WITHIN = 2.0
#: Seconds that closing waits for Pods to be gone.
CLOSE_WITHIN = manifests.GRACE + 10.0
#: What Dask's own nanny would set, which is not there: one thread for each thread of ours, and
#: memory that was freed is given back.
_VARIABLES = {
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class KubernetesBackend(ClusterBackend):
    """A :class:`~dataflow.backends.base.Backend` of Jobs, one for each worker.

    Parameters
    ----------
    site
        Its name, for labels and errors.
    workers, threads, memory
        Workers at most, threads of each, and bytes of memory of each (request and limit).
    settings
        Where, and with what.
    directory
        For files of the scheduler.
    surroundings
        What the Pod knows that the agent runs in.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        site: str,
        workers: int,
        threads: int,
        memory: int,
        settings: KubernetesSettings,
        directory: Path,
        surroundings: Surroundings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(directory)
        self.site, self.workers, self.threads, self.memory = site, workers, threads, memory
        self.settings, self._clock = settings, clock
        self._wall = Wall(seconds=settings.deadline)
        self._around = surroundings or Surroundings()
        self._api: KubernetesApi | None = None
        self._watched: Watched | None = None
        self._security: Any = None
        self._mark = self._scheduler = ""
        self._demands: dict[str, Demand] = {}
        self._workers = Workers()
        #: Jobs to be deleted as soon as the API server takes it.
        self._going: set[str] = set()
        self._looking = asyncio.Lock()
        self._wake = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        #: Since when there are more workers than wanted.
        self._surplus: float | None = None
        #: Since when, and in which words, the API server refuses or says nothing.
        self._refused: tuple[float, SiteError] | None = None

    # --- orders ---------------------------------------------------------------------------------

    async def request(self, demand: Demand) -> None:
        """See to it that there will be workers for an order; see the protocol.

        Raises
        ------
        SiteRefused
            If no worker of this site can serve it, or Kubernetes refuses the first worker.
        SiteUnreachable
            If the API server does not answer in time and there is no worker yet.
        """
        because = refusal(demand, most=self.workers, memory=self.memory, wall=self._wall)
        if because:
            raise SiteRefused(self.site, because)
        await self.client()
        self._demands[demand.order] = demand
        self._workers.failures, self._refused = 0, None
        try:
            await self._look()
        except SiteError:
            if not self._workers.live():
                del self._demands[demand.order]
                raise

    async def release(self, order: str) -> None:
        """The order has ended; workers that nobody else wants go after a while."""
        self._demands.pop(order, None)
        self._wake.set()

    def leases(self) -> Sequence[Lease]:
        """Workers that are there or asked for, after the last ones that have ended."""
        return self._workers.leases()

    def trouble(self) -> str:
        """Why no worker will come, in the words of Kubernetes; see the protocol."""
        if not self._demands or not self._alive() or self._cluster.scheduler.workers:
            return ""
        now = self._clock()
        if self._refused is not None:
            since, error = self._refused
            # Silence may end; a refusal stays one, but workers that were asked for may still come.
            final = isinstance(error, SiteRefused) and not self._workers.live()
            if final or now - since > SILENCE:
                return str(error)
        return self._workers.trouble(now, self.settings.patience)

    async def stop_worker(self, address: str) -> None:
        """End one worker at once; its successor is a Job of its own."""
        if not self._alive():
            return
        known = self._cluster.scheduler.workers.get(address)
        if known is None:
            return
        name = str(known.name)
        log.info("worker-stopped", address=address, job=name)
        self._workers.forget(name, "was stopped because of what it ran")
        # Before Dask notices by itself, or it would count this against its other tasks.
        await self._cluster.scheduler.remove_worker(
            address, stimulus_id="dataflow-stop-worker", expected=True, close=True
        )
        pod = self._watched.pods.get(name) if self._watched is not None else None
        try:
            if self._api is not None:
                # The Job first, or its Pod's end would be taken for a failure.
                await self._api.delete("jobs", name)
                if pod is not None:
                    await self._api.delete("pods", str(pod["metadata"]["name"]), at_once=True)
        except SiteError as error:
            log.warning("worker-not-stopped", job=name, error=str(error))
            self._going.add(name)
        self._wake.set()

    # --- life -----------------------------------------------------------------------------------

    def _tend(self) -> None:
        self._wake.set()

    async def _make_cluster(self) -> Any:
        distributed: Any = importlib.import_module("distributed")
        self._api = await KubernetesApi.connect(
            self.site, self.settings, service_account=self._around.service_account
        )
        self._security = await asyncio.to_thread(own_security)
        address = self.settings.address or self._around.address or own_address(*self._api.server)
        cluster = await distributed.SpecCluster(
            workers={},
            scheduler={
                "cls": distributed.Scheduler,
                "options": {
                    "host": address if is_ours(address) else "0.0.0.0",
                    "port": self.settings.port,
                    # Whoever reaches the port needs the certificate of this process.
                    "protocol": "tls://",
                    "security": self._security,
                    "dashboard_address": "127.0.0.1:0",
                    **SCHEDULER_OPTIONS,
                },
            },
            asynchronous=True,
            security=self._security,
            silence_logs=logging.CRITICAL,
        )
        self._scheduler = tls_address(address, cluster.scheduler.port)
        self._mark = secrets.token_hex(4)
        mine = manifests.selector(site=self.site, agent=self._mark)
        self._watched = Watched(self._api, mine, self._wake.set)
        self._watched.start()
        self._tending = asyncio.create_task(self._tend_always())
        return cluster

    async def _end(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
            self._tending = None
        async with self._looking:
            if self._watched is not None:
                await self._watched.close()
            if self._api is not None:
                if self._mark:
                    await self._clear_away(self._api)
                await self._api.close()
            self._api = self._watched = None
            self._workers.forget_all()
            self._going.clear()
        await super()._end()

    async def _clear_away(self, api: KubernetesApi) -> None:
        """Delete all that this run of the agent has made, and wait until it is gone."""
        mine = manifests.selector(site=self.site, agent=self._mark)
        until = time.monotonic() + CLOSE_WITHIN
        try:
            while True:
                # Looked for, not remembered: an answer may have been lost.
                jobs, _ = await api.listed("jobs", mine)
                for job in jobs:
                    if not job["metadata"].get("deletionTimestamp"):
                        await api.delete("jobs", str(job["metadata"]["name"]))
                pods, _ = await api.listed("pods", mine)
                if not jobs and not pods:
                    return
                if time.monotonic() > until:
                    log.warning("kubernetes-slow-to-end", jobs=len(jobs), pods=len(pods))
                    return
                await asyncio.sleep(0.2)
        except SiteError as error:
            log.warning("kubernetes-not-cleared", error=str(error), remedy="they end by themselves")

    def _about(self) -> str:
        return f"up to {self.workers} x {self.threads} threads in {self.settings.namespace!r}"

    # --- looking after workers ------------------------------------------------------------------

    async def _tend_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                # Python 3.11's `wait_for` may lose a cancellation that comes with the wake-up.
                async with asyncio.timeout(LOOK_EVERY):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._look()
            except SiteError as error:
                self._note_refusal(error)
                await asyncio.sleep(REFUSED_AGAIN)
            except Exception:
                log.exception("workers-not-looked-after", site=self.site)
                await asyncio.sleep(REFUSED_AGAIN)

    def _note_refusal(self, error: SiteError) -> None:
        if self._refused is None:
            log.warning("kubernetes-refuses", site=self.site, reason=str(error))
        since = self._clock() if self._refused is None else self._refused[0]
        self._refused = (since, error)

    async def _look(self) -> None:
        """Compare what is there with what is wanted, and do what is missing."""
        async with self._looking:
            if not self._alive() or self._closed or self._api is None or self._watched is None:
                return
            now = self._clock()
            self._see(self._watched, now)
            wanted = workers_wanted(
                self._demands.values(),
                most=self.workers,
                threads=self.threads,
                worth=self.settings.worth,
            )
            self._drain_old(now)
            useful, places = len(self._workers.useful()), self.workers - len(self._workers.live())
            if self._watched.silent is not None:
                self._note_refusal(self._watched.silent)
            self._surplus = None if useful <= wanted else self._surplus or now
            if self._surplus is not None:
                rested = self._workers.rested(self._surplus, now, self.settings.idle)
                await self._let_go(rested[: useful - wanted], "had nothing to do")
            scheduler = self._cluster.scheduler
            empty = [one for one in self._workers.drained() if can_leave(scheduler, one.name)]
            await self._let_go(empty, "was near its deadline")
            for name in list(self._going):
                await self._api.delete("jobs", name)
                self._going.discard(name)
            for worker in self._workers.without_pod(now, POD_WITHIN):
                worker.explain(await self._api.why_no_pod(worker.name))
            missing = min(wanted - useful, places)
            if missing > 0 and self._workers.failures < MOST_FAILED:
                for _ in range(missing):
                    await self._make_worker(self._api, now)
                self._refused = None
            elif self._watched.silent is None:
                self._refused = None

    def _see(self, watched: Watched, now: float) -> None:
        known = {str(one.name): one for one in self._cluster.scheduler.workers.values()}
        heard = watched.silent is None
        for lease in self._workers.see(watched.jobs, watched.pods, known, now, heard=heard):
            log.warning("worker-failed", job=lease.id, reason=lease.reason)

    async def _make_worker(self, api: KubernetesApi, now: float) -> None:
        settings, name = self.settings, manifests.object_name(self.site, secrets.token_hex(4))
        around = self._around
        # An owner in another namespace counts as one that is gone.
        at_home = bool(around.pod and around.uid) and around.namespace == settings.namespace
        spec = WorkerSpec(
            name=name,
            site=self.site,
            job=next(reversed(self._demands.values())).job,
            agent=self._mark,
            scheduler=self._scheduler,
            threads=self.threads,
            memory=self.memory,
            imports=IMPORTS,
            environment={**environment(), **_VARIABLES},
            owner=Owner(name=around.pod, uid=around.uid) if at_home else None,
        )
        job = await api.create(manifests.worker_job(spec, settings))
        self._workers.ask(name, now)
        try:
            await api.create(
                manifests.certificates(
                    spec,
                    settings,
                    uid=str(job["metadata"]["uid"]),
                    ca=self._security.tls_ca_file,
                    certificate=self._security.tls_worker_cert,
                    key=self._security.tls_worker_key,
                )
            )
        except SiteError:
            self._workers.forget(name)
            self._going.add(name)
            raise
        log.info("worker-asked-for", job=name, namespace=settings.namespace)

    def _drain_old(self, now: float) -> None:
        """Let workers take nothing more on that Kubernetes will end before they have done it."""
        longest = self._wall.drain_after(self._demands.values())
        for worker in self._workers.older_than(longest, self._wall.seconds, now):
            if drain(self._cluster.scheduler, worker.name):
                log.info("worker-drains", job=worker.name)
            worker.draining = True

    async def _let_go(self, workers: Sequence[Worker], reason: str) -> None:
        """End workers, after they have given away what others may want."""
        scheduler = self._cluster.scheduler
        for worker in workers:
            there = [at for at, one in scheduler.workers.items() if str(one.name) == worker.name]
            if there and not await scheduler.retire_workers(workers=there):
                continue  # its data have no other place
            self._workers.forget(worker.name, reason)
            self._going.add(worker.name)

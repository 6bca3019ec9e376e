"""Workers as jobs of a batch system, by dask-jobqueue: as many as the open demands justify.

The scheduler lives in this process, on a host that may submit. Each batch job holds one worker. What
dask-jobqueue does is to write the job and to call the command that submits or cancels; how many there
are, and which go, is decided here, because only here it is known what is planned.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from dataflow.backends.base import Demand, Lease, LeaseStatus
from dataflow.backends.batch_jobs import CLASSES, job_options
from dataflow.backends.certificates import as_files, remove_files
from dataflow.backends.cluster import SCHEDULER_OPTIONS, ClusterBackend, own_security
from dataflow.backends.drain import can_leave, drain
from dataflow.backends.lent import Lent, import_jobqueue, job_that_tells, patient
from dataflow.backends.logs import KEPT, tidy_logs
from dataflow.backends.nanny import replace_worker
from dataflow.backends.wanted import Wall, refusal, workers_wanted
from dataflow.config.backend_records import Batch
from dataflow.errors import SiteRefused

log = structlog.get_logger(__name__)

#: Jobs that end before their worker has come, one after the other, until no more are submitted.
MOST_FAILURES = 2

#: Seconds that a worker may be away from the scheduler, while its nanny starts another.
AWAY = 60.0

#: Seconds for a worker that has been told to go; then its job is cancelled.
GRACE = 15.0

#: Seconds without a task after which a worker that drains counts as empty: what it runs is heard of
#: by its heartbeats only.
EMPTY = 3.0

#: Seconds between two looks at the workers.
_LOOK = 0.5

#: Leases that have ended and are still told of.
_REMEMBERED = 50


class JobQueueBackend(ClusterBackend):
    """A :class:`~dataflow.backends.base.Backend` of batch jobs; all that dask-jobqueue can submit.

    Nothing is asked of the batch system but to submit and to cancel: a job that waits, or will never
    run, looks the same here. :class:`~dataflow.backends.sge.SgeBackend` knows more.

    Parameters
    ----------
    system
        A key of :data:`CLASSES`.
    site
        Its name, to say who refuses.
    workers, threads, memory
        Jobs at most, threads of each, and bytes of memory that each may use.
    settings
        What the site file says.
    directory
        For certificates and logs, unless ``settings`` names others; the workers must see it.
    """

    #: Whether the batch system can be asked for jobs that we do not know.
    _knows_strays = False

    def __init__(
        self,
        *,
        system: str,
        site: str,
        workers: int,
        threads: int,
        memory: int,
        settings: Batch,
        directory: Path,
    ) -> None:
        super().__init__((settings.shared or directory).absolute())
        self.system, self.site = system, site
        self.workers, self.threads, self.memory = workers, threads, memory
        self.settings: Batch = settings
        self.logs = (settings.logs or self.directory / "logs").absolute()
        self.wall = Wall(seconds=settings.walltime) if settings.walltime else None
        #: The same whenever this site starts: what an earlier agent left behind is known by it.
        self.job_name = f"flow-{hashlib.sha256(str(self.directory).encode()).hexdigest()[:8]}"
        self._demands: dict[str, Demand] = {}
        self._lent: dict[str, Lent] = {}
        self._ended: deque[Lease] = deque(maxlen=_REMEMBERED)
        #: Why jobs ended before their worker came, since the last one that did come.
        self._failures: list[str] = []
        self._count = 0
        #: Leases that ended since their logs were last looked through.
        self._since_tidied = 0
        self._surplus: float | None = None
        self._wake = asyncio.Event()
        #: Who waits for the end of a pass that has not begun yet.
        self._waiting: list[asyncio.Future[None]] = []
        #: A command had no answer, and may yet be obeyed: there may be jobs of ours that we do not know.
        self._strays = False
        #: Names of workers whose jobs are to be cancelled.
        self._unwanted: set[str] = set()
        self._attending: asyncio.Task[None] | None = None
        self._stopping = False
        self._background: set[asyncio.Task[None]] = set()

    # --- the protocol ---------------------------------------------------------------------------

    async def request(self, demand: Demand) -> None:
        """Submit what the open demands justify; see the protocol."""
        why = refusal(demand, most=self.workers, memory=self.memory, wall=self.wall)
        if why:
            raise SiteRefused(self.site, why)
        await self.client()
        self._demands[demand.order] = demand
        # Somebody asks anew, perhaps because what was wrong has been mended.
        self._failures.clear()
        self._unwanted.update(one.name for one in self._lent.values() if one.stuck)
        try:
            await self._passed()
            if self._failures and not any(one.useful for one in self._lent.values()):
                raise SiteRefused(self.site, self._failures[-1])
        except BaseException:
            await self.release(demand.order)
            raise

    async def release(self, order: str) -> None:
        """Workers without work go after the site's ``idle`` seconds."""
        self._demands.pop(order, None)
        self._wake.set()

    def leases(self) -> Sequence[Lease]:
        """Batch jobs that wait or run, then those that ended lately."""
        wall = self.wall.seconds if self.wall else None
        return [*(one.lease(wall) for one in self._lent.values()), *reversed(self._ended)]

    def trouble(self) -> str:
        """Why no worker will come; a job that merely waits is no trouble."""
        if not self._demands or any(one.useful or one.works for one in self._lent.values()):
            return ""
        stuck = [one for one in self._lent.values() if one.stuck]
        if stuck:
            return f"batch job {stuck[0].id} will not run: {stuck[0].stuck}"
        return self._failures[-1] if len(self._failures) >= MOST_FAILURES else ""

    async def stop_worker(self, address: str) -> None:
        """End a worker; its nanny starts another in the same batch job, else the job is ended."""
        if not self._alive() or address not in self._cluster.scheduler.workers:
            return
        name = self._cluster.scheduler.workers[address].name
        log.info("worker-stopped", address=address)
        if not await replace_worker(self._cluster.scheduler, address):
            self._unwanted.add(name)
            self._wake.set()

    async def _lose(self, address: str, reason: str, answers: bool) -> None:
        """A worker has fallen silent; one whose whole host has goes with its batch job."""
        known = self._cluster.scheduler.workers.get(address)
        await super()._lose(address, reason, answers)
        if known is not None and not answers:
            self._unwanted.add(known.name)
            self._wake.set()

    # --- the cluster ----------------------------------------------------------------------------

    async def _make_cluster(self) -> Any:
        jobqueue = await asyncio.to_thread(import_jobqueue)
        made = await asyncio.to_thread(own_security)
        security = await asyncio.to_thread(as_files, made, self.directory)
        self.logs.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(tidy_logs, self.logs, self.job_name)
        await self._clear()
        cluster_class = getattr(jobqueue, CLASSES[self.system])
        cluster = await patient(cluster_class)(
            job_cls=job_that_tells(
                cluster_class.job_cls,
                patience=self.settings.silence,
                unanswered=self._unanswered,
            ),
            name=self.job_name,
            asynchronous=True,
            silence_logs=logging.CRITICAL,
            security=security,
            protocol="tls://",
            interface=self.settings.interface,
            scheduler_options={
                **SCHEDULER_OPTIONS,
                **_interface(self.settings.scheduler_interface),
                "dashboard_address": "127.0.0.1:0",
            },
            **self.job_options(),
        )
        self._stopping = False
        self._attending = asyncio.create_task(self._attend())
        return cluster

    def job_options(self) -> dict[str, Any]:
        """What dask-jobqueue is told about each job."""
        return job_options(
            self.system,
            self.settings,
            name=self.job_name,
            threads=self.threads,
            memory=self.memory,
            logs=self.logs,
            directory=self.directory,
        )

    async def _clear(self) -> None:
        """Cancel what an agent of this site left behind that ended without a word; if that is known."""

    async def _end(self) -> None:
        self._stopping = True
        if self._attending is not None:
            # Not in the middle: a job that is being submitted would be nobody's.
            self._wake.set()
            await asyncio.wait({self._attending})
            self._attending = None
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        # Before the cluster, which would wait for each worker to give its data away.
        lent, self._lent = list(self._lent.values()), {}
        await asyncio.gather(*(one.job.close() for one in lent), return_exceptions=True)
        await super()._end()
        await self._gone([one.id for one in lent if one.id])
        remove_files(self.directory)

    async def _gone(self, ids: Sequence[str]) -> None:
        """Wait until these jobs have left the batch system, if it can be asked."""

    # --- what happens meanwhile -----------------------------------------------------------------

    async def _passed(self) -> None:
        """Wait for the next whole pass of :meth:`_attend`; raises what it raised."""
        self._waiting.append(passed := asyncio.get_running_loop().create_future())
        self._wake.set()
        await passed

    async def _attend(self) -> None:
        """Pass after pass: look, ask, and have as many workers as are wanted.

        Nobody else submits or cancels while this goes on, and a pass is never left half done.
        """
        while not self._stopping:
            with suppress(TimeoutError):
                idle = not self._lent and not self._demands and not self._strays
                async with asyncio.timeout(None if idle else _LOOK):
                    await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            failure: Exception | None = None
            try:
                self._see()
                await self._ask()
                await self._fit()
            except Exception as error:
                log.warning("workers-not-attended", backend=repr(self), error=str(error))
                failure = error
            for passed in waiting:
                if not passed.done():
                    passed.set_exception(failure) if failure else passed.set_result(None)
        for passed in self._waiting:
            if not passed.done():
                passed.set_exception(RuntimeError("the workers were ended meanwhile"))

    def _see(self) -> None:
        """What the scheduler knows of the workers."""
        now = asyncio.get_running_loop().time()
        workers = {worker.name: worker for worker in self._cluster.scheduler.workers.values()}
        for one in self._lent.values():
            was_up = one.up
            one.see(workers.get(one.name), now)
            if one.up and not was_up:
                self._failures.clear()
                log.info("lease-began", id=one.id, host=one.host, seconds=now - one.asked)

    def _unanswered(self, words: str) -> None:
        """The batch system did not answer a command in time."""
        log.warning("batch-system-silent", error=words)
        self._strays = self._knows_strays

    def _mute(self) -> str:
        """Why there is no use in submitting now; empty if there is."""
        return ""

    async def _ask(self) -> None:
        """What the batch system knows of the jobs; here nothing, so that looks must do."""
        for one in [one for one in self._lent.values() if one.leaving and one.gone]:
            await self._over(one, "")

    async def _fit(self) -> None:
        """Have as many workers as are wanted: submit, drain, and let go."""
        now = asyncio.get_running_loop().time()
        demands = list(self._demands.values())
        unwanted, self._unwanted = self._unwanted, set()
        await self._remove([one for one in self._lent.values() if one.name in unwanted])
        wanted = workers_wanted(
            demands, most=self.workers, threads=self.threads, worth=self.settings.worth
        )
        if self.wall is not None:
            last = self.wall.drain_after(demands) - self.settings.look
            for one in self._lent.values():
                if one.works and one.began is not None and now - one.began > last:
                    self._drain(one, now)
        drained: list[Lent] = []
        for one in list(self._lent.values()):
            if one.leaving is not None and now - one.leaving > GRACE:
                await self._remove([one])
            elif one.expected(now) > self.settings.starting:
                await self._never_came(one)
            elif one.gone is not None and now - one.gone > AWAY:
                await self._remove([one], "its worker did not come back")
            elif one.draining and one.works and one.quiet and now - one.quiet > EMPTY:
                drained.append(one)
        scheduler = self._cluster.scheduler
        self._let_go([one for one in drained if can_leave(scheduler, one.name)], now)
        useful = [one for one in self._lent.values() if one.useful]
        if not demands:
            await self._remove([one for one in self._lent.values() if one.stuck])
        # Those that drain have their place in the batch system until they are gone.
        missing = min(wanted - len(useful), self.workers - len(self._lent))
        stuck = any(one.stuck for one in self._lent.values())
        if missing > 0 and not stuck and len(self._failures) < MOST_FAILURES:
            if mute := self._mute():
                self._refuse(mute)
            else:
                await self._submit(missing)
        self._surplus = (self._surplus or now) if len(useful) > wanted else None
        if self._surplus is not None:
            ready = [
                one
                for one in useful
                if one.quiet and now - max(one.quiet, self._surplus) >= self.settings.idle
            ]
            # Jobs that wait go first, then those that had nothing to do for longest.
            ready.sort(key=lambda one: (one.up, one.quiet))
            await self._dismiss(ready[: len(useful) - wanted], now)

    async def _submit(self, number: int) -> None:
        now = asyncio.get_running_loop().time()
        names = [f"{self.job_name}-{self._count + i}" for i in range(number)]
        self._count += number
        for name in names:
            self._cluster.worker_spec[name] = self._cluster.new_spec
        await self._cluster
        refused = []
        for name in names:
            job = self._cluster.workers[name]
            if job.refused:
                refused.append(name)
                self._refuse(job.refused)
            else:
                self._lent[name] = Lent(name=name, job=job, id=str(job.job_id), asked=now)
        if refused:
            await self._cluster.scale_down(refused)
        ids = [one.id for name, one in self._lent.items() if name in names]
        log.info("leases-asked", ids=ids, refused=len(refused))

    def _refuse(self, words: str) -> None:
        """A job was not taken; there is no hope that the next one will be."""
        self._failures += [f"a batch job was refused: {words}"] * MOST_FAILURES

    async def _never_came(self, one: Lent) -> None:
        """The batch system says that a job runs, and nothing is heard of its worker."""
        where = f" at {one.host}" if one.host else ""
        reason = f"it runs{where}, and its worker has not come in {self.settings.starting:g} s"
        self._failures.append(f"batch job {one.id}: {reason}")
        await self._remove([one], reason)

    def _drain(self, one: Lent, now: float) -> None:
        """Have a worker take nothing more on, also one that its nanny has started anew."""
        one.draining = one.draining or now
        if drain(self._cluster.scheduler, one.name):
            log.info("lease-drains", id=one.id, host=one.host)

    async def _dismiss(self, lent: Sequence[Lent], now: float) -> None:
        self._let_go([one for one in lent if one.up], now)
        await self._remove([one for one in lent if not one.up])

    def _let_go(self, lent: Sequence[Lent], now: float) -> None:
        """Have workers end by themselves, after they gave away what others may want."""
        scheduler = self._cluster.scheduler
        addresses = [scheduler.aliases[one.name] for one in lent if one.name in scheduler.aliases]
        for one in lent:
            one.leaving = now

        async def retire() -> None:
            with suppress(Exception):  # whoever does not go is ended after the grace
                await scheduler.retire_workers(
                    workers=addresses, close_workers=True, stimulus_id="dataflow-release"
                )

        if addresses:
            self._background.add(task := asyncio.create_task(retire()))
            task.add_done_callback(self._background.discard)

    async def _remove(self, lent: Sequence[Lent], reason: str = "") -> None:
        """Cancel batch jobs, whatever they do."""
        for one in lent:
            if self._lent.pop(one.name, None) is not None:
                self._remember(one, "failed" if reason else "ended", reason)
        if lent:
            await self._cluster.scale_down([one.name for one in lent])

    async def _over(self, one: Lent, reason: str, *, hopeless: bool = False) -> None:
        """A batch job has ended by itself; ``hopeless`` if another would fare no better."""
        del self._lent[one.name]
        one.job.over = True
        if not one.up and one.leaving is None:
            failure = f"batch job {one.id}: {reason or 'it ended before its worker came'}"
            self._failures += [failure] * (MOST_FAILURES if hopeless else 1)
        self._remember(one, "failed" if reason else "ended", reason)
        await self._cluster.scale_down([one.name])

    def _remember(self, one: Lent, status: LeaseStatus, reason: str) -> None:
        log.info("lease-ended", id=one.id, host=one.host, reason=reason)
        self._since_tidied += 1
        if self._since_tidied >= KEPT:
            self._since_tidied = 0
            running = [other.id for other in self._lent.values()]
            tidying = asyncio.to_thread(tidy_logs, self.logs, self.job_name, running=running)
            self._background.add(task := asyncio.ensure_future(_quietly(tidying)))
            task.add_done_callback(self._background.discard)
        self._ended.append(
            Lease(id=one.id, status=status, host=one.host, since=one.since, reason=reason)
        )

    def _about(self) -> str:
        return f"{self.system}: {len(self._lent)} of {self.workers} x {self.threads} threads"


async def _quietly(work: Awaitable[object]) -> None:
    await work


def _interface(name: str | None) -> dict[str, str]:
    return {"interface": name} if name else {}

"""What is remembered of the workers of one run of an agent: asked for, come, idle, ended. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataflow.backends.base import Lease
from dataflow.backends.pods import Object, Standing, standing

#: Workers that end one after the other before they have come up, until no more are made.
MOST_FAILED = 3
#: Leases that have ended and are still shown.
_REMEMBERED = 50
#: Seconds that a failed Job's Pod gets to say why: they are told of apart, in no order.
_EXPLAINS_WITHIN = 2.0


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker from its Job's creation to its end; times are seconds since the epoch.

    Attributes
    ----------
    name
        Of Job and Dask worker.
    asked
        When its Job was made.
    standing
        What Kubernetes says of it.
    seen
        Its Job was in a list: if it is not there later, somebody has removed it.
    came
        It has been with the scheduler.
    idle
        Since when it has nothing to do; ``None`` while it has.
    draining
        It takes nothing more on.
    event
        Why its Job gets no Pod.
    failed
        Since when it is known to have failed, and not why.
    """

    name: str
    asked: float
    standing: Standing
    seen: bool = False
    came: bool = False
    idle: float | None = None
    draining: bool = False
    event: str = ""
    failed: float | None = None

    @property
    def lease(self) -> Lease:
        """The same for others."""
        return self.standing.lease

    @property
    def live(self) -> bool:
        """Whether it works, or will."""
        return self.lease.status in ("queued", "running")

    def explain(self, event: str) -> None:
        """Take in why its Job gets no Pod; nothing is changed by an empty text."""
        if event:
            self.event = event
            told = replace(self.lease, reason=event)
            self.standing = replace(self.standing, lease=told)


class Workers:
    """All workers of one run of an agent."""

    def __init__(self) -> None:
        self._now: dict[str, Worker] = {}
        self._past: deque[Lease] = deque(maxlen=_REMEMBERED)
        #: Workers that have failed in a row without ever having come, and the last one's reason.
        self.failures, self.failure = 0, ""

    def live(self) -> list[Worker]:
        """Those that work or will, in the order in which they were asked for."""
        return [worker for worker in self._now.values() if worker.live]

    def useful(self) -> list[Worker]:
        """Those of them that take more on."""
        return [worker for worker in self.live() if not worker.draining]

    def drained(self) -> list[Worker]:
        """Those that take nothing more on and have nothing left."""
        return [worker for worker in self.live() if worker.draining and worker.idle is not None]

    def older_than(self, age: float, wall: float, now: float) -> list[Worker]:
        """Those that still take something on, though they are of this age; it ends with ``wall``."""
        return [
            worker
            for worker in self.useful()
            if worker.came
            and worker.lease.until is not None
            and now - (worker.lease.until - wall) > age
        ]

    def leases(self) -> Sequence[Lease]:
        """The last ones that have ended, then those that are there."""
        return [*self._past, *(worker.lease for worker in self._now.values())]

    def ask(self, name: str, now: float) -> None:
        """A Job was made."""
        lease = Lease(id=name, status="queued")
        self._now[name] = Worker(name=name, asked=now, standing=Standing(lease=lease))

    def forget(self, name: str, reason: str = "") -> None:
        """It is over; ``reason`` says why, where Kubernetes does not know."""
        worker = self._now.pop(name, None)
        if worker is not None:
            over = replace(worker.lease, status="ended", reason=reason)
            self._past.append(over if worker.live else worker.lease)

    def forget_all(self) -> None:
        """Everything is over."""
        for name in list(self._now):
            self.forget(name)

    def see(
        self,
        jobs: Mapping[str, Object],
        pods: Mapping[str, Object],
        known: Mapping[str, Any],
        now: float,
        *,
        heard: bool,
    ) -> list[Lease]:
        """Take in how things are.

        Parameters
        ----------
        jobs, pods
            As the API server has them, by the name of the Job.
        known
            What the scheduler knows of each worker that is with it, by name.
        heard
            Whether ``jobs`` and ``pods`` are all that there is, at present.

        Returns
        -------
        list of Lease
            Those that have failed since the last look.
        """
        failed = []
        for worker in list(self._now.values()):
            there = known.get(worker.name)
            job = jobs.get(worker.name)
            if job is not None:
                worker.seen = True
                found = standing(job, pods.get(worker.name), worker.event)
                if found.unexplained:
                    worker.failed = now if worker.failed is None else worker.failed
                    if now - worker.failed < _EXPLAINS_WITHIN:
                        continue
                worker.standing = found
            elif worker.seen and heard:
                self.forget(worker.name, "its Job was removed by somebody else")
                continue
            if there is not None and not worker.came:
                worker.came, self.failures = True, 0
            worker.idle = None if _busy(worker, there) else worker.idle or now
            if worker.lease.status == "failed":
                failed.append(worker.lease)
                if not worker.came:
                    self.failures, self.failure = self.failures + 1, worker.lease.reason
            if not worker.live:
                self.forget(worker.name)
        return failed

    def rested(self, since: float, now: float, seconds: float) -> list[Worker]:
        """Workers that have had nothing to do for so long, at the earliest since ``since``.

        Those that have not come yet first: nobody has waited for them.
        """
        found = [
            worker
            for worker in self.useful()
            if worker.idle is not None and now - max(worker.idle, since) >= seconds
        ]
        return sorted(found, key=lambda worker: (worker.came, worker.asked))

    def without_pod(self, now: float, seconds: float) -> list[Worker]:
        """Workers whose Job has got no Pod in this time, and nobody knows why yet."""
        return [
            worker
            for worker in self._now.values()
            if worker.standing.lacks_pod and not worker.event and now - worker.asked > seconds
        ]

    def trouble(self, now: float, patience: float) -> str:
        """Why none of them will come; empty while there is hope.

        Parameters
        ----------
        patience
            Seconds that a worker may stand in the queue.
        """
        live = self.live()
        if not live and self.failures >= MOST_FAILED:
            return f"{self.failures} workers ended before they came up; the last: {self.failure}"
        stuck = [
            worker
            for worker in live
            if worker.standing.hopeless
            # One that runs comes, or ends by itself if it does not find its scheduler.
            or (worker.lease.status == "queued" and now - worker.asked > patience)
        ]
        if not live or len(stuck) < len(live):
            return ""
        first = stuck[0]
        reason = first.lease.reason or "Kubernetes does not say why"
        return f"{first.name} has not come up after {now - first.asked:.0f} s: {reason}"


def _busy(worker: Worker, there: Any) -> bool:
    if there is None:
        return False
    if worker.draining:  # what stands in its queue is not begun there any more
        return bool(there.executing or there.long_running)
    return bool(there.processing or there.has_what)

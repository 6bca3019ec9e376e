"""One lease on its way: a batch job that is to hold one worker, and what it is known to do."""

from __future__ import annotations

import importlib
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dataflow.backends.base import Lease
from dataflow.backends.batch_jobs import CLASSES, SECTION
from dataflow.backends.commands import said

_importing = threading.Lock()

#: What a section must say.
_KEPT = {"worker-command": "distributed.cli.dask_worker"}


@dataclass(slots=True, kw_only=True)
class Lent:
    """What a backend remembers of one batch job; times are those of the event loop (s).

    Attributes
    ----------
    name
        Of the Dask worker.
    job
        dask-jobqueue's own object.
    id
        The job's number in the batch system.
    asked
        When it was submitted.
    began
        When it was first known to run; ``None`` before.
    up
        Whether its worker has ever been with the scheduler.
    quiet
        Since when it has had nothing to do; ``None`` while it has.
    gone
        Since when its worker has been away from the scheduler, after it was up.
    draining, leaving
        Since when it takes nothing more on; since when it has been told to end.
    since
        Seconds since the epoch: when it began, by the batch system.
    stuck
        Why it will not run until somebody does something about it.
    """

    name: str
    job: Any
    id: str
    asked: float
    began: float | None = None
    up: bool = False
    quiet: float | None = None
    gone: float | None = None
    draining: float | None = None
    leaving: float | None = None
    host: str = ""
    since: float | None = None
    stuck: str = ""

    @property
    def useful(self) -> bool:
        """Whether it does work, or will."""
        return self.draining is None and self.leaving is None and not self.stuck

    @property
    def works(self) -> bool:
        """Whether its worker is there and has not been told to end."""
        return self.up and self.gone is None and self.leaving is None

    def expected(self, now: float) -> float:
        """Seconds since it began without its worker; 0 once that has come, or before."""
        return 0.0 if self.up or self.began is None else now - self.began

    def see(self, worker: Any, now: float) -> None:
        """Take in what the scheduler knows of its worker; ``None`` if it knows none."""
        if worker is None:
            self.gone = (self.gone or now) if self.up else None
            self.quiet = self.quiet or now
            return
        self.up, self.gone, self.stuck = True, None, ""
        self.began = self.began or now
        self.host = self.host or worker.host
        # What stands in the queue of a worker that drains is not begun there any more.
        busy = (
            worker.processing if self.draining is None else worker.executing or worker.long_running
        )
        self.quiet = None if busy else self.quiet or now

    def lease(self, wall: float | None) -> Lease:
        """The same for others; ``wall`` is how many seconds it may last."""
        return Lease(
            id=self.id,
            status="queued" if self.began is None else "running",
            host=self.host,
            since=self.since,
            until=self.since + wall if self.since is not None and wall else None,
            reason=self.stuck,
        )


def job_that_tells(job_class: Any, *, patience: float, unanswered: Callable[[str], None]) -> Any:
    """A class of dask-jobqueue's with which a refused job is known, not raised far away from here.

    Its ``refused`` holds the batch system's words; with ``over`` set it is not cancelled any more,
    since it has ended by itself.

    Parameters
    ----------
    patience
        Seconds for a command of the batch system; dask-jobqueue itself would wait for ever.
    unanswered
        Told of one that took longer. What it asked for may be done all the same, some time.
    """
    from distributed.deploy.spec import ProcessInterface

    class JobThatTells(job_class):  # type: ignore[misc]
        refused = ""
        over = False

        @staticmethod
        async def _call(cmd: list[str], *, shell: bool = False, **_: Any) -> str:
            command = ["/bin/sh", "-c", " ".join(cmd)] if shell else cmd
            try:
                code, out, err = await said(*command, seconds=patience)
            except TimeoutError:
                words = f"{cmd[0]} did not answer within {patience:g} s"
                unanswered(words)
                raise RuntimeError(words) from None
            if code:
                raise RuntimeError(f"{cmd[0]} ended with {code}\nstdout:\n{out}\nstderr:\n{err}\n")
            return out

        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:
                self.refused = words_of(error)
                self.over = True
                await ProcessInterface.start(self)  # type: ignore[no-untyped-call]

        async def close(self) -> None:
            if not self.over:
                self.over = True
                await super().close()
            await ProcessInterface.close(self)  # type: ignore[no-untyped-call]

    return JobThatTells


def import_jobqueue() -> Any:
    """The package dask-jobqueue, without what it does to this process.

    A part of it that is not used here takes SIGINT and SIGTERM for itself while it is imported: the
    agent would no longer end in order, and outside of the main thread the import fails.
    """
    with _importing:
        genuine = signal.signal

        def for_others(number: Any, handler: Any) -> Any:
            if sys._getframe(1).f_globals.get("__name__") == "dask_jobqueue.runner":
                return None
            return genuine(number, handler)

        signal.signal = for_others  # type: ignore[assignment]
        try:
            package = importlib.import_module("dask_jobqueue")
        finally:
            signal.signal = genuine
        _without_defaults()
    return package


def patient(cluster_class: Any) -> Any:
    """A cluster of dask-jobqueue's that cancels nothing by itself.

    Its own cancels the job of a worker that has been away for 15 s, also in the moment in which the
    nanny has started the next; on a busy host that happens.
    """
    from distributed.deploy.cluster import Cluster

    class PatientCluster(cluster_class):  # type: ignore[misc]
        def _update_worker_status(self, op: str, msg: Any) -> None:
            Cluster._update_worker_status(self, op, msg)  # type: ignore[no-untyped-call]

    return PatientCluster


def _without_defaults() -> None:
    """Sections of its settings in which nothing is said.

    What is left open is otherwise filled in from ``jobqueue.yaml``, the user's or the package's: a
    walltime of half an hour, for one.
    """
    import dask.config

    for system in CLASSES:
        there = dask.config.get(f"jobqueue.{system}")
        said = {key: _KEPT.get(key, _nothing(value)) for key, value in there.items()}
        dask.config.set({f"jobqueue.{SECTION.format(system)}": said})


def _nothing(value: Any) -> Any:
    return type(value)() if isinstance(value, list | dict) else value if value is True else None


def words_of(error: Exception) -> str:
    """What a batch system's command wrote, out of dask-jobqueue's error about it."""
    if isinstance(error, FileNotFoundError):
        return f"there is no command {error.filename!r} on this host"
    found = re.search(r"^stdout:\n(.*)^stderr:\n(.*)", str(error), re.DOTALL | re.MULTILINE)
    said = " ".join(part.strip() for part in reversed(found.groups())) if found else str(error)
    return said.strip() or str(error)

"""Coordinator: the jobs of one site, from submission to their end, over all restarts."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import structlog

from dataflow import tracing
from dataflow.errors import JobError
from dataflow.execution.driver import FAREWELL_SECONDS, Drive, Surroundings
from dataflow.execution.events import Asked, Event, JobCreated, JobQueued, TimeLimitReached
from dataflow.execution.state import JobState, apply, begin

log = structlog.get_logger(__name__)

#: Jobs that are driven at once; the others wait in the order of their submission. One that is
#: suspended takes no room.
MOST_RUNNING = 200
#: Seconds after which a job is taken up again whose journal could not be written.
AGAIN_SECONDS = 1.0
#: Seconds in which more news may follow the first; so long is an answer held back at most.
BURST_SECONDS = 0.01
#: Seconds between two looks at the journal for events of a job that another process drives.
GLANCE_SECONDS = 0.2
#: Seconds that sites get to hear that a job is over.
PATIENCE_SECONDS = 30.0
#: States of ended jobs that are kept at hand.
KEPT_ENDS = 200


class Coordinator:
    """All jobs of one journal.

    Parameters
    ----------
    around
        Journal, ways to the sites, and how to plan anew.
    changed
        Called with the state after every change of a job.
    most_running
        Jobs driven at once.
    """

    def __init__(
        self,
        around: Surroundings,
        changed: Callable[[JobState], None],
        *,
        most_running: int = MOST_RUNNING,
    ) -> None:
        self._around = around
        self._tell = changed
        self._most = most_running
        self._drives: dict[str, Drive] = {}
        self._waiting: dict[str, JobState] = {}
        self._again: dict[str, asyncio.TimerHandle] = {}
        #: When jobs that wait for room will have waited too long.
        self._limits: dict[str, asyncio.TimerHandle] = {}
        self._ended: dict[str, JobState] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._news: dict[str, asyncio.Event] = {}
        self._spans: dict[str, tracing.Mark] = {}
        self._closed = False

    def start(self) -> list[str]:
        """Take up the unfinished jobs that nobody drives; their ids."""
        adopted = self._around.journal.adopt()
        for job in adopted:
            self._take_up(job)
        return adopted

    async def close(self) -> None:
        """Stop driving; whoever opens the journal next goes on."""
        self._closed = True
        for timer in (*self._again.values(), *self._limits.values()):
            timer.cancel()
        for event in self._news.values():
            event.set()
        drives = list(self._drives.values())
        self._drives.clear()
        self._waiting.clear()
        self._news.clear()
        await asyncio.gather(*(drive.close() for drive in drives))
        if self._ending:
            await asyncio.wait(self._ending, timeout=FAREWELL_SECONDS)
        ending = list(self._ending)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def submit(self, created: JobCreated, payloads: Mapping[str, bytes]) -> str:
        """Take a job into the journal and begin it; the same job again changes nothing.

        Raises
        ------
        JobError
            If there is another job of this id.
        """
        journal = self._around.journal
        for code, payload in payloads.items():
            self._around.code.put(code, payload)
        if not journal.create(created):
            known = self.state(created.job)
            first = journal.events(created.job)[0]
            same = isinstance(first, JobCreated) and first.plan.id == created.plan.id
            if not same or known.user != created.user:
                raise JobError(f"there is another job {created.job}")
            if not known.over and not journal.mine(created.job):
                self.start()  # perhaps the one who drove it is gone
            return created.job
        tracing.submitted(created.job)
        state = begin(created)
        self._changed(state)
        self._admit(state)
        return created.job

    def state(self, job: str) -> JobState:
        """The state of a job.

        Raises
        ------
        UnknownJob
            If it is not in this journal.
        """
        drive = self._drives.get(job)
        if drive is not None:
            return drive.state
        return self._waiting.get(job) or self._ended.get(job) or self._read(job)

    def _read(self, job: str) -> JobState:
        state = self._around.journal.state(job)
        if state.over:
            self._keep(state)
        return state

    def _keep(self, ended: JobState) -> None:
        self._ended[ended.job] = ended
        while len(self._ended) > KEPT_ENDS:
            del self._ended[next(iter(self._ended))]

    @property
    def busy(self) -> bool:
        """Whether a job is driven here, or waits for room."""
        return bool(self._drives or self._waiting)

    def jobs(self) -> list[str]:
        """Ids of all jobs in the journal, newest first."""
        return self._around.journal.jobs()

    async def events(self, job: str, since: int, wait: float) -> Sequence[Event]:
        """Events number ``since`` and later; waits up to ``wait`` s for the first of them.

        News come in bursts: a short job is told of in one answer, not in one for each event.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        found = self._around.journal.events(job, since)
        while not self._closed and not self.state(job).over:
            if found:
                end = min(end, loop.time() + BURST_SECONDS)
            rest = end - loop.time()
            if rest <= (BURST_SECONDS / 10 if found else 0):
                break
            if job not in self._drives and job not in self._waiting:
                rest = min(rest, GLANCE_SECONDS)  # another process may drive it
            news = self._news.setdefault(job, asyncio.Event())
            try:
                async with asyncio.timeout(rest):
                    await news.wait()
            except TimeoutError:
                pass
            if not self._closed:
                found = self._around.journal.events(job, since)
        return found

    def ask(self, job: str, what: Literal["cancel", "suspend", "resume"], by: str) -> None:
        """Do what a person asked for.

        Raises
        ------
        UnknownJob
            If the job is not in this journal.
        JobError
            If another process drives it; ask there.
        """
        journal = self._around.journal
        if self.state(job).over:
            return
        if not journal.mine(job):
            self.start()  # perhaps the one who drove it is gone
        event = Asked(what=what, by=by, time=self._around.clock())
        drive = self._drives.get(job)
        if drive is not None:
            if not drive.record(event):
                raise JobError(f"job {job}: this could not be written down; ask again")
            return
        after = apply(self.state(job), event)
        journal.append(job, [event], over=after.over)
        if after.over:
            self._waiting.pop(job, None)
        elif job in self._waiting:
            self._waiting[job] = after
        self._changed(after)

    # --- room ----------------------------------------------------------------------------------

    def _take_up(self, job: str) -> None:
        """Go on with a job where its journal ends."""
        self._again.pop(job, None)
        if self._closed or job in self._drives or job in self._waiting:
            return
        try:
            state = self._read(job)
        except Exception as error:
            self._stopped(job, error)
            return
        if not state.over:
            self._admit(state)
        else:
            self._changed(state)

    def _admit(self, state: JobState) -> None:
        if self._has_room():
            self._begin(state)
            return
        event = JobQueued(time=self._around.clock())
        after = apply(state, event)
        if after is not state:
            try:
                self._around.journal.append(state.job, [event])
            except Exception as error:
                self._stopped(state.job, error)
                return
        self._waiting[state.job] = after
        self._changed(after)
        if after.time_limit is not None and not after.over:
            rest = after.created + after.time_limit - self._around.clock()
            loop = asyncio.get_running_loop()
            self._limits[state.job] = loop.call_later(max(rest, 0.0), self._too_late, state.job)

    def _too_late(self, job: str) -> None:
        """End a job whose own time limit passed while it waited for room."""
        self._limits.pop(job, None)
        state = self._waiting.get(job)
        if state is None or self._closed:
            return
        event = TimeLimitReached(time=self._around.clock())
        after = apply(state, event)
        try:
            self._around.journal.append(job, [event], over=after.over)
        except Exception as error:
            del self._waiting[job]
            self._stopped(job, error)
            return
        del self._waiting[job]
        self._changed(after)

    def _has_room(self) -> bool:
        busy = sum(drive.state.status != "suspended" for drive in self._drives.values())
        return busy < self._most

    def _begin(self, state: JobState) -> None:
        drive = Drive(state, self._around, self._changed, self._stopped)
        self._drives[state.job] = drive
        with tracing.job(state.job, user=state.user, plan=state.plan.id) as span:
            self._spans[state.job] = span
            drive.start()

    def _changed(self, state: JobState) -> None:
        news = self._news.pop(state.job, None)
        if news is not None:
            news.set()
        try:
            self._tell(state)
        except Exception:  # the job is not to suffer from what others make of it
            log.exception("change_not_told", job=state.job)
        if state.over:
            self._keep(state)
            self._trace_end(state)
        if state.over or state.status == "suspended":
            asyncio.get_running_loop().call_soon(self._next)

    def _trace_end(self, state: JobState) -> None:
        span = self._spans.pop(state.job, None)
        if span is None:
            return
        span.say(status=state.status)
        if state.status != "done":
            span.failed(state.status)
        span.end()

    def _stopped(self, job: str, error: Exception) -> None:
        """The journal took no more events of a job: it stands still until it can be read again."""
        drive = self._drives.pop(job, None)
        if drive is not None:
            self._let_end(drive)
            asyncio.get_running_loop().call_soon(self._next)
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, JobError):
            log.warning("job_taken_over", job=job, reason=reason)
        elif not isinstance(error, sqlite3.Error | OSError):
            log.error("job_not_understood", job=job, reason=reason)
        elif not self._closed:
            log.error("journal_does_not_work", job=job, reason=reason)
            loop = asyncio.get_running_loop()
            self._again[job] = loop.call_later(AGAIN_SECONDS, self._take_up, job)

    def _let_end(self, drive: Drive) -> None:
        """A drive that has ended still tells its sites."""
        task = asyncio.create_task(drive.close(PATIENCE_SECONDS))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _next(self) -> None:
        """Let go of what has ended, and begin what waits if there is room now."""
        if self._closed:
            return
        for job in [job for job, drive in self._drives.items() if drive.state.over]:
            self._let_end(self._drives.pop(job))
        while self._waiting and self._has_room():
            state = self._waiting.pop(next(iter(self._waiting)))
            limit = self._limits.pop(state.job, None)
            if limit is not None:
                limit.cancel()
            self._begin(state)

"""Coordinator: the jobs of one site, from submission to their end, over all restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from dataflow.errors import JobError
from dataflow.execution.driver import Drive, Surroundings
from dataflow.execution.events import Asked, Event, JobCreated, JobQueued
from dataflow.execution.state import JobState, apply, begin

#: Jobs that are driven at once; the others wait in the order of their submission.
MOST_RUNNING = 200


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
        self._news: dict[str, asyncio.Event] = {}
        self._closed = False

    def start(self) -> list[str]:
        """Take up the unfinished jobs that nobody drives; their ids."""
        adopted = self._around.journal.adopt()
        for job in adopted:
            self._admit(self._around.journal.state(job))
        return adopted

    async def close(self) -> None:
        """Stop driving; whoever opens the journal next goes on."""
        self._closed = True
        await asyncio.gather(*(drive.close() for drive in self._drives.values()))
        self._drives.clear()
        self._waiting.clear()
        for event in self._news.values():
            event.set()

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
            first = journal.events(created.job)[0]
            same = isinstance(first, JobCreated) and first.plan.id == created.plan.id
            if not same or first.user != created.user:
                raise JobError(f"there is another job {created.job}")
            return created.job
        state = begin(created)
        self._tell(state)
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
        return self._waiting.get(job) or self._around.journal.state(job)

    def jobs(self) -> list[str]:
        """Ids of all jobs in the journal, newest first."""
        return self._around.journal.jobs()

    async def events(self, job: str, since: int, wait: float) -> Sequence[Event]:
        """Events number ``since`` and later; waits up to ``wait`` s for the first of them."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        while True:
            news = self._news.setdefault(job, asyncio.Event())
            try:
                found = self._around.journal.events(job, since)
            except BaseException:
                self._news.pop(job, None)
                raise
            rest = end - loop.time()
            if found or rest <= 0 or self._closed or self.state(job).over:
                if self.state(job).over:
                    self._news.pop(job, None)
                return found
            try:
                async with asyncio.timeout(rest):
                    await news.wait()
            except TimeoutError:
                continue

    def ask(self, job: str, what: Literal["cancel", "suspend", "resume"], by: str) -> None:
        """Do what a person asked for.

        Raises
        ------
        UnknownJob
            If the job is not in this journal.
        JobError
            If another process drives it; ask there.
        """
        state = self.state(job)
        if state.over:
            return
        event = Asked(what=what, by=by, time=self._around.clock())
        drive = self._drives.get(job)
        if drive is not None:
            drive.record(event)
            return
        after = apply(state, event)
        self._around.journal.append(job, [event], over=after.over)
        if after.over:
            self._waiting.pop(job, None)
        elif job in self._waiting:
            self._waiting[job] = after
        self._changed(after)

    # --- room ----------------------------------------------------------------------------------

    def _admit(self, state: JobState) -> None:
        if len(self._drives) < self._most:
            self._begin(state)
            return
        event = JobQueued(time=self._around.clock())
        self._around.journal.append(state.job, [event])
        self._waiting[state.job] = after = apply(state, event)
        self._changed(after)

    def _begin(self, state: JobState) -> None:
        drive = Drive(state, self._around, self._changed)
        self._drives[state.job] = drive
        drive.start()

    def _changed(self, state: JobState) -> None:
        news = self._news.pop(state.job, None)
        if news is not None:
            news.set()
        self._tell(state)
        if state.over and state.job in self._drives:
            drive = self._drives.pop(state.job)
            asyncio.get_running_loop().call_soon(self._next, drive)

    def _next(self, ended: Drive) -> None:
        """Begin what waits, now that there is room; the drive that ended tells its sites."""
        del ended
        while self._waiting and len(self._drives) < self._most and not self._closed:
            job = next(iter(self._waiting))
            self._begin(self._waiting.pop(job))

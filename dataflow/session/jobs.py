"""Job: the notebook's handle on a run; it holds nothing that would be lost with the kernel."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow import _html
from dataflow.datasets import Dataset
from dataflow.errors import DataflowError, SiteUnreachable, from_document
from dataflow.execution.events import Event, JobCreated, JobStatus, Stored, UnitReported
from dataflow.execution.pace import Pace
from dataflow.execution.replies import Reply
from dataflow.execution.state import JobState
from dataflow.execution.view import JobView, view_of
from dataflow.placement.plan import Plan
from dataflow.session import crating
from dataflow.session.attaching import how_to_come_back, in_notebook
from dataflow.session.bars import bar
from dataflow.session.listings import Ledger, Logs, Programs

if TYPE_CHECKING:
    from dataflow.session.session import Session

#: Asks for the journal: number of the first event wanted, and how long to wait for it (s).
Ask = Callable[[int, float], Awaitable[Sequence[Event]]]

#: Longest question (s) to the coordinator, and how long it may be silent while we wait.
POLL_SECONDS = 15.0
PATIENCE = 60.0
#: How often what answers take beyond the usual is added: two for each of three questions.
LATE_QUESTIONS = 6.0
#: Results that are opened side by side.
AT_A_TIME = 8
#: Between two looks (s) for replies.
GLANCE_SECONDS = 0.2


class Job:
    """One run of a plan, wherever it is coordinated.

    Made by ``session.submit``, or found again by ``session.job(id)``.
    """

    def __init__(
        self,
        session: Session,
        id: str,
        created: JobCreated | None = None,
        *,
        known: JobView | None = None,
    ) -> None:
        self.id = id
        self._session = session
        self._known = known
        self._pace = Pace()
        self._pace.take([] if created is None else [created])

    # --- looking ---------------------------------------------------------------------------------

    def view(self) -> JobView:
        """How it stands now, by the word of its coordinator."""
        self._known = self._session._run(self._session._participant.job(self.id))
        return self._known

    @property
    def _state(self) -> JobState | None:
        return self._pace.state

    @property
    def status(self) -> JobStatus:
        """``created``, ``queued``, ``running``, ``suspended``, ``done``, ``failed`` …"""
        if self._state is not None and self._state.over:
            return self._state.status
        return self.view().status

    @property
    def plan(self) -> Plan:
        """The plan that it follows now; another than submitted, if a site was lost."""
        return self._refreshed().plan

    @property
    def missing(self) -> Mapping[str, str]:
        """Label of each result that is left out → why; an answer with any is incomplete."""
        return self._refreshed().plan.missing

    def events(self, since: int = 0) -> Sequence[Event]:
        """Its journal."""
        return self._session._run(self._session._participant.job_events(self.id, since, 0.0))

    def ledger(self) -> Ledger:
        """What crossed links, beside what was predicted."""
        return Ledger(self._session._run(self._session._participant.ledger(self.id)))

    def programs(self) -> Programs:
        """The last run of each shell operation: state, batch job, files, what it used."""
        return Programs(self.view().programs)

    def logs(self) -> Logs:
        """What its shell operations wrote to their streams, as far as they have ended."""
        ended = [one for one in self.view().programs if one.of("stdout") or one.of("stderr")]
        return Logs(ended)

    def replies(self, timeout: float | None = None) -> Iterator[Reply]:
        """What each site says to the copies that were asked for, one by one as they come.

        A site that says nothing within the window (``window=``, 20 s) is answered for with
        ``timeout``; the job stays open, and the site gets its copy when it is back. Look again
        with ``job.view().replies``.

        Raises
        ------
        TimeoutError
            If somebody has no reply after ``timeout`` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        told: set[tuple[str, str]] = set()
        while True:
            replies = self.view().replies
            for reply in replies:
                if reply.status != "waiting" and (reply.key, reply.site) not in told:
                    told.add((reply.key, reply.site))
                    yield reply
            if len(told) == len(replies):
                return
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"job {self.id}: not every site has replied in {timeout:g} s")
            time.sleep(GLANCE_SECONDS)

    def crate(self, path: str | os.PathLike[str]) -> Path:
        """Describe an ended job as an RO-Crate: inputs, operations, sites, plan, ledger, results.

        Data stay where they are; the crate has their keys and digests.

        Parameters
        ----------
        path
            A folder to be made, or a ``.zip`` file; nothing may be there.

        Raises
        ------
        FileExistsError
            If something is there.
        JobError
            If the job goes on.
        """
        return crating.write(crating.files_of(self), path)

    # --- waiting ---------------------------------------------------------------------------------

    def wait(
        self, timeout: float | None = None, *, told: bool = True, progress: bool | None = None
    ) -> JobStatus:
        """Wait for the end, good or bad; the status.

        What takes more than a second shows a bar in notebooks and on terminals.

        Parameters
        ----------
        timeout
            Seconds; ``None`` for as long as it takes.
        told
            Whoever interrupts this is told how to come back.
        progress
            Whether there is a bar; by default as the setting ``progress`` says.

        Raises
        ------
        TimeoutError
            If it has not ended within ``timeout`` seconds; it goes on.
        SiteUnreachable
            If its coordinator does not answer for a minute, or longer where roads are slow; the
            job goes on when it is back.
        """
        try:
            wanted = self._session._settings.progress if progress is None else progress
            with bar(self.id, self._pace, wanted=wanted) as show:
                return self._session._run(self._wait(timeout), meanwhile=show)
        except KeyboardInterrupt:
            if told:
                print(how_to_come_back(self.id))
            raise

    def result(self, timeout: float | None = None) -> Any:
        """What it computed; a list if several results were asked for.

        Lazy xarray objects over the stored Zarr (up to 1 MiB they are loaded at once); tables as
        DataFrames, files as paths. Several are opened side by side.

        Raises
        ------
        DataflowError
            The error that ended the job, if it did not end well.
        TimeoutError
            If it has not ended within ``timeout`` seconds.
        """
        self.wait(timeout)
        state = self._refreshed()
        if state.error is not None:
            raise from_document(state.error)
        wanted = state.plan.outputs
        keys = list(dict.fromkeys(wanted))
        if len(keys) < 2:
            values = {key: self._open(state, key) for key in keys}
        else:  # each takes some questions and answers, over roads that do not depend on one another
            pool = ThreadPoolExecutor(min(len(keys), AT_A_TIME), "dataflow-result")
            try:
                values = dict(zip(keys, pool.map(partial(self._open, state), keys), strict=True))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return values[wanted[0]] if len(wanted) == 1 else [values[key] for key in wanted]

    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets of its results, in the order in which they were asked for; waits for the end.

        Raises
        ------
        DataflowError
            The error that ended the job, if it did not end well.
        """
        self.wait()
        state = self._refreshed()
        if state.error is not None:
            raise from_document(state.error)
        return tuple(self._dataset(state, key) for key in state.plan.outputs)

    def __await__(self) -> Generator[Any, None, Any]:
        """What it computed, as :meth:`result`; the loop of whoever waits goes on meanwhile."""
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        self._session._must_be_open()
        try:
            with bar(self.id, self._pace, wanted=self._session._settings.progress) as show:
                await self._session._loop.waited(self._wait(None), meanwhile=show)
        except (
            BaseException
        ) as error:  # an interrupted cell is cancelled, and so is a timeout's work
            if isinstance(error, KeyboardInterrupt) or (
                isinstance(error, asyncio.CancelledError) and in_notebook()
            ):
                print(how_to_come_back(self.id))
            raise
        return await asyncio.to_thread(self.result)

    def cancel(self) -> None:
        """Stop it; what is stored stays."""
        self._ask("cancel")

    def suspend(self) -> None:
        """Begin nothing new; what runs may end."""
        self._ask("suspend")

    def resume(self) -> None:
        """Go on after :meth:`suspend`."""
        self._ask("resume")

    def resubmit(self) -> Job:
        """The same plan once more, as a new job with an id and run directories of its own.

        What is stored is not made again: after a cancelled or failed job that is what it had got
        done, after a job that ended well everything.
        """
        first = self.events()[0]
        assert isinstance(first, JobCreated), "a journal begins with the creation of the job"
        return self._session.submit(
            first.plan, tags=first.tags, retries=first.retries, time_limit=first.time_limit
        )

    def dashboards(self, sites: Sequence[str]) -> dict[str, str]:
        """Site → URL of the page of its Dask scheduler, of those that have one and answer."""
        found = {}
        for site in sites:
            with suppress(DataflowError):
                if url := self._session.dashboard(site):
                    found[site] = url
        return found

    def in_background(self, work: Callable[[Ask], Coroutine[Any, Any, None]]) -> None:
        """Have something go on beside the notebook until it is done, or the session is closed.

        Parameters
        ----------
        work
            Gets a function that asks for the job's journal: from which event on, and how long to
            wait for it (s).
        """
        participant = self._session._participant

        async def ask(since: int, wait: float) -> Sequence[Event]:
            return await participant.job_events(self.id, since, wait)

        self._session._begin(work(ask))

    # --- inside ----------------------------------------------------------------------------------

    def _ask(self, what: Any) -> None:
        session = self._session
        session._run(session._participant.ask(self.id, what, session.user))

    def _open(self, state: JobState, key: str) -> Any:
        session = self._session
        copies = list(state.results()[key])
        away = session._participant.sync.away()
        before = all(made != key for made, _ in state.stored)
        if before or all(copy.site in away for copy in copies):
            snapshot = session._participant.snapshot()
            copies = list(dict.fromkeys([*copies, *snapshot.replicas_of(key)]))
        dataset = self._dataset(state, key)
        return session._read(dataset, copies, job=self.id, request=state.plan.request)

    def _dataset(self, state: JobState, key: str) -> Dataset:
        """The dataset of a result: stored by this job, or there before."""
        return state.dataset(key) or self._session._participant.snapshot().resolve(key)

    def _refreshed(self) -> JobState:
        if self._state is None or not self._state.over:
            self._session._run(self._follow(0.0))
        assert self._state is not None
        return self._state

    async def _follow(self, wait: float) -> None:
        """Take in the events since the last time; waits up to ``wait`` s for the first."""
        participant = self._session._participant
        events = await participant.job_events(self.id, self._pace.heard, wait)
        self._pace.take(events)
        for event in events:
            if isinstance(event, UnitReported) and isinstance(event.report, Stored):
                self._session._expect(event.report.replica)

    async def _wait(self, timeout: float | None) -> JobStatus:
        end = None if timeout is None else time.monotonic() + timeout
        heard = time.monotonic()
        while self._state is None or not self._state.over:
            rest = POLL_SECONDS if end is None else end - time.monotonic()
            if rest <= 0:
                status = self._state.status if self._state is not None else "unknown"
                raise TimeoutError(f"job {self.id} is {status} after {timeout:g} s; it goes on")
            try:
                await self._follow(min(rest, POLL_SECONDS))
                heard = time.monotonic()
            except SiteUnreachable as error:
                late = self._session._participant.ways.slowness(error.site)
                if time.monotonic() - heard > PATIENCE + LATE_QUESTIONS * late:
                    raise
                await asyncio.sleep(min(0.3, max(rest, 0.0)))
        return self._state.status

    # --- showing ---------------------------------------------------------------------------------

    def _shown(self) -> JobView:
        """How it stood when it was last heard of; asks nobody."""
        heard = None if self._state is None else view_of(self._state, "")
        if self._known is None:
            return heard or JobView(id=self.id, status="unknown")
        if heard is None or (self._known.updated > heard.updated and not heard.over):
            return self._known
        return heard if heard.coordinator else replace(heard, coordinator=self._known.coordinator)

    def __repr__(self) -> str:
        view = self._shown()
        units = f", {view.done} of {view.total} units" if view.total else ""
        heard = "" if view.over else " when last heard of"
        message = f": {view.message}" if view.message else ""
        return f"<Job {self.id} {view.status}{units}{heard}{message}>"

    def _repr_html_(self) -> str:
        view = self._shown()
        rows = [("status", view.status), ("units", f"{view.done} of {view.total}")]
        if view.coordinator:
            rows.append(("coordinator", view.coordinator))
        rows += [("tag", f"{name} = {value}") for name, value in sorted(view.tags.items())]
        rows += [("result", label) for label in view.results]
        if view.message:
            rows.append(("message", view.message))
        if not view.over:
            rows.append(("this is", "as last heard; .status asks, flow.view(job) follows"))
        return _html.block(_html.table(("job", self.id), rows)).text

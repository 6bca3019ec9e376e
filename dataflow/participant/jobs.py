"""Jobs: those that this site keeps, and what is heard of those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from dataflow.catalog.entries import JobSummary
from dataflow.catalog.records import Records
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset
from dataflow.documents import from_document
from dataflow.errors import DataflowError, SiteUnreachable, UnknownJob
from dataflow.execution.coordinator import Coordinator
from dataflow.execution.driver import Surroundings
from dataflow.execution.events import Event, JobCreated
from dataflow.execution.journal import Journal
from dataflow.execution.meter import Meter
from dataflow.execution.state import ENDS, JobState
from dataflow.execution.view import JobView, LedgerEntry, known_of, ledger_of, view_of
from dataflow.participant.learning import Learning
from dataflow.participant.ways import Ways
from dataflow.sites import Topology

#: How long to look for a job that nobody has heard of yet (s): news travels this fast.
HEARSAY_SECONDS = 1.5

What = Literal["cancel", "suspend", "resume"]


class Jobs:
    """All jobs of the federation, as one participant sees them.

    Parameters
    ----------
    name
        The participant's.
    around
        What a coordinator needs; its journal says which jobs are ours.
    meter
        What this site has handed out.
    snapshot, topology, away
        The world as it is known now, and who does not answer.
    tag
        Adds a user's words to the data with a key.
    """

    def __init__(
        self,
        name: str,
        around: Surroundings,
        records: Records,
        ways: Ways,
        meter: Meter,
        learning: Learning,
        *,
        snapshot: Callable[[], Snapshot],
        topology: Callable[[], Topology],
        away: Callable[[], frozenset[str]],
        tag: Callable[[str, str, Mapping[str, str]], None],
    ) -> None:
        self._name, self._clock = name, around.clock
        self._journal: Journal = around.journal
        self._records, self._ways, self._meter = records, ways, meter
        self._learning, self._snapshot, self._topology = learning, snapshot, topology
        self._away, self._tag = away, tag
        self.coordinator = Coordinator(around, self._changed)
        self._changes: dict[str, JobState] = {}
        self._summaries: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._keepers: dict[str, str] = {}
        #: Jobs that others took from us, and of which we have heard no news yet.
        self._given: dict[str, JobSummary] = {}

    async def submit(self, created: JobCreated, payloads: Mapping[str, bytes]) -> str:
        """Coordinate a job; it is in the journal when this returns."""
        if not created.time:
            created = replace(created, time=self._clock())
        return self.coordinator.submit(created, payloads)

    async def hand_over(
        self, created: JobCreated, payloads: Mapping[str, bytes], site: str, *, last: bool = True
    ) -> None:
        """Have a site coordinate a job: this one or another; patiently if it is the last to ask.

        Raises
        ------
        SiteUnreachable, SiteRefused
            If it does not take it.
        """
        if site == self._name:
            await self.submit(created, payloads)
            return
        await self._ways.to(site).submit(created, payloads, bear=last)
        self._keepers[created.job] = site
        self._given[created.job] = JobSummary(
            id=created.job,
            status="created",
            user=created.user,
            tags=created.tags,
            coordinator=site,
            created=created.time,
            updated=created.time,
            results=created.plan.outputs,
        )

    async def job(self, job_id: str) -> JobView:
        """A job of any site, by the word of its coordinator where that answers.

        Raises
        ------
        UnknownJob
            If nobody has heard of it.
        """
        if self._journal.knows(job_id):
            return self._kept(job_id, self._clock())
        keeper = await self._keeper(job_id)
        try:
            document = await self._ways.to(keeper).job_document(job_id)
        except SiteUnreachable as error:
            return _hearsay(self._summary(job_id), str(error))
        return from_document(JobView, document)

    def _kept(self, job_id: str, now: float | None = None) -> JobView:
        """A job of ours, as far as it can be known while sites do not answer."""
        state = self.coordinator.state(job_id)
        view = view_of(state, self._name, now=now, before=self._before)
        return known_of(view, self._away()) if view.programs else view

    def _before(self, key: str) -> Dataset | None:
        return next(iter(self._snapshot().with_key(key)), None)

    async def job_events(self, job_id: str, since: int, wait: float) -> Sequence[Event]:
        """A job's journal from an entry on; see :meth:`Coordinator.events`."""
        if self._journal.knows(job_id):
            return await self.coordinator.events(job_id, since, wait)
        return await self._ways.to(await self._keeper(job_id)).job_events(job_id, since, wait)

    async def ask(self, job_id: str, what: What, by: str) -> None:
        """Have a job cancelled, suspended or resumed by its coordinator."""
        if self._journal.knows(job_id):
            self.coordinator.ask(job_id, what, by)
            return
        await self._ways.to(await self._keeper(job_id)).ask(job_id, what, by)

    async def jobs(self) -> Sequence[JobView]:
        """All jobs of the federation, newest first, as last heard; ours are among them at once."""
        away, heard = self._away(), self._records.jobs()
        for summary in heard:
            self._given.pop(summary.id, None)
        given = [summary for summary in self._given.values() if summary.coordinator not in away]
        views = list(await asyncio.gather(*map(self._by_its_keeper, given)))
        waiting = [summary for summary in self._given.values() if summary.coordinator in away]
        for summary in (*waiting, *heard):
            if self._journal.knows(summary.id):
                views.append(self._kept(summary.id))
            elif summary.coordinator in away:
                views.append(_hearsay(summary, f"{summary.coordinator} does not answer"))
            else:
                views.append(_view_of_summary(summary))
        return sorted(views, key=lambda view: view.created, reverse=True)

    async def _by_its_keeper(self, summary: JobSummary) -> JobView:
        try:
            return await self.job(summary.id)
        except DataflowError as error:  # what we handed over is all that we know
            return _hearsay(summary, str(error))

    async def ledger(self, job: str | None) -> Sequence[LedgerEntry]:
        """What crossed links for a job; without one, what this site has served to others."""
        if job is None:
            return self._meter.entries(self._name)
        if self._journal.knows(job):
            return ledger_of(self.coordinator.state(job))
        found = await self._ways.to(await self._keeper(job)).ledger_documents(job)
        return [from_document(LedgerEntry, line) for line in found]

    async def _keeper(self, job_id: str) -> str:
        """The site that coordinates a job; news of it may be on its way to us.

        Raises
        ------
        UnknownJob
            If nobody has told us of it in time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + HEARSAY_SECONDS
        while job_id not in self._keepers:
            for _, summary in self._records.written("job"):
                if summary.coordinator != self._name:
                    self._keepers[summary.id] = summary.coordinator
            if job_id not in self._keepers:
                if loop.time() > end:
                    asked = {site.name for site in self._topology().sites} - self._away()
                    raise UnknownJob(job_id, sorted(asked))
                await asyncio.sleep(0.05)
        return self._keepers[job_id]

    def _summary(self, job_id: str) -> JobSummary:
        """What we last heard of a job of another site."""
        for _, summary in self._records.written("job"):
            if summary.id == job_id:
                found: JobSummary = summary
                return found
        known = self._given.get(job_id)
        return known or JobSummary(
            id=job_id, status="created", coordinator=self._keepers.get(job_id, "")
        )

    def _changed(self, state: JobState) -> None:
        """Have the others told; those who wait for the job itself come first."""
        if not self._changes:
            asyncio.get_running_loop().call_soon(self.tell)
        self._changes[state.job] = state

    def tell(self) -> None:
        """Tell the others how jobs stand that have changed since the last time."""
        changes, self._changes = self._changes, {}
        for state in changes.values():
            self._tell_change(state)

    def _tell_change(self, state: JobState) -> None:
        """Tell the others how a job stands; learn from it when it has ended."""
        results = tuple(key for key, copies in state.results().items() if copies)
        news = (state.status, results if state.over else ())
        if self._summaries.get(state.job) != news:
            self._summaries[state.job] = news
            self._records.add(
                JobSummary(
                    id=state.job,
                    status=state.status,
                    user=state.user,
                    tags=state.tags,
                    coordinator=self._name,
                    created=state.created,
                    updated=state.updated,
                    error=state.error,
                    results=state.plan.outputs,
                )
            )
        if state.over:
            self._summaries.pop(state.job, None)
            self._tag_reused(state)
            self._learning.from_job(state)

    def _tag_reused(self, state: JobState) -> None:
        """What was there before keeps its own tags; this user's words are added beside them."""
        if state.status != "done" or not state.tags:
            return
        made = {key for (key, _), stored in state.stored.items() if not stored.reused}
        for key in state.plan.outputs:
            if key not in made:
                self._tag(key, state.user, state.tags)


def _view_of_summary(summary: JobSummary) -> JobView:
    return JobView(
        id=summary.id,
        status=summary.status,  # type: ignore[arg-type]
        user=summary.user,
        tags=summary.tags,
        coordinator=summary.coordinator,
        created=summary.created,
        updated=summary.updated,
        outputs=summary.results,
        error=summary.error,
    )


def _hearsay(summary: JobSummary, reason: str) -> JobView:
    """A job whose coordinator does not answer: an end stays an end, all else is not known."""
    view = _view_of_summary(summary)
    if summary.status in ENDS:
        return view
    return replace(view, status="unknown", message=f"last heard: {summary.status}; {reason}")

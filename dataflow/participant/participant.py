"""Participant: one member of the federation in this process, wired together; asynchronous.

It keeps a catalog in step with the others', serves its own site's data and workers if it has a
site, and coordinates jobs. An agent is HTTP around it, a session is its synchronous face. This
module only calls and passes on.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import structlog

from dataflow.agreements import Agreement
from dataflow.backends.base import Backend
from dataflow.backends.make import make_backend
from dataflow.catalog.entries import (
    JobSummary,
    Peer,
    TagSet,
    entry,
    replica_id,
    tags_id,
)
from dataflow.catalog.records import Records
from dataflow.catalog.snapshot import Snapshot
from dataflow.catalog.sync import Sync
from dataflow.client.probe import measure_link, measure_store
from dataflow.config import Federation
from dataflow.datasets import Dataset, Replica
from dataflow.documents import from_document
from dataflow.errors import (
    DataflowError,
    SiteUnreachable,
    UnknownDataset,
    UnknownJob,
)
from dataflow.execution import observe
from dataflow.execution.code import CodeStore
from dataflow.execution.coordinator import Coordinator
from dataflow.execution.driver import Surroundings
from dataflow.execution.events import Errand, Event, JobCreated, SiteAccess
from dataflow.execution.journal import Journal
from dataflow.execution.meter import Meter
from dataflow.execution.release_run import OwnRecords
from dataflow.execution.runner import SiteRunner
from dataflow.execution.state import ENDS, JobState
from dataflow.execution.tally import Figure
from dataflow.execution.view import JobView, LedgerEntry, known_of, ledger_of, view_of
from dataflow.graph.graph import Graph
from dataflow.participant import agreeing, registering, watching
from dataflow.participant.audit import FILE as AUDIT_FILE
from dataflow.participant.audit import Audit
from dataflow.participant.gate import Gate, reader_of
from dataflow.participant.installed import install
from dataflow.participant.opened import Opened
from dataflow.participant.tidying import tidy_daily
from dataflow.participant.ways import Ways
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan
from dataflow.sites import Link, Site, Topology
from dataflow.storage.transfer import Source
from dataflow.stores import Store

log = structlog.get_logger(__name__)

#: What a participant without a site is called in its own file; nobody else reads that.
VISITOR = "visitor"
#: A measured link is measured again after this many seconds.
LINK_VALID_SECONDS = 24 * 3600.0
#: An agent does nothing else for so long (s): what it imports would slow its first answers down.
FIRST_ANSWERS_SECONDS = 0.25
#: A store that could not be measured is tried again after this many seconds: it is asked for real.
STORE_AGAIN_SECONDS = 300.0
#: A delay that differs by more than this (s), and by this share, has changed.
LEAST_CHANGE, CHANGED = 0.004, 0.2
#: How long to look for a job that nobody has heard of yet (s): news travels this fast.
HEARSAY_SECONDS = 1.5

#: Seconds between two looks whether what runs here is still granted.
RECHECK_SECONDS = 0.5

What = Literal["cancel", "suspend", "resume"]


class Participant:
    """One member of a federation.

    Parameters
    ----------
    federation
        What the site file says.
    address
        Where this participant's agent answers; ``None`` if it has none.
    clock
        Seconds since the epoch.
    period
        Seconds between two looks for news of the others.
    """

    def __init__(
        self,
        federation: Federation,
        address: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
        period: float = 0.5,
    ) -> None:
        self.federation = federation
        self._clock, self._address = clock, address
        self._has_site = federation.site is not None
        self.site: Site = federation.site or Site(name=VISITOR, workers=0)
        self.name = self.site.name
        self.state_dir = federation.state
        self.ways = Ways(federation, self.name, self.topology)
        self.ways.check()
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.records = Records(self.state_dir / "catalog.db", self.name)
        self.sync = Sync(
            self.records,
            Peer(site=self.name, address=address),
            self.ways.at,
            away_after=federation.away_after,
            period=period,
        )
        self.opened = Opened(federation, self.name, self.records, self.topology)
        self.code = CodeStore(self.state_dir / "code")
        self._meter = Meter(self.state_dir / "meter.db")
        self._journal = Journal(self.state_dir)
        own = federation.backend
        self._backend: Backend = make_backend(
            own.kind,
            workers=own.workers,
            threads=own.threads,
            memory=own.memory,
            settings=own.settings,
            directory=self.state_dir / "workers",
            site=self.name,
        )
        installed = install(federation.operations, self.code)
        self.site = replace(self.site, operations=tuple(sorted(installed)))
        self.audit = Audit(self.state_dir / AUDIT_FILE, clock)
        self.gate = Gate(self.site, self.records, self.audit, clock, installed)
        self._runner = SiteRunner(
            site=self.site,
            stores=lambda: self.opened.all,
            backend=self._backend,
            code=self.code,
            source_of=self.source_of,
            publish=self._publish,
            clock=clock,
            new_attempt=lambda: secrets.token_hex(8),
            admit=self.gate.order,
            own=OwnRecords(
                datasets=self._own_datasets,
                replicas=lambda: [r for r in self.records.replicas() if r.site == self.name],
                stores=self.stores,
                withdraw=lambda replica: self.records.remove(replica),
            ),
        )
        self._changes: dict[str, JobState] = {}
        around = Surroundings(
            journal=self._journal,
            code=self.code,
            access=self._access,
            replan=self._replan,
            source_of=self.source_of,
            datasets=self._datasets,
            clock=clock,
            lost_after=federation.lost_after,
            slowness=self.ways.slowness,
        )
        self.coordinator = Coordinator(around, self._job_changed)
        self._summaries: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._keepers: dict[str, str] = {}
        self._background: set[asyncio.Task[None]] = set()
        #: Roads from other sites to a participant that is no site, and to sites of stores.
        self._roads: dict[tuple[str, str], Link] = {}
        #: When sites of stores were measured, or could not be.
        self._asked: dict[str, float] = {}
        self._measured: tuple[int, Measurements] | None = None
        self._started = False

    @property
    def runner(self) -> SiteRunner:
        """The site's own runner."""
        return self._runner

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Publish the site, join the others, register what the file names, take jobs up again."""
        await self.sync.start()
        self._started = True
        if self._has_site:
            self.records.add(self.site)
        self.opened.publish()
        self.records.add(*self.federation.links)
        if self._has_site:
            agreeing.seed(self.records, self.federation.agreements, self.federation.archetypes)
        for peer in self.federation.peers:
            self.sync.join(peer.address, peer.credentials, peer.site)
        for listed in self.federation.datasets:
            try:
                await self.register(
                    listed.url,
                    name=listed.name,
                    tags=listed.tags,
                    variable=listed.variable,
                    owner=listed.owner,
                )
            except DataflowError as error:
                log.warning("dataset_not_registered", url=listed.url, reason=str(error))
        self.coordinator.start()
        if self._has_site:
            self._do(self._settle_in())
            self._do(self._keep_agreements())
            self._do(tidy_daily(self.stores, self.cache, self._clock))
        elif self.federation.views or any(p.ssh is not None for p in self.federation.peers):
            self._do(self._measure_links())  # what is relayed goes over here

    async def close(self) -> None:
        """Stop everything of ours; unfinished jobs are taken up at the next start."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.coordinator.close()
        self._tell_changes()
        await self._runner.close()
        await self._backend.close()
        await self.sync.close()
        await self.ways.close()
        self._journal.close()
        self._meter.close()
        self.records.close()

    def _do(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _settle_in(self) -> None:
        """Start the workers, and measure links after that: a busy machine looks like a slow road."""
        if self._address is not None:  # whoever had it started waits for a first answer
            await asyncio.sleep(FIRST_ANSWERS_SECONDS)
        try:
            await self._backend.start()
        except Exception:  # told again, to whoever needs a worker
            log.exception("workers_do_not_start", site=self.name)
        # Or the first registration would wait for it.
        await asyncio.to_thread(importlib.import_module, "dataflow.storage.probe")
        await self._measure_links()

    # --- the world ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that is known now."""
        return self.records.snapshot(away=self._away())

    def topology(self) -> Topology:
        """Sites, stores and links as known now."""
        return self.records.topology(away=self._away())

    def _away(self) -> frozenset[str]:
        return self.sync.away() if self._started else frozenset()

    async def join(self, address: str, credentials: str | None) -> None:
        """Join the federation of which an agent answers at ``address``; an administrator's word."""
        self.ways.allow(address, credentials)
        self.sync.join(address, credentials)

    def dashboard(self) -> str | None:
        """URL of the page of the site's Dask scheduler, on the site's own machine."""
        return self._backend.dashboard

    async def figures(self) -> Sequence[Figure]:
        """What is worth watching of this site, as it is now; see :mod:`.watching`."""
        return await asyncio.to_thread(
            watching.figures,
            self.records.jobs(),
            self._backend.leases(),
            self.sync.silent(),
            self._meter.entries(self.name),
            tuple(self._runner.tally.figures()),
        )

    def busy(self) -> bool:
        """Whether a job or an order is under way here."""
        return self.coordinator.busy or self._runner.busy

    async def _measure_links(self) -> None:
        """Measure the way from each other site to this one, once it is there and again daily.

        Of a site of stores also the way there.
        """
        while True:
            topology = self.topology()
            for site in topology.sites:
                if site.name == self.name or site.name in topology.away:
                    continue
                if site.stores_only and self.opened.at(site.name) is None:
                    continue
                if self._measured_lately(site.name):
                    continue
                with suppress(DataflowError, OSError):
                    for link in await self._measure(site):
                        if self._has_site:
                            self.records.add(link)
                        else:  # no site, nothing to tell others of
                            self._roads[link.source, link.target] = link
            self._follow_delays()
            await asyncio.sleep(1.0)

    def _follow_delays(self) -> None:
        """Publish the delay of a measured road when it has changed; the looks for news tell it."""
        topology = self.topology()
        for source in topology.site_by_name:
            seen = self.sync.round_trip(source)
            own = self._roads.get((source, self.name))
            known = own or topology.link(source, self.name)
            if seen is None or known.origin != "measured":
                continue
            if abs(seen - known.latency) > max(LEAST_CHANGE, CHANGED * known.latency):
                link = replace(known, latency=seen, measured_at=self._clock())
                if self._has_site:
                    self.records.add(link)
                else:
                    self._roads[source, self.name] = link

    def _measured_lately(self, source: str) -> bool:
        known: Link | None = self._roads.get((source, self.name)) or self.records.get(
            "link", f"{source}>{self.name}", self.name
        )
        if known is None or known.origin != "measured" or known.measured_at is None:
            return False
        return self._clock() - known.measured_at <= LINK_VALID_SECONDS

    async def _measure(self, site: Site) -> Sequence[Link]:
        clock, now = time.perf_counter, self._clock
        store = self.opened.at(site.name) if site.stores_only else None
        if store is not None:
            asked = self._asked.get(site.name)
            if asked is not None and now() - asked < STORE_AGAIN_SECONDS:
                return []
            self._asked[site.name] = now()
            known = self.opened.files(store)
            return await measure_store(store, here=self.name, clock=clock, now=now, files=known)
        agent = self.ways.to(site.name)
        there, here = site.name, self.name
        return [await measure_link(agent, source=there, target=here, clock=clock, now=now)]

    # --- agreements ---------------------------------------------------------------------------

    def agreements(self) -> list[Agreement]:
        """What the owners of data at this site grant."""
        return self.records.agreements(self.name)

    def agree(self, agreement: Agreement, by: str) -> None:
        """Put an agreement of this site in the place of the one of its name."""
        agreeing.put(self.records, self.audit, agreement, by)
        self._runner.recheck(self.gate.still)

    def withdraw(self, name: str, by: str) -> None:
        """Take an agreement of this site back; what rests on it ends.

        Raises
        ------
        PolicyError
            If there is none of this name.
        """
        agreeing.withdraw(self.records, self.audit, name, by)
        self._runner.recheck(self.gate.still)

    async def _keep_agreements(self) -> None:
        """End what no agreement carries any more: one was changed, here or elsewhere, or ran out."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                if self._runner.busy:
                    self._runner.recheck(self.gate.still)
            except Exception:  # asked again soon, and nothing new is let in without the gate
                log.exception("agreements_not_rechecked", site=self.name)

    def may_read(self, replica: Replica, errand: Errand, via: Sequence[str]) -> None:
        """Let the bytes of a copy at this site go, by way of the sites that see them.

        Raises
        ------
        NotGranted
            If an owner does not grant it.
        """
        self.gate.read(replica, reader_of(errand, *via))

    # --- datasets -------------------------------------------------------------------------------

    async def register(
        self,
        url: str,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        variable: str | None = None,
        owner: str = "",
        replica_of: str | None = None,
    ) -> Dataset:
        """Make a dataset of data that lies at this site, or in a store of a site of stores.

        It stays where it is.

        Raises
        ------
        UnreadableDataset
            If nothing is there that can be read.
        CatalogError
            If the name is taken by other data.
        """
        found, store = await asyncio.to_thread(registering.look_at, url, self.stores(), variable)
        dataset, replica = registering.records_of(
            found,
            store,
            url,
            site=self.name,
            name=name,
            owner=owner,
            tags=tags or {},
            records=self.records,
            replica_of=replica_of,
            now=self._clock(),
        )
        self.records.add(dataset, replica)
        return dataset

    async def see(self, site: str, record: Dataset | Replica, timeout: float) -> None:
        """Wait until our copy of a site's log has this record, or the time is over.

        Of a replica any record of it will do.
        """
        kind, id, _ = entry(record)
        end = asyncio.get_running_loop().time() + timeout
        if kind == "replica" and site in self.topology().stores_only:
            # Whoever put it there writes of it.
            while not any(replica_id(r) == id for r in self.records.replicas(record.key)):
                if asyncio.get_running_loop().time() > end:
                    return
                await asyncio.sleep(0.01)
            return
        while (known := self.records.get(kind, id, site)) != record:
            if known is not None and kind == "replica":
                return
            if asyncio.get_running_loop().time() > end:
                return
            await self.sync.hint(site, self.records.latest(site) + 1)
            await asyncio.sleep(0.01)

    def stores(self) -> tuple[Store, ...]:
        """Stores in which data may be registered here: our own, and those of sites of stores."""
        return self.opened.registrable()

    def store_of(self, replica: Replica) -> Store | None:
        """The store by which this participant itself gets at a copy, wherever that lies."""
        return self.opened.of(replica)

    def served_replica(self, replica_id: str) -> Replica:
        """A copy at this site that others may read, or in a store that this site opens.

        Raises
        ------
        UnknownDataset
            If this site has no such copy.
        """
        found: Replica | None = self.records.get("replica", replica_id, self.name)
        if found is None:
            raise UnknownDataset(replica_id)
        return found

    def tag(self, key: str, user: str, tags: Mapping[str, str]) -> None:
        """Add a user's words to the data with this key, beside everybody else's."""
        known: TagSet | None = self.records.get("tags", tags_id(key, user), self.name)
        merged = {**(known.tags if known else {}), **tags}
        self.records.add(TagSet(key=key, user=user, tags=merged, updated=self._clock()))

    def _own_datasets(self, key: str) -> list[Dataset]:
        written = self.records.written("dataset")
        return [dataset for site, dataset in written if site == self.name and dataset.key == key]

    def _publish(self, records: Sequence[Any]) -> None:
        self.records.add(*records)

    def _datasets(self, keys: Sequence[str]) -> Mapping[str, Dataset]:
        snapshot = self.snapshot()
        found = {}
        for key in keys:
            with suppress(DataflowError):
                found[key] = snapshot.resolve(key)
        return found

    def source_of(self, replica: Replica, errand: Errand) -> Source:
        """Straight from the store, if we open it ourselves, else from an agent.

        What lies here goes only where its owner lets it go.

        Raises
        ------
        NotGranted
            If an owner does not grant it.
        """
        if replica.site == self.name and self._has_site and errand.to not in ("", self.name):
            self.gate.read(replica, reader_of(errand))
        source = self.opened.source(replica)
        if source is not None:
            return source
        return self.ways.to(self.opened.server(replica)).source(replica_id(replica), job=errand)

    # --- plans ----------------------------------------------------------------------------------

    def plan(self, graph: Graph, **asked: Any) -> Plan:
        """A plan in the world as it is known now; see :func:`planning.plan_graph`."""
        from dataflow.participant import planning  # numpy: an agent answers before it plans
        from dataflow.participant.owners import Asking

        asking = replace(asked.pop("asking", None) or Asking(), time=self._clock())
        asked = {"near": self._near, "asking": asking, **asked}
        return planning.plan_graph(graph, self._seen_from_here(), self.measurements(), **asked)

    def plan_move(self, dataset: Dataset, to: str, source: str | None, **asked: Any) -> Plan:
        """A plan that moves a dataset; see :func:`planning.plan_move`."""
        from dataflow.participant import planning
        from dataflow.participant.owners import Asking

        asking = replace(asked.pop("asking", None) or Asking(), time=self._clock())
        asked = {"near": self._near, "asking": asking, **asked}
        seen, known = self._seen_from_here(), self.measurements()
        return planning.plan_move(dataset, to, seen, known, source=source, **asked)

    @property
    def _near(self) -> str:
        return self.name if self._has_site else ""

    def _seen_from_here(self) -> Snapshot:
        """The snapshot to plan with: what others cannot ask for goes over here."""
        snapshot = self.snapshot()
        topology = snapshot.topology
        hidden = {site.name for site in topology.sites if self.ways.by_ssh(site.name)}
        if self._has_site and self._address is None:
            hidden.add(self.name)
        if not hidden and not topology.stores_only:
            return snapshot
        from dataflow.participant import planning

        topology = replace(topology, links=(*topology.links, *self._roads.values()))
        return replace(snapshot, topology=planning.with_relays(topology, self.name, hidden))

    def measurements(self) -> Measurements:
        """What all sites have learned from finished work."""
        written = [record for _, record in self.records.written("measurement")]
        seen = sum(self.records.versions().values())
        if self._measured is None or self._measured[0] != seen:
            self._measured = (seen, observe.measurements_of(written))
        return self._measured[1]

    async def _replan(self, state: JobState) -> Plan:
        from dataflow.participant import planning

        snapshot, known = self._seen_from_here(), self.measurements()
        return planning.plan_rest(state, snapshot, known, self._near, self._clock())

    # --- jobs -----------------------------------------------------------------------------------

    async def submit(self, created: JobCreated, payloads: Mapping[str, bytes]) -> str:
        """Coordinate a job; it is in the journal when this returns."""
        if not created.time:
            created = replace(created, time=self._clock())
        return self.coordinator.submit(created, payloads)

    async def hand_over(
        self, created: JobCreated, payloads: Mapping[str, bytes], site: str
    ) -> None:
        """Have a site coordinate a job: this one or another.

        Raises
        ------
        SiteUnreachable, SiteRefused
            If it does not take it.
        """
        if site == self.name:
            await self.submit(created, payloads)
            return
        await self.ways.to(site).submit(created, payloads)
        self._keepers[created.job] = site

    async def job(self, job_id: str) -> JobView:
        """A job of any site, by the word of its coordinator where that answers.

        Raises
        ------
        UnknownJob
            If nobody has heard of it.
        """
        if self._journal.knows(job_id):
            now = self._clock()
            return self._seen(view_of(self.coordinator.state(job_id), self.name, now=now))
        keeper = await self._keeper(job_id)
        try:
            document = await self.ways.to(keeper).job_document(job_id)
        except SiteUnreachable as error:
            return _hearsay(self._summary(job_id), str(error))
        return from_document(JobView, document)

    def _seen(self, view: JobView) -> JobView:
        """A job of ours, as far as it can be known while sites do not answer."""
        return known_of(view, self._away()) if view.programs else view

    async def job_events(self, job_id: str, since: int, wait: float) -> Sequence[Event]:
        """A job's journal from an entry on; see :meth:`Coordinator.events`."""
        if self._journal.knows(job_id):
            return await self.coordinator.events(job_id, since, wait)
        return await self.ways.to(await self._keeper(job_id)).job_events(job_id, since, wait)

    async def ask(self, job_id: str, what: What, by: str) -> None:
        """Have a job cancelled, suspended or resumed by its coordinator."""
        if self._journal.knows(job_id):
            self.coordinator.ask(job_id, what, by)
            return
        await self.ways.to(await self._keeper(job_id)).ask(job_id, what, by)

    async def jobs(self) -> Sequence[JobView]:
        """All jobs of the federation, newest first, as last heard."""
        away = self._away()
        views = []
        for summary in self.records.jobs():
            if self._journal.knows(summary.id):
                views.append(self._seen(view_of(self.coordinator.state(summary.id), self.name)))
            elif summary.coordinator in away:
                views.append(_hearsay(summary, f"{summary.coordinator} does not answer"))
            else:
                views.append(_view_of_summary(summary))
        return views

    async def ledger(self, job: str | None) -> Sequence[LedgerEntry]:
        """What crossed links for a job; without one, what this site has served to others."""
        if job is None:
            return self._meter.entries(self.name)
        if self._journal.knows(job):
            return ledger_of(self.coordinator.state(job))
        found = await self.ways.to(await self._keeper(job)).ledger_documents(job)
        return [from_document(LedgerEntry, line) for line in found]

    def meter(self, job: str, key: str, nbytes: int, to: str) -> None:
        """Note bytes that this site handed out for a job."""
        self._meter.add(job, key, nbytes, to, self._clock())
        self.gate.served(job, key, nbytes, to)

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
            for _, summary in self.records.written("job"):
                if summary.coordinator != self.name:
                    self._keepers[summary.id] = summary.coordinator
            if job_id not in self._keepers:
                if loop.time() > end:
                    asked = {site.name for site in self.topology().sites} - self._away()
                    raise UnknownJob(job_id, sorted(asked))
                await asyncio.sleep(0.05)
        return self._keepers[job_id]

    def _summary(self, job_id: str) -> JobSummary:
        """What we last heard of a job of another site."""
        for _, summary in self.records.written("job"):
            if summary.id == job_id:
                found: JobSummary = summary
                return found
        return JobSummary(id=job_id, status="created", coordinator=self._keepers.get(job_id, ""))

    def _access(self, site: str) -> SiteAccess:
        return self._runner if site == self.name else self.ways.to(site)

    def _job_changed(self, state: JobState) -> None:
        """Have the others told; those who wait for the job itself come first."""
        if not self._changes:
            asyncio.get_running_loop().call_soon(self._tell_changes)
        self._changes[state.job] = state

    def _tell_changes(self) -> None:
        changes, self._changes = self._changes, {}
        for state in changes.values():
            self._tell_change(state)

    def _tell_change(self, state: JobState) -> None:
        """Tell the others how a job stands; learn from it when it has ended."""
        results = tuple(key for key, copies in state.results().items() if copies)
        news = (state.status, results if state.over else ())
        if self._summaries.get(state.job) != news:
            self._summaries[state.job] = news
            self.records.add(
                JobSummary(
                    id=state.job,
                    status=state.status,
                    user=state.user,
                    tags=state.tags,
                    coordinator=self.name,
                    created=state.created,
                    updated=state.updated,
                    error=state.error,
                    results=state.plan.outputs,
                )
            )
        if state.over:
            self._summaries.pop(state.job, None)
            self._tag_reused(state)
            self._learn(state)

    def _tag_reused(self, state: JobState) -> None:
        """What was there before keeps its own tags; this user's words are added beside them."""
        if state.status != "done" or not state.tags:
            return
        made = {key for (key, _), stored in state.stored.items() if not stored.reused}
        for key in state.plan.outputs:
            if key not in made:
                self.tag(key, state.user, state.tags)

    def _learn(self, state: JobState) -> None:
        try:
            for seen in observe.observations(state.plan, list(state.stored.values())):
                name = f"pace:{seen.operation}:{seen.site}"
                self.records.put(
                    "measurement",
                    name,
                    observe.fold(self.records.get("measurement", name, self.name), seen),
                )
            links = {(link.source, link.target): link for link in self.records.links()}
            for crossed in state.crossed:
                if crossed.via:
                    continue  # it says nothing about whether one can ask the other
                known = links.get((crossed.source, crossed.target))
                link = observe.link_of(crossed, known, self._clock())
                if link is not None:
                    self.records.add(link)
        except Exception:  # learning is a kindness; a job must not fail of it
            log.exception("nothing_learned", job=state.job)

    @property
    def cache(self) -> Path:
        """Where copies for this account's own reading lie."""
        return self.state_dir / "cache"


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

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
from math import inf
from pathlib import Path
from typing import Any

import structlog

from dataflow.agreements import Agreement
from dataflow.backends.base import Backend
from dataflow.backends.make import make_backend
from dataflow.backends.processes import tidy_runs
from dataflow.backends.surroundings import inner_host
from dataflow.catalog.entries import (
    Peer,
    TagSet,
    entry,
    replica_id,
    tags_id,
)
from dataflow.catalog.records import Records
from dataflow.catalog.snapshot import Snapshot
from dataflow.catalog.sync import Sync
from dataflow.client.ssh import SshReach
from dataflow.config import Federation
from dataflow.datasets import Dataset, Replica
from dataflow.documents import from_document
from dataflow.errors import (
    DataflowError,
    UnknownDataset,
)
from dataflow.execution.code import CodeStore
from dataflow.execution.driver import Surroundings
from dataflow.execution.events import Errand, Event, JobCreated, SiteAccess
from dataflow.execution.journal import Journal
from dataflow.execution.meter import Meter
from dataflow.execution.release_run import OwnRecords
from dataflow.execution.runner import SiteRunner
from dataflow.execution.tally import Figure
from dataflow.execution.view import JobView, LedgerEntry
from dataflow.graph.graph import Graph
from dataflow.participant import agreeing, proving, registering, watching
from dataflow.participant.answered import FILE as ANSWERED_FILE
from dataflow.participant.answered import Answered
from dataflow.participant.audit import FILE as AUDIT_FILE
from dataflow.participant.audit import Audit
from dataflow.participant.counting import Counting
from dataflow.participant.gate import Gate, reader_of
from dataflow.participant.hearing import hear_of_inputs
from dataflow.participant.installed import install
from dataflow.participant.jobs import Jobs, What
from dataflow.participant.learning import Learning
from dataflow.participant.loading import Loading, loads_of
from dataflow.participant.measuring import Measuring
from dataflow.participant.negotiating import FILE as NEGOTIATIONS_FILE
from dataflow.participant.negotiating import Negotiations
from dataflow.participant.notebooks import Cells, Invite, Notebooks
from dataflow.participant.opened import Opened
from dataflow.participant.planner import Planner
from dataflow.participant.refusals import Refusals
from dataflow.participant.revoking import Revoking
from dataflow.participant.roads import ROADS_FILE, Roads
from dataflow.participant.tidying import tidy_daily
from dataflow.participant.ways import Ways
from dataflow.placement.plan import Plan
from dataflow.sites import Site, Topology
from dataflow.storage.transfer import Source
from dataflow.stores import Store

log = structlog.get_logger(__name__)

#: What a participant without a site is called in its own file; nobody else reads that.
VISITOR = "visitor"
#: An agent does nothing else for so long (s): what it imports would slow its first answers down.
FIRST_ANSWERS_SECONDS = 0.25


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
    reaches
        Ways through login hosts, by address, that were begun before; closed here from now on.
    prepare
        Whether workers start at once, or when somebody wants one.
    """

    def __init__(
        self,
        federation: Federation,
        address: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
        period: float = 0.5,
        reaches: Mapping[str, SshReach] | None = None,
        prepare: bool = True,
    ) -> None:
        self.federation = federation
        self._clock, self._address, self._prepare = clock, address, prepare
        self._has_site = federation.site is not None
        self.site: Site = federation.site or Site(name=VISITOR, workers=0)
        self.name = self.site.name
        self.state_dir = federation.state
        self.ways = Ways(federation, self.name, self.topology, self._silent, reaches)
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
        self._installed = install(federation.operations, self.code)
        self.site = replace(self.site, operations=tuple(sorted(self._installed)))
        self.audit = Audit(self.state_dir / AUDIT_FILE, clock)
        self._refusals = Refusals(self.audit, clock)
        self._answered = Answered(self.state_dir / ANSWERED_FILE)
        self.gate = Gate(self.site, self.records, self.audit, clock, self._installed)
        self.counting = Counting(self.name, self.gate, self._answered, self.audit, clock)
        runs = self.state_dir / "runs"
        able = self._backend.programs
        self.notebooks = Notebooks(
            self.name,
            [runs] if able is None else [able.runs.absolute()],
            lambda order: self._runner.known(order),
            self.gate.look,
        )
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
            hear=lambda order: hear_of_inputs(order, self.site, self.records, self.sync),
            counting=self.counting,
            runs=runs,
            invite=self.notebooks.invite,
            own=OwnRecords(
                datasets=self._own_datasets,
                replicas=lambda: [r for r in self.records.replicas() if r.site == self.name],
                stores=self.stores,
                withdraw=lambda replica: self.records.remove(replica),
                second=lambda copy: proving.second_of(copy, self.records),
            ),
        )
        self._learning = Learning(self.records, clock)
        self._measuring = Measuring(
            self.name,
            self._has_site,
            Roads(self.state_dir / ROADS_FILE),
            self.records,
            self.sync,
            self.opened,
            self.ways,
            self.topology,
            clock,
        )
        self._planner = Planner(
            self.name,
            self._has_site,
            address is not None,
            self.ways,
            self.snapshot,
            self._learning.measurements,
            lambda: loads_of(self.records.written("measurement")),
            self._measuring.roads,
            clock,
        )
        around = Surroundings(
            journal=self._journal,
            code=self.code,
            access=self._access,
            replan=self._planner.replan,
            source_of=self.source_of,
            datasets=self._datasets,
            clock=clock,
            lost_after=federation.lost_after,
            slowness=lambda site: self.ways.slowness(site) + self.ways.beginning(site),
        )
        self._jobs = Jobs(
            self.name,
            around,
            self.records,
            self.ways,
            self._meter,
            self._learning,
            snapshot=self.snapshot,
            topology=self.topology,
            away=self._away,
            tag=self.tag,
        )
        self.coordinator = self._jobs.coordinator
        self._revoking = Revoking(
            self._runner, self.gate, self.records, self.opened.of, self.audit, clock
        )
        self.negotiations = Negotiations(
            self.state_dir / NEGOTIATIONS_FILE, self.records, self.audit, self.agree, clock
        )
        self._background: set[asyncio.Task[None]] = set()
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
            agreeing.offer(self.records, self._installed)
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
            self._do(self._measuring.follow_delays())
            self._do(self._revoking.run())
            if (limit := self.federation.loaded_at) is not None:
                self._do(Loading(self.name, self._backend, self.records, limit).run())
            self._do(tidy_daily(self.stores, self.cache, self._clock))
        elif self.federation.views or any(p.ssh is not None for p in self.federation.peers):
            self._do(self._measuring.run())  # what is relayed goes over here
            self._do(self._measuring.follow_delays())

    async def close(self) -> None:
        """Stop everything of ours; unfinished jobs are taken up at the next start."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.coordinator.close()
        self._jobs.tell()
        await self._runner.close()
        await self._backend.close()
        await self.sync.close()
        await self.ways.close()
        self._journal.close()
        self._meter.close()
        self._answered.close()
        self.negotiations.close()
        self.records.close()

    def _do(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _settle_in(self) -> None:
        """Start the workers, and measure links after that: a busy machine looks like a slow road."""
        if self._address is not None:  # whoever had it started waits for a first answer
            await asyncio.sleep(FIRST_ANSWERS_SECONDS)
        if self._prepare:
            try:
                await self._backend.start()
            except Exception:  # told again, to whoever needs a worker
                log.exception("workers_do_not_start", site=self.name)
            await asyncio.to_thread(tidy_runs, self.state_dir / "runs")
            # Or the first registration would wait for it.
            await asyncio.to_thread(importlib.import_module, "dataflow.storage.probe")
        await self._measuring.run()

    # --- the world ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that is known now."""
        return self.records.snapshot(away=self._away())

    def topology(self) -> Topology:
        """Sites, stores and links as known now."""
        return self.records.topology(away=self._away())

    def _away(self) -> frozenset[str]:
        return self.sync.away() if self._started else frozenset()

    def _silent(self, site: str) -> float:
        return self.sync.silent().get(site, inf)

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

    def refused(self, user: str, what: str, because: str) -> None:
        """Write down what the agent said no to; ``user`` is empty for strangers."""
        self._refusals.write(user, what, because)

    def busy(self) -> bool:
        """Whether a job or an order is under way here."""
        return self.coordinator.busy or self._runner.busy

    # --- notebooks ------------------------------------------------------------------------------

    @property
    def inner_host(self) -> str:
        """The address of this host by which notebooks that run at this site reach it."""
        return inner_host(self.federation.backend, elsewhere=self._backend.programs is not None)

    def answered_by(self, invite: Invite | None) -> None:
        """From now on notebooks that run here get their invitations there."""
        self.notebooks.answered_by = invite

    def underway(self, order: str) -> str | None:
        """The user of an order that runs here now; ``None`` of any other."""
        return self._runner.owner(order) if self._runner.underway(order) else None

    async def cells(self, site: str, run: str, since: int, wait: float) -> Cells:
        """Cells that a notebook at a site has executed; see :meth:`.Notebooks.cells`."""
        if site == self.name:
            return await self.notebooks.cells(run, since, wait)
        return from_document(Cells, await self.ways.to(site).cells(run, since, wait))

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

    def may_read(
        self, replica: Replica, errand: Errand, via: Sequence[str], *, again: bool = False
    ) -> None:
        """Let the bytes of a copy at this site go, by way of the sites that see them.

        ``again``: they are on their way, and this asks whether they may still go.

        Raises
        ------
        NotGranted
            If an owner does not grant it.
        """
        self.gate.read(replica, reader_of(errand, *via), again=again)

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
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._see(site, record)

    async def _see(self, site: str, record: Dataset | Replica) -> None:
        kind, id, _ = entry(record)
        if kind == "replica" and site in self.topology().stores_only:
            # Whoever put it there writes of it.
            while not any(replica_id(r) == id for r in self.records.replicas(record.key)):
                await asyncio.sleep(0.01)
            return
        pause = 0.005
        while (known := self.records.get(kind, id, site)) != record:
            if known is not None and kind == "replica":
                return
            await self.sync.look(site)
            await self.sync.hint(site, self.records.latest(site) + 1)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)

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
        self.records.add(*proving.with_proofs(records, self._own_dataset))

    def _own_dataset(self, id: str) -> Dataset | None:
        found: Dataset | None = self.records.get("dataset", id, self.name)
        return found

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
        return self._planner.plan(graph, **asked)

    def plan_move(self, dataset: Dataset, to: str, source: str | None, **asked: Any) -> Plan:
        """A plan that moves a dataset; see :func:`planning.plan_move`."""
        return self._planner.plan_move(dataset, to, source, **asked)

    # --- jobs -----------------------------------------------------------------------------------

    async def submit(self, created: JobCreated, payloads: Mapping[str, bytes]) -> str:
        """Coordinate a job; it is in the journal when this returns."""
        return await self._jobs.submit(created, payloads)

    async def hand_over(
        self, created: JobCreated, payloads: Mapping[str, bytes], site: str, *, last: bool = True
    ) -> None:
        """Have a site coordinate a job; see :meth:`.Jobs.hand_over`."""
        await self._jobs.hand_over(created, payloads, site, last=last)

    async def job(self, job_id: str) -> JobView:
        """A job of any site; see :meth:`.Jobs.job`."""
        return await self._jobs.job(job_id)

    async def job_events(self, job_id: str, since: int, wait: float) -> Sequence[Event]:
        """A job's journal from an entry on; see :meth:`.Coordinator.events`."""
        return await self._jobs.job_events(job_id, since, wait)

    async def ask(self, job_id: str, what: What, by: str) -> None:
        """Have a job cancelled, suspended or resumed by its coordinator."""
        await self._jobs.ask(job_id, what, by)

    async def jobs(self) -> Sequence[JobView]:
        """All jobs of the federation, newest first, as last heard."""
        return await self._jobs.jobs()

    async def ledger(self, job: str | None) -> Sequence[LedgerEntry]:
        """What crossed links for a job; without one, what this site has served to others."""
        return await self._jobs.ledger(job)

    def meter(self, job: str, key: str, nbytes: int, to: str) -> None:
        """Note bytes that this site handed out for a job."""
        self._meter.add(job, key, nbytes, to, self._clock())
        self.gate.served(job, key, nbytes, to)

    def _access(self, site: str) -> SiteAccess:
        return self._runner if site == self.name else self.ways.to(site)

    @property
    def cache(self) -> Path:
        """Where copies for this account's own reading lie."""
        return self.state_dir / "cache"

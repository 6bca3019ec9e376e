"""Sites in memory: a durable store each, and a process that forgets its orders when it dies.

What they do is what a real site does, as far as a driver can tell: orders run for a while, results
become visible by one commit, what is stored is not computed again, and nothing of an order is left
after a restart. What must never happen is noted under ``complaints``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Extent, Replica
from dataflow.errors import (
    JobCancelled,
    SiteRefused,
    SiteUnreachable,
    TransferFailed,
    UnreadableDataset,
    WorkerLost,
    to_document,
)
from dataflow.execution.code import CodeStore
from dataflow.execution.coordinator import Coordinator
from dataflow.execution.driver import Surroundings
from dataflow.execution.events import (
    Broke,
    Crossed,
    Ended,
    Fault,
    JobCreated,
    Order,
    Report,
    SegmentOrder,
    SiteAccess,
    Stored,
    TransferOrder,
)
from dataflow.execution.journal import Journal
from dataflow.execution.state import JobState
from dataflow.graph.graph import Graph
from dataflow.participant.planning import plan_rest
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan
from dataflow.policy.check import check
from dataflow.sites import Site, Topology
from dataflow.testing import strategies

# --- one site ---------------------------------------------------------------------------------------


@dataclass
class _Running:
    reports: list[Report] = field(default_factory=list)
    ended: bool = False
    cancelled: bool = False
    work: asyncio.Task[None] | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)


def broke(error: Exception, fault: Fault) -> Broke:
    return Broke(error=to_document(error), fault=fault)


def _nothing_is_relayed(replica: Replica, job: str) -> Any:
    raise AssertionError(f"{replica.url} is relayed for {job}")


class SimulatedSite:
    """A :class:`SiteAccess` whose store outlives it."""

    def __init__(self, name: str, federation: Federation) -> None:
        self.name, self.federation = name, federation
        # Durable:
        self.store: dict[str, Replica] = {}
        self.codes: dict[str, bytes] = {}
        self.commits: Counter[str] = Counter()
        self.computed: Counter[str] = Counter()
        self.interrupted: Counter[str] = Counter()
        # Volatile:
        self.orders: dict[str, _Running] = {}
        self.making: dict[str, asyncio.Lock] = {}
        # What a test makes it do:
        self.delay = 0.002
        self.answers_after = 0.0
        self.cut = ""
        self.refuses = ""
        self.breaks: deque[Broke | None] = deque()
        self.keeps_results = True
        # What a test may look at:
        self.given: list[str] = []
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.asked = 0

    def seed(self, replica: Replica) -> None:
        self.store[replica.key] = replica

    def restart(self) -> None:
        """All that was in memory is gone; in the middle of whatever it did."""
        orders, self.orders, self.making = self.orders, {}, {}
        for running in orders.values():
            if running.work is not None:
                running.work.cancel()
            running.news.set()

    # --- SiteAccess ---------------------------------------------------------------------------

    async def start(self, order: Order) -> None:
        await self._answer()
        if self.refuses:
            raise SiteRefused(self.name, self.refuses)
        if order.site != self.name:
            self.federation.complain(f"{order.id} for {order.site} was sent to {self.name}")
        if order.id not in self.orders:
            self.started.append(order.id)
            running = self.orders[order.id] = _Running()
            running.work = asyncio.create_task(self._carry_out(order, running))

    async def follow(self, order: str, since: int, wait: float) -> Sequence[Report]:
        await self._answer()
        running = self.orders[order]
        if since > len(running.reports):
            self.federation.complain(f"{order}: report {since} of {len(running.reports)} awaited")
        try:
            async with asyncio.timeout(wait):
                while len(running.reports) <= since and not running.ended:
                    await running.news.wait()
                    self._reached()
                    running = self.orders[order]
        except TimeoutError:
            pass
        self._reached()
        return tuple(self.orders[order].reports[since:])

    async def cancel(self, order: str) -> None:
        await self._answer()
        self.stopped.append(order)
        running = self.orders.get(order)
        if running is not None and running.work is not None and not running.ended:
            running.cancelled = True
            running.work.cancel()

    async def give_code(self, code: str, payload: bytes) -> None:
        await self._answer()
        self.given.append(code)
        self.codes[code] = payload

    async def has_code(self, codes: Sequence[str]) -> Sequence[str]:
        await self._answer()
        return [code for code in codes if code in self.codes]

    async def _answer(self) -> None:
        self.asked += 1
        self._reached()
        await asyncio.sleep(self.answers_after)
        self._reached()

    def _reached(self) -> None:
        if self.cut:
            raise SiteUnreachable(self.name, self.cut)

    # --- an order -----------------------------------------------------------------------------

    async def _carry_out(self, order: Order, running: _Running) -> None:
        last: Report
        try:
            self.federation.point(self, "begins")
            wrong = self.breaks.popleft() if self.breaks else None
            if wrong is not None:
                last = wrong
            elif isinstance(order, SegmentOrder):
                last = await self._segment(order, running)
            else:
                last = await self._transfer(order, running)
        except asyncio.CancelledError:
            if not running.cancelled:
                return  # the process died
            last = broke(JobCancelled(order.job), "user")
        running.ended = True
        self._report(running, last)

    async def _segment(self, order: SegmentOrder, running: _Running) -> Report:
        missing = [s.label for s in order.steps if s.operation.code not in self.codes]
        if missing:
            return broke(SiteRefused(self.name, f"the code of {missing} is missing"), "site")
        known = set()
        for key, replica in order.inputs.items():
            if replica.site != self.name or key not in order.datasets:
                self.federation.complain(f"{order.id}: {key} is read at {replica.site}")
            if self.store.get(key) != replica:
                return broke(UnreadableDataset(replica.url, "there is no such thing"), "input")
            known.add(key)
        for step in order.steps:
            if not known.issuperset(step.inputs):
                self.federation.complain(f"{order.id}: {step.label} without its inputs")
            known.add(step.key)
        for key in order.outputs:
            async with self.making.setdefault(key, asyncio.Lock()):  # another order may make it
                reused = key in self.store
                if not reused:
                    await self._compute(key)
            self._tell_stored(running, key, reused, 0.0 if reused else self.delay)
        return Ended(seconds=self.delay)

    async def _transfer(self, order: TransferOrder, running: _Running) -> Report:
        key, source = order.key, self.federation.sites[order.replica.site]
        if key in self.store:
            self._tell_stored(running, key, True, 0.0)
            return Ended()
        await asyncio.sleep(self.delay)
        if source.cut:
            error = TransferFailed(key, source.name, self.name, source.cut)
            return broke(error, "site")
        if source.store.get(key) != order.replica:
            return broke(UnreadableDataset(order.replica.url, "there is no such thing"), "input")
        self._commit(key)
        nbytes = order.replica.nbytes
        crossed = Crossed(
            key=key, source=source.name, target=self.name, nbytes=nbytes, seconds=self.delay
        )
        self._report(running, crossed)
        await asyncio.sleep(self.delay / 2)
        self._tell_stored(running, key, False, self.delay)
        return Ended(seconds=self.delay)

    async def _compute(self, key: str) -> None:
        self.computed[key] += 1
        try:
            await asyncio.sleep(self.delay)
            self._commit(key)
        except asyncio.CancelledError:
            if key not in self.store:
                self.computed[key] -= 1
                self.interrupted[key] += 1
            raise

    def _commit(self, key: str) -> None:
        """One write that takes effect at once, unless somebody was faster."""
        self.federation.point(self, "before commit")
        if key not in self.store:
            self.commits[key] += 1
            self.store[key] = Replica(
                key=key,
                site=self.name,
                store="results",
                url=f"sim://{self.name}/{key}",
                format="zarr",
                nbytes=100,
                fingerprint=key,
            )
        self.federation.point(self, "after commit")

    def _tell_stored(self, running: _Running, key: str, reused: bool, seconds: float) -> None:
        if not self.keeps_results:
            return
        replica = self.store.get(key)
        if replica is None:
            self.federation.complain(f"{key} is told of before it is there")
            return
        dataset = Dataset(
            id=f"d-{key}", name=key, key=key, kind="array", extent=Extent(nbytes=8), site=self.name
        )
        self._report(
            running,
            Stored(key=key, replica=replica, dataset=dataset, seconds=seconds, reused=reused),
        )

    def _report(self, running: _Running, report: Report) -> None:
        self.federation.point(self, "reports")
        running.reports.append(report)
        news, running.news = running.news, asyncio.Event()
        news.set()


class Crash(BaseException):
    """A process ends here."""


class FragileJournal(Journal):
    """A journal whose process can be made to die in the middle of writing."""

    dies: Callable[[str], bool] = staticmethod(lambda _: False)
    dead = False

    def create(self, event: JobCreated) -> bool:
        self._perhaps("before")
        made = super().create(event)
        self._perhaps("after")
        return made

    def append(self, job: str, events: Any, *, over: bool = False) -> None:
        self._perhaps("before")
        super().append(job, events, over=over)
        self._perhaps("after")

    def _perhaps(self, moment: str) -> None:
        if self.dead or self.dies(moment):
            self.dead = True
            raise Crash(moment)


class Federation:
    """Simulated sites, and a coordinator that can be killed and begun anew."""

    def __init__(
        self,
        directory: Path,
        topology: Topology,
        replicas: Mapping[str, Iterable[Replica]],
        *,
        lost_after: float = 0.2,
        most_running: int = 200,
    ) -> None:
        self.directory, self.topology = directory, topology
        self.lost_after, self.most_running = lost_after, most_running
        self.replicas = {key: list(copies) for key, copies in replicas.items()}
        self.sites = {site.name: SimulatedSite(site.name, self) for site in topology.sites}
        for copies in self.replicas.values():
            for copy in copies:
                self.sites[copy.site].seed(copy)
        self.complaints: list[str] = []
        self.seen: dict[str, list[JobState]] = {}
        self.replanned = 0
        self.points = 0
        self.at_point: Callable[[SimulatedSite, str], bool] = lambda site, what: False
        self.journal: FragileJournal | None = None
        self.coordinator: Coordinator | None = None

    def complain(self, text: str) -> None:
        self.complaints.append(text)

    def point(self, site: SimulatedSite, what: str) -> None:
        """A place in a site's work at which its process may die."""
        self.points += 1
        if self.at_point(site, what):
            site.restart()
            raise asyncio.CancelledError

    def plan(self, graph: Graph, **how: Any) -> Plan:
        scope = how.pop("scope", {})
        return make_plan(
            graph,
            topology=self.topology,
            replicas=self.replicas,
            verdicts=check(graph, self.topology, scope=scope),
            options={"scope": scope},
            **how,
        )

    async def replan(self, state: JobState) -> Plan:
        self.replanned += 1
        await asyncio.sleep(0.001)
        snapshot = Snapshot(topology=self.topology, replicas=self.replicas)
        return plan_rest(state, snapshot, Measurements(), "")

    # --- its coordinator ------------------------------------------------------------------------

    def _access(self, name: str) -> SiteAccess:
        return self.sites[name]

    def open(self, dies: Callable[[str], bool] | None = None) -> Coordinator:
        """A process that coordinates, and takes up what others left."""
        self.journal = FragileJournal(self.directory)
        if dies is not None:
            self.journal.dies = dies  # type: ignore[method-assign]
        around = Surroundings(
            source_of=_nothing_is_relayed,
            journal=self.journal,
            code=CodeStore(self.directory / "code"),
            access=self._access,
            replan=self.replan,
            datasets=lambda keys: {},
            clock=time.time,
            lost_after=self.lost_after,
        )
        self.coordinator = Coordinator(around, self._changed, most_running=self.most_running)
        self.coordinator.start()
        return self.coordinator

    def _changed(self, state: JobState) -> None:
        states = self.seen.setdefault(state.job, [])
        if states and states[-1].over and states[-1].status != state.status:
            self.complain(f"{state.job} was {states[-1].status} and is {state.status}")
        states.append(state)

    async def close(self) -> None:
        if self.coordinator is not None and self.journal is not None:
            await self.coordinator.close()
            self.journal.close()

    async def kill(self) -> None:
        """The coordinator's process ends at once: nothing is said, nothing is cleared away."""
        coordinator, journal = self.coordinator, self.journal
        assert coordinator is not None
        assert journal is not None
        journal.dead = coordinator._closed = True
        tasks = list(coordinator._ending)
        for drive in coordinator._drives.values():
            tasks += [*drive._halt(), *drive._others]
        for timer in coordinator._again.values():
            timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        journal._db.close()
        if journal._held >= 0:
            os.close(journal._held)
            journal._held = -1

    async def end(self) -> None:
        await self.close()
        for site in self.sites.values():
            site.restart()
        await asyncio.sleep(0)

    def submit(self, plan: Plan, job: str = "job", **how: Any) -> str:
        assert self.coordinator is not None
        created = JobCreated(job=job, plan=plan, time=how.pop("time", 0.0) or time.time(), **how)
        return self.coordinator.submit(created, payloads(plan))

    async def until(self, status: str, job: str = "job", limit: float = 20.0) -> JobState:
        """Wait for a status; an end that is another one fails at once."""
        assert self.coordinator is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while True:
            state = self.coordinator.state(job)
            if state.status == status:
                return state
            assert not state.over, f"{state.status}: {state.error}"
            assert loop.time() < end, f"still {state.status} after {limit} s: {state.units}"
            await asyncio.sleep(0.001)

    async def until_true(self, true: Callable[[], Any], limit: float = 20.0) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while not true():
            assert loop.time() < end, f"not within {limit} s"
            await asyncio.sleep(0.001)

    def check(self, state: JobState) -> None:
        """What must hold of every finished job, whatever happened on the way."""
        assert self.complaints == []
        assert state.status == "done"
        for key, copies in state.results().items():
            assert copies, f"result {key} is lost"
            for copy in copies:
                assert self.sites[copy.site].store[key] == copy
        for (key, name), stored in state.stored.items():
            assert self.sites[name].store[key] == stored.replica
        for site in self.sites.values():
            assert set(site.commits.values()) <= {1}, f"committed twice: {site.commits}"
            assert set((+site.computed).values()) <= {1}, f"computed twice: {site.computed}"


def payloads(plan: Plan) -> dict[str, bytes]:
    return {step.operation.code: step.operation.name.encode() for step in plan.steps}


def worker_lost(site: str = "ams") -> Broke:
    return broke(WorkerLost("f", site, "killed"), "worker")


# --- stories ----------------------------------------------------------------------------------------


def topology(*names: str) -> Topology:
    return Topology(sites=tuple(Site(name=name) for name in names))


def federation(directory: Path, replicas: dict[str, list[Replica]], *names: str) -> Federation:
    return Federation(directory, topology(*(names or ("ams", "delft", "uva"))), replicas)


def copies(name: str, *sites: str) -> list[Replica]:
    return [strategies.replica(name, site, 1000) for site in sites]


def run(world: Federation, story: Callable[[Federation], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        world.open()
        try:
            await story(world)
        finally:
            await world.end()
        assert world.complaints == []

    asyncio.run(whole())


def events_of(world: Federation, kind: type, job: str = "job") -> list[Any]:
    assert world.journal is not None
    return [event for event in world.journal.events(job) if isinstance(event, kind)]

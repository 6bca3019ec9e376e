"""A participant without Dask: real records and real files, orders that end at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dataflow.agreements import Agreement
from dataflow.catalog.access import PeerAccess
from dataflow.catalog.entries import Peer, entry, replica_id
from dataflow.catalog.records import Records
from dataflow.catalog.sync import Sync
from dataflow.datasets import Dataset, Extent, Replica
from dataflow.errors import UnknownDataset, UnknownJob
from dataflow.execution.events import (
    Asked,
    Ended,
    Errand,
    Event,
    JobCreated,
    Order,
    Progress,
    Report,
)
from dataflow.execution.tally import Figure
from dataflow.participant import agreeing
from dataflow.participant.audit import Audit
from dataflow.participant.negotiating import Negotiations
from dataflow.sites import Site, Topology, Trust
from dataflow.stores import Store, store_for


@dataclass(frozen=True, kw_only=True)
class View:
    id: str
    status: str
    user: str
    tags: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Dataset] = field(default_factory=dict)


class Runner:
    """Keeps orders and codes; each order reports once and ends when it is cancelled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.orders: dict[str, Order] = {}
        self.reports: dict[str, list[Report]] = {}
        self.codes: dict[str, bytes] = {}
        self.news = asyncio.Condition()

    async def start(self, order: Order) -> None:
        self.orders.setdefault(order.id, order)
        self.reports.setdefault(order.id, [Progress(done=0, total=1, message="begun")])

    async def follow(self, order: str, since: int, wait: float) -> Sequence[Report]:
        reports = self.reports[order]
        async with self.news:
            try:
                async with asyncio.timeout(wait):
                    await self.news.wait_for(lambda: len(reports) > since)
            except TimeoutError:
                pass
        return reports[since:]

    async def cancel(self, order: str) -> None:
        if order in self.reports:
            self.reports[order].append(Ended())
            async with self.news:
                self.news.notify_all()

    def owner(self, order: str) -> str | None:
        return self.orders[order].user if order in self.orders else None

    async def give_code(self, code: str, payload: bytes) -> None:
        self.codes[code] = payload

    async def has_code(self, codes: Sequence[str]) -> Sequence[str]:
        return [code for code in codes if code in self.codes]


def _connect(address: str, credentials: str | None) -> PeerAccess:
    from dataflow.client import AgentClient

    return AgentClient(address, credentials)


class Double:
    """A small real participant: what an agent serves in the tests of the agent."""

    def __init__(self, directory: Path, name: str = "uva", trust: Trust = "lab") -> None:
        self.directory = directory
        self.site = Site(name=name, trust=trust)
        self.data = directory / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.store = Store(name="data", site=name, url=self.data.as_uri(), purpose="data")
        self.records = Records(directory / "catalog.db", name)
        self.sync = Sync(self.records, Peer(site=name), _connect)
        self.runner = Runner(name)
        self.journals: dict[str, list[Event]] = {}
        self.replicas: dict[str, Replica] = {}
        self.metered: list[tuple[str, str, int, str]] = []
        self.joined: list[tuple[str, str | None]] = []
        self.asked: list[tuple[str, str, str]] = []
        self.life: list[str] = []
        self.refusals: list[tuple[str, str, str]] = []
        self.errands: list[tuple[Errand, tuple[str, ...]]] = []
        self.audit = Audit(directory / "audit.jsonl", time.time)
        self.negotiations = Negotiations(
            directory / "negotiations.db", self.records, self.audit, self.agree, time.time
        )

    def refused(self, user: str, what: str, because: str) -> None:
        self.refusals.append((user, what, because))

    def may_read(
        self, replica: Replica, errand: Errand, via: Sequence[str], *, again: bool = False
    ) -> None:
        self.errands.append((errand, tuple(via)))

    def agreements(self) -> list[Agreement]:
        return self.records.agreements(self.site.name)

    def agree(self, agreement: Agreement, by: str) -> None:
        agreeing.put(self.records, self.audit, agreement, by)

    def withdraw(self, name: str, by: str) -> None:
        agreeing.withdraw(self.records, self.audit, name, by)

    async def start(self) -> None:
        self.life.append("started")
        await self.sync.start()
        self.records.put("site", self.site.name, self.site)
        self.records.put("store", self.store.name, self.store)

    async def close(self) -> None:
        self.life.append("closed")
        await self.sync.close()
        self.records.close()

    def topology(self) -> Topology:
        return Topology(sites=(self.site, Site(name="vu")), stores=(self.store,))

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
        dataset = Dataset(
            id=f"d{len(self.journals)}",
            name=name or "noname",
            key="k",
            kind="files",
            extent=Extent(nbytes=1),
            site=self.site.name,
            owner=owner,
            tags=tags or {},
        )
        self.records.put_many([entry(dataset)])
        return dataset

    def serve(self, path: str, format: Any = "zarr", key: str = "k") -> str:
        """Make what lies at ``path`` in the store a replica; its id."""
        replica = Replica(
            key=key,
            site=self.site.name,
            store="data",
            url=(self.data / path).as_uri(),
            format=format,
            nbytes=0,
        )
        self.replicas[replica_id(replica)] = replica
        return replica_id(replica)

    async def submit(self, created: JobCreated, payloads: Mapping[str, bytes]) -> str:
        self.journals.setdefault(created.job, [created])
        for code, payload in payloads.items():
            await self.runner.give_code(code, payload)
        return created.job

    async def job(self, job_id: str) -> View:
        try:
            created = self.journals[job_id][0]
        except KeyError:
            raise UnknownJob(job_id, [self.site.name]) from None
        assert isinstance(created, JobCreated)
        return View(id=job_id, status="running", user=created.user, tags=created.tags)

    async def job_events(self, job_id: str, since: int, wait: float) -> Sequence[Event]:
        await self.job(job_id)
        until = time.monotonic() + wait
        while len(self.journals[job_id]) <= since and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return self.journals[job_id][since:]

    async def ask(self, job_id: str, what: Literal["cancel", "suspend", "resume"], by: str) -> None:
        await self.job(job_id)
        self.asked.append((job_id, what, by))
        self.journals[job_id].append(Asked(what=what, by=by))

    async def jobs(self) -> Sequence[View]:
        return [await self.job(job) for job in self.journals]

    async def join(self, address: str, credentials: str | None) -> None:
        self.joined.append((address, credentials))

    def served_replica(self, replica_id: str) -> Replica:
        try:
            return self.replicas[replica_id]
        except KeyError:
            raise UnknownDataset(replica_id) from None

    def stores(self) -> Sequence[Store]:
        return self.topology().stores_at(self.site.name)

    def store_of(self, replica: Replica) -> Store | None:
        return store_for(replica.url, self.stores())

    def busy(self) -> bool:
        return False

    def dashboard(self) -> str | None:
        return None

    async def figures(self) -> Sequence[Figure]:
        return [
            Figure(name="dataflow_jobs", about="Jobs", value=2, labels={"status": 'a "b"'}),
            Figure(name="dataflow_served_bytes", about="Bytes", value=7, kind="counter"),
        ]

    async def ledger(self, job: str | None) -> Sequence[Any]:
        return []

    def meter(self, job: str, key: str, nbytes: int, to: str) -> None:
        self.metered.append((job, key, nbytes, to))


def main() -> None:
    """Serve a double from a process of its own: ``double.py DIRECTORY [LISTEN]``.

    All that lies in its data directory at the start is served as replicas, named in
    ``replicas.json``.
    """
    import json
    import sys

    from dataflow.agent.serve import configure_logs, serve
    from dataflow.config import Listen

    directory = Path(sys.argv[1])
    where = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:0"
    host, _, port = where.rpartition(":")
    listen = (
        Listen(socket=Path(where.removeprefix("unix:")))
        if where.startswith("unix:")
        else Listen(host=host, port=int(port))
    )

    def participant_at(address: str) -> Double:
        double = Double(directory)
        formats = {".zarr": "zarr", ".h5": "hdf5", ".csv": "csv"}
        ids = {
            path.name: double.serve(path.name, formats.get(path.suffix, "files"))
            for path in double.data.iterdir()
        }
        (directory / "replicas.json").write_text(json.dumps(ids))
        return double

    configure_logs()
    asyncio.run(serve(participant_at, site="uva", listen=listen, state_dir=directory / "state"))


if __name__ == "__main__":
    main()

"""A network in memory with a clock of its own: cuts, loss, delay, repetition, all repeatable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dataflow.catalog.access import KnownSite, PeerAccess
from dataflow.catalog.entries import Peer, RecordRow
from dataflow.catalog.records import Records
from dataflow.catalog.sync import Sync
from dataflow.errors import SiteUnreachable

T = TypeVar("T")


@dataclass
class Network:
    """Who can reach whom, and how badly."""

    random: random.Random = field(default_factory=lambda: random.Random(0))
    loss: float = 0.0
    delay: Callable[[random.Random], float] = lambda _: 0.001
    twice: float = 0.0
    hangs: bool = False
    cuts: set[tuple[str, str]] = field(default_factory=set)
    agents: dict[str, Sync] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    def cut(self, one: str, other: str) -> None:
        self.cuts |= {(one, other), (other, one)}

    def heal(self) -> None:
        self.cuts.clear()
        self.loss = self.twice = 0.0
        self.delay = lambda _: 0.001

    def access(self, caller: str) -> Callable[[str, str | None], PeerAccess]:
        return lambda address, credentials: Wire(self, caller, address)


@dataclass
class Wire:
    """The way from one site to whatever answers at an address."""

    network: Network
    caller: str
    address: str

    async def _through(self, question: Callable[[Sync], Awaitable[T]]) -> T:
        network = self.network
        network.asked += 1
        await self._travel(there=True)
        agent = network.agents.get(self.address)
        if agent is None:
            raise SiteUnreachable(self.address, "nobody there")
        answer = await question(agent)
        if network.random.random() < network.twice:
            answer = await question(agent)
        if network.agents.get(self.address) is not agent:
            raise SiteUnreachable(self.address, "it ended before it answered")
        await self._travel(there=False)
        return answer

    async def _travel(self, there: bool) -> None:
        network, other = self.network, self.network.names.get(self.address, "")
        await asyncio.sleep(network.delay(network.random))
        way = (self.caller, other) if there else (other, self.caller)
        if way in network.cuts or network.random.random() < network.loss:
            if network.hangs:
                await asyncio.sleep(3600)
            raise SiteUnreachable(self.address, "lost on the way")

    async def records(self, site: str, since: int, wait: float) -> tuple[str, Sequence[RecordRow]]:
        epoch, rows = await self._through(lambda agent: agent.records(site, since, wait))
        if self.network.twice:  # repeated, shuffled, with holes
            rows = [*rows, *rows]
            self.network.random.shuffle(rows)
            rows = [row for row in rows if self.network.random.random() > self.network.loss]
        return epoch, rows

    async def peers(self) -> Sequence[KnownSite]:
        return await self._through(lambda agent: agent.peers())

    async def hint(
        self, site: str, seq: int, *, epoch: str = "", address: str | None = None
    ) -> None:
        await self._through(lambda agent: agent.hint(site, seq, epoch=epoch, address=address))


class Participant:
    """A site with its file and, while it is up, its agent."""

    def __init__(self, network: Network, site: str, directory: Path, **options: Any) -> None:
        self.network, self.site, self.options = network, site, options
        self.path = directory / f"{site}.db"
        self.address = f"https://{site}"
        self.records = Records(self.path, site)
        self.sync: Sync | None = None

    async def up(self, *join: str, address: str | None = None) -> Sync:
        self.address = address or self.address
        clock = asyncio.get_running_loop().time
        me = Peer(site=self.site, address=self.address)
        access = self.network.access(self.site)
        self.sync = Sync(self.records, me, access, clock, **self.options)
        self.network.agents[self.address] = self.sync
        self.network.names[self.address] = self.site
        await self.sync.start()
        for other in join:
            self.sync.join(other)
        return self.sync

    async def down(self) -> None:
        if self.sync is not None:
            self.network.agents.pop(self.address, None)
            await self.sync.close()
            self.sync = None

    async def restart(self, *join: str, wipe: bool = False, address: str | None = None) -> None:
        await self.down()
        self.records.close()
        if wipe:
            for file in self.path.parent.glob(f"{self.path.name}*"):
                file.unlink()
        self.records = Records(self.path, self.site)
        await self.up(*join, address=address)

    async def end(self) -> None:
        await self.down()
        self.records.close()


def contents(records: Records, site: str) -> dict[tuple[str, str], str]:
    """What a participant holds of a site, whichever way it came."""
    _, rows = records.page(site, 0, limit=1_000_000)
    return {(row.kind, row.id): row.body for row in rows}


def equal(participants: Sequence[Participant]) -> bool:
    """Whether every copy is what its own site holds, epoch and place included."""
    origins = [one.records.origins() for one in participants]
    if any(origin != origins[0] for origin in origins):
        return False
    return all(
        contents(one.records, writer.site) == contents(writer.records, writer.site)
        for one in participants
        for writer in participants
    )


async def until(done: Callable[[], bool], limit: float, step: float = 0.05) -> float:
    """Wait until something holds; the seconds that took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while not done():
        assert loop.time() - start < limit, f"not within {limit} s"
        await asyncio.sleep(step)
    return loop.time() - start

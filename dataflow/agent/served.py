"""What an agent serves: the shape of a participant, and how a route gets at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from fastapi import Depends, Request

from dataflow.agent.auth import Identity
from dataflow.agent.door import identity_of
from dataflow.agreements import Agreement
from dataflow.catalog.access import PeerAccess
from dataflow.datasets import Dataset, Replica
from dataflow.errors import SiteRefused
from dataflow.execution.events import Errand, Event, JobCreated, SiteAccess
from dataflow.execution.tally import Figure
from dataflow.participant.notebooks import Notebooks
from dataflow.sites import Site, Topology
from dataflow.stores import Store


@runtime_checkable
class KnowsOwners(Protocol):
    """What an agent asks of the runner of its own site, beside what a driver asks of any."""

    def owner(self, order: str) -> str | None:
        """The user of an order; ``None`` if the order is not known."""


@runtime_checkable
class RunsNotebooks(Protocol):
    """A participant at whose site notebooks run."""

    @property
    def notebooks(self) -> Notebooks: ...


class Served(Protocol):
    """A participant: one site's catalog, runner, jobs and data, in this process."""

    @property
    def site(self) -> Site: ...
    @property
    def sync(self) -> PeerAccess: ...
    @property
    def runner(self) -> SiteAccess: ...

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    def topology(self) -> Topology: ...
    async def register(
        self,
        url: str,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        variable: str | None = None,
        owner: str = "",
        replica_of: str | None = None,
    ) -> Dataset: ...
    async def submit(self, created: JobCreated, payloads: Mapping[str, bytes]) -> str: ...
    async def job(self, job_id: str) -> Any: ...
    async def job_events(self, job_id: str, since: int, wait: float) -> Sequence[Event]: ...
    async def ask(
        self, job_id: str, what: Literal["cancel", "suspend", "resume"], by: str
    ) -> None: ...
    async def jobs(self) -> Sequence[Any]: ...
    async def join(self, address: str, credentials: str | None) -> None: ...
    def served_replica(self, replica_id: str) -> Replica: ...
    def stores(self) -> Sequence[Store]:
        """Stores in which data may be registered: its own, and of sites of stores."""

    def store_of(self, replica: Replica) -> Store | None:
        """The store by which it gets at a copy itself."""

    def may_read(
        self, replica: Replica, errand: Errand, via: Sequence[str], *, again: bool = False
    ) -> None:
        """Let the bytes of a copy go, by way of the sites that see them, or raise NotGranted."""

    def refused(self, user: str, what: str, because: str) -> None:
        """Write down what was said no to; ``user`` is empty for strangers."""

    def agreements(self) -> list[Agreement]: ...
    def agree(self, agreement: Agreement, by: str) -> None: ...
    def withdraw(self, name: str, by: str) -> None: ...
    def dashboard(self) -> str | None: ...
    def busy(self) -> bool:
        """Whether a job or an order is under way here."""

    async def figures(self) -> Sequence[Figure]:
        """What is worth watching."""

    async def ledger(self, job: str | None) -> Sequence[Any]: ...
    def meter(self, job: str, key: str, nbytes: int, to: str) -> None: ...


def _participant(request: Request) -> Served:
    participant: Served = request.app.state.participant
    return participant


# Not plain functions: those would go to a thread and back for each request.
async def _own(request: Request) -> Served:
    return _participant(request)


async def _asker(request: Request) -> Identity:
    return identity_of(request)


Own = Annotated[Served, Depends(_own)]
Asker = Annotated[Identity, Depends(_asker)]


async def only_readers_look(request: Request) -> None:
    """Refuse everything but looking to those who may only look."""
    if request.url.path == "/v1/health":
        return
    if identity_of(request).role == "reader" and request.method not in ("GET", "HEAD"):
        raise SiteRefused(_participant(request).site.name, "this token may only look")

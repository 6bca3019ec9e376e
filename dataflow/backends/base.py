"""Backend: how a site gets its workers, as a protocol, and what it says about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from dataflow.backends.programs import RunsPrograms

LeaseStatus = Literal["queued", "running", "ended", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one order is going to ask of the workers, as planned.

    Attributes
    ----------
    order, job
        Whose it is.
    tasks
        Steps that may run at the same time, at most.
    seconds
        Planned work of all steps together (s); 0 if nobody knows.
    longest
        Planned time of the longest step (s); 0 if nobody knows.
    memory
        Bytes that the largest step needs; 0 if nobody knows.
    """

    order: str
    job: str
    tasks: int = 1
    seconds: float = 0.0
    longest: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Workers obtained, or asked for.

    Attributes
    ----------
    id
        In the words of whoever grants it: a process id, a number of the batch system, a name.
    status
        ``failed`` holds a ``reason``.
    host
        Where it runs, as far as known.
    since, until
        Seconds since the epoch: when it began to run, and when it will be ended from outside.
    reason
        Why it waits or has failed, in the words of whoever grants it.
    """

    id: str
    status: LeaseStatus
    host: str = ""
    since: float | None = None
    until: float | None = None
    reason: str = ""


@runtime_checkable
class TellsLoad(Protocol):
    """A backend that knows how busy its workers are."""

    def load(self) -> tuple[float, float]:
        """Shares of the workers' CPU and memory in use now, from 0 to 1; nothing without workers."""


class Backend(Protocol):
    """The workers of one site: one Dask scheduler, and no way to it from outside the site."""

    @property
    def programs(self) -> RunsPrograms | None:
        """Who runs programs without a worker; ``None`` where workers run them."""

    async def start(self) -> None:
        """Start what every order needs, unless it runs; otherwise the first :meth:`client` does it.

        Where workers cost nothing while they wait that includes the workers.
        """

    async def client(self) -> Any:
        """An asynchronous :class:`distributed.Client` of the running scheduler.

        Starts the scheduler once, also when called several times at once, and anew if it has died.
        """

    @property
    def dashboard(self) -> str | None:
        """Address of the scheduler's pages on this machine; ``None`` while it does not run."""

    async def request(self, demand: Demand) -> None:
        """See to it that there will be workers for an order; returns before they are there.

        Raises
        ------
        SiteRefused
            If this site can never serve such an order, or whoever grants workers says no.
        """

    async def release(self, order: str) -> None:
        """The order has ended; workers that nobody else wants may go. Harmless when repeated."""

    def leases(self) -> Sequence[Lease]:
        """What was obtained or asked for lately."""

    def trouble(self) -> str:
        """Why no worker will come, for a user to read; empty while there are some, or hope."""

    async def stop_worker(self, address: str) -> None:
        """End one worker process at once, whatever it does, and start another in its place.

        Other tasks that it had are run again elsewhere and are not counted as failed.
        """

    async def close(self) -> None:
        """End all workers; nothing can be run afterwards."""

"""Programs that a backend runs without a worker: what it is asked, and what it tells. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from dataflow.backends.gridengine import Accounted

TurnStatus = Literal["pending", "running", "ended"]

#: Below the directory of a run: what is ours and not the program's.
OURS = ".flow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramOrder:
    """Equal programs, each in a directory of its own.

    Each directory holds ``.flow/command``, which ``/bin/sh`` runs there; its streams go to
    ``.flow/stdout`` and ``.flow/stderr``.

    Attributes
    ----------
    name
        A word for whoever looks at the queue.
    directories
        Absolute; what was submitted there before is attached to, and not submitted again.
    cores, memory, walltime, queue
        As in :class:`dataflow.graph.needs.Needs`.
    """

    name: str
    directories: tuple[Path, ...]
    cores: int = 1
    memory: int = 0
    walltime: float = 0.0
    queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFor:
    """What the batch system is asked for, for each program."""

    queue: str | None = None
    project: str | None = None
    cores: int = 1
    memory: int = 0
    walltime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How one of the programs stands.

    Attributes
    ----------
    batch
        Its number at the batch system, of an array with the task.
    host, since, until
        Where it runs; seconds since the epoch when it began and ended.
    exit_status
        Of the command; ``None`` if it did not end by itself.
    reason
        Why it waits, or was ended, in the words of the batch system.
    overtime
        It was ended because it ran longer than it may.
    accounted
        What the accounting said already, because it had to be asked.
    """

    status: TurnStatus
    batch: str
    host: str = ""
    since: float | None = None
    until: float | None = None
    exit_status: int | None = None
    reason: str = ""
    overtime: bool = False
    accounted: Accounted | None = None


@runtime_checkable
class RunsPrograms(Protocol):
    """A backend that runs programs as jobs of their own, without a worker."""

    @property
    def runs(self) -> Path:
        """Directory below which runs lie; this host and those of the programs see it."""

    def asked_for(self, order: ProgramOrder) -> AskedFor:
        """What such an order asks of the batch system.

        Raises
        ------
        SiteRefused
            If this site can never serve it.
        """

    async def run_programs(self, order: ProgramOrder, tell: Callable[[int, Turn], None]) -> None:
        """Run programs, telling of each (by its place in the order) whenever it changes.

        Returns when all have ended. If this is cancelled, they are deleted from the queue.

        Raises
        ------
        SiteRefused
            If the batch system does not take them, or will never run them; nothing is left then.
        """

    async def accounting(self, batch: str) -> Accounted | None:
        """What the accounting says of a program that has ended; waits for it for a while."""

"""What two participants ask of one another to keep their catalogs equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dataflow.catalog.entries import RecordRow


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSite:
    """How far an agent's copy of a site's log goes, and where that site answers.

    ``answering`` marks the site of the agent that says so: whoever calls an address learns from
    it whom he reached.
    """

    site: str
    epoch: str = ""
    seq: int = 0
    address: str | None = None
    answering: bool = False


class PeerAccess(Protocol):
    """What `Sync` asks of another agent; `Sync` itself has what an agent answers with.

    Any failure to get an answer may be raised as any `DataflowError` or `OSError`.
    """

    async def records(self, site: str, since: int, wait: float) -> tuple[str, Sequence[RecordRow]]:
        """Epoch of ``site``'s log as held there, and its next rows after ``since``.

        Waits up to ``wait`` s for the first row. Unknown sites have the epoch ``""``.
        """

    async def peers(self) -> Sequence[KnownSite]:
        """All sites known there, with the one that answers marked."""

    async def hint(
        self, site: str, seq: int, *, epoch: str = "", address: str | None = None
    ) -> None:
        """Tell that ``site`` has written up to ``seq``, and at which address it answers."""


#: Access to the agent at an address, with the name of a credential.
Connect = Callable[[str, str | None], PeerAccess]

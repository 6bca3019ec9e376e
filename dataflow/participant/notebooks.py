"""Notebooks that run at this site: what they may show to the agent, and the cells they have run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataflow.backends.programs import OURS
from dataflow.errors import UnknownJob
from dataflow.execution.events import SegmentOrder
from dataflow.execution.invitation import CELLS_FILE, DOOR_FILE, Invitation, read_invitation

#: Seconds between two looks for cells that have been run.
GLANCE_SECONDS = 0.2
#: About so many bytes of cells go into one answer; one cell may be longer.
PAGE_NBYTES = 4 * 2**20

_RUN = re.compile(r"[0-9a-f]{12}-[0-9a-f]{12}\Z")

Invite = Callable[[SegmentOrder], Awaitable[Invitation]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Executed cells of a run, one JSON document a line, and where the next ones begin (bytes)."""

    lines: tuple[str, ...] = ()
    next: int = 0


class Notebooks:
    """The notebooks of one site.

    Parameters
    ----------
    site
        Its name, for errors.
    runs
        The directories below which runs lie.
    """

    def __init__(self, site: str, runs: Sequence[Path]) -> None:
        self._site, self._runs = site, runs
        #: Where invitations come from; ``None`` while nobody would answer them.
        self.answered_by: Invite | None = None

    async def invite(self, order: SegmentOrder) -> Invitation | None:
        """What the notebooks of an order may show; ``None`` where nobody would answer."""
        return None if self.answered_by is None else await self.answered_by(order)

    def owner(self, run: str) -> str:
        """Whose notebook a run is.

        Raises
        ------
        UnknownJob
            If there is no such run, or it has ended well and is stored.
        """
        try:
            return read_invitation(self._directory(run) / OURS / DOOR_FILE).user
        except (OSError, ValueError):
            raise UnknownJob(run, [self._site]) from None

    async def cells(self, run: str, since: int, wait: float) -> Cells:
        """Cells from that byte on; waits up to ``wait`` s for the first of them.

        Raises
        ------
        UnknownJob
            As for :meth:`owner`, also when it ends meanwhile.
        """
        end = asyncio.get_running_loop().time() + wait
        file = self._directory(run) / OURS / CELLS_FILE
        while True:
            found = await asyncio.to_thread(_read, file, since)
            if found.lines or asyncio.get_running_loop().time() >= end:
                return found
            self.owner(run)
            await asyncio.sleep(GLANCE_SECONDS)

    def _directory(self, run: str) -> Path:
        if not _RUN.match(run):
            raise UnknownJob(run, [self._site])
        there = (runs / run for runs in self._runs)
        return next((found for found in there if found.is_dir()), self._runs[0] / run)


def _read(file: Path, since: int) -> Cells:
    """Whole lines only: the last one may be half written."""
    lines: list[str] = []
    try:
        with file.open("rb") as opened:
            opened.seek(since)
            end = since
            while end - since < PAGE_NBYTES and (line := opened.readline()).endswith(b"\n"):
                lines.append(line.decode())
                end += len(line)
    except OSError:
        return Cells(next=since)
    return Cells(lines=tuple(lines), next=end)

"""Notebooks that run at this site: what they may show to the agent, and the cells they have run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataflow.backends.programs import OURS
from dataflow.errors import UnknownJob
from dataflow.execution.events import Order, SegmentOrder
from dataflow.execution.invitation import CELLS_FILE, DOOR_FILE, Invitation, read_invitation, run_of

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
    order_of
        An order of this site by its id; ``None`` if it is not known.
    look
        Lets the user of an order see what it puts out, or raises
        :class:`~dataflow.errors.NotGranted`.
    """

    def __init__(
        self,
        site: str,
        runs: Sequence[Path],
        order_of: Callable[[str], Order | None],
        look: Callable[[SegmentOrder], None],
    ) -> None:
        self._site, self._runs = site, runs
        self._order_of, self._look = order_of, look
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
            If there is no such run, it has ended well and is stored, or its order is not known.
        """
        return self._order(run).user

    async def cells(self, run: str, since: int, wait: float) -> Cells:
        """Cells from that byte on; waits up to ``wait`` s for the first of them.

        Raises
        ------
        UnknownJob
            As for :meth:`owner`, also when it ends meanwhile.
        NotGranted
            If its results wait for a second run, or an owner took the right back, also meanwhile.
        """
        end = asyncio.get_running_loop().time() + wait
        file = self._directory(run) / OURS / CELLS_FILE
        while True:
            self._look(self._order(run))
            found = await asyncio.to_thread(_read, file, since)
            if found.lines or asyncio.get_running_loop().time() >= end:
                return found
            await asyncio.sleep(GLANCE_SECONDS)

    def _order(self, run: str) -> SegmentOrder:
        """The order of a run, as it was let in: the notebook can write into its directory."""
        try:
            told = read_invitation(self._directory(run) / OURS / DOOR_FILE).order
        except (OSError, ValueError):
            raise UnknownJob(run, [self._site]) from None
        order = self._order_of(told)
        if not isinstance(order, SegmentOrder) or run not in {
            run_of(order.id, step.key) for step in order.steps
        }:
            raise UnknownJob(run, [self._site])
        return order

    def _directory(self, run: str) -> Path:
        if not _RUN.match(run):
            raise UnknownJob(run, [self._site])
        there = (runs / run for runs in self._runs)
        return next((found for found in there if found.is_dir()), self._runs[0] / run)


def _read(file: Path, since: int) -> Cells:
    """Whole lines only: the last one may be half written.

    A notebook that is run anew writes anew: where no line ends at ``since``, it begins at 0.
    """
    lines: list[str] = []
    try:
        with file.open("rb") as opened:
            if since:
                opened.seek(since - 1)
                since = since if opened.read(1) == b"\n" else 0
            opened.seek(since)
            end = since
            while end - since < PAGE_NBYTES and (line := opened.readline()).endswith(b"\n"):
                lines.append(line.decode())
                end += len(line)
    except OSError:
        return Cells(next=since)
    return Cells(lines=tuple(lines), next=end)

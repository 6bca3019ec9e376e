"""Programs in the queue, followed to their end: by the marks of their scripts, and by the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from dataflow.backends.gridengine import Accounted, Listed
from dataflow.backends.program_jobs import Marks, marks_of
from dataflow.backends.programs import OURS, AskedFor, ProgramOrder, Turn
from dataflow.errors import SiteRefused

if TYPE_CHECKING:
    from dataflow.backends.sge_programs import SgePrograms

log = structlog.get_logger(__name__)

#: Seconds between two looks at the marks, and between two questions to the queue while they are new.
_GLANCE, _NEW, _NEW_FOR = 0.3, 1.0, 10.0

#: Questions to the queue in which a program is missing until it counts as gone: what was submitted
#: just now may not be listed yet, and the directory may be seen later than the queue.
_MISSING = 2

#: Questions to a program that waits until it is asked whether it can ever run, and how often that is.
_PATIENCE, _TWICE = 3, 2

#: Seconds for the accounting to say why a program is gone; those that never ran are not in it.
_ACCOUNT_FOR, _NEVER_RAN_FOR = 20.0, 3.0


class Watch:
    """One order in the queue."""

    def __init__(
        self,
        programs: SgePrograms,
        order: ProgramOrder,
        asked: AskedFor,
        numbers: Mapping[int, str],
        tell: Callable[[int, Turn], None],
    ) -> None:
        self.programs, self.order, self.asked = programs, order, asked
        self._tell = tell
        self._turns = {
            place: Turn(status="pending", batch=numbers[place]) for place in sorted(numbers)
        }
        self._open = set(self._turns)
        self._missing = dict.fromkeys(self._open, 0)
        self._waited = 0

    async def run(self) -> None:
        """Follow all to their end."""
        for place in sorted(self._open):
            self._tell(place, self._turns[place])
        loop = asyncio.get_running_loop()
        begun = asked = loop.time()
        while self._open:
            marks = await asyncio.to_thread(self._look)
            for place, found in marks.items():
                self._take_marks(place, found)
            new = loop.time() - begun < _NEW_FOR
            pause = min(_NEW, self.programs.settings.look) if new else self.programs.settings.look
            if self._open and loop.time() - asked >= pause:
                asked = loop.time()
                await self._ask()
            if self._open:
                await asyncio.sleep(_GLANCE if new else 2 * _GLANCE)

    def _change(self, place: int, turn: Turn) -> None:
        if place in self._open and turn != self._turns[place]:
            self._turns[place] = turn
            if turn.status == "ended":
                self._open.discard(place)
            self._tell(place, turn)

    # --- marks ----------------------------------------------------------------------------------

    def _look(self) -> Mapping[int, Marks]:
        """Marks of those that are open; in a thread."""
        return {place: read_marks(self.order.directories[place]) for place in self._open}

    def _take_marks(self, place: int, found: Marks) -> None:
        turn = self._turns[place]
        if found.began is not None and turn.status == "pending":
            turn = replace(turn, status="running", host=found.host, since=found.began, reason="")
        if found.exit_status is not None:
            turn = replace(
                turn, status="ended", until=found.ended, exit_status=found.exit_status, reason=""
            )
        self._change(place, turn)

    # --- the queue ------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Take in what the queue says; nothing, if Grid Engine does not answer for a while."""
        try:
            listed = await self.programs.listed()
        except (OSError, TimeoutError, ValueError) as error:
            log.warning("batch-system-silent", error=str(error) or "qstat took too long")
            return
        gone = []
        for place in sorted(self._open):
            one = listed.get(self._turns[place].batch)
            self._missing[place] = 0 if one is not None else self._missing[place] + 1
            if one is not None:
                await self._take_in(place, one)
            elif self._missing[place] >= _MISSING:
                gone.append(place)
        await asyncio.gather(*map(self._gone, gone))
        waits = [place for place in self._open if self._turns[place].status == "pending"]
        if waits and not any(self._turns[place].reason for place in waits):
            await self._can_run(self._turns[min(waits)].batch)

    async def _take_in(self, place: int, one: Listed) -> None:
        turn = self._turns[place]
        match one.standing:
            case "running" | "ending":
                if turn.status == "pending":
                    turn = replace(
                        turn, status="running", host=one.host, since=one.since, reason=""
                    )
            case "held":
                turn = replace(turn, reason=f"it is held in the queue (state {one.state})")
            case "error":
                why = await self.programs.why_error(one.id)
                raise SiteRefused(
                    self.programs.site,
                    f"batch job {one.id} will not run: {why or f'it is in error ({one.state})'}",
                )
            case _:
                turn = replace(turn, reason="")
        self._change(place, turn)

    async def _can_run(self, id: str) -> None:
        """Give up what can never run; a host that is away for a moment is no reason for that."""
        self._waited += 1
        if _PATIENCE < self._waited <= _PATIENCE + _TWICE:
            words = await self.programs.never(id)
            if not words:
                self._waited = _PATIENCE + _TWICE  # it can, and need not be asked about again
            elif self._waited == _PATIENCE + _TWICE:
                raise SiteRefused(self.programs.site, f"batch job {id} will not run: {words}")

    async def _gone(self, place: int) -> None:
        """One has left the queue without a mark that it ended."""
        turn = self._turns[place]
        began = turn.status == "running"
        # Those that never ran are not accounted for.
        record = await self.programs.accounting(
            turn.batch, seconds=_ACCOUNT_FOR if began else _NEVER_RAN_FOR
        )
        self._take_marks(place, await asyncio.to_thread(read_marks, self.order.directories[place]))
        if place not in self._open:
            return
        if record is None:
            reason = (
                "it left the queue without a word" if began else "it was deleted from the queue"
            )
            self._change(place, replace(turn, status="ended", reason=reason))
            return
        self._change(
            place,
            replace(
                turn,
                status="ended",
                host=record.host or turn.host,
                since=record.started or turn.since,
                until=record.ended,
                reason=record.reason or "it ended without its mark",
                overtime=overtime(self.asked.walltime, record),
                accounted=record,
            ),
        )


def overtime(walltime: float | None, record: Accounted) -> bool:
    """Whether what the accounting tells was an end by the wall."""
    if not walltime or not (record.failed or record.exit_status > 128):
        return False
    # Seconds in the accounting are whole ones on some systems.
    return record.seconds >= walltime - 1


def read_marks(directory: Path) -> Marks:
    """Marks in the directory of a run."""
    return marks_of(*(_text(directory / OURS / name) for name in ("batch", "began", "ended")))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

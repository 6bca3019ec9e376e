"""Programs as jobs of Grid Engine: submitted, watched, deleted, and taken up again after a restart."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from dataflow.backends.commands import said
from dataflow.backends.gridengine import (
    Accounted,
    Listed,
    read_qacct,
    read_reasons,
    read_tasks,
    read_verification,
    spoken,
)
from dataflow.backends.program_jobs import (
    asked_for,
    job_name,
    numbers_of,
    script,
    submission,
    why_not,
)
from dataflow.backends.program_watch import Watch, read_marks
from dataflow.backends.programs import OURS, AskedFor, ProgramOrder, Turn
from dataflow.config.backend_records import Sge
from dataflow.errors import SiteRefused

log = structlog.get_logger(__name__)

#: Seconds without another one after which equal programs go out as one array, and at most.
_APART, _TOGETHER = 0.8, 5.0

#: Seconds for which an answer of the queue is the same for all who ask.
_STALE = 0.5

#: Grid Engine writes its accounting every quarter of a minute.
_ACCOUNT_FOR, _ACCOUNT_PAUSE = 20.0, 0.7

#: Seconds in which whoever submits has heard of the number that the queue lists already.
_HEARD = 3.0

#: Seconds that a program which was deleted may stay in the queue.
_DELETED = 8.0


class SgePrograms:
    """What :class:`~dataflow.backends.programs.RunsPrograms` asks for, at a Grid Engine.

    Parameters
    ----------
    site
        Its name, to say who refuses.
    settings
        What the site file says of batch jobs.
    memory
        Bytes that a program gets which does not say what it needs.
    runs
        Directory below which runs lie.
    prefix
        Of the names of all jobs; the same whenever this site starts.
    """

    def __init__(self, *, site: str, settings: Sge, memory: int, runs: Path, prefix: str) -> None:
        self.site, self.settings, self.memory = site, settings, memory
        self.runs, self.prefix = runs, prefix
        #: Numbers that somebody follows.
        self._followed: set[str] = set()
        self._listing: asyncio.Task[Mapping[str, Listed]] | None = None
        self._listed_at = 0.0
        self._arrays: dict[tuple[str, AskedFor], _Array] = {}
        self._clearing: asyncio.Task[None] | None = None

    def asked_for(self, order: ProgramOrder) -> AskedFor:
        """What such an order asks of Grid Engine; see the protocol."""
        why = why_not(order, self.settings)
        if why:
            raise SiteRefused(self.site, why)
        return asked_for(order, self.settings, self.memory)

    async def run_programs(self, order: ProgramOrder, tell: Callable[[int, Turn], None]) -> None:
        """Run programs, and tell how they stand; see the protocol."""
        asked = self.asked_for(order)
        marks = await asyncio.to_thread(lambda: [read_marks(d) for d in order.directories])
        numbers = {place: found.batch for place, found in enumerate(marks) if found.batch}
        self._followed |= set(numbers.values())
        fresh = [place for place in range(len(marks)) if place not in numbers]
        try:
            if fresh:
                await self._submit(order, asked, fresh, numbers)
            await Watch(self, order, asked, numbers, tell).run()
        except BaseException:
            await _in_any_case(self._delete(list(numbers.values())))
            raise
        finally:
            self._followed -= set(numbers.values())

    async def accounting(self, batch: str, *, seconds: float = _ACCOUNT_FOR) -> Accounted | None:
        """What ``qacct`` says of a program that has ended; ``None`` if nothing comes in time."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            with suppress(OSError, TimeoutError):
                number, _, task = batch.partition(".")
                words = ["-j", number, *(["-t", task] if task else [])]
                found = read_qacct((await self._said("qacct", *words))[1]).get(batch)
                if found is not None:
                    return found
            if asyncio.get_running_loop().time() > end:
                return None
            await asyncio.sleep(_ACCOUNT_PAUSE)

    async def clear(self) -> None:
        """Delete what an earlier agent of this site submitted and nobody has taken up again."""
        with suppress(OSError, TimeoutError, ValueError):
            listed = await self.listed(fresh=True)
            ours = [one for one in listed.values() if one.name.startswith(f"{self.prefix}-")]
            await asyncio.sleep(_HEARD)
            left = [one.id for one in ours if one.id not in self._followed]
            if left:
                log.info("programs-cleared", ids=left)
                await self._delete(left)

    async def listed(self, *, fresh: bool = False) -> Mapping[str, Listed]:
        """The queue, asked for once for all who want to know it now.

        Raises
        ------
        OSError, TimeoutError, ValueError
            If Grid Engine does not answer, or not as it should.
        """
        now = asyncio.get_running_loop().time()
        if self._listing is None or (
            self._listing.done() and (fresh or now - self._listed_at > _STALE)
        ):
            self._listed_at = now
            self._listing = asyncio.create_task(self._ask_queue())
        return await asyncio.shield(self._listing)

    async def _ask_queue(self) -> Mapping[str, Listed]:
        # -g d: each task of an array on a line of its own.
        code, words = await self._said("qstat", "-xml", "-g", "d", "-u", getpass.getuser())
        if code:
            raise OSError(spoken(words) or f"qstat ended with {code}")
        return read_tasks(words)

    async def _said(self, *command: str, stdin: str | None = None) -> tuple[int, str]:
        """Exit status and words of a command: what it wrote as a result, else as an error."""
        code, out, err = await said(*command, seconds=self.settings.silence, stdin=stdin)
        return code, out.strip() or err.strip()

    async def _submit(
        self, order: ProgramOrder, asked: AskedFor, fresh: Sequence[int], numbers: dict[int, str]
    ) -> None:
        kind = (order.name, asked)
        array = self._arrays.get(kind)
        if array is None or array.closed:
            array = self._arrays[kind] = _Array(order.name, asked, self)
        waiting = {place: array.add(order.directories[place]) for place in fresh}
        try:
            await asyncio.gather(*map(asyncio.shield, waiting.values()))
        except asyncio.CancelledError:
            if not array.closed:
                for future in waiting.values():
                    future.cancel()
                raise
            # Whoever cancels this must still learn the numbers: else the jobs are nobody's.
            await _in_any_case(asyncio.gather(*waiting.values(), return_exceptions=True))
            raise
        finally:
            for place, future in waiting.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    numbers[place] = future.result()
                    self._followed.add(future.result())

    async def submit(self, name: str, asked: AskedFor, directories: Sequence[Path]) -> list[str]:
        """Submit programs as one batch job, an array if they are several; their numbers.

        Raises
        ------
        SiteRefused
            In Grid Engine's words.
        """
        command = submission(
            job_name(self.prefix, name),
            asked,
            self.settings,
            tasks=len(directories),
            log=directories[0] / OURS / "batch.log",
        )
        try:
            code, words = await self._said(*command, stdin=script(directories, self.settings))
        except (OSError, TimeoutError) as error:
            if isinstance(error, TimeoutError):  # it may have been taken all the same
                self._clearing = asyncio.create_task(self.clear())
            words = str(error) or "qsub did not answer in time"
            raise SiteRefused(self.site, f"no batch job can be submitted: {words}") from error
        if code:
            raise SiteRefused(self.site, f"a batch job was refused: {spoken(words)}")
        try:
            made = numbers_of(words, len(directories))
        except ValueError as error:
            raise SiteRefused(self.site, str(error)) from error
        log.info("programs-submitted", name=name, first=made[0], number=len(made))
        await asyncio.to_thread(_write_numbers, directories, made)
        return made

    async def never(self, id: str) -> str:
        """Why a program that waits can never run; empty if it can, or if nobody knows."""
        try:
            return read_verification(
                (await self._said("qalter", "-w", "v", id.partition(".")[0]))[1]
            )
        except (OSError, TimeoutError):
            return ""

    async def why_error(self, id: str) -> str:
        """Why a program is in error."""
        number = id.partition(".")[0]
        try:
            found = read_reasons((await self._said("qstat", "-xml", "-j", number))[1])
        except (OSError, TimeoutError, ValueError):
            return ""
        return found.get(number, "")

    async def _delete(self, ids: Sequence[str]) -> None:
        """Delete programs, and wait until the queue lists them no more."""
        left = {id for id in ids if id}
        end = asyncio.get_running_loop().time() + _DELETED
        with suppress(OSError, TimeoutError, ValueError):
            left &= set(await self.listed(fresh=True))
        if not left:
            return
        log.info("programs-deleted", number=len(left))
        with suppress(OSError, TimeoutError):
            await self._said("qdel", *sorted(left))
        while left and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.2)
            with suppress(OSError, TimeoutError, ValueError):
                left &= set(await self.listed(fresh=True))
        if left:
            log.warning("programs-left", ids=sorted(left))


class _Array:
    """Equal programs of several orders that go out together, as soon as no more of them come."""

    def __init__(self, name: str, asked: AskedFor, programs: SgePrograms) -> None:
        self._name, self._asked, self._programs = name, asked, programs
        self._entries: list[tuple[Path, asyncio.Future[str]]] = []
        self._last = 0.0
        #: It goes out now; what comes later needs another one.
        self.closed = False
        self._going = asyncio.create_task(self._go())

    def add(self, directory: Path) -> asyncio.Future[str]:
        """One more program; its number, when there is one."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        self._entries.append((directory, future))
        self._last = loop.time()
        return future

    async def _go(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _TOGETHER
        while loop.time() < min(end, self._last + _APART):
            await asyncio.sleep(_APART / 4)
        self.closed = True
        wanted = [(directory, future) for directory, future in self._entries if not future.done()]
        if not wanted:
            return
        try:
            made = await self._programs.submit(
                self._name, self._asked, [directory for directory, _ in wanted]
            )
        except Exception as error:
            for _, future in wanted:
                future.set_exception(error)
                future.exception()  # whoever waited may be gone
            return
        for (_, future), number in zip(wanted, made, strict=True):
            future.set_result(number)


async def _in_any_case(work: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> None:
    """Wait for the end of something, however often whoever waits is cancelled meanwhile.

    Who cancels several works at once often does so twice.
    """
    going = asyncio.ensure_future(work)
    while not going.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(going)
    if not going.cancelled() and (error := going.exception()) is not None:
        log.warning("programs-not-deleted", error=str(error))


def _write_numbers(directories: Sequence[Path], numbers: Sequence[str]) -> None:
    for directory, number in zip(directories, numbers, strict=True):
        (directory / OURS / "batch").write_text(f"{number}\n")

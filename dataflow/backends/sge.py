"""Workers as jobs of Grid Engine, with its own words for what becomes of them."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from dataflow.backends.commands import said
from dataflow.backends.gridengine import (
    Accounted,
    Listed,
    read_qacct,
    read_qstat,
    read_reasons,
    read_verification,
    spoken,
)
from dataflow.backends.jobqueue import JobQueueBackend
from dataflow.backends.lent import Lent
from dataflow.backends.processes import tidy_runs
from dataflow.backends.sge_programs import SgePrograms
from dataflow.config.backend_records import Sge

log = structlog.get_logger(__name__)

#: Seconds for jobs that were cancelled to leave the queue.
_LEAVING = 30.0

#: While all workers are there, Grid Engine is asked so many times less often.
_SETTLED = 6

#: Looks at a job that waits until it is asked whether it can ever run, and how often that is asked:
#: a host that is away for a moment is no reason to give up.
_PATIENCE, _TWICE = 2, 2

#: Grid Engine writes its accounting every quarter of a minute.
_ACCOUNT_PAUSE, _ACCOUNT_TRIES = 5.0, 6

#: Ended jobs whose accounting is remembered.
_REMEMBERED = 200

#: A line about an error, of Python or of the shell.
_ERROR = re.compile(
    r"^[\w.]*(Error|Exception)\b|command not found|No such file|[Pp]ermission denied"
)

#: What is known of an end until the accounting says more.
_UNTOLD, _EARLY = "it ended before it was told to", "it ended before its worker came"

#: Longest line of a log that is told.
_LINE = 300

#: Bytes of a job's log that are looked at.
_TAIL = 16_384


class SgeBackend(JobQueueBackend):
    """A :class:`~dataflow.backends.base.Backend` of Grid Engine's jobs.

    Says why a job was refused, is held, is in error, can never run or was deleted, within a few
    looks (``settings.look``). Nothing is left in the queue by :meth:`close`; after a crash of this
    process running jobs end by themselves, and waiting ones are cancelled when the site starts again.

    Parameters
    ----------
    site, workers, threads, memory, settings, directory
        As in :class:`~dataflow.backends.jobqueue.JobQueueBackend`.
    """

    _knows_strays = True

    def __init__(
        self,
        *,
        site: str,
        workers: int,
        threads: int,
        memory: int,
        settings: Sge | None,
        directory: Path,
    ) -> None:
        super().__init__(
            system="sge",
            site=site,
            workers=workers,
            threads=threads,
            memory=memory,
            settings=settings or Sge(),
            directory=directory,
        )
        self._asked = 0.0
        self._silent: tuple[float, str] | None = None
        #: How often a job was seen to wait, and why it can never run.
        self._looks: dict[str, tuple[int, str]] = {}
        self._accounted: dict[str, Accounted] = {}
        self._programs = SgePrograms(
            site=site,
            settings=settings or Sge(),
            memory=memory,
            runs=self.directory / "runs",
            prefix=self.job_name.replace("flow-", "run-", 1),
        )

    @property
    def programs(self) -> SgePrograms:
        """Shell commands are batch jobs of their own here."""
        return self._programs

    async def start(self) -> None:
        """Start the scheduler; what an earlier agent left behind is cleared away a little later."""
        await super().start()
        self._background.add(task := asyncio.create_task(self._clear_programs()))
        task.add_done_callback(self._background.discard)

    async def _clear_programs(self) -> None:
        # Whoever gave the order has that long to give it again.
        await asyncio.sleep(self.settings.orphaned)
        await self._programs.clear()
        await asyncio.to_thread(tidy_runs, self._programs.runs)

    @property
    def accounting(self) -> Mapping[str, Accounted]:
        """What Grid Engine's accounting says of leases that ended, by id; some seconds later."""
        return dict(self._accounted)

    def trouble(self) -> str:
        """Why no worker will come, in Grid Engine's words; see the protocol."""
        if found := super().trouble():
            return found
        works = any(one.works for one in self._lent.values())
        if self._demands and self._silent and not works:
            since, words = self._silent
            if asyncio.get_running_loop().time() - since > self.settings.silence:
                return f"Grid Engine does not answer: {words}"
        return ""

    # --- asking ---------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Take in what ``qstat`` says; more rarely while nothing changes."""
        now = asyncio.get_running_loop().time()
        settled = all(one.works for one in self._lent.values())
        pause = self.settings.look * (_SETTLED if settled else 1)
        open_ends = self._lent or self._strays or self._silent
        if not open_ends or now - self._asked < min(pause, self._soonest(now)):
            return
        self._asked = now
        known = list(self._lent.values())
        listed = await self._listed()
        if listed is None:
            return
        if self._strays:
            await self._catch(listed.values())
        broken = [one.id for one in known if _standing(listed.get(one.id)) == "error"]
        reasons = await self._reasons(broken) if broken else {}
        for one in known:
            await self._take_in(one, listed.get(one.id), reasons.get(one.id, ""), now)

    async def _catch(self, listed: Iterable[Listed]) -> None:
        """Cancel jobs of ours that we do not know: submitted, or to be cancelled, without an answer."""
        known = {one.id for one in self._lent.values()}
        ours = [one for one in listed if one.name == self.job_name and one.id not in known]
        self._strays = bool(ours)
        strays = [one.id for one in ours if one.standing != "ending"]
        if strays:
            log.info("leases-cleared", ids=strays)
            with suppress(OSError, TimeoutError):
                await self._said("qdel", *strays)

    def _unanswered(self, words: str) -> None:
        super()._unanswered(words)
        if self._silent is None:
            self._silent = (asyncio.get_running_loop().time() - self.settings.silence, words)

    def _mute(self) -> str:
        return f"Grid Engine does not answer: {self._silent[1]}" if self._silent else ""

    def _soonest(self, now: float) -> float:
        """Quicker at first: on an idle cluster a job runs after a second."""
        youngest = min((now - one.asked for one in self._lent.values()), default=now)
        return 1.0 if youngest < 10 else self.settings.look * _SETTLED

    async def _take_in(self, one: Lent, listed: Listed | None, said: str, now: float) -> None:
        if listed is None:
            await self._left(one)
            return
        stuck = ""
        match listed.standing:
            case "starting" | "running" | "ending":
                # A job is on its way to its host for as long as that one is not heard of.
                one.began, one.since, one.host = one.began or now, listed.since, listed.host
            case "held":
                stuck = f"it is held in the queue (state {listed.state})"
            case "error":
                stuck = said or f"it is in error (state {listed.state})"
                one.began, one.since, one.host = None, None, ""
            case "waiting":
                if not one.up:  # it may have begun, and been put back into the queue
                    one.began, one.since, one.host = None, None, ""
                stuck = await self._never(one)
        one.stuck = stuck

    async def _never(self, one: Lent) -> str:
        """Why a job that waits can never run; empty if it can, or if it is too early to ask."""
        looks, words = self._looks.get(one.id, (0, ""))
        looks += 1
        if _PATIENCE < looks <= _PATIENCE + _TWICE:
            try:
                words = read_verification((await self._said("qalter", "-w", "v", one.id))[1])
            except (OSError, TimeoutError):
                words = ""
            if not words:
                looks = _PATIENCE + _TWICE  # it can, and need not be asked about again
        self._looks[one.id] = (looks, words)
        return words if looks >= _PATIENCE + _TWICE else ""

    async def _left(self, one: Lent) -> None:
        """A job is no longer in the queue."""
        reason, hopeless = "", False
        if one.began is None:
            record = (await self._records([one.id])).get(one.id)
            if record is not None:
                reason = record.reason or _EARLY
            elif await asyncio.to_thread(self._log(one.id).exists):
                reason = _EARLY  # begun and ended between two looks; accounting may be seconds late
            else:
                # Somebody wanted it away; another one would be rude.
                reason, hopeless = "it was deleted from the queue", True
        elif one.leaving is None:
            reason = _UNTOLD if one.up else _EARLY
        if not hopeless:
            self._account_later(one)
        self._looks.pop(one.id, None)
        if (
            not one.up
            and not hopeless
            and (line := await asyncio.to_thread(self._last_words, one.id))
        ):
            reason = f"{reason}; its log says: {line}"
        await self._over(one, reason, hopeless=hopeless)

    def _log(self, id: str) -> Path:
        """What a job writes, from its beginning on."""
        return self.logs / f"{self.job_name}.o{id}"

    def _last_words(self, id: str) -> str:
        """What a job wrote about its first error, from which others follow, or its last line."""
        try:
            with self._log(id).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        except OSError:
            return ""
        errors = [line for line in lines if _ERROR.search(line)]
        return next(iter(errors), next(filter(None, reversed(lines)), ""))[:_LINE]

    # --- accounting -----------------------------------------------------------------------------

    def _account_later(self, one: Lent) -> None:
        self._background.add(task := asyncio.create_task(self._account(one.id)))
        task.add_done_callback(self._background.discard)

    async def _account(self, id: str) -> None:
        for _ in range(_ACCOUNT_TRIES):
            record = (await self._records([id])).get(id)
            if record is not None:
                self._accounted[id] = record
                while len(self._accounted) > _REMEMBERED:
                    del self._accounted[next(iter(self._accounted))]
                log.info(
                    "lease-accounted",
                    id=id,
                    host=record.host,
                    seconds=record.seconds,
                    memory=record.memory,
                    exit_status=record.exit_status,
                    failed=record.failed,
                )
                self._explain(record)
                return
            await asyncio.sleep(_ACCOUNT_PAUSE)

    def _explain(self, record: Accounted) -> None:
        """Put the accounting's word for the end of a lease in the place of our own."""
        for position, lease in enumerate(self._ended):
            if lease.id == record.id:
                reason = lease.reason
                if record.reason and lease.status == "failed":
                    reason = reason.replace(_UNTOLD, record.reason)
                since = record.started or lease.since
                self._ended[position] = replace(lease, reason=reason, since=since)

    async def _records(self, ids: Sequence[str]) -> Mapping[str, Accounted]:
        found: dict[str, Accounted] = {}
        for id in ids:
            with suppress(OSError, TimeoutError):
                found |= read_qacct((await self._said("qacct", "-j", id))[1])
        return found

    # --- qstat ----------------------------------------------------------------------------------

    async def _listed(self) -> Mapping[str, Listed] | None:
        """Jobs of this account by id; ``None`` if Grid Engine does not answer."""
        asked = asyncio.get_running_loop().time()
        try:
            code, words = await self._said("qstat", "-xml", "-u", getpass.getuser())
            if code:
                raise OSError(spoken(words) or f"qstat ended with {code}")
            listed = read_qstat(words)
        except (OSError, TimeoutError, ValueError) as error:
            words = str(error) or "qstat took too long"
            log.warning("batch-system-silent", error=words)
            since = self._silent[0] if self._silent else asked
            self._silent = (since, words)
            return None
        self._silent = None
        return {one.id: one for one in listed}

    async def _reasons(self, ids: Sequence[str]) -> Mapping[str, str]:
        try:
            return read_reasons((await self._said("qstat", "-xml", "-j", ",".join(ids)))[1])
        except (OSError, TimeoutError, ValueError):
            return {}

    async def _said(self, *command: str) -> tuple[int, str]:
        return await _first_of(command, self.settings.silence)

    def _refuse(self, words: str) -> None:
        super()._refuse(spoken(words))

    async def _clear(self) -> None:
        """Cancel what an earlier agent of this site left in the queue."""
        listed = await self._listed()
        ours = [one.id for one in (listed or {}).values() if one.name == self.job_name]
        if ours:
            log.info("leases-cleared", ids=ours)
            with suppress(OSError, TimeoutError):
                await self._said("qdel", *ours)

    async def _gone(self, ids: Sequence[str]) -> None:
        """Wait until ``qstat`` no longer lists these, up to half a minute."""
        left = set(ids)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING):
                while left:
                    listed = await self._listed()
                    left = left if listed is None else left & set(listed)
                    if left:
                        await asyncio.sleep(0.2)
        if left:
            log.warning("leases-left", ids=sorted(left))


async def _first_of(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Exit status and words of a command: what it wrote as a result, else as an error."""
    code, out, err = await said(*command, seconds=seconds)
    return code, out.strip() or err.strip()


def _standing(listed: Listed | None) -> str:
    return "" if listed is None else listed.standing

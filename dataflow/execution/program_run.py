"""Shell operations of one order as batch jobs of their own: staged, run, and their results fetched.

What is equal goes out together, as one array. A run has its directory below that of the site's
runs, named by order and step; so an order that is sent again, after this process had ended, finds the
batch jobs that it had submitted, and goes on with them.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import structlog

from dataflow.backends.gridengine import Accounted
from dataflow.backends.programs import OURS, ProgramOrder, RunsPrograms, Turn
from dataflow.documents import from_json, to_json
from dataflow.errors import (
    DataflowError,
    OperationFailed,
    SiteRefused,
    StorageError,
    WalltimeExceeded,
    WorkerLost,
)
from dataflow.execution.commands import ended_with
from dataflow.execution.failures import Broken, broken, failure_of, text_of
from dataflow.execution.inputs import Lying, path_of
from dataflow.execution.invitation import Invitation, is_notebook, run_of, write_invitation
from dataflow.execution.programs import Accounting, Demanded, Program, ProgramStatus
from dataflow.execution.staging import (
    QUOTED_NBYTES,
    Staged,
    end_of,
    must_be_written,
    stage,
    streams,
    written,
)
from dataflow.execution.to_dask import Work
from dataflow.storage.manifest import Manifest
from dataflow.tasks import ended, together

log = structlog.get_logger(__name__)

#: Exit status of a batch job whose host does not see the directory.
_NOT_THERE = 97

_RECORD = "staged.json"

Tell = Callable[[Program], None]


class Programs:
    """The runs of one order.

    Parameters
    ----------
    ability
        Who runs programs at this site.
    order
        Its id; the directories are named by it.
    tell
        Gets the record of a run whenever it changes.
    stored
        Gets the manifest of a result when it is committed, and the seconds that it took.
    invite
        What a notebook of this order may show to the agent; without it none is run.
    """

    def __init__(
        self,
        ability: RunsPrograms,
        order: str,
        tell: Tell,
        stored: Callable[[Manifest, float], None],
        invite: Callable[[], Awaitable[Invitation]] | None = None,
    ) -> None:
        self._invite = invite
        self._ability, self._order = ability, order
        self._tell_about, self._stored = tell, stored
        self._accounts: list[asyncio.Task[None]] = []
        #: Records of the runs by key, as they were last told.
        self._known: dict[str, Program] = {}

    async def run(self, works: Sequence[Work]) -> None:
        """Run steps that need nothing of one another, to the end of all.

        Raises
        ------
        Broken
            Once, when one of them fails; the others are deleted then.
        """
        for work in works:
            self._tell(self._new(work))
        groups: dict[object, list[Work]] = {}
        for work in works:
            operation = work.step.operation
            groups.setdefault((operation.name, operation.needs), []).append(work)
        await together([self._group(group) for group in groups.values()])

    async def accounted(self) -> None:
        """Wait until what ran is accounted for, as far as the batch system tells in time."""
        await asyncio.gather(*self._accounts)

    async def close(self) -> None:
        """Stop asking for accounts."""
        await ended(self._accounts)

    # --- one array --------------------------------------------------------------------------------

    async def _group(self, works: Sequence[Work]) -> None:
        first = works[0].step
        needs, site = first.operation.needs, works[0].site
        order = ProgramOrder(
            name=first.operation.name,
            directories=tuple(self.directory(work.step.key) for work in works),
            cores=needs.cores,
            memory=needs.memory,
            walltime=needs.walltime,
            queue=needs.queue,
        )
        try:
            asked = self._ability.asked_for(order)
            demanded = Demanded(**asdict(asked))
            staged = [await self._staged(work, demanded) for work in works]
            collecting: asyncio.Queue[tuple[int, Turn]] = asyncio.Queue()

            def hear(place: int, turn: Turn) -> None:
                self._hear(works[place], turn)
                if turn.status == "ended":
                    collecting.put_nowait((place, turn))

            async def collect() -> None:
                for _ in works:
                    place, turn = await collecting.get()
                    await self._collect(works[place], staged[place], turn, asked.walltime)

            await together([self._ability.run_programs(order, hear), collect()])
        except SiteRefused as error:
            self._end_all(works, "failed", error.reason)
            raise broken(SiteRefused(site, error.reason), "site") from error
        except BaseException:
            self._end_all(works, "cancelled", "")
            raise

    def _hear(self, work: Work, turn: Turn) -> None:
        if turn.status != "ended":
            known = self._known[work.step.key]
            self._tell(
                replace(
                    known,
                    status=turn.status,
                    batch=turn.batch,
                    host=turn.host,
                    began=turn.since if turn.status == "running" else None,
                    reason=turn.reason,
                    submitted=known.submitted or time.time(),
                )
            )

    def _end_all(self, works: Sequence[Work], status: ProgramStatus, reason: str) -> None:
        for work in works:
            known = self._known[work.step.key]
            if not known.over:
                self._tell(replace(known, status=status, reason=reason, ended=time.time()))

    def _tell(self, program: Program) -> None:
        if self._known.get(program.key) != program:
            self._known[program.key] = program
            self._tell_about(program)

    # --- staging ----------------------------------------------------------------------------------

    def _new(self, work: Work) -> Program:
        directory = self.directory(work.step.key)
        return Program(
            key=work.step.key,
            label=work.step.label,
            site=work.site,
            run=directory.name,
            status="new",
            directory=str(directory),
        )

    def directory(self, key: str) -> Path:
        """Where the step of that key runs for this order."""
        return self._ability.runs.absolute() / run_of(self._order, key)

    async def _staged(self, work: Work, demanded: Demanded) -> Staged:
        program = replace(self._known[work.step.key], demanded=demanded)
        invitation = await self._invitation(work)
        try:
            staged = await asyncio.to_thread(_stage, work, program, invitation)
        except SiteRefused:
            raise
        except DataflowError as error:
            lying = [source.replica.url for source in work.inputs if isinstance(source, Lying)]
            failure = failure_of(error, label=work.step.label, site=work.site, inputs=lying)
            raise Broken(failure) from error
        except OSError as error:
            raise broken(
                _of_directory(error, Path(program.directory), work.site), "site"
            ) from error
        self._tell(replace(program, files=staged.files))
        return staged

    async def _invitation(self, work: Work) -> Invitation | None:
        if not is_notebook(work.step.operation):
            return None
        if self._invite is None:
            raise SiteRefused(work.site, "no notebooks are run here")
        return await self._invite()

    # --- the end ----------------------------------------------------------------------------------

    async def _collect(
        self, work: Work, staged: Staged, turn: Turn, walltime: float | None
    ) -> None:
        step, site = work.step, work.site
        files = await asyncio.to_thread(
            lambda: (*staged.files, *written(staged.outputs), *streams(staged.directory))
        )
        ended = replace(
            self._known[step.key],
            status="failed",
            batch=turn.batch,
            host=turn.host,
            began=turn.since,
            ended=turn.until or time.time(),
            exit_status=turn.exit_status,
            files=files,
        )
        if turn.accounted is not None:
            ended = replace(ended, accounting=accounting_of(turn.accounted))
        stderr = end_of(staged.directory / OURS / "stderr", QUOTED_NBYTES).strip()
        if turn.overtime and walltime:
            self._tell(replace(ended, reason=turn.reason))
            raise broken(WalltimeExceeded(step.label, site, walltime, turn.reason, stderr), "user")
        if turn.exit_status is None:
            self._tell(replace(ended, reason=turn.reason))
            reason = f"batch job {turn.batch}: {turn.reason}"
            if turn.accounted is not None and turn.accounted.exit_status == _NOT_THERE:
                reason = f"its host {turn.host} does not see {staged.directory}"
            raise broken(WorkerLost(step.label, site, reason), "worker")
        try:
            if turn.exit_status:
                raise OperationFailed(step.label, site, ended_with(turn.exit_status), stderr)
            must_be_written(step, staged.outputs, site)
        except OperationFailed as error:
            self._tell(replace(ended, reason=error.error))
            raise broken(error, "user") from None
        try:
            manifest = await asyncio.to_thread(_stored, work, staged)
        except Exception as error:
            self._tell(replace(ended, reason=text_of(error)))
            failure = failure_of(error, label=step.label, site=site)
            raise Broken(failure) from error
        await asyncio.to_thread(shutil.rmtree, staged.directory, ignore_errors=True)
        done = replace(ended, status="done", directory="")
        self._tell(done)
        seconds = max((turn.until or 0.0) - (turn.since or 0.0), 0.0) if turn.since else 0.0
        self._stored(manifest, seconds)
        if done.accounting is None:
            self._accounts.append(asyncio.create_task(self._account(done)))

    async def _account(self, program: Program) -> None:
        found = await self._ability.accounting(program.batch)
        if found is not None:
            self._tell(replace(program, accounting=accounting_of(found)))


def accounting_of(record: Accounted) -> Accounting:
    """The journal's record of what the batch system's accounting says."""
    return Accounting(
        queue=record.queue,
        host=record.host,
        slots=record.slots,
        exit_status=record.exit_status,
        failed=record.failed,
        seconds=record.seconds,
        cpu=record.cpu,
        memory=record.memory,
        started=record.started,
        ended=record.ended,
    )


def _stage(work: Work, program: Program, invitation: Invitation | None = None) -> Staged:
    """Make the directory of a run, unless an earlier process has; in a thread.

    Raises
    ------
    SiteRefused
        If something else lies there.
    OSError
        If it cannot be made.
    """
    directory = Path(program.directory)
    record = directory / OURS / _RECORD
    if invitation is not None:  # anew for what runs already, too: an agent's port changes
        write_invitation(invitation, directory, sys.executable)
    if record.is_file():  # it may be in the queue, or have ended meanwhile
        known = from_json(Program, record.read_bytes())
        outputs = [directory / name for name in _outputs(work)]
        return Staged(directory, tuple(outputs), known.files)
    if directory.exists() and any(path.name != OURS for path in directory.iterdir()):
        raise SiteRefused(
            work.site,
            f"the directory of the run, {directory}, is not empty, and nothing there says that it "
            "is ours\nWhat you can do: move it away",
        )
    (directory / OURS).mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    fetched = 0

    def scratch() -> Path:
        nonlocal fetched
        fetched += 1
        made = directory / OURS / "inputs" / str(fetched)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        return made

    given = [source for source in work.inputs if isinstance(source, Lying)]
    assert len(given) == len(work.inputs), "what a program reads is always stored"
    staged = stage(work.step, [(source, path_of(source, scratch)) for source in given], directory)
    fresh = record.with_suffix(".new")
    fresh.write_text(to_json(replace(program, files=staged.files)))
    fresh.replace(record)
    return staged


def _outputs(work: Work) -> list[str]:
    from dataflow.execution.staging import filled

    nothing: Mapping[str, str] = dict.fromkeys(
        (*work.step.slots, *work.step.parameters, *work.step.operation.slots), ""
    )
    return [path.name for path in filled(work.step.operation.command, nothing, Path("/"))[1]]


def _stored(work: Work, staged: Staged) -> Manifest:
    from dataflow.execution.in_worker import environment
    from dataflow.storage.results import write_result

    place = work.place
    return write_result(
        list(staged.outputs),
        root=place.root,
        key=work.step.key,
        attempt=work.attempt,
        provenance={**work.provenance, "environment": dict(environment())},
        credentials=place.credentials,
        options=place.options,
    )


def _of_directory(error: OSError, directory: Path, site: str) -> DataflowError:
    """An error about the directory of a run, for a user to read."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = "the disk is full" if error.errno == errno.ENOSPC else "the quota is used up"
        return SiteRefused(
            site,
            f"nothing can be staged in {directory.parent}: {why}\n"
            "What you can do: make room there, or name another directory in the site file (shared)",
        )
    if isinstance(error, StorageError):
        return error
    return SiteRefused(site, f"nothing can be staged in {directory}: {text_of(error)}")

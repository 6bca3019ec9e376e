"""One segment at its site: what is there already is reported, the rest is made by Dask tasks.

The outputs of an order are taken up in rounds. An output that somebody else is making here is waited
for; so is one that needs such a result on the way. What is left over after a round (the other one
failed) is made in the next.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataflow import tracing
from dataflow.backends.base import Demand
from dataflow.datasets import Dataset, Lineage
from dataflow.errors import (
    ConfigError,
    GraphError,
    SiteRefused,
    StorageError,
    UnknownDataset,
    UnreadableDataset,
    WorkerLost,
)
from dataflow.execution.events import Ran, Report, SegmentOrder, Stored
from dataflow.execution.failures import Broken, broken, text_of
from dataflow.execution.futures import NeverBegun, Tasks, end_stuck
from dataflow.execution.inputs import Lying
from dataflow.execution.invitation import is_notebook
from dataflow.execution.letting import let
from dataflow.execution.program_run import Programs
from dataflow.execution.programs import Program, ProgramStatus
from dataflow.execution.to_dask import Outcome, Place, Work
from dataflow.execution.workplace import Workplace
from dataflow.graph.keys import digest
from dataflow.graph.operation import Step
from dataflow.storage.fingerprints import current_fingerprint
from dataflow.storage.manifest import Manifest, dataset_of, replica_of
from dataflow.tasks import ended, together

Tell = Callable[[Report], None]

#: How the fingerprint of a committed result begins; its files are checked when they are read.
_COMMITTED = "manifest:"

#: How often an order stands behind tasks that end their worker before it is given up.
MOST_LOST = 5


async def run_segment(order: SegmentOrder, workplace: Workplace, tell: Tell) -> None:
    """Carry out an order, telling of each output when it is stored.

    Raises
    ------
    Broken
        Once, when the order cannot be carried out; its tasks are cancelled then.
    """
    await _Segment(order, workplace, tell).run()


class _Segment:
    """One order on its way."""

    def __init__(self, order: SegmentOrder, workplace: Workplace, tell: Tell) -> None:
        self.order, self.workplace, self.tell = order, workplace, tell
        self.steps: Mapping[str, Step] = {step.key: step for step in order.steps}
        self.place: Place
        #: What is committed, by key; these have been reported.
        self.stored: dict[str, Manifest] = {}
        self.claimed: set[str] = set()
        #: Workers that were lost with our tasks in their queue.
        self.lost = 0
        #: Who runs shell commands without a worker, where the site can; notebooks everywhere.
        self.programs = Programs(
            workplace.backend.programs or workplace.processes,
            order.id,
            self._ran,
            self._made_by_program,
            functools.partial(workplace.invite, order),
        )
        #: Runs of commands by key, as they were last told.
        self.runs: dict[str, Program] = {}

    async def run(self) -> None:
        """Make all that the order asks for."""
        try:
            await self._outputs()
            await self.programs.accounted()
        finally:
            await self.programs.close()

    async def _outputs(self) -> None:
        self.place = await self.workplace.place()
        remaining = list(dict.fromkeys(self.order.outputs))
        for key in remaining:
            if key not in self.steps:
                raise broken(GraphError(f"the segment has no step for its output {key}"), "site")
        while remaining:
            try:
                await self._round(remaining)
            finally:
                self._release(list(self.claimed))
            remaining = [key for key in remaining if key not in self.stored]

    async def _round(self, remaining: Sequence[str]) -> None:
        claims = self.workplace.claims
        mine = [key for key in remaining if not claims.taken(key)]
        others = [key for key in remaining if key not in mine]
        claims.take(mine)
        self.claimed |= set(mine)
        # Looked for only now that nobody else can be making them.
        await asyncio.gather(*map(self._find, mine))
        wanted = [key for key in mine if key not in self.stored]
        blocked = [key for key in wanted if not self._needed([key]).isdisjoint(others)]
        self._release(blocked)
        wanted = [key for key in wanted if key not in blocked]
        waiting = [asyncio.ensure_future(self._made_by_another(key)) for key in others]
        try:
            if wanted:
                await self._made(wanted)
            if waiting:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(waiting)

    async def _made_by_another(self, key: str) -> None:
        await self.workplace.claims.free(key)
        await self._find(key)

    async def _find(self, key: str) -> None:
        manifest = await self.workplace.find(key)
        if manifest is not None:
            self._report(manifest, reused=True)

    def _release(self, keys: Collection[str]) -> None:
        self.claimed -= set(keys)
        self.workplace.claims.release(keys)

    # --- making ---------------------------------------------------------------------------------

    async def _made(self, wanted: Sequence[str]) -> None:
        """Make these outputs; again in the next round, if a worker died before it began."""
        try:
            await self._run_commands(wanted)
            left = [key for key in wanted if key not in self.stored]
            if left:
                await self._make(left)
        except NeverBegun as error:
            self.lost += 1
            if self.lost >= MOST_LOST:
                site = self.workplace.site.name
                reason = f"{self.lost} workers ended, one after the other, before they began it"
                raise broken(WorkerLost(str(error), site, reason), "worker") from error

    async def _run_commands(self, wanted: Sequence[str]) -> None:
        """Run the commands that these outputs need, where the site runs them without a worker.

        Those that need no other command go first, after what they read was made.
        """
        while commands := self._first_commands(wanted):
            for manifest in await asyncio.gather(*map(self.workplace.find, commands)):
                if manifest is not None:
                    self._report(manifest, reused=True)
            commands = [key for key in commands if key not in self.stored]
            if not commands:
                continue
            read = {key for key in commands for key in self.steps[key].inputs}
            made = [key for key in read if self._comes_of_step(key)]
            if made:
                await self._make(made)
            self.place = await self.workplace.checked_place()
            steps = [self.steps[key] for key in commands]
            given, _ = await asyncio.to_thread(self._at_hand, steps)
            works = self._works(steps, commands, given, {})
            for work in works:
                await let(self.order, work, None, self.workplace)
            await self.programs.run(works)

    def _first_commands(self, wanted: Collection[str]) -> list[str]:
        """Commands that have to be run, and need no other one that has to be."""
        needed = self._needed([key for key in wanted if key not in self.stored])
        commands = [key for key in needed if self._is_program(key)]
        return sorted(
            key
            for key in commands
            if not any(self._is_program(k) for k in self._needed([key]) - {key})
        )

    def _is_program(self, key: str) -> bool:
        """Whether a step is run by itself, without a worker."""
        operation = self.steps[key].operation
        able = self.workplace.backend.programs is not None
        return is_notebook(operation) or (able and bool(operation.command))

    def _made_by_program(self, manifest: Manifest, seconds: float) -> None:
        self._report(manifest, seconds=seconds)
        self._release([manifest.key])

    def _ran(self, program: Program) -> None:
        """Tell of a run of a command, once for each change; an end is the last."""
        known = self.runs.get(program.key)
        if known == program or (
            known is not None and known.run == program.run and known.over and not program.over
        ):
            return
        self.runs[program.key] = program
        self.tell(Ran(program=program))

    async def _make(self, wanted: Sequence[str]) -> None:
        """Make these outputs, and the steps that they need, on the site's workers."""
        needed = self._needed(wanted)
        steps = [step for step in self.order.steps if step.key in needed]
        self.place = await self.workplace.checked_place()
        given, payloads = await asyncio.to_thread(self._at_hand, steps)
        backend = self.workplace.backend
        try:
            await backend.request(self._demand(steps))
            client = await backend.client()
        except SiteRefused as error:
            named = SiteRefused(self.workplace.site.name, error.reason)
            raise broken(named, "site") from error
        except Exception as error:
            label, site = steps[-1].label, self.workplace.site.name
            raise broken(WorkerLost(label, site, f"no workers: {error}"), "worker") from error
        self.workplace.begun.listen(client)
        tasks = Tasks(backend, client, self.workplace.begun)
        try:
            for work in self._works(steps, wanted, given, payloads):
                await let(self.order, work, tasks, self.workplace)
                self._told(work, "new")
                name = tasks.add(work)
                self._told(work, "pending")
                if work.step.operation.command:
                    self.workplace.begun.watch(name, functools.partial(self._told, work, "running"))
            await together([self._output(key, tasks) for key in wanted])
        except BaseException:
            if cancelled := await tasks.stop():
                self.workplace.later(end_stuck(backend, cancelled))
            raise
        finally:
            tasks.release()
            self._stop_runs()
            await backend.release(self.order.id)

    def _told(self, work: Work, status: ProgramStatus) -> None:
        """Tell how a command stands that a worker runs."""
        step = work.step
        if not step.operation.command:
            return
        now, known = self.workplace.clock(), self.runs.get(step.key)
        fresh = known is None or known.run != work.attempt
        program = Program(
            key=step.key,
            label=step.label,
            site=work.site,
            run=work.attempt,
            status=status,
            submitted=now if fresh or known is None else known.submitted,
            began=now if status == "running" else None,
        )
        self._ran(program)

    def _stop_runs(self) -> None:
        """Commands that a worker was to run, and that nobody waits for any more."""
        for program in list(self.runs.values()):
            if not program.over and not program.batch and not program.directory:
                self._ran(replace(program, status="cancelled", ended=self.workplace.clock()))

    def _demand(self, steps: Sequence[Step]) -> Demand:
        """What these steps ask of the workers: as planned, where somebody knew."""
        planned = [self.order.seconds.get(step.key, 0.0) for step in steps]
        return Demand(
            order=self.order.id,
            job=self.order.job,
            tasks=len(steps),
            seconds=sum(planned),
            longest=max(planned, default=0.0),
            memory=max((self.order.memory.get(step.key, 0) for step in steps), default=0),
        )

    async def _output(self, key: str, tasks: Tasks) -> None:
        site = self.workplace.site.name
        outcome = await tasks.outcome(key, site)
        for program in outcome.programs:
            known = self.runs.get(program.key)
            since = known.submitted if known is not None else None
            self._ran(replace(program, submitted=since))
        if outcome.failure is not None:
            raise Broken(outcome.failure)
        if outcome.manifest is None:
            label = self.steps[key].label
            raise broken(WorkerLost(label, site, "its task was given up"), "worker")
        self._trace(key, outcome)
        self._report(outcome.manifest, seconds=outcome.seconds)
        self._release([key])

    def _trace(self, key: str, outcome: Outcome) -> None:
        """What a worker did and timed; workers trace nothing themselves."""
        about = {"job": self.order.job, "site": self.workplace.site.name, "key": key}
        step = self.steps[key]
        tracing.done("operation", outcome.seconds, **about, label=step.label)
        if outcome.commit_seconds is not None:
            tracing.done("commit", outcome.commit_seconds, **about)

    def _needed(self, wanted: Collection[str]) -> set[str]:
        """Keys of the steps to be run for these outputs, themselves included."""
        found: set[str] = set()
        stack = list(wanted)
        while stack:
            key = stack.pop()
            if key in found:
                continue
            found.add(key)
            stack.extend(k for k in self.steps[key].inputs if self._comes_of_step(k))
        return found

    def _comes_of_step(self, key: str) -> bool:
        return key not in self.stored and key not in self.order.inputs and key in self.steps

    def _at_hand(self, steps: Sequence[Step]) -> tuple[dict[str, Lying], dict[str, bytes]]:
        """Inputs that lie in stores, checked, and the code of the steps; in a thread."""
        try:
            payloads = {
                code: self._payload(step)
                for code, step in {s.operation.code: s for s in steps}.items()
                if not step.operation.command
            }
            keys = {k for step in steps for k in step.inputs if not self._comes_of_step(k)}
            return {key: self._given(key) for key in keys}, payloads
        except ConfigError as error:
            raise broken(error, "site") from error

    def _payload(self, step: Step) -> bytes:
        try:
            return self.workplace.code.get(step.operation.code)
        except KeyError:
            reason = f"the code of {step.label!r} is missing here; hand it over and order again"
            raise broken(SiteRefused(self.workplace.site.name, reason), "site") from None

    def _given(self, key: str) -> Lying:
        site = self.workplace.site.name
        if key in self.stored:
            manifest = self.stored[key]
            return self.workplace.lying(replica_of(manifest, site, self.place.store), manifest.kind)
        replica, dataset = self.order.inputs.get(key), self.order.datasets.get(key)
        if replica is None or dataset is None:
            raise broken(UnknownDataset(key), "input")
        lying = self.workplace.lying(replica, dataset.kind)
        if replica.fingerprint and not replica.fingerprint.startswith(_COMMITTED):
            self._check(lying)
        return lying

    def _check(self, lying: Lying) -> None:
        """Refuse source data that are not what was registered: keys would lie about them."""
        url, site = lying.replica.url, self.workplace.site.name
        mend = "What you can do: register it again"
        try:
            current = current_fingerprint(url, credentials=lying.credentials, options=lying.options)
        except (UnreadableDataset, FileNotFoundError) as error:
            reason = f"it is no longer there at site {site!r} ({text_of(error)})\n{mend}."
            raise broken(UnreadableDataset(url, reason), "input") from error
        except OSError as error:
            known = error if isinstance(error, StorageError) else StorageError(text_of(error))
            raise broken(known, "site") from error
        if current != lying.replica.fingerprint:
            reason = f"it has changed at site {site!r} since it was registered\n{mend}."
            raise broken(UnreadableDataset(url, reason), "input")

    def _works(
        self,
        steps: Sequence[Step],
        wanted: Collection[str],
        given: Mapping[str, Lying],
        payloads: Mapping[str, bytes],
    ) -> list[Work]:
        attempt = self.workplace.new_attempt()
        used = {key for step in steps for key in step.inputs}
        by_commands = {k for step in steps if step.operation.command for k in step.inputs}
        works = []
        for step in steps:
            earlier = list(dict.fromkeys(key for key in step.inputs if key not in given))
            works.append(
                Work(
                    step=step,
                    site=self.workplace.site.name,
                    attempt=attempt,
                    place=self.place,
                    inputs=tuple(
                        given[key] if key in given else earlier.index(key) for key in step.inputs
                    ),
                    payload=payloads.get(step.operation.code),
                    extents={key: self.order.extents[key] for _, key in step.absent},
                    store=step.key in wanted or step.key in by_commands,
                    keep=step.key in used,
                    provenance=self._provenance(step),
                    floors=self.order.floors.get(step.key, ()),
                    environment=self.order.environment,
                )
            )
        return works

    # --- records --------------------------------------------------------------------------------

    def _provenance(self, step: Step) -> dict[str, Any]:
        operation, order = step.operation, self.order
        return {
            "operation": operation.name,
            "version": operation.version,
            "kind": operation.kind,
            "inputs": list(step.inputs),
            "parameters": dict(step.parameters),
            "site": self.workplace.site.name,
            "job": order.job,
            "plan": order.plan,
            "user": order.user,
            "created": self.workplace.clock(),
        }

    def _report(self, manifest: Manifest, *, seconds: float = 0.0, reused: bool = False) -> None:
        key, site = manifest.key, self.workplace.site.name
        if key in self.stored:
            return
        dataset = self._dataset(manifest)
        replica = replica_of(manifest, site, self.place.store, created=dataset.created)
        if key not in self.order.outputs:  # on the way to one
            self.stored[key] = manifest
            return
        self.workplace.publish([dataset, replica])
        self.stored[key] = manifest
        self.tell(Stored(key=key, replica=replica, dataset=dataset, seconds=seconds, reused=reused))

    def _dataset(self, manifest: Manifest) -> Dataset:
        """The catalog's record; of a result that was there already, by what its maker said."""
        order, step, said = self.order, self.steps[manifest.key], manifest.provenance
        operation = step.operation
        lineage = Lineage(
            operation=str(said.get("operation", operation.name)),
            version=str(said.get("version", operation.version)),
            kind=str(said.get("kind", operation.kind)),
            inputs=tuple(said.get("inputs", step.inputs)),
            parameters=said.get("parameters", step.parameters),
            site=str(said.get("site", "")),
            job=str(said.get("job", "")),
            plan=str(said.get("plan", "")),
            environment=said.get("environment", {}),
            origins=order.origins.get(manifest.key, ()),
            entered=order.entered.get(manifest.key, {}),
            rows=order.rows.get(manifest.key, {}),
            services=order.services.get(manifest.key, {}),
            temporary=manifest.key in order.temporary,
            unproven=manifest.key in order.unproven,
        )
        return dataset_of(
            manifest,
            id=digest(["result", self.workplace.site.name, manifest.key])[:32],
            name=step.label,
            site=self.workplace.site.name,
            owner=str(said.get("user", "")) or order.user,
            tags=order.tags if manifest.key in order.results else {},
            lineage=lineage,
            created=float(said.get("created", 0.0)),
        )

"""The Dask futures of one order: waited for, told apart when they fail, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from dataflow.errors import WorkerLost
from dataflow.execution.failures import Broken, broken, is_loss, text_of
from dataflow.execution.to_dask import BEGUN, Outcome, Work, submit

if TYPE_CHECKING:
    from dataflow.backends.base import Backend

log = structlog.get_logger(__name__)

#: Seconds that a cancelled task may go on before its worker is ended.
PATIENCE = 2.0

#: How often it is looked for cancelled tasks that go on; blocks of a task come to light one by one.
LOOKS = 4

#: Seconds for a worker, or the scheduler, to answer a question.
ANSWER = 3.0

#: Seconds between two looks whether the cluster is still there.
LOOK_EVERY = 1.0


class NeverBegun(Exception):
    """A worker was lost while a task stood in its queue: nothing of it has run."""


class Begun:
    """Names of tasks that workers have begun, as they tell it."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._listening: Any = None
        self._watched: dict[str, Callable[[], None]] = {}

    def watch(self, name: str, begun: Callable[[], None]) -> None:
        """Have something called when this task begins; until :meth:`forget`."""
        self._watched[name] = begun

    def forget(self, names: Iterable[str]) -> None:
        """These are over."""
        for name in names:
            self.names.discard(name)
            self._watched.pop(name, None)

    def listen(self, client: Any) -> None:
        """Hear of tasks of this client's scheduler from now on."""
        if client is not self._listening:
            client.subscribe_topic(BEGUN, self._hear)
            self._listening = client

    def _hear(self, event: tuple[float, str]) -> None:
        self.names.add(event[1])
        if (begun := self._watched.pop(event[1], None)) is not None:
            begun()


class Tasks:
    """Tasks of one order by the key of their step."""

    def __init__(self, backend: Backend, client: Any, begun: Begun) -> None:
        self.backend, self.client, self.begun = backend, client, begun
        self._made: dict[str, Any] = {}
        self._told: dict[str, Any] = {}
        self._labels: dict[str, str] = {}

    def add(self, work: Work) -> str:
        """Submit a step, after those that it reads from; the name of its task."""
        step = work.step
        positions = {
            source: key
            for key, source in zip(step.inputs, work.inputs, strict=True)
            if isinstance(source, int)
        }
        earlier = [self._made[positions[position]] for position in sorted(positions)]
        # The attempt in the name keeps a retry from getting the failure of the first time.
        name = f"{step.operation.name}-{work.attempt}-{step.key[:16]}"
        self._labels[name] = step.label
        self._made[step.key], self._told[step.key] = submit(self.client, work, earlier, key=name)
        return name

    def count(self, work: Work) -> str:
        """Have the rows counted that a step would get; the key under which the outcome is had."""
        counted = f"rows {work.step.key}"
        step = replace(work.step, key=counted)
        self.add(replace(work, step=step, count=True, store=False, keep=False))
        return counted

    async def outcome(self, key: str, site: str) -> Outcome:
        """What became of a step.

        Raises
        ------
        Broken
            If a worker was lost while it ran the step or one before it, or the cluster.
        NeverBegun
            If it was lost before.
        """
        future = self._told[key]
        getting = asyncio.ensure_future(_result(future))
        label = self._labels.get(self._made[key].key, key)
        try:
            while not (await asyncio.wait({getting}, timeout=LOOK_EVERY))[0]:
                # Asking also has workers tried again that did not come up.
                if future.status == "lost" or await self.backend.client() is not self.client:
                    raise broken(WorkerLost(label, site, "the workers' scheduler ended"), "worker")
                if trouble := self.backend.trouble():
                    raise broken(WorkerLost(label, site, trouble), "worker")
            outcome: Outcome = getting.result()
            return outcome
        except Broken:
            raise
        except Exception as error:
            task = getattr(error, "task", None)
            if task in self._labels:
                label = self._labels[task]
                if task not in self.begun.names:
                    raise NeverBegun(label) from error
            reason = "its process ended" if is_loss(error) else text_of(error)
            raise broken(WorkerLost(label, site, reason), "worker") from error
        finally:
            getting.cancel()

    def release(self) -> None:
        """Let go of all values, so that workers can forget them."""
        for future in {id(f): f for f in (*self._told.values(), *self._made.values())}.values():
            future.release()
        self.begun.forget(self._labels)

    async def stop(self) -> Cancelled | None:
        """Cancel what is not done; ``None`` if all is."""
        going = tuple(
            future
            for future in {f.key: f for f in (*self._told.values(), *self._made.values())}.values()
            if not future.done()
        )
        if not going:
            return None
        names = {future.key for future in going}
        running: dict[str, frozenset[str]] = {}
        with suppress(Exception):
            async with asyncio.timeout(ANSWER):
                processing = await self.client.processing()
                running = {w: frozenset(names.intersection(ks)) for w, ks in processing.items()}
                await self.client.cancel(going)
        workers = frozenset(worker for worker, found in running.items() if found)
        return Cancelled(self.client, going, workers)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Tasks of one client that were not done when they were cancelled.

    ``workers`` are the addresses of those to which the scheduler had given some; the other tasks were
    on their way, and may begin nevertheless.
    """

    client: Any
    futures: tuple[Any, ...]
    workers: frozenset[str]


async def end_stuck(backend: Backend, cancelled: Cancelled) -> None:
    """End workers that still run tasks which were cancelled a while ago.

    A thread cannot be interrupted, so a function that takes an hour would hold its worker for an
    hour. The blocks that a task waited for end up cancelled a little later than the task itself;
    hence several looks. A scheduler that still unpacks a graph passes over what it is told of its
    tasks, and has them run; hence they are cancelled again.
    """
    client, known = cancelled.client, {future.key for future in cancelled.futures}
    silent: set[str] = set()
    for _ in range(LOOKS):
        await asyncio.sleep(PATIENCE)
        if client.status != "running":
            return  # its cluster is gone, and with it the tasks: none is begun for their sake
        await client.cancel(list(cancelled.futures))
        going: dict[str, frozenset[str]] = {}
        for worker in await client.nthreads():
            try:
                async with asyncio.timeout(ANSWER):
                    found = await client.run(unwanted_tasks, sorted(known), workers=[worker])
                going[worker] = frozenset(found[worker])
            except Exception:
                # It holds the interpreter's lock; that we asked it something is the only sign.
                if worker in cancelled.workers:
                    silent.add(worker)
        stuck = {w for w, names in going.items() if not known.isdisjoint(names)}
        for worker in stuck | silent:
            log.info("worker-stuck", worker=worker)
            await backend.stop_worker(worker)
        if not any(going.values()) and not silent:
            return
        known.update(*going.values())
        silent.clear()


def unwanted_tasks(names: Collection[str], dask_worker: Any = None) -> list[str]:
    """Tasks of a worker that are still run though they are cancelled, or among these that are to be;
    asked inside the worker.
    """
    state = dask_worker.state
    return [
        str(task.key)
        for task in (*state.executing, *state.long_running)
        if task.state == "cancelled" or task.key in names
    ]


async def _result(future: Any) -> Any:
    return await future

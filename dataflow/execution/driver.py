"""Driver: carries out what the state of a job wants, and writes down what happens.

One :class:`Drive` per running job. It appends events to the journal first and acts after, and
acts only by comparing what is wanted with what is under way: so a restart, a lost answer or a site
that comes back with empty hands need no code of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from dataflow.datasets import Dataset
from dataflow.errors import (
    DataflowError,
    GraphError,
    JobError,
    PlacementError,
    PolicyError,
    SiteUnreachable,
    to_document,
)
from dataflow.execution.code import CodeStore
from dataflow.execution.events import (
    Broke,
    Ended,
    Event,
    JobStarted,
    Order,
    ReplanFailed,
    Replanned,
    Report,
    SegmentOrder,
    SiteAccess,
    SiteLost,
    TimeLimitReached,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.journal import Journal
from dataflow.execution.state import (
    JobState,
    apply,
    is_fact,
    order_id,
    order_of,
    site_of,
    wanted,
)
from dataflow.placement.plan import Plan

log = structlog.get_logger(__name__)

#: Seconds that a site may keep a question for news waiting.
POLL_SECONDS = 20.0
#: Pauses between attempts to reach a silent site, and before a failed unit is tried again.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a drive needs of the world.

    Attributes
    ----------
    access
        A site's name → its runner; raises ``SiteUnreachable`` if no way to it is known.
    replan
        A job that cannot go on as planned → a plan for the rest of it; raises ``PlacementError``.
    datasets
        Keys → the catalog's records of them, where there are any.
    clock
        Seconds since the epoch.
    lost_after
        Seconds of silence after which a site's work is given to others.
    """

    journal: Journal
    code: CodeStore
    access: Callable[[str], SiteAccess]
    replan: Callable[[JobState], Awaitable[Plan]]
    datasets: Callable[[Sequence[str]], Mapping[str, Dataset]]
    clock: Callable[[], float]
    lost_after: float = 8.0


class Drive:
    """One job on its way.

    Parameters
    ----------
    state
        As the journal has it.
    changed
        Called after every change of the state.
    """

    def __init__(
        self, state: JobState, around: Surroundings, changed: Callable[[JobState], None]
    ) -> None:
        self.state = state
        self._around = around
        self._changed = changed
        self._units: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._replanning: asyncio.Task[None] | None = None
        self._limit: asyncio.Task[None] | None = None
        self._given: dict[str, set[str]] = {}
        self._closed = False

    def start(self) -> None:
        """Take the job up, or up again."""
        if self.state.time_limit is not None:
            end = self.state.created + self.state.time_limit
            self._limit = asyncio.create_task(self._end_at(end), name="time limit")
        self.record(JobStarted(time=self._now()))

    async def close(self) -> None:
        """Stop driving; the sites work on, and the journal knows how far we got."""
        self._closed = True
        running = [task for _, task in self._units.values()]
        running += [*self._others, *(t for t in (self._replanning, self._limit) if t is not None)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def record(self, *events: Event) -> None:
        """Write events down and see to what follows from them."""
        if self._closed:
            return
        after = self.state
        for event in events:
            after = apply(after, event)
        try:
            self._around.journal.append(after.job, events, over=after.over)
        except JobError:
            log.warning("job_taken_over", job=after.job)
            self._closed = True
            for _, task in self._units.values():
                task.cancel()
            return
        before, self.state = self.state, after
        self._changed(after)
        self._see_to_it(before)

    # --- what is wanted, and what is under way ---------------------------------------------------

    def _see_to_it(self, before: JobState) -> None:
        want = wanted(self.state)
        for name, (attempt, task) in list(self._units.items()):
            if want.units.get(name) != attempt:
                del self._units[name]
                task.cancel()
                unit = self.state.units.get(name)
                if unit is None or unit.status != "ended":
                    self._stop(before, name, attempt)
        for name, attempt in want.units.items():
            if name not in self._units:
                run = asyncio.create_task(self._follow(name, attempt), name=f"unit {name}")
                self._units[name] = (attempt, run)
        if self.state.over and self._limit is not None:
            self._limit.cancel()
        if want.replan and self._replanning is None:
            self._replanning = asyncio.create_task(self._replan(), name="replan")

    def _stop(self, before: JobState, name: str, attempt: int) -> None:
        """Tell a site, if it listens, that an order is not wanted any more."""
        if name not in before.units:
            return
        site = site_of(before, name)

        async def tell() -> None:
            with suppress(DataflowError, OSError):
                await self._around.access(site).cancel(order_id(before, name, attempt))

        self._background(tell())

    def _background(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _end_at(self, end: float) -> None:
        await asyncio.sleep(max(0.0, end - self._now()))
        if not self.state.over:
            self.record(TimeLimitReached(time=self._now()))

    async def _replan(self) -> None:
        state = self.state
        event: Event
        try:
            plan = await self._around.replan(state)
            event = Replanned(plan=plan, because=state.replan, time=self._now())
        except PlacementError as error:
            event = ReplanFailed(error=state.cause or to_document(error), time=self._now())
        except Exception as error:
            log.exception("replan_failed", job=state.job)
            event = ReplanFailed(error=to_document(error), time=self._now())
        self._replanning = None
        if self.state.replan == state.replan and self.state.gone == state.gone:
            self.record(event)
        else:
            self._see_to_it(self.state)  # more was lost meanwhile: this answer came too late

    # --- one unit ------------------------------------------------------------------------------

    async def _follow(self, name: str, attempt: int) -> None:
        """See one unit through: order it, and write down all that its site reports."""
        site = site_of(self.state, name)
        try:
            await self._follow_at(site, name, attempt)
        except SiteUnreachable as error:
            self.record(SiteLost(site=site, reason=error.reason, time=self._now()))
        except DataflowError as error:
            self._broke(name, attempt, error)
        except OSError as error:
            self._broke(name, attempt, DataflowError(f"{type(error).__name__}: {error}"))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("unit_failed", job=self.state.job, unit=name)
            self._broke(name, attempt, error)

    def _broke(self, name: str, attempt: int, error: Exception) -> None:
        """A refusal, or a failure before the site could report one."""
        fault = "user" if isinstance(error, PolicyError | GraphError) else "site"
        report = Broke(error=to_document(error), fault=fault)  # type: ignore[arg-type]
        if self.state.units[name].attempt < attempt:
            started = UnitStarted(
                unit=name, site=site_of(self.state, name), attempt=attempt, time=self._now()
            )
            self.record(started, self._reported(name, attempt, report, 0))
        else:
            number = self.state.units[name].reported
            self.record(self._reported(name, attempt, report, number))

    async def _follow_at(self, site: str, name: str, attempt: int) -> None:
        around, loop = self._around, asyncio.get_running_loop()
        unit = self.state.units[name]
        begun = unit.attempt >= attempt
        since = unit.reported if begun else 0
        if not begun and unit.failures:
            await asyncio.sleep(_pause(unit.failures + 2))
        order: Order | None = None
        heard, silent = loop.time(), 0
        while True:
            try:
                access = around.access(site)
                if not begun:
                    if order is None:
                        order = self._order(name, attempt)
                    await self._begin(access, order, name, attempt)
                    begun, heard, silent = True, loop.time(), 0
                wait = POLL_SECONDS if self.state.units[name].attempt == attempt else 0.0
                reports = await access.follow(order_id(self.state, name, attempt), since, wait)
                heard, silent = loop.time(), 0
            except KeyError as error:
                if isinstance(error, DataflowError):
                    raise
                begun, since = False, 0  # the site was restarted: it gets the order again
                continue
            except SiteUnreachable:
                if loop.time() - heard >= around.lost_after:
                    raise
                silent += 1
                rest = around.lost_after - (loop.time() - heard)
                await asyncio.sleep(min(_pause(silent), max(rest, 0.01)))
                continue
            if self._take(name, attempt, since, reports):
                return
            since += len(reports)

    def _order(self, name: str, attempt: int) -> Order:
        state = self.state
        plain = order_of(state, name, attempt)
        keys = plain.datasets if isinstance(plain, SegmentOrder) else [plain.key]
        asked = [key for key in keys if key not in state.plan.sources]
        return order_of(state, name, attempt, self._around.datasets(asked)) if asked else plain

    async def _begin(self, access: SiteAccess, order: Order, name: str, attempt: int) -> None:
        if isinstance(order, SegmentOrder):
            await self._give_code(access, order)
        await access.start(order)
        if self.state.units[name].attempt < attempt:
            self.record(UnitStarted(unit=name, site=order.site, attempt=attempt, time=self._now()))

    async def _give_code(self, access: SiteAccess, order: SegmentOrder) -> None:
        needed = {s.operation.code: s for s in order.steps if not s.operation.command}
        given = self._given.setdefault(order.site, set())
        asked = [code for code in needed if code not in given]
        if not asked:
            return
        held = set(await access.has_code(asked))
        for code in asked:
            if code not in held:
                try:
                    payload = self._around.code.get(code)
                except KeyError:
                    label = needed[code].label
                    raise GraphError(
                        f"the code of {label!r} was not handed over with the plan; submit the plan "
                        "from the notebook that has its functions"
                    ) from None
                await access.give_code(code, payload)
            given.add(code)

    def _take(self, name: str, attempt: int, since: int, reports: Sequence[Report]) -> bool:
        """Write reports down; whether they were the last of the order."""
        facts = [(since + n, report) for n, report in enumerate(reports) if is_fact(report)]
        if any(isinstance(report, Ended | Broke) for _, report in facts):
            # The site may have been sent a stale order: code that it lost is given again.
            self._given.pop(site_of(self.state, name), None)
        if facts:
            self.record(*(self._reported(name, attempt, report, n) for n, report in facts))
        return any(isinstance(report, Ended | Broke) for _, report in facts)

    def _reported(self, name: str, attempt: int, report: Report, number: int) -> UnitReported:
        return UnitReported(
            unit=name, attempt=attempt, report=report, number=number, time=self._now()
        )

    def _now(self) -> float:
        return self._around.clock()


def _pause(failures: int) -> float:
    return min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(failures, 8))

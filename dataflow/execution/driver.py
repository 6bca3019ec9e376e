"""Driver: carries out what the state of a job wants, and writes down what happens.

One :class:`Drive` per running job. It appends events to the journal first and acts after (an order
is in the journal before it is sent), and acts only by comparing what is wanted with what is under
way: so a restart, a lost answer or a site that comes back with empty hands need no code of their
own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from dataflow.datasets import Dataset, Replica
from dataflow.errors import (
    DataflowError,
    GraphError,
    JobError,
    PlacementError,
    PolicyError,
    SiteRefused,
    SiteUnreachable,
    to_document,
)
from dataflow.execution.code import CodeStore
from dataflow.execution.events import (
    Broke,
    CompareOrder,
    Crossed,
    Ended,
    Errand,
    Event,
    Fault,
    JobStarted,
    Order,
    ReleaseOrder,
    ReplanFailed,
    Replanned,
    Report,
    SegmentOrder,
    SiteAccess,
    SiteLost,
    TakesWants,
    TimeLimitReached,
    TransferOrder,
    UnitReported,
    UnitStarted,
    errand_of,
)
from dataflow.execution.journal import Journal
from dataflow.execution.orders import order_id, order_of, wanted
from dataflow.execution.relay import serve_wants
from dataflow.execution.state import JobState, apply, is_fact
from dataflow.execution.units import is_patient, site_of
from dataflow.patience import Patience
from dataflow.placement.plan import Plan
from dataflow.storage.transfer import Source

log = structlog.get_logger(__name__)

#: Seconds that a site may keep a question for news waiting, at most; less if silence is to be
#: noticed sooner.
POLL_SECONDS = 20.0
#: Pauses between attempts to reach a silent site, and before a failed unit is tried again.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
#: The longest pause for a copy that waits for its site: so soon after it is back it is asked.
LONGEST_PATIENT_PAUSE = 0.5
#: How long such a site may keep a question for news, and may be silent (s) before it is asked over
#: another connection: what a cut has left of the old one wakes up late.
PATIENT_WAIT, PATIENT_ANSWER = 1.0, 1.0
#: Seconds that a site gets to answer one more question, when it has been silent for too long.
LAST_CHANCE_SECONDS = 2.0
#: How often in a row a site may forget an order, with nothing reported of it, before that counts
#: as a failure.
MOST_FORGOTTEN = 5
#: Seconds that sites get to hear what need not be done any more, when all is to stop.
FAREWELL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a drive needs of the world.

    Attributes
    ----------
    access
        A site's name → its runner; raises ``SiteUnreachable`` if no way to it is known.
    replan
        A job that cannot go on as planned → a plan for the rest of it; raises ``PlacementError``.
    source_of
        Something to read a replica of any site from, on an errand; what is relayed is read there.
    datasets
        Keys → the catalog's records of them, where there are any.
    clock
        Seconds since the epoch.
    lost_after
        Seconds of silence after which a site's work is given to others.
    slowness
        A site's name → seconds that its answers may take beyond that, by what was seen of the road.
    """

    journal: Journal
    code: CodeStore
    access: Callable[[str], SiteAccess]
    replan: Callable[[JobState], Awaitable[Plan]]
    source_of: Callable[[Replica, Errand], Source]
    datasets: Callable[[Sequence[str]], Mapping[str, Dataset]]
    clock: Callable[[], float]
    lost_after: float = 8.0
    slowness: Callable[[str], float] = lambda site: 0.0


class Drive:
    """One job on its way.

    Parameters
    ----------
    state
        As the journal has it.
    changed
        Called after every change of the state.
    stopped
        Called when the journal took no more events; nothing is driven from then on. What is in the
        journal counts: read it, and begin anew.
    """

    def __init__(
        self,
        state: JobState,
        around: Surroundings,
        changed: Callable[[JobState], None],
        stopped: Callable[[str, Exception], None],
    ) -> None:
        self.state = state
        self._around = around
        self._changed = changed
        self._stopped = stopped
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

    async def close(self, patience: float = FAREWELL_SECONDS) -> None:
        """Stop driving; the sites work on, and the journal knows how far we got."""
        running = self._halt()
        try:
            await asyncio.gather(*running, return_exceptions=True)
            if self._others:  # they tell sites what to stop
                await asyncio.wait(self._others, timeout=patience)
        finally:
            for task in self._others:
                task.cancel()
        await asyncio.gather(*self._others, return_exceptions=True)

    def record(self, *events: Event) -> bool:
        """Write events down and see to what follows from them.

        False if the journal did not take them; what cannot be written at all is an error.
        """
        if self._closed:
            return False
        after = self.state
        for event in events:
            after = apply(after, event)
        try:
            self._around.journal.append(after.job, events, over=after.over)
        except (JobError, sqlite3.Error, OSError) as error:
            self._halt()
            self._stopped(after.job, error)
            return False
        before, self.state = self.state, after
        self._changed(after)
        self._see_to_it(before)
        return True

    def _halt(self) -> list[asyncio.Task[None]]:
        self._closed = True
        running = [task for _, task in self._units.values()]
        running += [task for task in (self._replanning, self._limit) if task is not None]
        for task in running:
            task.cancel()
        return running

    # --- what is wanted, and what is under way ---------------------------------------------------

    def _see_to_it(self, before: JobState) -> None:
        want = wanted(self.state)
        for name, (attempt, task) in list(self._units.items()):
            if want.units.get(name) != attempt:
                del self._units[name]
                task.cancel()
                self._stop(before, name, attempt)
        for name, attempt in want.units.items():
            if name not in self._units:
                run = asyncio.create_task(self._follow(name, attempt), name=f"unit {name}")
                self._units[name] = (attempt, run)
        if want.replan and self._replanning is None:
            self._replanning = asyncio.create_task(self._replan(), name="replan")

    def _stop(self, before: JobState, name: str, attempt: int) -> None:
        """Tell a site, if it listens, that an order is not wanted any more."""
        unit = before.units.get(name)
        if unit is None or unit.status != "running" or unit.attempt != attempt:
            return  # it was never sent
        site, order = site_of(before.plan, name), order_id(before, name, attempt)

        async def tell() -> None:
            try:
                await self._around.access(site).cancel(order)
            except Exception as error:
                log.info("order_not_stopped", order=order, site=site, reason=str(error))

        task = asyncio.create_task(tell(), name=f"stop {order}")
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _end_at(self, end: float) -> None:
        await asyncio.sleep(max(0.0, end - self._now()))
        if not self.state.over:
            self.record(TimeLimitReached(time=self._now()))

    async def _replan(self) -> None:
        state = self.state
        _say_whose(state)
        try:
            plan = await self._around.replan(state)
            if self._came_too_late(state):
                return
            self.record(Replanned(plan=plan, because=state.replan, time=self._now()))
        except Exception as error:
            if not isinstance(error, PlacementError):
                log.exception("replan_failed", job=state.job)
            if self._came_too_late(state):
                return
            known = state.cause if isinstance(error, PlacementError) else None
            self.record(ReplanFailed(error=known or to_document(error), time=self._now()))

    def _came_too_late(self, asked: JobState) -> bool:
        """Whether more was lost since a new plan was asked for; then another one is made."""
        self._replanning = None
        late = _asked_of_planner(self.state) != _asked_of_planner(asked)
        if late:
            self._see_to_it(self.state)
        return late

    # --- one unit ------------------------------------------------------------------------------

    async def _follow(self, name: str, attempt: int) -> None:
        """See one unit through: order it, and write down all that its site reports."""
        site = site_of(self.state.plan, name)
        _say_whose(self.state)
        try:
            await self._follow_at(site, name, attempt)
        except SiteUnreachable as error:
            self.record(SiteLost(site=site, reason=error.reason, time=self._now()))
        except (DataflowError, OSError) as error:
            fault: Fault = "user" if isinstance(error, PolicyError | GraphError) else "site"
            self._broke(name, attempt, error, fault)
        except Exception as error:  # a mistake of ours, no fault of the site
            log.exception("unit_failed", job=self.state.job, unit=name)
            self._broke(name, attempt, error, "worker")

    def _broke(self, name: str, attempt: int, error: Exception, fault: Fault) -> None:
        """A refusal, or a failure before the site could report one."""
        self._given.pop(site_of(self.state.plan, name), None)
        report = Broke(error=to_document(error), fault=fault)
        number = self.state.units[name].reported
        self.record(self._reported(name, attempt, report, number))

    async def _follow_at(self, site: str, name: str, attempt: int) -> None:
        relay = _Relay(self._around)
        try:
            await self._follow_orders(site, name, attempt, relay)
        finally:
            await relay.close()

    async def _follow_orders(self, site: str, name: str, attempt: int, relay: _Relay) -> None:
        around, loop = self._around, asyncio.get_running_loop()
        unit = self.state.units[name]
        # One that the journal has was sent, or nearly; if it was not, the site does not know it.
        sent = unit.attempt >= attempt
        if not sent:
            if unit.failures:
                await asyncio.sleep(_pause(unit.failures + 2))
            if not self.record(self._sending(site, name, attempt)):
                return
        since = self.state.units[name].reported
        id = order_id(self.state, name, attempt)
        wait = min(POLL_SECONDS, around.lost_after / 2)
        order: Order | None = None
        patient, tries = is_patient(self.state.plan, name), Patience()
        wait = PATIENT_WAIT if patient else wait
        heard, silent, forgotten = loop.time(), 0, 0
        while True:
            limit = tries.stretched(PATIENT_ANSWER) + around.slowness(site) if patient else None
            try:
                access = around.access(site)
                if not sent:
                    order = order or self._order(name, attempt)
                    async with asyncio.timeout(limit):
                        await self._send(access, order)
                    sent = True
                    heard, silent = (
                        loop.time(),
                        0,
                    )  # a site may have waited for news of what it is to read
                transfer = self.state.plan.transfer_by_id.get(name)
                if transfer is not None and transfer.via and not transfer.at:
                    order = order or self._order(name, attempt)
                    relay.see_to(access, order)
                asked = loop.time()
                # A dead road may keep a question much longer than a site may be silent.
                late = around.slowness(site)
                rest = max(around.lost_after - (asked - heard), LAST_CHANCE_SECONDS) + late
                hold = wait if limit is not None else min(wait, rest / 2)
                async with asyncio.timeout(rest if limit is None else wait + limit):
                    reports = await _reports(access, id, since, hold)
            except (SiteUnreachable, TimeoutError) as error:
                silent += 1
                tries.failed()
                if patient:
                    await asyncio.sleep(min(_pause(silent), LONGEST_PATIENT_PAUSE))
                    continue
                rest = around.lost_after + around.slowness(site) - (loop.time() - heard)
                if rest <= 0 and silent > 1 and not self._works_on(name):
                    if isinstance(error, SiteUnreachable):
                        raise
                    reason = f"no answer for {around.lost_after:g} s"
                    raise SiteUnreachable(site, reason) from error
                self._given.pop(site, None)
                await asyncio.sleep(min(_pause(silent), max(rest, 0.01)))
                continue
            heard, silent = loop.time(), 0
            tries.answered(0.0)
            if reports is None:  # the site was restarted: it gets the order again
                forgotten += 1
                if forgotten > MOST_FORGOTTEN:
                    raise SiteRefused(site, f"it forgot its order {id} {forgotten} times")
                self._given.pop(site, None)
                if forgotten > 1:
                    await asyncio.sleep(_pause(forgotten))
                # Its list begins anew, and the journal has to know before it does.
                if since and not self.record(self._sending(site, name, attempt)):
                    return
                sent, since = False, 0
                continue
            if reports:
                forgotten = 0
                if self._take(name, attempt, since, reports):
                    return
                since += len(reports)
            elif heard - asked < SHORTEST_PAUSE and wait > SHORTEST_PAUSE:
                await asyncio.sleep(SHORTEST_PAUSE)  # it did not wait, so we do

    def _works_on(self, name: str) -> bool:
        """Whether a batch job goes on at a site that is silent: it is waited for, however long."""
        unit = self.state.plan.segment_by_id.get(name)
        programs = self.state.programs
        return unit is not None and any(
            key in programs and programs[key].batch and not programs[key].over for key in unit.steps
        )

    def _sending(self, site: str, name: str, attempt: int) -> UnitStarted:
        return UnitStarted(unit=name, site=site, attempt=attempt, time=self._now())

    def _order(self, name: str, attempt: int) -> Order:
        state = self.state
        plain = order_of(state, name, attempt)
        if isinstance(plain, ReleaseOrder | CompareOrder):
            return plain
        keys = plain.datasets if isinstance(plain, SegmentOrder) else [plain.key]
        asked = [key for key in keys if key not in state.plan.sources]
        return order_of(state, name, attempt, self._around.datasets(asked)) if asked else plain

    async def _send(self, access: SiteAccess, order: Order) -> None:
        if isinstance(order, SegmentOrder):
            await self._give_code(access, order)
        await access.start(order)

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
        last = any(isinstance(report, Ended | Broke) for _, report in facts)
        if last:
            del self._units[name]  # there is nothing left to follow or to stop
        if any(isinstance(report, Broke) for _, report in facts):
            # Perhaps for want of code that the site has lost: it is asked again what it has.
            self._given.pop(site_of(self.state.plan, name), None)
        if facts:
            self.record(*(self._reported(name, attempt, report, n) for n, report in facts))
        return last

    def _reported(self, name: str, attempt: int, report: Report, number: int) -> UnitReported:
        transfer = self.state.plan.transfer_by_id.get(name)
        if isinstance(report, Crossed) and transfer is not None and transfer.via:
            report = replace(report, via=transfer.via)
        return UnitReported(
            unit=name, attempt=attempt, report=report, number=number, time=self._now()
        )

    def _now(self) -> float:
        return self._around.clock()


class _Relay:
    """Brings a relayed order what it wants while the order is followed."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._serving: asyncio.Task[None] | None = None

    def see_to(self, access: SiteAccess, order: Order) -> None:
        """Serve the order unless it is being served."""
        if not isinstance(order, TransferOrder) or not isinstance(access, TakesWants):
            raise GraphError(f"{order.id} cannot be relayed to {order.site!r}")
        if self._serving is None or self._serving.done():
            source = self._around.source_of(order.replica, errand_of(order))
            work = serve_wants(access, order.id, source)
            self._serving = asyncio.create_task(work, name=f"relay {order.id}")

    async def close(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)


async def _reports(
    access: SiteAccess, order: str, since: int, wait: float
) -> Sequence[Report] | None:
    """News of an order; nothing at all if the site does not know it."""
    try:
        return await access.follow(order, since, wait)
    except KeyError as error:
        if isinstance(error, DataflowError):
            raise
        return None


def _say_whose(state: JobState) -> None:
    """In every line of the log that the present task writes, or what it calls."""
    structlog.contextvars.bind_contextvars(job=state.job, user=state.user)


def _asked_of_planner(state: JobState) -> tuple[object, ...]:
    """What a new plan was asked for: if any of it changes, the plan comes too late."""
    return state.replan, state.replans, state.lost, state.gone


def _pause(failures: int) -> float:
    return min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(failures, 8))

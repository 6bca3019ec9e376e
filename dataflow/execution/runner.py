"""SiteRunner: carries out the orders that a site gets, and tells how they go.

An order is accepted at once and runs by itself; whoever follows it gets its reports, in one order,
however often and from wherever it is asked. Nothing here survives a restart of the process: a driver
that is told "unknown" sends its order again, and what had been stored is found.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from dataflow import tracing
from dataflow.backends.base import Backend
from dataflow.datasets import Replica
from dataflow.errors import JobCancelled, JobError, PolicyError, SiteRefused, SiteUnreachable
from dataflow.execution.clearing import clear, clear_attempts
from dataflow.execution.code import CodeStore
from dataflow.execution.compare_run import run_compare
from dataflow.execution.events import (
    Broke,
    CompareOrder,
    Ended,
    Errand,
    ErrorDocument,
    Order,
    ReleaseOrder,
    Report,
    SegmentOrder,
    TransferOrder,
    Want,
)
from dataflow.execution.failures import Broken, Failure, broken
from dataflow.execution.relay import Desk
from dataflow.execution.release_run import OwnRecords, run_release
from dataflow.execution.segment_run import run_segment
from dataflow.execution.tally import Tally
from dataflow.execution.transfer_run import run_transfer
from dataflow.execution.workplace import CountsRows, Invite, Workplace, as_broken
from dataflow.graph.verify import forged
from dataflow.sites import Site
from dataflow.storage.transfer import Source
from dataflow.stores import Store

log = structlog.get_logger(__name__)

#: How long (s), and how many, ended orders are remembered.
KEPT_SECONDS = 3600.0
KEPT_ORDERS = 10_000


class _Running:
    """An order, its reports, and whoever waits for the next one."""

    def __init__(self, order: Order, given: Order, tally: Tally) -> None:
        self.order, self.given = order, given
        self._tally = tally
        tally.began(order)
        self.reports: list[Report] = []
        self.ended = False
        self.cancelled = False
        #: Why it was ended by whoever owns the data.
        self.revoked: PolicyError | None = None
        #: What a relayed order asks for, and where it gets it.
        self.desk = Desk() if isinstance(order, TransferOrder) and order.relayed else None
        self.work: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def tell(self, report: Report) -> None:
        self._tally.told(self.order, report)
        self.reports.append(report)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def more_than(self, count: int) -> None:
        while len(self.reports) <= count and not self.ended:
            await self._news.wait()


class SiteRunner:
    """A :class:`~dataflow.execution.events.SiteAccess` to the site of this process.

    Parameters
    ----------
    site
        Whose orders are carried out.
    stores
        The stores there are now; results go to the first of this site that takes them.
    backend
        The site's workers. Whoever made it closes it.
    code
        Where payloads are kept.
    source_of
        Something to copy from, for a replica at another site and the job that wants it.
    publish
        Gets the Dataset and Replica records of what was stored, before it is reported.
    clock
        Seconds since the epoch.
    new_attempt
        A name that nobody else uses for a try at writing results.
    admit
        Lets an order in, as it is to be kept, or raises; what a site may run for whom is no
        business of this class.
    hear
        Waits for news that an order cannot be admitted without.
    own
        The site's own records; without them no copy is given up.
    runs, invite
        Where notebooks run that no batch system runs, and what they may show to the agent; without
        them none is run.
    counting
        Is asked about rows that an order says are guarded, once they are there.
    """

    def __init__(
        self,
        *,
        site: Site,
        stores: Callable[[], Sequence[Store]],
        backend: Backend,
        code: CodeStore,
        source_of: Callable[[Replica, Errand], Source],
        publish: Callable[[Sequence[Any]], None],
        clock: Callable[[], float],
        new_attempt: Callable[[], str],
        admit: Callable[[Order], Order] | None = None,
        hear: Callable[[Order], Awaitable[None]] | None = None,
        own: OwnRecords | None = None,
        runs: Path | None = None,
        invite: Invite | None = None,
        counting: CountsRows | None = None,
    ) -> None:
        self.name = site.name
        self._admit, self._hear, self._own = admit or _admit_to(site), hear, own
        self._clock, self._code = clock, code
        self._workplace = Workplace(
            site=site,
            stores=stores,
            backend=backend,
            code=code,
            source_of=source_of,
            publish=publish,
            clock=clock,
            new_attempt=new_attempt,
            runs=runs,
            invite=invite,
            counting=counting,
        )
        self._orders: dict[str, _Running] = {}
        #: Who waits for news that an order needs before it begins, by the id of the order.
        self._hearing: dict[str, set[object]] = {}
        #: When orders ended, and their ids; oldest first.
        self._ended: deque[tuple[float, str]] = deque()
        self._closed = False
        #: What its orders have come to.
        self.tally = Tally()

    # --- SiteAccess -----------------------------------------------------------------------------

    async def start(self, order: Order) -> None:
        """Begin an order, or attach to it if its id is known."""
        if order.id not in self._orders and not await self._heard_in_time(order):
            return  # whoever sent it has stopped it since
        known = self._orders.get(order.id)
        if known is not None:
            if known.given != order:
                raise SiteRefused(self.name, f"{order.id!r} is the id of another order")
            return
        if self._closed:
            raise SiteUnreachable(self.name, "it is shutting down")
        if order.site != self.name:
            raise SiteRefused(self.name, f"this order is for site {order.site!r}")
        if isinstance(order, TransferOrder) and order.key != order.replica.key:
            raise SiteRefused(self.name, f"{order.replica.url} is not a copy of {order.key}")
        if isinstance(order, ReleaseOrder | CompareOrder) and self._own is None:
            raise SiteRefused(self.name, "no copy is given up here")
        if isinstance(order, SegmentOrder):
            self._check(order)
        admitted = self._admit(order)
        self._forget()
        running = self._orders[order.id] = _Running(admitted, order, self.tally)
        running.work = asyncio.create_task(self._carry_out(running))

    async def _heard_in_time(self, order: Order) -> bool:
        """Wait for the news that an order needs; false if it was cancelled meanwhile."""
        if self._hear is None or order.site != self.name:
            return True
        begun = self._hearing.setdefault(order.id, set())
        begun.add(mark := object())
        try:
            await self._hear(order)
            return mark in begun
        finally:
            begun.discard(mark)
            if not begun and self._hearing.get(order.id) is begun:
                del self._hearing[order.id]

    async def follow(self, order: str, since: int, wait: float) -> Sequence[Report]:
        """Reports number ``since`` and later; waits up to ``wait`` s for the first of them.

        Raises
        ------
        KeyError
            If the order is not known, or ended long ago.
        """
        running = self._orders[order]
        if len(running.reports) <= since and not running.ended and wait > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await running.more_than(since)
        return tuple(running.reports[since:])

    async def cancel(self, order: str) -> None:
        """Stop an order; unknown or ended ones are ignored."""
        self._hearing.pop(order, set()).clear()
        running = self._orders.get(order)
        if running is not None and not running.cancelled and running.work is not None:
            running.cancelled = True
            running.work.cancel()

    def recheck(self, still: Callable[[Order], PolicyError | None]) -> list[str]:
        """End the orders that may not go on; their ids.

        Parameters
        ----------
        still
            Why an order has to end; ``None`` if it may go on.
        """
        ended = []
        for id, running in list(self._orders.items()):
            if running.ended or running.work is None:
                continue
            running.revoked = running.revoked or still(running.order)
            if running.revoked is not None:
                running.work.cancel()
                ended.append(id)
        return ended

    async def clear(self, replica: Replica, store: Store) -> bool:
        """Remove a copy that lost its right; see :func:`~dataflow.execution.clearing.clear`."""
        assert self._own is not None
        return await clear(replica, store, self._workplace, self._own.withdraw)

    @property
    def busy(self) -> bool:
        """Whether an order is being carried out."""
        return any(not running.ended for running in self._orders.values())

    def owner(self, order: str) -> str | None:
        """The user of an order; ``None`` if the order is not known."""
        running = self._orders.get(order)
        return running.order.user if running is not None else None

    def known(self, order: str) -> Order | None:
        """An order as it was let in; ``None`` if it is not known, or ended long ago."""
        running = self._orders.get(order)
        return running.order if running is not None else None

    def underway(self, order: str) -> bool:
        """Whether an order is being carried out now."""
        running = self._orders.get(order)
        return running is not None and not running.ended

    async def give_code(self, code: str, payload: bytes) -> None:
        """Keep the payload of an operation; it is never opened here."""
        await asyncio.to_thread(self._code.put, code, payload)

    async def has_code(self, codes: Sequence[str]) -> Sequence[str]:
        """Those of ``codes`` that are here."""
        return await asyncio.to_thread(self._code.has, codes)

    # --- TakesWants -----------------------------------------------------------------------------

    async def wants(self, order: str, wait: float) -> Sequence[Want]:
        """What a relayed order waits for now; waits up to ``wait`` s for the first.

        Raises
        ------
        KeyError
            If the order is not known, has ended, or is not a relayed one.
        """
        return await self._desk(order).wants(wait)

    async def bring(
        self, order: str, number: int, answer: bytes | AsyncIterable[bytes], nbytes: int = 0
    ) -> None:
        """Answer a want; what nobody waits for any more is dropped."""
        desk = self._desk(order)
        if not isinstance(answer, bytes):
            answer = b"".join([piece async for piece in answer])
        desk.bring(number, answer)

    async def cannot_bring(self, order: str, number: int, error: ErrorDocument) -> None:
        """Tell why a want is not answered."""
        self._desk(order).cannot_bring(number, error)

    def _desk(self, order: str) -> Desk:
        running = self._orders[order]
        if running.desk is None or running.ended:
            raise KeyError(order)
        return running.desk

    async def close(self) -> None:
        """Stop all orders; a driver sends them again, here or elsewhere."""
        self._closed = True
        works = [running.work for running in self._orders.values() if running.work is not None]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await self._workplace.close()

    def __repr__(self) -> str:
        going = sum(not running.ended for running in self._orders.values())
        return f"<SiteRunner {self.name}: {going} of {len(self._orders)} orders running>"

    # --- one order ------------------------------------------------------------------------------

    def _check(self, order: SegmentOrder) -> None:
        """Refuse steps that are not what they claim to be."""
        cut = {step.key: step for step in (*order.originals, *order.steps)}
        originals = {step.key: step for step in order.originals if step.stage == "whole"}
        for step in order.steps:
            if forged(step, cut, originals):
                raise SiteRefused(self.name, f"the key of {step.label!r} is not that of this step")

    async def _carry_out(self, running: _Running) -> None:
        order, begun = running.order, self._clock()
        # For every line of the log that is written on its behalf, in threads too.
        structlog.contextvars.bind_contextvars(job=order.job, site=self.name, user=order.user)
        events = log.bind(order=order.id, type=order.type)
        events.debug("order-started")
        last: Report
        with tracing.span(order.type, **_about(order)) as span:
            try:
                await self._run(running)
                last = Ended(seconds=max(self._clock() - begun, 0.0))
            except Broken as error:
                last = _broke(error.failure)
            except asyncio.CancelledError:
                last = _broke(self._stopped(running).failure)
            except Exception as error:
                events.exception("order-failed-unexpectedly")
                last = _broke(as_broken(error).failure)
            if isinstance(last, Broke):
                span.failed(str(last.error.get("kind", "")))
        running.ended = True
        if running.desk is not None and running.desk.abandoned:
            # Whoever gave it may be back one day, sends it again, and has no failure to count.
            self._orders.pop(order.id, None)
        else:
            self._ended.append((self._clock(), order.id))
        if running.revoked is not None and not self._closed:
            self._workplace.later(clear_attempts(order, self._workplace))
        running.tell(last)
        events.info("order-ended", report=last.type, reports=len(running.reports))

    async def _run(self, running: _Running) -> None:
        order = running.order
        if isinstance(order, ReleaseOrder):
            assert self._own is not None
            await run_release(order, self._workplace, self._own, running.tell)
            return
        if isinstance(order, CompareOrder):
            assert self._own is not None
            await run_compare(order, self._workplace, self._own, running.tell)
            return
        if not isinstance(order, SegmentOrder):
            await run_transfer(order, self._workplace, running.tell, running.desk)
            return
        try:
            async with asyncio.timeout(order.walltime) as limit:
                await run_segment(order, self._workplace, running.tell)
        except TimeoutError:
            if not limit.expired():
                raise
            labels = ", ".join(step.label for step in order.steps[:3])
            raise broken(
                JobError(
                    f"{labels} at {self.name!r} was ended by its walltime of {order.walltime:g} s"
                ),
                "user",
            ) from None

    def _stopped(self, running: _Running) -> Broken:
        if running.revoked is not None:
            return broken(running.revoked, "user")
        if running.cancelled:
            return broken(JobCancelled(running.order.job), "user")
        return broken(SiteUnreachable(self.name, "it is shutting down"), "site")

    def _forget(self) -> None:
        """Drop orders that ended long ago, and the oldest if there are too many."""
        oldest = self._clock() - KEPT_SECONDS
        while self._ended and (len(self._ended) > KEPT_ORDERS or self._ended[0][0] < oldest):
            self._orders.pop(self._ended.popleft()[1], None)


def _admit_to(site: Site) -> Callable[[Order], Order]:
    """Where nobody decides: a lab runs what it is sent, a steward nothing."""

    def admit(order: Order) -> Order:
        if site.trust == "steward" and isinstance(order, SegmentOrder):
            raise SiteRefused(
                site.name, "a steward runs only what is installed here, and nothing is"
            )
        return order

    return admit


def _about(order: Order) -> dict[str, Any]:
    """What is traced of an order."""
    about: dict[str, Any] = {"job": order.job, "site": order.site, "user": order.user}
    if isinstance(order, TransferOrder):
        about |= {"key": order.key, "source": order.replica.site, "nbytes": order.replica.nbytes}
    elif isinstance(order, SegmentOrder):
        about |= {"plan": order.plan, "steps": [step.label for step in order.steps]}
    return about


def _broke(failure: Failure) -> Broke:
    return Broke(error=failure.error, fault=failure.fault)

"""Workplace: what all orders at one site share: stores, workers, code, and who makes what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import structlog

from dataflow.backends.base import Backend
from dataflow.backends.processes import ProcessPrograms
from dataflow.datasets import Kind, Replica
from dataflow.errors import ConfigError, DataflowError, SiteRefused, StorageError, UnsafeStore
from dataflow.execution.code import CodeStore
from dataflow.execution.events import Errand, SegmentOrder
from dataflow.execution.failures import Broken, broken, text_of
from dataflow.execution.futures import Begun
from dataflow.execution.inputs import Lying
from dataflow.execution.invitation import Invitation
from dataflow.execution.to_dask import Place
from dataflow.policy.differencing import RowSet
from dataflow.sites import Site
from dataflow.storage.credentials import resolve
from dataflow.storage.layout import Area
from dataflow.storage.manifest import Manifest
from dataflow.storage.publish import find_result
from dataflow.storage.transfer import Source
from dataflow.storage.upkeep import check_store
from dataflow.stores import Store, store_for

log = structlog.get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

#: What a notebook of an order may show; ``None`` where nobody would answer it.
Invite = Callable[[SegmentOrder], Awaitable[Invitation | None]]


class CountsRows(Protocol):
    """Who says whether an order may compute with the rows that are really there."""

    def uncounted(self, order: SegmentOrder, keys: Iterable[str]) -> list[str]:
        """Those of these keys whose rows have to be counted first."""

    def counted(self, order: SegmentOrder, key: str, rows: RowSet | None) -> None:
        """Let the order go on with the rows that a key has.

        Raises
        ------
        NotGranted
            If an owner does not let it.
        """


def claim_of(area: Area, key: str, at: str = "") -> str:
    """What whoever writes there claims: a result by its key, a copy by its site and key."""
    return key if area == "results" else f"copies/{at}/{key}"


class Claims:
    """Which results are being made here now, so that none is made twice at a time."""

    def __init__(self) -> None:
        self._made: dict[str, asyncio.Event] = {}

    def taken(self, name: str) -> bool:
        """Whether somebody makes this now."""
        return name in self._made

    def take(self, names: Iterable[str]) -> None:
        """Say that we make these; nobody else must."""
        for name in names:
            assert name not in self._made, name
            self._made[name] = asyncio.Event()

    def release(self, names: Iterable[str]) -> None:
        """Made, or given up; those that wait go and look."""
        for name in names:
            made = self._made.pop(name, None)
            if made is not None:
                made.set()

    async def free(self, name: str) -> None:
        """Wait until nobody makes this."""
        while name in self._made:
            await self._made[name].wait()


class Workplace:
    """One site's stores, workers and code, as the orders that run there see them."""

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
        runs: Path | None = None,
        invite: Invite | None = None,
        counting: CountsRows | None = None,
    ) -> None:
        self.site, self.counting = site, counting
        #: Who runs notebooks where the backend runs no programs by itself.
        self.processes = ProcessPrograms(runs or Path("runs").absolute())
        self._invite = invite if runs is not None else None
        self.backend, self.code = backend, code
        self.source_of, self.clock, self.new_attempt = source_of, clock, new_attempt
        self.claims = Claims()
        self.begun = Begun()
        self._stores, self._publish = stores, publish
        self._safe: set[str] = set()
        self._checking = asyncio.Lock()
        self._later: set[asyncio.Task[None]] = set()

    async def invite(self, order: SegmentOrder) -> Invitation:
        """What a notebook of an order may show to the agent of this site.

        Raises
        ------
        Broken
            If no notebooks are run here.
        """
        found = await self._invite(order) if self._invite is not None else None
        if found is None:
            reason = "nobody here answers to notebooks that run here: its agent does, no session"
            raise broken(SiteRefused(self.site.name, reason), "site")
        return found

    # --- stores ---------------------------------------------------------------------------------

    async def place(self, at: str = "") -> Place:
        """Where results go: here, or at a site of stores of which we open one.

        Raises
        ------
        Broken
            If there is no store for results.
        """
        if any(store.credentials for store in self._stores()):
            return await self._asked(self._place, at)  # reads a file
        try:
            return self._place(at)
        except ConfigError as error:
            raise broken(error, "site") from error

    async def checked_place(self, at: str = "") -> Place:
        """The same, after making sure (once per store) that results are safe there."""
        place = await self.place(at)
        async with self._checking:
            if place.root not in self._safe:
                await self._asked(
                    check_store,
                    place.root,
                    credentials=place.credentials,
                    options=place.options,
                    name=place.store,
                )
                self._safe.add(place.root)
        return place

    async def find(self, key: str, area: Area = "results", *, at: str = "") -> Manifest | None:
        """What is committed under a key in the results store."""
        place = await self.place(at)
        return await self._asked(
            find_result,
            place.root,
            key,
            area=area,
            credentials=place.credentials,
            options=place.options,
        )

    def lying(self, replica: Replica, kind: Kind) -> Lying:
        """A replica with what it takes to open it; reads the credentials file."""
        mine = [store for store in self._stores() if store.site == self.site.name]
        store = next((s for s in mine if s.name == replica.store), None)
        store = store or store_for(replica.url, mine)
        if store is None:
            return Lying(replica=replica, kind=kind)
        return Lying(
            replica=replica,
            kind=kind,
            credentials=resolve(store.credentials),
            options=store.options,
        )

    def publish(self, records: Sequence[Any]) -> None:
        """Have records entered into the catalog."""
        try:
            self._publish(records)
        except Exception as error:
            log.exception("records-not-published")
            raise broken(StorageError(f"the catalog did not take it: {error}"), "site") from error

    def _place(self, at: str) -> Place:
        for store in self._stores():
            if store.site == (at or self.site.name) and store.purpose == "results":
                return Place(
                    root=store.url,
                    store=store.name,
                    credentials=resolve(store.credentials),
                    options=store.options,
                )
        if at:
            raise ConfigError(
                f"site {self.site.name!r} opens no store for results at {at!r}; declare it in its "
                f"site file, with site: {at}"
            )
        raise ConfigError(
            f"site {self.site.name!r} has no store for results; give one the purpose 'results'"
        )

    async def _asked(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What a store answers, asked in a thread; its failures are the site's."""
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except (UnsafeStore, StorageError, ConfigError) as error:
            raise broken(error, "site") from error
        except OSError as error:
            raise broken(StorageError(text_of(error)), "site") from error

    # --- what goes on after an order ------------------------------------------------------------

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that no order waits for."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._later.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("clearing-up-failed", error=repr(task.exception()))

    async def close(self) -> None:
        """Stop what still goes on."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)


def as_broken(error: Exception) -> Broken:
    """An error that nobody expected, as the site's."""
    if isinstance(error, Broken):
        return error
    known = error if isinstance(error, DataflowError) else StorageError(text_of(error))
    return broken(known, "site")

"""One copy from another site, brought into this site's results store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dataflow.datasets import Dataset, Extent, Format, Kind
from dataflow.errors import (
    CorruptResult,
    DataflowError,
    PolicyError,
    SiteError,
    TransferFailed,
    UnknownDataset,
    UnreadableDataset,
)
from dataflow.execution.events import Crossed, Report, Stored, TransferOrder, errand_of
from dataflow.execution.failures import Broken, Failure, broken, text_of
from dataflow.execution.to_dask import Place
from dataflow.execution.workplace import Workplace, claim_of
from dataflow.graph.keys import digest
from dataflow.storage.manifest import Manifest, replica_of
from dataflow.storage.publish import attempt_at, discard
from dataflow.storage.transfer import Source, copy

Tell = Callable[[Report], None]

#: What a replica is when nobody says it.
_KINDS: dict[Format, Kind] = {"csv": "table", "parquet": "table", "files": "files"}


async def run_transfer(
    order: TransferOrder, workplace: Workplace, tell: Tell, source: Source | None = None
) -> None:
    """Carry out an order.

    Parameters
    ----------
    source
        Where to copy from, instead of the agent of the site that has it.

    Raises
    ------
    Broken
        Once, when the copy did not arrive. What arrived is kept for the next try.
    """
    transfer = _Transfer(order, workplace, tell, source)
    claims, name = workplace.claims, claim_of("copies", order.key, order.target)
    await claims.free(name)
    claims.take([name])
    try:
        there = await transfer.there()
        begun = workplace.clock()
        manifest = there or await transfer.bring()
        seconds = workplace.clock() - begun if there is None else 0.0
        await transfer.report(manifest, seconds, reused=there is not None)
    finally:
        claims.release([name])


@dataclass(frozen=True, slots=True)
class _Transfer:
    """One order on its way."""

    order: TransferOrder
    workplace: Workplace
    tell: Tell
    source: Source | None = None

    @property
    def target(self) -> str:
        """The site at which the copy will lie."""
        return self.order.target or self.workplace.site.name

    async def there(self) -> Manifest | None:
        """The same data in the store, as a result or as a copy that came earlier."""
        for area in ("results", "copies"):
            manifest = await self.workplace.find(self.order.key, area, at=self.order.target)
            if manifest is not None:
                return manifest
        return None

    async def bring(self) -> Manifest:
        """Copy, and tell of the bytes that came, also of those of a copy that failed."""
        order, workplace = self.order, self.workplace
        place = await workplace.checked_place(order.target)
        dataset, begun = self._dataset(), workplace.clock()
        came, whole = 0, False

        def count(nbytes: int) -> None:
            nonlocal came
            came += nbytes

        try:
            manifest = await copy(
                self.source or workplace.source_of(order.replica, errand_of(order)),
                root=place.root,
                key=order.key,
                attempt=self._attempt(),
                provenance={"copy_of": order.replica.url, "from": order.replica.site},
                kind=dataset.kind,
                format=order.replica.format,
                extent=dataset.extent,
                variable=order.replica.variable,
                credentials=place.credentials,
                options=place.options,
                on_bytes=count,
            )
            whole = True
            return manifest
        except Exception as error:
            if order.clean:
                await self._clear(place)
            raise self._broken(error) from error
        finally:
            if order.clean and not whole:  # also when it was cancelled
                workplace.later(self._clear(place))
            if came:
                self.tell(
                    Crossed(
                        key=order.key,
                        source=order.replica.site,
                        target=self.target,
                        nbytes=came,
                        seconds=workplace.clock() - begun,
                        whole=whole,
                    )
                )

    async def _clear(self, place: Place) -> None:
        """Remove what came of a copy that is to come whole or not at all."""
        attempt = attempt_at(
            place.root,
            self.order.key,
            self._attempt(),
            area="copies",
            credentials=place.credentials,
            options=place.options,
        )
        with suppress(DataflowError, OSError):
            await asyncio.to_thread(discard, attempt)

    async def report(self, manifest: Manifest, seconds: float, *, reused: bool) -> None:
        """Enter the replica into the catalog and tell of it."""
        place = await self.workplace.place(self.order.target)
        replica = replica_of(manifest, self.target, place.store, created=self.workplace.clock())
        self.workplace.publish([replica])
        self.tell(
            Stored(
                key=self.order.key,
                replica=replica,
                dataset=self._dataset(),
                seconds=seconds,
                reused=reused,
            )
        )

    def _attempt(self) -> str:
        """One name for all tries at one content, so that a later one continues an earlier one.

        No two are made at a time, since the key is claimed.
        """
        replica = self.order.replica
        what = ["copy", replica.key, replica.site, replica.url, replica.fingerprint]
        # Others may write to a store that is not ours alone.
        return digest([*what, self.workplace.site.name] if self.order.target else what)[:32]

    def _dataset(self) -> Dataset:
        order = self.order
        if order.dataset is not None:
            return order.dataset
        return Dataset(
            id=digest(["result", order.replica.site, order.key])[:32],
            name=order.key[:12],
            key=order.key,
            kind=_KINDS.get(order.replica.format, "array"),
            extent=Extent(nbytes=order.replica.nbytes, guessed="unknown, taken as its stored size"),
            site=order.replica.site,
        )

    def _broken(self, error: Exception) -> Broken:
        """Why it did not arrive: the copy wraps what the source, or our store, had to say."""
        cause = error.__cause__ if isinstance(error, TransferFailed) else error
        if isinstance(cause, UnknownDataset | UnreadableDataset | CorruptResult):
            return broken(cause, "input")
        if isinstance(cause, PolicyError):
            return broken(cause, "user")
        if isinstance(cause, SiteError):
            return broken(cause, "site")
        reason = error.reason if isinstance(error, TransferFailed) else text_of(error)
        way = (self._dataset().name, self.order.replica.site, self.target)
        # Written out, because an OSError keeps no more than two of its arguments.
        return Broken(Failure({"kind": TransferFailed.kind, "args": [*way, reason]}, "site"))

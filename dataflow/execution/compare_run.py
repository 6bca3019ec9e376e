"""The end of a second run: this site compares its result with what the other one came to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dataflow.datasets import Dataset, Replica, Reproduction
from dataflow.errors import NotReproduced, SiteError, SiteRefused, UnknownDataset
from dataflow.execution.events import Compared, CompareOrder, Errand, Report
from dataflow.execution.failures import broken
from dataflow.execution.release_run import OwnRecords
from dataflow.execution.workplace import Workplace, as_broken
from dataflow.storage.manifest import FileEntry, Manifest, replica_of
from dataflow.storage.transfer import Source, StoreSource

Tell = Callable[[Report], None]

#: Where Zarr keeps what a group says of itself, and so who made it, when and where.
ROOT = "zarr.json"
#: How long the other site's own record of its result may be on its way to us (s).
HEARD_SECONDS, LOOK_SECONDS = 30.0, 0.1


async def run_compare(
    order: CompareOrder, workplace: Workplace, own: OwnRecords, tell: Tell
) -> None:
    """Carry out an order; the same order again comes to the same.

    Raises
    ------
    Broken
        If the results differ, or cannot be compared.
    """
    here = workplace.site.name
    if order.copy.key != order.key or order.copy.site == here:
        raise broken(SiteRefused(here, f"{order.copy.url} is no second run of {order.key}"), "user")
    manifest = await workplace.find(order.key)
    found = [d for d in own.datasets(order.key) if d.site == here and d.lineage is not None]
    if manifest is None or not found:
        raise broken(UnknownDataset(order.key), "input")
    second = await _heard(order, here, own)
    errand = Errand(job=order.job, user=order.user, request=order.request, to=here)
    try:
        differs = await differing(
            await _own(manifest, workplace), workplace.source_of(second, errand)
        )
    except SiteError as error:
        raise broken(error, "site") from error
    except Exception as error:
        raise as_broken(error) from error
    result = found[0]
    assert result.lineage is not None
    said = result.lineage.reproduced
    if said is None or not said.equal:  # what was proven stays proven
        workplace.publish([_told(result, order, differs, workplace.clock())])
    tell(
        Compared(
            key=order.key,
            site=here,
            other=order.copy.site,
            equal=not differs,
            differs=tuple(differs),
        )
    )
    if differs:
        raise broken(NotReproduced(result.name, here, order.copy.site, differs), "user")


async def _heard(order: CompareOrder, here: str, own: OwnRecords) -> Replica:
    """The result by the word of its own site; whoever gives the order proves nothing.

    Raises
    ------
    Broken
        If that site does not say that it has made it.
    """
    clock = asyncio.get_running_loop().time
    limit = clock() + HEARD_SECONDS
    while (second := own.second(order.copy)) is None:
        if clock() > limit:
            text = f"{order.copy.site} does not say that it has made {order.copy.url} in a run of its own"
            raise broken(SiteRefused(here, text), "site")
        await asyncio.sleep(LOOK_SECONDS)
    return second


def _told(result: Dataset, order: CompareOrder, differs: Sequence[str], now: float) -> Dataset:
    """Our record of the result, with what the second run came to."""
    assert result.lineage is not None
    said = Reproduction(
        site=order.copy.site,
        job=order.job,
        equal=not differs,
        differs=tuple(differs),
        environment=result.lineage.environment,
        time=now,
    )
    return replace(result, lineage=replace(result.lineage, reproduced=said))


async def _own(manifest: Manifest, workplace: Workplace) -> Source:
    place = await workplace.place()
    return StoreSource(
        replica=replica_of(manifest, workplace.site.name, place.store),
        manifest=manifest,
        credentials=place.credentials,
        options=place.options,
    )


async def differing(first: Source, second: Source) -> list[str]:
    """Files that are not the same, by the checksums that their writers noted."""
    ours, theirs = await asyncio.gather(first.listing(), second.listing())
    mine, other = ({file.path: file for file in files} for files in (ours, theirs))
    paths = [
        path
        for path in sorted({*mine, *other} - {ROOT})
        if not _same(mine.get(path), other.get(path))
    ]
    if ROOT in mine or ROOT in other:
        told = [
            await _root(source, files.get(ROOT))
            for source, files in ((first, mine), (second, other))
        ]
        paths += [ROOT] if told[0] != told[1] else []
    return paths


def _same(one: FileEntry | None, other: FileEntry | None) -> bool:
    if one is None or other is None or one.checksum is None:
        return False
    return one.size == other.size and one.checksum == other.checksum


async def _root(source: Source, file: FileEntry | None) -> Any:
    """What a group says of itself, without who made it."""
    from dataflow.storage.arrays import MARK  # xarray: a second

    if file is None:
        return None
    document = json.loads(await source.read(file.path, 0, file.size))
    mark = document.get("attributes", {}).get(MARK)
    if isinstance(mark, dict):
        for word in ("provenance", "attempt"):
            mark.pop(word, None)
    return document

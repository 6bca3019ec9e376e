"""What a steward has not been told of yet is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dataflow.catalog.entries import Peer
from dataflow.catalog.records import Records
from dataflow.catalog.sync import Sync
from dataflow.datasets import Dataset, Extent, Replica
from dataflow.execution.events import SegmentOrder
from dataflow.participant import hearing
from dataflow.participant.hearing import hear_of_inputs
from dataflow.sites import Site

RESULT = Dataset(
    id="r", name="rows", key="k1", kind="table", extent=Extent(nbytes=8), site="uva", owner="anna"
)
COPY = Replica(key="k1", site="vu", store="d", url="file:///rows", format="parquet", nbytes=8)
ORDER = SegmentOrder(
    id="o1", job="j1", plan="p1", site="vu", steps=(), inputs={"k1": COPY},
    datasets={"k1": RESULT}, extents={}, outputs=(), user="anna",
)  # fmt: skip


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path / "catalog.db", "vu") as records:
        yield records


def listening(records: Records) -> Sync:
    def connect(*_: Any) -> NoReturn:
        raise AssertionError("nobody is called here")

    return Sync(records, Peer(site="vu"), connect)


def news_of(records: Records, folder: Path) -> None:
    with Records(folder / "uva.db", "uva") as theirs:
        theirs.add(RESULT)
        epoch, rows = theirs.page("uva", 0)
    records.apply("uva", rows, epoch)


def test_a_steward_waits_until_it_knows_what_it_is_to_read(
    records: Records, tmp_path: Path
) -> None:
    async def story() -> None:
        async with listening(records) as sync:
            site = Site(name="vu", trust="steward")
            waiting = asyncio.create_task(hear_of_inputs(ORDER, site, records, sync))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            news_of(records, tmp_path)
            await waiting
            await hear_of_inputs(ORDER, site, records, sync)

    asyncio.run(story())


def test_it_does_not_wait_for_ever(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "LATE_SECONDS", 0.05)

    async def story() -> None:
        async with listening(records) as sync:
            await hear_of_inputs(ORDER, Site(name="vu", trust="steward"), records, sync)

    asyncio.run(story())


def test_a_lab_does_not_wait(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with listening(records) as sync:
            waiting = hear_of_inputs(ORDER, Site(name="vu", trust="lab"), records, sync)
            await asyncio.wait_for(waiting, hearing.LATE_SECONDS / 2)

    asyncio.run(story())

"""Copies between two sites that cannot ask each other, brought by a third that can ask both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import (
    ConfigError,
    SiteUnreachable,
    StorageError,
    UnknownDataset,
    UnreadableDataset,
    to_document,
)
from dataflow.execution import relay
from dataflow.execution.events import ErrorDocument, Want
from dataflow.execution.relay import AT_A_TIME, Desk, serve_wants
from dataflow.storage.manifest import FileEntry

FILES = [FileEntry("zarr.json", 10, None, "x"), FileEntry("c/0", 1000)]


class Memory:
    """A source; counts how many read at a time."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.reading, self.most = error, 0, 0
        self.read_once: list[tuple[str, int, int]] = []

    async def listing(self) -> Sequence[FileEntry]:
        if self.error is not None:
            raise self.error
        return FILES

    async def read(self, path: str, start: int, end: int) -> bytes:
        if self.error is not None:
            raise self.error
        self.reading += 1
        self.most = max(self.most, self.reading)
        await asyncio.sleep(0.001)
        self.reading -= 1
        self.read_once.append((path, start, end))
        return f"{path}:{start}:{end}".encode()


class Flowing(Memory):
    """The same, piece by piece; ``cut`` pieces are lost at the end, or the way breaks after them."""

    def __init__(self, cut: int = 0, breaks: bool = False) -> None:
        super().__init__()
        self.cut, self.breaks = cut, breaks

    @asynccontextmanager
    async def stream(self, path: str, start: int, end: int) -> AsyncIterator[AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            for n in range(start, end - self.cut):
                await asyncio.sleep(0)
                yield bytes([n % 251])
            if self.breaks:
                raise SiteUnreachable("source", "cut off")

        self.read_once.append((path, start, end))
        yield pieces()


class Away:
    """Another site's desk, over a road on which every so many questions are lost."""

    def __init__(self, desk: Desk, lost: int = 0) -> None:
        self.desk, self.lost, self.asked = desk, lost, 0

    def _cross(self) -> None:
        self.asked += 1
        if self.lost and self.asked % self.lost == 0:
            raise SiteUnreachable("away", "lost")

    async def wants(self, order: str, wait: float) -> Sequence[Want]:
        assert order == "o"
        self._cross()
        return await self.desk.wants(min(wait, 0.05))

    async def bring(self, order: str, number: int, answer: Any, nbytes: int = 0) -> None:
        if not isinstance(answer, bytes):
            answer = b"".join([piece async for piece in answer])
            assert len(answer) == nbytes
        self._cross()
        self.desk.bring(number, answer)

    async def cannot_bring(self, order: str, number: int, error: ErrorDocument) -> None:
        self._cross()
        self.desk.cannot_bring(number, error)


def relayed(work: Coroutine[Any, Any, Any], source: Memory, desk: Desk, lost: int = 0) -> Any:
    """What ``work`` at the desk comes to, while the source is relayed to it."""

    async def story() -> Any:
        serving = asyncio.create_task(serve_wants(Away(desk, lost), "o", source))
        try:
            async with asyncio.timeout(60):
                return await work
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    return asyncio.run(story())


def test_listing_and_bytes() -> None:
    desk = Desk()

    async def work() -> Any:
        return list(await desk.listing()), await desk.read("c/0", 5, 9)

    files, body = relayed(work(), Memory(), desk)
    assert files == FILES
    assert body == b"c/0:5:9"


@given(ranges=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=40))
def test_every_want_gets_its_own_answer_and_is_read_once(ranges: list[tuple[int, int]]) -> None:
    desk, source = Desk(), Memory()

    async def work() -> list[bytes]:
        return await asyncio.gather(*(desk.read("c/0", a, b) for a, b in ranges))

    assert relayed(work(), source, desk) == [f"c/0:{a}:{b}".encode() for a, b in ranges]
    assert sorted(source.read_once) == sorted(("c/0", a, b) for a, b in ranges)
    assert source.most <= AT_A_TIME


@given(ranges=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=12))
def test_bytes_that_are_handed_on_as_they_come(ranges: list[tuple[int, int]]) -> None:
    desk, source = Desk(), Flowing()

    async def work() -> list[bytes]:
        return await asyncio.gather(*(desk.read("c/0", a, a + n) for a, n in ranges))

    whole = bytes(n % 251 for n in range(100))
    assert relayed(work(), source, desk) == [whole[a : a + n] for a, n in ranges]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (Flowing(breaks=True), SiteUnreachable),
        (Flowing(cut=3), StorageError),
        (Flowing(cut=-3), StorageError),
    ],
    ids=["broke", "short", "long"],
)
def test_a_source_that_breaks_on_the_way_is_told_of(source: Memory, error: type[Exception]) -> None:
    desk = Desk()
    with pytest.raises(error):
        relayed(desk.read("c/0", 10, 40), source, desk)
    assert len(source.read_once) == 1


def test_lost_questions_are_asked_again() -> None:
    desk = Desk()

    async def work() -> list[bytes]:
        return [await desk.read("c/0", n, n + 1) for n in range(4)]

    found = relayed(work(), Memory(), desk, lost=3)
    assert found == [f"c/0:{n}:{n + 1}".encode() for n in range(4)]


@pytest.mark.parametrize(
    "error", [UnknownDataset("r"), UnreadableDataset("u", "gone"), SiteUnreachable("s", "cut")]
)
def test_the_error_of_the_source_arrives_as_itself(error: Exception) -> None:
    desk = Desk()
    with pytest.raises(type(error)) as caught:
        relayed(desk.listing(), Memory(error), desk)
    assert to_document(caught.value) == to_document(error)


def test_an_order_that_is_not_known_any_more_ends_the_relay() -> None:
    class Forgetful(Away):
        async def wants(self, order: str, wait: float) -> Sequence[Want]:
            raise KeyError(order)

    asyncio.run(serve_wants(Forgetful(Desk()), "o", Memory()))


def test_who_gives_up_leaves_nothing_at_the_desk() -> None:
    desk = Desk()

    async def story() -> None:
        asking = asyncio.create_task(desk.read("c/0", 0, 1))
        assert [want.path for want in await desk.wants(1)] == ["c/0"]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await desk.wants(0) == []
        desk.bring(0, b"late")

    asyncio.run(story())


def test_what_comes_late_is_not_taken_for_another_want() -> None:
    """An order that began anew at a restarted site has a new desk; old answers are still under way."""
    before, after = Desk(), Desk()

    async def story() -> None:
        old = asyncio.create_task(before.read("old", 0, 1))
        new = asyncio.create_task(after.read("new", 0, 1))
        (want,) = await before.wants(1)
        await after.wants(1)
        after.bring(want.number, b"old bytes")
        await asyncio.sleep(0)
        assert not new.done()
        for task in (old, new):
            task.cancel()
        await asyncio.gather(old, new, return_exceptions=True)

    asyncio.run(story())


def test_a_desk_at_which_nobody_asks_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "ABANDONED_SECONDS", 0.05)
    desk = Desk()
    with pytest.raises(SiteUnreachable, match="nobody brings"):
        asyncio.run(desk.listing())
    assert desk.abandoned


def test_what_is_not_taken_is_an_error_not_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Away):
        async def bring(self, order: str, number: int, answer: bytes) -> None:
            raise ConfigError("413")

    async def story(source: Memory, access: Any, desk: Desk) -> None:
        serving = asyncio.create_task(serve_wants(access, "o", source))
        try:
            async with asyncio.timeout(20):
                await desk.read("c/0", 0, 1)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    desk, source = Desk(), Memory()
    with pytest.raises(ConfigError, match="413"):
        asyncio.run(story(source, Full(desk), desk))
    assert len(source.read_once) == 1
    monkeypatch.setattr(relay, "LONGEST_ANSWER", 3)
    desk = Desk()
    with pytest.raises(StorageError, match="too many to be carried over"):
        asyncio.run(story(source, Away(desk), desk))

"""Relay: a copy between two sites of which neither can ask the other, by way of who can ask both.

The site that wants the copy runs the transfer as always; its source asks at a desk. Whoever gave the
order sees what is wanted there, reads it from the site that has it, and brings it. So parts are
still several at a time, verified, and not asked for twice, and no site gets to see a token of
another.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

import structlog

from dataflow.documents import from_json, to_json
from dataflow.errors import (
    DataflowError,
    SiteUnreachable,
    StorageError,
    from_document,
    to_document,
)
from dataflow.execution.events import ErrorDocument, TakesWants, Want
from dataflow.storage.manifest import FileEntry
from dataflow.storage.transfer import Source, Streams

log = structlog.get_logger(__name__)

#: Seconds before something is tried again that the other site did not take.
PAUSE_SECONDS = 0.5
#: Seconds that a question for wants may stay open.
WAIT_SECONDS = 10.0
#: Seconds without anybody asking for wants after which nobody will come: what waits at the desk must
#: not hold the site for ever.
ABANDONED_SECONDS = 180.0
#: The longest answer (bytes) that an agent takes in one request.
LONGEST_ANSWER = 60 * 2**20
#: Parts that are on their way at a time, over both links.
AT_A_TIME = 8


@dataclass
class Desk:
    """Where a relayed order says what it wants, and gets it; a source to copy from."""

    abandoned: bool = False
    _open: dict[int, tuple[Want, asyncio.Future[bytes]]] = field(default_factory=dict)
    #: Not from 0: what is brought late to an order that began anew must not be taken for its own.
    _next: int = field(default_factory=lambda: secrets.randbits(48))
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: float = 0.0

    async def listing(self) -> Sequence[FileEntry]:
        """All files of the source."""
        return from_json(list[FileEntry], await self._ask(None, 0, 0))

    async def read(self, path: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive) of one file."""
        return await self._ask(path, start, end)

    async def wants(self, wait: float) -> Sequence[Want]:
        """All that is not answered yet; waits up to ``wait`` s for the first."""
        self._asked = asyncio.get_running_loop().time()
        if not self._open and wait > 0:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
        return [want for want, _ in self._open.values()]

    def bring(self, number: int, answer: bytes) -> None:
        """Answer a want; what nobody waits for any more is dropped."""
        found = self._open.pop(number, None)
        if found is not None and not found[1].done():
            found[1].set_result(answer)

    def cannot_bring(self, number: int, error: ErrorDocument) -> None:
        """Fail a want with the source's own error."""
        found = self._open.pop(number, None)
        if found is not None and not found[1].done():
            found[1].set_exception(from_document(error))

    async def _ask(self, path: str | None, start: int, end: int) -> bytes:
        loop = asyncio.get_running_loop()
        number, self._next = self._next, self._next + 1
        answer: asyncio.Future[bytes] = loop.create_future()
        if not self._open:
            self._asked = max(self._asked, loop.time())
        self._open[number] = (Want(number=number, path=path, start=start, end=end), answer)
        self._news.set()
        try:
            while not (await asyncio.wait({answer}, timeout=ABANDONED_SECONDS / 10))[0]:
                if loop.time() - self._asked > ABANDONED_SECONDS:
                    self.abandoned = True
                    raise SiteUnreachable("of the user", "nobody brings what this copy wants")
            return answer.result()
        finally:
            self._open.pop(number, None)


async def serve_wants(access: TakesWants, order: str, source: Source) -> None:
    """Bring an order what it wants until it is cancelled or not known any more."""
    free = asyncio.Semaphore(AT_A_TIME)
    under_way: dict[int, asyncio.Task[None]] = {}

    async def answer(want: Want) -> None:
        async with free, AsyncExitStack() as reading:
            try:
                body = await _read(source, want, reading)
            except Exception as error:
                await access.cannot_bring(order, want.number, to_document(error))
                return
            await bring(want, body)

    async def bring(want: Want, body: bytes | AsyncIterator[bytes]) -> None:
        passed = None if isinstance(body, bytes) else _Passed(want, body)
        try:
            if passed is None:
                assert isinstance(body, bytes)
                await access.bring(order, want.number, body)
            else:
                await access.bring(order, want.number, passed.pieces(), want.end - want.start)
        except Exception as error:
            if passed is not None and passed.broke is not None:
                await access.cannot_bring(order, want.number, to_document(passed.broke))
            elif isinstance(error, SiteUnreachable):
                await asyncio.sleep(PAUSE_SECONDS)  # read again, but not at once
                raise
            else:  # it will not be taken next time either
                with suppress(DataflowError):
                    await access.cannot_bring(order, want.number, to_document(error))

    try:
        while True:
            for number in [n for n, task in under_way.items() if task.done()]:
                failed = under_way.pop(number).exception()
                if failed is not None:  # the site did not answer: the want is still there, or gone
                    log.info("want_not_answered", order=order, number=number, reason=str(failed))
            try:
                wants = await access.wants(order, 0.0 if under_way else WAIT_SECONDS)
            except SiteUnreachable:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            except KeyError:
                return
            for want in wants:
                if want.number not in under_way:
                    under_way[want.number] = asyncio.create_task(answer(want))
            if under_way:
                await asyncio.wait(under_way.values(), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in under_way.values():
            task.cancel()
        await asyncio.gather(*under_way.values(), return_exceptions=True)


@dataclass(slots=True)
class _Passed:
    """Bytes on their way from one site to another; ``broke`` if it was the first that failed."""

    want: Want
    body: AsyncIterator[bytes]
    broke: Exception | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The pieces, all that were wanted and no more."""
        left = self.want.end - self.want.start
        try:
            async for piece in self.body:
                left -= len(piece)
                if left < 0:
                    break
                yield piece
            if left:
                what = f"{self.want.path} came with {-left} bytes too many"
                raise StorageError(
                    what if left < 0 else f"{self.want.path} ended {left} bytes early"
                )
        except Exception as error:
            self.broke = error
            raise


async def _read(
    source: Source, want: Want, reading: AsyncExitStack
) -> bytes | AsyncIterator[bytes]:
    """What is wanted; piece by piece while ``reading`` lasts, where the source can do that.

    Then the second link works while the first does. All parts that are under way share a link: if
    each of them had to arrive before it is handed on, they would arrive together, and late.
    """
    if want.path is None:
        return _short(want, to_json(list(await source.listing()), list[FileEntry]).encode())
    if not isinstance(source, Streams) or want.start == want.end:
        return _short(want, await source.read(want.path, want.start, want.end))
    if want.end - want.start > LONGEST_ANSWER:
        raise _too_long(want, want.end - want.start)
    return await reading.enter_async_context(source.stream(want.path, want.start, want.end))


def _short(want: Want, body: bytes) -> bytes:
    if len(body) > LONGEST_ANSWER:
        raise _too_long(want, len(body))
    return body


def _too_long(want: Want, nbytes: int) -> StorageError:
    what = want.path or "the list of its files"
    return StorageError(f"{what} has {nbytes} bytes, too many to be carried over at once")

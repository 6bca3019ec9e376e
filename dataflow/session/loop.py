"""A thread with an event loop, so that a notebook can wait for what is asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds between two calls of what is called while something is waited for; nothing is called for
#: what takes less than two of them.
GLANCE_SECONDS = 0.5


class LoopThread:
    """An event loop in a thread of its own; works inside a notebook that has a loop already."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._going: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._serve, name="dataflow", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        # In this thread: the one that closes may be a notebook's, which runs a loop of its own.
        _finish(self._loop)

    def run(
        self, work: Coroutine[Any, Any, T], *, meanwhile: Callable[[], None] | None = None
    ) -> T:
        """Run to the end and give what it gives; an interrupt stops it.

        ``meanwhile`` is called in the thread that waits, again and again after the first second.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            pause = 2 * GLANCE_SECONDS
            while meanwhile is not None and not wait([future], pause).done:
                meanwhile()
                pause = GLANCE_SECONDS
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def waited(
        self, work: Coroutine[Any, Any, T], *, meanwhile: Callable[[], None] | None = None
    ) -> T:
        """The same for who has a loop of its own, which goes on; cancelling stops it."""
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        try:
            pause = 2 * GLANCE_SECONDS
            while meanwhile is not None and not (await asyncio.wait({future}, timeout=pause))[0]:
                meanwhile()
                pause = GLANCE_SECONDS
            return await future
        finally:
            future.cancel()  # nothing, if it has ended

    def beside(self, work: Callable[[], None]) -> None:
        """Run something that blocks in a thread of its own; :meth:`close` waits for its end."""
        self._loop.call_soon_threadsafe(self._loop.run_in_executor, None, work)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside us; it is cancelled when the loop is closed."""

        def start() -> None:
            going = self._loop.create_task(work)
            self._going.add(going)
            going.add_done_callback(self._going.discard)

        self._loop.call_soon_threadsafe(start)

    def end(self) -> None:
        """End what was begun, and wait until it has ended."""

        async def ended() -> None:
            going = list(self._going)
            for one in going:
                one.cancel()
            if going:
                await asyncio.wait(going)

        self.run(ended())

    def close(self) -> None:
        """Stop the loop and the thread; harmless when repeated."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def entered(context: AbstractAsyncContextManager[T]) -> T:
    """Enter a context on the loop that runs this."""
    return await context.__aenter__()


async def left(context: AbstractAsyncContextManager[Any]) -> None:
    """Leave it again."""
    await context.__aexit__(None, None, None)


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """End what still runs, so that nothing is left behind without a word."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

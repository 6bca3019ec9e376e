"""Tasks that belong together: the first failure, a cancellation, and who is told how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dataflow.tasks import ended, together


class Worker:
    """Works until it is cancelled, and then needs a while to end well."""

    def __init__(self, farewell: float = 0.05) -> None:
        self.farewell = farewell
        self.said: list[str] = []

    async def work(self) -> None:
        self.said.append("begun")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            await asyncio.sleep(self.farewell)
            self.said.append("ended well")
            raise


def cancelled(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        task = asyncio.create_task(story())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_all_run() -> None:
    said: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0.01)
        said.append(number)

    asyncio.run(together([work(number) for number in range(3)]))
    assert sorted(said) == [0, 1, 2]
    asyncio.run(together([]))


def test_the_first_failure_stops_the_others_and_waits_for_their_end() -> None:
    other = Worker()

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        asyncio.run(together([other.work(), fails()]))
    assert other.said == ["begun", "ended well"]


def test_who_is_cancelled_is_told_once() -> None:
    # One ends at once; what the other does to end well must not be broken off for that.
    slow = Worker()
    cancelled(lambda: together([slow.work(), asyncio.sleep(600)]))
    assert slow.said == ["begun", "ended well"]


def test_those_inside_of_others_as_well() -> None:
    slow = Worker()
    cancelled(lambda: together([together([slow.work(), asyncio.sleep(600)]), asyncio.sleep(600)]))
    assert slow.said == ["begun", "ended well"]


def test_what_has_ended_stays_ended() -> None:
    async def story() -> None:
        done = asyncio.create_task(asyncio.sleep(0, "it"))
        await done
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await ended([done, future])
        assert done.result() == "it"
        assert future.cancelled()

    asyncio.run(story())

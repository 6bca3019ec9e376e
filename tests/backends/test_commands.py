"""Commands of a batch system: what they say, and what is left of one that says nothing in time."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import psutil
import pytest

from dataflow.backends.commands import said
from tests.backends.ends import gone


def test_what_it_says() -> None:
    script = "read word; echo $word; echo why >&2; exit 3"
    told = asyncio.run(said("sh", "-c", script, seconds=30, stdin="that\n"))
    assert told == (3, "that\n", "why\n")


def test_there_is_none() -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(said("no-such-command", seconds=30))


@pytest.mark.parametrize("early", [False, True])
def test_what_takes_too_long_ends_with_all_that_it_started(early: bool, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    script = f"sleep 604 & echo $! > {mark}; echo $$ >> {mark}; sleep 605"

    async def story() -> None:
        asked = asyncio.create_task(said("sh", "-c", script, seconds=600))
        here = psutil.Process()
        before = set(here.children())
        while early and set(here.children()) <= before:
            await asyncio.sleep(0)
        # Early is before asyncio itself has heard that it runs.
        while not mark.exists() or len(mark.read_text().split()) < 2:
            time.sleep(0.01) if early else await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(story())
    assert all(gone(int(pid)) for pid in mark.read_text().split())
    gc.collect()  # a pipe that is left open would be warned of here


def test_who_is_cancelled_while_nothing_could_start() -> None:
    async def story() -> None:
        asked = asyncio.create_task(said("no-such-command", seconds=600))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises((asyncio.CancelledError, FileNotFoundError)):
            await asked

    asyncio.run(story())


def test_it_may_take_too_long() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(said("sleep", "606", seconds=0.05))

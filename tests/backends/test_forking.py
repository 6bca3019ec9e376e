"""Workers that are copies of a process which has imported what they need."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest

from dataflow.backends import forking
from dataflow.backends.local import LocalBackend
from dataflow.testing.backends import BackendContract


@pytest.fixture(autouse=True)
def forked() -> Iterator[None]:
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


class TestContract(BackendContract):
    """What every backend promises."""

    elastic = False

    def make(self, directory: Path) -> LocalBackend:
        return LocalBackend(workers=2, threads=1, memory=10**9, directory=directory)


def told(name: str) -> Any:
    parent = psutil.Process(os.getppid()).cmdline()
    return os.environ.get(name), hash("a word"), "forkserver" in " ".join(parent)


def of_two_workers(directory: Path, name: str) -> list[Any]:
    async def story() -> list[Any]:
        backend = LocalBackend(workers=2, threads=1, memory=10**9, directory=directory)
        try:
            client = await backend.client()
            await client.wait_for_workers(2)
            return list((await client.run(told, name)).values())
        finally:
            await backend.close()

    return asyncio.run(story())


def test_workers_know_what_has_been_said_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forking.prepare()
    monkeypatch.setenv("SAID_LATER", "yes")
    assert forking.prepare()["SAID_LATER"] == "yes"
    one, other = of_two_workers(tmp_path, "SAID_LATER")
    assert one == other, "a word has the same hash in both"
    assert (one[0], one[2]) == ("yes", True)


def test_libraries_find_their_settings_and_nothing_is_left_here(tmp_path: Path) -> None:
    before = dict(os.environ)
    (one, _) = of_two_workers(tmp_path, "ARROW_DEFAULT_MEMORY_POOL")
    assert one[0] == "system"
    assert "ARROW_DEFAULT_MEMORY_POOL" not in os.environ.keys() - before.keys()


def test_nothing_is_prepared_for_workers_that_start_afresh(tmp_path: Path) -> None:
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        assert forking.prepare() == {}
        assert not any(forked for *_, forked in of_two_workers(tmp_path, "HOME"))

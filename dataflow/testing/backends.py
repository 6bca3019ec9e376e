"""What every backend promises, as stories that are told of a real one.

A test class inherits :class:`BackendContract` and says how its backend is made. Where the backend
must live on another host than the test, :meth:`BackendContract.tell` runs the same story there::

    echo 'backend: {workers: 2, memory: 1 GB, sge: {queue: lab.q}}' |
        python -m dataflow.testing.backends demand_brings_workers

which writes one line of JSON: what was seen, or what was not as promised.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import pickle
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from dataflow.backends.base import Backend, Demand, Lease
from dataflow.backends.make import make_backend
from dataflow.errors import SiteRefused

#: How long (s) anything may take before it counts as not happening; batch systems wait for a while.
PATIENCE = 120.0

Raised = TypeVar("Raised", bound=Exception)
Make = Callable[[], Backend]
Seen = Mapping[str, Any]


async def starts_once(make: Make) -> Seen:
    """However many ask at once there is one scheduler, and none before or after."""
    backend = make()
    try:
        assert backend.dashboard is None
        assert list(backend.leases()) == []
        assert backend.trouble() == ""
        one, two, _ = await asyncio.gather(backend.client(), backend.client(), backend.start())
        assert one is two
        assert (backend.dashboard or "").startswith("http://127.0.0.1:")
        assert one.scheduler.address.startswith("tls://"), "anybody could talk to it"
    finally:
        await backend.close()
    assert backend.dashboard is None
    assert "closed" in str(await _raised(backend.client(), RuntimeError))
    await backend.close()
    return {}


async def demand_brings_workers(make: Make) -> Seen:
    """Whoever says what is planned gets workers that can run it, and they are told of."""
    async with _running(make) as backend:
        begun = time.monotonic()
        await backend.request(_demand("one", tasks=2))
        client = await backend.client()
        pid, host, modules = await client.submit(_where)
        first = time.monotonic() - begun
        assert (pid, host) != (os.getpid(), os.uname().nodename)
        assert "dataflow.execution.to_dask" in modules, "the worker was not prepared"
        await _until(lambda: _leases(backend, "running"), "a lease that runs")
        lease = _leases(backend, "running")[0]
        assert lease.id
        assert lease.host
        assert backend.trouble() == ""
        await backend.release("one")
        await backend.release("one")
        await backend.release("nobody's")
        return {"first": first, "host": host}


async def never_above_the_limit(make: Make) -> Seen:
    """A demand without measure does not bring more workers than the site has."""
    async with _running(make) as backend:
        limit = int(backend.workers)  # type: ignore[attr-defined]
        begun = time.monotonic()
        await asyncio.gather(
            *(backend.request(_demand(f"o{i}", tasks=50, seconds=1e6)) for i in range(3))
        )
        client = await backend.client()
        await client.wait_for_workers(limit, timeout=PATIENCE)
        all_there = time.monotonic() - begun
        assert len(await client.nthreads()) == limit
        going = [lease for lease in backend.leases() if lease.status in ("queued", "running")]
        assert len(going) == limit
        return {"workers": limit, "all": all_there}


async def release_lets_them_go(make: Make) -> Seen:
    """When nobody wants them any more, workers that cost something go, and are told of as ended."""
    async with _running(make) as backend:
        await backend.request(_demand("one"))
        client = await backend.client()
        assert await client.submit(sum, [1, 2]) == 3
        await backend.release("one")
        begun = time.monotonic()
        await _until(lambda: not _leases(backend, "running"), "no lease that runs")
        gone = time.monotonic() - begun
        assert not _leases(backend, "queued")
        assert _leases(backend, "ended")
        assert not _leases(backend, "failed")
        # And they come again.
        await backend.request(_demand("two"))
        assert await client.submit(sum, [3, 4]) == 7
        return {"gone": gone}


async def stopped_worker_is_replaced(make: Make) -> Seen:
    """A worker that does not listen is ended; what stood behind its task is run elsewhere."""
    async with _running(make) as backend:
        await backend.request(_demand("one"))
        client = await backend.client()
        await client.wait_for_workers(1, timeout=PATIENCE)
        address, *_ = await client.nthreads()
        pid, *_ = await client.submit(_where, workers=[address], pure=False)
        busy = client.submit(_hold, 600.0, workers=[address], pure=False)
        behind = client.submit(str.upper, "behind it", key="behind")
        await _until_async(lambda: _runs(client, address, busy.key), "the task that holds it")
        busy.release()
        begun = time.monotonic()
        await backend.stop_worker(address)
        stopped = time.monotonic() - begun
        assert await behind == "BEHIND IT"
        again, *_ = await client.submit(_where, pure=False)
        replaced = time.monotonic() - begun
        assert again != pid
        await backend.stop_worker(address)
        await backend.stop_worker("tls://127.0.0.1:1")
        return {"stopped": stopped, "replaced": replaced}


async def impossible_is_refused(make: Make) -> Seen:
    """What no worker here can ever do is refused at once, with a reason; and nothing is started."""
    async with _running(make) as backend:
        refused = await _raised(backend.request(_demand("one", memory=10**18)), SiteRefused)
        assert "memory" in refused.reason
        again = pickle.loads(pickle.dumps(refused))
        assert (type(again), again.args) == (SiteRefused, refused.args)
        assert str(again) == str(refused)
        assert not [x for x in backend.leases() if x.status == "queued"]
        assert pickle.loads(pickle.dumps(list(backend.leases()))) == list(backend.leases())
        assert backend.trouble() == "", "nobody wants anything"
        return {}


async def close_leaves_nothing(make: Make) -> Seen:
    """After the end no process of it is here; not even when nobody took what was asked for."""
    import psutil

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    backend = make()
    try:
        await backend.request(_demand("one", tasks=50, seconds=1e6))
        client = await backend.client()
        held = client.submit(_hold, 600.0)
        await client.wait_for_workers(1, timeout=PATIENCE)
    finally:
        begun = time.monotonic()
        await backend.close()
        closed = time.monotonic() - begun
    del held
    assert not _leases(backend, "queued")
    assert not _leases(backend, "running")
    left = [
        process.cmdline()
        for process in psutil.Process().children(recursive=True)
        # Python's own, which ends with this process.
        if process.pid not in before and "resource_tracker" not in " ".join(process.cmdline())
    ]
    assert not left, left
    return {"closed": closed}


STORIES: Mapping[str, Callable[[Make], Awaitable[Seen]]] = {
    story.__name__: story
    for story in (
        starts_once,
        demand_brings_workers,
        never_above_the_limit,
        release_lets_them_go,
        stopped_worker_is_replaced,
        impossible_is_refused,
        close_leaves_nothing,
    )
}


class BackendContract(ABC):
    """The stories as tests; a subclass says of which backend.

    Attributes
    ----------
    elastic
        Whether workers go when nobody wants them.
    """

    elastic = True

    @abstractmethod
    def make(self, directory: Path) -> Backend:
        """A backend of at least one and at most a few workers, in an empty directory."""

    def tell(self, story: str, directory: Path) -> Seen:
        """Run a story; another host may be the place for it."""

        async def told() -> Seen:
            return await STORIES[story](lambda: self.make(directory))

        return asyncio.run(told())

    def test_starts_once(self, tmp_path: Path) -> None:
        self.tell("starts_once", tmp_path)

    def test_demand_brings_workers(self, tmp_path: Path) -> None:
        self.tell("demand_brings_workers", tmp_path)

    def test_never_above_the_limit(self, tmp_path: Path) -> None:
        self.tell("never_above_the_limit", tmp_path)

    def test_release_lets_them_go(self, tmp_path: Path) -> None:
        if self.elastic:
            self.tell("release_lets_them_go", tmp_path)

    def test_stopped_worker_is_replaced(self, tmp_path: Path) -> None:
        self.tell("stopped_worker_is_replaced", tmp_path)

    def test_impossible_is_refused(self, tmp_path: Path) -> None:
        self.tell("impossible_is_refused", tmp_path)

    def test_close_leaves_nothing(self, tmp_path: Path) -> None:
        self.tell("close_leaves_nothing", tmp_path)


# --- what the stories are made of -----------------------------------------------------------------


@asynccontextmanager
async def _running(make: Make) -> AsyncIterator[Backend]:
    backend = make()
    try:
        yield backend
    finally:
        await backend.close()


async def _raised(doing: Awaitable[Any], kind: type[Raised]) -> Raised:
    try:
        await doing
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def _demand(order: str, **facts: Any) -> Demand:
    return Demand(order=order, job="story", **facts)


def _leases(backend: Backend, status: str) -> list[Lease]:
    return [lease for lease in backend.leases() if lease.status == status]


async def _until(true: Callable[[], Any], what: str) -> None:
    async def asked() -> Any:
        return true()

    await _until_async(asked, what)


async def _until_async(true: Callable[[], Awaitable[Any]], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.05)


async def _runs(client: Any, address: str, key: str) -> bool:
    """Whether a worker has begun a task, asked inside the worker."""
    found = await client.run(_executing, workers=[address])
    return key in found[address]


def _executing(dask_worker: Any = None) -> list[str]:
    return [str(task.key) for task in dask_worker.state.executing]


def _where() -> tuple[int, str, list[str]]:
    return os.getpid(), os.uname().nodename, [m for m in sys.modules if m.startswith("dataflow")]


def _hold(seconds: float) -> None:
    """Hold a thread; deaf to whoever cancels."""
    threading.Event().wait(seconds)


# --- on another host ------------------------------------------------------------------------------


def main() -> int:
    """Tell the story of the backend in a site file on standard input; write what was seen."""
    from dataflow.config import parse_site_file

    told = parse_site_file(f"site: {{name: contract}}\n{sys.stdin.read()}").backend

    def make() -> Backend:
        return make_backend(
            told.kind,
            site="contract",
            workers=told.workers,
            threads=told.threads,
            memory=told.memory,
            settings=told.settings,
            directory=directory,
        )

    async def story() -> Seen:
        return await STORIES[sys.argv[1]](make)

    # Below the home directory, which the hosts of a site share.
    with tempfile.TemporaryDirectory(prefix=".contract-", dir=Path.home()) as name:
        directory = Path(name)
        try:
            seen = dict(asyncio.run(story()))
        except AssertionError as error:
            frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
            where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            print(json.dumps({"broken": str(error) or "an assertion", "where": where}))
            return 1
    print(json.dumps({"seen": seen}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Stories of workers by SSH; run on one host of the bed, not collected by pytest."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataflow.backends.base import Demand
from dataflow.backends.ssh import SshBackend
from dataflow.config.backend_records import SshHosts

PATIENCE = 90.0


def made(*hosts: str, workers: int = 2, **facts: Any) -> SshBackend:
    return SshBackend(
        site="edge",
        workers=workers,
        threads=1,
        memory=500_000_000,
        settings=SshHosts(hosts=hosts, **{"connect": 3.0, "again": 2.0} | facts),
        directory=Path.home() / "flow-workers",
    )


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


def _host() -> str:
    return os.uname().nodename


async def troubled(*hosts: str, **facts: Any) -> None:
    backend = made(*hosts, **facts)
    begun = time.monotonic()
    await backend.request(Demand(order="o", job="j"))
    await until(backend.trouble)
    say(
        said=backend.trouble(),
        after=time.monotonic() - begun,
        leases=[[lease.status, lease.host, lease.reason] for lease in backend.leases()],
    )
    await backend.close()


async def one_is_dead() -> None:
    """One host of three exists: it works, the others are told of."""
    backend = made("edge-w1", "nowhere", "10.79.0.77", workers=3)
    await backend.request(Demand(order="o", job="j"))
    client = await backend.client()
    where = await client.submit(_host)
    await until(lambda: sum(lease.status == "failed" for lease in backend.leases()) == 2)
    say(
        where=where,
        trouble=backend.trouble(),
        leases=[[lease.status, lease.host, lease.reason] for lease in backend.leases()],
    )
    await backend.close()


async def stranger() -> None:
    """The key in known_hosts is that of another host."""
    known = Path("/tmp/known_hosts")
    lines = (Path.home() / ".ssh" / "known_hosts").read_text().splitlines()
    other = next(line.split(None, 1)[1] for line in lines if line.startswith("third "))
    known.write_text(f"edge-w1 {other}\n")
    await troubled("edge-w1", known_hosts=known)


async def dies_and_comes_back() -> None:
    """Say when the workers are there, are gone, and are there again; somebody else does that."""
    backend = made("edge-w1")
    client = await backend.client()
    while True:
        await until(lambda: len(backend._known()) == 2)
        say(up=True, where=await client.submit(_host, pure=False), pid=os.getpid())
        await until(lambda: len(backend._known()) < 2)
        await until(backend.trouble)
        say(up=False, said=backend.trouble())


STORIES: dict[str, Callable[[], Any]] = {
    "unknown": lambda: troubled("nowhere"),
    "silent": lambda: troubled("10.79.0.77"),
    "closed": lambda: troubled("edge-w1", config=Path("/tmp/ssh_config")),
    "python": lambda: troubled("edge-w1", python="/nonexistent/python"),
    "stranger": stranger,
    "one_is_dead": one_is_dead,
    "dies_and_comes_back": dies_and_comes_back,
}

if __name__ == "__main__":
    asyncio.run(STORIES[sys.argv[1]]())

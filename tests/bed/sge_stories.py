"""Stories of Grid Engine's backend; run on the login host of the bed, not collected by pytest."""

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
from dataflow.backends.sge import SgeBackend
from dataflow.config.backend_records import Sge
from dataflow.errors import SiteRefused

PATIENCE = 90.0


def made(workers: int = 2, **facts: Any) -> SgeBackend:
    settings: dict[str, Any] = {
        "queue": "flow.q",
        "interface": "eth0",
        "scheduler_interface": "lan0",
        "idle": 2.0,
        "worth": 10.0,
        "look": 1.0,
        "orphaned": 15.0,
        "walltime": 120.0,
    }
    return SgeBackend(
        site="hpc",
        workers=workers,
        threads=1,
        memory=500_000_000,
        settings=Sge(**settings | facts),
        directory=Path.home() / "flow-workers",
    )


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


async def shell(command: str) -> str:
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


def demand(order: str = "o", **facts: Any) -> Demand:
    return Demand(order=order, job="j", **facts)


async def refused(**facts: Any) -> None:
    backend = made(**facts)
    begun = time.monotonic()
    try:
        await backend.request(demand())
    except SiteRefused as error:
        say(said=error.reason, site=error.site, after=time.monotonic() - begun)
    await backend.close()


async def troubled(**facts: Any) -> None:
    backend = made(**facts)
    begun = time.monotonic()
    await backend.request(demand())
    await until(backend.trouble)
    say(
        said=backend.trouble(),
        after=time.monotonic() - begun,
        leases=[[lease.status, lease.reason] for lease in backend.leases()],
        queue=len((await shell("qstat")).splitlines()),
    )
    await backend.close()


async def unheard() -> None:
    """As ``troubled``, with hosts that are cut off; who tells it clears up, once they are back."""
    backend = made(starting=2.0)
    await backend.request(demand())
    await until(backend.trouble)
    said, leases = backend.trouble(), backend.leases()
    say(said=said, leases=[[lease.status, lease.host, lease.reason] for lease in leases])
    sys.stdout.flush()
    os._exit(0)


async def waits_and_is_deleted() -> None:
    blockers = "for i in 1 2 3 4; do echo sleep 300 | qsub -terse -o /dev/null -j y; done"
    numbers = (await shell(blockers)).split()
    backend = made()
    await backend.request(demand())
    await asyncio.sleep(8.0)  # several looks, one of them by qalter
    (lease,) = backend.leases()
    say(waits=lease.status, trouble=backend.trouble())
    begun = time.monotonic()
    await shell(f"qdel {lease.id}")
    await until(backend.trouble)
    say(said=backend.trouble(), after=time.monotonic() - begun)
    await shell("qdel " + " ".join(numbers))
    # Who asks again gets a worker.
    await backend.request(demand("p"))
    client = await backend.client()
    say(again=await client.submit(sum, [1, 2]), trouble=backend.trouble())
    await backend.close()


def _numbered(seconds: float) -> str:
    time.sleep(seconds)
    return os.environ["JOB_ID"]


async def before_the_wall() -> None:
    """Nine steps of 6 s each, and leases of 40 s: none may be begun twice, none killed."""
    backend = made(walltime=40.0, worth=1000.0)
    await backend.request(demand(tasks=9, seconds=54.0, longest=8.0))
    client = await backend.client()
    futures = client.map(_numbered, [6.0] * 9, pure=False)
    jobs = await client.gather(futures)
    del futures
    await backend.release("o")
    await until(lambda: set(backend.accounting) >= set(jobs))
    say(
        jobs=jobs,
        seconds=[record.seconds for record in backend.accounting.values()],
        exits=[record.exit_status for record in backend.accounting.values()],
        failed=[lease.reason for lease in backend.leases() if lease.status == "failed"],
    )
    await backend.close()


async def accounted() -> None:
    backend = made(memory_resource="mem_free", parallel_environment="smp")
    await backend.request(demand())
    client = await backend.client()
    number = await client.submit(_numbered, 1.0)
    asked = await shell(f"qstat -j {number} | grep -E 'hard resource|parallel|hard_queue'")
    await shell(f"qdel {number}")
    await until(lambda: number in backend.accounting)
    record = backend.accounting[number]
    lease = next(lease for lease in backend.leases() if lease.id == number)
    say(
        asked=asked,
        seconds=record.seconds,
        memory=record.memory,
        exit=record.exit_status,
        failed=record.failed,
        lease=[lease.status, lease.reason],
    )
    await backend.close()


async def stays() -> None:
    """Two workers that run and one that waits; then wait to be killed."""
    backend = made(workers=6)
    await backend.request(demand(tasks=6))
    client = await backend.client()
    await client.wait_for_workers(4, timeout=PATIENCE)
    busy = client.map(_numbered, [600.0] * 4, pure=False)
    say(up=True, pid=os.getpid())
    await asyncio.sleep(600)
    del busy


async def mute() -> None:
    """Asked while Grid Engine does not answer; told when to go on."""
    backend = made(silence=3.0)
    client = await backend.client()
    loop = asyncio.get_running_loop()
    say(up=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    begun, said = time.monotonic(), ""
    try:
        await backend.request(demand())
    except SiteRefused as error:
        said = error.reason
    say(said=said, after=time.monotonic() - begun)
    await loop.run_in_executor(None, sys.stdin.readline)
    # What was asked for may have come to the queue without our knowing.
    await asyncio.sleep(5.0)
    await until_empty()
    await until(lambda: not backend._mute())
    await backend.request(demand("p"))
    say(again=await client.submit(sum, [1, 2]))
    await backend.close()


async def starts_again() -> None:
    backend = made()
    await backend.start()
    await until_empty()
    say(empty=True, directory=sorted(os.listdir(backend.directory)))
    await backend.close()


async def until_empty() -> None:
    deadline = time.monotonic() + PATIENCE
    while await shell("qstat"):
        assert time.monotonic() < deadline, "the queue does not empty"
        await asyncio.sleep(0.1)


STORIES: dict[str, Callable[[], Any]] = {
    "unknown_queue": lambda: refused(queue="nosuch.q"),
    "unknown_project": lambda: refused(project="nosuch"),
    "unknown_resource": lambda: refused(resources={"nosuch": "1"}),
    "held": lambda: troubled(directives=("-h",)),
    "error": lambda: troubled(logs=Path("/tmp/only-on-this-host")),
    "never": lambda: troubled(resources={"mem_total": "900G"}),
    "early": lambda: troubled(interface="nosuch0"),
    "absent": lambda: troubled(prologue=("sleep 600",), starting=2.0),
    "unheard": unheard,
    "waits_and_is_deleted": waits_and_is_deleted,
    "before_the_wall": before_the_wall,
    "accounted": accounted,
    "stays": stays,
    "mute": mute,
    "starts_again": starts_again,
}

if __name__ == "__main__":
    asyncio.run(STORIES[sys.argv[1]]())

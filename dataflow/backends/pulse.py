"""Pulse: workers that have fallen silent without ending, found in seconds rather than in minutes.

A process that ends closes its connections, and is known to have ended at once. One that stands still,
on a host that hangs or that nothing reaches any more, closes nothing: Dask waits five minutes for it,
and so would the job. But silence alone proves nothing either: a function that holds the interpreter's
lock keeps a worker from its heartbeats for as long as it likes. So the worker's nanny is asked, a
process of its own on the same host: what does the worker's process do?
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from dataflow.backends.nanny import rpc_to

log = structlog.get_logger(__name__)

#: Seconds without a heartbeat after which the nanny is asked, and after which a worker may be lost.
DOUBTFUL, SILENT = 4.0, 8.0

#: Seconds without a heartbeat and without any use of the processor until a process counts as stuck:
#: one that waits for a disk with the interpreter's lock in its hands is given that long.
STUCK = 120.0

#: Seconds for a nanny to answer, and between two looks.
ANSWER, LOOK = 3.0, 1.0

#: A look that comes later than it should (s) says that we stood still ourselves.
_LATE = 2.0

#: The same answer so many times in a row is believed, and no answer: a busy host is slow to answer.
_TWICE, _THRICE = 2, 3

Lose = Callable[[str, str, bool], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sign:
    """What a nanny says of its worker; ``None`` in place of it says that it did not answer.

    Attributes
    ----------
    state
        Of the process, in psutil's words.
    cpu
        Seconds of processor time that it and its children have used.
    """

    state: str
    cpu: float


def lost(silence: float, signs: Sequence[Sign | None]) -> str:
    """Why a worker counts as lost; empty as long as it may only be busy. Pure.

    Parameters
    ----------
    silence
        Seconds since its last heartbeat.
    signs
        What its nanny said since then, oldest first.
    """
    if silence < SILENT or len(signs) < _TWICE:
        return ""
    last = signs[-_TWICE:]
    if len(signs) >= _THRICE and all(sign is None for sign in signs[-_THRICE:]):
        return f"its host has not answered for {silence:.0f} s"
    if all(sign is not None and sign.state == "stopped" for sign in last):
        return f"its process has stood still for {silence:.0f} s"
    told = [sign for sign in signs if sign is not None]
    if silence > STUCK and len({sign.cpu for sign in told}) == 1 and len(told) >= _TWICE:
        return f"its process has not run for {silence:.0f} s"
    return ""


async def watch(scheduler: Any, lose: Lose) -> None:
    """Look after the workers of a scheduler of this process until cancelled.

    Parameters
    ----------
    lose
        Gets the address of a worker that is lost, why, and whether its nanny answers.
    """
    from distributed.metrics import time

    loop = asyncio.get_running_loop()
    signs: dict[str, list[Sign | None]] = {}
    heard_since = time()
    while True:
        begun = loop.time()
        await asyncio.sleep(LOOK)
        if loop.time() - begun > LOOK + _LATE:  # what they said meanwhile waits to be read
            heard_since = time()
            signs.clear()
        now = time()
        silence = {
            worker.address: now - max(worker.last_seen, heard_since)
            for worker in scheduler.workers.values()
        }
        doubtful = [address for address, seconds in silence.items() if seconds > DOUBTFUL]
        signs = {address: signs.get(address, []) for address in doubtful}
        answers = await asyncio.gather(*(_sign(scheduler, address) for address in doubtful))
        for address, answer in zip(doubtful, answers, strict=True):
            signs[address].append(answer)
            worker = scheduler.workers.get(address)
            if worker is None or worker.last_seen > now:
                continue  # it has spoken, or ended, while its nanny was asked
            why = lost(time() - max(worker.last_seen, heard_since), signs[address])
            if why:
                log.warning("worker-silent", address=address, reason=why)
                del signs[address]
                try:
                    await lose(address, why, answer is not None)
                except Exception as error:  # the others are to be looked after all the same
                    log.warning("silent-worker-not-ended", address=address, error=repr(error))


async def _sign(scheduler: Any, address: str) -> Sign | None:
    from distributed.protocol.pickle import dumps

    worker = scheduler.workers.get(address)
    if worker is None:
        return None
    if not worker.nanny:
        return await _listens(address)
    try:
        async with asyncio.timeout(ANSWER), rpc_to(worker.nanny, scheduler) as nanny:
            found = await nanny.run(function=dumps(worker_process))  # type: ignore[no-untyped-call]
            return Sign(*found["result"])
    except Exception:  # whatever it is, it is no answer
        return None


async def _listens(address: str) -> Sign | None:
    """Whether the host of a worker without a nanny is there; what the worker does nobody can say."""
    from distributed.comm.addressing import parse_address, parse_host_port

    try:
        async with asyncio.timeout(ANSWER):
            host, port = parse_host_port(parse_address(address)[1])
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return None
    writer.close()
    return Sign("unknown", asyncio.get_running_loop().time())


def worker_process(dask_worker: Any = None) -> tuple[str, float]:
    """State and processor time of a nanny's worker process; asked inside the nanny."""
    import psutil

    try:
        process = psutil.Process(dask_worker.pid)
        used = process.cpu_times()
        spent = used.user + used.system + used.children_user + used.children_system
        for child in process.children(recursive=True):
            times = child.cpu_times()
            spent += times.user + times.system
        return process.status(), round(spent, 2)
    except (psutil.Error, TypeError):
        return "ended", 0.0

"""Ending one worker on another host by way of its nanny, which starts the next in its place."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

log = structlog.get_logger(__name__)

#: Seconds for the worker to end by itself, then for the kernel to end it.
_POLITE = 0.5

#: Seconds for the nanny to answer. Beyond, its host is as good as gone.
_ANSWER = 10.0


async def replace_worker(scheduler: Any, address: str) -> bool:
    """End the worker process at ``address``; its nanny starts another.

    Other tasks that it had are run again elsewhere and do not count as failed.

    Returns
    -------
    bool
        False if there is no such worker or its nanny does not answer: then the worker is no longer
        known to the scheduler, and whoever started the nanny has to end both.
    """
    known = scheduler.workers.get(address)
    if known is None:
        return False
    try:
        async with (
            asyncio.timeout(_ANSWER),
            rpc_to(known.nanny, scheduler) as nanny,
        ):
            # The connection is made by the first question. Once the scheduler has forgotten the worker
            # there is little time: its next heartbeat would tell it to end for good.
            await nanny.identity()
            # Before Dask notices by itself, or it would count this against all other tasks that the
            # worker had.
            await _forget(scheduler, address)
            await nanny.kill(timeout=_POLITE, reason="dataflow-stop-worker")
    except (OSError, TimeoutError) as error:
        log.warning("nanny-silent", address=address, error=str(error))
        await _forget(scheduler, address)
        return False
    return True


async def end_worker(scheduler: Any, address: str, *, by_nanny: bool) -> None:
    """End a worker that has fallen silent; what it ran counts as lost with it.

    Not run again elsewhere by Dask itself, under the same name of the attempt: it may only be cut
    off, and write on.

    Parameters
    ----------
    by_nanny
        Its nanny answers, and ends the process; else the scheduler no longer counts on either.
    """
    known = scheduler.workers.get(address)
    if known is None:
        return
    if by_nanny:
        try:
            async with (
                asyncio.timeout(_ANSWER),
                rpc_to(known.nanny, scheduler) as nanny,
            ):
                await nanny.kill(timeout=_POLITE, reason="dataflow-silent-worker")
        except (OSError, TimeoutError) as error:
            log.warning("nanny-silent", address=address, error=str(error))
    if address in scheduler.workers and scheduler.workers[address] is known:
        await scheduler.remove_worker(
            address, stimulus_id="dataflow-silent-worker", expected=False, close=False
        )


def rpc_to(nanny: str, scheduler: Any) -> Any:
    """A way to ask a nanny, as the scheduler would."""
    from distributed.core import rpc

    return rpc(nanny, connection_args=scheduler.connection_args)  # type: ignore[no-untyped-call]


async def _forget(scheduler: Any, address: str) -> None:
    if address in scheduler.workers:
        await scheduler.remove_worker(
            address, stimulus_id="dataflow-stop-worker", expected=True, close=False
        )

"""Tasks that belong together: they end together, and each may end as it has to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any


async def together(works: Sequence[Awaitable[Any]]) -> None:
    """Run all; the first failure stops the others and is raised as itself.

    When this returns or raises, all have ended.
    """
    running = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*running)
    finally:
        await ended(running)


async def ended(running: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what still runs, and wait until it has stopped.

    Each is told once: a second word would break what it does to end well, such as waiting for a
    process to end by itself.
    """
    for task in running:
        if not (isinstance(task, asyncio.Task) and task.cancelling()):
            task.cancel()
    await asyncio.gather(*running, return_exceptions=True)

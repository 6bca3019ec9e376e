"""Long polls: an answer that waits for news, and ends when the agent stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request

T = TypeVar("T")

#: Longest time (s) that one request may wait; a client that wants more asks again.
LONGEST_WAIT = 60.0

Since = Annotated[int, Query(ge=0, le=2**53, description="Number of the first entry wanted")]
Wait = Annotated[
    float,
    Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for news if there are none yet"),
]


async def held(request: Request, call: Coroutine[Any, Any, T], otherwise: T) -> T:
    """The result of ``call``; ``otherwise`` as soon as the agent is told to stop."""
    stopping: asyncio.Event = request.app.state.stopping
    waiting = asyncio.ensure_future(call)
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else otherwise
    finally:
        for task in (waiting, stopped):
            task.cancel()
        await asyncio.gather(waiting, stopped, return_exceptions=True)

"""A question whose connection breaks is asked again, if it may be; one that changes something is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from dataflow.client import AgentClient
from dataflow.errors import SiteUnreachable
from dataflow.sites import Site


def told(breaks: int, ask: Callable[[AgentClient], Awaitable[Any]]) -> tuple[int, bool]:
    """How often an agent is asked whose first connections break, and whether that was enough."""
    asked = 0

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        if asked <= breaks:
            raise (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)[asked % 3](
                "cut"
            )
        return httpx2.Response(200, json={})

    async def scenario() -> bool:
        site = Site(name="ams", address="http://ams.test:1")
        async with AgentClient(site, transport=httpx2.MockTransport(answer)) as client:
            try:
                await ask(client)
            except SiteUnreachable:
                return False
            return True

    well = asyncio.run(scenario())
    return asked, well


@pytest.mark.parametrize(
    ("breaks", "expected"), [(0, (1, True)), (1, (2, True)), (3, (4, True)), (9, (4, False))]
)
def test_a_question_is_asked_again(breaks: int, expected: tuple[int, bool]) -> None:
    assert told(breaks, lambda client: client.probe(0)) == expected


def test_what_would_be_done_twice_is_not() -> None:
    assert told(1, lambda client: client.register("file:///x.npy", name="x")) == (1, False)

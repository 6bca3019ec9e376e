"""What connections tell of a road, by real connections."""

from __future__ import annotations

import asyncio
import socket

import pytest

from dataflow.client import AgentClient
from dataflow.errors import SiteUnreachable
from dataflow.patience import Patience
from dataflow.sites import Site

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not tell")


async def asked(answer: bytes) -> tuple[Patience, Exception | None]:
    """What is known after a question; without an answer the connection is closed instead."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    patience, failure = Patience(), None
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        site = Site(name="vu", address=f"http://127.0.0.1:{port}")
        async with AgentClient(site, patience=patience) as client:
            try:
                await client.cancel("o1")
            except SiteUnreachable as error:
                failure = error
    return patience, failure


def test_a_connection_tells_the_road_and_an_answer_that_somebody_is_there() -> None:
    async def story() -> None:
        now = asyncio.get_running_loop().time
        silent, failure = await asked(b"")
        assert failure is not None
        assert 0 < silent.round_trip < 0.1
        assert not silent.is_there(now())
        heard, failure = await asked(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        assert failure is None
        assert heard.is_there(now())

    asyncio.run(story())

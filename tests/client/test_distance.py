"""The delay of a road is that of the road."""

from __future__ import annotations

import asyncio
import socket

import pytest

from dataflow.client.distance import distance


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not tell")
def test_whoever_listens_is_near_although_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # which accepts nothing
        port = server.getsockname()[1]
        seen = asyncio.run(distance(f"https://127.0.0.1:{port}/"))
    assert seen is not None
    assert 0 < seen < 0.1
    assert asyncio.run(distance(f"http://127.0.0.1:{port}")) is None, "nobody listens any more"


@pytest.mark.parametrize(
    "address", ["ssh://uva", "unix:///run/agent.sock", "https://", "http://a:b"]
)
def test_other_ways_have_no_distance_of_this_kind(address: str) -> None:
    assert asyncio.run(distance(address)) is None

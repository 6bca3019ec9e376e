"""A link is measured with few bytes on a slow road, and well on a fast one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
import pytest

from dataflow.client import AgentClient
from dataflow.client.probe import measure_link
from dataflow.errors import SiteUnreachable
from dataflow.sites import Link, Site


def measured(road: Callable[[int], float]) -> tuple[Link, list[int]]:
    """The link over a road that takes so long for so many bytes, and the sizes asked for."""
    time, asked = 0.0, []

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal time
        nbytes = int(request.url.params["nbytes"])
        asked.append(nbytes)
        time += road(nbytes)
        return httpx2.Response(200, content=bytes(nbytes))

    async def scenario() -> Link:
        site = Site(name="ams", address="http://ams.test:1")
        async with AgentClient(site, transport=httpx2.MockTransport(answer)) as client:
            return await measure_link(
                client, source="ams", target="uva", clock=lambda: time, now=lambda: 1234.5
            )

    return asyncio.run(scenario()), asked


@pytest.mark.parametrize("bandwidth", [50e6, 125e6, 1e9])
def test_a_fast_road(bandwidth: float) -> None:
    link, asked = measured(lambda nbytes: 0.01 + nbytes / bandwidth)
    assert asked == [0, 0, 0, 0, 0, 64_000, 1_000_000, 8_000_000]
    assert link.bandwidth == pytest.approx(bandwidth, rel=0.2)
    assert link.latency == pytest.approx(0.01)
    assert (link.source, link.target) == ("ams", "uva")
    assert (link.origin, link.measured_at) == ("measured", 1234.5)


def test_a_slow_road_is_not_filled() -> None:
    link, asked = measured(lambda nbytes: 0.1 + nbytes / 1e5)
    assert asked == [0, 0, 0, 0, 0, 64_000, 64_000]
    assert link.bandwidth == pytest.approx(1e5)


def test_a_middling_road() -> None:
    link, asked = measured(lambda nbytes: 0.02 + nbytes / 3e6)
    assert asked == [0, 0, 0, 0, 0, 64_000, 1_000_000]
    assert link.bandwidth == pytest.approx(3e6)


@pytest.mark.parametrize("late", [64_000, 1_000_000, 8_000_000])
@pytest.mark.parametrize("stall", [0.2, 1.0])
def test_an_agent_that_had_other_things_to_do(late: int, stall: float) -> None:
    stalls = {late: stall}
    link, asked = measured(lambda nbytes: 0.001 + nbytes / 200e6 + stalls.pop(nbytes, 0.0))
    assert asked.count(8_000_000) in (1, 2)
    assert link.bandwidth == pytest.approx(200e6, rel=0.2)


def test_the_first_request_opens_the_connection() -> None:
    times = iter([0.5, 0.02, 0.03, 0.021, 0.04, 0.3, 0.4])
    link, _ = measured(lambda nbytes: next(times))
    assert link.latency == pytest.approx(0.02)


def test_a_clock_too_coarse_to_see_anything() -> None:
    link, _ = measured(lambda nbytes: 0.0)
    assert link.latency == 0.0
    assert 0 < link.bandwidth < float("inf")


def test_nobody_there() -> None:
    def broken(nbytes: int) -> float:
        raise httpx2.ConnectError("no route")

    with pytest.raises(SiteUnreachable):
        measured(broken)

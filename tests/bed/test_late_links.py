"""Operations at sites behind links that are two seconds long each way and lose one frame in twenty."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bed_agents import Agents
from bed_network import until, within

import dataflow as flow
from dataflow.testing.bed import Bed

SITES = ["edge", "third"]
OPERATIONS = 100


@flow.operation(kind="opaque", output="scalar", lazy=False)
def noted_sum(x: Any, *, number: int, where: str) -> Any:
    import os

    file = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{number}\n".encode())
    os.close(file)
    return x.sum() + number


@pytest.fixture
def agents(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agents]:
    bed.preset("unshaped")
    found = Agents(bed, tmp_path, SITES)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    try:
        found.begin()
        yield found
    finally:
        bed.restore()
        found.end()


def test_a_hundred_operations_end_each_once(agents: Agents, bed: Bed) -> None:
    """KO-10."""
    for number, site in enumerate(SITES):
        agents.make(site, site, 80_000, number)
    with agents.session() as session:
        until(lambda: not session.topology().away, seconds=within(60))
        for site in SITES:
            session.register(agents.path(site, f"data/{site}.npy"), name=site, site=site)
        bed.preset("late")
        begun = time.monotonic()

        def run(number: int) -> float:
            site = SITES[number % len(SITES)]
            where = agents.path(site, "ran.txt")
            graph = noted_sum(session[site], number=number, where=where)
            plan = session.plan(graph, scope={"noted_sum": site})
            return float(session.submit(plan, coordinator=site).result(within(120)))

        until(lambda: not session.topology().away, seconds=within(60))
        print("met again after", time.monotonic() - begun)
        with ThreadPoolExecutor(OPERATIONS) as pool:
            found = list(pool.map(run, range(OPERATIONS)))
        print("ended after", time.monotonic() - begun)
    sums = [np.random.default_rng(number).random(10_000).sum() for number in range(len(SITES))]
    np.testing.assert_allclose(
        found, [sums[number % len(SITES)] + number for number in range(OPERATIONS)]
    )
    ran = Counter(line for site in SITES for line in agents.run(site, "cat ran.txt").split())
    assert ran == Counter(map(str, range(OPERATIONS))), "each once"

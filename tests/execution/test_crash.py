"""Processes die at every moment there is: the job ends, and nothing is lost or made twice.

The coordinator dies before and after each of its writes, a site before and after each step of an
order; one by one in turn, and many in one run. Clocks are virtual, so that a run is the same
every time.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from simulated import Crash, Federation, SimulatedSite

from dataflow.execution import driver
from dataflow.graph.graph import Graph
from dataflow.placement.plan import Plan
from dataflow.sites import Site, Topology
from dataflow.testing.strategies import graphs, replica
from tests.virtual import run as run_virtually

NAMES = ("ams", "delft", "nikhef", "uva")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Sites die far more often here than one that is to be trusted with an order.
    monkeypatch.setattr(driver, "MOST_FORGOTTEN", 1000)


class Crashes:
    """When who dies: one moment of each, or some of many by chance; and how many did."""

    def __init__(self) -> None:
        self.writes = self.points = 0
        self.count = 0
        self.at_write: Callable[[int], bool] = lambda number: False
        self.at_point: Callable[[int], bool] = lambda number: False

    def writes_now(self, moment: str) -> bool:
        dies = self.at_write(self.writes)
        self.writes += 1
        self.count += dies
        return dies

    def works_now(self, site: SimulatedSite, what: str) -> bool:
        dies = self.at_point(self.points)
        self.points += 1
        self.count += dies
        return dies


def world_of(seed: int, directory: Path) -> tuple[Federation, Plan]:
    """A random graph over two to four sites, with at least one transfer, and its plan."""
    chance = random.Random(seed)
    names = NAMES[: chance.randint(2, 4)]
    topology = Topology(sites=tuple(Site(name=name) for name in names))
    known = some_graphs(30)
    graph = known[seed % len(known)]
    replicas = {
        key: [replica(key, site, 1000) for site in chance.sample(names, chance.randint(1, 2))]
        for key in graph.sources
    }
    shutil.rmtree(directory, ignore_errors=True)
    world = Federation(directory, topology, replicas, lost_after=3600.0)
    scope = {step.label: chance.choice(names) for step in graph.steps.values()}
    keep = chance.choice(["results", "all"])
    return world, world.plan(graph, scope=scope, keep=keep, result_at=chance.choice(["", *names]))


@cache
def some_graphs(count: int) -> Sequence[Graph]:
    """Graphs that are the same in every run."""
    found: list[Graph] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(graphs(min_steps=3, max_steps=7))
    def collect(graph: Graph) -> None:
        found.append(graph)

    collect()
    return found


async def _story(world: Federation, plan: Plan, crashes: Crashes, deaths: list[float]) -> None:
    """Run a job to its end; whenever a process dies, another one takes its place."""
    loop = asyncio.get_running_loop()
    world.at_point = crashes.works_now
    loop.set_exception_handler(
        lambda _, context: (
            isinstance(context.get("exception"), Crash) or world.complain(str(context))
        )
    )
    end = loop.time() + 1000

    async def alive() -> None:
        while True:
            try:
                world.open(crashes.writes_now)
                return
            except Crash:
                await world.kill()

    await alive()
    submitted = False
    while True:
        assert loop.time() < end, "it does not end"
        assert world.journal is not None
        assert world.coordinator is not None
        if world.journal.dead or (deaths and loop.time() >= deaths[0]):
            if not world.journal.dead:
                crashes.count += 1
                deaths.pop(0)
            await world.kill()
            await alive()
            continue
        if not submitted:
            try:  # whoever submits and hears nothing submits again
                world.submit(plan, time=1.0)
                submitted = True
            except Crash:
                continue
        if world.coordinator.state("job").over:
            break
        await asyncio.sleep(0.0003)
    state = world.journal.state("job")
    assert state == world.coordinator.state("job")
    await world.end()
    world.check(state)
    for segment in plan.segments:
        for key in segment.outputs:
            site = world.sites[segment.site]
            assert site.commits[key] == site.computed[key] == 1
    for transfer in plan.transfers:
        assert (transfer.key, transfer.target) in state.stored
    assert world.replanned == 0
    orders = {order for site in world.sites.values() for order in site.started}
    assert len(orders) == len(plan.segments) + len(plan.transfers), "an order got two names"


def play(
    seed: int, directory: Path, crashes: Crashes, deaths: list[float] | None = None
) -> Federation:
    world, plan = world_of(seed, directory)
    run_virtually(_story(world, plan, crashes, deaths or []))
    return world


def at(moment: int) -> Callable[[int], bool]:
    return lambda number: number == moment


SEEDS = range(12)


def test_every_write_of_the_coordinator(tmp_path: Path) -> None:
    count = 0
    for seed in SEEDS:
        undisturbed = Crashes()
        play(seed, tmp_path / "w", undisturbed)
        for moment in range(undisturbed.writes):
            crashes = Crashes()
            crashes.at_write = at(moment)
            play(seed, tmp_path / "w", crashes)
            assert crashes.count == 1
            count += 1
    assert count >= 300


def test_every_step_of_a_site(tmp_path: Path) -> None:
    count = 0
    for seed in SEEDS:
        undisturbed = Crashes()
        play(seed, tmp_path / "w", undisturbed)
        for moment in range(undisturbed.points):
            crashes = Crashes()
            crashes.at_point = at(moment)
            play(seed, tmp_path / "w", crashes)
            assert crashes.count == 1
            count += 1
    assert count >= 300


@pytest.mark.parametrize("part", range(4))
def test_many_deaths_in_one_run(tmp_path: Path, part: int) -> None:
    count = 0
    for seed in range(100 * part, 100 * part + 20):
        chance = random.Random(seed)
        crashes = Crashes()
        crashes.at_write = lambda number, chance=chance: chance.random() < 0.15  # type: ignore[misc]
        crashes.at_point = lambda number, chance=chance: chance.random() < 0.1  # type: ignore[misc]
        deaths = sorted(chance.uniform(0, 0.03) for _ in range(chance.randint(0, 4)))
        play(seed, tmp_path / "w", crashes, deaths)
        count += crashes.count
    assert count >= 100

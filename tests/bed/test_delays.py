"""Sites that are near and far by measurement, and become so; by their own agents."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from bed_agents import Agents, made
from bed_network import say, until, within

import dataflow as flow
from dataflow.errors import NoAllowedSite, PlacementError
from dataflow.testing.bed import Bed

NBYTES = 80_000
OPERATIONS = 100


@flow.operation(kind="opaque", output="scalar", lazy=False)
def mean(x: Any) -> Any:
    return x.mean()


@flow.operation(kind="opaque", output="scalar", lazy=False)
def noted_sum(x: Any, *, number: int, where: str) -> Any:
    import os

    file = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{number}\n".encode())
    os.close(file)
    return x.sum() + number


def test_near_sites(agents: Agents, bed: Bed) -> None:
    for seed, site in enumerate(("edge", "third")):
        agents.make(site, site, NBYTES, seed)
    mine = agents.folder / "mine"
    mine.mkdir()
    file = agents.file(
        site={"name": "notebook", "workers": 1, "memory": "500 MB"},
        stores=[{"name": "results", "url": str(mine)}],
    )
    bed.preset("scope")
    begun = time.monotonic()
    with agents.session(file) as session:
        until(lambda: not session.topology().away, seconds=within(60))
        for site in ("edge", "third"):
            session.register(agents.path(site, f"data/{site}.npy"), name=site, site=site)
        say("agents are met", begun)
        uses_near_sites(bed, session)
        ends_each_of_a_hundred_once(agents, bed, session)


def uses_near_sites(bed: Bed, session: flow.Session) -> None:
    """CH-13; seen from the notebook's own site."""

    def near(name: str) -> set[str]:
        time.sleep(0.5)  # who plans without a pause leaves this process no time to hear of sites
        try:
            plan = session.plan(mean(session[name]), scope="{around: notebook, 50 ms}")
        except PlacementError:  # a busy site was away for a moment
            return set()
        (made,) = plan.assignments
        return {c.site for c in made.candidates if c.allowed}

    begun = time.monotonic()
    until(lambda: near("edge") == {"notebook", "edge", "cloud"}, seconds=within(30))
    say("delays are known", begun)
    with pytest.raises(NoAllowedSite, match="within 5 ms of notebook"):
        session.plan(mean(session["edge"]), scope="{around: notebook, 5 ms}", without=["notebook"])
    plan = session.plan(
        mean(session["edge"]), scope="{around: notebook, 50 ms}", without=["notebook"]
    )
    job = session.submit(plan)
    assert float(job.result(120)) == pytest.approx(made(NBYTES, 0).mean())
    assert {part.site for part in job.plan.segments} <= {"edge", "cloud"}
    bed.link("edge").shape(latency=0.060)
    bed.link("third").shape(latency=0.005)
    begun = time.monotonic()
    until(lambda: near("third") == {"notebook", "cloud", "third"}, seconds=within(30))
    say("the next plan followed after", begun)


def ends_each_of_a_hundred_once(agents: Agents, bed: Bed, session: flow.Session) -> None:
    """KO-10."""
    sites = ["edge", "third"]
    for site in sites:
        bed.link(site).shape(latency=1.0, loss=0.05)
    begun = time.monotonic()

    def run(number: int) -> float:
        site = sites[number % 2]
        graph = noted_sum(session[site], number=number, where=agents.path(site, "ran.txt"))
        plan = session.plan(graph, scope={"noted_sum": site})
        return float(session.submit(plan, coordinator=site).result(within(120)))

    with ThreadPoolExecutor(OPERATIONS) as pool:
        found = list(pool.map(run, range(OPERATIONS)))
    say("a hundred operations ended after", begun)
    sums = [made(NBYTES, number % 2).sum() + number for number in range(OPERATIONS)]
    np.testing.assert_allclose(found, sums)
    ran = Counter(line for site in sites for line in agents.run(site, "cat ran.txt").split())
    assert ran == Counter(map(str, range(OPERATIONS))), "each once"

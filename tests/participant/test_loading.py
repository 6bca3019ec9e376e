"""DY-15: the load of a site's workers, as it is measured, told to others, and decided by."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataflow.backends.local import LocalBackend
from dataflow.catalog.records import Records
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Replica
from dataflow.graph.graph import Graph, of_dataset
from dataflow.participant.loading import Loading, loads_of
from dataflow.participant.owners import Asking
from dataflow.participant.planning import plan_graph
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan
from dataflow.policy.archetype import Load
from dataflow.sites import Site, Topology
from tests.policy.examples import ANNA, BOTH, agreement, relation, wages
from tests.policy.test_rights import mean, query

C2D, TTP = BOTH
VU = wages("vu")
COPY = Replica(
    key=VU.key, site="vu", store="data", url="file:///vu", format="parquet", nbytes=1_000_000
)
WORLD = Snapshot(
    datasets=(VU,),
    replicas={VU.key: (COPY,)},
    topology=Topology(sites=(Site(name="vu"), Site(name="surf"))),
    agreements=(agreement("vu", relation()),),
)


def planned(**loads: Load) -> Plan:
    graph: Graph = mean(query(of_dataset(VU)))
    asking = Asking(user=ANNA, type="sqlDataRequest")
    return plan_graph(graph, WORLD, Measurements(), asking=asking, loads=loads)


@pytest.mark.parametrize(
    ("vu", "surf", "chosen"),
    [
        (Load(cpu=0.95), Load(cpu=0.1), TTP),
        (Load(cpu=0.1, memory=0.95), Load(cpu=0.1), TTP),
        (Load(cpu=0.95), Load(cpu=0.9), C2D),
        (Load(cpu=0.1), Load(cpu=0.1), C2D),
        (Load(cpu=0.8), Load(cpu=0.1), TTP),  # at the threshold is loaded
        (Load(cpu=0.79), Load(cpu=0.1), C2D),
        (Load(cpu=0.95), Load(cpu=0.8), C2D),
        (Load(cpu=0.6, threshold=0.5), Load(cpu=0.6), TTP),  # each has its own
    ],
)
def test_dy15_load_rule(vu: Load, surf: Load, chosen: str) -> None:
    plan = planned(vu=vu, surf=surf)
    assert plan.request.archetypes == {"vu": chosen}
    assert any("the load rule prefers it" in note for note in plan.notes)


def test_who_tells_nothing_decides_nothing() -> None:
    plan = planned()
    assert plan.request.archetypes == {"vu": C2D}
    assert any("its weight" in note for note in plan.notes)
    said: dict[str, Any] = {"load": "vu", "cpu": 0.5, "memory": 0.25, "from": 0.8}
    good = loads_of([("vu", said)])
    assert good == {"vu": Load(cpu=0.5, memory=0.25, threshold=0.8)}
    for wrong in (
        ("surf", said),  # nobody speaks of others
        ("vu", {**said, "cpu": "much"}),
        ("vu", {**said, "memory": float("nan")}),
        ("vu", {"load": "vu"}),
        ("vu", {"operation": "x"}),
    ):
        assert loads_of([wrong]) == {}


class Busy:
    """Workers of which the test says how busy they are."""

    def __init__(self) -> None:
        self.shares = (0.0, 0.0)

    def load(self) -> tuple[float, float]:
        return self.shares


def test_a_short_step_is_no_load_and_little_is_told(tmp_path: Path) -> None:
    with Records(tmp_path / "catalog.db", "vu") as records:
        workers = Busy()
        loading = Loading("vu", workers, records, 0.8)  # type: ignore[arg-type]

        def look(times: int) -> tuple[Load, int]:
            for _ in range(times):
                loading.look()
            return loads_of(records.written("measurement"))["vu"], records.latest("vu")

        assert look(1)[0] == Load(threshold=0.8)
        workers.shares = (1.0, 0.0)
        assert not look(2)[0].loaded
        assert look(10)[0].loaded
        _, before = look(20)
        workers.shares = (0.95, 0.02)
        assert look(50)[1] == before, "nothing worth telling"
        workers.shares = (0.0, 0.0)
        assert not look(10)[0].loaded


def test_workers_say_what_they_use(tmp_path: Path) -> None:
    """How much of a CPU they get is the machine's business; memory they have in any case."""

    async def story() -> None:
        backend = LocalBackend(workers=1, threads=1, memory=10**9, directory=tmp_path / "w")
        try:
            assert backend.load() == (0.0, 0.0)
            await backend.client()
            await until(lambda: 0.0 < backend.load()[1] < 1.0)
            assert backend.load()[0] >= 0.0
        finally:
            await backend.close()

    asyncio.run(story())


async def until(there: Any) -> None:
    limit = time.monotonic() + 120
    while not there():
        assert time.monotonic() < limit, "it does not come about"
        await asyncio.sleep(0.1)


def test_a_site_that_should_not_tell_tells_nothing() -> None:
    from dataflow.config import parse_site_file

    assert parse_site_file("site: {name: vu}").loaded_at is None
    assert parse_site_file("site: {name: vu, loaded_at: 0.7}").loaded_at == 0.7
    assert replace(Load(), cpu=0.8).loaded

"""A site of stores: a place with bytes and nothing else, which some open and others do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import dataflow as flow
from dataflow.errors import ConfigError, PlacementError
from dataflow.placement.explain import text
from dataflow.testing.federation import Federation, SiteSettings


@flow.operation(kind="opaque", lazy=False, output="same")
def difference(x: Any, y: Any) -> Any:
    return x - y


@flow.operation(kind="opaque", lazy=False, output="same")
def doubled(x: Any) -> Any:
    return 2 * x


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for what several sites can open, and only some do."""
    return tmp_path_factory.mktemp("cloud")


def store(cloud: Path) -> dict[str, str]:
    return {"name": "bucket", "site": "cloud", "url": cloud.as_uri()}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, cloud: Path) -> Any:
    folder = tmp_path_factory.mktemp("sites")
    mounted = {
        "name": "data",
        "site": "one",
        "url": (folder / "one" / "data").as_uri(),
        "purpose": "data",
    }
    sites = {
        "one": SiteSettings(stores=[store(cloud)]),
        "two": SiteSettings(stores=[mounted]),
    }
    with Federation(folder, sites, wires=False, ready_within=60) as federation:
        yield federation


def file_that_opens(federation: Federation, cloud: Path) -> Path:
    """The site file of somebody who has the store in it himself."""
    document = yaml.safe_load(federation.sites_file.read_text())
    document["sites"].append({"name": "cloud", "workers": 0})
    document["stores"] = [store(cloud)]
    path = federation.sites_file.with_name("opens.yaml")
    path.write_text(yaml.safe_dump(document))
    return path


def test_somebody_who_does_not_open_it(federation: Any, cloud: Path, tmp_path: Path) -> None:
    there, mine = np.random.default_rng(1).random((300, 100)), np.ones((300, 100))
    np.save(cloud / "far.npy", there)
    np.save(federation.data("one") / "mine.npy", mine)
    with flow.connect(federation.sites_file, state=tmp_path / "state", user="anna") as session:
        far = session.register(cloud / "far.npy", name="far", site="cloud")
        session.register(federation.data("one") / "mine.npy", name="mine", site="one")
        assert session.topology().site_by_name["cloud"].stores_only
        assert "cloud" not in session.topology().away
        assert [d.name for d in session.datasets(site="cloud")] == ["far"]
        assert session["cloud/far"].outputs == (far.key,)
        np.testing.assert_array_equal(session.open("far"), there)

        graph = difference(session["far"], session["mine"])
        plan = session.plan(graph, result_at="cloud")
        ways = {(t.source, t.target): t for t in plan.transfers}
        assert set(ways) == {("cloud", "one"), ("one", "cloud")}, plan.transfers
        assert ways["cloud", "one"].direct
        assert not any(t.via for t in plan.transfers)
        assert ways["one", "cloud"].at == "one"
        assert "one writes to the store" in text(plan)
        job = session.submit(plan)
        np.testing.assert_array_equal(job.result(60), there - mine)
        crossed = {(entry.source, entry.target): entry.nbytes for entry in job.ledger()}
        assert crossed["cloud", "one"] == (cloud / "far.npy").stat().st_size
        assert set(crossed) == set(ways)
        key = graph.outputs[0]
        assert "cloud" in {r.site for r in session._snapshot().replicas_of(key)}
        assert list((cloud / "copies").rglob("COMMIT.json"))

        # Of "far" there is a copy at "one" by now, and "two" may have that.
        np.save(cloud / "lone.npy", there + 1)
        session.register(cloud / "lone.npy", name="lone", site="cloud")
        with pytest.raises(PlacementError, match=r"(?s)stores only.*What you can do"):
            session.plan(doubled(session["lone"]), scope={"doubled": "two"})
        with pytest.raises(ConfigError, match="does not lie in a store"):
            session.register("/elsewhere/x.npy", name="x", site="cloud")


def test_somebody_who_opens_it_carries_it_over(
    federation: Any, cloud: Path, tmp_path: Path
) -> None:
    there = np.random.default_rng(2).random((300, 100))
    np.save(cloud / "other.npy", there)
    path = file_that_opens(federation, cloud)
    with flow.connect(path, state=tmp_path / "state", user="anna") as session:
        session.register(cloud / "other.npy", name="other", site="cloud")
        graph = doubled(session["other"])
        direct = session.plan(graph, result_at="cloud")
        assert {a.site for a in direct.assignments} == {"one"}, "it opens the store itself"
        plan = session.plan(graph, scope={"doubled": "two"}, result_at="cloud")
        assert [(t.source, t.target, t.via, t.at) for t in plan.transfers] == [
            ("cloud", "two", "visitor", ""),
            ("two", "cloud", "visitor", "visitor"),
        ]
        job = session.submit(plan)
        np.testing.assert_array_equal(job.result(60), 2 * there)
        ways = {(entry.source, entry.target) for entry in job.ledger()}
        assert ways == {
            ("cloud", "visitor"),
            ("visitor", "two"),
            ("two", "visitor"),
            ("visitor", "cloud"),
        }


def test_a_store_of_a_site_with_an_agent_is_read_directly(federation: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(3).random((300, 100))
    np.save(federation.data("one") / "shared.npy", values)
    with flow.connect(federation.sites_file, state=tmp_path / "state", user="anna") as session:
        session.register(federation.data("one") / "shared.npy", name="shared", site="one")
        plan = session.plan(doubled(session["shared"]), scope={"doubled": "two"})
        (transfer,) = plan.transfers
        assert (transfer.source, transfer.target, transfer.direct) == ("one", "two", True)
        assert "two reads the store" in text(plan)
        job = session.submit(plan)
        np.testing.assert_array_equal(job.result(60), 2 * values)
        (entry,) = job.ledger()
        assert entry.nbytes == (federation.data("one") / "shared.npy").stat().st_size
        served = session._run(session._participant.ways.to("one").ledger_documents())
        assert job.id not in {line["job"] for line in served}, "the agent was not asked for it"


def test_the_roads_to_and_from_it_are_measured(
    federation: Any, cloud: Path, tmp_path: Path
) -> None:
    with flow.connect(federation.sites_file, state=tmp_path / "state", user="anna") as session:
        for _ in range(100):
            topology = session.topology()
            roads = [topology.link("cloud", "one"), topology.link("one", "cloud")]
            if all(road.origin == "measured" for road in roads):
                break
            session._loop.run(_pause())
        assert [road.origin for road in roads] == ["measured", "measured"]
    assert not list(cloud.rglob("probe-*")), "what was put there to measure is gone"


async def _pause() -> None:
    import asyncio

    await asyncio.sleep(0.2)

"""Names, copies, tags, hearsay."""

from __future__ import annotations

import time

import pytest

from dataflow.catalog.entries import Peer, TagSet
from dataflow.catalog.snapshot import Snapshot, assemble
from dataflow.datasets import Dataset
from dataflow.errors import AmbiguousDataset, UnknownDataset
from dataflow.sites import Link, Site, Topology
from dataflow.stores import Store
from examples import dataset, replica


def snapshot(*datasets: Dataset, away: tuple[str, ...] = ()) -> Snapshot:
    return assemble({"dataset": [(one.site, one) for one in datasets]}, away=away)


RUN1 = dataset("run1", id="3f2a99")
RUN2 = dataset("run2", id="3f2b00", site="amc")


@pytest.mark.parametrize("name", ["3f2a99", "key-run1", "run1", "uva/run1", "3f2a"])
def test_ways_to_name_a_dataset(name: str) -> None:
    found = snapshot(RUN1, RUN2)
    assert found.resolve(name) == found[name] == RUN1
    assert name in found


def test_unknown_tells_what_is_close() -> None:
    with pytest.raises(UnknownDataset) as raised:
        snapshot(RUN1, RUN2).resolve("Run3")
    assert set(raised.value.similar) == {"run1", "run2"}
    with pytest.raises(UnknownDataset) as raised:
        snapshot(RUN1, RUN2).resolve("uva/run2")
    assert raised.value.similar[0] in ("uva/run1", "amc/run2")
    for name in ("", "3f2", "nothing like it"):
        with pytest.raises(UnknownDataset):
            snapshot(RUN1, RUN2).resolve(name)
        assert name not in snapshot(RUN1, RUN2)
    assert 7 not in snapshot(RUN1)


def test_same_name_for_different_data_is_ambiguous() -> None:
    found = snapshot(RUN1, dataset("run1", site="amc", key="other"))
    with pytest.raises(AmbiguousDataset) as raised:
        found.resolve("run1")
    assert raised.value.choices == ["amc/run1", "uva/run1"]
    assert "run1" in found
    assert [found[choice].site for choice in raised.value.choices] == ["amc", "uva"]


def test_same_name_for_different_data_at_one_site() -> None:
    found = snapshot(RUN1, dataset("run1", key="other", id="77aa00"))
    with pytest.raises(AmbiguousDataset) as raised:
        found.resolve("uva/run1")
    assert raised.value.choices == ["3f2a99", "77aa00"]
    assert {found[choice].key for choice in raised.value.choices} == {"key-run1", "other"}


def test_prefix_of_several_ids_is_ambiguous() -> None:
    with pytest.raises(AmbiguousDataset):
        snapshot(dataset("a", id="abcd11"), dataset("b", id="abcd22")).resolve("abcd")


def test_same_data_at_two_sites_is_not_ambiguous() -> None:
    here = dataset("run1", created=5.0)
    there = dataset("run1", site="amc", created=3.0)
    assert snapshot(here, there).resolve("run1") == there
    assert snapshot(here, there, away=("amc",)).resolve("run1") == here
    assert snapshot(here, there).names() == ["run1"]
    assert snapshot(here, there).search() == [there]
    assert snapshot(here, there, away=("amc",)).search() == [here]


def test_names_that_are_unclear_are_completed_with_their_site() -> None:
    other = dataset("run1", site="amc", key="other")
    assert snapshot(RUN1, RUN2, other).names() == ["amc/run1", "run2", "uva/run1"]


def test_every_completion_resolves() -> None:
    datasets = [
        dataset(name, site=site, key=key, id=f"{name}{site}{key}00")
        for name in ("a", "b/c")
        for site, key in (("x", "1"), ("y", "1"), ("y", "2"), ("z", "3"))
    ]
    found = snapshot(*datasets)
    assert found.names()
    assert all(isinstance(found.resolve(name), Dataset) for name in found.names())


def test_copies() -> None:
    copies = [replica(RUN1), replica(RUN1, site="amc"), replica(RUN2)]
    found = assemble({"replica": [(copy.site, copy) for copy in copies]})
    assert found.sites_of(RUN1) == ("amc", "uva")
    assert found.replicas_of("key-run2") == (copies[2],)
    assert found.replicas_of("nothing") == ()


def test_own_word_wins_over_hearsay() -> None:
    true, said = Site(name="uva", workers=8), Site(name="uva", workers=1)
    for order in ([("uva", true), ("amc", said)], [("amc", said), ("uva", true)]):
        assert assemble({"site": order}).topology.sites == (true,)
    assert assemble({"site": [("amc", said)]}).topology.sites == (said,)
    copy = replica(RUN1)
    stale = replica(RUN1, nbytes=1)
    assert assemble({"replica": [("amc", stale), ("uva", copy)]}).replicas_of(RUN1) == (copy,)


def test_addresses_come_from_peer_records_and_mine_is_none() -> None:
    written = {
        "site": [("uva", Site(name="uva")), ("amc", Site(name="amc", address="old"))],
        "peer": [
            ("uva", Peer(site="uva", address="https://uva")),
            ("amc", Peer(site="amc", address="https://amc", credentials="amc")),
            ("amc", Peer(site="uva", address="https://evil")),
        ],
    }
    sites = assemble(written, me="uva").topology.site_by_name
    assert sites["uva"].address is None
    assert (sites["amc"].address, sites["amc"].credentials) == ("https://amc", "amc")


def test_best_reading_of_a_link() -> None:
    def link(bandwidth: float, origin: str = "measured", at: float | None = None) -> Link:
        return Link(
            source="a",
            target="b",
            bandwidth=bandwidth,
            latency=0.1,
            origin=origin,  # type: ignore[arg-type]
            measured_at=at,
        )

    declared, old, new = link(1, "declared"), link(2, at=5.0), link(3, at=9.0)
    words = [("a", declared), ("b", new), ("c", old)]
    for order in (words, words[::-1]):
        assert assemble({"link": order}).topology.links == (new,)
    timed = link(6, "timed")
    assert assemble({"link": [("a", timed), ("z", declared)]}).topology.links == (declared,)
    assert assemble({"link": [("a", timed)]}).topology.links == (timed,)
    third_party, end = link(4, "declared"), link(5, "declared")
    assert assemble({"link": [("z", third_party), ("a", end)]}).topology.links == (end,)


def test_stores_keep_their_order() -> None:
    stores = [Store(name=name, site="uva", url=f"file:///{name}") for name in "zyx"]
    written = {"store": [("uva", store) for store in stores]}
    assert assemble(written).topology.stores_at("uva") == tuple(stores)


def test_tags_of_two_users_do_not_overwrite_one_another() -> None:
    run = dataset("run1", owner="anna", tags={"run": "7"})
    sets = [
        TagSet(key=run.key, user="bob", tags={"run": "8", "good": "yes"}, updated=1),
        TagSet(key=run.key, user="bob", tags={"run": "9"}, updated=2),
        TagSet(key=run.key, user="anna", tags={"fig": "3"}),
    ]
    found = assemble({"dataset": [("uva", run)], "tags": [("uva", one) for one in sets[::-1]]})
    assert found.tags_of(run) == {
        "anna": {"run": "7", "fig": "3"},
        "bob": {"run": "9", "good": "yes"},
    }
    for tags in ({"run": "7"}, {"run": "9"}, {"run": "7", "good": "yes"}, {"fig": None}):
        assert found.search(tags=tags) == [run]
    assert found.search(tags={"run": "8"}) == []


def test_me_is_never_away() -> None:
    assert assemble({}, me="uva", away=["uva", "amc"]).topology.away == {"amc"}


def test_empty() -> None:
    assert repr(Snapshot()) == "<Snapshot 0 datasets, 0 sites>"
    assert Snapshot(topology=Topology(sites=())).names() == []


def test_unknown_among_very_many_is_quick() -> None:
    found = snapshot(*(dataset(f"measurement-{i}", id=f"{i:08x}") for i in range(20_000)))
    start = time.process_time()
    with pytest.raises(UnknownDataset) as raised:
        found.resolve("measurment-77")
    assert time.process_time() - start < 3, "of this process, however busy the machine is"
    assert raised.value.similar


def test_a_site_of_stores_is_what_those_say_who_open_them() -> None:
    cloud = Site(name="cloud", workers=0, stores_only=True)
    bucket = Store(name="bucket", site="cloud", url="s3://b")
    mine = Store(name="results", site="uva", url="file:///r")
    called = Store(name="other", site="uva", url="s3://r")
    far = replica(RUN1, "cloud", "bucket", url="s3://b/run1")
    found = assemble(
        {
            "site": [("uva", cloud), ("amc", cloud), ("uva", Site(name="uva"))],
            "store": [("uva", bucket), ("amc", bucket), ("uva", mine), ("amc", called)],
            "dataset": [("uva", RUN1)],
            "replica": [("uva", far)],
        }
    )
    topology = found.topology
    assert topology.stores_only == {"cloud"}
    assert set(topology.stores) == {bucket, mine}, "uva's own word about its stores counts"
    assert topology.sees("uva", "s3://b/run1", at="cloud", store="bucket")
    assert not topology.sees("wur", "s3://b/run1", at="cloud", store="bucket")
    assert found["cloud/run1"] == found["uva/run1"] == RUN1
    assert found.sites_of(RUN1) == ("cloud",)

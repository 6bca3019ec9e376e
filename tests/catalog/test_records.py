"""Typed reading: what comes back, what is left out, how fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.catalog.entries import JobSummary, Peer, TagSet, entry, link_id, replica_id
from dataflow.catalog.records import Records
from dataflow.errors import CatalogError
from dataflow.sites import Link, Site
from dataflow.stores import Store
from examples import dataset, replica

SITE = Site(name="uva", workers=3)
STORE = Store(name="data", site="uva", url="file:///data", options=(("a", "b"),))
RUN = dataset("run1", tags={"a": "b"})
COPY = replica(RUN)
LINK = Link(source="uva", target="amc", bandwidth=1e6, latency=0.1)
JOB = JobSummary(id="j1", status="failed", error={"kind": "job", "args": ["x"]}, results=("k",))
TAGS = TagSet(key=RUN.key, user="bob", tags={"run": "7"})


@pytest.fixture
def records(tmp_path: Path):
    with Records(tmp_path / "uva.db", "uva") as records:
        yield records


def test_everything_comes_back_as_it_was(records: Records) -> None:
    records.add(SITE, STORE, RUN, COPY, LINK, JOB, TAGS, Peer(site="uva", address="https://u"))
    records.put("measurement", "rmsd", {"seconds": [1, 2]})
    assert records.sites() == [SITE]
    assert records.stores() == [STORE]
    assert records.datasets() == [RUN]
    assert records.replicas() == records.replicas(RUN.key) == [COPY]
    assert records.replicas("other") == []
    assert records.links() == [LINK]
    assert records.jobs() == [JOB]
    assert records.tag_sets() == records.tag_sets(RUN.key) == [TAGS]
    assert records.tag_sets("other") == []
    assert records.get("measurement", "rmsd") == {"seconds": [1, 2]}
    assert records.get("replica", replica_id(COPY)) == COPY
    assert records.get("link", link_id(LINK)) == LINK
    assert records.get("dataset", "none") is None
    assert records.snapshot().resolve("run1") == RUN


def test_ids_of_records_that_know_their_own() -> None:
    assert entry(TAGS)[:2] == ("tags", "key-run1/bob")
    assert replica_id(COPY) == replica_id(replica(RUN, nbytes=1, created=5.0))
    assert replica_id(COPY) != replica_id(replica(RUN, variable="x"))
    with pytest.raises(TypeError, match="no id of its own"):
        entry(object())


def test_deleted_records_are_gone(records: Records) -> None:
    records.add(RUN, COPY)
    assert len(records.datasets()) == 1
    records.delete("dataset", RUN.id)
    records.delete("replica", replica_id(COPY))
    assert records.datasets() == records.replicas() == records.replicas(RUN.key) == []
    assert records.get("dataset", RUN.id) is None
    assert records.find() == []


def test_other_sites_records_are_read_and_follow_their_lives(
    records: Records, tmp_path: Path
) -> None:
    with Records(tmp_path / "amc.db", "amc") as other:
        far = dataset("far", site="amc")
        other.add(far, JobSummary(id="j2", status="done", created=2.0))
        epoch, rows = other.page("amc", 0)
        records.apply("amc", rows, epoch)
        records.add(RUN, JobSummary(id="j1", status="done", created=1.0))
        assert records.datasets() == [far, RUN]
        assert [job.id for job in records.jobs()] == ["j2", "j1"]
        assert records.get("dataset", far.id) == far
        assert records.get("dataset", far.id, site="uva") is None
        later = other.renew_epoch()
        records.apply("amc", [], later)
        assert records.datasets() == [RUN]
        records.apply("amc", rows, later)
        assert records.datasets() == [far, RUN]


def test_own_record_comes_first(records: Records, tmp_path: Path) -> None:
    with Records(tmp_path / "amc.db", "amc") as other:
        other.put("measurement", "m", {"by": "amc"})
        records.apply("amc", other.changes("amc", 0), other.epoch)
    assert records.get("measurement", "m") == {"by": "amc"}
    records.put("measurement", "m", {"by": "uva"})
    assert records.get("measurement", "m") == {"by": "uva"}
    assert records.get("measurement", "m", site="amc") == {"by": "amc"}


def test_datasets_of_others_cannot_be_written(records: Records) -> None:
    with pytest.raises(CatalogError, match="record of site 'amc'"):
        records.add(dataset("far", site="amc"))


def test_unreadable_and_pretended_records_are_left_out(records: Records, tmp_path: Path) -> None:
    with Records(tmp_path / "amc.db", "amc") as other:
        other.put("dataset", "broken", {"id": "broken", "name": "from a newer version"})
        other.put("dataset", "stolen", {**other_document(RUN), "id": "stolen"})
        other.put("dataset", "fine", {**other_document(dataset("fine", site="amc")), "new": 1})
        other.put("peer", "uva", Peer(site="uva", address="https://evil"))
        records.apply("amc", other.changes("amc", 0), other.epoch)
    assert [one.name for one in records.datasets()] == ["fine"]
    assert [one.name for one in records.find()] == ["fine"]
    assert records.written("peer") == []
    assert records.get("dataset", "broken") is None


def other_document(record: object) -> dict[str, object]:
    from dataflow.documents import to_document

    document: dict[str, object] = to_document(record)
    return document


def test_snapshot_is_the_same_while_nothing_in_it_changes(records: Records) -> None:
    records.add(RUN)
    first = records.snapshot()
    records.add(JOB)
    assert records.snapshot() is first
    assert records.snapshot(away=["amc"]) is not first
    records.add(COPY)
    assert records.snapshot().replicas_of(RUN) == (COPY,)
    assert records.snapshot(taken_at=7.0).topology.taken_at == 7.0


def test_readers_in_one_process_see_another_process_write(records: Records) -> None:
    assert records.datasets() == []
    with Records(records.path, "uva") as beside:
        beside.add(RUN)
    assert records.datasets() == [RUN]


def test_listing_very_many(records: Records) -> None:
    count = 20_000
    records.put_many(entry(dataset(f"run{i}", id=f"{i:08x}")) for i in range(count))
    assert len(records.datasets()) == count
    assert records.find(name="run777")[0].name == "run777"
    assert len(records.find(limit=50)) == 50

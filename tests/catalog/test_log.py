"""The log: one writer, no holes, lives, crashes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

import dataflow.catalog.log as log_module
from dataflow.catalog.log import Log, is_epoch
from dataflow.errors import CatalogError

ROOT = Path(__file__).parents[2]
EPOCH, LATER = "1000000000000000-00000000", "1000000000000001-00000000"


@pytest.fixture
def log(tmp_path: Path):
    with Log(tmp_path / "uva.db", "uva") as log:
        yield log


def put(log: Log, id: str, value: object = 1) -> int:
    return log.put("measurement", id, {"value": value})


def copied(source: Log, target: Log) -> int:
    epoch, rows = source.page(source.site, target.latest(source.site))
    return target.apply(source.site, rows, epoch)


def state(log: Log, site: str) -> list[tuple[str, str, bool]]:
    return [(row.id, row.body, row.deleted) for row in log.changes(site, 0)]


# --- our own log -------------------------------------------------------------------------------


def test_every_change_has_a_higher_seq_and_no_change_has_none(log: Log) -> None:
    assert [put(log, "a"), put(log, "b"), put(log, "a"), put(log, "a", 2)] == [1, 2, 1, 3]
    assert [row.id for row in log.changes("uva", 0)] == ["b", "a"]
    assert log.latest("uva") == 3


def test_order_of_keys_is_no_change(log: Log) -> None:
    first = log.put("measurement", "m", {"a": 1, "b": 2})
    assert log.put("measurement", "m", {"b": 2, "a": 1}) == first


def test_delete_is_a_version_and_may_be_undone(log: Log) -> None:
    put(log, "a")
    assert log.delete("measurement", "a") == 2
    assert log.delete("measurement", "a") == 2
    assert log.delete("measurement", "never") == 2
    assert state(log, "uva") == [("a", "", True)]
    assert put(log, "a") == 3


def test_put_many_is_all_or_nothing(log: Log) -> None:
    entries = [("measurement", "a", {"v": 1}), ("measurement", "b", {"v": object()})]
    with pytest.raises(ValueError):
        log.put_many(entries)
    assert log.changes("uva", 0) == []
    assert log.put_many(entries[:1]) == [1]


def test_unknown_kind(log: Log) -> None:
    with pytest.raises(ValueError, match="no kind of record is called 'nonsense'"):
        log.put("nonsense", "a", {})


def test_watchers_are_told_and_can_leave(log: Log) -> None:
    told: list[tuple[str, int]] = []
    leave = log.watch(lambda site, seq: told.append((site, seq)))
    put(log, "a")
    put(log, "a")
    log.apply("amc", [], EPOCH)
    leave()
    leave()
    put(log, "b")
    assert told == [("uva", 1), ("amc", 0)]


# --- copies --------------------------------------------------------------------------------------


def test_copy_is_equal_after_any_writes(log: Log, tmp_path: Path) -> None:
    with Log(tmp_path / "amc.db", "amc") as other:
        for i in range(20):
            put(log, str(i % 7), i)
        log.delete("measurement", "3")
        assert copied(log, other) == log.latest("uva")
        assert state(other, "uva") == state(log, "uva")
        assert other.origins()["uva"] == log.origins()["uva"]


def test_rows_of_ourselves_and_of_strangers_are_refused(log: Log) -> None:
    put(log, "a")
    rows = log.changes("uva", 0)
    with pytest.raises(CatalogError, match="only a site itself writes its log"):
        log.apply("uva", rows, LATER)
    with pytest.raises(CatalogError, match="only a site itself writes its log"):
        log.apply("amc", rows, LATER)


@pytest.mark.parametrize("epoch", ["", "x", "9" * 16 + "-00000000", EPOCH + "\n", "' OR 1=1"])
def test_what_is_no_epoch_is_refused(log: Log, epoch: str) -> None:
    assert not is_epoch(epoch)
    with pytest.raises(CatalogError, match="no epoch"):
        log.apply("amc", [], epoch)
    if epoch:
        with pytest.raises(ValueError, match="no epoch"):
            log.renew_epoch(above=epoch)


@pytest.mark.parametrize("body", ["", "{", "[]", "7", '{"a": NaN}', "[" * 100_000])
def test_bodies_that_are_no_records_are_refused_whole(log: Log, tmp_path: Path, body: str) -> None:
    with Log(tmp_path / "amc.db", "amc") as other:
        put(other, "a")
        put(other, "b")
        first, second = other.changes("amc", 0)
        with pytest.raises(CatalogError, match="not a JSON object"):
            log.apply("amc", [first, replace(second, body=body)], other.epoch)
    assert log.latest("amc") == 0
    assert log.changes("amc", 0) == []


def test_a_hole_stops_the_copy_before_it(log: Log, tmp_path: Path) -> None:
    with Log(tmp_path / "amc.db", "amc") as other:
        for i in range(4):
            put(other, str(i))
        rows = other.changes("amc", 0)
        assert log.apply("amc", [rows[0], rows[2], rows[3]], other.epoch) == 1
        assert log.apply("amc", rows[1:], other.epoch) == 4


def test_places_left_by_rewritten_records_are_no_holes(log: Log, tmp_path: Path) -> None:
    with Log(tmp_path / "amc.db", "amc") as other:
        for i in range(10):
            put(other, "same", i)
        put(other, "last")
        assert copied(other, log) == 11
        assert len(log.changes("amc", 0)) == 2


def test_later_life_replaces_earlier_is_ignored(log: Log) -> None:
    row = log_module.RecordRow(site="amc", seq=1, kind="measurement", id="a", body="{}")
    assert log.apply("amc", [row], LATER) == 1
    assert log.apply("amc", [replace(row, seq=2, after=1, id="b")], EPOCH) == 1
    assert log.origins()["amc"] == (LATER, 1)
    assert log.apply("amc", [], "2000000000000000-00000000") == 0
    assert log.changes("amc", 0) == []


def test_renewed_epoch_is_above_any_other(log: Log) -> None:
    first = log.epoch
    far = "7000000000000000-ffffffff"
    assert is_epoch(log.renew_epoch())
    assert log.epoch > first
    assert log.renew_epoch(above=far) > far
    assert log.renew_epoch() > far


@given(data=st.data())
def test_any_pieces_in_any_order_never_go_wrong(data: st.DataObject, tmp_path_factory) -> None:
    """Pages read at different times, shuffled, doubled and with rows missing."""
    directory = tmp_path_factory.mktemp("pieces")
    chance = random.Random(data.draw(st.integers(0, 10_000)))
    with Log(directory / "a.db", "a") as source, Log(directory / "b.db", "b") as target:
        pieces, at_time = [], {0: []}
        for number in range(data.draw(st.integers(1, 25))):
            id = str(chance.randrange(4))
            if chance.random() < 0.2:
                source.delete("measurement", id)
            else:
                put(source, id, number)
            at_time[source.latest("a")] = state(source, "a")
            since = chance.randrange(source.latest("a") + 1)
            pieces.append(source.page("a", since, limit=chance.randrange(1, 6)))
        chance.shuffle(pieces)
        reached = 0
        for epoch, rows in [*pieces, *pieces]:
            some = [row for row in rows if chance.random() > 0.2] * 2
            chance.shuffle(some)
            version = target.apply("a", some, epoch)
            assert version >= reached
            reached = version
            # Everything that the source wrote up to here, and never changed since, is here.
            lasting = {row.seq: row for row in source.changes("a", 0) if row.seq <= version}
            held = {row.seq: row for row in target.changes("a", 0)}
            assert {seq: row.body for seq, row in lasting.items()} == {
                seq: held[seq].body for seq in lasting
            }
        while copied(source, target) < source.latest("a"):
            pass
        assert state(target, "a") == state(source, "a")


# --- files ---------------------------------------------------------------------------------------


def test_reopened_file_goes_on(tmp_path: Path) -> None:
    with Log(tmp_path / "deep" / "er" / "uva.db", "uva") as log:
        put(log, "a")
        epoch = log.epoch
    with Log(tmp_path / "deep" / "er" / "uva.db", "uva") as log:
        assert put(log, "b") == 2
        assert log.epoch == epoch


def test_closed_says_so(tmp_path: Path) -> None:
    log = Log(tmp_path / "uva.db", "uva")
    log.close()
    log.close()
    with pytest.raises(CatalogError, match="is closed"):
        put(log, "a")
    with pytest.raises(CatalogError, match="is closed"):
        log.versions()


def test_other_sites_file(tmp_path: Path) -> None:
    Log(tmp_path / "uva.db", "uva").close()
    with pytest.raises(CatalogError, match="records of site 'uva', not of 'amc'"):
        Log(tmp_path / "uva.db", "amc")


def test_foreign_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(CatalogError, match="not a catalog of dataflow"):
        Log(path, "uva")
    assert path.read_bytes() == before


def test_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "uva.db"
    Log(path, "uva").close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CatalogError, match="newer dataflow"):
        Log(path, "uva")


@pytest.mark.parametrize("damage", ["garbage", "middle", "truncated"])
def test_damaged_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "uva.db"
    with Log(path, "uva") as log:
        log.put_many(("measurement", str(i), {"v": "x" * 500}) for i in range(500))
    body = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    elif damage == "middle":
        path.write_bytes(body[:4096] + os.urandom(len(body) - 4096))
    else:
        path.write_bytes(body[: len(body) // 3])
    with pytest.raises(CatalogError, match=r"damaged.*\nWhat you can do"), Log(path, "uva") as log:
        log.changes("uva", 0, 1000)


def test_unusable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="cannot be used"):
        Log(tmp_path / "file" / "uva.db", "uva")
    (tmp_path / "dir.db").mkdir()
    with pytest.raises(CatalogError, match="cannot be used"):
        Log(tmp_path / "dir.db", "uva")


def test_machine_that_went_down_begins_a_new_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "uva.db"
    monkeypatch.setattr(log_module, "boot_id", lambda: "first")
    log = Log(path, "uva")
    epoch = log.epoch
    log._disconnect()  # as a killed process leaves it
    with Log(path, "uva") as log:
        assert log.epoch == epoch
        log._disconnect()
        log._closed = True
    monkeypatch.setattr(log_module, "boot_id", lambda: "second")
    with Log(path, "uva") as log:
        assert log.epoch > epoch
        epoch = log.epoch
    monkeypatch.setattr(log_module, "boot_id", lambda: "third")
    with Log(path, "uva") as log:
        assert log.epoch == epoch


WRITER = """
import sys
from dataflow.catalog.log import Log
log = Log(sys.argv[1], "uva")
batch = 0
while True:
    log.put_many(("measurement", f"{i}", {"batch": batch}) for i in range(200))
    print(batch, flush=True)
    batch += 1
"""


def test_killed_in_the_middle_of_writing(tmp_path: Path) -> None:
    path, chance = tmp_path / "uva.db", random.Random(5)
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(chance.random() * 0.15)
        os.kill(writer.pid, signal.SIGKILL)
        said = [line for line in writer.stdout.read().split("\n") if line]
        writer.wait()
        writer.stdout.close()
        with Log(path, "uva") as log:
            rows = log.changes("uva", 0, 1000)
            assert len(rows) == 200
            batches = {row.body for row in rows}
            assert len(batches) == 1, "half of a write is visible"
            batch = int(batches.pop().removeprefix('{"batch":').removesuffix("}"))
            assert batch >= max(map(int, said), default=0), "a finished write is gone"
            assert rows[-1].seq == log.latest("uva")


READER = """
import sys
from dataflow.catalog.log import Log
with Log(sys.argv[1], "uva") as log:
    seen = 0
    while seen < 300:
        epoch, rows = log.page("uva", 0)
        values = {row.body for row in rows}
        assert len(values) <= 1, values
        assert log.latest("uva") >= seen
        seen = log.latest("uva")
print("fine")
"""


def test_two_processes_read_while_one_writes(tmp_path: Path) -> None:
    with Log(tmp_path / "uva.db", "uva") as log:
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER, str(log.path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=ROOT,
                text=True,
            )
            for _ in range(2)
        ]
        number = 0
        while any(reader.poll() is None for reader in readers):
            log.put_many([("measurement", id, {"v": number}) for id in "abc"])
            number += 1
            time.sleep(0.001)
        for reader in readers:
            out, err = reader.communicate()
            assert (out, reader.returncode) == ("fine\n", 0), err


def test_two_processes_write_one_log(tmp_path: Path) -> None:
    """A command beside a running agent: the numbering stays one."""
    with Log(tmp_path / "uva.db", "uva") as one, Log(tmp_path / "uva.db", "uva") as two:
        seqs = [put(log, f"{i}", i) for i in range(20) for log in (one, two)]
        assert seqs == [seq for i in range(20) for seq in (i + 1, i + 1)]
        both = [put(one, "x", 1), put(two, "x", 2), put(one, "y", 1), put(two, "y", 2)]
        assert both == [21, 22, 23, 24]


def test_many_threads(log: Log) -> None:
    def work(name: str) -> None:
        for i in range(50):
            put(log, f"{name}{i}", i)
            log.page("uva", 0, 10)
            log.versions()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = log.changes("uva", 0, 1000)
    assert [row.seq for row in rows] == list(range(1, 201))


def test_full_disk_writes_nothing(log: Log) -> None:
    put(log, "a")
    (pages,) = log._writer.execute("PRAGMA page_count").fetchone()
    log._writer.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(CatalogError, match="make room on the disk"):
        log.put_many(("measurement", str(i), {"v": "x" * 5000}) for i in range(20))
    assert len(log.changes("uva", 0)) == 1
    log._writer.execute("PRAGMA max_page_count = 100000")
    assert put(log, "b") == 2

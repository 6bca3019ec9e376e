"""Bytes that were handed out: sums that several threads and a restart leave right."""

from __future__ import annotations

import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dataflow.execution.meter import Meter
from dataflow.execution.view import LedgerEntry


def entry(job: str, key: str, target: str, nbytes: int) -> LedgerEntry:
    return LedgerEntry(job=job, key=key, source="uva", target=target, nbytes=nbytes)


def test_sums_newest_last(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "meter.db")
    meter.add("j1", "k", 10, "ams", 1.0)
    meter.add("j2", "k", 5, "ams", 2.0)
    meter.add("j1", "k", 7, "delft", 3.0)
    meter.add("j1", "k", 1, "ams", 4.0)
    expected = [
        entry("j2", "k", "ams", 5),
        entry("j1", "k", "delft", 7),
        entry("j1", "k", "ams", 11),
    ]
    assert meter.entries("uva") == expected
    meter.close()
    meter.close()
    again = Meter(tmp_path / "meter.db")
    assert again.entries("uva") == expected
    again.close()


def test_threads(tmp_path: Path) -> None:
    one, other = Meter(tmp_path / "meter.db"), Meter(tmp_path / "meter.db")

    def count(meter: Meter) -> None:
        for _ in range(100):
            meter.add("j", "k", 3, "ams", 1.0)

    threads = [threading.Thread(target=count, args=[meter]) for meter in (one, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.entries("uva") == other.entries("uva") == [entry("j", "k", "ams", 1200)]
    one.close()
    other.close()


names = st.sampled_from(["a", "b"])


@given(st.lists(st.tuples(names, names, st.integers(0, 2**40), names)))
def test_nothing_is_lost(added: list[tuple[str, str, int, str]]) -> None:
    meter = Meter(Path(":memory:"))
    for now, (job, key, nbytes, target) in enumerate(added):
        meter.add(job, key, nbytes, target, float(now))
    sums: dict[tuple[str, str, str], int] = {}
    for job, key, nbytes, target in added:
        sums[job, key, target] = sums.get((job, key, target), 0) + nbytes
    found = {(e.job, e.key, e.target): e.nbytes for e in meter.entries("uva")}
    assert found == sums
    meter.close()

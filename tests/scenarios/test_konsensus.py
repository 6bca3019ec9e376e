"""KO-01 … KO-15 over real site agents. The ids are those of the specification.

Whatever an operation needs is in this file: it travels to the sites with the operation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dataflow as flow
from dataflow.errors import (
    DataflowError,
    NotLinear,
    ShapeMismatch,
    UnknownDataset,
    UnknownJob,
)
from dataflow.testing.federation import Federation, SiteSettings
from tests.scenarios.conftest import Witness, committed

At = Callable[..., Any]
Put = Callable[..., str]


def trace(folder: str, word: str) -> None:
    """Leave a file that says where this ran; see Witness."""
    site = os.environ.get("DATAFLOW_TESTING_MARK", "/notebook").rpartition("/")[2]
    Path(folder, f"{word}@{site}+{os.getpid()}+{time.time_ns()}").touch()


def numbers(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 101, count)


@flow.operation(kind="elementwise", lazy=False)
def parity(x: xr.DataArray, *, witness: str, seconds: float = 0.0) -> xr.DataArray:
    trace(witness, "parity")
    time.sleep(seconds)
    return x % 2


@flow.operation(kind="linear", lazy=False, output=8_000)
def by_column(x: xr.DataArray, *, witness: str) -> xr.DataArray:
    """Sums over rows; partial sums have the shape of the result."""
    if x.shape[0] >= 100:  # the sample on which linearity is tried is small
        trace(witness, "by_column")
    return x.sum(x.dims[0])


# --- one dataset -------------------------------------------------------------------------------


def test_ko01_one_dataset_elsewhere(
    federation: Federation, at: At, put: Put, witness: Witness
) -> None:
    session = at("p2")
    values = numbers(10**6, 1)
    name = put(session, "p1", values)
    graph = parity(session[name], witness=str(witness), seconds=5.0)

    before = federation.wires["p1"].bytes_out
    job = session.submit(graph)
    assert not committed(federation, graph.key), "the id comes before the work is done"
    assert session.jobs()[0].id == job.id, "also while the news of it is on its way"
    job.wait(60)
    assert job.status == "done"
    left = federation.wires["p1"].bytes_out - before
    assert left < 0.01 * values.nbytes, f"{left} bytes left p1"
    assert [run.site for run in witness.runs("parity")] == ["p1"]
    assert committed(federation, graph.key) == ["p1"]

    np.testing.assert_array_equal(job.result().values, values % 2)
    assert federation.wires["p1"].bytes_out - before >= 10**5, "asked for, it came from p1"


def test_ko02_status_anywhere(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    session = at("p2")
    name = put(session, "p1", numbers(10**5, 2))
    everybody = {site: at(site) for site in federation.sites}
    job = session.submit(parity(session[name], witness=str(witness), seconds=6.0))

    def seen() -> dict[str, str]:
        """All at once: one after the other takes as long as the job on a busy machine."""
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda someone: someone.job(job.id).status, everybody.values())
            return dict(zip(everybody, found, strict=True))

    witness.wait("parity")
    time.sleep(1.0)
    assert seen() == dict.fromkeys(federation.sites, "running")
    job.wait(60)
    time.sleep(1.0)
    assert seen() == dict.fromkeys(federation.sites, "done")
    for someone in everybody.values():
        with pytest.raises(UnknownJob, match="no-such-job"):
            someone.job("no-such-job")


def test_ko07_unknown_dataset(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    session = at("p2")
    begun = time.monotonic()
    with pytest.raises(UnknownDataset, match="nobody-has-this"):
        session["nobody-has-this"]
    assert time.monotonic() - begun < 15


def test_ko07_data_that_is_gone(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    """Registered, then deleted behind the site's back: failed with a reason, never stuck."""
    session = at("p2")
    name = put(session, "p1", numbers(10**4, 7))
    graph = parity(session[name], witness=str(witness))
    (federation.data("p1") / f"{name}.npy").unlink()
    begun = time.monotonic()
    job = session.submit(graph)
    job.wait(30)
    assert job.status == "failed"
    assert time.monotonic() - begun < 30
    with pytest.raises(DataflowError, match="p1"):
        job.result()
    assert witness.runs("parity") == []


# --- several datasets --------------------------------------------------------------------------


def test_ko03_two_datasets(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    session = at("p0")
    large, small = numbers(10**6, 3).reshape(1000, 1000), numbers(10**5, 4).reshape(100, 1000)
    one = put(session, "p2", large, "large")
    two = put(session, "p1", small, "small")
    graph = by_column(session[one], session[two], witness=str(witness))
    plan = session.plan(graph)
    stages = sorted(step.stage for step in plan.steps)
    assert stages == ["combine", "part", "part"], "two sub-operations and one mother"
    assert plan.assignment_by_key[graph.key].site == "p2", "the holder of the larger set collects"

    before = federation.crossed()
    job = session.submit(plan)
    job.wait(60)
    np.testing.assert_array_equal(job.result().values, large.sum(0) + small.sum(0))
    left = {s: c.outward - before[s].outward for s, c in federation.crossed().items()}
    assert left["p1"] < 60_000, "8 kB of partial sums, and what is said about them"
    assert sorted(run.site for run in witness.runs("by_column")) == ["p1", "p2"]
    moved = [(entry.source, entry.target) for entry in job.ledger()]
    assert moved == [("p1", "p2")], "only the smaller intermediate result travelled"


@pytest.mark.parametrize("start", ["p0", "p4"])
def test_ko04_more_than_two(
    federation: Federation, at: At, put: Put, witness: Witness, start: str
) -> None:
    session = at(start)
    arrays = {f"p{n}": numbers(10**5, 40 + n).reshape(100, 1000) for n in range(1, 6)}
    names = [put(session, site, array) for site, array in arrays.items()]
    graph = by_column(*(session[name] for name in names), witness=str(witness))
    job = session.submit(graph)
    job.wait(90)
    np.testing.assert_array_equal(job.result().values, sum(a.sum(0) for a in arrays.values()))
    assert sorted(run.site for run in witness.runs("by_column")) == sorted(arrays)
    assert len(committed(federation, graph.key)) == 1, "combined and stored once"


def test_ko05_nonlinear(federation: Federation, at: At, put: Put) -> None:
    @flow.operation(kind="opaque", lazy=False, output="scalar")
    def median(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        return xr.DataArray(np.median(np.concatenate([a.values, b.values])))

    session = at("p0")
    rng = np.random.default_rng(5)
    small, large = rng.standard_normal(1_250_000), rng.standard_normal(25_000_000) + 0.3
    one, two = put(session, "p1", small, "10MB"), put(session, "p2", large, "200MB")
    # By bytes: on a busy machine a road between sites may be measured as any.
    plan = session.plan(median(session[one], session[two]), objective="bytes")
    before = federation.crossed()
    job = session.submit(plan)
    job.wait(120)
    assert float(job.result()) == np.median(np.concatenate([small, large]))
    left = {s: c.outward - before[s].outward for s, c in federation.crossed().items()}
    assert small.nbytes <= left["p1"] < 1.05 * small.nbytes, "the 10 MB went"
    assert left["p2"] < 1_000_000, "the 200 MB stayed"


def test_ko05_declared_linear_but_is_not(
    federation: Federation, at: At, put: Put, witness: Witness
) -> None:
    @flow.operation(kind="linear", lazy=False, output="scalar")
    def median(x: xr.DataArray) -> xr.DataArray:
        return xr.DataArray(np.median(x.values))

    session = at("p0")
    one, two = (put(session, f"p{n}", numbers(10**5, 50 + n)) for n in (1, 2))
    graph = median(session[one], session[two])
    with pytest.raises(NotLinear, match="median"):
        session.submit(session.plan(graph)).result()
    assert committed(federation, graph.key) == []


def test_ko06_mixed(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    @flow.operation(kind="linear", output="same")
    def tripled(x: xr.DataArray) -> xr.DataArray:
        return 3 * x

    session = at("p0")
    arrays = {f"p{n}": numbers(10**5, 60 + n).reshape(100, 1000) for n in (1, 2, 3)}
    a, b, c = (session[put(session, site, array)] for site, array in arrays.items())
    graph = by_column(a + tripled(b + c), witness=str(witness))
    job = session.submit(session.plan(graph, keep="all"))
    job.wait(90)

    def f(x: np.ndarray) -> np.ndarray:
        return x.sum(0)

    one, two, three = arrays.values()
    expected = f(one) + f(3 * two + 3 * three)
    np.testing.assert_array_equal(job.result().values, expected)
    plan = job.plan
    for step in plan.steps:
        assert committed(federation, step.key), f"{step.label} left no dataset"
    found = {dataset.key: dataset for dataset in session.datasets(job=job.id)}
    assert set(found) == {step.key for step in plan.steps}
    for step in plan.steps:
        lineage = found[step.key].lineage
        assert lineage is not None
        assert lineage.inputs == step.inputs
        assert lineage.operation == step.operation.name


def test_ko12_unequal_lengths(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    @flow.operation(kind="elementwise")
    def added(x: xr.DataArray, y: xr.DataArray, *, witness: str) -> xr.DataArray:
        trace(witness, "added")
        return x + y

    session = at("p0")
    one = put(session, "p1", numbers(1000, 12))
    two = put(session, "p2", numbers(999, 13))
    with pytest.raises(ShapeMismatch, match=r"1000.*999"):
        session.submit(added(session[one], session[two], witness=str(witness)))
    time.sleep(0.5)
    assert witness.runs("added") == []


# --- faults ------------------------------------------------------------------------------------


def test_ko08_two_holders_one_runs(
    federation: Federation, at: At, put: Put, witness: Witness
) -> None:
    session = at("p0")
    values = numbers(10**5, 8)
    one, two = put(session, "p1", values), put(session, "p2", values)
    assert session[one].key == session[two].key, "equal data, equal key"
    job = session.submit(parity(session[one], witness=str(witness)))
    job.wait(60)
    np.testing.assert_array_equal(job.result().values, values % 2)
    assert len(witness.runs("parity")) == 1


def test_ko08_the_other_holder_takes_over(
    federation: Federation, at: At, put: Put, witness: Witness
) -> None:
    session = at("p0")
    values = numbers(10**5, 88)
    one, _ = put(session, "p1", values), put(session, "p2", values)
    job = session.submit(parity(session[one], witness=str(witness), seconds=5.0))
    (first,) = witness.wait("parity")
    federation.kill(first.site)
    runs = witness.wait("parity", count=2, seconds=30)
    assert {run.site for run in runs} == {"p1", "p2"}
    job.wait(60)
    np.testing.assert_array_equal(job.result().values, values % 2)


def test_ko09_collector_dies(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    def combine(left: Any, right: Any) -> Any:
        trace(folder, "combine")
        time.sleep(0.0 if Path(folder, "second").exists() else 30.0)
        return left + right

    folder = str(witness)

    @flow.operation(kind="reduction", combine=combine, lazy=False, output=8_000)
    def total(x: xr.DataArray) -> xr.DataArray:
        if x.shape[0] >= 100:
            trace(folder, "total")
        return x.sum(x.dims[0])

    session = at("p0")
    arrays = {f"p{n}": numbers(10**5, 90 + n).reshape(100, 1000) for n in (1, 2)}
    names = [put(session, site, array) for site, array in arrays.items()]
    Path(folder, "second").touch()  # the trial of the promise need not wait
    graph = total(*(session[name] for name in names))
    plan = session.plan(graph, pinned={"total": "p3"})
    Path(folder, "second").unlink()
    for tried in Path(folder).glob("combine@*"):
        tried.unlink()
    job = session.submit(plan)
    witness.wait("total", count=2)
    collector = witness.wait("combine")[-1].site
    Path(folder, "second").touch()
    federation.kill(collector)
    killed = time.time()
    job.wait(60)
    assert job.status == "done"
    np.testing.assert_array_equal(job.result().values, sum(a.sum(0) for a in arrays.values()))
    taken = [run for run in witness.runs("combine") if run.time > killed]
    assert collector == "p3"
    assert taken[0].site in arrays, "a holder of a partial result"
    assert taken[0].time - killed < 10, "another holder takes over in 10 s"
    assert len(committed(federation, graph.key)) == 1
    assert len(witness.runs("total")) == 2, "no part was computed again"


def test_ko10_late_and_lost_news(
    federation: Federation, at: At, put: Put, witness: Witness
) -> None:
    session = at("p0", "p1", "p2")
    values = numbers(1000, 10)
    graphs = [
        parity(session[put(session, f"p{1 + n % 2}", values + n, str(n))], witness=str(witness))
        for n in range(100)
    ]
    for site in ("p1", "p2"):
        federation.wires[site].latency = 1.0  # two seconds there and back
        federation.wires[site].loss = 0.05
    jobs = [session.submit(graph) for graph in graphs]
    limit = time.monotonic() + 150
    for job in jobs:
        job.wait(max(1.0, limit - time.monotonic()))
    assert sum(federation.wires[site].lost for site in ("p1", "p2")) > 0, "nothing was lost"
    wrong = {job.id: job.view().message for job in jobs if job.status != "done"}
    assert not wrong
    for graph in graphs:
        assert len(committed(federation, graph.key)) == 1
    assert len(witness.runs("parity")) == 100, "each ran once"


def test_ko11_peer_alone(tmp_path: Path, witness: Witness) -> None:
    with Federation(tmp_path / "alone", ["solo"], ready_within=60) as federation:
        values = numbers(10**5, 11)
        np.save(federation.data("solo") / "values.npy", values)
        with flow.connect(federation.sites_file, state=tmp_path / "me") as session:
            url = (federation.data("solo") / "values.npy").as_uri()
            session.register(url, name="values", site="solo")
            graph = parity(session["values"], witness=str(witness))
            job = session.submit(graph)
            job.wait(60)
            assert job.status == "done"
            np.testing.assert_array_equal(job.result().values, values % 2)
        assert committed(federation, graph.key) == ["solo"]


# --- who knows what ----------------------------------------------------------------------------


def test_ko13_join_and_leave(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    session = at("p0")
    name = put(session, "p1", numbers(1000, 130))
    job = session.submit(parity(session[name], witness=str(witness), seconds=60.0))
    witness.wait("parity")
    federation.add("p6", SiteSettings(), knows=["p3"])
    try:
        joined = time.monotonic()
        newcomer = at("p6")
        while {site.name for site in newcomer.sites()} < {*federation.sites}:
            assert time.monotonic() - joined < 60, "it does not know all peers"
            time.sleep(0.1)
        assert newcomer.job(job.id).status == "running"
        while "p6" not in {site.name for site in session.sites()}:
            assert time.monotonic() - joined < 60, "the others do not know it"
            time.sleep(0.1)
        federation.kill("p6")
        gone = time.monotonic()
        while "p6" not in session.topology().away:
            assert time.monotonic() - gone < 60, "it is not shown as away"
            time.sleep(0.1)
    finally:
        federation.remove("p6")
    job.cancel()


def test_ko14_tags(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    anna, bob = at("p1", user="anna"), at("p2", user="bob")
    tags = {"run": "7", "test": "ko14"}
    name = put(anna, "p3", numbers(1000, 14))
    while name not in {dataset.name for dataset in bob.datasets()}:
        time.sleep(0.1)
    one = anna.submit(parity(anna[name], witness=str(witness)), tags=tags)
    two = bob.submit(parity(bob[name], witness=str(witness), seconds=0.01), tags=tags)
    one.wait(60)
    two.wait(60)
    peers = {site: at(site) for site in federation.sites}
    limit = time.monotonic() + 60
    while True:
        found = {
            site: sorted(dataset.id for dataset in peer.datasets(tags=tags))
            for site, peer in peers.items()
        }
        if len(set(map(tuple, found.values()))) == 1 and found["p0"]:
            break
        assert time.monotonic() < limit, found
        time.sleep(0.2)
    assert len(found["p0"]) == 2, "neither result replaced the other"
    np.testing.assert_array_equal(one.result().values, two.result().values)

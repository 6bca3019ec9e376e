"""The notebook's view, on this machine as one site: real workers, real files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import dataflow as flow
from dataflow.documents import from_json, to_json
from dataflow.errors import (
    ConfigError,
    GraphError,
    JobCancelled,
    JobTimedOut,
    OperationFailed,
    PlacementError,
    ScopeError,
    UnknownDataset,
    UnknownJob,
)
from dataflow.placement.plan import Plan


@flow.operation(kind="elementwise")
def plus(x: xr.DataArray, *, number: int) -> xr.DataArray:
    return x + number


@flow.operation(kind="opaque", lazy=False, output="scalar")
def slow(x: xr.DataArray, *, seconds: float, word: str) -> xr.DataArray:
    time.sleep(seconds)
    return x.sum()


@flow.operation(kind="opaque", lazy=False)
def broken(x: xr.DataArray) -> xr.DataArray:
    divisor = 0
    return x // divisor if divisor else x.isel(nowhere=1)


def test_what_the_readme_promises(session: flow.Session) -> None:
    graph = plus(session["run"], number=1)
    plan = session.plan(graph)
    assert repr(plan).startswith("<Plan 1 operation at 1 site")
    job = session.submit(plan, tags={"paper": "fig3"})
    assert job.wait(60) == "done"
    result = job.result()
    np.testing.assert_array_equal(result, np.arange(1000) + 1)
    (view,) = session.jobs(tags={"paper": "fig3"})
    assert (view.id, view.status, view.user) == (job.id, "done", "anna")
    assert {d.name for d in session.datasets(tags={"paper": "fig3"})} == {"plus"}
    (made,) = session.datasets(job=job.id)
    assert made.lineage is not None
    assert made.lineage.inputs == graph.terms[0].step.inputs  # type: ignore[union-attr]
    assert made.lineage.environment["xarray"] == xr.__version__


def test_a_stored_result_is_plain_zarr(session: flow.Session) -> None:
    job = session.submit(plus(session["run"], number=2))
    job.wait(60)
    replica = next(iter(job._refreshed().results().values()))[0]
    dataset = xr.open_zarr(replica.url)
    (variable,) = dataset.data_vars.values()
    np.testing.assert_array_equal(variable, np.arange(1000) + 2)


def test_several_results_come_in_order(session: flow.Session) -> None:
    three, two = plus(session["run"], number=3), plus(session["run"], number=2)
    first, second = session.submit([three, two]).result(60)
    assert (int(first[0]), int(second[0])) == (3, 2)


def test_nothing_is_computed_twice(session: flow.Session) -> None:
    graph = plus(session["run"], number=4)
    session.submit(graph).result(60)
    plan = session.plan(graph)
    assert not plan.segments
    assert "1 reused" in repr(plan)
    again = session.submit(plan, tags={"again": "yes"})
    np.testing.assert_array_equal(again.result(60), np.arange(1000) + 4)
    assert not [event for event in again.events() if event.type == "unit-started"]
    assert len(session.datasets(tags={"again": "yes"})) == 1, "tagged all the same"


def test_the_users_own_error(session: flow.Session) -> None:
    job = session.submit(broken(session["run"]))
    with pytest.raises(OperationFailed, match=r"'broken' failed at 'local'.*nowhere") as caught:
        job.result(60)
    assert "def " not in caught.value.error
    assert "broken" in caught.value.traceback
    assert job.status == "failed"
    attempts = [event for event in job.events() if event.type == "unit-started"]
    assert len(attempts) == 1, "never retried"
    assert "nowhere" in repr(job)


def test_a_value_without_a_stored_form(session: flow.Session) -> None:
    @flow.operation
    def strange(x: Any) -> Any:
        return object()

    with pytest.raises(OperationFailed, match=r"'strange'.*object has no stored form"):
        session.submit(strange(session["run"])).result(60)


def test_cancel(session: flow.Session) -> None:
    job = session.submit(slow(session["run"], seconds=60.0, word="cancel"))
    while job.status != "running":
        time.sleep(0.02)
    job.cancel()
    with pytest.raises(JobCancelled, match="by anna"):
        job.result(10)
    assert session.submit(plus(session["run"], number=5)).wait(30) == "done", "the site is free"


def test_time_limit(session: flow.Session) -> None:
    job = session.submit(slow(session["run"], seconds=60.0, word="limit"), time_limit=0.5)
    with pytest.raises(JobTimedOut, match=r"0\.5 s"):
        job.result(20)
    assert job.status == "timed-out"


def test_suspend_and_resume(session: flow.Session) -> None:
    first = slow(session["run"], seconds=1.0, word="suspend")
    job = session.submit(session.plan(slow(first, seconds=0.0, word="second"), keep="all"))
    job.suspend()
    assert job.status == "suspended"
    job.resume()
    assert job.wait(60) == "done"


def test_waiting_ends_and_the_job_goes_on(session: flow.Session) -> None:
    job = session.submit(slow(session["run"], seconds=2.0, word="wait"))
    with pytest.raises(TimeoutError, match="goes on"):
        job.wait(0.2)
    assert job.wait(60) == "done"


def test_found_again_by_id(session: flow.Session) -> None:
    job = session.submit(plus(session["run"], number=6))
    same = flow.job(job.id)
    assert same.wait(60) == "done"
    assert int(same.result()[0]) == 6
    with pytest.raises(UnknownJob, match="nothing-like-it"):
        session.job("nothing-like-it")


def test_a_plan_survives_as_text(session: flow.Session) -> None:
    plan = session.plan(plus(session["run"], number=7))
    copy = from_json(Plan, to_json(plan))
    assert copy == plan
    assert session.submit(copy).wait(60) == "done"


def test_a_plan_from_elsewhere_needs_its_code(session: flow.Session, tmp_path: Path) -> None:
    plan = session.plan(plus(session["run"], number=8))

    @flow.operation(name="foreign")
    def foreign(x: Any) -> Any:
        return x

    unknown = from_json(Plan, to_json(session.plan(foreign(session["run"]))))
    session._functions.pop(foreign.operation.code)
    with pytest.raises(GraphError, match="code of 'foreign' was not handed over"):
        session.submit(unknown).result(30)
    assert session.submit(plan).wait(60) == "done"


def test_a_result_is_of_the_code_that_its_key_says(session: flow.Session) -> None:
    factor = 2

    @flow.operation(kind="elementwise")
    def times(x: xr.DataArray) -> xr.DataArray:
        return x * factor

    early = times(session["run"])
    factor = 3
    with pytest.raises(GraphError, match="code of 'times' has changed since the graph was built"):
        session.submit(early)
    late = times(session["run"])
    assert late.outputs != early.outputs
    assert int(session.submit(late).result(60)[1]) == 3


def test_programs(session: flow.Session, folder: Path) -> None:
    (folder / "words.txt").write_text("one two\nthree\n")
    session.register(folder / "words.txt", name="words")
    count = flow.shell("wc -w < {text} > {output:count.txt}", name="count_words")
    (path,) = session.submit(count(session["words"])).result(60)
    assert path.read_text().strip() == "3"


def test_tables(session: flow.Session, folder: Path) -> None:
    @flow.operation(kind="opaque")
    def adults(people: Any) -> Any:
        return people[people.age >= 18]

    pd.DataFrame({"name": list("abc"), "age": [10, 20, 30]}).to_csv(
        folder / "people.csv", index=False
    )
    session.register(folder / "people.csv", name="people")
    found = session.submit(adults(session["people"])).result(60)
    assert isinstance(found, pd.DataFrame), "small tables come as pandas"
    assert list(found.name) == ["b", "c"]


def test_large_results_are_lazy(session: flow.Session, folder: Path) -> None:
    np.save(folder / "large.npy", np.zeros((1000, 1000)))
    session.register(folder / "large.npy")
    result = session.submit(plus(session["large"], number=1)).result(60)
    assert result.chunks is not None
    assert float(result.mean()) == 1.0
    assert session.open("large").chunks is not None
    assert session.open("large", lazy=False).chunks is None


def test_changed_data_is_not_taken_for_the_old(session: flow.Session, folder: Path) -> None:
    np.save(folder / "changing.npy", np.zeros(10))
    session.register(folder / "changing.npy")
    graph = plus(session["changing"], number=1)
    np.save(folder / "changing.npy", np.ones(10))
    with pytest.raises(flow.DataflowError, match=r"changing\.npy.*\n?.*register"):
        session.submit(graph).result(30)
    session.register(folder / "changing.npy")
    assert float(session.submit(plus(session["changing"], number=1)).result(60)[0]) == 2.0


def test_clear_errors_before_anything_runs(session: flow.Session) -> None:
    run = session["run"]
    with pytest.raises(UnknownDataset, match="did you mean 'run'"):
        session["runn"]
    with pytest.raises(PlacementError, match=r"no site 'mars'.*local"):
        session.plan(plus(run, number=1), scope={"plus": "mars"})
    with pytest.raises(PlacementError, match="no step, operation or role is called 'minus'"):
        session.plan(plus(run, number=1), scope={"minus": "local"})
    with pytest.raises(PlacementError, match="objective: 'speed' is not known"):
        session.plan(plus(run, number=1), objective="speed")
    with pytest.raises(PlacementError, match="no plan ends within"):
        session.plan(plus(run, number=31), deadline=1e-9)
    aimed = session.plan(plus(run, number=1), objective=["money", "time"], deadline="10 min")
    assert aimed.options["objective"] == ["money", "time"]
    assert aimed.options["deadline"] == 600.0
    with pytest.raises(PlacementError, match="no step is called 'minus'"):
        session.plan(plus(run, number=1), pinned={"minus": "local"})
    with pytest.raises(PlacementError, match="mars"):
        session.plan(plus(run, number=1), result_at="mars")
    with pytest.raises(PlacementError, match="mars"):
        session.plan(plus(run, number=1), without="mars")
    with pytest.raises(GraphError, match=r"a OperationFunction is no graph.*\n.*call"):
        session.plan(plus)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="nonsense is no graph"):
        session.submit("nonsense")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="scope must be a mapping"):
        session.plan(plus(run, number=1), scope=3)  # type: ignore[arg-type]
    with pytest.raises(ScopeError, match="not '&'"):
        session.plan(plus(run, number=1), scope="{plus: local & & local}")
    assert session.plan(plus(run, number=1), scope="{plus: local}").options["scope"] == {
        "plus": "local"
    }
    with pytest.raises(ConfigError, match="tags must be a mapping"):
        session.submit(plus(run, number=1), tags="a")  # type: ignore[arg-type]


def test_connecting_again_closes_the_session_before(tmp_path: Path) -> None:
    first = flow.connect(state=tmp_path / "s")
    with flow.connect(state=tmp_path / "s") as second:
        assert first.closed
        assert not second.closed
    for use in (first.sites, first.jobs, first.datasets, lambda: first["run"]):
        with pytest.raises(ConfigError, match="closed; connect again"):
            use()


def test_showing(session: flow.Session) -> None:
    assert repr(session) == "<Session of anna: 1 of 1 sites answer>"
    assert "run" in session
    assert "nothing" not in session
    assert "run" in session._ipython_key_completions_()
    job = session.submit(plus(session["run"], number=9))
    job.wait(60)
    assert "done" in job._repr_html_()
    assert job.id in session.jobs()._repr_html_()
    assert job.id in repr(session.jobs())
    assert repr(job.ledger()) == "nothing crossed a link"
    assert session.ledger() is not None
    assert session.dashboard().startswith("http://127.0.0.1:")  # type: ignore[union-attr]


def test_jobs_and_data_outlive_the_session(tmp_path: Path) -> None:
    np.save(tmp_path / "run.npy", np.arange(10))
    with flow.connect(state=tmp_path / "s") as session:
        session.register(tmp_path / "run.npy")
        job = session.submit(slow(session["run"], seconds=1.0, word="outlive"))
        assert job.status in ("created", "running")
    assert repr(session) == "<Session closed>"
    assert job.id in repr(job)
    with flow.connect(state=tmp_path / "s") as session:
        assert session.job(job.id).wait(60) == "done"
        assert int(session.job(job.id).result()) == 45
        assert "run" in session


def test_connect_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="names no site"):
        flow.connect(tmp_path / "empty.yaml")
    (tmp_path / "lost.yaml").write_text(
        "sites: [{name: a, address: 'http://127.0.0.1:9', credentials: nowhere-to-be-found}]"
    )
    with pytest.raises(ConfigError, match="nowhere-to-be-found"):
        flow.connect(tmp_path / "lost.yaml", state=tmp_path)


def test_register_needs_a_site_where_there_are_several(tmp_path: Path) -> None:
    (tmp_path / "sites.yaml").write_text("sites: [{name: a, address: 'http://127.0.0.1:9'}]")
    with flow.connect(tmp_path / "sites.yaml", state=tmp_path / "s") as session:
        with pytest.raises(ConfigError, match="site="):
            session.register("/data/x.npy")
        with pytest.raises(flow.DataflowError, match="'a'"):
            session.register("/data/x.npy", site="a")


@settings(max_examples=12)
@given(numbers=st.lists(st.integers(-5, 5), min_size=1, max_size=4))
def test_chains_of_operations_equal_numpy(session: flow.Session, numbers: list[int]) -> None:
    graph = session["run"]
    for number in numbers:
        graph = plus(graph, number=number) * 2
    expected = np.arange(1000)
    for number in numbers:
        expected = (expected + number) * 2
    np.testing.assert_array_equal(session.submit(graph).result(60), expected)


def test_nothing_is_started_that_nobody_wants(tmp_path: Path) -> None:
    """Commands ask a question and go; workers are started for work."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    np.save(tmp_path / "run.npy", np.arange(10.0))
    with flow.connect(state=tmp_path / "state", prepare=False) as session:
        session.register(tmp_path / "run.npy")
        plan = session.plan(session["run"] + 1)
        assert not session.jobs()
        assert set(me.children(recursive=True)) <= before
        np.testing.assert_array_equal(session.submit(plan).result(60), np.arange(10.0) + 1)
        assert set(me.children(recursive=True)) - before

"""Orders at one site, on real workers and real stores."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import structlog
import xarray as xr
from bench import Bench, NoBackend, failure_of, moved, value_of
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from dataflow.backends.local import LocalBackend
from dataflow.datasets import Dataset, Replica
from dataflow.errors import (
    CorruptResult,
    JobCancelled,
    JobError,
    OperationFailed,
    PlacementError,
    SiteRefused,
    SiteUnreachable,
    StorageError,
    TransferFailed,
    UnknownDataset,
    UnreadableDataset,
    UnsafeStore,
    WorkerLost,
)
from dataflow.execution.events import Crossed, Ended, Errand, Stored, TransferOrder
from dataflow.execution.orders import originals_of
from dataflow.execution.runner import SiteRunner
from dataflow.graph.graph import Graph
from dataflow.graph.operation import Step, operation, shell
from dataflow.graph.split import split
from dataflow.graph.verify import forged
from dataflow.placement.make import make_plan
from dataflow.sites import Site
from dataflow.storage.manifest import FileEntry
from dataflow.storage.results import find_result
from dataflow.storage.transfer import StoreSource
from dataflow.testing.strategies import World, worlds

Run = Callable[[Coroutine[Any, Any, Any]], Any]


# --- operations ------------------------------------------------------------------------------


def noted(path: str) -> None:
    """Append a line: functions run in other processes, and files are what they share."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")


@operation(kind="elementwise")
def doubled(x, *, note=""):
    if note:
        noted(note)
    return x * 2


@operation(lazy=False)
def slept(x, *, seconds, note=""):
    if note:
        noted(note)
    time.sleep(seconds)
    return x


@operation(lazy=False)
def slept_at_first(x, *, seconds, note):
    noted(note)
    if len(Path(note).read_text().splitlines()) == 1:
        time.sleep(seconds)
    return x


@operation(lazy=False)
def said_no(x):
    raise ValueError("the third frame is upside down")


@operation(kind="linear", output="scalar")
def total(x):
    return x.sum()


@operation(lazy=False)
def seen_as(x, *others):
    return type(x).__module__.split(".")[0] + "." + type(getattr(x, "data", x)).__name__


count_lines = shell("wc -l < {table} > {output:lines.txt}", name="count_lines")


# --- fixtures --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def workers(
    loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalBackend]:
    directory = tmp_path_factory.mktemp("workers")
    backend = LocalBackend(workers=2, threads=1, memory=2_000_000_000, directory=directory)
    yield backend
    loop.run(backend.close())


@pytest.fixture
def bench(tmp_path: Path, workers: LocalBackend, loop: asyncio.Runner) -> Iterator[Bench]:
    made = Bench(tmp_path, workers)
    yield made

    async def end() -> None:
        await asyncio.gather(*made.runner._workplace._later)
        await made.runner.close()

    loop.run(end())


@pytest.fixture
def run(loop: asyncio.Runner) -> Run:
    return loop.run


def stored_only(reports: Sequence[Any]) -> list[Stored]:
    return [report for report in reports if isinstance(report, Stored)]


def counted(path: Path) -> int:
    return len(path.read_text().splitlines())


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it never came to be"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


# --- what is stored, and what is said of it ----------------------------------------------------


def test_step_is_stored_and_told(bench: Bench, run: Run) -> None:
    graph = doubled(bench.array([1, 2, 3]))
    order = bench.order(graph)
    reports = run(bench.reports(order))
    stored, ended = reports
    assert isinstance(ended, Ended)
    assert 0 < stored.seconds < ended.seconds
    assert not stored.reused
    assert value_of(stored).values.tolist() == [2, 4, 6]
    dataset, replica = stored.dataset, stored.replica
    assert bench.published == [dataset, replica]
    assert (dataset.name, dataset.owner, dataset.tags) == ("doubled", "ada", {"paper": "fig3"})
    assert replica.fingerprint.startswith("manifest:")
    assert (replica.site, replica.store, replica.key) == ("ams", "results", graph.key)
    lineage = dataset.lineage
    assert lineage is not None
    assert (lineage.operation, lineage.kind) == ("doubled", "elementwise")
    assert (lineage.job, lineage.plan, lineage.site) == ("job1", "plan1", "ams")
    assert lineage.inputs == tuple(order.inputs)
    assert lineage.parameters == {}
    assert set(lineage.environment) == {"python", "numpy", "xarray", "dask", "zarr", "dataflow"}
    manifest = find_result(bench.stores[1].url, graph.key)
    assert manifest is not None
    assert manifest.provenance["environment"] == lineage.environment


def test_an_order_is_taken_before_its_work_is_done(bench: Bench, run: Run) -> None:
    order = bench.order(slept(bench.array([1]), seconds=0.3))

    async def story() -> None:
        await bench.runner.start(order)
        await bench.runner.start(order)
        assert await bench.runner.follow(order.id, 0, 0) == ()
        assert len(await bench.reports(order)) == 2

    run(story())


def test_same_id_attaches_also_when_ended(bench: Bench, run: Run) -> None:
    note = bench.lines("runs")
    order = bench.order(slept(bench.array([1]), seconds=0, note=str(note)))
    first = run(bench.reports(order))
    assert run(bench.reports(order)) == first
    assert counted(note) == 1


def test_unknown_order(bench: Bench, run: Run) -> None:
    with pytest.raises(KeyError):
        run(bench.runner.follow("nonsense", 0, 1))
    run(bench.runner.cancel("nonsense"))


def test_order_for_another_site(bench: Bench, run: Run) -> None:
    order = bench.order(doubled(bench.array([1])), site="delft")
    with pytest.raises(SiteRefused, match="delft"):
        run(bench.runner.start(order))


def test_ended_orders_are_forgotten(tmp_path: Path, run: Run, monkeypatch: Any) -> None:
    now = [0.0]
    bench = Bench(tmp_path, NoBackend(), clock=lambda: now[0])
    orders = [bench.order(doubled(bench.array([1])), outputs=["nothing"]) for _ in range(6)]
    run(bench.reports(orders[0]))
    now[0] = 3700.0
    run(bench.reports(orders[1]))
    with pytest.raises(KeyError):
        run(bench.runner.follow(orders[0].id, 0, 0))
    monkeypatch.setattr("dataflow.execution.runner.KEPT_ORDERS", 2)
    for order in orders[2:]:
        run(bench.reports(order))
    known = [order.id for order in orders if order.id in bench.runner._orders]
    assert known == [order.id for order in orders[3:]]


# --- what runs -------------------------------------------------------------------------------


def test_chain_in_one_segment_stores_only_outputs(bench: Bench, run: Run) -> None:
    middle = doubled(bench.array(np.arange(6.0)))
    graph = total(doubled(middle))
    (stored,) = run(bench.stored(graph))
    assert float(value_of(stored)) == 60
    assert find_result(bench.stores[1].url, middle.key) is None


def test_output_on_the_way_is_stored_and_not_made_twice(bench: Bench, run: Run) -> None:
    note = bench.lines("runs")
    middle = doubled(bench.array(np.arange(6.0)), note=str(note))
    graph = total(middle)
    stored = run(bench.stored(graph, outputs=[middle.key, graph.key]))
    assert {report.key for report in stored} == {middle.key, graph.key}
    tags = {report.key: report.dataset.tags for report in stored}
    assert tags == {middle.key: {}, graph.key: {"paper": "fig3"}}
    assert counted(note) == 1


def test_independent_steps_run_at_the_same_time(bench: Bench, run: Run) -> None:
    data = bench.array([1])
    run(bench.stored(doubled(data)))
    note = bench.lines("pids")
    graphs = [slept(data, seconds=4 + n / 100, note=str(note)) for n in range(2)]
    begun = time.monotonic()
    stored = run(bench.stored(*graphs))
    assert time.monotonic() - begun < 8, "one after the other they sleep longer"
    assert len(stored) == 2
    assert len(set(note.read_text().split())) == 2


def test_outputs_are_told_as_they_come(bench: Bench, run: Run) -> None:
    data = bench.array([1])
    quick, slow = slept(data, seconds=0), slept(data, seconds=2)
    order = bench.order(slow, quick)

    async def story() -> None:
        await bench.runner.start(order)
        (first,) = await bench.runner.follow(order.id, 0, 30)
        assert first.key == quick.key
        assert await bench.runner.follow(order.id, 1, 0.2) == ()

    run(story())


def test_tables(bench: Bench, run: Run) -> None:
    path = bench.data / "people.csv"
    pd.DataFrame({"name": ["ada", "bob", "eve"], "age": [36, 41, 29]}).to_csv(path, index=False)
    people = bench.register(path)

    @operation
    def older(table):
        return table[table["age"] > 30]

    @operation(lazy=False)
    def mean_age(table):
        assert isinstance(table, pd.DataFrame)
        return table["age"].mean()

    adults = older(people)
    stored = run(bench.stored(adults, mean_age(adults), outputs=[]))
    kinds = {report.dataset.name: report.dataset.kind for report in stored}
    assert kinds == {"older": "table", "mean_age": "array"}
    values = {report.dataset.name: value_of(report) for report in stored}
    assert values["older"]["name"].tolist() == ["ada", "bob"]
    assert float(values["mean_age"]) == 38.5


def test_arrow_tables_are_frames_for_whoever_does_not_ask_for_tables(
    bench: Bench, run: Run
) -> None:
    path = bench.data / "people.csv"
    pd.DataFrame({"name": ["ada", "bob", None], "age": [36, 41, 29]}).to_csv(path, index=False)
    people = bench.register(path)

    @operation
    def columns(table):
        import pyarrow as pa

        return pa.Table.from_pandas(table.compute() if hasattr(table, "compute") else table)

    @operation
    def as_it_comes(table):
        return len(str(type(table)))

    @operation
    def oldest(table):
        return pd.DataFrame({"age": [table["age"].max()], "kind": [type(table).__name__]})

    as_it_comes.function.reads = "tables"
    table = columns(people)
    stored = run(bench.stored(table, oldest(table), as_it_comes(table), outputs=[]))
    values = {report.dataset.name: value_of(report) for report in stored}
    assert values["columns"]["age"].tolist() == [36, 41, 29]
    assert values["oldest"].to_dict("list") == {"age": [41], "kind": ["DataFrame"]}
    assert int(values["as_it_comes"]) == len("<class 'pyarrow.lib.Table'>")


def test_datasets_and_eager_step_after_lazy_one(bench: Bench, run: Run) -> None:
    path = bench.data / "grid.zarr"
    xr.Dataset({"t": ("x", np.arange(4.0)), "p": ("x", np.ones(4))}).to_zarr(
        path, consolidated=False
    )
    grid = bench.register(path)

    @operation
    def warmer(ds):
        assert ds["t"].chunks is not None
        return ds.assign(t=ds["t"] + 1)

    @operation(lazy=False)
    def looked_at(ds):
        assert ds["t"].chunks is None
        return ds

    value = run(bench.value(looked_at(warmer(grid))))
    assert value["t"].values.tolist() == [1, 2, 3, 4]


def test_split_over_one_site_equals_whole(bench: Bench, run: Run) -> None:
    left, right = bench.array(np.arange(5.0), "l"), bench.array(np.arange(5.0) * 3, "r")
    whole = total(left, right)
    apart = split(whole, {left.key: frozenset({"a"}), right.key: frozenset({"b"})})
    assert apart.key == whole.key
    assert len(apart.steps) == 3
    (stored,) = run(bench.stored(apart, originals=tuple(whole.steps.values())))
    assert float(value_of(stored)) == 40


def test_shell_chain(bench: Bench, run: Run) -> None:
    path = bench.data / "it's here.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    table = bench.register(path)
    doubled_lines = shell("cat {a} {a} > {output:twice.txt}; echo {word} >> {output:twice.txt}")
    once = doubled_lines(a=table, word="it's $HOME")
    again = count_lines(once)
    (stored,) = run(bench.stored(again))
    (file,) = value_of(stored)
    assert (file.name, file.read_text().strip()) == ("lines.txt", "7")
    assert stored.dataset.kind == "files"


def test_shell_reads_the_value_of_an_earlier_step(bench: Bench, run: Run) -> None:
    listed = shell("ls {group} > {output}")(doubled(bench.array([1, 2])))
    (file,) = run(bench.value(listed))
    assert "zarr.json" in file.read_text()


def test_shell_failure(bench: Bench, run: Run) -> None:
    graph = shell("echo 'no such frame' >&2; exit 3; cat {x} > {output}")(bench.array([1]))
    error, fault = run(bench.broke(graph))
    assert isinstance(error, OperationFailed)
    assert fault == "user"
    assert "status 3" in error.error
    assert error.traceback == "no such frame"


def test_shell_that_writes_nothing(bench: Bench, run: Run) -> None:
    error, fault = run(bench.broke(shell("true {x} {output:map.png}")(bench.array([1]))))
    assert isinstance(error, OperationFailed)
    assert fault == "user"
    assert "map.png" in str(error)


# --- what is there already -------------------------------------------------------------------


def test_all_there_makes_no_task(bench: Bench, run: Run, tmp_path: Path) -> None:
    graph = doubled(bench.array([1, 2]))
    (first,) = run(bench.stored(graph))
    idle = Bench(tmp_path, NoBackend())
    idle.array([1, 2])
    (again,) = run(idle.stored(graph, user="eve", job="job2"))
    assert again.reused
    assert again.seconds == 0
    assert again.replica == first.replica
    assert again.dataset == first.dataset


def test_steps_for_what_is_there_are_not_run(bench: Bench, run: Run) -> None:
    note = bench.lines("runs")
    middle = doubled(bench.array([1, 2]), note=str(note))
    run(bench.stored(middle))
    graph = total(middle)
    stored = run(bench.stored(graph, outputs=[middle.key, graph.key]))
    assert [report.reused for report in stored] == [True, False]
    assert float(value_of(stored[1])) == 6
    assert counted(note) == 1


def test_two_orders_for_one_key_run_it_once(bench: Bench, run: Run) -> None:
    note = bench.lines("runs")
    graph = slept(bench.array([1]), seconds=0.5, note=str(note))
    orders = [bench.order(graph) for _ in range(3)]

    async def story() -> list[list[Any]]:
        return list(await asyncio.gather(*map(bench.reports, orders)))

    reports = run(story())
    assert counted(note) == 1
    assert sorted(stored_only(r)[0].reused for r in reports) == [False, True, True]


def test_step_on_the_way_that_another_order_makes(bench: Bench, run: Run) -> None:
    note = bench.lines("runs")
    middle = slept(bench.array([1, 2]), seconds=0.5, note=str(note))
    graph = doubled(middle)
    first, second = bench.order(middle), bench.order(graph, outputs=[graph.key, middle.key])

    async def story() -> list[Any]:
        await bench.runner.start(first)
        await until(lambda: counted(note) == 1)
        reports = await bench.reports(second)
        await bench.reports(first)
        return reports

    stored = stored_only(run(story()))
    assert [(report.key, report.reused) for report in stored] == [
        (middle.key, True),
        (graph.key, False),
    ]
    assert counted(note) == 1


def test_made_anew_when_the_other_order_is_cancelled(bench: Bench, run: Run) -> None:
    note = bench.lines("runs")
    graph = slept(bench.array([1]), seconds=1.0, note=str(note))
    first, second = bench.order(graph), bench.order(graph)

    async def story() -> list[Any]:
        await bench.runner.start(first)
        await until(lambda: counted(note) == 1)
        await bench.runner.start(second)
        await asyncio.sleep(0.05)
        await bench.runner.cancel(first.id)
        error, _ = failure_of(await bench.reports(first))
        assert isinstance(error, JobCancelled)
        return await bench.reports(second)

    (stored,) = stored_only(run(story()))
    assert not stored.reused
    assert counted(note) == 2


# --- inputs and code -------------------------------------------------------------------------


def test_input_that_has_changed(bench: Bench, run: Run) -> None:
    data = bench.array([1, 2, 3])
    np.save(bench.data / "a.npy", np.array([1, 2, 4]))
    error, fault = run(bench.broke(doubled(data)))
    assert isinstance(error, UnreadableDataset)
    assert fault == "input"
    for word in ("a.npy", "'ams'", "changed", "register it again"):
        assert word in str(error)


def test_input_that_is_gone(bench: Bench, run: Run) -> None:
    data = bench.array([1, 2, 3])
    (bench.data / "a.npy").unlink()
    error, fault = run(bench.broke(doubled(data)))
    assert isinstance(error, UnreadableDataset)
    assert fault == "input"
    assert "register it again" in str(error)


def test_result_as_input_that_lost_a_chunk(bench: Bench, run: Run) -> None:
    (stored,) = run(bench.stored(doubled(bench.array(np.arange(4.0)))))
    bench.replicas[stored.key] = stored.replica
    bench.datasets[stored.key] = stored.dataset
    graph = doubled(bench_dataset(stored.dataset))
    next(Path(stored.replica.url.removeprefix("file://")).glob("*/c/0")).unlink()
    error, fault = run(bench.broke(graph))
    assert isinstance(error, CorruptResult | UnreadableDataset)
    assert fault == "input"


def bench_dataset(dataset: Dataset) -> Any:
    from dataflow.graph.graph import of_dataset

    return of_dataset(dataset)


def test_missing_code(bench: Bench, run: Run) -> None:
    order = bench.order(doubled(bench.array([1])))
    (code,) = {step.operation.code for step in order.steps}
    payload = bench.code.get(code)
    (bench.code.directory / code).unlink()
    assert run(bench.runner.has_code([code])) == []
    error, fault = failure_of(run(bench.reports(order)))
    assert isinstance(error, SiteRefused)
    assert fault == "site"
    assert "code" in str(error)
    run(bench.runner.give_code(code, payload))
    assert run(bench.runner.has_code([code])) == [code]
    assert isinstance(run(bench.reports(replace(order, id="again")))[-1], Ended)


def test_absent_arguments(bench: Bench, run: Run) -> None:
    @operation(kind="linear", same_shape=True, output="scalar")
    def weighted(x, y):
        return (2 * x + 3 * y).sum()

    left, right = bench.array(np.arange(3.0), "l"), bench.array(np.ones(3), "r")
    whole = weighted(left, right)
    homes = {left.key: frozenset({"a"}), right.key: frozenset({"b"})}
    apart = split(whole, homes)
    assert any(step.absent for step in apart.steps.values())
    extents = {key: bench.datasets[key].extent for key in homes}
    proof = tuple(whole.steps.values())
    (stored,) = run(bench.stored(apart, extents=extents, originals=proof))
    assert float(value_of(stored)) == 15


# --- failures --------------------------------------------------------------------------------


def test_users_error(bench: Bench, run: Run) -> None:
    error, fault = run(bench.broke(said_no(bench.array([1]))))
    assert isinstance(error, OperationFailed)
    assert fault == "user"
    assert error.error == "ValueError: the third frame is upside down"
    assert "in said_no" in error.traceback
    assert "to_dask" not in error.traceback
    assert (error.operation, error.site) == ("said_no", "ams")


def test_error_in_a_block_is_the_users(bench: Bench, run: Run) -> None:
    def bad(block):
        raise ZeroDivisionError("in a block")

    @operation
    def per_block(x):
        return x.copy(data=x.chunk(10).data.map_blocks(bad, dtype=x.dtype))

    error, fault = run(bench.broke(per_block(bench.array(np.arange(100.0)))))
    assert isinstance(error, OperationFailed)
    assert fault == "user"
    assert error.error == "ZeroDivisionError: in a block"
    assert "in bad" in error.traceback


def test_first_failure_ends_the_segment(bench: Bench, run: Run) -> None:
    data = bench.array([1])
    quick = doubled(data)
    graphs = [quick, said_no(slept(data, seconds=0.5)), slept(data, seconds=600)]
    begun = time.monotonic()
    reports = run(bench.reports(bench.order(*graphs)))
    assert time.monotonic() - begun < 10
    error, _ = failure_of(reports)
    assert isinstance(error, OperationFailed)
    assert [report.key for report in stored_only(reports)] == [quick.key]
    assert find_result(bench.stores[1].url, quick.key) is not None


def test_failure_on_the_way_is_told_of_the_step_that_failed(bench: Bench, run: Run) -> None:
    error, fault = run(bench.broke(doubled(said_no(bench.array([1])))))
    assert isinstance(error, OperationFailed)
    assert (error.operation, fault) == ("said_no", "user")


def test_value_that_cannot_be_stored(bench: Bench, run: Run) -> None:
    @operation(lazy=False)
    def thing(x):
        return object()

    error, fault = run(bench.broke(thing(bench.array([1]))))
    assert isinstance(error, OperationFailed)
    assert fault == "user"
    assert "has no stored form" in str(error)


def test_function_that_exits(bench: Bench, run: Run) -> None:
    @operation(lazy=False)
    def leaves(x):
        sys.exit(3)

    error, fault = run(bench.broke(leaves(bench.array([1]))))
    assert isinstance(error, OperationFailed)
    assert (error.error, fault) == ("SystemExit: 3", "user")


def test_store_that_cannot_be_written(bench: Bench, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bench.stores[1] = replace(bench.stores[1], url=f"file://{tmp_path}/file/results")
    error, fault = run(bench.broke(doubled(bench.array([1]))))
    assert isinstance(error, StorageError)
    assert fault == "site"


def test_unsafe_store(bench: Bench, run: Run, monkeypatch: Any) -> None:
    def refuse(root: str, **_: Any) -> None:
        raise UnsafeStore(root, "it ignores the condition")

    monkeypatch.setattr("dataflow.execution.workplace.check_store", refuse)
    error, fault = run(bench.broke(doubled(bench.array([1]))))
    assert isinstance(error, UnsafeStore)
    assert fault == "site"


def test_store_is_checked_once(bench: Bench, run: Run, monkeypatch: Any) -> None:
    checked: list[str] = []
    monkeypatch.setattr(
        "dataflow.execution.workplace.check_store", lambda root, **_: checked.append(root)
    )
    data = bench.array([1])
    run(bench.stored(doubled(data)))
    run(bench.stored(total(data)))
    assert checked == [bench.stores[1].url]


def test_no_store_for_results(bench: Bench, run: Run) -> None:
    del bench.stores[1]
    error, fault = run(bench.broke(doubled(bench.array([1]))))
    assert fault == "site"
    assert "purpose 'results'" in str(error)


def test_dead_worker(bench: Bench, run: Run) -> None:
    note = bench.lines("pids")
    graph = slept_at_first(bench.array([1]), seconds=60, note=str(note))

    async def story() -> None:
        order = bench.order(graph)
        await bench.runner.start(order)
        await until(lambda: counted(note) == 1)
        os.kill(int(note.read_text()), signal.SIGKILL)
        error, fault = failure_of(await bench.reports(order))
        assert isinstance(error, WorkerLost)
        assert (error.operation, error.site, fault) == ("slept_at_first", "ams", "worker")
        (stored,) = await bench.stored(graph)
        assert not stored.reused

    run(story())
    assert counted(note) == 2


def test_who_stands_behind_a_task_that_kills_its_worker(bench: Bench, run: Run) -> None:
    data = bench.array([1])
    note = bench.lines("pids")

    @operation(lazy=False)
    def kills(x, *, number):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    killers = [bench.order(kills(data, number=n)) for n in range(2)]
    others = [bench.order(slept(data, seconds=n / 1000, note=str(note))) for n in range(8)]

    async def story() -> None:
        for order in (*killers, *others):
            await bench.runner.start(order)
        for order in killers:
            error, fault = failure_of(await bench.reports(order))
            assert isinstance(error, WorkerLost)
            assert fault == "worker"
        for order in others:
            assert isinstance((await bench.reports(order))[-1], Ended)

    run(story())
    assert counted(note) == 8
    assert not bench.runner._workplace.begun.names


def test_walltime(bench: Bench, run: Run) -> None:
    begun = time.monotonic()
    error, fault = run(bench.broke(slept(bench.array([1]), seconds=600), walltime=0.5))
    assert time.monotonic() - begun < 5
    assert type(error) is JobError
    assert fault == "user"
    assert "0.5 s" in str(error)


# --- cancelling ------------------------------------------------------------------------------


def test_cancelled_function_does_not_hold_the_site(bench: Bench, run: Run) -> None:
    data = bench.array([1])
    note = bench.lines("pids")
    orders = [bench.order(slept(data, seconds=600 + n, note=str(note))) for n in range(2)]

    async def story() -> None:
        for order in orders:
            await bench.runner.start(order)
        await until(lambda: counted(note) == 2)
        begun = time.monotonic()
        for order in orders:
            await bench.runner.cancel(order.id)
            await bench.runner.cancel(order.id)
            error, fault = failure_of(await bench.reports(order))
            assert isinstance(error, JobCancelled)
            assert (error.job, fault) == ("job1", "user")
        assert time.monotonic() - begun < 20, "the order ends long before its function would"
        await bench.stored(doubled(data))
        assert time.monotonic() - begun < 120
        await until(lambda: not any(map(psutil.pid_exists, map(int, note.read_text().split()))))

    run(story())


@pytest.mark.parametrize("unheard", ["the question", "the cancelling"])
def test_cancelled_on_its_way_to_a_worker(
    bench: Bench, run: Run, monkeypatch: pytest.MonkeyPatch, unheard: str
) -> None:
    """The scheduler did not know of the task yet when it was asked, or told: so it begins."""
    note = bench.lines("pid")
    order = bench.order(slept(bench.array([1]), seconds=600, note=str(note)))

    async def story() -> None:
        client = await bench.runner._workplace.backend.client()
        await bench.runner.start(order)
        await until(lambda: counted(note) == 1)
        told = client.cancel
        passed_over: list[Any] = []

        async def nothing(*_: Any) -> Any:
            return {}

        async def cancel(futures: Any) -> None:
            if passed_over or unheard == "the question":
                await told(futures)
            passed_over.append(futures)

        with monkeypatch.context() as early:
            early.setattr(client, "processing", nothing)
            early.setattr(client, "cancel", cancel)
            await bench.runner.cancel(order.id)
            error, _ = failure_of(await bench.reports(order))
            assert isinstance(error, JobCancelled)
            await until(lambda: not psutil.pid_exists(int(note.read_text())))
        assert len(passed_over) > 1
        await asyncio.gather(*bench.runner._workplace._later)
        assert not any((await client.processing()).values())
        assert counted(note) == 1, "it was not begun again by another worker"

    run(story())


def test_cancel_stops_a_command(bench: Bench, run: Run) -> None:
    note = bench.lines("pid")
    command = shell("echo $$ > {note}; sleep 600; cat {x} > {output}")
    order = bench.order(command(note=str(note), x=bench.array([1])))

    async def story() -> None:
        await bench.runner.start(order)
        await until(lambda: note.read_text().strip())
        shell_process = psutil.Process(int(note.read_text()))
        family = [shell_process, *shell_process.children()]
        await bench.runner.cancel(order.id)
        await until(lambda: not any(one.is_running() for one in family))

    run(story())


def test_committed_results_stay_after_cancel(bench: Bench, run: Run) -> None:
    data = bench.array([1])
    quick, slow = doubled(data), slept(data, seconds=600)
    order = bench.order(quick, slow)

    async def story() -> list[Any]:
        await bench.runner.start(order)
        await bench.runner.follow(order.id, 0, 30)
        await bench.runner.cancel(order.id)
        return await bench.reports(order)

    reports = run(story())
    assert [report.key for report in stored_only(reports)] == [quick.key]
    assert find_result(bench.stores[1].url, quick.key) is not None


def test_close_gives_the_order_back(tmp_path: Path, workers: LocalBackend, run: Run) -> None:
    bench = Bench(tmp_path, workers)
    order = bench.order(slept(bench.array([1]), seconds=600))

    async def story() -> None:
        await bench.runner.start(order)
        await asyncio.sleep(0.2)
        await bench.runner.close()
        error, fault = failure_of(await bench.runner.follow(order.id, 0, 0))
        assert isinstance(error, SiteUnreachable)
        assert fault == "site"
        with pytest.raises(SiteUnreachable):
            await bench.runner.start(replace(order, id="other"))
        for address in await (await workers.client()).nthreads():
            await workers.stop_worker(address)

    run(story())


# --- what is refused -------------------------------------------------------------------------


def only(*installed: str) -> Any:
    """Lets orders in whose operations are all installed."""

    def admit(order: Any) -> Any:
        for step in order.steps:
            name = f"{step.operation.name}@{step.operation.version}"
            if name not in installed:
                raise SiteRefused("ams", f"{name} is not installed")
        return order

    return admit


def be_steward(bench: Bench, admit: Any = None) -> None:
    bench.runner = SiteRunner(
        site=Site(name="ams", trust="steward"),
        stores=lambda: bench.stores,
        backend=bench.backend,
        code=bench.code,
        source_of=lambda replica, errand: StoreSource(replica=replica),
        publish=bench.published.extend,
        clock=time.time,
        new_attempt=lambda: "try",
        admit=admit,
    )


def test_a_steward_runs_no_command_of_a_stranger(tmp_path: Path, run: Run) -> None:
    bench = Bench(tmp_path, NoBackend())
    be_steward(bench)
    table = bench.data / "t.csv"
    table.write_text("a\n1\n")
    order = bench.order(count_lines(table=bench.register(table)))
    with pytest.raises(SiteRefused, match="a steward runs only what is installed"):
        run(bench.runner.start(order))
    with pytest.raises(KeyError):
        run(bench.runner.follow(order.id, 0, 0))


def test_a_steward_runs_what_is_installed(bench: Bench, run: Run) -> None:
    graph = doubled(bench.array([1, 2]))
    operation = doubled.operation
    be_steward(bench, only(f"{operation.name}@{operation.version}"))
    assert run(bench.value(graph)).values.tolist() == [2, 4]
    with pytest.raises(SiteRefused, match=f"total@{total.operation.version} is not installed"):
        run(bench.runner.start(bench.order(total(graph))))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds(), st.booleans())
def test_no_step_of_a_plan_is_taken_for_forged(world: World, reuse: bool) -> None:
    try:
        plan = make_plan(
            world.graph,
            topology=world.topology,
            replicas=world.replicas,
            verdicts=world.verdicts,
            reuse=reuse,
        )
    except PlacementError:
        assume(False)
    homes = {key: frozenset(r.site for r in found) for key, found in world.replicas.items()}
    groups = [[plan.step_by_key[key] for key in part.steps] for part in plan.segments]
    known = [(steps, originals_of(plan, steps)) for steps in groups]
    apart = list(split(world.graph, homes).steps.values())
    for steps, proof in (*known, (apart, tuple(world.graph.steps.values()))):
        cut = {step.key: step for step in (*proof, *steps)}
        originals = {step.key: step for step in proof if step.stage == "whole"}
        for step in steps:
            event(f"{step.stage} {step.operation.kind}")
            assert not forged(step, cut, originals), step
            for other in (
                replace(step, inputs=(*step.inputs[:-1], "another")),
                replace(step, inputs=(*step.inputs, *step.inputs[-1:])),
                replace(step, key="another"),
            ):
                assert forged(other, cut, originals), other
            if step.stage == "combine":
                assert forged(step, cut), "without a proof it is nothing"


@operation(kind="linear")
def weighed(x, y):
    return x - 2 * y


@operation(kind="reduction", combine=max, output="scalar")
def largest(x):
    return x.max()


def shares(bench: Bench, whole: Graph) -> tuple[dict[str, Step], list[str]]:
    keys = list(whole.sources)
    sites = ["a", "b", "b", "a"]
    homes = {key: frozenset({sites[n]}) for n, key in enumerate(keys)}
    steps = split(whole, homes).steps
    return dict(steps), [f"{step.stage}" for step in steps.values()]


def test_the_keys_of_shares_are_checked(bench: Bench) -> None:
    a, b, c, d = (bench.array([n, 1.0, 2.0], name) for n, name in enumerate("abcd"))
    for whole in (total(a, b, c, d), largest(a, b, c, d), total(2 * a - b), total(weighed(a, b))):
        steps, stages = shares(bench, whole)
        assert "combine" in stages
        assert not any(forged(step, steps, whole.steps) for step in steps.values())
    for whole in (total(a, b, c, d), largest(a, b, c, d)):
        steps, stages = shares(bench, whole)
        for step in steps.values():
            if step.stage == "merge":
                assert forged(replace(step, inputs=step.inputs[::-1]), steps)
                assert forged(replace(step, key="another"), steps)
            if step.stage == "part":
                assert forged(replace(step, inputs=("another",)), steps)
    steps, _ = shares(bench, weighed(a, b))
    apart = [step for step in steps.values() if step.absent]
    assert len(apart) == 2
    for part in apart:
        ((slot, _),) = part.absent
        assert not forged(part)
        assert forged(replace(part, absent=((slot, "another"),)))
        assert forged(replace(part, inputs=("another",)))
        assert forged(replace(part, parts=(7,)))
        assert forged(replace(part, mother="another"))


def test_a_merge_of_parts_of_something_else_is_forged(bench: Bench) -> None:
    whole = total(*(bench.array([n, 1.0], name) for n, name in enumerate("abcd")))
    steps, _ = shares(bench, whole)
    other = replace(total.operation, version="other")
    for merge in (step for step in steps.values() if step.stage == "merge"):
        assert forged(replace(merge, operation=other), steps)
        assert forged(merge), "its parts are not at hand"
        assert not forged(merge, originals=whole.steps)
        assert forged(replace(merge, parts=(0, 1)), originals=whole.steps)


def test_a_combined_result_is_not_that_of_another(tmp_path: Path, run: Run) -> None:
    """The key of a combine is that of a step whose inputs it does not name."""
    bench = Bench(tmp_path, NoBackend())
    mine, theirs = (bench.array([n, 1.0], name) for n, name in enumerate("ab"))
    victim = total(theirs, theirs)
    order = bench.order(total(mine))
    (step,) = order.steps
    part = replace(step, stage="part", mother=victim.key, parts=(0,))
    lie = replace(
        part, key=victim.key, label="liar", inputs=(part.key,), slots=("*",), stage="combine"
    )
    forged_order = replace(order, steps=(part, lie), outputs=(victim.key,))
    for originals in ((), tuple(victim.steps.values()), tuple(total(mine, mine).steps.values())):
        with pytest.raises(SiteRefused, match="the key of 'liar'"):
            run(bench.runner.start(replace(forged_order, originals=originals)))


@pytest.mark.parametrize("kind", ["function", "command", "arithmetic"])
def test_a_result_is_not_stored_under_the_key_of_another(
    tmp_path: Path, run: Run, kind: str
) -> None:
    bench = Bench(tmp_path, NoBackend())
    a = bench.array([1, 2])
    table = bench.data / "t.csv"
    table.write_text("a\n1\n")
    honest: Graph = {
        "function": lambda: doubled(a),
        "command": lambda: count_lines(table=bench.register(table)),
        "arithmetic": lambda: 2 * a,
    }[kind]()
    order = bench.order(honest)
    (step,) = order.steps
    assert not forged(step)
    victim = doubled(bench.array([3, 4], "b")).key
    lie = replace(order, steps=(replace(step, key=victim, label="liar"),), outputs=(victim,))
    with pytest.raises(SiteRefused, match="the key of 'liar'"):
        run(bench.runner.start(lie))


def test_an_id_is_that_of_one_order(tmp_path: Path, run: Run, far: tuple[Replica, Dataset]) -> None:
    bench, _, order = copying(tmp_path, far)
    first = run(bench.reports(order(user="ada")))
    assert bench.runner.owner("copy1") == "ada"
    assert bench.runner.owner("copy2") is None
    with pytest.raises(SiteRefused, match="'copy1' is the id of another order"):
        run(bench.runner.start(order(user="eve")))
    assert run(bench.reports(order(user="ada"))) == first


# --- memory ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_array_larger_than_a_worker_is_streamed(tmp_path: Path, run: Run) -> None:
    backend = LocalBackend(workers=1, threads=1, memory=500_000_000, directory=tmp_path / "workers")
    bench = Bench(tmp_path, backend)
    path = bench.data / "large.npy"
    values = np.lib.format.open_memmap(path, mode="w+", dtype="f8", shape=(1000, 100_000))
    for row in range(0, 1000, 100):
        values[row : row + 100] = row
    values.flush()
    data = bench.register(path)

    async def story() -> Stored:
        try:
            (stored,) = await bench.stored(doubled(data))
            return stored
        finally:
            await bench.runner.close()
            await backend.close()

    stored = run(story())
    value = xr.open_zarr(stored.replica.url)["data"]
    assert value.shape == (1000, 100_000)
    assert [float(value[row, 99_999]) for row in (0, 150, 999)] == [0, 200, 1800]


def test_values_are_let_go(bench: Bench, run: Run, workers: LocalBackend) -> None:
    data = bench.array(np.arange(4.0))
    run(bench.stored(total(doubled(data)), doubled(data)))

    async def story() -> None:
        client = await workers.client()

        async def held() -> int:
            return sum(map(len, (await client.has_what()).values()))

        for _ in range(100):
            if not await held():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("workers still hold values")

    run(story())


# --- copies ----------------------------------------------------------------------------------


class Slow:
    """A source that takes its time, and fails when told to."""

    def __init__(self, replica: Replica, fail_after: int = 10**9, error: Exception | None = None):
        self.inner = StoreSource(replica=replica)
        self.left, self.reads = fail_after, 0
        self.error = error or SiteUnreachable("delft", "the link is cut")

    async def listing(self) -> Sequence[FileEntry]:
        if self.left < 0:
            raise self.error
        return await self.inner.listing()

    async def read(self, path: str, start: int, end: int) -> bytes:
        self.left -= 1
        self.reads += 1
        if self.left < 0:
            await asyncio.sleep(0.5)
            raise self.error
        await asyncio.sleep(0.05)
        return await self.inner.read(path, start, end)


@pytest.fixture
def far(tmp_path: Path) -> tuple[Replica, Dataset]:
    """A Zarr array at another site."""
    path = tmp_path / "far" / "grid.zarr"
    xr.Dataset({"t": ("x", np.arange(40.0))}).chunk(x=10).to_zarr(path, consolidated=False)
    there = Bench(tmp_path / "far", NoBackend())
    key = there.register(path).key
    return moved(there.replicas[key]), there.datasets[key]


def copying(
    tmp_path: Path, far: tuple[Replica, Dataset], **slow: Any
) -> tuple[Bench, Slow, Callable[..., TransferOrder]]:
    replica, dataset = far
    source = Slow(replica, **slow)
    asked: list[str] = []

    def source_of(wanted: Replica, errand: Errand) -> Slow:
        assert (wanted, errand.job, errand.to) == (replica, "job1", "ams")
        asked.append(errand.job)
        return source

    bench = Bench(tmp_path, NoBackend(), source_of=source_of)

    def order(id: str = "copy1", **fields: Any) -> TransferOrder:
        return TransferOrder(
            id=id,
            job="job1",
            site="ams",
            key=replica.key,
            replica=replica,
            dataset=dataset,
            **fields,
        )

    return bench, source, order


@pytest.mark.usefixtures("plain_logs")
def test_every_line_of_the_log_says_whose_it_is(
    tmp_path: Path, run: Run, far: tuple[Replica, Dataset]
) -> None:
    bench, _, order = copying(tmp_path, far)
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        run(bench.reports(order(user="anna")))
    assert {line["event"] for line in lines} >= {"order-ended"}
    for line in lines:
        assert (line["job"], line["user"], line["site"]) == ("job1", "anna", "ams"), line
    assert not structlog.contextvars.get_contextvars(), "nothing is left for others"
    assert "dataflow_orders_ended" in {one.name for one in bench.runner.tally.figures()}


def test_copy(tmp_path: Path, run: Run, far: tuple[Replica, Dataset]) -> None:
    bench, _, order = copying(tmp_path, far)
    crossed, stored, ended = run(bench.reports(order()))
    assert isinstance(crossed, Crossed)
    assert (crossed.source, crossed.target) == ("delft", "ams")
    assert crossed.nbytes == far[0].nbytes
    assert isinstance(stored, Stored)
    assert stored.dataset == far[1]
    assert not stored.reused
    assert isinstance(ended, Ended)
    assert bench.published == [stored.replica]
    assert "/copies/" in stored.replica.url
    assert stored.replica.site == "ams"
    assert value_of(replace(stored, replica=stored.replica)).sum() == 780

    again, ended = run(bench.reports(order("copy2")))
    assert isinstance(again, Stored)
    assert again.reused
    assert isinstance(ended, Ended)


def test_two_orders_share_a_copy(tmp_path: Path, run: Run, far: tuple[Replica, Dataset]) -> None:
    bench, _, order = copying(tmp_path, far)

    async def story() -> list[Any]:
        return list(await asyncio.gather(*(bench.reports(order(f"copy{n}")) for n in range(3))))

    reports = [report for some in run(story()) for report in some]
    crossed = [report for report in reports if isinstance(report, Crossed)]
    assert [report.nbytes for report in crossed] == [far[0].nbytes]
    assert sorted(report.reused for report in stored_only(reports)) == [False, True, True]


def test_interrupted_copy_goes_on(tmp_path: Path, run: Run, far: tuple[Replica, Dataset]) -> None:
    bench, source, order = copying(tmp_path, far, fail_after=3)
    reports = run(bench.reports(order()))
    crossed, _ = reports
    error, fault = failure_of(reports)
    assert isinstance(error, SiteUnreachable)
    assert fault == "site"
    assert "delft" in str(error)
    source.left = 100
    second, stored, _ = run(bench.reports(order("copy2")))
    assert isinstance(stored, Stored)
    assert crossed.nbytes + second.nbytes == far[0].nbytes


@pytest.mark.parametrize(
    ("error", "expected", "fault"),
    [
        (UnknownDataset("grid"), UnknownDataset, "input"),
        (UnreadableDataset("file:///grid", "nothing is there"), UnreadableDataset, "input"),
        (SiteUnreachable("delft", "no answer"), SiteUnreachable, "site"),
        (OSError("broken pipe"), TransferFailed, "site"),
    ],
)
def test_source_that_fails(
    tmp_path: Path,
    run: Run,
    far: tuple[Replica, Dataset],
    error: Exception,
    expected: type[Exception],
    fault: str,
) -> None:
    bench, _, order = copying(tmp_path, far, fail_after=-1, error=error)
    reports = run(bench.reports(order()))
    found, whose = failure_of(reports)
    assert type(found) is expected
    assert whose == fault
    assert len(reports) == 1
    if expected is TransferFailed:
        assert "from delft to ams" in str(found)


def test_copy_is_cancelled_and_another_order_takes_over(
    tmp_path: Path, run: Run, far: tuple[Replica, Dataset]
) -> None:
    bench, source, order = copying(tmp_path, far)

    async def story() -> None:
        await bench.runner.start(order("copy1"))
        await until(lambda: source.reads > 0)
        await bench.runner.start(order("copy2"))
        await bench.runner.cancel("copy1")
        error, _ = failure_of(await bench.reports(order("copy1")))
        assert isinstance(error, JobCancelled)
        reports = await bench.reports(order("copy2"))
        assert isinstance(reports[-1], Ended)
        assert not stored_only(reports)[0].reused

    run(story())


def test_copy_without_a_dataset(tmp_path: Path, run: Run, far: tuple[Replica, Dataset]) -> None:
    bench, _, order = copying(tmp_path, far)
    _, stored, _ = run(bench.reports(replace(order(), dataset=None)))
    assert stored.dataset.key == far[0].key


def test_an_order_that_is_cancelled_while_its_news_are_waited_for_never_begins(
    bench: Bench, run: Run
) -> None:
    order = bench.order(doubled(bench.array([1.0])))

    async def story() -> None:
        heard = asyncio.Event()

        async def hear(_: Any) -> None:
            await heard.wait()

        bench.runner._hear = hear
        first = asyncio.create_task(bench.runner.start(order))
        await asyncio.sleep(0.01)
        await bench.runner.cancel(order.id)
        again = asyncio.create_task(bench.runner.start(order))
        await asyncio.sleep(0.01)
        heard.set()
        await first
        assert not again.done() or bench.runner.known(order.id) is not None
        await again
        assert bench.runner.known(order.id) is not None, "what was sent after the cancel begins"
        assert not bench.runner._hearing
        later = replace(order, id="later")
        heard.clear()
        waiting = asyncio.create_task(bench.runner.start(later))
        await asyncio.sleep(0.01)
        await bench.runner.cancel(later.id)
        heard.set()
        await waiting
        assert bench.runner.known(later.id) is None

    run(story())

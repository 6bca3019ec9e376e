"""What runs inside a worker, run here: stages, values on their way, commands, failures."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import dask.array
import dask.dataframe
import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr
from distributed import KilledWorker
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.datasets import Replica
from dataflow.errors import (
    CorruptResult,
    OperationFailed,
    StorageError,
    UnreadableDataset,
    WorkerLost,
    from_document,
)
from dataflow.execution import in_worker, inputs
from dataflow.execution.code import pack
from dataflow.execution.commands import Unwanted, run_command
from dataflow.execution.failures import LONGEST_TEXT, failure_of, text_of, user_traceback
from dataflow.execution.inputs import Lying, fetched, path_of
from dataflow.execution.stages import added, call, carried, evaluate, is_lazy
from dataflow.execution.to_dask import Outcome, Place, Work, report, run_step
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.operation import Functions, Step, operation, shell
from dataflow.graph.split import split
from dataflow.storage.manifest import FileEntry
from dataflow.storage.results import find_result
from dataflow.testing.strategies import dataset, graphs, lowest_top, total, weighted

N = 12
NAMES = ("run1", "run2", "run3", "run4")


# --- a graph, step by step through run_step ----------------------------------------------------


def through_workers(
    graph: Graph, data: Mapping[str, Any], root: Path, *, store: bool = False
) -> dict[str, Any]:
    """Values of the outputs, each step run as a worker runs it and its outcome pickled."""
    outcomes = {key: Outcome(value=value) for key, value in data.items()}
    for key, step in graph.steps.items():
        earlier = list(dict.fromkeys(step.inputs))
        work = Work(
            step=step,
            site="ams",
            attempt="try1",
            place=Place(root=f"file://{root}", store="results"),
            inputs=tuple(earlier.index(wanted) for wanted in step.inputs),
            payload=pack(graph.functions[step.operation.code]),
            extents={wanted: graph.extents[wanted] for _, wanted in step.absent},
            store=store,
            keep=True,
        )
        outcome = run_step(work, *(outcomes[wanted] for wanted in earlier))
        assert outcome.failure is None, outcome.failure
        outcomes[key] = cloudpickle.loads(cloudpickle.dumps(outcome))
    return {key: opened(outcomes[key].value) for key in graph.outputs}


def opened(value: Any) -> Any:
    found = in_worker._opened(value, lazy=False, scratch=lambda: Path())
    return found.compute() if is_lazy(found) else found


@st.composite
def pieces(draw: st.DrawFn) -> dict[str, xr.DataArray]:
    """Arrays of whole numbers, so that sums do not depend on their order; in memory or in blocks."""
    found = {}
    for name in NAMES:
        values = draw(st.lists(st.integers(-9, 9), min_size=N, max_size=N))
        array = xr.DataArray(np.array(values, "f8"), dims="x")
        found[name] = array.chunk(x=draw(st.integers(1, N))) if draw(st.booleans()) else array
    return found


@settings(max_examples=40)
@given(
    graph=graphs(max_datasets=4, max_steps=5, elements=N),
    data=pieces(),
    homes=st.fixed_dictionaries(
        {
            name: st.sampled_from(["ams", "delft", "uva"]).map(lambda s: frozenset({s}))
            for name in NAMES
        }
    ),
)
def test_split_equals_whole(
    tmp_path_factory: pytest.TempPathFactory,
    graph: Graph,
    data: dict[str, Any],
    homes: dict[str, frozenset[str]],
) -> None:
    root = tmp_path_factory.getbasetemp()
    apart = split(graph, homes)
    whole, parts = through_workers(graph, data, root), through_workers(apart, data, root)
    for key in graph.outputs:
        np.testing.assert_allclose(np.asarray(parts[key]), np.asarray(whole[key]), rtol=1e-12)


@settings(max_examples=10)
@given(data=pieces())
def test_it_makes_no_difference_what_is_stored_on_the_way(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    one, two, three = (of_dataset(dataset(name, N)) for name in NAMES[:3])
    graph = weighted(one + two, three - one)
    root = tmp_path_factory.mktemp("results")
    (kept,) = through_workers(graph, data, root).values()
    (stored,) = through_workers(graph, data, root, store=True).values()
    assert float(kept) == float(stored)


def test_reduction_finishes_once_at_the_end(tmp_path: Path) -> None:
    graph = lowest_top(*(of_dataset(dataset(name, N)) for name in NAMES[:3]))
    data = {name: xr.DataArray(np.arange(N) + n, dims="x") for n, name in enumerate(NAMES)}
    apart = split(graph, {name: frozenset({name}) for name in NAMES})
    assert {step.stage for step in apart.steps.values()} == {"part", "combine"}
    assert float(through_workers(apart, data, tmp_path)[graph.key]) == -13
    single = lowest_top(of_dataset(dataset("run1", N)))
    assert float(through_workers(single, data, tmp_path)[single.key]) == -11


def test_partial_results_are_the_same_whether_they_travel_or_not(tmp_path: Path) -> None:
    seen: list[str] = []

    def both(p: Any, q: Any) -> Any:
        seen.extend(type(x).__name__ for x in (p, q))
        return {"n": p["n"] + q["n"], "s": p["s"] + q["s"]}

    @operation(kind="reduction", combine=both, finish=lambda p: p["s"] / p["n"])
    def mean(x):
        return {"n": x.size, "s": float(x.sum())}

    graph = mean(*(of_dataset(dataset(name, N)) for name in NAMES[:2]))
    data = {name: xr.DataArray(np.arange(N), dims="x") for name in NAMES[:2]}
    (step,) = graph.steps.values()
    values = [data[key] for key in step.inputs]
    assert float(evaluate(step, mean.functions, values, {})) == 5.5
    assert set(seen) == {"Dataset"}
    apart = split(graph, {name: frozenset({name}) for name in NAMES})
    assert float(through_workers(apart, data, tmp_path, store=True)[graph.key]) == 5.5


def test_tables_in_pieces(tmp_path: Path) -> None:
    @operation(kind="linear", lazy=False)
    def counts(table):
        assert isinstance(table, pd.DataFrame)
        return table.groupby("kind")[["n"]].sum()

    graph = counts(*(of_dataset(dataset(name, N)) for name in NAMES[:2]))
    table = pd.DataFrame({"kind": ["a", "b", "a"], "n": [1, 2, 3]})
    lazy = dask.dataframe.from_pandas(table, npartitions=2)
    apart = split(graph, {name: frozenset({name}) for name in NAMES})
    value = through_workers(apart, {"run1": table, "run2": lazy}, tmp_path)[graph.key]
    assert value["n"].to_dict() == {"a": 8, "b": 4}


# --- sums and calls --------------------------------------------------------------------------


def test_sum_refuses_other_coordinates() -> None:
    left = xr.DataArray([1, 2], coords={"x": [0, 1]}, dims="x")
    assert added([left, left, left]).values.tolist() == [3, 6]
    with pytest.raises(ValueError, match="align"):
        added([left, left.assign_coords(x=[1, 2])])
    with pytest.raises(ValueError, match="different variables"):
        added([left.to_dataset(name="a"), left.to_dataset(name="b")])
    assert added([1, 2]) == 3
    assert xr.get_options()["arithmetic_join"] == "inner"


def test_arithmetic_refuses_other_coordinates(tmp_path: Path) -> None:
    left, right = (of_dataset(dataset(name, 2)) for name in NAMES[:2])
    (step,) = (left + right).steps.values()
    (functions,) = (left + right).functions.values()
    values = [xr.DataArray([1, 2], coords={"x": [n, n + 1]}, dims="x") for n in range(2)]
    with pytest.raises(ValueError, match="align"):
        evaluate(step, functions, values, {})


def test_arguments_get_where_they_belong() -> None:
    def ordinary(a, b, *, c=0):
        return a, b, c

    def with_rest(a, n, *rest, c=0):
        return a, n, rest, c

    def positional(a, /, b, **more):
        return a, b, more

    assert call(ordinary, [("b", 2), ("a", 1)], {"c": 3}) == (1, 2, 3)
    assert call(with_rest, [("a", 1), ("*", 2), ("*", 3)], {"n": 9}) == (1, 9, (2, 3), 0)
    assert call(with_rest, [("a", 1)], {"n": 9, "c": 4}) == (1, 9, (), 4)
    assert call(positional, [("a", 1), ("z", 5)], {"b": 2}) == (1, 2, {"z": 5})


def test_values_are_carried_in_their_stored_form() -> None:
    assert isinstance(carried(1.5), xr.DataArray)
    assert isinstance(carried(np.arange(3)), xr.DataArray)
    assert isinstance(carried({"a": 1}), xr.Dataset)
    assert isinstance(carried(pd.Series([1])), pd.DataFrame)
    assert carried(Path("x")) == [Path("x")]
    thing = object()
    assert carried(thing) is thing


def test_what_is_lazy() -> None:
    array = dask.array.ones(4)
    assert is_lazy(array)
    assert is_lazy(xr.DataArray(array))
    assert is_lazy(xr.Dataset({"a": ("x", array)}))
    assert is_lazy({"a": [1, (array,)]})
    assert not is_lazy(xr.DataArray(np.ones(4)))
    assert not is_lazy({"a": [1, xr.DataArray]})


# --- one step --------------------------------------------------------------------------------


def work_of(graph: Graph, root: Path, **fields: Any) -> Work:
    (step,) = graph.steps.values()
    functions = graph.functions[step.operation.code]
    return Work(
        **{
            "step": step,
            "site": "ams",
            "attempt": "try1",
            "place": Place(root=f"file://{root}", store="results"),
            "inputs": tuple(range(len(step.inputs))),
            "payload": pack(functions),
            **fields,
        }
    )


run1 = of_dataset(dataset("run1", N))
ONES = Outcome(value=xr.DataArray(np.ones(N), dims="x"))


def test_failure_of_an_earlier_step_is_passed_on(tmp_path: Path) -> None:
    failed = Outcome(failure=failure_of(ValueError("no"), label="first", site="ams"))
    outcome = run_step(work_of(total(run1), tmp_path, store=True), failed)
    assert outcome.failure is failed.failure
    assert not list(tmp_path.iterdir())


def test_site_gets_no_value(tmp_path: Path) -> None:
    outcome = run_step(work_of(total(run1), tmp_path, store=True, keep=True), ONES)
    assert float(outcome.value) == N
    told = report(outcome)
    assert told.value is None
    assert told.manifest == outcome.manifest
    assert run_step(work_of(total(run1), tmp_path / "b", store=True), ONES).value is None


def test_lazy_value_that_is_stored_is_read_from_there(tmp_path: Path) -> None:
    lazy = Outcome(value=xr.DataArray(dask.array.ones(N, chunks=3), dims="x"))
    outcome = run_step(work_of(2 * run1, tmp_path, store=True, keep=True), lazy)
    assert isinstance(outcome.value, Lying)
    assert opened(outcome.value).values.tolist() == [2.0] * N


def test_nothing_is_lazy_for_an_eager_function(tmp_path: Path) -> None:
    @operation(lazy=False)
    def look(x):
        return not is_lazy(x)

    lazy = Outcome(value=xr.DataArray(dask.array.ones(N, chunks=3), dims="x"))
    outcome = run_step(work_of(look(run1), tmp_path, keep=True), lazy)
    assert bool(outcome.value)


def test_value_that_cannot_go_to_the_next_step(tmp_path: Path) -> None:
    @operation(lazy=False)
    def locked(x):
        return threading.Lock()

    failure = run_step(work_of(locked(run1), tmp_path, keep=True), ONES).failure
    assert failure is not None
    assert failure.fault == "user"
    assert "cannot be handed to the next step" in str(from_document(failure.error))


def test_payload_that_cannot_be_opened(tmp_path: Path) -> None:
    work = work_of(total(run1), tmp_path, payload=b"nonsense")
    failure = run_step(work, ONES).failure
    assert failure is not None
    assert failure.fault == "user"


def test_bytes_that_are_no_array(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"not an array at all")
    replica = Replica(
        key="run1", site="ams", store="data", url=f"file://{path}", format="npy", nbytes=19
    )
    work = work_of(total(run1), tmp_path, inputs=(Lying(replica=replica, kind="array"),))
    failure = run_step(work).failure
    assert failure is not None
    assert failure.fault == "input"
    assert isinstance(from_document(failure.error), UnreadableDataset)


def test_memory_and_small_graphs_need_no_other_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(collections: Any) -> Any:
        raise AssertionError("asked other workers")

    monkeypatch.setattr(in_worker, "_computed_by_all", refuse)
    monkeypatch.setattr(in_worker, "_worker", lambda: None)
    run_step(work_of(2 * run1, tmp_path / "a", store=True), ONES)
    small = Outcome(value=xr.DataArray(dask.array.ones(N), dims="x"))
    monkeypatch.setattr(in_worker, "_worker", object)
    collection = (small.value * 2).data
    assert in_worker._computed(collection)[0].tolist() == [2.0] * N
    with pytest.raises(AssertionError, match="other workers"):
        in_worker._computed(dask.array.ones(100, chunks=1))


def test_secrets_are_not_shown() -> None:
    secret = {"secret_access_key": "hunter2"}
    replica = Replica(key="k", site="ams", store="s", url="s3://b/k", format="zarr", nbytes=1)
    lying = Lying(replica=replica, kind="array", credentials=secret)
    place = Place(root="s3://b", store="s", credentials=secret)
    work = work_of(total(run1), Path("/"), inputs=(lying,), place=place)
    assert "hunter2" not in repr(work)
    assert pickle.loads(pickle.dumps(work)) == work


def test_environment_is_said() -> None:
    versions = in_worker.environment()
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"python", "numpy", "xarray", "dask", "zarr", "dataflow"}


# --- commands --------------------------------------------------------------------------------


def command_step(command: str, **inputs: Any) -> Step:
    (step,) = shell(command)(**inputs).steps.values()
    return step


def ran(step: Step, directory: Path, *paths: Path, gone: Any = lambda: False) -> list[Path]:
    directory.mkdir()
    inputs = [(lying_at(path), path) for path in paths]
    return run_command(
        step, inputs, directory, site="ams", run="try1", gone=gone, tell=lambda program: None
    )


def lying_at(path: Path) -> Lying:
    replica = Replica(
        key="k", site="ams", store="data", url=f"file://{path}", format="files", nbytes=1
    )
    return Lying(replica=replica, kind="files")


def test_placeholders_are_quoted(tmp_path: Path) -> None:
    data = tmp_path / "it's; here"
    data.write_text("x\n")
    step = command_step(
        "cat {data} > {output:one.txt}; echo {word} {number} >> {output:one.txt}; pwd > {output}",
        data=run1,
        word="$(rm -rf /) 'quoted'",
        number=3,
    )
    one, two = ran(step, tmp_path / "work", data)
    assert one.read_text() == "x\n$(rm -rf /) 'quoted' 3\n"
    assert two.read_text().strip() == str(tmp_path / "work")
    assert (one.name, two.name) == ("one.txt", "output")


def test_only_the_end_of_stderr_is_kept(tmp_path: Path) -> None:
    step = command_step("seq 1 100000 >&2; cat {x} > {output}; exit 7", x=run1)
    (tmp_path / "x").touch()
    with pytest.raises(OperationFailed, match="status 7") as caught:
        ran(step, tmp_path / "work", tmp_path / "x")
    assert caught.value.traceback.endswith("100000")
    assert len(caught.value.traceback) <= 4_000


def test_command_ended_by_a_signal(tmp_path: Path) -> None:
    step = command_step("kill -TERM $$; cat {x} > {output}", x=run1)
    with pytest.raises(OperationFailed, match="SIGTERM"):
        ran(step, tmp_path / "work", tmp_path)


def test_unwanted_command_dies_with_its_children(tmp_path: Path) -> None:
    step = command_step("sleep 613 & sleep 613; cat {x} > {output}", x=run1)
    begun = time.monotonic()
    with pytest.raises(Unwanted):
        ran(step, tmp_path / "work", tmp_path, gone=lambda: time.monotonic() - begun > 0.3)
    assert time.monotonic() - begun < 5
    time.sleep(0.1)
    assert not any(
        "613" in process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"]
    )


def test_command_sees_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_LAB", "hunter2")
    (file,) = ran(command_step("env > {output}; : {x}", x=run1), tmp_path / "work", tmp_path)
    assert "hunter2" not in file.read_text()


def test_commands_files_are_always_stored(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("a\nb\n")
    replica = Replica(
        key="run1",
        site="ams",
        store="data",
        url=f"file://{tmp_path}/data.txt",
        format="files",
        nbytes=4,
    )
    graph = shell("wc -l < {x} > {output:n.txt}")(x=run1)
    (step,) = graph.steps.values()
    work = Work(
        step=step,
        site="ams",
        attempt="try1",
        place=Place(root=f"file://{tmp_path}/results", store="results"),
        inputs=(Lying(replica=replica, kind="files"),),
        keep=True,
    )
    outcome = run_step(work)
    assert outcome.failure is None
    assert isinstance(outcome.value, Lying)
    assert path_of(outcome.value, lambda: tmp_path).read_text().strip() == "2"
    assert find_result(f"file://{tmp_path}/results", step.key) is not None


def test_files_of_an_object_store_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore.store

    memory = obstore.store.MemoryStore()
    memory.put("a.txt", b"one")
    memory.put("below/b.txt", b"two")
    entries = [FileEntry("a.txt", 3), FileEntry("below/b.txt", 3)]
    monkeypatch.setattr(inputs, "object_store", lambda url, **_: memory)
    monkeypatch.setattr(inputs, "listing_of", lambda replica, **_: tuple(entries))
    replica = Replica(
        key="k", site="ams", store="s", url="s3://bucket/run", format="files", nbytes=6
    )
    lying = Lying(replica=replica, kind="files")
    scratch = iter([tmp_path / str(n) for n in range(9)])
    found = in_worker._opened(lying, lazy=False, scratch=lambda: next(scratch))
    assert [path.read_bytes() for path in found] == [b"one", b"two"]
    assert path_of(lying, lambda: next(scratch)) == tmp_path / "1"
    del entries[1]
    assert path_of(lying, lambda: next(scratch)) == tmp_path / "2" / "a.txt"
    entries[0] = FileEntry("../a.txt", 3)
    with pytest.raises(UnreadableDataset, match="no name of a file"):
        fetched(lying, tmp_path / "3")


# --- failures --------------------------------------------------------------------------------


def fails(function: Any) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


def test_failure_survives_pickling_and_http() -> None:
    error = fails(lambda: {}["gone"])
    failure = failure_of(error, label="step", site="ams")
    again = pickle.loads(pickle.dumps(failure))
    assert again == failure
    read = from_document(failure.error)
    assert isinstance(read, OperationFailed)
    assert (read.operation, read.site, read.error) == ("step", "ams", "KeyError: 'gone'")
    assert "test_to_dask.py" in read.traceback
    assert "KeyError: 'gone'" in read.traceback


def test_traceback_keeps_the_users_frames() -> None:
    def inner(block: Any) -> Any:
        raise ZeroDivisionError

    array = dask.array.ones(3).map_blocks(inner, dtype="f8", meta=np.ones(0))
    text = user_traceback(fails(array.compute))
    assert "in inner" in text
    assert "dask/" not in text


@pytest.mark.parametrize(
    ("error", "kind", "fault"),
    [
        (ValueError("no"), OperationFailed, "user"),
        (MemoryError(), OperationFailed, "user"),
        (FileNotFoundError("my own file"), OperationFailed, "user"),
        (FileNotFoundError("/data/a.csv"), UnreadableDataset, "input"),
        (UnreadableDataset("file:///data/a.csv", "gone"), UnreadableDataset, "input"),
        (CorruptResult("file:///data/a.csv/x", "chunk 3 is missing"), CorruptResult, "input"),
        (CorruptResult("file:///results/ab", "1 is missing"), CorruptResult, "site"),
        (KilledWorker("t", None, 0), WorkerLost, "worker"),
    ],
)
def test_whose_fault(error: BaseException, kind: type[Exception], fault: str) -> None:
    failure = failure_of(error, label="step", site="ams", inputs=["file:///data/a.csv"])
    assert failure.fault == fault
    assert type(from_document(failure.error)) is kind


def test_store_that_fails_is_the_sites_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    work = work_of(total(run1), tmp_path / "file" / "results", store=True)
    failure = run_step(work, ONES).failure
    assert failure is not None
    assert failure.fault == "site"
    assert isinstance(from_document(failure.error), StorageError)


@pytest.mark.parametrize("value", [object(), [1, [2, 3]], xr.DataArray([object()])])
def test_value_without_a_form_is_the_users_fault(tmp_path: Path, value: Any) -> None:
    graph = total(run1)
    payload = pack(Functions(lambda x: value))
    failure = run_step(work_of(graph, tmp_path, store=True, payload=payload), ONES).failure
    assert failure is not None
    assert failure.fault == "user"


def test_texts_are_bounded_whatever_they_say() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    assert text_of(Odd()) == "Odd: (it has no text)"
    assert len(text_of(ValueError("x" * 10**6))) == LONGEST_TEXT
    assert text_of(KeyboardInterrupt()) == "KeyboardInterrupt"

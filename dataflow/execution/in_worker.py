"""Inside a worker: opens what lies in stores, takes what earlier steps hand it, calls the function
and stores the result.
"""

from __future__ import annotations

import functools
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflow import tracing
from dataflow.errors import OperationFailed, PolicyError, StorageError, to_document
from dataflow.execution.code import unpack
from dataflow.execution.commands import Unwanted, run_command
from dataflow.execution.failures import Failure, failure_of
from dataflow.execution.floors import check_floors, row_set
from dataflow.execution.inputs import Lying, as_table, opened, path_of
from dataflow.execution.programs import Program
from dataflow.execution.stages import carried, evaluate, is_lazy
from dataflow.execution.to_dask import BEGUN, Outcome, Work
from dataflow.graph.operation import Functions
from dataflow.storage.layout import READ_NBYTES
from dataflow.storage.manifest import replica_of
from dataflow.storage.read import open_data
from dataflow.storage.results import find_result, write_result
from dataflow.storage.scratch import drawing_into
from dataflow.storage.tables import Batches
from dataflow.versions import differences

#: Attribute of a function that says how it wants its inputs, and the one word that it knows.
READS, TABLES = "reads", "tables"

#: Up to so many Dask tasks there is nothing to gain from other workers, only a way to go.
FEW = 6

#: So many blocks should fit into the memory of a worker's thread: what reads and what writes them
#: makes copies, and Dask pauses a worker for good that is four fifths full of what cannot be spilled.
BLOCKS_IN_MEMORY = 32

#: Seconds between two looks whether a step is still wanted while its blocks are computed.
LOOK_EVERY = 0.5


def dask_setup(worker: Any) -> None:
    """Called by Dask in a worker that starts: does once what the first step would have to wait for."""
    with tempfile.TemporaryDirectory(dir=worker.local_directory) as directory:
        write_result(0.0, root=directory, key="warm", attempt="up", provenance=environment())
        lying = find_result(directory, "warm")
        if lying is not None:
            open_data(replica_of(lying, "", ""), kind="array").compute(scheduler="sync")


def run(work: Work, *earlier: Outcome) -> Outcome:
    """Run one step; a failure is an outcome like any other."""
    programs = [program for outcome in earlier for program in outcome.programs]
    for outcome in earlier:
        if outcome.failure is not None:
            return Outcome(failure=outcome.failure, programs=tuple(programs))
    started = time.perf_counter()
    commits: list[float] = []
    _tell_begun()
    try:
        with _scratch() as scratch, tracing.commits() as commits:
            outcome = _run(work, earlier, scratch, programs.append)
    except Unwanted:
        outcome = Outcome()
    except BaseException as error:  # SystemExit of a function is no reason for a worker to end
        outcome = Outcome(failure=_failure(work, error))
    seconds, committing = time.perf_counter() - started, sum(commits) if commits else None
    programs_ran = tuple(programs)
    return replace(outcome, seconds=seconds, programs=programs_ran, commit_seconds=committing)


def _run(
    work: Work,
    earlier: Sequence[Outcome],
    scratch: Callable[[], Path],
    tell: Callable[[Program], None],
) -> Outcome:
    step = work.step
    _must_be_pinned(work)
    given = [
        source if isinstance(source, Lying) else earlier[source].value for source in work.inputs
    ]
    if step.operation.command:
        inputs = [(source, path_of(source, scratch)) for source in given]
        value: Any = run_command(
            step,
            inputs,
            scratch(),
            site=work.site,
            run=work.attempt,
            gone=_watch(),
            tell=tell,
        )
    else:
        functions = _functions(work)
        values = [_given(source, functions, step.operation.lazy, scratch) for source in given]
        if work.count:
            wanted = zip(values, work.floors, strict=False)
            return Outcome(
                rows=tuple(row_set(v, _computed) if floor else None for v, floor in wanted)
            )
        check_floors(values, work.floors, work.site, _computed)
        with drawing_into(scratch):
            value = carried(evaluate(step, functions, values, work.extents))
    if work.store or _is_files(value) or isinstance(value, Batches):
        return _stored(work, value)
    if work.keep:
        _must_travel(work, value)
    return Outcome(value=value if work.keep else None)


def _must_be_pinned(work: Work) -> None:
    """Refuse a second run in another environment: what it came to would prove nothing."""
    rows = differences(environment(), work.environment) if work.environment else []
    if rows:
        said = ", ".join(f"{name} {here}, not {there}" for name, here, there in rows)
        raise PolicyError(
            f"a second run of {work.step.label!r} at {work.site!r} needs the environment of the first; "
            f"here is {said}\nWhat you can do: have that site installed alike, or permit another."
        )


def _stored(work: Work, value: Any) -> Outcome:
    place = work.place
    manifest = write_result(
        value,
        root=place.root,
        key=work.step.key,
        attempt=work.attempt,
        provenance={**work.provenance, "environment": dict(environment())},
        credentials=place.credentials,
        options=place.options,
        compute=_computed,
    )
    if not work.keep:
        return Outcome(manifest=manifest)
    if not (is_lazy(value) or _is_files(value) or isinstance(value, Batches)):
        return Outcome(manifest=manifest, value=value)
    # Read from the store from now on, rather than computed again by whoever uses it.
    lying = Lying(
        replica=replica_of(manifest, work.site, place.store),
        kind=manifest.kind,
        credentials=place.credentials,
        options=place.options,
    )
    return Outcome(manifest=manifest, value=lying)


def _functions(work: Work) -> Functions:
    if work.payload is None:
        raise StorageError(f"the code of {work.step.label!r} is not here")
    return _unpacked(work.step.operation.code, work.payload)


@functools.lru_cache(maxsize=256)
def _unpacked(code: str, payload: bytes) -> Functions:
    return unpack(payload)


def _given(source: Any, functions: Functions, lazy: bool, scratch: Callable[[], Path]) -> Any:
    """What a function gets for an input; some open their tables themselves."""
    if getattr(functions.function, READS, "") == TABLES:
        if isinstance(source, Lying):
            return as_table(source, scratch)
    elif isinstance(source, pa.Table):
        return source.to_pandas()  # handed on by an earlier step; out of a store it is a frame
    return _opened(source, lazy=lazy, scratch=scratch)


def _opened(source: Any, *, lazy: bool, scratch: Callable[[], Path]) -> Any:
    """A value for a function, out of a store or from an earlier step."""
    if isinstance(source, Lying):
        return opened(source, lazy=lazy, scratch=scratch, chunk_nbytes=_chunk_nbytes())
    return source if lazy or not is_lazy(source) else _loaded(source)


def _loaded(value: Any) -> Any:
    from dask.base import unpack_collections

    collections, repack = unpack_collections(value)  # type: ignore[no-untyped-call]
    return repack(_computed(*collections))[0]


def _must_travel(work: Work, value: Any) -> None:
    """Refuse a value that cannot go to another worker: Dask would try for ever."""
    if type(value).__module__.partition(".")[0] in _KNOWN:
        return
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception as error:
        kind = type(value).__name__
        raise OperationFailed(
            work.step.label,
            work.site,
            f"its result, a {kind}, cannot be handed to the next step: {error}",
        ) from None


_KNOWN = frozenset({"numpy", "pandas", "pyarrow", "xarray", "dask", "dask_expr"})


def _is_files(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Path) for v in value)


def _failure(work: Work, error: BaseException) -> Failure:
    inputs = [source.replica.url for source in work.inputs if isinstance(source, Lying)]
    if isinstance(error, OperationFailed | PolicyError):
        return Failure(to_document(error), "user")
    return failure_of(error, label=work.step.label, site=work.site, inputs=inputs)


@contextmanager
def _scratch() -> Iterator[Callable[[], Path]]:
    """Fresh directories below the worker's own, made when asked for and removed at the end."""
    made: list[str] = []

    def make() -> Path:
        made.append(tempfile.mkdtemp(prefix="step-", dir=_worker_directory()))
        return Path(made[-1])

    try:
        yield make
    finally:
        for directory in made:
            shutil.rmtree(directory, ignore_errors=True)


def _worker_directory() -> str | None:
    worker = _worker()
    return None if worker is None else str(worker.local_directory)


def _worker() -> Any:
    """The Dask worker that runs this; ``None`` outside of one."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _tell_begun() -> None:
    """Say that the function may have run, so that a loss of this worker counts against it."""
    worker = _worker()
    if worker is not None:
        worker.log_event(BEGUN, worker.get_current_task())


def _chunk_nbytes() -> int:
    """Bytes of a block that this worker can handle several copies of, in each of its threads."""
    worker = _worker()
    limit = getattr(worker.memory_manager, "memory_limit", None) if worker is not None else None
    if not limit:
        return READ_NBYTES
    return int(min(READ_NBYTES, max(2**20, limit / worker.state.nthreads / BLOCKS_IN_MEMORY)))


def _watch() -> Callable[[], bool]:
    """Asks whether the task that runs now has been cancelled since."""
    worker = _worker()
    if worker is None:
        return lambda: False
    key = worker.get_current_task()

    def gone() -> bool:
        known = worker.state.tasks.get(key)
        return known is None or known.state == "cancelled"

    return gone


def _computed(*collections: Any) -> Sequence[Any]:
    """Values of Dask collections: here if it is little, else by all workers of the site."""
    from dask.base import compute

    if sum(len(collection.__dask_graph__()) for collection in collections) <= FEW:
        few: Sequence[Any] = compute(*collections, scheduler="sync")  # type: ignore[no-untyped-call]
        return few
    if _worker() is None:
        all_here: Sequence[Any] = compute(*collections)  # type: ignore[no-untyped-call]
        return all_here
    return _computed_by_all(collections)


def _computed_by_all(collections: Sequence[Any]) -> Sequence[Any]:
    from distributed import wait, worker_client

    gone = _watch()
    with worker_client() as client:
        futures = client.compute(list(collections))
        try:
            while not any(future.status == "error" for future in futures):
                with suppress(TimeoutError):
                    wait(futures, timeout=LOOK_EVERY)  # type: ignore[no-untyped-call]
                    break
                if gone():
                    raise Unwanted
            values: Sequence[Any] = client.gather(futures)
            return values
        except BaseException:
            client.cancel(futures)
            raise


@functools.cache
def environment() -> Mapping[str, str]:
    """Versions of what makes the numbers, in this process."""
    from importlib.metadata import version

    packages = {name: name for name in ("numpy", "xarray", "dask", "zarr")}
    packages["dataflow"] = "jupyter-dataflow"
    versions = {name: version(package) for name, package in packages.items()}
    return {"python": platform.python_version(), **versions}

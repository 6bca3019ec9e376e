"""A writer that dies, at every operation on the store: a reader sees nothing or all of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import obstore.store
import pandas as pd
import pytest
import xarray as xr
import zarr.errors

from dataflow.datasets import Replica
from dataflow.errors import DataflowError
from dataflow.storage import parts
from dataflow.storage.manifest import Manifest, replica_of
from dataflow.storage.read import open_data
from dataflow.storage.results import (
    collect_garbage,
    find_result,
    verify_result,
    write_result,
)
from dataflow.storage.transfer import StoreSource, copy


class Died(BaseException):
    """The process is no more; not an Exception, so that no clean-up code takes it for an error."""


class Death:
    """Counts operations on local stores and stops all of them at the n-th."""

    def __init__(self, at: int, after: bool) -> None:
        self.at, self.after, self.count, self.dead = at, after, 0, False
        self.lock = threading.Lock()

    def wrapped(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.lock:
                if self.dead:
                    raise Died
                self.count += 1
                mine = self.count == self.at
                self.dead = mine
            if mine and not self.after:
                raise Died
            result = operation(*args, **kwargs)
            if mine:
                raise Died
            return result

        return call


OPERATIONS = ("put", "get", "list", "delete", "head", "get_range", "list_with_delimiter")


@contextmanager
def death(at: int, after: bool) -> Iterator[Death]:
    """Everything in this block dies at operation ``at``: before it is done, or before its answer."""
    dying = Death(at, after)
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(
                obstore.store.LocalStore,
                name,
                dying.wrapped(getattr(obstore.store.LocalStore, name)),
            )
        patch.setattr(parts, "open_writer", dying.wrapped(parts.open_writer))
        # What goes into a directory without obstore.
        for place, name in ((os, "pwrite"), (Path, "touch"), (Path, "replace"), (shutil, "rmtree")):
            patch.setattr(place, name, dying.wrapped(getattr(place, name)))
        yield dying


GROUP = xr.Dataset(
    {
        "a": ("x", np.arange(30.0)),
        "b": (("x", "y"), np.arange(60).reshape(30, 2)),
        "c": ((), 4),
    },
    coords={"x": np.arange(30), "y": ["p", "q"]},
)
FRAME = pd.DataFrame({"n": range(100), "w": ["x", "y"] * 50})

VALUES: dict[str, Callable[[Path], Any]] = {
    "array": lambda path: xr.DataArray(np.arange(60.0), dims="x", name="v"),
    "group": lambda path: GROUP,
    "dask group": lambda path: GROUP.chunk(x=10),
    "table": lambda path: FRAME,
    "dask table": lambda path: dd.from_pandas(FRAME, npartitions=3),
    "files": lambda path: path,
}


def same(found: Any, value: Any) -> None:
    if isinstance(value, Path):
        assert [file.read_bytes() for file in found] == [
            f.read_bytes() for f in sorted(value.iterdir())
        ]
    elif isinstance(value, xr.DataArray | xr.Dataset):
        xr.testing.assert_identical(found.compute(), value.compute())
    else:
        expected = value.compute() if hasattr(value, "compute") else value
        pd.testing.assert_frame_equal(found.compute(), expected, check_dtype=False)


def check_reader(root: str, manifest: Manifest | None, value: Any) -> None:
    """What anybody may see of a store at any moment."""
    if manifest is not None:
        verify_result(manifest, deep=True)
        same(open_data(replica_of(manifest, "s", "s"), kind=manifest.kind), value)
    for seen in Path(root.removeprefix("file://")).glob("*/*/*/*/zarr.json"):
        # Even one who goes to an attempt directly finds no group, or a complete one.
        with xr.open_zarr(seen.parent) as found:
            xr.testing.assert_equal(
                found.compute(),
                value.to_dataset().compute()
                if isinstance(value, xr.DataArray)
                else value.compute(),
            )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", VALUES)
def test_writer_dies_at_every_operation(name: str, after: bool, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(3):
        (files / f"{number}.bin").write_bytes(bytes([number]) * 100)
    value = VALUES[name](files)
    points = 0
    for at in range(1, 500):
        root = (tmp_path / f"store{at}").as_uri()

        def write(attempt: str, root: str = root) -> Manifest:
            return write_result(
                value, root=root, key="k", attempt=attempt, provenance={}, chunk_nbytes=64
            )

        with death(at, after) as dying, dask.config.set(scheduler="synchronous"):
            try:
                write("first")
            except Died:
                points += 1
        check_reader(root, find_result(root, "k"), value)
        second = write("second")
        assert find_result(root, "k") == second
        check_reader(root, second, value)
        collect_garbage(root, older_than=-10, now=time.time())
        check_reader(root, find_result(root, "k"), value)
        left = {path.name for path in (tmp_path / f"store{at}" / "results" / "k" / "k").iterdir()}
        assert left == {"COMMIT.json", second.attempt}
        if not dying.dead:
            break
    else:
        raise AssertionError("it never came through")
    assert points >= 5


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("same_attempt", [True, False], ids=["resumed", "anew"])
def test_copier_dies_at_every_operation(after: bool, same_attempt: bool, tmp_path: Path) -> None:
    source_root = (tmp_path / "source").as_uri()
    value = xr.DataArray(np.arange(60.0), dims="x", name="v")
    manifest = write_result(
        value, root=source_root, key="k", attempt="o", provenance={}, chunk_nbytes=200
    )
    source = StoreSource(replica=replica_of(manifest, "s", "s"), manifest=manifest)
    points = 0
    for at in range(1, 500):
        root = (tmp_path / f"store{at}").as_uri()

        def bring(attempt: str, root: str = root) -> Manifest:
            # Parts smaller than a chunk, so that staging and putting together die too.
            return asyncio.run(
                copy(
                    source,
                    root=root,
                    key="k",
                    attempt=attempt,
                    provenance={},
                    kind=manifest.kind,
                    format=manifest.format,
                    extent=manifest.extent,
                    part_nbytes=150,
                    concurrency=2,
                )
            )

        with death(at, after) as dying:
            try:
                bring("first")
            except Died:
                points += 1
        check_reader(root, find_result(root, "k", area="copies"), value)
        second = bring("first" if same_attempt else "second")
        assert find_result(root, "k", area="copies") == second
        check_reader(root, second, value)
        if not dying.dead:
            break
    else:
        raise AssertionError("it never came through")
    assert points > 30


WRITER = """
import os, sys, json
import numpy as np
import xarray as xr
import google_crc32c, numcodecs.blosc
from dataflow.storage.results import write_result
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        value = xr.DataArray(np.full((64, 2048), order["number"], "f8"), dims=("x", "y"))
        write_result(value, root=order["root"], key=order["key"], attempt=order["attempt"],
                     provenance={}, chunk_nbytes=16384, credentials=order["credentials"],
                     options=[tuple(pair) for pair in order["options"]])
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[[dict[str, Any], float], int]]:
    """Starts a real process that writes a result, kills it after a time; its exit code."""
    import json

    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(order: dict[str, Any], kill_after: float) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            time.sleep(kill_after)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            return int(process.stdout.readline())

        yield run
        process.stdin.close()


class KillTests:
    """A real writer, killed at 20 moments spread over the time that it takes."""

    def test_kill(self, place: Any, writer: Callable[[dict[str, Any], float], int]) -> None:
        order = {
            "root": place.root,
            "credentials": place.opening.get("credentials", {}),
            "options": place.opening.get("options", ()),
        }
        seen = {"nothing": 0, "all": 0}
        for trial in range(20):
            key = f"k{trial}"
            writer({**order, "number": trial, "key": key, "attempt": "first"}, 0.004 * trial**1.5)
            found = find_result(place.root, key, **place.opening)
            seen["all" if found else "nothing"] += 1
            if found is not None:
                verify_result(found, deep=True, **place.opening)
            value = np.full((64, 2048), trial, "f8")
            manifest = write_result(
                value, root=place.root, key=key, attempt="second", provenance={}, **place.opening
            )
            assert manifest.attempt == ("first" if found else "second")
            verify_result(manifest, deep=True, **place.opening)
            read = open_data(replica_of(manifest, "s", "s"), kind="array", **place.opening)
            np.testing.assert_array_equal(read, value)
        assert seen["nothing"]


class TestKillLocal(KillTests):
    @pytest.fixture
    def place(self, local_place: Any) -> Any:
        return local_place


@pytest.mark.bed
class TestKillRadosgw(KillTests):
    @pytest.fixture
    def place(self, rgw_place: Any) -> Any:
        return rgw_place


def test_uncommitted_group_has_no_root(tmp_path: Path) -> None:
    """The obvious reader of a dead attempt is told that there is no group."""
    root = (tmp_path / "store").as_uri()
    with death(6, after=True), pytest.raises(Died):
        write_result(
            np.arange(1000.0), root=root, key="k", attempt="a", provenance={}, chunk_nbytes=80
        )
    with pytest.raises((FileNotFoundError, zarr.errors.GroupNotFoundError)):
        xr.open_zarr(tmp_path / "store" / "results" / "k" / "k" / "a")
    assert find_result(root, "k") is None


def test_replica_of_nothing(tmp_path: Path) -> None:
    replica = Replica(
        key="k", site="s", store="s", url=(tmp_path / "x").as_uri(), format="zarr", nbytes=0
    )
    with pytest.raises((DataflowError, FileNotFoundError)):
        open_data(replica, kind="array")


def test_dask_array_dies_in_a_block(tmp_path: Path) -> None:
    root = (tmp_path / "store").as_uri()
    blocks = da.ones((40, 4), chunks=(4, 4))

    def die(block: np.ndarray) -> np.ndarray:
        raise Died

    with dask.config.set(scheduler="threads"), pytest.raises(Died):
        write_result(
            blocks.map_blocks(die, dtype="f8", meta=np.empty((0, 0))),
            root=root,
            key="k",
            attempt="a",
            provenance={},
        )
    assert find_result(root, "k") is None

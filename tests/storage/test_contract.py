"""What holds for results and copies in every store that may hold them: one class, two stores."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dataflow.datasets import Extent, Replica
from dataflow.errors import CorruptResult, StorageError, TransferFailed
from dataflow.storage.manifest import FileEntry, replica_of
from dataflow.storage.open import zarr_store
from dataflow.storage.read import open_data
from dataflow.storage.results import (
    check_store,
    collect_garbage,
    find_result,
    remove_result,
    verify_result,
    write_result,
)
from dataflow.storage.transfer import StoreSource, copy

CUBE = xr.DataArray(
    np.arange(4 * 6 * 5, dtype="f4").reshape(4, 6, 5),
    dims=("time", "y", "x"),
    coords={
        "time": pd.date_range("2026-11-20", periods=4, freq="6h"),
        "y": np.linspace(0, 1, 6),
        "name": ("x", list("abcde")),
        "scalar": 3.5,
    },
    name="temperature",
    attrs={"units": "K", "valid": np.float32(1.5)},
)

ARRAYS = {
    "cube": CUBE,
    "scalar": xr.DataArray(np.float64(2.5)),
    "integer": xr.DataArray(np.int32(-7), name="n"),
    "nothing": xr.DataArray(np.zeros((0, 3))),
    "booleans": xr.DataArray([True, False, True], dims="t", name="t"),
    "complex": xr.DataArray(np.array([1 + 2j, np.nan])),
    "not a number": xr.DataArray([1.0, np.nan, np.inf], dims="x", coords={"x": [1, 2, 3]}),
    "times": xr.DataArray(np.array(["2026-01-01", "NaT"], "M8[ns]"), dims="t"),
    "durations": xr.DataArray(np.array([90, 3600], "m8[s]"), dims="t"),
    "strings": xr.DataArray(np.array(["a", "öäü", ""]), dims="t"),
    "big endian": xr.DataArray(np.arange(5, dtype=">i4"), dims="t"),
    "transposed": CUBE.transpose("x", "time", "y"),
    "fill value everywhere": xr.DataArray(np.zeros((30, 40)), dims=("a", "b")),
    "dask": CUBE.chunk(time=2, y=4),
    "uneven dask": xr.DataArray(
        da.from_array(np.arange(60.0).reshape(10, 6), chunks=((3, 5, 2), (1, 4, 1)))
    ),
    "one row per block": xr.DataArray(da.from_array(np.random.rand(50, 7), chunks=(1, 7))),
}


class ResultsContract:
    """Subclasses give ``place``: an empty results store."""

    @pytest.fixture
    def place(self) -> Any:
        raise NotImplementedError

    def write(
        self, place: Any, value: Any, key: str = "k1", attempt: str = "a1", **more: Any
    ) -> Any:
        return write_result(
            value,
            root=place.root,
            key=key,
            attempt=attempt,
            provenance=more.pop("provenance", {}),
            **place.opening,
            **more,
        )

    def read(self, place: Any, manifest: Any, lazy: bool = True) -> Any:
        replica = replica_of(manifest, "here", "store")
        return open_data(replica, kind=manifest.kind, lazy=lazy, **place.opening)

    def find(self, place: Any, key: str = "k1") -> Any:
        return find_result(place.root, key, **place.opening)

    def test_store_is_safe(self, place: Any) -> None:
        check_store(place.root, **place.opening)
        assert list(place.store().list()) in ([], [[]])

    @pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
    @pytest.mark.parametrize("name", ARRAYS)
    def test_array_comes_back(self, place: Any, name: str, compression: str) -> None:
        value = ARRAYS[name]
        manifest = self.write(
            place, value, compression=compression, chunk_nbytes=256, provenance={"by": name}
        )
        assert (manifest.kind, manifest.format) == ("array", "zarr")
        assert manifest.extent.shape == value.shape
        assert manifest.extent.dims == value.dims
        assert manifest.nbytes == sum(file.size for file in manifest.files)
        assert self.find(place) == manifest
        verify_result(manifest, deep=True, **place.opening)
        for lazy in (True, False):
            found = self.read(place, manifest, lazy)
            xr.testing.assert_identical(found.compute(), value.compute())
            assert found.dtype == value.dtype.newbyteorder("=")

    def test_plain_xarray_reads_it(self, place: Any) -> None:
        value = CUBE.to_dataset().assign(other=("x", np.arange(5)))
        manifest = self.write(place, value, chunk_nbytes=100, provenance={"job": "j1"})
        with xr.open_zarr(zarr_store(manifest.url, **place.opening)) as found:
            assert found.attrs.pop("dataflow")["provenance"] == {"job": "j1"}
            xr.testing.assert_identical(found.compute(), value)
        xr.testing.assert_identical(self.read(place, manifest).compute(), value)

    def test_mapping_of_arrays(self, place: Any) -> None:
        manifest = self.write(place, {"a": np.arange(3), "b": da.ones((4, 2)), "c": 1.5})
        found = self.read(place, manifest).compute()
        assert manifest.kind == "dataset"
        np.testing.assert_array_equal(found["a"], [0, 1, 2])
        np.testing.assert_array_equal(found["b"], np.ones((4, 2)))
        assert found["c"] == 1.5

    def test_tables(self, place: Any) -> None:
        frame = pd.DataFrame(
            {"n": range(100), "word": ["x", None] * 50, "f": np.arange(100) / 7},
            index=pd.Index(range(100, 200), name="id"),
        )
        whole = self.write(place, frame, key="t1", chunk_nbytes=100)
        assert whole.kind == "table"
        assert len(whole.files) > 1
        assert whole.extent.rows == 100
        pd.testing.assert_frame_equal(self.read(place, whole, lazy=False), frame)
        pd.testing.assert_frame_equal(self.read(place, whole).compute(), frame, check_dtype=False)
        parts = self.write(place, dd.from_pandas(frame, npartitions=4), key="t2")
        assert len(parts.files) == 4
        verify_result(parts, deep=True, **place.opening)
        found = self.read(place, parts, lazy=False)
        pd.testing.assert_frame_equal(found, frame, check_dtype=False)

    def test_empty_table_and_series(self, place: Any) -> None:
        manifest = self.write(place, pd.DataFrame({"a": pd.Series([], dtype="f8")}))
        assert manifest.extent.rows == 0
        assert list(self.read(place, manifest, lazy=False)) == ["a"]
        series = self.write(place, pd.Series([1, 2], name="s"), key="k2")
        assert self.read(place, series, lazy=False)["s"].tolist() == [1, 2]

    def test_files(self, place: Any, tmp_path: Path) -> None:
        (tmp_path / "d" / "e").mkdir(parents=True)
        (tmp_path / "d" / "e" / "x.bin").write_bytes(b"x" * 1000)
        (tmp_path / "y.bin").write_bytes(b"")
        manifest = self.write(place, [tmp_path / "d", tmp_path / "y.bin"])
        assert manifest.kind == "files"
        assert [(f.path, f.size) for f in manifest.files] == [("d/e/x.bin", 1000), ("y.bin", 0)]
        verify_result(manifest, deep=True, **place.opening)

    def test_second_attempt_computes_nothing(self, place: Any) -> None:
        first = self.write(place, CUBE)

        @dask.delayed
        def never() -> np.ndarray:
            raise AssertionError("computed twice")

        again = da.from_delayed(never(), (4,), "f8")
        assert self.write(place, again, attempt="a2") == first

    def test_racing_writers_have_one_winner(self, place: Any) -> None:
        start = threading.Barrier(8)

        def race(number: int) -> Any:
            gate = _Gate(start)
            return self.write(place, np.full(10, number), attempt=f"a{number}", on_progress=gate)

        with ThreadPoolExecutor(8) as pool:
            manifests = list(pool.map(race, range(8)))
        (winner,) = {manifest.attempt for manifest in manifests}
        assert self.find(place) == manifests[0]
        left = {
            str(meta["path"]).split("/")[3]
            for batch in place.store().list("results")
            for meta in batch
        }
        assert left == {winner, "COMMIT.json"}
        assert self.read(place, manifests[0], lazy=False)[0].item() == int(winner[1:])

    def test_failure_in_a_block_publishes_nothing(self, place: Any) -> None:
        def fail(block: np.ndarray) -> np.ndarray:
            raise FileNotFoundError("the operation's own")

        bad = da.ones((20, 5), chunks=(2, 5)).map_blocks(fail, dtype="f8", meta=np.empty((0, 0)))
        with pytest.raises(FileNotFoundError, match="the operation's own"):
            self.write(place, bad)
        assert self.find(place) is None
        assert self.write(place, np.ones(3), attempt="a2").attempt == "a2"

    def test_what_is_missing_or_changed_is_noticed(self, place: Any) -> None:
        manifest = self.write(place, np.arange(1000.0), chunk_nbytes=1600)
        store, chunk = place.store(manifest.url), "data/c/3"
        good = bytes(store.get(chunk).bytes())
        flipped = bytes([good[0] ^ 1]) + good[1:]
        store.put(chunk, flipped)
        with pytest.raises(CorruptResult, match="data/c/3"):
            verify_result(manifest, deep=True, **place.opening)
        with pytest.raises(ValueError, match="checksum"):
            self.read(place, manifest).compute()
        store.put(chunk, good[:-1])
        with pytest.raises(CorruptResult, match="data/c/3"):
            verify_result(manifest, **place.opening)
        store.delete(chunk)
        with pytest.raises(CorruptResult, match="data/c/3 is missing"):
            verify_result(manifest, **place.opening)
        with pytest.raises(CorruptResult, match="missing"):
            self.read(place, manifest).compute()

    def test_remove(self, place: Any) -> None:
        manifest = self.write(place, CUBE)
        remove_result(place.root, "k1", **place.opening)
        remove_result(place.root, "k1", **place.opening)
        assert self.find(place) is None
        assert list(place.store().list()) in ([], [[]])
        with pytest.raises(CorruptResult):
            verify_result(manifest, **place.opening)
        assert self.write(place, CUBE, attempt="a2").attempt == "a2"

    def test_garbage_of_dead_attempts(self, place: Any) -> None:
        kept = self.write(place, CUBE)
        store = place.store()
        store.put("results/k1/k1/dead/x/c/0", b"1")
        store.put("results/k2/k2/dead/x/c/0", b"1")
        store.put("copies/k2/k2/dead/x", b"1")
        later = time.time() + 100
        young = collect_garbage(place.root, older_than=1000, now=later, **place.opening)
        assert young == ()
        removed = collect_garbage(place.root, older_than=10, now=later, **place.opening)
        assert sorted(removed) == [
            "copies/k2/k2/dead",
            "results/k1/k1/dead",
            "results/k2/k2/dead",
        ]
        verify_result(kept, deep=True, **place.opening)

    def copy(self, place: Any, source: Any, manifest: Any, **more: Any) -> Any:
        return asyncio.run(
            copy(
                source,
                root=f"{place.root}/elsewhere",
                key=manifest.key,
                attempt=more.pop("attempt", "c1"),
                provenance={"from": "here"},
                kind=manifest.kind,
                format=manifest.format,
                extent=manifest.extent,
                **place.opening,
                **more,
            )
        )

    def test_copy_of_a_result(self, place: Any) -> None:
        manifest = self.write(place, ARRAYS["cube"], chunk_nbytes=64)
        source = StoreSource(
            replica=replica_of(manifest, "here", "s"), manifest=manifest, **place.opening
        )
        counted: list[int] = []
        copied = self.copy(place, source, manifest, on_bytes=counted.append)
        assert sum(counted) == manifest.nbytes == copied.nbytes
        assert [(f.path, f.size, f.checksum) for f in copied.files] == [
            (f.path, f.size, f.checksum) for f in manifest.files
        ]
        verify_result(copied, deep=True, **place.opening)
        xr.testing.assert_identical(self.read(place, copied).compute(), CUBE)
        counted.clear()
        assert self.copy(place, source, manifest, on_bytes=counted.append) == copied
        assert counted == []

    def test_interrupted_copy_continues(self, place: Any) -> None:
        body = np.random.default_rng(1).bytes(1_000_000)
        place.store().put("source/big.bin", body)
        replica = Replica(
            key="k", site="s", store="s", url=f"{place.root}/source", format="files", nbytes=10**6
        )
        source = _Flaky(StoreSource(replica=replica, **place.opening), fail_after=4)
        listing = Extent(nbytes=10**6)
        manifest = replica_manifest("big", listing)
        counted: list[int] = []
        with pytest.raises(TransferFailed, match="cut off"):
            self.copy(
                place, source, manifest, part_nbytes=100_000, concurrency=2, on_bytes=counted.append
            )
        source.fail_after = 10**9
        copied = self.copy(
            place, source, manifest, part_nbytes=100_000, concurrency=2, on_bytes=counted.append
        )
        assert sum(counted) <= 1_000_000 + 2 * 100_000
        assert [(f.path, f.size) for f in copied.files] == [("big.bin", 10**6)]
        verify_result(copied, deep=True, **place.opening)
        assert bytes(place.store(copied.url).get("big.bin").bytes()) == body

    def test_copy_of_other_bytes_is_refused(self, place: Any) -> None:
        manifest = self.write(place, CUBE)
        store = place.store(manifest.url)
        chunk = next(f.path for f in manifest.files if "/c/" in f.path)
        size = store.head(chunk)["size"]
        store.put(chunk, b"z" * size)
        source = StoreSource(
            replica=replica_of(manifest, "here", "s"), manifest=manifest, **place.opening
        )
        with pytest.raises(TransferFailed, match="not those of the listing"):
            self.copy(place, source, manifest)
        found = find_result(f"{place.root}/elsewhere", "k1", area="copies", **place.opening)
        assert found is None


class _Gate:
    """Holds writers at their first progress, so that all commit at the same moment."""

    def __init__(self, start: threading.Barrier) -> None:
        self.start, self.waited = start, False

    def __call__(self, done: int, total: int) -> None:
        if not self.waited:
            self.waited = True
            self.start.wait(30)


class _Flaky:
    """A source whose connection breaks after some reads."""

    def __init__(self, source: StoreSource, fail_after: int) -> None:
        self.source, self.fail_after, self.reads = source, fail_after, 0

    async def listing(self) -> Any:
        return await self.source.listing()

    async def read(self, path: str, start: int, end: int) -> bytes:
        self.reads += 1
        if self.reads > self.fail_after:
            raise ConnectionError("cut off")
        return await self.source.read(path, start, end)


def replica_manifest(key: str, extent: Extent) -> Any:
    """What a copy needs to know about a source that is not a result."""
    from dataflow.storage.manifest import Manifest

    return Manifest(
        key=key,
        attempt="-",
        kind="files",
        format="files",
        files=(FileEntry("big.bin", 10**6),),
        nbytes=10**6,
        extent=extent,
        url="",
        prefix="",
    )


class TestLocal(ResultsContract):
    @pytest.fixture
    def place(self, local_place: Any) -> Any:
        return local_place

    def test_opens_by_path(self, place: Any) -> None:
        manifest = self.write(place, CUBE)
        with xr.open_zarr(manifest.url) as found:
            np.testing.assert_array_equal(found["temperature"], CUBE)

    def test_a_store_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(StorageError):
            check_store((tmp_path / "file" / "store").as_uri())


@pytest.mark.bed
class TestRadosgw(ResultsContract):
    @pytest.fixture
    def place(self, rgw_place: Any) -> Any:
        return rgw_place

    def test_wrong_secret_is_an_error_not_an_absence(self, place: Any) -> None:
        secret = {**place.opening["credentials"], "secret_access_key": "wr0ng"}
        wrong = {**place.opening, "credentials": secret}
        with pytest.raises(StorageError, match=r"403|denied|Forbidden") as caught:
            find_result(place.root, "k1", **wrong)
        assert "wr0ng" not in str(caught.value)

    def test_missing_bucket_is_an_error(self, place: Any) -> None:
        with pytest.raises(StorageError):
            check_store("s3://no-such-bucket-here", **place.opening)

"""Our writing of Zarr against xarray's and zarr's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from dataflow.errors import StorageError
from dataflow.storage.results import write_result

DATASET = xr.Dataset(
    {
        "f": (("t", "x"), np.arange(12.0).reshape(3, 4), {"units": "m"}),
        "i": ("t", np.arange(3, dtype="u2")),
        "b": ((), np.bool_(True)),
        "c": ("x", np.array([1 + 1j, 2, 3, 4], "c8")),
    },
    coords={"t": pd.date_range("2026-01-01", periods=3), "lab": ("x", list("abcd"))},
    attrs={"title": "test"},
)


def write(value: Any, tmp_path: Path, **more: Any) -> Path:
    manifest = write_result(
        value, root=tmp_path.as_uri(), key="k", attempt="a", provenance={}, **more
    )
    return Path(manifest.url.removeprefix("file://"))


# zarr 3.1 warns of the type that xarray gives strings; later ones have it in the specification.
@pytest.mark.filterwarnings("ignore:The data type .FixedLengthUTF32")
def test_metadata_is_what_xarray_would_write(tmp_path: Path) -> None:
    ours = write(DATASET, tmp_path)
    theirs = zarr.storage.MemoryStore()
    DATASET.to_zarr(theirs, zarr_format=3, consolidated=False)
    mine, reference = zarr.open_group(ours, mode="r"), zarr.open_group(theirs, mode="r")
    assert set(mine.array_keys()) == set(reference.array_keys())
    for name, array in reference.arrays():
        a, b = mine[name].metadata.to_dict(), array.metadata.to_dict()
        for field in ("codecs", "fill_value"):
            a.pop(field), b.pop(field)
        b["attributes"].pop("_FillValue", None)  # NaN for floats, which needs no saying
        assert a == b, name
        np.testing.assert_array_equal(mine[name][...], array[...])
    assert dict(mine.attrs) == {**dict(reference.attrs), "dataflow": mine.attrs["dataflow"]}


def test_consolidated_and_single_metadata_agree(tmp_path: Path) -> None:
    path = write(DATASET, tmp_path)
    together = zarr.open_consolidated(path)
    for name, array in together.arrays():
        assert array.metadata == zarr.open_array(path / name, mode="r").metadata


def test_every_chunk_is_written_and_has_a_checksum(tmp_path: Path) -> None:
    path = write(np.zeros((10, 10)), tmp_path, chunk_nbytes=160)
    array = zarr.open_array(path / "data", mode="r")
    assert array.nchunks_initialized == array.nchunks == 5
    for chunk in (path / "data" / "c").rglob("*"):
        if chunk.is_file():
            body = bytearray(chunk.read_bytes())
            body[3] ^= 8
            chunk.write_bytes(body)
    with pytest.raises(ValueError, match="checksum"):
        array[...]


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("dtype", ["i1", "u8", "f2", ">f8", "c16", "?", "U3"])
def test_zarr_reads_what_we_wrote(tmp_path: Path, dtype: str, compression: str) -> None:
    values = np.arange(77).reshape(7, 11).astype(dtype)
    path = write(values, tmp_path, chunk_nbytes=50, compression=compression)
    np.testing.assert_array_equal(zarr.open_array(path / "data", mode="r")[...], values)


def test_encoding_of_the_source_is_not_inherited(tmp_path: Path) -> None:
    source = xr.DataArray([1.0, 2.5], dims="x", name="v")
    source.encoding = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1, "chunks": (1,)}
    path = write(source, tmp_path)
    with xr.open_zarr(path) as found:
        np.testing.assert_array_equal(found["v"], [1.0, 2.5])
        assert found["v"].dtype == "f8"


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {"a": object()},
        {"a": pd.DataFrame({"x": [1]})},
        [[1], [2, 3]],
        np.array([{}, None], dtype=object),
        xr.DataArray(da.from_array(np.array(["a"], dtype=object), chunks=1)),
        xr.DataArray([1.0], attrs={"bad": object()}),
        xr.Dataset({"a/b": ("x", [1])}),
        lambda: 1,
        da.ones(10, chunks=2)[da.ones(10, chunks=2) > 0],
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_without_a_stored_form(tmp_path: Path, value: Any) -> None:
    with pytest.raises((StorageError, TypeError)):
        write(value, tmp_path)
    assert not list(tmp_path.rglob("COMMIT.json"))


def test_names_that_would_come_back_wrong(tmp_path: Path) -> None:
    value = xr.DataArray(da.ones((3, 4)), dims=("x", "y"), name="x")
    path = write(value, tmp_path)
    with xr.open_zarr(path) as found:
        assert list(found.data_vars) == ["data"]


def test_tiny_results_need_few_operations(tmp_path: Path) -> None:
    """A scalar costs one look, four puts and one listing, which is what makes it fast."""
    import obstore.store

    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("put", "get", "list", "head", "delete"):
            original = getattr(obstore.store.LocalStore, name)

            def counted(*args: Any, name: str = name, original: Any = original, **more: Any) -> Any:
                seen.append(name)
                return original(*args, **more)

            patch.setattr(obstore.store.LocalStore, name, counted)
        write(3.5, tmp_path)
    assert sorted(seen) == ["get", "list", "put", "put", "put", "put"]


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write(np.ones((64, 1000)), tmp_path, chunk_nbytes=1000, on_progress=lambda *a: told.append(a))
    assert told[-1] == (512_000, 512_000)
    assert [done for done, _ in told] == sorted(done for done, _ in told)

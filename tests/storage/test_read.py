"""Opening replicas: equal to what a plain library gives, lazily, and in workers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Format, Replica
from dataflow.errors import UnreadableDataset
from dataflow.storage.blockreader import BlockReader
from dataflow.storage.probe import probe
from dataflow.storage.read import open_data

CUBE = np.arange(20 * 8 * 6, dtype="f8").reshape(20, 8, 6)


def replica(path: Path, format: Format, variable: str | None = None) -> Replica:
    return Replica(
        key="k", site="s", store="s", url=path.as_uri(), format=format, nbytes=0, variable=variable
    )


@pytest.fixture(
    params=["hdf5", "hdf5 contiguous", "npy", "npy fortran", "netcdf", "zarr group", "zarr array"]
)
def cube(request: Any, tmp_path: Path) -> Replica:
    name = request.param
    if name.startswith("hdf5"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            chunks = None if "contiguous" in name else (5, 8, 3)
            file.create_dataset("g/v", data=CUBE, chunks=chunks)
            file["g/other"] = [1, 2]
        return replica(tmp_path / "a.h5", "hdf5", "g/v")
    if name.startswith("npy"):
        np.save(tmp_path / "a.npy", np.asfortranarray(CUBE) if "fortran" in name else CUBE)
        return replica(tmp_path / "a.npy", "npy")
    if name == "netcdf":
        data = xr.Dataset({"v": (("dim_0", "dim_1", "dim_2"), CUBE)})
        data.to_netcdf(
            tmp_path / "a.nc", engine="h5netcdf", encoding={"v": {"chunksizes": (5, 8, 3)}}
        )
        return replica(tmp_path / "a.nc", "netcdf")
    if name == "zarr group":
        data = xr.Dataset({"v": (("dim_0", "dim_1", "dim_2"), CUBE)})
        data.to_zarr(tmp_path / "a.zarr", encoding={"v": {"chunks": (5, 8, 3)}}, zarr_format=2)
        return replica(tmp_path / "a.zarr", "zarr")
    array = zarr.create_array(tmp_path / "a.zarr", data=CUBE, chunks=(5, 8, 3))
    assert array.shape == CUBE.shape
    return replica(tmp_path / "a.zarr", "zarr")


def test_lazy_equals_eager_equals_the_truth(cube: Replica) -> None:
    lazy = open_data(cube, kind="array", chunk_nbytes=2000)
    assert isinstance(lazy, xr.DataArray)
    assert lazy.chunks is not None
    assert lazy.data.npartitions > 1
    eager = open_data(cube, kind="array", lazy=False)
    assert eager.chunks is None
    np.testing.assert_array_equal(lazy, CUBE)
    np.testing.assert_array_equal(eager, CUBE)
    assert lazy.dims == ("dim_0", "dim_1", "dim_2") == eager.dims
    found = probe(cube.url, variable=cube.variable)
    assert found.extent.dims == lazy.dims
    assert found.extent.dtype == str(lazy.dtype)


def test_blocks_are_whole_stored_chunks(cube: Replica) -> None:
    (variable,) = probe(cube.url, variable=cube.variable).extent.variables
    lazy = open_data(cube, kind="array", chunk_nbytes=4000)
    for lengths, stored in zip(lazy.chunks, variable.chunks or (1, 1, 1), strict=True):
        assert all(length % stored == 0 for length in lengths[:-1])
    assert all(np.prod(block) * 8 <= 4000 for block in [tuple(c[0] for c in lazy.chunks)])


def test_lazy_values_go_to_other_processes(cube: Replica) -> None:
    lazy = open_data(cube, kind="array", chunk_nbytes=4000)
    again = pickle.loads(pickle.dumps(lazy))
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(again.sum("dim_0"), CUBE.sum(0))
    with dask.config.set(scheduler="processes", num_workers=2):
        np.testing.assert_array_equal(lazy[3:9, ::2].sum("dim_1"), CUBE[3:9, ::2].sum(1))


def test_as_dataset(cube: Replica) -> None:
    found = open_data(cube, kind="dataset")
    assert isinstance(found, xr.Dataset)
    (name,) = found.data_vars
    np.testing.assert_array_equal(found[name], CUBE)


def test_hdf5_with_several_arrays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"], file["b"] = np.ones(3), np.ones((4, 3))
    several = replica(tmp_path / "a.h5", "hdf5")
    found = open_data(several, kind="dataset")
    assert dict(found.sizes) == {"a_dim_0": 3, "b_dim_0": 4, "dim_1": 3}
    with pytest.raises(UnreadableDataset, match="a, b"):
        open_data(several, kind="array")
    with pytest.raises(UnreadableDataset, match="no variable 'c'"):
        open_data(replica(tmp_path / "a.h5", "hdf5", "c"), kind="array")


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_tables(tmp_path: Path, format: Any) -> None:
    frame = pd.DataFrame({"n": range(1000), "f": np.arange(1000) / 7})
    path = tmp_path / f"a.{format}"
    if format == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, row_group_size=100)
    lazy = open_data(replica(path, format), kind="table", chunk_nbytes=4000)
    assert lazy.npartitions > 1
    pd.testing.assert_frame_equal(lazy.compute().reset_index(drop=True), frame)
    pd.testing.assert_frame_equal(open_data(replica(path, format), kind="table", lazy=False), frame)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b").touch()
    (tmp_path / "d" / "a").touch()
    found = open_data(replica(tmp_path / "d", "files"), kind="files")
    assert found == [tmp_path / "d" / "a", tmp_path / "d" / "b"]
    away = Replica(key="k", site="s", store="s", url="s3://b/d", format="files", nbytes=0)
    with pytest.raises(UnreadableDataset, match="local"):
        open_data(away, kind="files")


def test_wrong_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CUBE)
    with pytest.raises(UnreadableDataset, match="does not hold a table"):
        open_data(replica(tmp_path / "a.npy", "npy"), kind="table")
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(UnreadableDataset, match="does not hold arrays"):
        open_data(replica(tmp_path / "a.csv", "csv"), kind="array")


BODY = np.random.default_rng(3).bytes(5000)


@given(
    moves=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 3000)), min_size=1, max_size=20),
    block=st.integers(1, 900),
    keep=st.integers(1, 5),
)
def test_block_reader_is_a_file(
    tmp_path_factory: pytest.TempPathFactory, moves: Any, block: int, keep: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "body.bin"
    if not path.exists():
        path.write_bytes(BODY)
    reader = pickle.loads(pickle.dumps(BlockReader(path.as_uri(), block_nbytes=block, keep=keep)))
    for position, length in moves:
        assert reader.seek(position) == position == reader.tell()
        assert reader.read(length) == BODY[position : position + length]
    assert reader.seek(-10, 2) == 4990
    assert reader.read() == BODY[-10:]


@pytest.mark.bed
def test_small_slice_moves_few_bytes(rgw_place: Any, tmp_path: Path) -> None:
    """One chunk of an HDF5 file in S3, of which little more than that chunk is read."""
    import obstore.store

    data = np.random.default_rng(1).random((64, 128, 128))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=data, chunks=(1, 128, 128))
    rgw_place.store().put("a.h5", tmp_path / "a.h5")
    moved: list[int] = []
    original = obstore.store.S3Store.get_range

    def counted(self: Any, *args: Any, **more: Any) -> Any:
        body = original(self, *args, **more)
        moved.append(len(body))
        return body

    away = Replica(
        key="k", site="s", store="s", url=f"{rgw_place.root}/a.h5", format="hdf5", nbytes=0
    )
    lazy = open_data(away, kind="array", chunk_nbytes=2**17, **rgw_place.opening)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obstore.store.S3Store, "get_range", counted)
        np.testing.assert_array_equal(lazy[40], data[40])
    assert sum(moved) < 4 * 2**20 < (tmp_path / "a.h5").stat().st_size

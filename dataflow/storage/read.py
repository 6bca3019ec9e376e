"""Replicas as what an operation receives: DataArray, Dataset, DataFrame or paths.

Lazy values are Dask collections whose blocks are whole stored chunks, so no chunk is read twice and
memory stays near a block per thread. A task opens its file itself; no open file is ever sent to a
worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dataflow.datasets import Kind, Replica, Variable
from dataflow.errors import UnreadableDataset
from dataflow.storage import probe_arrays
from dataflow.storage.arrays import has_mark, restored
from dataflow.storage.dialect import separator_of
from dataflow.storage.fingerprints import stored_files
from dataflow.storage.layout import READ_NBYTES, stored_multiple
from dataflow.storage.open import Options, fsspec_options
from dataflow.storage.probe_tables import parquet_parts
from dataflow.storage.small import small_result
from dataflow.storage.source import Source


def open_data(
    replica: Replica,
    *,
    kind: Kind,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    headers: Mapping[str, str] | None = None,
    lazy: bool = True,
    chunk_nbytes: int = READ_NBYTES,
) -> Any:
    """Open one copy of a dataset.

    Parameters
    ----------
    kind
        What is wanted: ``"array"`` → DataArray, ``"dataset"`` → Dataset, ``"table"`` → Dask DataFrame
        (pandas if not ``lazy``), ``"files"`` → list of local paths.
    headers
        For a replica that another site's agent serves.
    lazy
        Dask-backed; otherwise all of it is read now.
    chunk_nbytes
        Bytes of a block in memory, as near as whole stored chunks allow.

    Raises
    ------
    UnreadableDataset
        If what lies there cannot be given as ``kind``. Reading a block later raises
        :class:`~dataflow.errors.CorruptResult` where a chunk of a result is gone.
    """
    source = Source(
        replica.url,
        credentials=dict(credentials or {}),
        options=tuple(options),
        headers=dict(headers or {}),
    )
    if kind == "files":
        return _files(source)
    if kind == "table":
        return _table(source, replica, lazy, chunk_nbytes)
    try:
        opened = (
            None if lazy or replica.format != "zarr" else small_result(replica.url, source.read)
        )
        if opened is None:
            opened = _group(source, replica, chunk_nbytes if lazy else 0)
    except FileNotFoundError as error:
        raise UnreadableDataset(replica.url, "nothing is there") from error
    found = as_kind(opened, kind, replica)
    return found if lazy else found.load()


def as_kind(opened: xr.Dataset | xr.DataArray, kind: Kind, replica: Replica) -> Any:
    """What was opened as ``"array"`` or ``"dataset"``, whichever is wanted.

    Raises
    ------
    UnreadableDataset
        If several arrays are there and the replica does not say which.
    """
    if kind == "dataset":
        if isinstance(opened, xr.DataArray):
            return opened.to_dataset(name=opened.name or "data")
        return opened
    return _one(opened, replica)


def _one(opened: xr.Dataset | xr.DataArray, replica: Replica) -> xr.DataArray:
    if isinstance(opened, xr.DataArray):
        return opened
    names = [str(name) for name in opened.data_vars] or [str(name) for name in opened.variables]
    wanted = replica.variable.strip("/") if replica.variable else None
    if wanted is None and len(names) == 1:
        wanted = names[0]
    if wanted is None or wanted not in opened.variables:
        raise UnreadableDataset(
            replica.url, f"as one array it needs a variable out of {', '.join(names[:20])}"
        )
    return opened[wanted]


def _group(source: Source, replica: Replica, nbytes: int) -> xr.Dataset | xr.DataArray:
    """The whole of an array format, lazily; in Dask blocks of about ``nbytes`` unless that is 0."""
    if replica.format == "zarr":
        return _zarr(source, nbytes)
    if replica.format == "netcdf":
        return _chunked(probe_arrays.open_netcdf(source), nbytes)
    if replica.format == "hdf5":
        return _hdf5(source, replica.variable, nbytes)
    if replica.format == "npy":
        (variable,) = probe_arrays.npy(source)
        return _from_file(NpyArray(source, variable), nbytes)
    raise UnreadableDataset(source.url, f"{replica.format} does not hold arrays")


def _zarr(source: Source, nbytes: int) -> xr.Dataset | xr.DataArray:
    import zarr
    from xarray.backends import ZarrStore

    store = source.zarr()
    opened = zarr.open(store=store, mode="r")
    if isinstance(opened, zarr.Array):
        dims = probe_arrays.zarr_dims(opened)
        if not nbytes:
            return xr.DataArray(np.asarray(opened[...]), dims=dims, name="data")
        return xr.DataArray(_blocks(opened, opened.chunks, nbytes), dims=dims, name="data")
    # By the group that is open: xarray would ask the store for it all over again.
    dataset = xr.open_dataset(
        ZarrStore(opened, mode="r", use_zarr_fill_value_as_mask=opened.metadata.zarr_format == 2),
        chunks=None,
    )
    # We write every chunk: one that is missing was lost, and must not be read as zeros.
    store.complete = has_mark(dataset.attrs)
    return restored(_chunked(dataset, nbytes))


def _chunked(dataset: xr.Dataset, nbytes: int) -> xr.Dataset:
    """Variables in Dask blocks of whole stored chunks; indexes are in memory already."""
    if not nbytes:
        return dataset
    chunked = {}
    for name, variable in dataset.variables.items():
        if name in dataset.xindexes:
            continue
        stored = variable.encoding.get("shards") or variable.encoding.get("chunks")
        stored = stored or variable.encoding.get("chunksizes")
        block = stored_multiple(variable.shape, stored, variable.dtype.itemsize or 8, nbytes)
        chunked[name] = variable.chunk(dict(zip(variable.dims, block, strict=True)))
    coordinates = {name: chunked[name] for name in chunked if name in dataset.coords}
    data = {name: chunked[name] for name in chunked if name not in dataset.coords}
    return dataset.assign(data).assign_coords(coordinates)


@dataclass(frozen=True, slots=True)
class Hdf5Array:
    """One array of an HDF5 file, opened for every piece that is read."""

    source: Source
    variable: Variable

    def __getitem__(self, window: Any) -> np.ndarray[Any, Any]:
        import h5py

        with self.source.file() as file, h5py.File(file, "r") as opened:
            return np.asarray(opened[self.variable.name][window])


@dataclass(frozen=True, slots=True)
class NpyArray:
    """The array of a ``.npy`` file: a memory map per piece, or a run of its bytes from afar."""

    source: Source
    variable: Variable

    def __getitem__(self, window: Any) -> np.ndarray[Any, Any]:
        if self.source.path is not None:
            return np.array(np.load(self.source.path, mmap_mode="r")[window])
        shape, fortran, dtype, offset = probe_arrays.npy_header(self.source)
        if fortran or not shape:
            with self.source.file() as file:
                return np.array(np.load(file)[window])
        first = window[0] if isinstance(window, tuple) and window else slice(None)
        start, stop, _ = first.indices(shape[0])
        row = dtype.itemsize * int(np.prod(shape[1:], dtype=int))
        with self.source.file() as file:
            file.seek(offset + start * row)
            rows = np.frombuffer(file.read((stop - start) * row), dtype)
        rest = window[1:] if isinstance(window, tuple) else ()
        return rows.reshape(stop - start, *shape[1:])[(slice(None), *rest)].copy()


FileArray = Hdf5Array | NpyArray


@dataclass(frozen=True, slots=True)
class _Indexable:
    """A file array with what Dask asks of anything that it cuts into blocks."""

    array: FileArray
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ndim: int

    def __getitem__(self, window: Any) -> np.ndarray[Any, Any]:
        return self.array[window]


def _blocks(array: Any, stored: tuple[int, ...] | None, nbytes: int) -> Any:
    from dask.array import from_array

    block = stored_multiple(array.shape, stored, np.dtype(array.dtype).itemsize or 8, nbytes)
    return from_array(array, chunks=block, asarray=True, inline_array=True, name=False)  # type: ignore[no-untyped-call]


def _from_file(array: FileArray, nbytes: int) -> xr.DataArray:
    variable = array.variable
    name = variable.name.rpartition("/")[2]
    if not nbytes:
        return xr.DataArray(array[()], dims=variable.dims, name=name)
    indexable = _Indexable(array, variable.shape, np.dtype(variable.dtype), len(variable.shape))
    return xr.DataArray(_blocks(indexable, variable.chunks, nbytes), dims=variable.dims, name=name)


def _hdf5(source: Source, wanted: str | None, nbytes: int) -> xr.Dataset | xr.DataArray:
    variables = {variable.name: variable for variable in probe_arrays.hdf5(source)}
    if wanted is not None:
        if wanted.strip("/") not in variables:
            raise UnreadableDataset(
                source.url, f"it has no variable {wanted!r}; there are {', '.join(variables)}"
            )
        return _from_file(Hdf5Array(source, variables[wanted.strip("/")]), nbytes)
    if len(variables) == 1:
        return _from_file(Hdf5Array(source, next(iter(variables.values()))), nbytes)
    return xr.Dataset(
        {
            name: _from_file(Hdf5Array(source, variable), nbytes).variable
            for name, variable in _distinct_dims(variables).items()
        }
    )


def _distinct_dims(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    """Variables whose unnamed dimensions do not clash: ``dim_0`` of two lengths is two dimensions."""
    from dataclasses import replace

    lengths: dict[str, set[int]] = {}
    for variable in variables.values():
        for dim, length in zip(variable.dims, variable.shape, strict=True):
            lengths.setdefault(dim, set()).add(length)
    return {
        name: replace(
            variable,
            dims=tuple(f"{name}_{dim}" if len(lengths[dim]) > 1 else dim for dim in variable.dims),
        )
        for name, variable in variables.items()
    }


def _database(source: Source, lazy: bool) -> Any:
    from dataflow.storage import databases

    if not lazy:
        return read_database(source)
    import dask.dataframe as dd

    empty = databases.batches(source)[0].empty_table().to_pandas()
    return dd.from_map(read_database, [source], meta=empty)  # type: ignore[no-untyped-call]


def read_database(source: Source) -> Any:
    """All rows of a table in a database, as pandas has them."""
    import pyarrow as pa

    from dataflow.storage import databases

    schema, read = databases.batches(source)
    return pa.Table.from_batches(read(), schema=schema).to_pandas()


def _table(source: Source, replica: Replica, lazy: bool, nbytes: int) -> Any:
    if replica.format == "csv":
        return _csv(source, lazy, nbytes)
    if replica.format == "database":
        return _database(source, lazy)
    if replica.format != "parquet":
        raise UnreadableDataset(source.url, f"{replica.format} does not hold a table")
    import pandas as pd
    import pyarrow.parquet as pq

    pieces: list[tuple[Source, tuple[int, ...]]] = []
    schema = None
    for part in parquet_parts(source):
        with part.file() as file:
            footer = pq.ParquetFile(file)
            schema = footer.schema_arrow if schema is None else schema
            sizes = [
                footer.metadata.row_group(group).total_byte_size
                for group in range(footer.metadata.num_row_groups)
            ]
        pieces.extend((part, groups) for groups in _packed(sizes, nbytes))
    if schema is None:
        raise UnreadableDataset(source.url, "there are no Parquet files in it")
    if pieces and not lazy:
        frames = [read_row_groups(piece) for piece in pieces]
        return pd.concat(frames) if len(frames) > 1 else frames[0]
    empty = schema.empty_table().to_pandas()
    if not lazy:
        return empty
    import dask.dataframe as dd

    if not pieces:
        return dd.from_pandas(empty, npartitions=1)  # type: ignore[no-untyped-call]
    return dd.from_map(read_row_groups, pieces, meta=empty)  # type: ignore[no-untyped-call]


def _packed(sizes: list[int], nbytes: int) -> list[tuple[int, ...]]:
    """Neighbouring row groups that together stay below ``nbytes``; at least one each."""
    packed: list[tuple[int, ...]] = []
    room = 0
    for group, size in enumerate(sizes):
        if packed and size <= room:
            packed[-1] = (*packed[-1], group)
        else:
            packed.append((group,))
            room = nbytes
        room -= size
    return packed


def read_row_groups(piece: tuple[Source, tuple[int, ...]]) -> Any:
    """Some row groups of one Parquet file as a pandas DataFrame; the body of one Dask task."""
    import pyarrow.parquet as pq

    source, groups = piece
    with source.file() as file:
        footer = pq.ParquetFile(file, page_checksum_verification=True)
        # Arrow's own threads may outlive a read from a Python file, and then end the process at its exit.
        return footer.read_row_groups(list(groups), use_threads=False).to_pandas()


def _csv(source: Source, lazy: bool, nbytes: int) -> Any:
    import pandas as pd

    remote = source.path is None and not source.url.startswith("s3://")
    with source.file() as file:
        separator = separator_of(file.read(2**16))
    if not lazy or remote:
        with source.file() as file:
            frame = pd.read_csv(file, sep=separator)
        if not lazy:
            return frame
    import dask.dataframe as dd

    if remote:  # in one go: Dask's own readers would not ask as we do
        parts = max(1, ceil(frame.memory_usage(deep=True).sum() / nbytes))
        return dd.from_pandas(frame, npartitions=parts)  # type: ignore[no-untyped-call]

    address = str(source.path or source.url)
    return dd.read_csv(
        address,
        blocksize=nbytes,
        sep=separator,
        storage_options=fsspec_options(source.url, source.credentials, source.options),
    )


def _files(source: Source) -> list[Path]:
    path = source.path
    if path is None:
        raise UnreadableDataset(source.url, "files can be given only where they are local")
    return [path / name if name else path for name, _ in stored_files(source.url)]

"""What array files hold: variables with shape, type and stored chunks, from metadata alone."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from dataflow.datasets import Variable
from dataflow.errors import UnreadableDataset
from dataflow.storage.source import Source


def hdf5(source: Source) -> tuple[Variable, ...]:
    """Every numeric array in an HDF5 file that is not a dimension scale, at any depth."""
    import h5py

    with source.file() as file, h5py.File(file, "r") as opened:
        return tuple(
            Variable(
                name=name,
                dims=hdf5_dims(array),
                shape=tuple(array.shape),
                dtype=str(array.dtype),
                nbytes=prod(array.shape) * array.dtype.itemsize,
                chunks=array.chunks,
            )
            for name, array in hdf5_arrays(opened)
        )


def hdf5_arrays(group: Any) -> Iterator[tuple[str, Any]]:
    """Arrays below an HDF5 group with their paths; dimension scales are coordinates, not data."""
    import h5py

    found: list[tuple[str, Any]] = []

    def visit(name: str, item: Any) -> None:
        if (
            isinstance(item, h5py.Dataset)
            and item.shape is not None
            and item.dtype.kind in "biufcSUO"
            and not h5py.h5ds.is_scale(item.id)
        ):
            found.append((name, item))

    group.visititems(visit)
    yield from found


def hdf5_dims(array: Any) -> tuple[str, ...]:
    """Names of the dimension scales attached to an array, else ``dim_0`` and so on."""
    names = []
    for number in range(len(array.shape)):
        dim = array.dims[number]
        scale = dim[0].name.rpartition("/")[2] if len(dim) else dim.label
        names.append(scale if scale and scale not in names else f"dim_{number}")
    return tuple(names)


def netcdf(source: Source) -> tuple[Variable, ...]:
    """The data variables as xarray decodes them, so with the type that an operation receives."""
    with open_netcdf(source) as dataset:
        return tuple(
            Variable(
                name=str(name),
                dims=tuple(str(dim) for dim in array.dims),
                shape=tuple(array.shape),
                dtype=str(array.dtype),
                nbytes=int(array.nbytes),
                chunks=_chunk_shape(array),
            )
            for name, array in dataset.data_vars.items()
        )


def _chunk_shape(array: xr.DataArray) -> tuple[int, ...] | None:
    chunks = array.encoding.get("chunksizes")
    return tuple(int(n) for n in chunks) if chunks else None


def open_netcdf(source: Source, chunks: Any = None) -> xr.Dataset:
    """A NetCDF file as a Dataset: NetCDF-4 through h5netcdf, the classic formats through scipy.

    Raises
    ------
    UnreadableDataset
        For a classic file, where scipy is not installed.
    """
    with source.file() as file:
        classic = file.read(3) == b"CDF"
    if classic:
        try:
            import scipy  # noqa: F401
        except ImportError:
            raise UnreadableDataset(
                source.url, "this is a classic NetCDF file; reading it needs: pip install scipy"
            ) from None
    engine = "scipy" if classic else "h5netcdf"
    return xr.open_dataset(source.file_or_path(), engine=engine, chunks=chunks)


def zarr_variables(source: Source) -> tuple[Variable, ...]:
    """The array at the URL, or those of the group there that are not coordinates of others."""
    import zarr

    opened = zarr.open(store=source.zarr(), mode="r")
    if isinstance(opened, zarr.Array):
        return (_zarr_variable("data", opened),)
    arrays: dict[str, Any] = dict(opened.arrays())
    found = {name: _zarr_variable(name, array) for name, array in arrays.items()}
    coordinates = {
        word
        for array in [*arrays.values(), opened]
        for word in str(array.attrs.get("coordinates", "")).split()
    }
    coordinates |= {name for name, v in found.items() if v.dims == (name,)}
    data = tuple(v for name, v in found.items() if name not in coordinates)
    return data or tuple(found.values())


def _zarr_variable(name: str, array: Any) -> Variable:
    return Variable(
        name=name,
        dims=zarr_dims(array),
        shape=tuple(array.shape),
        dtype=str(array.dtype),
        nbytes=prod(array.shape) * np.dtype(array.dtype).itemsize,
        # What can be read or written on its own: a shard, where there are shards.
        chunks=tuple(getattr(array, "shards", None) or array.chunks),
    )


def zarr_dims(array: Any) -> tuple[str, ...]:
    """Dimension names of a Zarr array: v3's own, xarray's attribute in v2, else ``dim_0`` …"""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get(
        "_ARRAY_DIMENSIONS", ()
    )
    given = [str(name) if name else f"dim_{n}" for n, name in enumerate(names)]
    return (
        tuple(given) if len(given) == array.ndim else tuple(f"dim_{n}" for n in range(array.ndim))
    )


def npy(source: Source) -> tuple[Variable, ...]:
    """The one array of a ``.npy`` file, from its header."""
    shape, _, dtype, offset = npy_header(source)
    nbytes = prod(shape) * dtype.itemsize
    with source.file() as file:
        stored = file.seek(0, 2)
    if dtype.hasobject:
        raise UnreadableDataset(source.url, "it holds pickled Python objects, which are not loaded")
    if stored < offset + nbytes:
        raise UnreadableDataset(source.url, f"it is cut short: {stored} of {offset + nbytes} bytes")
    dims = tuple(f"dim_{n}" for n in range(len(shape)))
    return (Variable(name="data", dims=dims, shape=shape, dtype=str(dtype), nbytes=nbytes),)


def npy_header(source: Source) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, Fortran order, type and offset of the data of a ``.npy`` file."""
    with source.file() as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        return tuple(int(n) for n in shape), bool(fortran), dtype, file.tell()

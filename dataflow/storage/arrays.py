"""Arrays into Zarr v3: metadata as xarray reads it, and chunks straight from the blocks' memory.

xarray encodes the variables (times, coordinates, attributes); this module writes what comes out.
A chunk goes into the put as it lies in memory, followed by its checksum: no copy, no event loop,
and the size, ETag and digest of every object are known for the manifest without reading back.
Every chunk is written, also one that holds nothing but the fill value, so a chunk that is missing
is always an error.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from math import ceil, prod
from typing import TYPE_CHECKING, Any, Literal

import google_crc32c
import numpy as np
import xarray as xr
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from xarray import conventions
from xarray.backends.zarr import FillValueCoder, encode_zarr_attr_value

from dataflow.datasets import Extent, Variable
from dataflow.errors import StorageError
from dataflow.storage.layout import Cut, cut
from dataflow.storage.manifest import FileEntry
from dataflow.storage.publish import Attempt

if TYPE_CHECKING:
    from collections.abc import Hashable

Compression = Literal["none", "lz4", "zstd"]

#: Where the root attributes say what the group is; :func:`restored` takes it off again.
MARK = "dataflow"

#: Puts one process has on their way at a time, over all its threads.
PUTS_IN_FLIGHT = 16

_KINDS = frozenset("biufcU")


@cache
def _threads(pid: int) -> ThreadPoolExecutor:
    # Keyed by process: threads do not survive a fork. Puts run on threads rather than on an event
    # loop because obstore's futures abort the interpreter when it exits right after them.
    return ThreadPoolExecutor(PUTS_IN_FLIGHT, thread_name_prefix="dataflow-put")


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One array as it is written: its place in the group, type and cut."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    cut: Cut
    compression: Compression

    def metadata(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Zarr v3 metadata of this array, a JSON document."""
        codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
        if self.compression == "lz4":
            configuration = {
                "typesize": self.dtype.itemsize,
                "cname": "lz4",
                "clevel": 5,
                "shuffle": "shuffle",
                "blocksize": 0,
            }
            codecs.append({"name": "blosc", "configuration": configuration})
        if self.compression == "zstd":
            codecs.append({"name": "zstd", "configuration": {"level": 1, "checksum": True}})
        codecs.append({"name": "crc32c"})
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": _data_type(self.dtype),
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(self.cut.chunks)},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": _fill_value(self.dtype),
            "codecs": codecs,
            "attributes": dict(attributes),
            "storage_transformers": [],
        }
        if self.dims:
            document["dimension_names"] = list(self.dims)
        return document

    def chunk_path(self, index: Sequence[int]) -> str:
        """Path of a chunk below the group."""
        return "/".join((self.name, "c", *map(str, index)))

    def encoded(self, piece: np.ndarray[Any, Any]) -> list[Any]:
        """The bytes of one chunk as buffers; a short piece at the edge is filled up."""
        chunk = self.cut.chunks
        if piece.shape != chunk:
            full = np.zeros(chunk, self.dtype)
            full[tuple(slice(0, n) for n in piece.shape)] = piece
            piece = full
        flat = np.ascontiguousarray(piece, dtype=self.dtype).reshape(-1).view(np.uint8)
        stored: Any = flat
        if self.compression == "lz4":
            stored = Blosc("lz4", 5, Blosc.SHUFFLE).encode(flat.view(self.dtype))
        elif self.compression == "zstd":
            stored = Zstd(level=1, checksum=True).encode(flat)
        return [stored, struct.pack("<I", google_crc32c.value(stored))]


def _data_type(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "U":
        return {
            "name": "fixed_length_utf32",
            "configuration": {"length_bytes": max(dtype.itemsize, 4)},
        }
    return dtype.name


def _fill_value(dtype: np.dtype[Any]) -> Any:
    return {"b": False, "U": "", "c": [0.0, 0.0], "f": 0.0}.get(dtype.kind, 0)


def write_block(
    block: np.ndarray[Any, Any], origin: Sequence[int], *, attempt: Attempt, array: StoredArray
) -> list[FileEntry]:
    """Write the chunks of one block whose first element has index ``origin``."""
    return write_blocks(block, attempt=attempt, array=array, origins=[tuple(origin)])


def write_blocks(
    *blocks: np.ndarray[Any, Any],
    attempt: Attempt,
    array: StoredArray,
    origins: Sequence[tuple[int, ...]],
) -> list[FileEntry]:
    """Write all chunks of some blocks, several at a time; the body of one Dask task."""
    jobs = [
        (index, np.asarray(block)[window])
        for block, origin in zip(blocks, origins, strict=True)
        for index, window in _chunks(block.shape, origin, array.cut.chunks)
    ]

    def put(index: tuple[int, ...], piece: np.ndarray[Any, Any]) -> FileEntry:
        return attempt.put(array.chunk_path(index), array.encoded(piece))

    if len(jobs) == 1:
        return [put(*jobs[0])]
    pool = _threads(os.getpid())
    futures = [pool.submit(put, *job) for job in jobs]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()


def _chunks(
    shape: Sequence[int], origin: Sequence[int], chunks: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Chunk indices in a block, and the window of the block that each covers."""
    starts = [range(0, length, chunk) for length, chunk in zip(shape, chunks, strict=True)]
    for start in product(*starts):
        index = tuple((o + s) // c for o, s, c in zip(origin, start, chunks, strict=True))
        yield index, tuple(slice(s, s + c) for s, c in zip(start, chunks, strict=True))


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """A Dataset ready to be written: arrays with their values, and the root metadata."""

    arrays: tuple[tuple[StoredArray, Any], ...]
    array_metadata: Mapping[str, bytes]
    root_metadata: bytes
    extent: Extent


def encode(
    dataset: xr.Dataset,
    *,
    mark: Mapping[str, Any],
    chunk_nbytes: int,
    compression: Compression,
) -> EncodedGroup:
    """Decide everything about a group without writing it or computing anything.

    Parameters
    ----------
    mark
        Goes into the root attributes under :data:`MARK`.

    Raises
    ------
    StorageError
        For elements that Zarr has no type for, and names it has no place for.
    """
    # What is said about the file the data came from (chunks, packing, fill values) does not hold
    # for this one.
    plain = dataset.drop_encoding()
    variables, attributes = conventions.encode_dataset_coordinates(plain)
    arrays, documents = [], {}
    for key, variable in variables.items():
        name = _array_name(key)
        encoded = _without_objects(name, variable)
        if encoded.dtype.kind != "b":  # which Zarr has and NetCDF has not
            encoded = conventions.encode_cf_variable(encoded, name=name)
        values = encoded.data if encoded.chunks is not None else np.asarray(encoded.values)
        dtype = np.dtype(values.dtype).newbyteorder("<")
        if dtype.kind not in _KINDS:
            raise StorageError(
                f"variable {name!r} has elements of type {dtype}, not storable as Zarr"
            )
        array = StoredArray(
            name=name,
            shape=tuple(int(n) for n in encoded.shape),
            dtype=dtype if dtype.itemsize else np.dtype("<U1"),
            dims=tuple(str(dim) for dim in encoded.dims),
            cut=cut(
                encoded.shape,
                max(dtype.itemsize, 1),
                blocks=encoded.chunks,
                chunk_nbytes=chunk_nbytes,
            ),
            compression=compression,
        )
        arrays.append((array, values))
        documents[name] = array.metadata(_attributes(encoded.attrs, dtype))
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**_attributes(attributes, None), MARK: dict(mark)},
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": documents,
        },
    }
    return EncodedGroup(
        arrays=tuple(arrays),
        array_metadata={name: _json(name, document) for name, document in documents.items()},
        root_metadata=_json("the root", root),
        extent=extent_of(dataset, {array.name: array.cut.chunks for array, _ in arrays}),
    )


def _array_name(key: Hashable) -> str:
    name = str(key)
    if not name or name != name.strip("/") or "/" in name or name.startswith(("__", ".")):
        raise StorageError(f"a variable cannot be called {name!r} in a Zarr group")
    return name


def _without_objects(name: str, variable: xr.Variable) -> xr.Variable:
    """Python strings as a fixed-width type; other objects have no portable form."""
    if variable.dtype.kind not in "OT":
        return variable
    if variable.chunks is not None:
        raise StorageError(
            f"variable {name!r} holds Python objects in Dask blocks; give them a type, as in "
            ".astype('U16') or .astype(float)"
        )
    values = np.asarray(variable.values)
    if not all(isinstance(item, str) for item in values.flat):
        raise StorageError(f"variable {name!r} holds Python objects that are not all strings")
    return variable.copy(deep=False, data=values.astype("U"))


def _attributes(attributes: Mapping[Any, Any], dtype: np.dtype[Any] | None) -> dict[str, Any]:
    found = {str(name): encode_zarr_attr_value(value) for name, value in attributes.items()}  # type: ignore[no-untyped-call]
    fill = found.pop("_FillValue", None)
    # NaN stands for itself; only an integer needs to be told which value means "missing" (times).
    if fill is not None and dtype is not None and dtype.kind in "iu":
        found["_FillValue"] = FillValueCoder.encode(fill, dtype)
    return found


def _json(name: str, document: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(document, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise StorageError(f"attributes of {name} are not JSON: {error}") from error


def extent_of(dataset: xr.Dataset, chunks: Mapping[str, tuple[int, ...]]) -> Extent:
    """Extent of the data variables; of the coordinates, if there is nothing else."""
    names = list(dataset.data_vars) or list(dataset.coords)
    variables = tuple(
        Variable(
            name=str(name),
            dims=tuple(str(dim) for dim in dataset[name].dims),
            shape=tuple(int(n) for n in dataset[name].shape),
            dtype=str(dataset[name].dtype),
            nbytes=int(dataset[name].nbytes),
            chunks=chunks.get(str(name)),
        )
        for name in names
    )
    return Extent(nbytes=int(dataset.nbytes), variables=variables)


def tasks(attempt: Attempt, group: EncodedGroup) -> list[tuple[int, Any]]:
    """Delayed tasks that write the Dask arrays of a group, each with the bytes it covers."""
    from dask.array.core import normalize_chunks
    from dask.delayed import delayed

    found = []
    for array, values in group.arrays:
        if isinstance(values, np.ndarray):
            continue
        wanted = normalize_chunks(array.cut.blocks, shape=array.shape)  # type: ignore[no-untyped-call]
        aligned = values if values.chunks == wanted else values.rechunk(wanted)
        starts = [np.cumsum([0, *lengths[:-1]]).tolist() for lengths in wanted]
        origins = [tuple(origin) for origin in product(*starts)]
        shapes = [prod(lengths) for lengths in product(*wanted)]
        blocks = aligned.to_delayed().ravel().tolist()
        for first in range(0, len(blocks), array.cut.together):
            some = slice(first, first + array.cut.together)
            write = partial(write_blocks, attempt=attempt, array=array, origins=origins[some])
            task = delayed(write, pure=False)(*blocks[some])
            found.append((sum(shapes[some]) * array.dtype.itemsize, task))
    return found


def write_in_memory(attempt: Attempt, group: EncodedGroup) -> Iterator[tuple[int, list[FileEntry]]]:
    """Write the arrays of a group that are in memory: pairs of bytes covered and files."""
    for array, values in group.arrays:
        if not isinstance(values, np.ndarray):
            continue
        rows = array.cut.chunks[0] if array.shape else 1
        # A stripe at a time: as many chunks as are in flight, not a copy of the whole array.
        across = prod(
            ceil(n / c) for n, c in zip(array.shape[1:], array.cut.chunks[1:], strict=True)
        )
        stripe = rows * max(1, PUTS_IN_FLIGHT // max(across, 1))
        for start in range(0, array.shape[0], stripe) if array.shape else [0]:
            block = values[start : start + stripe] if array.shape else values
            origin = (start, *(0 for _ in array.shape[1:])) if array.shape else ()
            yield block.nbytes, write_block(block, origin, attempt=attempt, array=array)


def write_metadata(attempt: Attempt, group: EncodedGroup) -> list[FileEntry]:
    """Write the metadata of the arrays, not yet that of the group."""
    return [attempt.put(f"{name}/zarr.json", [body]) for name, body in group.array_metadata.items()]


def as_dataset(value: xr.DataArray) -> tuple[xr.Dataset, dict[str, Any]]:
    """A DataArray as a Dataset of one data variable, and the mark that restores it."""
    name = None if value.name is None else str(value.name)
    # A variable with the name of a dimension comes back as a coordinate.
    taken = {str(key) for key in (*value.coords, *value.dims)}
    variable = next(n for n in (name, "data", "data_", "data__") if n and n not in taken)
    dataset = (
        value.drop_encoding().to_dataset(name="dataflow-array").rename({"dataflow-array": variable})
    )
    return dataset, {"kind": "array", "variable": variable, "name": name}


def restored(dataset: xr.Dataset) -> xr.Dataset | xr.DataArray:
    """What was stored: the DataArray that :func:`as_dataset` took apart, or the Dataset."""
    attributes = dict(dataset.attrs)
    mark = attributes.pop(MARK, None)
    plain = dataset.copy(deep=False)
    plain.attrs = attributes
    if not isinstance(mark, Mapping) or mark.get("kind") != "array":
        return plain
    return plain[mark["variable"]].rename(mark["name"])


def has_mark(attributes: Mapping[Any, Any]) -> bool:
    """Whether root attributes say that this package wrote the group."""
    return isinstance(attributes.get(MARK), Mapping)

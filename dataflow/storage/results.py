"""Results: values written as plain Zarr, Parquet or files, and made visible in one step.

:func:`write_result` writes under the prefix of one attempt and publishes it
(:mod:`dataflow.storage.publish`); the layout is in :mod:`dataflow.storage.layout`. A reader needs
nothing of this package: ``xr.open_zarr(manifest.url)`` opens an array or a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr
import xxhash

from dataflow.datasets import Extent, Format, Kind
from dataflow.errors import StorageError
from dataflow.storage import arrays, tables
from dataflow.storage.arrays import Compression
from dataflow.storage.manifest import (
    FileEntry,
    Manifest,
    dataset_of,
    opened_url,
    replica_of,
)
from dataflow.storage.open import Options
from dataflow.storage.publish import (
    Attempt,
    attempt_at,
    discard,
    find_result,
    plain_errors,
    publish,
    remove_result,
    verify_result,
)
from dataflow.storage.upkeep import check_store, collect_garbage

__all__ = [
    "CHUNK_NBYTES",
    "FileEntry",
    "Manifest",
    "check_store",
    "collect_garbage",
    "dataset_of",
    "discard",
    "find_result",
    "remove_result",
    "replica_of",
    "verify_result",
    "write_result",
]

#: Bytes of a Zarr chunk before compression, where the shape permits.
CHUNK_NBYTES = 8 * 2**20

#: Files above this go up in parts rather than in one request that holds them in memory.
ONE_PUT_NBYTES = 64 * 2**20

Compute = Callable[..., Sequence[Any]]
Progress = Callable[[int, int], None]


def write_result(
    value: Any,
    *,
    root: str,
    key: str,
    attempt: str,
    provenance: Mapping[str, Any],
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    chunk_nbytes: int = CHUNK_NBYTES,
    compression: Compression = "none",
    compute: Compute | None = None,
    on_progress: Progress | None = None,
) -> Manifest:
    """Store a value under its key, whole or not at all.

    Parameters
    ----------
    value
        DataArray, Dataset, NumPy or Dask array, scalar, mapping of name to array; pandas or Dask
        DataFrame, pandas Series, an Arrow table or a stream of batches; a path or a sequence of paths to files.
    root
        URL of a results store.
    key, attempt
        Which result, and a name for this try that nobody else uses.
    provenance
        JSON values, kept in the manifest and in the attributes of the Zarr group.
    chunk_nbytes
        Target size of Zarr chunks and Parquet parts (eight chunks' worth).
    compression
        ``"none"``, ``"lz4"`` (Blosc with shuffle: gigabytes per second on one core, for doubles that
        barely compress) or ``"zstd"`` (level 1: smaller and slower). Every chunk ends in a CRC32C.
    compute
        Runs Dask tasks and returns their values in order, as :func:`dask.compute`, the default.
    on_progress
        Called in this process with bytes (in memory) written and in all.

    Returns
    -------
    Manifest
        Of what is committed under ``key``: this attempt, or an earlier or faster one. If there is
        one at the start, nothing is computed.

    Raises
    ------
    StorageError
        If the value has no stored form, or the store fails; nothing is visible then, and what was
        written is for :func:`collect_garbage`.
    """
    place = attempt_at(root, key, attempt, credentials=credentials, options=options)
    found = find_result(root, key, credentials=credentials, options=options)
    if found is not None:
        return found
    run = compute or _dask_compute
    tell = on_progress or _silent
    stored = normalised(value)
    if isinstance(stored, list):
        return _write_files(stored, place, provenance, tell)
    if not isinstance(stored, xr.Dataset | xr.DataArray):
        return _write_table(stored, place, provenance, 8 * chunk_nbytes, run, tell)
    return _write_group(stored, place, provenance, chunk_nbytes, compression, run, tell)


def normalised(value: Any) -> Any:
    """The form in which a value is stored: DataArray, Dataset, DataFrame, Arrow table or list of paths.

    Raises
    ------
    StorageError
        If there is none.
    """
    if isinstance(value, xr.DataArray | xr.Dataset | pd.DataFrame | pa.Table | tables.Batches):
        return value
    if isinstance(value, xr.Variable):
        return xr.DataArray(value)
    if isinstance(value, pd.Series):
        return value.to_frame(name="0" if value.name is None else str(value.name))
    if isinstance(value, Path):
        return [value]
    if isinstance(value, Mapping):
        return _merged(value)
    if isinstance(value, list | tuple) and value and all(isinstance(v, Path) for v in value):
        return list(value)
    kind = type(value).__module__.partition(".")[0]
    if kind in {"dask", "dask_expr"}:
        if (
            hasattr(value, "npartitions")
            and hasattr(value, "_meta")
            and not hasattr(value, "chunks")
        ):
            frame = value.to_frame() if getattr(value, "ndim", 2) == 1 else value
            if getattr(frame, "ndim", 2) == 2:
                return frame
        elif hasattr(value, "chunks"):
            _known_shape(value)
            return xr.DataArray(value)
    elif kind not in {"builtins", "numpy", "datetime"} and not hasattr(value, "__array__"):
        raise StorageError(f"a value of type {type(value).__name__} has no stored form")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise StorageError(f"a ragged {type(value).__name__} has no stored form") from error
    if array.dtype.kind == "O":
        raise StorageError(f"a value of type {type(value).__name__} has no stored form")
    return xr.DataArray(array)


def _known_shape(array: Any) -> None:
    if any(np.isnan(length) for lengths in array.chunks for length in lengths):
        raise StorageError(
            "a Dask array of unknown shape cannot be stored; call compute_chunk_sizes() on it first"
        )


def _merged(mapping: Mapping[Any, Any]) -> xr.Dataset:
    """Named arrays as a Dataset; dimensions that clash in length get the array's name in front."""
    members: dict[str, xr.DataArray] = {}
    for name, value in mapping.items():
        array = normalised(value)
        if not isinstance(array, xr.DataArray):
            raise StorageError(f"{name!r} is a {type(value).__name__}, not an array")
        members[str(name)] = array
    lengths: dict[Any, set[int]] = {}
    for array in members.values():
        for dim, length in array.sizes.items():
            lengths.setdefault(dim, set()).add(length)
    return xr.Dataset(
        {
            name: array.rename({d: f"{name}_{d}" for d in array.dims if len(lengths[d]) > 1})
            for name, array in members.items()
        }
    )


def _write_group(
    value: xr.Dataset | xr.DataArray,
    place: Attempt,
    provenance: Mapping[str, Any],
    chunk_nbytes: int,
    compression: Compression,
    run: Compute,
    tell: Progress,
) -> Manifest:
    kind: Kind = "array" if isinstance(value, xr.DataArray) else "dataset"
    if isinstance(value, xr.DataArray):
        dataset, mark = arrays.as_dataset(value)
    else:
        dataset, mark = value, {"kind": "dataset"}
    group = arrays.encode(
        dataset,
        mark={**mark, "key": place.key, "attempt": place.attempt, "provenance": dict(provenance)},
        chunk_nbytes=chunk_nbytes,
        compression=compression,
    )
    files: list[FileEntry] = []
    total, done = group.extent.nbytes, 0
    for nbytes, some in arrays.write_in_memory(place, group):
        files.extend(some)
        done += nbytes
        tell(done, total)
    planned = arrays.tasks(place, group)
    if planned:
        for (nbytes, _), some in zip(planned, run(*(task for _, task in planned)), strict=True):
            files.extend(some)
            done += nbytes
        tell(done, total)
    files.extend(arrays.write_metadata(place, group))
    manifest = _manifest(place, kind, "zarr", files, group.extent, provenance)
    return publish(place, manifest, root_metadata=group.root_metadata)


def _write_table(
    frame: Any,
    place: Attempt,
    provenance: Mapping[str, Any],
    part_nbytes: int,
    run: Compute,
    tell: Progress,
) -> Manifest:
    parts: list[tables.Part] = []
    if isinstance(frame, pa.Table):
        frame = tables.pieces_of(frame, part_nbytes)
    if isinstance(frame, tables.Batches):
        for part in tables.write_batches(frame, attempt=place, part_nbytes=part_nbytes):
            parts.append(part)
            tell(sum(sum(part[2]) for part in parts), 0)
        frame = frame.schema.empty_table().to_pandas()
    elif isinstance(frame, pd.DataFrame):
        frame = frame.rename(columns=str)
        total = int(frame.memory_usage(index=True, deep=True).sum())  # of text it reads every value
        pieces = tables.parts_of(frame, part_nbytes, total)
        for number, piece in enumerate(pieces):
            parts.append(tables.write_part(piece, attempt=place, number=number))
            tell(sum(sum(part[2]) for part in parts), total)
    else:
        parts = list(run(*tables.tasks(place, frame)))
    extent = tables.extent_of(frame, parts)
    tell(extent.nbytes, extent.nbytes)
    files = [part[0] for part in parts]
    return publish(place, _manifest(place, "table", "parquet", files, extent, provenance))


def _write_files(
    paths: list[Path], place: Attempt, provenance: Mapping[str, Any], tell: Progress
) -> Manifest:
    sources = _named(paths)
    total = sum(source.stat().st_size for source in sources.values())
    files: list[FileEntry] = []
    for name, source in sources.items():
        files.append(put_file(place, name, source))
        tell(sum(file.size for file in files), total)
    return publish(
        place, _manifest(place, "files", "files", files, Extent(nbytes=total), provenance)
    )


def _named(paths: list[Path]) -> dict[str, Path]:
    """Files by the name they get: their own, or their path inside a directory that was given."""
    found: dict[str, Path] = {}
    for path in paths:
        inside = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        if not inside:
            raise StorageError(f"there is no file {path}")
        for file in inside:
            name = str(file.relative_to(path.parent))
            if name in found:
                raise StorageError(f"two files are called {name}")
            found[name] = file
    return found


def put_file(place: Attempt, name: str, source: Path) -> FileEntry:
    """Write one local file into an attempt; large ones in parts, with bounded memory."""
    size = source.stat().st_size
    if size <= ONE_PUT_NBYTES:
        return place.put(name, [source.read_bytes()])
    digest = xxhash.xxh3_128()
    with source.open("rb") as file:
        while piece := file.read(2**22):
            digest.update(piece)
    with plain_errors(place.url):
        put = place.store.put(f"{place.prefix}/{name}", source, chunk_size=16 * 2**20)
    return FileEntry(name, size, put["e_tag"], digest.hexdigest())


def _manifest(
    place: Attempt,
    kind: Kind,
    format: Format,
    files: Sequence[FileEntry],
    extent: Extent,
    provenance: Mapping[str, Any],
) -> Manifest:
    ordered = tuple(sorted(files, key=lambda file: file.path))
    return Manifest(
        key=place.key,
        attempt=place.attempt,
        kind=kind,
        format=format,
        files=ordered,
        nbytes=sum(file.size for file in ordered),
        extent=extent,
        provenance=dict(provenance),
        url=opened_url(place.url, format, ordered),
        prefix=place.url,
    )


def _dask_compute(*collections: Any) -> Sequence[Any]:
    from dask.base import compute

    values: Sequence[Any] = compute(*collections)  # type: ignore[no-untyped-call]
    return values


def _silent(done: int, total: int) -> None:
    """No progress wanted."""

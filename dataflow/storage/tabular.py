"""Tables as streams of Arrow batches, whatever they are stored as.

:func:`tabular` makes one :class:`Tabular` of a stored replica, of what an earlier step hands on, or of
a frame in memory. Nothing is read before it is asked for, and no more than a batch or two is held at
a time, however large the table is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import xarray as xr

from dataflow.datasets import Kind, Replica
from dataflow.errors import UnreadableDataset
from dataflow.storage.open import Options
from dataflow.storage.read import open_data
from dataflow.storage.source import Source
from dataflow.storage.table_files import Table, csv_batches, parquet_batches, sqlite_tables
from dataflow.storage.tables import Batches

#: Rows of a batch of what is in memory, or is cut out of arrays.
BATCH_ROWS = 65_536
_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """A replica that is to be read as a table, by whoever opens it.

    What the functions of operations with ``reads = "tables"`` get in place of an opened dataset.
    """

    replica: Replica
    kind: Kind
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Options = ()
    paths: tuple[Path, ...] = ()

    @property
    def identity(self) -> str:
        """Changes whenever the rows may have; empty if that cannot be told."""
        replica = self.replica
        if not replica.fingerprint:
            return ""
        return f"{replica.key} {replica.fingerprint} {replica.url} {replica.variable or ''}"


class Tabular:
    """A table that can be read as often as wanted, in batches.

    Parameters
    ----------
    schema
        Names and types of the columns.
    read
        Starts reading, anew with each call.
    identity
        Two of the same identity hold the same rows; empty if nothing is known.
    nbytes
        About what it takes in memory; 0 if nobody knows.
    """

    def __init__(
        self,
        schema: pa.Schema,
        read: Callable[[], Iterator[pa.RecordBatch]],
        *,
        identity: str = "",
        nbytes: int = 0,
    ) -> None:
        self._open: Callable[[], Table] = lambda: (schema, read)
        self.identity, self.nbytes = identity, nbytes

    @classmethod
    def unopened(cls, opening: Callable[[], Table], *, identity: str, nbytes: int) -> Tabular:
        """One of which not even the schema is read before somebody asks."""
        found = cls(pa.schema([]), lambda: iter(()), identity=identity, nbytes=nbytes)
        found._open = functools.cache(opening)
        return found

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._open()[0]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, from the first."""
        return self._open()[1]()

    def reader(self) -> pa.RecordBatchReader:
        """The same as one Arrow stream, for libraries that take one."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())

    def loaded(self) -> pa.Table:
        """All of it in memory."""
        return pa.Table.from_batches(self.batches(), schema=self.schema)


def tabular(value: Any) -> Tabular:
    """One table.

    Parameters
    ----------
    value
        A stored table, an Arrow table, a pandas or Dask DataFrame, an xarray Dataset whose variables
        are columns, a DataArray of records or of one column, or the path of a file.

    Raises
    ------
    TypeError
        If it cannot be understood as one table.
    """
    tables = tables_of(value)
    if len(tables) != 1:
        raise TypeError(
            f"it holds {len(tables)} tables ({', '.join(tables)}) where one is wanted; choose by a query"
        )
    return next(iter(tables.values()))


def tables_of(value: Any) -> dict[str, Tabular]:
    """The tables in a value by name; a single one that has no name goes by the empty one."""
    if isinstance(value, Tabular):
        return {"": value}
    if isinstance(value, StoredTable):
        return _stored(value)
    if isinstance(value, pa.Table):
        return {"": Tabular(value.schema, lambda: iter(value.to_batches()), nbytes=value.nbytes)}
    if isinstance(value, pd.DataFrame):
        return {"": _of_frame(value)}
    if isinstance(value, pd.Series):
        return {"": _of_frame(value.to_frame(str(value.name or "value")))}
    if isinstance(value, xr.Dataset | xr.DataArray):
        return {"": _of_arrays(value)}
    if isinstance(value, Path):  # no mere string: what an operation returns may name any file
        return _of_path(value)
    if isinstance(value, Sequence) and len(value) == 1:
        return tables_of(value[0])
    if hasattr(value, "to_delayed") and hasattr(value, "_meta"):
        return {"": _of_dask(value)}
    raise TypeError(f"a {type(value).__name__} is no table")


def gathered(schema: pa.Schema, batches: Iterator[pa.RecordBatch], nbytes: int) -> Any:
    """An Arrow table if all batches together have at most ``nbytes``, else the stream of them."""
    first: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        first.append(batch)
        size += batch.nbytes
        if size > nbytes:
            return Batches(schema, _chained(first, batches))
    return pa.Table.from_batches(first, schema=schema)


def _chained(
    first: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    while first:
        yield first.pop(0)
    yield from rest


# --- what lies in a store ---------------------------------------------------------------------------


def _stored(stored: StoredTable) -> dict[str, Tabular]:
    replica = stored.replica
    source = Source(
        replica.url, credentials=dict(stored.credentials), options=tuple(stored.options)
    )
    if stored.paths:
        return tables_of(list(stored.paths))
    if replica.format in ("csv", "parquet"):
        opening = csv_batches if replica.format == "csv" else parquet_batches
        # Whoever has the table already does not need the file.
        table = Tabular.unopened(
            lambda: opening(source), identity=stored.identity, nbytes=replica.nbytes
        )
        return {"": table}
    if replica.format == "database":
        from dataflow.storage import databases

        table = Tabular.unopened(
            lambda: databases.batches(source), identity=stored.identity, nbytes=replica.nbytes
        )
        return {"": table}
    opened = open_data(
        replica,
        kind="array" if stored.kind == "array" else "dataset",
        credentials=stored.credentials,
        options=stored.options,
    )
    return {"": _of_arrays(opened, stored.identity)}


def _of_path(path: Path) -> dict[str, Tabular]:
    with path.open("rb") as file:
        begins = file.read(len(_SQLITE))
    if begins == _SQLITE:
        return {name: Tabular(*found) for name, found in sqlite_tables(path).items()}
    source = Source(path.as_uri())
    if begins.startswith(b"PAR1"):
        return {"": Tabular(*parquet_batches(source))}
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return {"": Tabular(*csv_batches(source))}
    raise UnreadableDataset(path.as_uri(), "it is no table that we know: CSV, Parquet or SQLite")


# --- what is in memory, or lazy ---------------------------------------------------------------------


def _of_frame(frame: pd.DataFrame) -> Tabular:
    plain = isinstance(frame.index, pd.RangeIndex) or all(n is None for n in frame.index.names)
    table = pa.Table.from_pandas(frame.rename(columns=str), preserve_index=False if plain else None)
    table = table.replace_schema_metadata(None)
    return Tabular(
        table.schema, lambda: iter(table.to_batches(max_chunksize=BATCH_ROWS)), nbytes=table.nbytes
    )


def _of_dask(frame: Any) -> Tabular:
    schema = _of_frame(frame._meta).schema

    def read() -> Iterator[pa.RecordBatch]:
        for part in frame.to_delayed():
            for batch in _of_frame(part.compute(scheduler="sync")).batches():
                yield _cast(batch, schema)

    return Tabular(schema, read)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    (cast,) = pa.Table.from_batches([batch]).cast(schema).combine_chunks().to_batches()
    return cast


def _of_arrays(value: xr.Dataset | xr.DataArray, identity: str = "") -> Tabular:
    """Variables of one common dimension as columns; the fields of records as columns."""
    columns: dict[str, Any] = {}
    if isinstance(value, xr.DataArray) and value.ndim == 1 and value.dtype.names:
        columns = {name: (value, name) for name in value.dtype.names}
        rows = value.sizes[value.dims[0]]
    else:
        dataset = (
            value.to_dataset(name=str(value.name or "value"))
            if isinstance(value, xr.DataArray)
            else value
        )
        columns = {str(name): (dataset[name], None) for name in dataset.variables}
        sizes = {tuple(array.shape) for array, _ in columns.values()}
        if len(sizes) != 1 or len(next(iter(sizes))) != 1:
            raise TypeError(
                "arrays are a table only if all have one dimension of the same length, not "
                + ", ".join(f"{name} {array.shape}" for name, (array, _) in columns.items())
            )
        rows = next(iter(sizes))[0]

    def piece(start: int) -> pa.RecordBatch:
        cut: dict[str, Any] = {}
        for name, (array, part) in columns.items():
            values = array[start : start + BATCH_ROWS].values
            values = values if part is None else values[part]
            if values.dtype.kind == "S":
                values = values.astype(str)
            cut[name] = pa.array(values.astype(object) if values.dtype.kind == "U" else values)
        return pa.RecordBatch.from_pydict(cut)

    schema = piece(0).schema

    def read() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, BATCH_ROWS):
            yield _cast(piece(start), schema)

    return Tabular(schema, read, identity=identity)

"""Tables into Parquet parts: one file per partition, every page with a checksum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dataflow.datasets import Extent, Variable
from dataflow.storage.manifest import FileEntry
from dataflow.storage.publish import Attempt

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: What a part reports: its file, its rows, the bytes of each column in memory.
Part = tuple[FileEntry, int, tuple[int, ...]]


#: A table of more rows has the least and greatest value of every column with each group of rows.
STATISTICS_ROWS = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """A table that comes as a stream, to be stored as it comes: nobody ever holds all of it.

    It can be read once. ``batches`` fit ``schema``.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def write_part(
    frame: pd.DataFrame, *, attempt: Attempt, number: int, schema: pa.Schema | None = None
) -> Part:
    """Write one partition; the body of one Dask task."""
    import pandas as pd
    import pyarrow as pa

    # Partitions of one table differ in whether their index is a plain count, which takes no column;
    # whether there is a column is decided by the whole.
    index = None
    if schema is not None and len(schema.names) > len(frame.columns):
        index = True
    elif schema is not None and not isinstance(frame.index, pd.RangeIndex):
        index = False
    table = pa.Table.from_pandas(frame, preserve_index=index)
    if schema is not None:
        # A partition without a single value in a column guesses another type than its neighbours.
        table = table.cast(schema.with_metadata(table.schema.metadata))
    packed = _packed(table)
    usage = frame.memory_usage(index=False, deep=True)
    entry = attempt.put(f"part-{number:06}.parquet", [packed])
    # Arrow keeps what it freed for the next time; a worker near its limit would be stopped for it.
    del table, packed
    pa.default_memory_pool().release_unused()
    return entry, len(frame), tuple(int(n) for n in usage)


def write_batches(stream: Batches, *, attempt: Attempt, part_nbytes: int) -> Iterator[Part]:
    """Write a stream as parts of about ``part_nbytes``, at least one; tells of each."""
    import pyarrow as pa

    schema = stream.schema.remove_metadata()
    pending: list[pa.RecordBatch] = []
    size = number = 0
    for batch in stream.batches:
        pending.append(batch)
        size += batch.nbytes
        if size >= part_nbytes:
            yield _write_table(pa.Table.from_batches(pending, schema), attempt, number)
            pending, size, number = [], 0, number + 1
    if pending or not number:
        yield _write_table(pa.Table.from_batches(pending, schema), attempt, number)


def pieces_of(table: pa.Table, part_nbytes: int) -> Batches:
    """An Arrow table in memory as a stream of pieces, each of about ``part_nbytes`` at most."""
    rows = max(1, table.num_rows * part_nbytes // max(table.nbytes, 1))
    return Batches(table.schema, iter(table.to_batches(max_chunksize=rows)))


def _packed(table: pa.Table) -> memoryview:
    """A table as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # what is read at once anyway needs no least and greatest values; those of a frame's text take long
    statistics = table.num_rows > STATISTICS_ROWS
    pq.write_table(table, sink, write_page_checksum=True, write_statistics=statistics)
    return memoryview(sink.getvalue()).cast("B")


def _write_table(table: pa.Table, attempt: Attempt, number: int) -> Part:
    entry = attempt.put(f"part-{number:06}.parquet", [_packed(table)])
    return entry, table.num_rows, tuple(int(column.nbytes) for column in table.columns)


def tasks(attempt: Attempt, frame: Any) -> list[Any]:
    """Delayed tasks that write the partitions of a Dask DataFrame."""
    from dask.delayed import delayed

    schema = schema_of(frame._meta)
    return [
        delayed(partial(write_part, attempt=attempt, number=number, schema=schema), pure=False)(
            partition
        )
        for number, partition in enumerate(frame.to_delayed())
    ]


def parts_of(frame: pd.DataFrame, part_nbytes: int, nbytes: int) -> list[pd.DataFrame]:
    """A frame in memory, of ``nbytes``, as parts of about ``part_nbytes``; at least one."""
    rows = max(1, len(frame) * part_nbytes // max(nbytes, 1))
    return [frame.iloc[start : start + rows] for start in range(0, max(len(frame), 1), rows)]


def schema_of(meta: pd.DataFrame) -> pa.Schema | None:
    """The Arrow schema that an empty frame implies; ``None`` if it leaves a type open."""
    import pyarrow as pa

    schema = pa.Schema.from_pandas(meta)
    return None if any(pa.types.is_null(field.type) for field in schema) else schema


def extent_of(frame: Any, parts: Sequence[Part]) -> Extent:
    """Extent of a table from what its parts reported."""
    rows = sum(part[1] for part in parts)
    variables = tuple(
        Variable(
            name=str(name),
            dims=("row",),
            shape=(rows,),
            dtype=str(dtype),
            nbytes=sum(part[2][column] for part in parts),
        )
        for column, (name, dtype) in enumerate(frame.dtypes.items())
    )
    return Extent(nbytes=sum(variable.nbytes for variable in variables), variables=variables)

"""Tables into Parquet parts: one file per partition, every page with a checksum."""

from __future__ import annotations

from collections.abc import Sequence
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


def write_part(
    frame: pd.DataFrame, *, attempt: Attempt, number: int, schema: pa.Schema | None = None
) -> Part:
    """Write one partition; the body of one Dask task."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    usage = frame.memory_usage(index=False, deep=True)
    entry = attempt.put(f"part-{number:06}.parquet", [memoryview(sink.getvalue()).cast("B")])
    # Arrow keeps what it freed for the next time; a worker near its limit would be stopped for it.
    del table, sink
    pa.default_memory_pool().release_unused()
    return entry, len(frame), tuple(int(n) for n in usage)


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


def parts_of(frame: pd.DataFrame, part_nbytes: int) -> list[pd.DataFrame]:
    """A frame in memory as parts of about ``part_nbytes``; at least one."""
    nbytes = int(frame.memory_usage(index=True, deep=True).sum())
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

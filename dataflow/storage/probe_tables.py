"""What table files hold: columns with their types, and the number of rows."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd

from dataflow.datasets import Variable
from dataflow.errors import UnreadableDataset
from dataflow.storage.dialect import separator_of
from dataflow.storage.manifest import PARQUET
from dataflow.storage.source import Source

SAMPLE_ROWS = 1000
PIECE_ROWS = 100_000


def csv(source: Source) -> tuple[Variable, ...]:
    """Columns of a CSV file with a header line; types as pandas sees them in the first 1000 rows.

    Raises
    ------
    UnreadableDataset
        If it is not text, or lines do not have as many fields as the header.
    """
    with source.file() as file:
        head = file.read(2**16)
    if b"\0" in head:
        raise UnreadableDataset(source.url, "it is called .csv and holds binary data")
    separator = separator_of(head)
    with source.file() as file:
        sample = pd.read_csv(file, nrows=SAMPLE_ROWS, sep=separator)
    if not len(sample.columns):
        raise UnreadableDataset(source.url, "it has no header line")
    rows = 0
    with source.file() as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        # The parser counts: a quoted field may hold line breaks.
        reader = pd.read_csv(text, chunksize=PIECE_ROWS, usecols=[0], dtype=str, sep=separator)
        for piece in reader:
            rows += len(piece)
    usage = sample.memory_usage(index=False, deep=True)
    return tuple(
        _column(str(name), dtype, rows, float(used) / max(len(sample), 1))
        for (name, dtype), used in zip(sample.dtypes.items(), usage, strict=True)
    )


def _column(name: str, dtype: Any, rows: int, row_nbytes: float) -> Variable:
    return Variable(
        name=name, dims=("row",), shape=(rows,), dtype=str(dtype), nbytes=round(rows * row_nbytes)
    )


def parquet(source: Source) -> tuple[Variable, ...]:
    """Columns of a Parquet file, or of all the parts in a directory, from their footers."""
    import pyarrow.parquet as pq

    nbytes: dict[str, int] = {}
    rows, schema = 0, None
    for part in parquet_parts(source):
        with part.file() as file:
            footer = pq.ParquetFile(file)
            rows += footer.metadata.num_rows
            schema = schema or footer.schema_arrow
            if footer.schema_arrow.names != schema.names:
                raise UnreadableDataset(part.url, "its columns differ from those of the first part")
            for group in range(footer.metadata.num_row_groups):
                described = footer.metadata.row_group(group)
                for column in range(described.num_columns):
                    chunk = described.column(column)
                    top = chunk.path_in_schema.partition(".")[0]
                    nbytes[top] = nbytes.get(top, 0) + chunk.total_uncompressed_size
    if schema is None:
        raise UnreadableDataset(source.url, "there are no Parquet files in it")
    frame = schema.empty_table().to_pandas()
    return tuple(
        Variable(
            name=str(name),
            dims=("row",),
            shape=(rows,),
            dtype=str(dtype),
            nbytes=_in_memory(dtype, rows, nbytes.get(str(name), 0)),
        )
        for name, dtype in frame.dtypes.items()
    )


def _in_memory(dtype: Any, rows: int, uncompressed: int) -> int:
    itemsize = getattr(dtype, "itemsize", 0)
    return int(max(rows * itemsize, uncompressed))


def parquet_parts(source: Source) -> list[Source]:
    """The files of a Parquet dataset in order of their names; the URL itself, if it is a file."""
    from dataflow.storage.fingerprints import stored_files

    files = stored_files(
        source.url,
        credentials=source.credentials,
        options=source.options,
        headers=source.headers,
    )
    if files[0][0] == "":
        return [source]
    return [source.below(path) for path, _ in files if path.endswith(PARQUET)]

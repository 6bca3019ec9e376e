"""Files that hold tables, as schema and stream of Arrow batches."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dataflow.errors import UnreadableDataset
from dataflow.storage.dialect import separator_of
from dataflow.storage.probe_tables import parquet_parts
from dataflow.storage.source import Source

#: Bytes of a CSV file from whose first block the types of its columns are taken.
BLOCK_NBYTES = 16 * 2**20
#: Rows that are taken from a database at a time.
FETCHED_ROWS = 50_000

#: Schema, and what starts reading.
Table = tuple[pa.Schema, Callable[[], Iterator[pa.RecordBatch]]]


def csv_batches(source: Source) -> Table:
    """A CSV file with a header line, its separator found out, whatever its line ends are.

    Raises
    ------
    UnreadableDataset
        If it is no CSV file; while reading, if a later value does not fit the type of its column.
    """

    def opened() -> Any:
        file = source.file()
        try:
            with source.file() as head:
                separator = separator_of(head.read(2**16))
            return file, pa.csv.open_csv(
                file,
                read_options=pa.csv.ReadOptions(block_size=BLOCK_NBYTES, use_threads=False),
                parse_options=pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(strings_can_be_null=True),
            )
        except pa.ArrowInvalid as error:
            file.close()
            raise UnreadableDataset(source.url, str(error)) from error

    file, reader = opened()
    with closing(file), closing(reader):
        schema = reader.schema

    def read() -> Iterator[pa.RecordBatch]:
        file, reader = opened()
        with closing(file), closing(reader):
            try:
                yield from reader
            except pa.ArrowInvalid as error:
                # The value itself is not told: whoever sees the error may not see the rows.
                column = str(error).partition(":")[0]
                raise UnreadableDataset(
                    source.url,
                    f"{column}: a value does not fit the type that the column has at the beginning of "
                    "the file\nWhat you can do: store the table as Parquet.",
                ) from None

    return schema, read


def parquet_batches(source: Source) -> Table:
    """A Parquet file, or the parts in a directory one after the other."""
    parts = parquet_parts(source)
    if not parts:
        raise UnreadableDataset(source.url, "there are no Parquet files in it")
    with parts[0].file() as file:
        schema = pa.parquet.ParquetFile(file).schema_arrow.remove_metadata()

    def read() -> Iterator[pa.RecordBatch]:
        for part in parts:
            with part.file() as file:
                opened = pa.parquet.ParquetFile(file, page_checksum_verification=True)
                for batch in opened.iter_batches(use_threads=False):
                    table = pa.Table.from_batches([batch.replace_schema_metadata(None)])
                    yield from table.cast(schema).to_batches()

    return schema, read


def sqlite_tables(path: Path) -> dict[str, Table]:
    """The tables of an SQLite file by name; it is opened for reading only.

    Column types are those of the first 50,000 rows: SQLite itself has none that bind.
    """

    def connected() -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)

    with closing(connected()) as connection:
        rows = connection.execute(
            "select name from sqlite_master where type in ('table', 'view') "
            "and name not like 'sqlite_%' order by name"
        )
        names = [str(name) for (name,) in rows]
    return {name: _sqlite_table(name, connected) for name in names}


def _sqlite_table(name: str, connected: Callable[[], sqlite3.Connection]) -> Table:
    quoted = '"' + name.replace('"', '""') + '"'

    def pieces() -> Iterator[pa.RecordBatch]:
        with closing(connected()) as connection:
            cursor = connection.execute(f"select * from {quoted}")  # the name is the file's own
            columns = [str(column[0]) for column in cursor.description]
            while True:
                rows = cursor.fetchmany(FETCHED_ROWS)
                values = zip(*rows, strict=True) if rows else ([] for _ in columns)
                arrays = [pa.array(list(column)) for column in values]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)
                if len(rows) < FETCHED_ROWS:
                    return

    with closing(pieces()) as first:  # type: ignore[type-var]
        schema = next(first).schema

    def read() -> Iterator[pa.RecordBatch]:
        for piece in pieces():
            yield from pa.Table.from_batches([piece]).cast(schema).to_batches()

    return schema, read

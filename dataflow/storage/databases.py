"""Databases: a PostgreSQL or MySQL server is a store, and its tables and views are data.

``postgresql://host:5432/personnel/Personen`` is the table ``Personen`` of the database ``personnel``
(``…/schema.Personen`` in another schema). A table is read in one transaction that cannot write, a batch at a
time, in the order of its primary key if it has one. It has no files: what is to go elsewhere is what a query
found.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import xxhash

from dataflow.datasets import Variable
from dataflow.errors import UnreadableDataset
from dataflow.storage.source import Source

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

#: Rows that are taken from a server at a time.
FETCHED_ROWS = 50_000
_SAMPLE_ROWS = 1000
_CONNECT_SECONDS = 10
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}

Batches = tuple[pa.Schema, Callable[[], Iterator[pa.RecordBatch]]]


def probe(source: Source) -> tuple[tuple[Variable, ...], int, str]:
    """Columns of a table, about how many bytes it has, and its fingerprint; reads all of it once.

    Raises
    ------
    UnreadableDataset
        If the server does not answer, or has no such table.
    """
    with _opened(source) as (connection, table):
        schema = _schema(table)
        rows, fingerprint = _fingerprint(connection, table)
        first = connection.execute(_select(table).limit(_SAMPLE_ROWS)).fetchall()
        sample = _batch(source.url, schema, first)
    row_nbytes = sample.nbytes / max(1, len(sample))
    frame = schema.empty_table().to_pandas()
    columns = tuple(
        Variable(
            name=str(name),
            dims=("row",),
            shape=(rows,),
            dtype=str(dtype),
            nbytes=round(rows * column.nbytes / max(1, len(sample))),
        )
        for (name, dtype), column in zip(frame.dtypes.items(), sample.columns, strict=True)
    )
    return columns, round(rows * row_nbytes), fingerprint


def fingerprint(source: Source) -> str:
    """Changes whenever a row does, whatever order they are in; the server reads all of them.

    Raises
    ------
    UnreadableDataset
        As :func:`probe`.
    """
    with _opened(source) as (connection, table):
        return _fingerprint(connection, table)[1]


def batches(source: Source) -> Batches:
    """A table as schema, and what starts reading; each reading sees one moment of the table.

    Raises
    ------
    UnreadableDataset
        As :func:`probe`; also while reading.
    """
    with _opened(source) as (_, table):
        schema = _schema(table)

    def read() -> Iterator[pa.RecordBatch]:
        with _opened(source) as (connection, table):
            if _schema(table) != schema:
                raise UnreadableDataset(source.url, "its columns have changed meanwhile")
            found = connection.execution_options(yield_per=FETCHED_ROWS).execute(_select(table))
            for rows in found.partitions():
                yield _batch(source.url, schema, rows)

    return schema, read


def tables(url: str, credentials: Mapping[str, str], options: Mapping[str, str]) -> list[str]:
    """Names of all tables and views that a database has in the schema that it begins with.

    Raises
    ------
    UnreadableDataset
        If the server does not answer.
    """
    sqlalchemy = _library(url)
    with _connected(url, url, credentials, options) as connection:
        found = sqlalchemy.inspect(connection)
        return sorted([*found.get_table_names(), *found.get_view_names()])


# --- the server ---------------------------------------------------------------------------------------


def _library(url: str) -> Any:
    try:
        import sqlalchemy
    except ImportError as error:
        raise _not_installed(url, error) from error
    return sqlalchemy


def _not_installed(url: str, error: ImportError) -> UnreadableDataset:
    return UnreadableDataset(
        url, f"this needs {error.name!r}: pip install 'jupyter-dataflow[databases]'"
    )


@contextmanager
def _opened(source: Source) -> Iterator[tuple[Connection, Table]]:
    """A connection that cannot write and sees one moment, and what the table is like."""
    sqlalchemy = _library(source.url)
    database, _, name = source.url.rpartition("/")
    schema, _, bare = map(unquote, name.rpartition("."))  # a dot in a name is written %2E
    if urlsplit(database).path.strip("/") == "" or not bare:
        raise UnreadableDataset(
            source.url, "a table is named by its database and itself: …/database/table"
        )
    with _connected(source.url, database, source.credentials, dict(source.options)) as connection:
        try:
            table = sqlalchemy.Table(
                bare, sqlalchemy.MetaData(), schema=schema or None, autoload_with=connection,
                resolve_fks=False,
            )  # fmt: skip
        except sqlalchemy.exc.NoSuchTableError:
            raise UnreadableDataset(
                source.url, f"there is no table or view {unquote(name)!r} that this account may see"
            ) from None
        for column in table.columns:
            if isinstance(column.type, sqlalchemy.types.Float):
                column.type.asdecimal = False  # for MySQL they would be rounded to ten decimals
        yield connection, table


@contextmanager
def _connected(
    told: str, url: str, credentials: Mapping[str, str], options: Mapping[str, str]
) -> Iterator[Connection]:
    sqlalchemy = _library(told)
    parts = urlsplit(url)
    address = sqlalchemy.URL.create(
        _DRIVERS[parts.scheme],
        username=credentials.get("username"),
        password=credentials.get("password"),
        host=parts.hostname,
        port=parts.port,
        database=unquote(parts.path.strip("/")),
        query=dict(options),
    )
    try:
        engine = sqlalchemy.create_engine(
            address,
            poolclass=sqlalchemy.pool.NullPool,
            isolation_level="REPEATABLE READ",
            connect_args={"connect_timeout": _CONNECT_SECONDS},
        )
        with engine.connect() as connection:
            _only_read(connection)
            yield connection
    except ImportError as error:  # the driver
        raise _not_installed(told, error) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UnreadableDataset(told, _reason(error)) from None


def _only_read(connection: Connection) -> None:
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION READ ONLY"))
        # Else two readings at the same time begin where the other is.
        connection.execute(text("SET LOCAL synchronize_seqscans = off"))
    else:
        connection.rollback()
        connection.execute(text("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"))


def _reason(error: Exception) -> str:
    """What the server said, in one line, without what was asked of it and what is in the table.

    Of a value that cannot be read, servers and drivers say the value, which is for those who may see it.
    """
    import sqlalchemy

    said = getattr(error, "orig", None) or error
    if isinstance(error, sqlalchemy.exc.DataError):
        return f"a value in it cannot be read ({type(said).__name__})"
    code = getattr(said, "sqlstate", None) or next(iter(getattr(said, "args", ())), None)
    if isinstance(error, sqlalchemy.exc.DBAPIError) and not _is_told(code):
        return f"the server refuses ({type(said).__name__}, {code})"
    text = str(said.args[-1] if getattr(said, "args", ()) else said).strip()
    return text.partition("\n")[0] or type(said).__name__


#: Of errors of PostgreSQL the classes, and of MySQL the numbers, whose text says nothing of rows: it is
#: about connections, accounts, names, rights, resources, or what is no reading.
_TOLD_STATES = {"08", "25", "28", "3D", "3F", "42", "53", "57", "58"}
_TOLD_NUMBERS = {
    1040, 1042, 1044, 1045, 1046, 1049, 1053, 1054, 1102, 1103, 1129, 1130, 1142, 1143, 1146,
    1203, 1205, 1213, 1226, 1227, 1290, 1356, 1370, 1698, 1792, 1969, *range(2000, 3000),
}  # fmt: skip


def _is_told(code: Any) -> bool:
    """Whether the text to a server's code is about the connection, rights or names, and no row's value."""
    if isinstance(code, int):
        return code in _TOLD_NUMBERS
    return not re.fullmatch("[0-9A-Z]{5}", str(code)) or code[:2] in _TOLD_STATES


def _select(table: Table) -> Any:
    import sqlalchemy

    return sqlalchemy.select(table).order_by(*table.primary_key.columns)


def _fingerprint(connection: Connection, table: Table) -> tuple[int, str]:
    """Number of rows and a digest of all of them, worked out by the server."""
    from sqlalchemy import text

    quote = connection.dialect.identifier_preparer
    name = quote.format_table(table)
    if connection.dialect.name == "postgresql":
        one = "hashtextextended(CAST(t AS text), 0)"
        asked = f"SELECT count(*), sum(CAST({one} AS numeric)) FROM {name} AS t"
    else:  # quoted values, so that where one ends and the next begins is certain, and NULL is itself
        values = ", ".join(f"quote({quote.format_column(column)})" for column in table.columns)
        one = f"CAST(conv(left(md5(concat_ws(',', {values})), 15), 16, 10) AS UNSIGNED)"
        asked = f"SELECT count(*), sum({one}) FROM {name}"
    # Names are quoted for a driver that knows of marks; as a text it is quoted for it once more.
    asked = asked.replace("%%", "%").replace(":", r"\:")
    rows, total = connection.execute(text(asked)).one()
    columns = [f"{column.name} {column.type!r}" for column in table.columns]
    digest = xxhash.xxh3_128("\0".join([*columns, str(rows), str(total)]).encode())
    return int(rows), f"rows:{digest.hexdigest()}"


# --- values -------------------------------------------------------------------------------------------


def _schema(table: Table) -> pa.Schema:
    return pa.schema([pa.field(column.name, _type(column.type)) for column in table.columns])


def _type(known: Any) -> pa.DataType:
    """The type of Arrow for a type of SQL; what has no counterpart is text."""
    from sqlalchemy import types

    if isinstance(known, types.Boolean):
        return pa.bool_()
    if isinstance(known, types.Integer):
        return pa.uint64() if getattr(known, "unsigned", False) else pa.int64()
    if isinstance(known, types.Float):
        return pa.float64()
    if isinstance(known, types.Numeric):
        digits = known.precision
        exact = digits is not None and digits <= 38
        return pa.decimal128(digits, known.scale or 0) if exact else pa.float64()
    if isinstance(known, types.DateTime):
        return pa.timestamp("us", "UTC" if known.timezone else None)
    if isinstance(known, types.Date):
        return pa.date32()
    if isinstance(known, types.Time) and not known.timezone:
        return pa.time64("us")
    if isinstance(known, types.LargeBinary):
        return pa.binary()
    return pa.string()


def _batch(url: str, schema: pa.Schema, rows: Any) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    arrays = []
    for column, field in zip(columns, schema, strict=True):
        try:
            arrays.append(pa.array([_value(value, field.type) for value in column], field.type))
        except (pa.ArrowException, ValueError, TypeError, ArithmeticError):
            raise UnreadableDataset(
                url,
                f"a value of column {field.name!r} is no {field.type}, as which it was declared",
            ) from None  # which value is for those who may see the rows
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _value(value: Any, wanted: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(wanted):
        return value if isinstance(value, str) else _text(value)
    if pa.types.is_floating(wanted):
        return float(value)
    if pa.types.is_boolean(wanted):
        return bool(value)
    if isinstance(value, memoryview):
        return bytes(value)
    if pa.types.is_time(wanted) and isinstance(value, datetime.timedelta):
        return (datetime.datetime.min + value).time()
    return value


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        from dataflow.documents import canonical_json

        return canonical_json(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    return str(value)

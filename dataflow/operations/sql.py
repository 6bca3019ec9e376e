"""SQL over tables, by DuckDB: one SELECT, and nothing but the tables that were given.

The text of a query comes from whoever asks. So before anything runs it has to be a single SELECT
whose tables are those of the request, without functions that read files, run other queries or tell
of the machine; and the engine that runs it has no way to files, networks, extensions or settings.
Results are the same for the same query: one thread, rows in the order of the tables.
"""

from __future__ import annotations

import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflow.agreements import DATA_PROVIDER
from dataflow.graph.operation import operation
from dataflow.storage.scratch import scratch
from dataflow.storage.tabular import Tabular, gathered, tables_of

#: Functions that make a table of nothing but their arguments.
TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "repeat", "repeat_row"})
#: Functions that tell of the machine, write to it, or find out what is not among the tables.
UNWANTED = frozenset(
    {
        *("current_setting", "getvariable", "getenv", "write_log", "add_parquet_key"),
        *("nextval", "currval", "setseed", "random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7"),
    }
)
#: Results of at most so many bytes are handed on in memory, larger ones through the store.
SMALL_NBYTES = 32 * 2**20
#: Tables of at most so many bytes stay in memory for the next query; so many bytes in all.
KEPT_NBYTES = 64 * 2**20
KEPT_IN_ALL = 256 * 2**20
MEMORY = "512MB"
BATCH_ROWS = 65_536


@operation(name="query", version="1", role=DATA_PROVIDER)
def query(*tables: Any, sql: str, names: Sequence[str] = ()) -> Any:
    """Rows that a SELECT finds in one or several tables.

    ``query(session["uva/Personen"], sql="SELECT Geslacht, count(*) FROM data GROUP BY 1")``

    Parameters
    ----------
    *tables
        CSV, Parquet, HDF5 (one-dimensional arrays of one length, or records), SQLite files, and results
        of other operations.
    sql
        One SELECT (or WITH … SELECT), as DuckDB understands it.
    names
        What the tables are called in it, in order; by default ``data``, and with several ``data1``,
        ``data2`` …. Those of an SQLite file have their own names.

    Returns
    -------
    pyarrow.Table
        A DataFrame for whoever opens it. A stream of batches instead, if it is large: it is stored as it comes.

    Raises
    ------
    PermissionError
        If the query is anything but one SELECT over these tables.
    ValueError
        If it is no SQL, or names a column that is not there. Of an error that depends on values it
        is told that there was one, not the value.
    """
    return answer(sql, named(tables, names))


query.function.reads = "tables"  # type: ignore[attr-defined]


def named(tables: Sequence[Any], names: Sequence[str]) -> dict[str, Tabular]:
    """Tables by the name that they have in the query."""
    found: dict[str, Tabular] = {}
    wanted = list(names)
    several = len(tables) > 1
    for number, value in enumerate(tables, 1):
        for own, table in tables_of(value).items():
            name = own or (wanted.pop(0) if wanted else f"data{number}" if several else "data")
            if name.lower() in {known.lower() for known in found}:
                raise ValueError(
                    f"query: two tables are called {name!r}; give each a name (names=)"
                )
            found[name] = table
    if wanted:
        raise ValueError(f"query: there is no table for the name {wanted[0]!r}")
    return found


def answer(sql: str, tables: Mapping[str, Tabular]) -> Any:
    """Run a query over named tables."""
    counts = uses(sql, tables)
    used = {name: tables[name] for name in tables if counts.get(name.lower())}
    kept = {name: _kept.get(table) for name, table in used.items()}
    small = {name: table for name, table in kept.items() if table is not None}
    in_memory = len(small) == len(used)
    connection = _shared().cursor() if in_memory else _connected(scratch())
    for name, table in used.items():
        if name in small:
            connection.register(name, small[name])
        elif counts[name.lower()] == 1:
            connection.register(name, table.reader())
        else:  # a stream can be read once; this is written to disk where memory does not do
            connection.register("incoming stream", table.reader())
            quoted = name.replace('"', '""')
            connection.execute(f'CREATE TEMP TABLE "{quoted}" AS SELECT * FROM "incoming stream"')
            connection.unregister("incoming stream")
    schema, batches = _rows(connection, sql)
    return gathered(schema, batches, SMALL_NBYTES)


def uses(sql: str, tables: Mapping[str, Tabular]) -> dict[str, int]:
    """How often a query reads each table (name in lower case); more often if that is not certain.

    Raises
    ------
    PermissionError, ValueError
        As :func:`query`.
    """
    found = _parsed(sql)
    own: set[str] = set()
    counts: dict[str, int] = {}
    for part in _parts(found):
        own |= {str(entry["key"]).lower() for entry in (part.get("cte_map") or {}).get("map", ())}
    known = {name.lower() for name in tables}
    for part in _parts(found):
        kind = part.get("type")
        if kind == "BASE_TABLE":
            name = str(part.get("table_name", "")).lower()
            elsewhere = part.get("schema_name") or part.get("catalog_name")
            if elsewhere or name not in known | own:
                there = ", ".join(tables)
                raise PermissionError(f"query: there is no table {name!r}; there are {there}")
            counts[name] = counts.get(name, 0) + (2 if own else 1)
        elif kind == "TABLE_FUNCTION":
            name = str((part.get("function") or {}).get("function_name", "")).lower()
            if name not in TABLE_FUNCTIONS:
                raise PermissionError(f"query: the table function {name!r} is not for queries")
        elif kind == "SHOW_REF":
            raise PermissionError("query: only a SELECT is run here")
        name = str(part.get("function_name", "")).lower()
        if name in UNWANTED:
            raise PermissionError(f"query: the function {name!r} is not for queries")
    return counts


def _parsed(sql: str) -> Any:
    import duckdb

    connection = _shared().cursor()
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type.name != "SELECT":
            raise PermissionError("query: it has to be one SELECT and nothing else")
        row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    except duckdb.Error as error:
        raise ValueError(f"query: {error}") from None
    finally:
        connection.close()
    found = json.loads(row[0])
    if found.get("error"):
        raise PermissionError(f"query: it cannot be checked: {found.get('error_message')}")
    return found


def _parts(found: Any) -> Iterator[Mapping[str, Any]]:
    """All objects in a parsed query."""
    stack = [found]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            yield part
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)


def _rows(connection: Any, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import duckdb

    def told(error: Exception) -> Exception:
        # What is wrong with the text may be said; what is wrong with a value would tell the value.
        harmless = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
        if isinstance(error, harmless):
            return ValueError(f"query: {error}")
        return ValueError(f"query: it failed on the rows ({type(error).__name__})")

    def read(reader: Any) -> Iterator[pa.RecordBatch]:
        try:
            for batch in reader:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise told(error) from None
        finally:
            connection.close()

    try:
        reader = connection.sql(sql).to_arrow_reader(BATCH_ROWS)
    except duckdb.Error as error:
        connection.close()
        raise told(error) from None
    fields = zip(reader.schema, _distinct(reader.schema.names), strict=True)
    schema = pa.schema([field.with_name(name) for field, name in fields])
    return schema, read(reader)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of columns, those that were there before with a number: ``Peildat``, ``Peildat_1``."""
    found: list[str] = []
    for name in names:
        number, own = 0, name
        while own in found or (number and own in names):
            number += 1
            own = f"{name}_{number}"
        found.append(own)
    return found


def _connected(folder: Path | None) -> Any:
    """An engine that reads nothing but what is handed to it."""
    import duckdb

    config: dict[str, Any] = {
        "threads": 1,
        "memory_limit": MEMORY,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_unsigned_extensions": False,
        "python_enable_replacements": False,
    }
    if folder is not None:
        config["temp_directory"] = str(folder)
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@functools.cache
def _shared() -> Any:
    """The engine of this process for tables in memory; each query gets a connection of its own."""
    return _connected(None)


class _Kept:
    """Tables of this process that were read before, as long as nothing in them changes."""

    def __init__(self) -> None:
        self._tables: OrderedDict[str, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, table: Tabular) -> pa.Table | None:
        """All of a small table in memory; ``None`` for one that is not small."""
        with self._lock:
            found = self._tables.get(table.identity)
            if found is not None:
                self._tables.move_to_end(table.identity)
                return found
        loaded = _loaded(table)
        if loaded is not None and table.identity:
            with self._lock:
                self._tables[table.identity] = loaded
                while sum(kept.nbytes for kept in self._tables.values()) > KEPT_IN_ALL:
                    self._tables.popitem(last=False)
        return loaded


def _loaded(table: Tabular) -> pa.Table | None:
    if table.nbytes > KEPT_NBYTES:
        return None
    batches, size = [], 0
    for batch in table.batches():
        batches.append(batch)
        size += batch.nbytes
        if size > KEPT_NBYTES:
            return None
    return pa.Table.from_batches(batches, schema=table.schema)


_kept = _Kept()

"""The catalog's file: its tables, and what SQLite's complaints mean to a person."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dataflow.errors import CatalogError

#: "dfct" in the header tells our file from any other database.
MARK = 0x64666374
VERSION = 1

#: One row per record: its last version. The indexes with expressions serve search.
SCHEMA = (
    f"PRAGMA application_id = {MARK}",
    f"PRAGMA user_version = {VERSION}",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE origin ("
    "site TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE record (site TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, "
    "id TEXT NOT NULL, body TEXT NOT NULL, deleted INTEGER NOT NULL)",
    "CREATE UNIQUE INDEX record_by_id ON record (site, kind, id)",
    "CREATE UNIQUE INDEX record_by_seq ON record (site, seq)",
    "CREATE INDEX record_by_kind ON record (kind, site, seq)",
    "CREATE INDEX dataset_by_name ON record (json_extract(body, '$.name')) "
    "WHERE kind = 'dataset' AND deleted = 0",
    "CREATE INDEX replica_by_key ON record (json_extract(body, '$.key')) "
    "WHERE kind = 'replica' AND deleted = 0",
)


def boot_id() -> str:
    """Names the time since the machine was started; unique each time where that is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import secrets

        return secrets.token_hex(8)


@contextmanager
def explained(path: Path, closed: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn SQLite's errors into a `CatalogError` that says what to do.

    Raises
    ------
    CatalogError
        Instead of any `sqlite3.Error` or `OSError` inside.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise CatalogError(f"the catalog {path} cannot be used: {error}{_advice(error)}") from error
    except sqlite3.ProgrammingError as error:
        if closed():
            raise CatalogError(f"the catalog {path} is closed") from error
        raise
    except sqlite3.DatabaseError as error:
        raise CatalogError(
            f"the catalog {path} is damaged: {error}\n"
            "What you can do: move the file away and start again. Records of other sites come "
            "back by themselves; register your own data again. No data is lost, only its record."
        ) from error
    except OSError as error:
        raise CatalogError(f"the catalog {path} cannot be used: {error}") from error


def _advice(error: sqlite3.OperationalError) -> str:
    text = str(error)
    if "locked" in text:
        return "\nWhat you can do: another process holds it for too long; end that one."
    if "full" in text:
        return "\nWhat you can do: make room on the disk; nothing was written."
    if "readonly" in text or "unable to open" in text:
        return "\nWhat you can do: check who owns the file and its directory."
    return ""

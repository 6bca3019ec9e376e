"""SQLite files of one process: how they are opened, and writing to them all or nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def opened(path: Path, *, timeout: float = 30.0) -> sqlite3.Connection:
    """A connection for all threads, which take turns; it commits when it is told to.

    Parameters
    ----------
    timeout
        Seconds that a writer waits for another one.
    """
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing, and nobody else writes meanwhile."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # some errors have undone all already
            db.execute("ROLLBACK")
        raise


class Opening:
    """A file that is made when it is first needed: at most sites nobody ever does.

    Parameters
    ----------
    prepare
        Makes the tables that are missing.
    """

    def __init__(self, path: Path, prepare: Callable[[sqlite3.Connection], object]) -> None:
        self._path, self._prepare = path, prepare
        self._thread = threading.Lock()
        self._known: sqlite3.Connection | None = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The file, for one thread at a time."""
        with self._thread:
            if self._known is None:
                db = opened(self._path)
                try:
                    self._prepare(db)
                except BaseException:
                    db.close()
                    raise
                self._known = db
            yield self._known

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The same in a transaction."""
        with self.reading() as db, transaction(db):
            yield db

    def close(self) -> None:
        """Close it; whoever needs it again opens it again."""
        with self._thread:
            if self._known is not None:
                self._known.close()
                self._known = None

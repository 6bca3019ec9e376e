"""Meter: bytes that this site handed out, by job; the other half of every ledger entry."""

from __future__ import annotations

import threading
from pathlib import Path

from dataflow._sqlite import opened
from dataflow.execution.view import LedgerEntry

_SCHEMA = """
CREATE TABLE IF NOT EXISTS served (
    job TEXT NOT NULL, key TEXT NOT NULL, target TEXT NOT NULL,
    nbytes INTEGER NOT NULL, last REAL NOT NULL, PRIMARY KEY (job, key, target)
) WITHOUT ROWID;
"""


class Meter:
    """Sums of bytes by job, key and receiver, in a file of their own."""

    def __init__(self, path: Path) -> None:
        self._thread = threading.Lock()
        self._db = opened(path)
        self._db.execute("PRAGMA synchronous = OFF")  # a count, not a commitment
        self._db.executescript(_SCHEMA)

    def add(self, job: str, key: str, nbytes: int, target: str, now: float) -> None:
        """Count bytes that went to ``target``."""
        with self._thread:
            self._db.execute(
                "INSERT INTO served VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET nbytes = nbytes + excluded.nbytes, last = excluded.last",
                [job, key, target, nbytes, now],
            )

    def entries(self, source: str) -> list[LedgerEntry]:
        """All that was counted, newest last."""
        with self._thread:
            rows = self._db.execute(
                "SELECT job, key, target, nbytes FROM served ORDER BY last, job, key, target"
            ).fetchall()
        return [
            LedgerEntry(job=job, key=key, source=source, target=target, nbytes=nbytes)
            for job, key, target, nbytes in rows
        ]

    def close(self) -> None:
        """Close the file."""
        with self._thread:
            self._db.close()

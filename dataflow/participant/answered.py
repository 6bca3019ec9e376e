"""Answered: the sets of rows that were computed with at this site, where an owner has a row floor."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from dataflow._sqlite import Opening
from dataflow.policy.differencing import RowSet, too_close

FILE = "answered.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answered (
    dataset TEXT NOT NULL, key TEXT NOT NULL, rows INTEGER NOT NULL, digest TEXT NOT NULL,
    time REAL NOT NULL, PRIMARY KEY (dataset, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answered_rows ON answered (dataset, rows);
"""


class Answered:
    """Sets of rows by the dataset that they are of, in a file of their own; it only grows.

    A set is known by the key of what made it. To forget a dataset's sets, and to let everything be
    asked again, is to remove the file while the agent does not run.
    """

    def __init__(self, path: Path) -> None:
        self._file = Opening(path, lambda db: db.executescript(_SCHEMA))

    def knows(self, key: str, datasets: Mapping[str, int]) -> bool:
        """Whether a set of rows was let through before, for all of these datasets."""
        query = "SELECT 1 FROM answered WHERE dataset = ? AND key = ?"
        with self._file.reading() as db:
            return all(db.execute(query, [one, key]).fetchone() for one in datasets)

    def take(self, key: str, rows: RowSet, datasets: Mapping[str, int], now: float) -> str | None:
        """Note a set of rows, unless it is too close to one that was noted before.

        Parameters
        ----------
        key
            Of what made the rows.
        datasets
            Key of each dataset that they are of → its owner's floor.

        Returns
        -------
        str or None
            The dataset to which it is too close; nothing is noted then.
        """
        with self._file.writing() as db:
            close = _close(db, key, rows, datasets)
            if close is None:
                db.executemany(
                    "INSERT INTO answered VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    [(dataset, key, rows.rows, rows.digest, now) for dataset in datasets],
                )
        return close

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _close(
    db: sqlite3.Connection, key: str, rows: RowSet, datasets: Mapping[str, int]
) -> str | None:
    for dataset, floor in datasets.items():
        near = db.execute(
            "SELECT rows, digest FROM answered WHERE dataset = ? AND key != ? "
            "AND rows BETWEEN ? AND ?",
            [dataset, key, rows.rows - floor + 1, rows.rows + floor - 1],
        )
        if too_close(rows, [RowSet(*one) for one in near], floor):
            return dataset
    return None

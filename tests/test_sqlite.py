"""SQLite files: made when first needed, written all or nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dataflow._sqlite import Opening, opened, transaction

TABLE = "CREATE TABLE IF NOT EXISTS word (text TEXT UNIQUE)"


def words(db: sqlite3.Connection) -> list[str]:
    return [text for (text,) in db.execute("SELECT text FROM word ORDER BY text")]


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "words.db"
    file = Opening(path, lambda db: db.execute(TABLE))
    file.close()
    assert not path.exists()
    with file.writing() as db:
        db.execute("INSERT INTO word VALUES ('one')")
    file.close()
    with file.reading() as db:
        assert words(db) == ["one"]
    file.close()


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    db = opened(tmp_path / "words.db")
    db.execute(TABLE)
    with pytest.raises(sqlite3.IntegrityError), transaction(db):
        db.executemany("INSERT INTO word VALUES (?)", [["one"], ["one"]])
    assert words(db) == []
    # As a full disk does: all is undone before it is told of.
    once = "INSERT OR ROLLBACK INTO word VALUES (?)"
    with pytest.raises(sqlite3.IntegrityError), transaction(db):
        db.executemany(once, [["one"], ["one"]])
    assert not db.in_transaction
    assert words(db) == []
    db.close()


def test_a_file_that_cannot_be_prepared_is_tried_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def prepare(db: sqlite3.Connection) -> None:
        tries.append(1)
        db.execute(TABLE if len(tries) > 1 else "CREATE NONSENSE")

    file = Opening(tmp_path / "words.db", prepare)
    with pytest.raises(sqlite3.OperationalError), file.reading():
        pass
    with file.reading() as db:
        assert words(db) == []
    file.close()


def test_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "words.db"
    one, other = opened(path), opened(path, timeout=0)
    one.execute(TABLE)
    with (
        transaction(one),
        pytest.raises(sqlite3.OperationalError, match="locked"),
        transaction(other),
    ):
        pass
    with transaction(other):
        other.execute("INSERT INTO word VALUES ('two')")
    assert words(one) == ["two"]
    one.close()
    other.close()

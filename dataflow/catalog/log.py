"""Log: one SQLite file per participant, in which each site is the writer of its own log.

The file holds this site's log and copies of the others'. A log keeps the last version of each
record; every write gives the record a new, higher ``seq``, and a deletion is a version like any
other. Copies are brought by `sync`, which asks for all rows above the ``seq`` it has.

Guarantees
----------
- A write is whole or absent, also when the process is killed in its middle, and survives the
  process once it has returned. After a power failure the last writes may be missing: the site
  then begins a new epoch, so that nobody takes its next writes for the lost ones.
- Nobody but this site changes its log: `apply` refuses rows for it.
- A copy has no holes: `apply` takes rows only as far as nothing is missing before them.
- An ``epoch`` names one life of a log. A greater epoch is a later life; the copy of an earlier
  one is dropped when the first word of a later one arrives.
- Safe to use from any thread, and the file from several processes.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dataflow._sqlite import transaction
from dataflow.catalog.entries import TYPES, RecordRow, entry
from dataflow.catalog.schema import MARK, SCHEMA, VERSION, boot_id, explained
from dataflow.datasets import Dataset
from dataflow.documents import canonical_json, to_document
from dataflow.errors import CatalogError

#: Rows of one answer to another site: small enough not to hold up anybody's event loop.
PAGE = 500

_EPOCH = re.compile(r"[0-7][0-9a-f]{15}-[0-9a-f]{8}")
Watcher = Callable[[str, int], None]


class Log:
    """The logs of all sites, as one participant holds them; rows only, whatever they say.

    Parameters
    ----------
    path
        The file; it and its directory are made if missing.
    site
        Whose log may be written here. A file belongs to one site for good.

    Raises
    ------
    CatalogError
        If the file is damaged, not a catalog, of a newer version, or another site's.
    """

    def __init__(self, path: Path | str, site: str) -> None:
        self.path, self.site = Path(path), site
        self._watchers: list[Watcher] = []
        self._write_lock, self._read_lock = threading.RLock(), threading.RLock()
        self._connections: list[sqlite3.Connection] = []
        self._readers = 0
        self._closed = False
        try:
            with explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = self._connect()
                self._open_log()
                self._reader = self._connect()
                self._reader.execute("PRAGMA query_only = ON")
        except BaseException:
            self._disconnect()
            raise

    # --- life -------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        self._connections.append(db)
        db.execute("PRAGMA busy_timeout = 10000")
        self._is_new(db)  # before anything is changed in a file that may not be ours
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def _is_new(self, db: sqlite3.Connection) -> bool:
        (mark,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and mark != MARK:
            raise CatalogError(f"{self.path} is a database, but not a catalog of dataflow")
        if version > VERSION:
            raise CatalogError(
                f"{self.path} was written by a newer dataflow (its version {version}, ours "
                f"{VERSION})\nWhat you can do: update dataflow, or use another state directory."
            )
        return not tables

    def _open_log(self) -> None:
        db = self._writer
        db.execute("BEGIN IMMEDIATE")
        if self._is_new(db):
            for statement in SCHEMA:
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('site', ?), ('boot', '')", [self.site])
            db.execute("INSERT INTO origin VALUES (?, ?, 0)", [self.site, _new_epoch()])
        meta = dict(db.execute("SELECT name, value FROM meta"))
        if meta["site"] != self.site:
            raise CatalogError(
                f"{self.path} holds the records of site {meta['site']!r}, not of {self.site!r}\n"
                "What you can do: keep the site's name, or use another state directory."
            )
        boot = boot_id()
        if meta["boot"] not in ("", boot):
            # The machine went down under the last writer; its last writes may be gone here and
            # known elsewhere.
            self._renew(db, above="")
        db.execute("UPDATE meta SET value = ? WHERE name = 'boot'", [boot])
        db.execute("COMMIT")

    def close(self) -> None:
        """Close the file; harmless when repeated. Every other call then raises CatalogError."""
        with self._write_lock, self._read_lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._writer.execute("UPDATE meta SET value = '' WHERE name = 'boot'")
            except sqlite3.Error:
                pass  # full or damaged: the next opening treats it like a crash
            finally:
                self._disconnect()

    def _disconnect(self) -> None:
        for db in self._connections:
            db.close()
        self._connections.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Records of {self.site} in {self.path}>"

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        here = explained(self.path, closed=lambda: self._closed)
        with self._write_lock, here, transaction(self._writer) as db:
            yield db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One moment of the file: all that is read inside belongs together."""
        with self._read_lock, explained(self.path, closed=lambda: self._closed):
            db = self._reader
            if self._readers == 0:  # a reader inside a reader sees the same moment
                db.execute("BEGIN")
            self._readers += 1
            try:
                yield db
            finally:
                self._readers -= 1
                if self._readers == 0 and db.in_transaction:
                    db.execute("COMMIT")

    def _asked(self, query: str, *values: Any) -> list[Any]:
        """What one question finds; it is a moment by itself, and needs no transaction."""
        with self._read_lock, explained(self.path, closed=lambda: self._closed):
            return self._reader.execute(query, values).fetchall()

    # --- our own log ------------------------------------------------------------------------

    def put(self, kind: str, id: str, record: Any) -> int:
        """Write one record of ours; its ``seq``, which is a new one only if it changed.

        Raises
        ------
        CatalogError
            If it is another site's dataset, or cannot be written.
        """
        return self.put_many([(kind, id, record)])[0]

    def put_many(self, entries: Iterable[tuple[str, str, Any]]) -> list[int]:
        """Write records of ours, all of them or, on any error, none; the ``seq`` of each."""
        texts = [(kind, id, self._text(kind, record)) for kind, id, record in entries]
        with self._writing() as db:
            before = seq = self._latest(db)
            seqs = []
            for kind, id, text in texts:
                found = self._row(db, kind, id)
                if found is not None and found[1:] == (text, 0):
                    seqs.append(found[0])
                    continue
                seq += 1
                seqs.append(seq)
                _write(db, self.site, seq, kind, id, text, deleted=0)
            self._advance(db, before, seq)
        if seq > before:
            self._tell(self.site, seq)
        return seqs

    def add(self, *records: Any) -> list[int]:
        """Write records that know their own kind and id: datasets, replicas, stores, jobs …"""
        return self.put_many(entry(record) for record in records)

    def remove(self, *records: Any) -> None:
        """Take records of our site out, by what :func:`entry` calls them."""
        for record in records:
            kind, id, _ = entry(record)
            self.delete(kind, id)

    def delete(self, kind: str, id: str) -> int:
        """Delete one record of ours; the ``seq`` of the deletion. What is not there stays so."""
        with self._writing() as db:
            before = seq = self._latest(db)
            found = self._row(db, kind, id)
            if found is None or found[2]:
                return found[0] if found else before
            seq += 1
            _write(db, self.site, seq, kind, id, "", deleted=1)
            self._advance(db, before, seq)
        self._tell(self.site, seq)
        return seq

    def renew_epoch(self, above: str = "") -> str:
        """Begin a new life of our log, later than ``above``; others then read it from its start.

        For a log that others remember differently: the file was lost, or put back from a backup.
        """
        if above and not is_epoch(above):
            raise ValueError(f"{above!r} is no epoch")
        with self._writing() as db:
            epoch = self._renew(db, above)
        self._tell(self.site, self.latest(self.site))
        return epoch

    def _renew(self, db: sqlite3.Connection, above: str) -> str:
        (current,) = db.execute("SELECT epoch FROM origin WHERE site = ?", [self.site]).fetchone()
        epoch = _new_epoch(max(above, current))
        db.execute("UPDATE origin SET epoch = ? WHERE site = ?", [epoch, self.site])
        return epoch

    def _text(self, kind: str, record: Any) -> str:
        if kind not in TYPES:
            raise ValueError(f"no kind of record is called {kind!r}: {', '.join(TYPES)}")
        if kind == "dataset" and isinstance(record, Dataset) and record.site != self.site:
            raise CatalogError(
                f"dataset {record.name!r} is a record of site {record.site!r}; "
                f"{self.site!r} may only write its own"
            )
        return canonical_json(to_document(record))

    def _row(self, db: sqlite3.Connection, kind: str, id: str) -> tuple[int, str, int] | None:
        query = "SELECT seq, body, deleted FROM record WHERE site = ? AND kind = ? AND id = ?"
        row: tuple[int, str, int] | None = db.execute(query, [self.site, kind, id]).fetchone()
        return row

    def _latest(self, db: sqlite3.Connection) -> int:
        (seq,) = db.execute("SELECT seq FROM origin WHERE site = ?", [self.site]).fetchone()
        return int(seq)

    def _advance(self, db: sqlite3.Connection, before: int, seq: int) -> None:
        if seq > before:
            db.execute("UPDATE origin SET seq = ? WHERE site = ?", [seq, self.site])

    # --- logs that travel -------------------------------------------------------------------

    def page(self, site: str, since: int, limit: int = PAGE) -> tuple[str, list[RecordRow]]:
        """Epoch and next rows of a site's log after ``since``, read at one moment.

        The epoch is empty if nothing is known of the site.
        """
        query = (
            "SELECT origin.epoch, record.seq, kind, id, body, deleted FROM origin "
            "LEFT JOIN record ON record.site = origin.site AND record.seq > ? "
            "WHERE origin.site = ? ORDER BY record.seq LIMIT ?"
        )
        found = self._asked(query, since, site, limit)
        rows: list[RecordRow] = []
        after = since
        for _, seq, kind, id, body, deleted in found:
            if seq is not None:
                version = {"seq": seq, "kind": kind, "id": id, "body": body, "after": after}
                rows.append(RecordRow(site=site, deleted=bool(deleted), **version))
                after = seq
        return (found[0][0] if found else ""), rows

    def changes(self, site: str, since: int, limit: int = PAGE) -> list[RecordRow]:
        """Rows of a site's log after ``since``, in order, at most ``limit``."""
        return self.page(site, since, limit)[1]

    def apply(self, site: str, rows: Sequence[RecordRow], epoch: str) -> int:
        """Take over rows of another site's log; how far our copy of it now goes.

        Rows that we have, in any order and number, change nothing. Rows behind a hole are left
        out: if the answer is less than the last row's ``seq``, ask again from the answer on. A
        later epoch replaces the copy, an earlier one is ignored.

        Raises
        ------
        CatalogError
            If the rows are for our own log, not all for ``site``, or not JSON objects; then none of
        them is taken.
        """
        if site == self.site or any(row.site != site for row in rows):
            raise CatalogError(f"refused rows for {site!r}: only a site itself writes its log")
        if not is_epoch(epoch):
            raise CatalogError(f"refused rows of {site!r}: {epoch!r} is no epoch")
        for row in rows:
            _check_body(row)
        with self._writing() as db:
            known = db.execute("SELECT epoch, seq FROM origin WHERE site = ?", [site]).fetchone()
            held, version = known or ("", 0)
            if epoch < held:
                return int(version)
            before = version
            if epoch > held:
                db.execute("DELETE FROM record WHERE site = ?", [site])
                db.execute("INSERT OR REPLACE INTO origin VALUES (?, ?, 0)", [site, epoch])
                version = 0
            for row in sorted(rows, key=lambda row: row.seq):
                if row.after <= version < row.seq:
                    _write(db, site, row.seq, row.kind, row.id, row.body, int(row.deleted))
                    version = row.seq
            db.execute("UPDATE origin SET seq = ? WHERE site = ?", [version, site])
        if version != before or epoch != held:
            self._tell(site, version)
        return int(version)

    def latest(self, site: str) -> int:
        """How far the log, or our copy of it, goes; 0 if nothing is known of the site."""
        return self.versions().get(site, 0)

    def versions(self) -> dict[str, int]:
        """Site → ``seq`` of the last row we have of it, our own included."""
        return {site: seq for site, (_, seq) in self.origins().items()}

    def origins(self) -> dict[str, tuple[str, int]]:
        """Site → epoch and ``seq`` of the last row, our own included."""
        found = self._asked("SELECT site, epoch, seq FROM origin ORDER BY site")
        return {site: (epoch, seq) for site, epoch, seq in found}

    @property
    def epoch(self) -> str:
        """The present life of our own log."""
        return self.origins()[self.site][0]

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call ``watcher(site, seq)`` after every change made here; returns how to stop it.

        It is called in the thread that wrote and must return at once.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def _tell(self, site: str, seq: int) -> None:
        for watcher in tuple(self._watchers):
            watcher(site, seq)


def _write(
    db: sqlite3.Connection, site: str, seq: int, kind: str, id: str, body: str, deleted: int
) -> None:
    db.execute(
        "INSERT INTO record (site, seq, kind, id, body, deleted) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (site, kind, id) DO UPDATE SET "
        "seq = excluded.seq, body = excluded.body, deleted = excluded.deleted",
        [site, seq, kind, id, body, deleted],
    )


def _check_body(row: RecordRow) -> None:
    """Refuse what the file's indexes, and other sites, could not read."""
    if row.deleted and not row.body:
        return
    try:
        sound = isinstance(json.loads(row.body, parse_constant=_no_constant), dict)
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise CatalogError(f"refused {row.kind} {row.id!r} of {row.site}: not a JSON object")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def is_epoch(text: str) -> bool:
    """Whether a text can be the name of a life of a log."""
    return _EPOCH.fullmatch(text) is not None


def _new_epoch(above: str = "") -> str:
    """A name for a new life of a log: after ``above``, and by the time if that is later."""
    floor = int(above[:16], 16) + 1 if above else 0
    return f"{max(time.time_ns(), floor):016x}-{secrets.token_hex(4)}"

"""Journal: the events of the jobs that this site coordinates, in SQLite.

What is in the journal has happened; the driver acts only on what is in it. Several processes may
share one file (two notebooks of one account): each job has one coordinator at a time, which holds a
lock that the operating system takes back when the process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from dataflow._sqlite import opened, transaction
from dataflow.documents import from_json, to_json
from dataflow.errors import JobError, PlacementError, UnknownJob
from dataflow.execution.events import Event, JobCreated, Replanned
from dataflow.execution.state import JobState, replay

_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY, created REAL NOT NULL, over INTEGER NOT NULL DEFAULT 0,
    coordinator TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS unfinished ON job (over) WHERE over = 0;
CREATE TABLE IF NOT EXISTS event (
    job TEXT NOT NULL REFERENCES job (id), seq INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;
"""


class Journal:
    """The journals of one site's jobs.

    Parameters
    ----------
    directory
        Of the site's state; gets ``journal.db`` and a lock file per living coordinator.

    Guarantees
    ----------
    An event is on disk when :meth:`append` returns (a killed process loses nothing; a power cut may
    lose the last moments, which are then done again). Events of a job are read in the order in
    which they were appended. A process that this one forks (with ``fork`` alone) does not count as
    this one, and does not keep its jobs from being adopted.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._locks = directory / "coordinators"
        self._locks.mkdir(exist_ok=True)
        self._me = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._held = _hold(self._locks / self._me)
        _open.add(self)
        self._thread = threading.RLock()
        self._db = opened(directory / "journal.db")
        self._db.execute("PRAGMA synchronous = NORMAL")
        with self._thread:
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Let go of the file and of all jobs; harmless when repeated."""
        with self._thread:
            if self._held < 0:
                return
            self._db.close()
            (self._locks / self._me).unlink(missing_ok=True)
            self._let_go()

    def _let_go(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def create(self, event: JobCreated) -> bool:
        """Enter a new job; false if its id is there already, and then nothing changes."""
        with self._writing():
            made = self._db.execute(
                "INSERT OR IGNORE INTO job (id, created, coordinator) VALUES (?, ?, ?)",
                [event.job, event.time, self._me],
            ).rowcount
            if made:
                self._insert(event.job, 0, [event])
        return bool(made)

    def append(self, job: str, events: Sequence[Event], *, over: bool = False) -> None:
        """Add events to a job that this process coordinates.

        Raises
        ------
        JobError
            If another coordinator has taken the job.
        """
        with self._writing():
            row = self._db.execute(
                "SELECT coordinator, (SELECT max(seq) FROM event WHERE job = id) "
                "FROM job WHERE id = ?",
                [job],
            ).fetchone()
            if row is None:
                raise UnknownJob(job)
            if row[0] != self._me:
                raise JobError(f"job {job} has another coordinator")
            self._insert(job, row[1] + 1, events)
            if over:
                self._db.execute("UPDATE job SET over = 1 WHERE id = ?", [job])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """In a transaction."""
        with self._thread, transaction(self._db):
            yield

    def _insert(self, job: str, first: int, events: Iterable[Event]) -> None:
        rows = [(job, first + n, _body(event)) for n, event in enumerate(events)]
        self._db.executemany("INSERT INTO event (job, seq, body) VALUES (?, ?, ?)", rows)

    def events(self, job: str, since: int = 0) -> list[Event]:
        """Events of a job from number ``since`` on.

        Raises
        ------
        UnknownJob
            If it is not in this journal.
        """
        with self._thread:
            rows = self._db.execute(
                "SELECT body FROM event WHERE job = ? AND seq >= ? ORDER BY seq", [job, since]
            ).fetchall()
            if not rows and not self.knows(job):
                raise UnknownJob(job)
        return [from_json(_event_type(), body) for (body,) in rows]

    def state(self, job: str) -> JobState:
        """The state of a job, folded from its events."""
        return replay(self.events(job))

    def knows(self, job: str) -> bool:
        """Whether the job is in this journal."""
        with self._thread:
            row = self._db.execute("SELECT 1 FROM job WHERE id = ?", [job]).fetchone()
        return row is not None

    def jobs(self) -> list[str]:
        """Ids of all jobs, newest first."""
        with self._thread:
            rows = self._db.execute("SELECT id FROM job ORDER BY created DESC, id").fetchall()
        return [job for (job,) in rows]

    def adopt(self) -> list[str]:
        """Take the unfinished jobs whose coordinator is dead; their ids, oldest first."""
        with self._writing():
            rows = self._db.execute(
                "SELECT id, coordinator FROM job WHERE over = 0 ORDER BY created, id"
            ).fetchall()
            others = {path.name for path in self._locks.iterdir()} | {name for _, name in rows}
            dead = {name for name in others if name != self._me and not self._lives(name)}
            taken = [job for job, name in rows if name in dead]
            self._db.executemany(
                "UPDATE job SET coordinator = ? WHERE id = ?", [(self._me, job) for job in taken]
            )
        return taken

    def mine(self, job: str) -> bool:
        """Whether this process coordinates the job."""
        with self._thread:
            row = self._db.execute("SELECT coordinator FROM job WHERE id = ?", [job]).fetchone()
        return row is not None and row[0] == self._me

    def _lives(self, coordinator: str) -> bool:
        """Whether somebody holds this lock; what nobody holds is cleared away."""
        path = self._locks / coordinator
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink(missing_ok=True)
            return False
        finally:
            os.close(lock)


def _body(event: Event) -> str:
    """An entry; a plan in it is one that can be read again, for all else depends on that."""
    body = to_json(event)
    if isinstance(event, JobCreated | Replanned):
        try:
            from_json(_event_type(), body)
        except ValueError as error:
            raise PlacementError(f"this plan cannot be written down: {error}") from error
    return body


@cache
def _event_type() -> Any:
    """What an entry may be, told apart by its ``type``."""
    from pydantic import Discriminator

    return Annotated[Event, Discriminator("type")]


def _hold(path: Path) -> int:
    """A lock on a file that is there, as long as the descriptor is open."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.stat(path), os.fstat(lock)):
            return lock
        os.close(lock)  # taken for a dead one's in the moment before it was locked


_open: weakref.WeakSet[Journal] = weakref.WeakSet()


def _forked() -> None:
    for journal in list(_open):
        journal._let_go()


os.register_at_fork(after_in_child=_forked)

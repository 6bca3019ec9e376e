"""What stands: a small record on disk, trusted only for this boot and for these very processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dataflow.testing.bed import processes
from dataflow.testing.bed.commands import BedError
from dataflow.testing.bed.layout import LOCK, STATE

_FILE = STATE / "bed.json"


@dataclass(frozen=True, slots=True)
class Alive:
    """A process that was started, recognisable when its number was given to another."""

    pid: int
    started: int

    @property
    def there(self) -> bool:
        """Whether it still runs."""
        return processes.is_alive(self.pid, self.started)


@dataclass(slots=True)
class State:
    """Who was started, and what was made for them.

    ``hosts`` maps a host to its pid 1, ``holders`` to the process outside that holds it, ``cables``
    a site to the process that carries its link. ``python`` is the interpreter of the hosts'
    environment, ``base`` the one it was made with, ``secret`` the secret key of the S3 server.
    """

    hosts: dict[str, Alive] = field(default_factory=dict)
    holders: dict[str, Alive] = field(default_factory=dict)
    cables: dict[str, Alive] = field(default_factory=dict)
    python: str = ""
    base: str = ""
    secret: str = ""

    def save(self) -> None:
        """Write it whole or not at all, for root only: it holds the secret key of the S3 server."""
        text = json.dumps(
            {
                "boot": _boot(),
                "hosts": {name: [p.pid, p.started] for name, p in self.hosts.items()},
                "holders": {name: [p.pid, p.started] for name, p in self.holders.items()},
                "cables": {name: [p.pid, p.started] for name, p in self.cables.items()},
                "python": self.python,
                "base": self.base,
                "secret": self.secret,
            }
        )
        STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = _FILE.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        fresh.replace(_FILE)


def load() -> State | None:
    """What was recorded since this machine started; None if nothing was."""
    try:
        record = json.loads(_FILE.read_text())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise BedError(f"{_FILE} is root's; run this as root") from error
    if record.get("boot") != _boot():
        return None
    alive = {
        part: {name: Alive(*numbers) for name, numbers in record[part].items()}
        for part in ("hosts", "holders", "cables")
    }
    return State(**alive, python=record["python"], base=record["base"], secret=record["secret"])


def alive(pid: int) -> Alive:
    """The record of a process that was started just now."""
    started = processes.start_time(pid)
    if started is None:
        raise BedError(f"process {pid} ended as soon as it was started; see the logs in {STATE}")
    return Alive(pid, started)


@contextlib.contextmanager
def lock(name: str, *, seconds: float = 600.0) -> Iterator[None]:
    """Hold the bed's lock of that name; others wait, BedError after ``seconds``."""
    LOCK.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (LOCK / name).open("w") as file:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise BedError(
                        f"somebody else has held {file.name} for {seconds:g} s"
                    ) from error
                time.sleep(0.1)
        yield


def directory(path: Path, *, mode: int = 0o755) -> Path:
    """That directory, made if missing, with exactly these permissions."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

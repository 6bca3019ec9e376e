"""Processes of the machine, from /proc: who is alive, who belongs to which host."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a host.

    Attributes
    ----------
    pid
        As the host's own programs know it.
    outer
        The same process as this machine's root namespace knows it.
    parent
        ``pid`` of the parent; 0 if that is outside the host.
    name
        The kernel's short name.
    command
        The command line, words joined by spaces.
    uid
        Its user.
    state
        One letter: R running, S sleeping, D waiting for a disk, T stopped, Z ended.
    peak
        The most memory that it ever had, in bytes.
    """

    pid: int
    outer: int
    parent: int
    name: str
    command: str
    uid: int
    state: str
    peak: int


def start_time(pid: int) -> int | None:
    """When ``pid`` began, in ticks since boot; None if it is not there, or is a zombie.

    A number alone may belong to somebody else by now; a number and a start time do not.
    """
    fields = _fields(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that began then is still there."""
    return start_time(pid) == started


def children(pid: int) -> list[int]:
    """Pids of the children of a process with one thread."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def within(first: int) -> list[Process]:
    """All processes of the pid namespace whose pid 1 is ``first``, in the order of their birth."""
    namespace = _namespace(first)
    if namespace is None:
        return []
    found = []
    for pid in _pids():
        if _namespace(pid) == namespace:
            process = _process(pid)
            if process is not None:
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def end(pid: int, started: int, number: int = signal.SIGKILL, *, seconds: float = 10.0) -> bool:
    """Signal that very process and wait for its end; False if it is still there."""
    if not is_alive(pid, started):
        return True
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    deadline = time.monotonic() + seconds
    while is_alive(pid, started):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _fields(pid: int) -> list[str] | None:
    """What follows the name in /proc/PID/stat; the name may hold anything, so it is cut off."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _process(pid: int) -> Process | None:
    try:
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    outer_parent = int(status["PPid"])
    parent_numbers: list[str] = []
    if outer_parent and _namespace(outer_parent) == _namespace(pid):
        try:
            for line in Path(f"/proc/{outer_parent}/status").read_text().splitlines():
                if line.startswith("NSpid:"):
                    parent_numbers = line.split()[1:]
        except OSError:
            pass
    return Process(
        pid=int(status["NSpid"].split()[-1]),
        outer=pid,
        parent=int(parent_numbers[-1]) if parent_numbers else 0,
        name=status["Name"],
        command=words.replace(b"\0", b" ").decode(errors="replace").strip(),
        uid=int(status["Uid"].split()[0]),
        state=status["State"][0],
        peak=int(status.get("VmHWM", "0").split()[0]) * 1024,
    )

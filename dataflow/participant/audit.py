"""Audit: who asked what of this site, and what was said; append-only, each entry chained to the last.

One line of JSON per entry. Its ``hash`` covers the entry and the hash before it, so that nothing can
be changed, taken out or put in without breaking the chain from there on. What a chain cannot show is
that its end was cut off: keep the last hash elsewhere (:func:`verify` gives it) to see that too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataflow.documents import canonical_json

FILE = "audit.jsonl"
#: What the first entry is chained to.
BEGINNING = "0" * 64
#: No text of an entry is longer: what strangers send ends up here.
LONGEST = 1000


#: What was refused while one request was served, if somebody wants to know.
NOTED: ContextVar[list[str] | None] = ContextVar("dataflow-audit-noted", default=None)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look at the whole log found.

    ``entries`` are those that hold; ``broken`` says at which line the chain breaks and how, empty if
    it does not.
    """

    entries: int
    last: str
    broken: str = ""


class Audit:
    """The audit log of one site.

    Parameters
    ----------
    path
        The file; made when the first entry is written, readable by its owner only.
    clock
        Seconds since the epoch.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path, self._clock = path, clock
        self._lock = threading.Lock()
        self._last: tuple[int, int, str] | None = None  # size of the file, number, hash

    def write(self, **fields: Any) -> None:
        """Append one entry; it is in the file when this returns.

        Parameters
        ----------
        **fields
            ``user``, ``asker``, ``what``, ``object``, ``allowed``, ``clause``, ``job``, ``nbytes`` …
        """
        noted = NOTED.get()
        if noted is not None and fields.get("allowed") is False:
            noted.append(str(fields.get("what", "")))
        with self._lock:
            opened = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX)  # a second process over this state directory
                size = os.fstat(opened).st_size
                if self._last is None or self._last[0] != size:
                    self._last = (size, *_end_of(opened, size))
                _, number, before = self._last
                entry = {"number": number + 1, "time": round(self._clock(), 6), "before": before}
                entry |= {name: _short(value) for name, value in fields.items()}
                digest = entry["hash"] = _hash(entry)
                line = canonical_json(entry).encode() + b"\n"
                os.write(opened, line)
                self._last = (size + len(line), number + 1, digest)
            finally:
                os.close(opened)

    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def verify(path: Path) -> Verified:
    """Whether a log is whole: every entry as it was written, none missing before its end."""
    number, before = 0, BEGINNING
    if not path.exists():
        return Verified(0, before)
    with path.open("rb") as lines:
        for line in lines:
            wrong = _wrong(line, number, before)
            if isinstance(wrong, str):
                return Verified(number, before, f"line {number + 1}: {wrong}")
            number, before = number + 1, wrong["hash"]
    return Verified(number, before)


def _wrong(line: bytes, number: int, before: str) -> str | Mapping[str, Any]:
    """What is wrong with a line, or the entry in it."""
    if not line.endswith(b"\n"):
        return "it was not written to its end"
    try:
        entry = json.loads(line)
    except ValueError:
        return "it is not an entry"
    if not isinstance(entry, dict) or not isinstance(entry.get("hash"), str):
        return "it is not an entry"
    if entry.get("before") != before or entry.get("number") != number + 1:
        return "it does not follow the line before it"
    if canonical_json(entry).encode() + b"\n" != line or _hash(entry) != entry["hash"]:
        return "it was changed"
    return entry


def _hash(entry: Mapping[str, Any]) -> str:
    said = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()


def _end_of(opened: int, size: int) -> tuple[int, str]:
    """Number and hash of the last whole entry of an open file; what is torn is chained over."""
    if size == 0:
        return 0, BEGINNING
    wanted = min(size, 64 * 1024)
    end = os.pread(opened, wanted, size - wanted)
    for line in reversed(end.split(b"\n")):
        try:
            entry = json.loads(line)
            return int(entry["number"]), str(entry["hash"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0, BEGINNING


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:LONGEST]

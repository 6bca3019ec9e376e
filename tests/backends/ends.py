"""Ends of processes that are nobody's child here."""

from __future__ import annotations

import time


def gone(pid: int) -> bool:
    """Whether a process ends within 30 s; one that nobody waits for counts, too."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False

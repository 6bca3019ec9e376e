"""Logs of batch jobs: the newest stay, the others go."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

#: Logs that are kept, of jobs that have ended.
KEPT = 100


def tidy_logs(
    directory: Path, job_name: str, *, running: Collection[str] = (), keep: int = KEPT
) -> int:
    """Remove the oldest logs of jobs of that name; how many.

    Parameters
    ----------
    running
        Numbers of jobs whose logs stay, however old they are.
    """
    found: list[tuple[float, Path]] = []
    for path in directory.glob(f"{job_name}[.-]*"):
        if not any(path.name.endswith(id) for id in running if id):
            with suppress(OSError):
                found.append((path.stat().st_mtime, path))
    found.sort(reverse=True)
    removed = 0
    for _, path in found[keep:]:
        with suppress(OSError):
            path.unlink()
            removed += 1
    return removed

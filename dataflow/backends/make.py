"""From what a site file says to a backend; what a kind needs is imported only where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow.errors import ConfigError

if TYPE_CHECKING:
    from dataflow.backends.base import Backend


def make_backend(
    kind: str, *, workers: int, threads: int, memory: int, settings: Any, directory: Path
) -> Backend:
    """The backend of a site; nothing is started yet.

    Parameters
    ----------
    kind, workers, threads, memory, settings
        As in :class:`dataflow.config.records.Backend`.
    directory
        Where the site keeps files of its workers.

    Raises
    ------
    ConfigError
        If the kind needs a package that is not installed.
    """
    if kind == "local":
        from dataflow.backends.local import LocalBackend

        return LocalBackend(workers=workers, threads=threads, memory=memory, directory=directory)
    raise ConfigError(f"there is no backend of kind {kind!r} in this version")

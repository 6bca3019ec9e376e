"""From what a site file says to a backend; what a kind needs is imported only where it is used."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from dataflow.errors import ConfigError

if TYPE_CHECKING:
    from dataflow.backends.base import Backend
    from dataflow.backends.jobqueue import JobQueueBackend


class _Wanted(TypedDict):
    """What every backend of a site with hosts of its own is made from."""

    site: str
    workers: int
    threads: int
    memory: int
    settings: Any
    directory: Path


def make_backend(
    kind: str,
    *,
    workers: int,
    threads: int,
    memory: int,
    settings: Any,
    directory: Path,
    site: str = "here",
) -> Backend:
    """The backend of a site; nothing is started yet.

    Parameters
    ----------
    kind, workers, threads, memory, settings
        As in :class:`dataflow.config.records.Backend`.
    directory
        Where the site keeps files of its workers.
    site
        Its name, for labels and errors.

    Raises
    ------
    ConfigError
        If the kind needs a package that is not installed.
    """
    if kind == "local":
        from dataflow.backends.local import LocalBackend

        return LocalBackend(workers=workers, threads=threads, memory=memory, directory=directory)
    wanted = _Wanted(
        site=site,
        workers=workers,
        threads=threads,
        memory=memory,
        settings=settings,
        directory=directory,
    )
    if kind in ("sge", "jobqueue"):
        _need("dask_jobqueue", kind, extra="sge")
        return _batch(wanted)
    if kind == "kubernetes":
        _need("kr8s", kind, extra="kubernetes")
        from dataflow.backends.kubernetes import KubernetesBackend
        from dataflow.backends.surroundings import read_surroundings

        return KubernetesBackend(**wanted, surroundings=read_surroundings(os.environ))
    if kind == "ssh":
        _need("asyncssh", kind, extra="ssh")
        from dataflow.backends.ssh import SshBackend

        return SshBackend(**wanted)
    raise ConfigError(f"there is no backend of kind {kind!r} in this version")


def _batch(wanted: _Wanted) -> JobQueueBackend:
    from dataflow.backends.jobqueue import JobQueueBackend
    from dataflow.backends.sge import SgeBackend
    from dataflow.config.backend_records import JobQueue

    settings = wanted["settings"]
    if isinstance(settings, JobQueue):
        return JobQueueBackend(**wanted, system=settings.system)
    return SgeBackend(**wanted)


def _need(package: str, kind: str, *, extra: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(
            f"workers of kind {kind!r} need {package!r}, which is not installed here: "
            f"pip install 'jupyter-dataflow[{extra}]'"
        )

"""The certificate of a backend as files, for workers that are started by somebody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

_ROLES = ("client", "scheduler", "worker")
_CERTIFICATE, _KEY = "workers.crt", "workers.key"


def as_files(security: Any, directory: Path) -> Any:
    """The same :class:`distributed.Security` with its certificate and key in ``directory``.

    Only this account can read them. What an earlier one left there is overwritten.

    Parameters
    ----------
    security
        One that :func:`dataflow.backends.cluster.own_security` made.
    """
    from distributed.security import Security

    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = directory / _CERTIFICATE, directory / _KEY
    _write(certificate, security.tls_ca_file)
    _write(key, security.tls_worker_key)
    pairs = {
        f"tls_{role}_{part}": str(path)
        for role in _ROLES
        for part, path in (("cert", certificate), ("key", key))
    }
    return Security(tls_ca_file=str(certificate), require_encryption=True, **pairs)  # type: ignore[no-untyped-call]


def remove_files(directory: Path) -> None:
    """Remove what :func:`as_files` wrote, if it is there."""
    for name in (_CERTIFICATE, _KEY):
        (directory / name).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(f"{path.suffix}.new")
    fresh.unlink(missing_ok=True)
    mode = stat.S_IRUSR | stat.S_IWUSR
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    fresh.replace(path)

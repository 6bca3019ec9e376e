"""Crating: writing the description of a job to a folder or into one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from dataflow.execution.crate import crate_of

if TYPE_CHECKING:
    from dataflow.session.jobs import Job


def files_of(job: Job) -> dict[str, bytes]:
    """The files of a job's crate; see :func:`dataflow.execution.crate.crate_of`."""
    from importlib.metadata import version

    return crate_of(job.events(), list(job.ledger()), version=version("jupyter-dataflow"))


def write(files: Mapping[str, bytes], path: str | os.PathLike[str]) -> Path:
    """Write a crate; whole, or not at all.

    Raises
    ------
    FileExistsError
        If something is there.
    """
    target = Path(path).absolute()
    if target.exists():
        raise FileExistsError(f"{target} is there already; nothing was written")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.getpid()}")
    if target.suffix == ".zip":
        with ZipFile(new, "x", ZIP_DEFLATED) as packed:
            for name, body in sorted(files.items()):
                packed.writestr(ZipInfo(name), body, ZIP_DEFLATED)  # without the time of day
        new.rename(target)
        return target
    new.mkdir()
    for name, body in files.items():
        (new / name).write_bytes(body)
    new.rename(target)
    return target

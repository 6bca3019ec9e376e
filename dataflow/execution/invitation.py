"""Invitation: what a notebook that runs at a site may show to the site's agent.

It lies in the directory of the run, for its account alone, and is good as long as the order runs
for which it was made: its bearer acts for the user of that order, and for nobody else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dataflow.backends.programs import OURS
from dataflow.documents import from_json, to_json
from dataflow.graph.keys import digest
from dataflow.graph.operation import Operation

#: Name of the operation that is a whole notebook; its kernel may come back as a session.
NOTEBOOK = "notebook"

#: Below the ``.flow`` of a run: the invitation, how to start our interpreter, the executed cells.
DOOR_FILE, PYTHON_FILE, CELLS_FILE = "door.json", "python", "cells.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """How a program reaches the agent of its site, and in whose name.

    Attributes
    ----------
    site, job, order, user
        For whom it was made.
    host, port
        Where the agent listens, within the site; 0 if it does not.
    certificate, key
        In PEM: of both ends; who does not have them is not talked to.
    token
        To be shown to the agent.
    """

    site: str
    job: str
    order: str
    user: str
    host: str = ""
    port: int = 0
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def is_notebook(operation: Operation) -> bool:
    """Whether a step is a notebook: it runs beside the workers, not in one."""
    return operation.name == NOTEBOOK and bool(operation.command)


def run_of(order: str, key: str) -> str:
    """The name of the run of a step for an order; its directory is called so."""
    return f"{digest(['run', order])[:12]}-{key[:12]}"


def write_invitation(invitation: Invitation, directory: Path, python: str) -> None:
    """Put an invitation into the directory of a run, and a way to start the site's interpreter."""
    ours = directory / OURS
    ours.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(ours / DOOR_FILE, to_json(invitation), 0o600)
    quoted = python.replace("'", "'\\''")
    _write(ours / PYTHON_FILE, f"#!/bin/sh\nexec '{quoted}' \"$@\"\n", 0o700)


def read_invitation(path: Path) -> Invitation:
    """What :func:`write_invitation` wrote.

    Raises
    ------
    OSError, ValueError
        If it is not there, or is none.
    """
    return from_json(Invitation, path.read_bytes())


def _write(path: Path, text: str, mode: int) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    fresh.replace(path)

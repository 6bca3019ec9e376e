"""Joined: a session in a notebook that runs at a site as part of a job.

Such a notebook says ``flow.connect("sites.yaml")`` as it does on a laptop. It gets a session with the
agent of the site where it runs, in the name of whoever sent it, and what it submits bears the id of
the job that it is part of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dataflow.config import Federation, PeerAddress
from dataflow.errors import ConfigError
from dataflow.execution.invitation import NOTEBOOK, Invitation, read_invitation

#: Set for the kernel of such a notebook: its invitation, where that leads to from here, and under
#: what name its token is found.
DOOR, ADDRESS, CREDENTIALS = "DATAFLOW_DOOR", "DATAFLOW_DOOR_ADDRESS", "door"

#: Tag of the jobs that a notebook submits: the job that it is part of.
TAG = NOTEBOOK


def invitation(environ: Mapping[str, str] | None = None) -> Invitation | None:
    """The invitation of this process; ``None`` where it is no notebook of a job.

    Raises
    ------
    ConfigError
        If there should be one, and it cannot be read.
    """
    environ = os.environ if environ is None else environ
    path = environ.get(DOOR)
    if not path:
        return None
    try:
        return read_invitation(Path(path))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"this notebook is part of a job, and its invitation cannot be read ({error})\n"
            f"What you can do: run the notebook again, or unset {DOOR}",
            path,
        ) from error


def federation(invited: Invitation, environ: Mapping[str, str] | None = None) -> Federation:
    """What a session of such a notebook knows at first: the agent of its site."""
    environ = os.environ if environ is None else environ
    agent = PeerAddress(
        address=environ.get(ADDRESS, ""), credentials=CREDENTIALS, site=invited.site, only=True
    )
    return Federation(peers=(agent,), state=Path(environ[DOOR]).parent / "session")

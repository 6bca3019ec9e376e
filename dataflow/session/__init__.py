"""The notebook's handle: connect, plan, submit, look. Synchronous; what it wires is below.

Loaded name by name: a connection by SSH is under way before the session that will use it is
imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow._lazy import lazy

if TYPE_CHECKING:
    from dataflow.session.connecting import connect, job
    from dataflow.session.jobs import Job
    from dataflow.session.session import Session

__all__ = ["Job", "Session", "connect", "job"]

__getattr__, __dir__ = lazy(
    __name__,
    {"Job": "jobs", "Session": "session", "connect": "connecting", "job": "connecting"},
)

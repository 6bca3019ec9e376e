"""The notebook's handle: connect, plan, submit, look. Synchronous; what it wires is below."""

from __future__ import annotations

from dataflow.session.connecting import connect, job
from dataflow.session.jobs import Job
from dataflow.session.session import Session

__all__ = ["Job", "Session", "connect", "job"]

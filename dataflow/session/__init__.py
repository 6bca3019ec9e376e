"""The notebook's handle: connect, plan, submit, look. Synchronous; what it wires is below.

Loaded name by name: a connection by SSH is under way before the session that will use it is
imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.session.connecting import connect, job
    from dataflow.session.jobs import Job
    from dataflow.session.session import Session

__all__ = ["Job", "Session", "connect", "job"]

_LAZY = {"Job": "jobs", "Session": "session", "connect": "connecting", "job": "connecting"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

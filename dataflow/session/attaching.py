"""Attaching: a cell that is run again finds the job that it began, instead of beginning another."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from dataflow.execution.view import JobView
from dataflow.placement.plan import Plan


def notebook_kernel() -> Any:
    """The kernel that this process is; ``None`` if it is none."""
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None else None
    return getattr(found, "kernel", None)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return notebook_kernel() is not None


def running(
    views: Iterable[JobView], plan: Plan, user: str, tags: Mapping[str, str]
) -> JobView | None:
    """A user's job that is making just these results, under these tags; the latest one."""
    found = [
        view
        for view in views
        if not view.over
        and view.status != "unknown"
        and view.user == user
        and view.outputs == plan.outputs
        and dict(view.tags) == dict(tags)
    ]
    return max(found, key=lambda view: view.created, default=None)


def attached_to(view: JobView) -> str:
    """What is said of it, in one line."""
    where = f" at {view.coordinator}" if view.coordinator else ""
    return f"attached to job {view.id}{where}, which makes this already ({view.status})"


def how_to_come_back(job: str) -> str:
    """What is said when somebody stops waiting for a job."""
    return (
        f"job {job} goes on; run this cell again, or say flow.job({job!r}), to come back to it; "
        f"flow.job({job!r}).cancel() ends it"
    )

"""Replies: what each site says to a copy that it shall have. Pure.

A site that says nothing within the window is answered for with ``timeout``; its copy is still
wanted, and the reply becomes ``ok`` when it comes about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dataflow.errors import from_document
from dataflow.execution.state import JobState

ReplyStatus = Literal["waiting", "ok", "timeout", "failed"]
#: Seconds that a site has for its reply, where nothing else was asked for.
WINDOW_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a site says to one copy.

    ``label`` is the name of the data; ``message`` a line for people.
    """

    site: str
    status: ReplyStatus
    key: str
    label: str = ""
    message: str = ""


def replies_of(state: JobState, now: float) -> tuple[Reply, ...]:
    """One reply for each copy that was asked for, in the order in which sites were named.

    Parameters
    ----------
    now
        Seconds since the epoch, by the clock of whoever keeps the job.
    """
    return tuple(
        _reply(state, key, site, now) for key, sites in state.plan.copies.items() for site in sites
    )


def _reply(state: JobState, key: str, site: str, now: float) -> Reply:
    status: ReplyStatus = "waiting"
    message = ""
    window = float(state.plan.options.get("window") or WINDOW_SECONDS)
    coming = any(t.key == key and t.target == site for t in state.plan.transfers)
    made = state.plan.assignment_by_key.get(key)
    there = not coming and (made is None or made.reused is not None)
    begun = state.started if state.started is not None else state.created
    if there or (key, site) in state.stored:
        status = "ok"
        message = "it was there" if there else ""
    elif state.over:
        status = "failed"
        if state.error is not None:
            message = next(iter(str(from_document(state.error)).splitlines()), "")
    elif now - begun > window:
        status = "timeout"
        message = f"no copy within {window:g} s; it is still wanted"
    return Reply(site=site, status=status, key=key, label=state.plan.label(key), message=message)

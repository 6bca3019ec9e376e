"""Bars: how far a job is, shown to whoever waits for it and has nothing else to look at."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dataflow import _html
from dataflow.execution.pace import Pace
from dataflow.execution.units import running
from dataflow.session.attaching import in_notebook

#: Units that are named on the bar; the others are counted.
MOST_NAMED = 3

Show = Callable[[], None]


@contextmanager
def bar(job: str, pace: Pace, *, wanted: bool) -> Iterator[Show | None]:
    """A bar in a notebook or on a terminal; what it gives is called to have it drawn anew.

    ``None`` where it is not wanted, or nobody would see it: programs and pipes get no bar. Nothing
    is drawn before the first call; what was drawn on a terminal is gone afterwards, and a notebook
    keeps one line that says how the job stands.
    """
    if wanted and in_notebook():
        yield from _in_notebook(job, pace)
    elif wanted and sys.stderr.isatty():
        yield from _on_terminal(job, pace)
    else:
        yield None


def line(pace: Pace, now: float) -> str:
    """What runs, and how long the rest may take; nothing before the first event."""
    if pace.state is None:
        return ""
    if pace.state.over:
        return pace.state.status
    named = [f"{what} {where}" for what, where in running(pace.state)]
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    left = pace.left(now)
    rest = str(left) if left is not None else ""
    return ", ".join([*named[:MOST_NAMED], *more, *filter(None, [rest])]) or pace.state.status


def _in_notebook(job: str, pace: Pace) -> Iterator[Show]:
    from IPython.display import display

    handle: Any = None

    def show() -> None:
        nonlocal handle
        done, total = _count(pace)
        text = f"job {job}: {done} of {total} units, {line(pace, time.time())}"
        progress = _html.Markup(f'<progress max="{max(total, 1)}" value="{done}"></progress> ')
        over = pace.state is not None and pace.state.over
        html = _html.block(*([] if over else [progress]), text).text
        shown = {"text/plain": text, "text/html": html}
        if handle is None:
            handle = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            handle.update(shown, raw=True)

    try:
        yield show
    finally:
        if handle is not None:
            show()


def _on_terminal(job: str, pace: Pace) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("job {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}", markup=False),
    )
    drawn = Progress(*columns, console=Console(stderr=True), transient=True)
    task = drawn.add_task(job, total=None, said="")

    def show() -> None:
        done, total = _count(pace)
        drawn.update(task, completed=done, total=total or None, said=line(pace, time.time()))
        drawn.start()  # harmless when repeated

    try:
        yield show
    finally:
        drawn.stop()


def _count(pace: Pace) -> tuple[int, int]:
    state = pace.state
    return (0, 0) if state is None else (state.done, len(state.units))

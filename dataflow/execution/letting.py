"""Letting a step begin: rows that an owner guards are counted before anybody computes with them."""

from __future__ import annotations

from collections.abc import Mapping

from dataflow.errors import PolicyError
from dataflow.execution.events import SegmentOrder
from dataflow.execution.failures import Broken, broken
from dataflow.execution.futures import Tasks
from dataflow.execution.to_dask import Work
from dataflow.execution.workplace import Workplace
from dataflow.policy.differencing import RowSet


async def let(order: SegmentOrder, work: Work, tasks: Tasks | None, workplace: Workplace) -> None:
    """Wait until the rows of a step are there, have them counted, and go on if the site lets it.

    Parameters
    ----------
    tasks
        Where steps before it were given to workers; commands have none that could count.

    Raises
    ------
    Broken
        If an owner refuses, or a step before it failed.
    """
    if not order.guarded or workplace.counting is None:
        return
    wanted = workplace.counting.uncounted(order, work.step.inputs)
    if not wanted:
        return
    rows: Mapping[str, RowSet | None] = {}
    if tasks is not None and not work.step.operation.command:
        outcome = await tasks.outcome(tasks.count(work), workplace.site.name)
        if outcome.failure is not None:
            raise Broken(outcome.failure)
        rows = dict(zip(work.step.inputs, outcome.rows, strict=True))
    for key in wanted:
        try:
            workplace.counting.counted(order, key, rows.get(key))
        except PolicyError as error:
            raise broken(error, "user") from error

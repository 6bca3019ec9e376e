"""Steps as Dask tasks: the only maker of them.

A step is one task, :func:`run_step`, which :mod:`dataflow.execution.in_worker` carries out. Between
tasks a small value, or the graph of a Dask-backed one, travels as the value of the task.

The process that serves the site opens no code of a user: that goes to the workers as bytes, and what
comes back (:func:`report`) holds records of this package only. Failures are values, not exceptions,
for the same reason. What it cannot help is that the scheduler of a local backend, which lives in
that process, reads the graphs of block-wise computations that a worker submits. Nor does it import
what only a worker needs: an agent is to answer soon after it was started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dataflow.datasets import Extent
from dataflow.execution.failures import Failure
from dataflow.execution.inputs import Lying
from dataflow.execution.programs import Program
from dataflow.graph.operation import Step
from dataflow.policy.differencing import RowSet
from dataflow.storage.manifest import Manifest
from dataflow.storage.open import Options

#: Where workers tell which tasks they have begun.
BEGUN = "dataflow-begun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a step may write: the site's results store."""

    root: str
    store: str
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Options = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step, ready to be run by a worker.

    Attributes
    ----------
    payload
        The packed functions; ``None`` for a command.
    inputs
        For each input of the step what lies in a store, or the position of an earlier outcome.
    extents
        Of absent arguments.
    attempt
        Name under which the result is written.
    store
        Whether the result is stored; files always are.
    keep
        Whether a later step wants the value.
    provenance
        What is to be said about the result, apart from the environment.
    floors
        The least number of rows of each input; empty if it does not matter.
    count
        Nothing is computed: only the rows of the inputs with a floor are counted.
    environment
        Versions that the worker must have; empty if they do not matter.
    """

    step: Step
    site: str
    attempt: str
    place: Place
    inputs: tuple[Lying | int, ...]
    payload: bytes | None = field(default=None, repr=False)
    extents: Mapping[str, Extent] = field(default_factory=dict)
    store: bool = False
    keep: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    floors: tuple[int, ...] = ()
    count: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a step: a value, or a :class:`Lying` result, for later steps; or a failure.

    ``seconds`` is its own run time in the worker, ``commit_seconds`` the last part of it if its
    result was stored: from written to visible. ``rows`` are those of each input, if they were to be
    counted. ``programs`` are the runs of shell commands, its own
    and those of steps before it.
    """

    manifest: Manifest | None = None
    seconds: float = 0.0
    failure: Failure | None = None
    programs: tuple[Program, ...] = ()
    commit_seconds: float | None = None
    rows: tuple[RowSet | None, ...] = ()
    value: Any = field(default=None, repr=False)


def submit(client: Any, work: Work, earlier: Sequence[Any], *, key: str) -> tuple[Any, Any]:
    """One step as a Dask task.

    Parameters
    ----------
    earlier
        Futures of the outcomes that ``work.inputs`` counts.
    key
        Name of the task; a task is never run twice under one name.

    Returns
    -------
    tuple
        The future for later steps, and the future to be awaited here, which is the same one unless
        the first holds a value.
    """
    future = client.submit(run_step, work, *earlier, key=key, pure=False)
    if not work.keep:
        return future, future
    return future, client.submit(report, future, key=f"report-{key}", pure=False)


def run_step(work: Work, *earlier: Outcome) -> Outcome:
    """Run one step; the body of its Dask task, inside a worker."""
    from dataflow.execution.in_worker import run

    return run(work, *earlier)


def report(outcome: Outcome) -> Outcome:
    """An outcome without the value: what the process of the site gets to see."""
    return replace(outcome, value=None)

"""The notebook: a process of its own that plans, submits and waits, told what to do line by line.

python -m dataflow.testing.faults.kernel SITES_FILE STATE DATA
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from typing import Any

import numpy as np

import dataflow as flow
from dataflow.errors import DataflowError

#: Of the data at the site ``edge``; 8 MB.
SHAPE = (10_000, 100)
SEED = 7
#: Seconds that a result is waited for.
PATIENCE = 150.0


@flow.operation(kind="elementwise", lazy=False)
def prepared(x: Any, *, number: int) -> Any:
    """What travels: other bytes for every job, so that none finds the copy of another."""
    return x + number


@flow.operation(kind="opaque", output="same")
def worked(x: Any, *, marker: str, seconds: float, pause: float) -> Any:
    """Triples it; tells where it runs, takes its time before, and some more for each block."""
    import os
    import platform
    import time
    from pathlib import Path

    import dask.array as da

    def tripled(block: Any) -> Any:
        if block.size:
            time.sleep(pause)
        return 3 * block

    path = Path.home() / marker
    path.with_suffix(".new").write_text(f"{platform.node()} {os.getpid()}")
    path.with_suffix(".new").rename(path)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
    blocks = x.data.rechunk((x.shape[0] // 8, x.shape[1]))
    done = da.map_blocks(  # type: ignore[no-untyped-call]
        tripled, blocks, dtype=x.dtype, meta=np.empty((0, 0))
    )
    return x.copy(data=done)


def source() -> np.ndarray[Any, Any]:
    """The data as it lies at ``edge``."""
    return np.random.default_rng(SEED).random(SHAPE)


def expected(number: int) -> np.ndarray[Any, Any]:
    """What the job with this number must come to."""
    return 3 * (source() + number)


def say(**facts: Any) -> None:
    """One line to whoever started us, and when that was."""
    print(json.dumps({**facts, "at": time.time()}), flush=True)


def begin(session: flow.Session, asked: dict[str, Any]) -> None:
    """Plan and submit a job, and wait for it."""
    number = asked["number"]
    say(said="planning", number=number)
    try:
        graph = worked(
            prepared(session["edge"], number=number),
            marker=asked["marker"],
            seconds=asked["seconds"],
            pause=asked["pause"],
        )
        plan = session.plan(graph, pinned={"prepared": "edge", "worked": "hpc"})
        say(said="planned", number=number, keys=list(plan.outputs))
        job = session.submit(plan, coordinator=asked["coordinator"])
    except DataflowError as error:
        end(number, "not-submitted", error)
        return
    say(said="submitted", number=number, job=job.id)
    wait(job, number)


def wait(job: Any, number: int) -> None:
    """Wait for a job's result, and look at it."""
    try:
        values = np.asarray(job.result(PATIENCE))
    except Exception as error:
        end(number, "failed", error)
    else:
        right = bool(np.array_equal(values, expected(number)))
        say(said="ended", number=number, status="done", right=right)


def end(number: int, status: str, error: Exception) -> None:
    """Tell how a job ended that did not end well; what is no error of ours has no kind."""
    kind = error.kind if isinstance(error, DataflowError) else ""
    text = f"{type(error).__name__}: {error}"
    say(said="ended", number=number, status=status, error=kind, text=text)


def main(file: str, state: str, data: str) -> None:
    """Do what is asked, until there is nobody who asks."""
    with flow.connect(file, state=state, user="anna") as session:
        if "edge" not in session:
            session.register(data, name="edge", site="edge")
        while not all_there(session):
            time.sleep(0.05)
        say(said="connected")
        for line in sys.stdin:
            asked = json.loads(line)
            work = {"ready": ready, "begin": begin, "attach": attach, "cancel": cancel}[asked["do"]]
            threading.Thread(target=work, args=(session, asked), daemon=True).start()


def ready(session: flow.Session, asked: dict[str, Any]) -> None:
    """Say when all sites are there; ``direct``: and the one has found the way to the other."""
    while not all_there(session) or (asked["direct"] and not found_the_way(session)):
        time.sleep(0.05)
    say(said="ready", number=asked["number"])


def attach(session: flow.Session, asked: dict[str, Any]) -> None:
    """Wait for a job that an earlier notebook submitted."""
    try:
        job = session.job(asked["job"])
    except DataflowError as error:
        end(asked["number"], "unknown", error)
    else:
        wait(job, asked["number"])


def cancel(session: flow.Session, asked: dict[str, Any]) -> None:
    """Have a job end that does not end by itself."""
    with contextlib.suppress(DataflowError):
        session.job(asked["job"]).cancel()


def found_the_way(session: flow.Session) -> bool:
    """Whether ``hpc`` can fetch from ``edge`` by itself, so that the notebook need not carry."""
    return session.topology().link("edge", "hpc").origin == "measured"


def all_there(session: flow.Session) -> bool:
    """Whether both sites have told of themselves and answer."""
    topology = session.topology()
    return {"edge", "hpc"} <= set(topology.site_by_name) and not topology.away


if __name__ == "__main__":
    # The operations belong to a module that sites can import, not to the program that is run.
    from dataflow.testing.faults import kernel

    kernel.main(*sys.argv[1:4])

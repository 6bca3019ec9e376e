"""Having a Dask worker take nothing more on, while what it has begun goes on; and when it may go."""

from __future__ import annotations

from typing import Any


def drain(scheduler: Any, name: str) -> bool:
    """Let the worker of this name finish what it runs, and begin nothing else.

    What stands in its queue is begun elsewhere. Dask's own way (``--lifetime``) would end what has
    been begun, and begin it again.

    Returns
    -------
    bool
        False if there is no such worker, or it does not run.
    """
    worker = scheduler.workers.get(scheduler.aliases.get(name))
    if worker is None or worker.status.name != "running":
        return False
    from distributed.core import Status

    change = {"status": Status.closing_gracefully.name, "stimulus_id": "dataflow-drain"}
    scheduler.handle_worker_status_change(worker=worker, **change)
    scheduler.stream_comms[worker.address].send({"op": "worker-status-change", **change})
    return True


def can_leave(scheduler: Any, name: str) -> bool:
    """Whether there is somebody to take over the data of a worker that drains.

    Else Dask would not retire it, and have it begin what stands in its queue.
    """
    worker = scheduler.workers.get(scheduler.aliases.get(name))
    return worker is None or not worker.has_what or bool(scheduler.running - {worker})

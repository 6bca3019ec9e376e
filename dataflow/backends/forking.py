"""Forking: worker processes that come from one which has imported already what they need.

A process that starts afresh imports for seconds; a copy of one that has done so is there in a second, and
shares its memory. The process copied from is started anew, imports, and does nothing but to be copied
(Python's *forkserver*); it ends with the process that started it. Whoever wants that says so to Dask
(``distributed.worker.multiprocessing-method: forkserver``): it holds for all clusters of a process.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import forkserver
from typing import Any

from dataflow.backends.cluster import IMPORTS, environment

#: Dask's setting for how worker processes come about.
_METHOD = "distributed.worker.multiprocessing-method"
_PRELOAD = ("distributed.nanny", "distributed.worker", *IMPORTS)
#: What Dask gives to workers: a string has the same hash in all of them.
HASH_SEED = "6640"

_lock = threading.Lock()
_begun_with: dict[str, str] = {}


def prepare() -> dict[str, str]:
    """Start the process that workers are copied from, unless it runs or they start afresh.

    Takes milliseconds; it imports by itself then. Harmless when repeated.

    Returns
    -------
    dict
        What has been said in the environment of this process since then, and workers have to be told.
    """
    import dask
    from distributed import utils

    if dask.config.get(_METHOD) != "forkserver":
        return {}
    # Or Dask would import, here as well, whatever a worker of anybody might need.
    utils._forkserver_preload_set = True
    context: Any = multiprocessing.get_context("forkserver")
    with _lock:
        context.set_forkserver_preload(list(_PRELOAD))
        before = dict(os.environ)
        if not _begun_with:
            _begun_with.update(before)
        # Python and libraries look at these once, so they have to be there from the start: what we want
        # workers to have, and what Dask sets before it starts one.
        early = {**environment(), **dask.config.get("distributed.nanny.pre-spawn-environ", {})}
        if "PYTHONHASHSEED" not in before:
            early["PYTHONHASHSEED"] = HASH_SEED
        try:
            os.environ.update(
                {name: str(value) for name, value in early.items() if name not in before}
            )
            forkserver.ensure_running()
        finally:
            for name in early.keys() - before.keys():
                del os.environ[name]
    return {name: value for name, value in os.environ.items() if _begun_with.get(name) != value}

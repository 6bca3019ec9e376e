"""X-09: the steps are Dask tasks at their site, and the data stays there."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import dataflow as flow
from dataflow.testing.federation import Federation
from tests.scenarios.conftest import Witness

At = Callable[..., Any]
Put = Callable[..., str]


def trace(folder: str, word: str) -> None:
    site = os.environ.get("DATAFLOW_TESTING_MARK", "/notebook").rpartition("/")[2]
    Path(folder, f"{word}@{site}+{os.getpid()}+{time.time_ns()}").touch()


@flow.operation(kind="linear", lazy=False, output=8_000)
def slow_sum(x: xr.DataArray, *, witness: str) -> xr.DataArray:
    if x.shape[0] >= 100:
        trace(witness, "slow_sum")
        time.sleep(3.0)
    return x.sum(x.dims[0])


def counts(dashboard: str) -> dict[str, Any]:
    """What the Dask scheduler of a site says of itself, by its own HTTP server."""
    with urllib.request.urlopen(f"{dashboard}/json/counts.json", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_x09_steps_are_dask_tasks_and_data_stays(
    federation: Federation, at: At, put: Put, witness: Witness
) -> None:
    session = at("p0")
    arrays = {
        site: np.random.default_rng(n).integers(0, 100, (1000, 1000))
        for n, site in enumerate(("p1", "p2"))
    }
    names = [put(session, site, array) for site, array in arrays.items()]
    graph = slow_sum(*(session[name] for name in names), witness=str(witness))
    plan = session.plan(graph)
    before = federation.crossed()
    job = session.submit(plan)
    running = witness.wait("slow_sum", count=2)
    assert sorted(run.site for run in running) == ["p1", "p2"]
    for site in arrays:
        seen = counts(session.dashboard(site))
        assert seen["processing"] >= 1, f"{site}: {seen}"
    for run in running:
        assert run.pid in {process.pid for process in federation.processes(run.site)}
        assert run.pid != federation.pid(run.site)
    job.wait(60)
    result = job.result().values
    np.testing.assert_array_equal(result, sum(array.sum(0) for array in arrays.values()))
    for site, crossed in federation.crossed().items():
        assert crossed.outward - before[site].outward < 0.02 * 8_000_000, f"{site} gave data away"
        assert crossed.inward - before[site].inward < 0.02 * 8_000_000

"""DY-14, DA-12, X-08: the process that works, the one that coordinates, the one that asked: killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import dataflow as flow
from dataflow.testing.federation import Federation
from tests.scenarios.conftest import Witness, committed

At = Callable[..., Any]
Put = Callable[..., str]


def trace(folder: str, word: str) -> None:
    site = os.environ.get("DATAFLOW_TESTING_MARK", "/notebook").rpartition("/")[2]
    Path(folder, f"{word}@{site}+{os.getpid()}+{time.time_ns()}").touch()


@flow.operation(kind="elementwise", lazy=False)
def squared(x: xr.DataArray, *, witness: str, seconds: float = 0.0) -> xr.DataArray:
    trace(witness, "squared")
    time.sleep(seconds)
    return x**2


def test_dy14_worker_killed(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    session = at("p0")
    values = np.arange(10_000)
    graph = squared(session[put(session, "p1", values)], witness=str(witness), seconds=3.0)
    job = session.submit(graph)
    (first,) = witness.wait("squared")
    assert first.pid != federation.pid("p1"), "operations do not run in the agent"
    assert first.pid in {process.pid for process in federation.processes("p1")}
    os.kill(first.pid, signal.SIGKILL)
    job.wait(90)
    np.testing.assert_array_equal(job.result().values, values**2)
    runs = witness.runs("squared")
    assert len(runs) == 2, "once more, and only once"
    assert committed(federation, graph.key) == ["p1"]
    assert federation.pid("p1") in {p.pid for p in federation.processes("p1")}


def test_da12_coordinator_dies(federation: Federation, at: At, put: Put, witness: Witness) -> None:
    session = at("p0")
    values = np.arange(10_000)
    name = put(session, "p1", values)
    graphs = [
        squared(session[name], witness=str(witness), seconds=0.5 + n / 1000) for n in range(20)
    ]
    tags = {"test": f"da12-{time.time_ns()}"}
    jobs = [session.submit(graph, tags=tags) for graph in graphs]
    witness.wait("squared", count=3)
    federation.kill("p0")
    time.sleep(1.0)
    federation.restart("p0")

    later = at("p0")
    ids = {job.id for job in jobs}
    limit = time.monotonic() + 120
    while (found := {job.id for job in later.jobs(tags=tags)}) != ids:  # it has much to do at once
        assert time.monotonic() < limit, found
        time.sleep(0.2)
    for job_id in ids:
        job = later.job(job_id)
        job.wait(max(1.0, limit - time.monotonic()))
        assert job.status == "done"
    for graph in graphs:
        assert committed(federation, graph.key) == ["p1"]
    assert len(witness.runs("squared")) == 20, "each ran exactly once"


NOTEBOOK = """
import json, os, sys, time
import dataflow as flow

folder, sites, name, state = sys.argv[1:]


@flow.operation(kind="elementwise", lazy=False)
def halved(x, *, folder):
    mark = os.environ["DATAFLOW_TESTING_MARK"].rpartition("/")[2]
    open(f"{folder}/halved@{mark}+{os.getpid()}+{time.time_ns()}", "w").close()
    time.sleep(5)
    return x / 2


session = flow.connect(sites, state=state)
graph = halved(session[name], folder=folder)
job = session.submit(graph, tags={"paper": "x08"})
print(json.dumps({"job": job.id, "key": graph.key}), flush=True)
job.wait(600)
"""


def test_x08_kernel_restarts(
    federation: Federation, at: At, put: Put, witness: Witness, tmp_path: Path
) -> None:
    owner = at("p1")
    values = np.arange(10_000)
    name = put(owner, "p1", values)
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    state = tmp_path / "kernel"
    kernel = subprocess.Popen(
        [sys.executable, script, str(witness), federation.sites_file, name, state],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert kernel.stdout is not None
        said = json.loads(kernel.stdout.readline())
        witness.wait("halved")
        kernel.send_signal(signal.SIGKILL)
    finally:
        kernel.kill()
        kernel.communicate()

    limit = time.monotonic() + 30
    while committed(federation, said["key"]) != ["p1"]:
        assert time.monotonic() < limit, "the job stopped with the kernel"
        time.sleep(0.2)
    with flow.connect(federation.sites_file, state=state) as again:
        job = again.job(said["job"])
        job.wait(30)
        np.testing.assert_array_equal(job.result().values, values / 2)
        assert [found.id for found in again.jobs(tags={"paper": "x08"})] == [said["job"]]
    assert len(witness.runs("halved")) == 1
    assert at("p3").job(said["job"]).status == "done", "and from elsewhere"

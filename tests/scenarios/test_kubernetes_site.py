"""A site whose workers are Jobs, from the notebook: a result, a worker that dies, a time limit.

The cluster is a stand-in; the workers are real, and so is all that they do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
import yaml

import dataflow as flow
from dataflow.errors import JobTimedOut, WorkerLost
from dataflow.testing.kubernetes import KubernetesStandIn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("collected")]


@flow.operation(kind="elementwise")
def plus(x: xr.DataArray, *, number: int) -> xr.DataArray:
    return x + number


@flow.operation(kind="opaque", lazy=False, output="scalar")
def fatal(x: xr.DataArray, *, once: str) -> xr.DataArray:
    """Ends its worker the first time."""
    if not os.path.exists(once):
        open(once, "w").close()
        os._exit(3)
    return x.sum()


@flow.operation(kind="opaque", lazy=False, output="scalar")
def slow(x: xr.DataArray, *, seconds: float) -> xr.DataArray:
    time.sleep(seconds)
    return x.sum()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesStandIn]:
    with KubernetesStandIn(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def session(cluster: KubernetesStandIn, tmp_path: Path) -> Iterator[flow.Session]:
    section = {
        "namespace": cluster.namespace,
        "image": cluster.image,
        "kubeconfig": cluster.kubeconfig(),
        "idle": "1 s",
        "keep": "1 s",
    }
    site_file = {
        "site": {"name": "adk"},
        "stores": [{"name": "results", "url": str(tmp_path / "results")}],
        "backend": {"workers": 1, "memory": "1 GB", "kubernetes": section},
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site_file))
    np.save(tmp_path / "run.npy", np.arange(1000))
    with flow.connect(tmp_path / "site.yaml", state=tmp_path / "state", user="anna") as session:
        session.register(tmp_path / "run.npy")
        yield session


def test_a_job_brings_its_workers_and_leaves_none(
    session: flow.Session, cluster: KubernetesStandIn, tmp_path: Path
) -> None:
    job = session.submit(plus(session["run"], number=1))
    assert job.wait(100) == "done"
    np.testing.assert_array_equal(job.result(), np.arange(1000) + 1)
    # A worker that dies is replaced, and the step done again.
    job = session.submit(fatal(session["run"], once=str(tmp_path / "once")))
    assert job.wait(100) == "done"
    assert int(job.result()) == 499_500
    while cluster.left():
        time.sleep(0.1)


def test_a_time_limit_ends_what_runs(session: flow.Session, cluster: KubernetesStandIn) -> None:
    job = session.submit(slow(session["run"], seconds=600.0), time_limit=15)
    seen: set[int] = set()
    while job.status in ("waiting", "running", "submitted"):
        seen.update(cluster.pids().values())
        time.sleep(0.1)
    with pytest.raises(JobTimedOut):
        job.result()
    assert seen
    while any(psutil.pid_exists(pid) for pid in seen):
        time.sleep(0.1)


def test_why_no_worker_comes_reaches_the_notebook(
    session: flow.Session, cluster: KubernetesStandIn
) -> None:
    cluster.world.images.clear()
    job = session.submit(plus(session["run"], number=2))
    with pytest.raises(WorkerLost, match="ImagePullBackOff: Back-off pulling image"):
        job.result()

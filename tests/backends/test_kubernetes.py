"""Workers as Jobs, against a stand-in that runs real worker processes behind real HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import psutil
import pytest

from dataflow.backends.base import Backend, Demand
from dataflow.backends.kubernetes import KubernetesBackend
from dataflow.backends.kubernetes_workers import MOST_FAILED
from dataflow.backends.make import make_backend
from dataflow.backends.surroundings import Surroundings
from dataflow.errors import SiteRefused
from dataflow.testing.backends import BackendContract
from dataflow.testing.kubernetes import KubernetesStandIn
from tests.backends.kubernetes_agents import ORDER, ended, running, settings, until


@pytest.mark.slow
class TestContract(BackendContract):
    """What holds for every backend."""

    @pytest.fixture(autouse=True)
    def _in_a_cluster(self, cluster: KubernetesStandIn) -> None:
        self.cluster = cluster

    def make(self, directory: Path) -> Backend:
        return make_backend(
            "kubernetes",
            site="contract",
            workers=2,
            threads=1,
            memory=10**9,
            settings=settings(self.cluster, idle=0.5),
            directory=directory / "agent",
        )


# --- a life ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_come_when_they_are_wanted_and_go_when_they_are_not(
    cluster: KubernetesStandIn,
) -> None:
    async def story() -> None:
        async with running(cluster, workers=2, idle=0.5) as backend:
            as_backend: Backend = backend
            assert as_backend.dashboard is None
            await backend.start()
            assert cluster.left() == {}, "a worker costs something also while it waits"
            assert backend.trouble() == ""
            await backend.request(Demand(order="one", job="figure 3", tasks=9))
            client = await backend.client()
            assert [lease.status for lease in backend.leases()] == ["queued", "queued"]
            pid = await client.submit(os.getpid)
            assert pid in cluster.pids().values()
            await until(lambda: all(lease.status == "running" for lease in backend.leases()))
            for lease in backend.leases():
                assert lease.host == "this-machine"
                assert lease.since is not None
                assert lease.until is not None
                assert lease.until > lease.since
            for kind in ("jobs", "secrets", "pods"):
                for item in cluster.objects(kind):
                    assert item["metadata"]["labels"]["dataflow/site"] == "uva"
                    assert item["metadata"]["labels"]["dataflow/job"] == "figure-3"
                    kubernetes_validate.validate(item, "1.34.0", strict=True)
            # Nothing of this process's variables got there.
            assert await client.submit(os.getenv, "DATAFLOW_STATE_DIR") is None
            await backend.request(Demand(order="two", job="other", tasks=1))
            await backend.release("one")
            await until(lambda: len(ended(backend)) == 1)
            assert ended(backend)[0].reason == "had nothing to do"
            assert await client.submit(sum, [1, 2]) == 3
            await backend.release("two")
            await backend.release("two")
            await until(lambda: cluster.left() == {})
            # And once more.
            await backend.request(ORDER)
            assert await client.submit(sum, [1, 3]) == 4
        assert cluster.left() == {}
        assert backend.dashboard is None
        with pytest.raises(RuntimeError, match="closed"):
            await backend.request(ORDER)

    asyncio.run(story())


@pytest.mark.slow
def test_a_busy_worker_is_stopped_and_replaced(cluster: KubernetesStandIn) -> None:
    async def story() -> None:
        async with running(cluster) as backend:
            await backend.request(ORDER)
            client = await backend.client()
            pid = await client.submit(os.getpid)
            (address,) = await client.nthreads()
            busy = client.submit(time.sleep, 600)
            waiting = client.submit(str.upper, "behind it", key="waiting")
            await until(lambda: cluster_state(backend, "processing"))
            busy.release()
            await backend.stop_worker(address)
            await until(lambda: not psutil.pid_exists(pid))
            # What stood behind it is not counted as failed.
            assert await waiting == "BEHIND IT"
            assert len(cluster.objects("jobs")) == 1
            await backend.stop_worker("tls://127.0.0.1:1")

    asyncio.run(story())


def cluster_state(backend: KubernetesBackend, what: str) -> list[Any]:
    workers = backend._cluster.scheduler.workers.values()
    return [entry for worker in workers for entry in getattr(worker, what)]


@pytest.mark.slow
def test_what_kubernetes_ends_is_told_and_replaced(cluster: KubernetesStandIn) -> None:
    def eat() -> int:
        return len(bytearray(b"x") * 2_000_000_000)

    async def story() -> None:
        from distributed import KilledWorker

        async with running(cluster, memory=600_000_000) as backend:
            await backend.request(ORDER)
            client = await backend.client()
            with pytest.raises(KilledWorker):
                await client.submit(eat)
            await until(lambda: any("OOMKilled" in lease.reason for lease in ended(backend)))
            # Somebody else deletes the next one.
            assert await client.submit(sum, [1, 2]) == 3
            (job,) = [item for item in cluster.objects("jobs") if item["status"].get("active")]
            cluster.delete("jobs", job["metadata"]["name"])
            await until(lambda: any("somebody else" in lease.reason for lease in ended(backend)))
            assert await client.submit(sum, [1, 3]) == 4
            assert backend.trouble() == ""

    asyncio.run(story())


@pytest.mark.slow
def test_a_worker_stops_before_its_deadline_and_is_ended_at_it(cluster: KubernetesStandIn) -> None:
    async def story() -> None:
        async with running(cluster, workers=2, deadline=60.0) as backend:
            with pytest.raises(SiteRefused, match="a lease of this site ends after"):
                await backend.request(Demand(order="long", job="j", longest=100.0))
            await backend.request(ORDER)
            client = await backend.client()
            first = await client.submit(os.getpid)
            # As old as it may get with a step of this length: another takes over.
            await backend.request(Demand(order="longer", job="j", longest=39.0, seconds=39.0))
            await until(lambda: any("deadline" in lease.reason for lease in ended(backend)))
            assert await client.submit(os.getpid, pure=False) != first

    asyncio.run(story())


def test_the_deadline_holds(cluster: KubernetesStandIn) -> None:
    async def story() -> None:
        async with running(cluster, deadline=2.0) as backend:
            await backend.request(ORDER)
            await until(lambda: any("DeadlineExceeded" in one.reason for one in ended(backend)))
            await until(backend.trouble)
            assert "Job was active longer than specified deadline" in backend.trouble()
            assert f"{MOST_FAILED} workers ended before they came up" in backend.trouble()

    asyncio.run(story())


# --- what stays behind -----------------------------------------------------------------------


def test_an_agent_that_is_a_pod_uses_its_account_and_takes_all_with_it(
    cluster: KubernetesStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
    containers = [{"name": "agent", "image": "of-somebody-else", "command": ["true"]}]
    agent = cluster.create(
        "pods", {"metadata": {"name": "agent"}, "spec": {"containers": containers}}
    )
    around = Surroundings(
        pod="agent",
        uid=agent["metadata"]["uid"],
        namespace=cluster.namespace,
        address="127.0.0.1",
        service_account=str(cluster.service_account()),
    )

    async def story() -> None:
        async with running(cluster, kubeconfig="", surroundings=around) as backend:
            await backend.request(ORDER)
            assert set(cluster.left()) == {"pods", "secrets", "jobs"}
            (job,) = cluster.objects("jobs")
            assert job["metadata"]["ownerReferences"][0]["name"] == "agent"
            await backend.release(ORDER.order)
            cluster.delete("pods", "agent")
            await until(lambda: cluster.left() == {})

    asyncio.run(story())


def test_a_pod_of_another_namespace_is_no_owner(cluster: KubernetesStandIn) -> None:
    around = Surroundings(pod="agent", uid="1-2-3", namespace="elsewhere", address="127.0.0.1")

    async def story() -> None:
        async with running(cluster, surroundings=around) as backend:
            await backend.request(ORDER)
            (job,) = cluster.objects("jobs")
            assert "ownerReferences" not in job["metadata"]

    asyncio.run(story())


SCRIPT = """
import asyncio, sys
from pathlib import Path
from dataflow.backends.base import Demand
from dataflow.backends.kubernetes import KubernetesBackend
from dataflow.config.kubernetes import KubernetesSettings

async def main():
    settings = KubernetesSettings(namespace="adk", image=sys.argv[2], kubeconfig=sys.argv[1], keep=1.0)
    backend = KubernetesBackend(
        site="uva", workers=1, threads=1, memory=10**9, settings=settings, directory=Path(sys.argv[3])
    )
    await backend.request(Demand(order="o", job="j"))
    client = await backend.client()
    await client.submit(sum, [1, 2])
    print("running", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.slow
def test_nothing_stays_behind_an_agent_that_is_killed(
    cluster: KubernetesStandIn, tmp_path: Path
) -> None:
    script = tmp_path / "agent.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, cluster.kubeconfig(), cluster.image, tmp_path / "agent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        try:
            while (line := agent.stdout.readline()).strip() != "running":
                assert line, "the agent has ended"
            (pid,) = cluster.pids().values()
        finally:
            agent.kill()
    while psutil.pid_exists(pid) or cluster.left():
        time.sleep(0.1)

"""Workers as Jobs, against a stand-in that runs real worker processes behind real HTTP.

The account has just the rights of the Role in ``hpc/kubernetes``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import psutil
import pytest
import yaml

from dataflow.backends import kubernetes
from dataflow.backends.base import Backend, Demand, Lease
from dataflow.backends.kubernetes import KubernetesBackend
from dataflow.backends.kubernetes_workers import MOST_FAILED
from dataflow.backends.surroundings import Surroundings
from dataflow.config.kubernetes import KubernetesSettings
from dataflow.errors import SiteRefused, SiteUnreachable
from dataflow.testing.kubernetes import TOKEN, KubernetesStandIn

ROOT = Path(__file__).parents[2]
ORDER = Demand(order="order", job="figure 3", tasks=1)


def rules() -> list[dict[str, Any]]:
    documents = yaml.safe_load_all((ROOT / "hpc" / "kubernetes" / "rbac.yaml").read_text())
    (role,) = [item for item in documents if item["kind"] == "Role"]
    found: list[dict[str, Any]] = role["rules"]
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesStandIn]:
    with KubernetesStandIn(tmp_path / "cluster", rules=rules()) as cluster:
        yield cluster


def settings(cluster: KubernetesStandIn, **more: Any) -> KubernetesSettings:
    known = {"namespace": cluster.namespace, "image": cluster.image, "keep": 2.0}
    return KubernetesSettings(**{"kubeconfig": cluster.kubeconfig(), **known, **more})


@contextlib.asynccontextmanager
async def running(
    cluster: KubernetesStandIn,
    *,
    workers: int = 1,
    memory: int = 10**9,
    surroundings: Surroundings | None = None,
    **more: Any,
) -> AsyncIterator[KubernetesBackend]:
    backend = KubernetesBackend(
        site="uva",
        workers=workers,
        threads=1,
        memory=memory,
        settings=settings(cluster, **more),
        directory=cluster.folder / "agent",
        surroundings=surroundings,
    )
    try:
        yield backend
    finally:
        await backend.close()


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for something that must come; the time limit is that of the test."""
    while not (found := condition()):
        await asyncio.sleep(0.05)
    return found


def ended(backend: KubernetesBackend) -> list[Lease]:
    return [lease for lease in backend.leases() if lease.status in ("ended", "failed")]


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
            await backend.request(Demand(order="longer", job="j", longest=44.0, seconds=44.0))
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


# --- why no worker comes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "more", "words"),
    [
        ({"images": set()}, {}, "ImagePullBackOff: Back-off pulling image"),
        ({"cores": 0.5}, {"patience": 0.5}, "Unschedulable: 0/1 nodes are available"),
        ({"pods": 0}, {"patience": 3.0}, "FailedCreate: .*exceeded quota"),
        ({}, {"environment": (("PYTHONHOME", "/nowhere"),)}, "exit code 1"),
    ],
)
def test_trouble_in_the_words_of_kubernetes(
    cluster: KubernetesStandIn, world: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    for name, value in world.items():
        setattr(cluster.world, name, value)

    async def story() -> None:
        async with running(cluster, **more) as backend:
            await backend.request(ORDER)
            assert backend.trouble() == "", "there is hope in the beginning"
            await until(backend.trouble)
            assert words_in(words, backend.trouble())
            assert any(words_in(words.split(":")[0], one.reason) for one in backend.leases())
            await backend.release(ORDER.order)
            assert backend.trouble() == "", "nobody waits for it any more"
        assert cluster.left() == {}

    asyncio.run(story())


def words_in(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text, re.DOTALL) is not None


def test_what_fits_later_comes_later(cluster: KubernetesStandIn) -> None:
    cluster.world.cores = 0.5

    async def story() -> None:
        async with running(cluster) as backend:
            await backend.request(ORDER)
            await until(lambda: backend.leases()[0].reason.startswith("Unschedulable"))
            assert backend.trouble() == ""
            cluster.world.cores = 4
            client = await backend.client()
            assert await client.submit(sum, [1, 2]) == 3

    asyncio.run(story())


def test_orders_that_can_never_be_served_are_refused(cluster: KubernetesStandIn) -> None:
    async def story() -> None:
        async with running(cluster) as backend:
            with pytest.raises(SiteRefused, match="of memory"):
                await backend.request(Demand(order="large", job="j", memory=10**12))
        assert cluster.faults.calls == []

    asyncio.run(story())


def test_a_quota_of_jobs_refuses_the_first_and_limits_the_others(
    cluster: KubernetesStandIn,
) -> None:
    cluster.world.jobs = 0

    async def story() -> None:
        async with running(cluster, workers=3) as backend:
            with pytest.raises(SiteRefused, match=r"exceeded quota.*count/jobs\.batch=1"):
                await backend.request(ORDER)
            assert backend.trouble() == ""
            cluster.world.jobs = 1
            await backend.request(Demand(order="many", job="j", tasks=9))
            assert len(cluster.objects("jobs")) == 1
            assert backend.trouble() == ""
            client = await backend.client()
            assert await client.submit(sum, [1, 2]) == 3

    asyncio.run(story())


# --- the API server --------------------------------------------------------------------------


def test_a_token_that_has_expired_is_told_in_seconds(cluster: KubernetesStandIn) -> None:
    async def story() -> None:
        async with running(cluster) as backend:
            await backend.start()
            cluster.accounts.revoke(TOKEN)
            with pytest.raises(SiteRefused, match="does not accept the token"):
                await backend.request(ORDER)
        async with running(cluster) as backend:
            with pytest.raises(SiteRefused, match="does not accept the token"):
                await backend.start()

    asyncio.run(story())


def test_a_right_that_is_missing_is_named(cluster: KubernetesStandIn) -> None:
    less = [rule for rule in rules() if rule["resources"] != ["secrets"]]
    cluster.accounts.add("less", "anna", cluster.namespace, less)
    cluster.accounts.add("none", "bob", cluster.namespace, [])

    async def story() -> None:
        async with running(cluster, kubeconfig=cluster.kubeconfig("less")) as backend:
            with pytest.raises(SiteRefused, match='"anna" cannot create resource "secrets"'):
                await backend.request(ORDER)
            await until(lambda: cluster.left() == {})
        async with running(cluster, kubeconfig=cluster.kubeconfig("none")) as backend:
            with pytest.raises(SiteRefused, match='"bob" cannot list resource "jobs"'):
                await backend.start()

    asyncio.run(story())


def test_no_way_to_an_api_server_is_told(
    cluster: KubernetesStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    async def story() -> None:
        for kubeconfig in ("", str(tmp_path / "nothing.yaml")):
            async with running(cluster, kubeconfig=kubeconfig) as backend:
                with pytest.raises(SiteRefused, match="no way to a Kubernetes API"):
                    await backend.start()

    asyncio.run(story())


def test_an_api_server_that_is_gone_or_deaf_or_ill_is_told(
    cluster: KubernetesStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow.backends.kubernetes_api.ANSWER", 1.0)

    async def story() -> None:
        async with running(cluster) as backend:
            cluster.down()
            with pytest.raises(SiteUnreachable, match=f"{cluster.url} does not answer"):
                await backend.request(ORDER)
            cluster.up()
            cluster.faults.deaf = True
            with pytest.raises(SiteUnreachable, match="does not answer"):
                await backend.request(ORDER)
            cluster.faults.deaf = False
            cluster.faults.answers = 503
            with pytest.raises(SiteUnreachable, match="answers 503"):
                await backend.request(ORDER)
            cluster.faults.answers = 0
            cluster.faults.slow = 0.3
            await backend.request(ORDER)
            assert len(cluster.objects("jobs")) == 1

    asyncio.run(story())


@pytest.mark.slow
def test_work_goes_on_while_the_api_server_is_away(
    cluster: KubernetesStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "SILENCE", 1.0)

    async def story() -> None:
        async with running(cluster, workers=2) as backend:
            await backend.request(ORDER)
            client = await backend.client()
            pid = await client.submit(os.getpid)
            cluster.down()
            await backend.request(Demand(order="more", job="j", tasks=2))
            assert await client.submit(sum, [1, 2]) == 3
            assert backend.trouble() == "", "there is a worker"
            os.kill(pid, signal.SIGKILL)
            await until(lambda: "does not answer" in backend.trouble())
            cluster.up()
            assert await client.submit(sum, [1, 3]) == 4
            assert backend.trouble() == ""
        assert cluster.left() == {}

    asyncio.run(story())


def test_a_watch_that_is_cut_or_too_old_misses_nothing(cluster: KubernetesStandIn) -> None:
    cluster.world.cores = 0.5

    async def story() -> None:
        async with running(cluster) as backend:
            await backend.request(ORDER)
            await until(lambda: backend.leases()[0].reason)
            cluster.forget_history()
            cluster.cut_watches()
            (job,) = cluster.objects("jobs")
            cluster.delete("jobs", job["metadata"]["name"])
            await until(lambda: ended(backend))
            await until(lambda: len(cluster.objects("jobs")) == 1)
            cluster.cut_watches()
            cluster.world.cores = 4
            client = await backend.client()
            assert await client.submit(sum, [1, 2]) == 3

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

"""What goes wrong in a Kubernetes cluster, and how users are told."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dataflow.backends import kubernetes
from dataflow.backends.base import Demand
from dataflow.errors import SiteRefused, SiteUnreachable
from dataflow.testing.kubernetes import TOKEN, KubernetesStandIn
from tests.backends.kubernetes_agents import ORDER, ended, rules, running, until

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


async def insisting(ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Ask again where the connection was cut in the middle of the answer, as the backend does."""
    for _ in range(5):
        try:
            return await ask()
        except SiteUnreachable:
            await asyncio.sleep(0.2)
    return await ask()


def test_a_token_that_has_expired_is_told_in_seconds(cluster: KubernetesStandIn) -> None:
    async def story() -> None:
        async with running(cluster) as backend:
            await backend.start()
            cluster.accounts.revoke(TOKEN)
            with pytest.raises(SiteRefused, match="does not accept the token"):
                await insisting(lambda: backend.request(ORDER))
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

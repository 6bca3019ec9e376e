"""Backends against a stand-in for Kubernetes, and what tests of them have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import yaml

from dataflow.backends.base import Demand, Lease
from dataflow.backends.kubernetes import KubernetesBackend
from dataflow.backends.surroundings import Surroundings
from dataflow.config.kubernetes import KubernetesSettings
from dataflow.testing.kubernetes import KubernetesStandIn

ROOT = Path(__file__).parents[2]
ORDER = Demand(order="order", job="figure 3", tasks=1)


def rules() -> list[dict[str, Any]]:
    """What the Role in ``hpc/kubernetes`` allows."""
    documents = yaml.safe_load_all((ROOT / "hpc" / "kubernetes" / "rbac.yaml").read_text())
    (role,) = [item for item in documents if item["kind"] == "Role"]
    found: list[dict[str, Any]] = role["rules"]
    return found


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

"""A stand-in for a Kubernetes cluster, for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow.testing.kubernetes import KubernetesStandIn
from tests.backends.kubernetes_agents import rules


@pytest.fixture
def cluster(tmp_path: Path, collected: None) -> Iterator[KubernetesStandIn]:
    """Entered with just the rights of the Role in ``hpc/kubernetes``."""
    with KubernetesStandIn(tmp_path / "cluster", rules=rules()) as cluster:
        yield cluster

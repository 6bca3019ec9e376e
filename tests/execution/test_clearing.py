"""Clearing: what lost its right leaves the store, and nothing else does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dataflow.datasets import Replica
from dataflow.execution.clearing import area_of, clear
from dataflow.execution.workplace import Claims
from dataflow.sites import Site
from dataflow.storage.manifest import replica_of
from dataflow.storage.publish import attempt_at, find_result
from dataflow.storage.results import write_result
from dataflow.storage.upkeep import discard_uncommitted
from dataflow.stores import Store


def committed(root: str, key: str) -> Replica:
    manifest = write_result(np.arange(4.0), root=root, key=key, attempt="a1", provenance={})
    return replica_of(manifest, "surf", "results")


def test_a_copy_goes_from_catalog_and_store(tmp_path: Path) -> None:
    root, key, other = tmp_path.as_uri(), "ab" * 16, "cd" * 16
    replica, kept = committed(root, key), committed(root, other)
    store = Store(name="results", site="surf", url=root, purpose="results")
    place: Any = SimpleNamespace(site=Site(name="surf"), claims=Claims())
    withdrawn: list[Replica] = []
    place.claims.take([key])
    assert not asyncio.run(clear(replica, store, place, withdrawn.append)), "it is being written"
    assert find_result(root, key) is not None
    place.claims.release([key])
    assert asyncio.run(clear(replica, store, place, withdrawn.append))
    assert withdrawn == [replica]
    assert find_result(root, key) is None
    assert find_result(root, kept.key) is not None
    assert not place.claims.taken(key)


def test_what_was_registered_is_never_touched(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    store = Store(name="results", site="surf", url=root, purpose="results")
    replica = committed(root, "ab" * 16)
    (tmp_path / "mine.npy").write_bytes(b"mine")
    foreign = replace(replica, url=f"{root}/mine.npy")
    assert area_of(foreign, store) is None
    place: Any = SimpleNamespace(site=Site(name="surf"), claims=Claims())
    assert asyncio.run(clear(foreign, store, place, lambda _: None))
    assert (tmp_path / "mine.npy").read_bytes() == b"mine"


def test_attempts_go_and_what_is_committed_stays(tmp_path: Path) -> None:
    root, key = tmp_path.as_uri(), "ab" * 16
    assert discard_uncommitted(root, key) == ()
    committed(root, key)
    attempt_at(root, key, "torn").put("c/0", [b"half"])
    (removed,) = discard_uncommitted(root, key)
    assert removed.endswith("/torn")
    found = find_result(root, key)
    assert found is not None
    assert not (tmp_path / removed).exists()

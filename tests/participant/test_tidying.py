"""Dead attempts and old copies go; what is alive, or a result, stays."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from dataflow.participant.tidying import ATTEMPT_SECONDS, COPY_SECONDS, tidy
from dataflow.storage.manifest import replica_of
from dataflow.storage.publish import attempt_at
from dataflow.storage.results import find_result, write_result
from dataflow.storage.transfer import StoreSource, copy
from dataflow.stores import Store


def test_what_goes_and_what_stays(tmp_path: Path) -> None:
    root, cache = tmp_path / "results", tmp_path / "cache"
    store = Store(name="results", site="ams", url=root.as_uri())
    made = write_result(1.0, root=store.url, key="k1", attempt="done", provenance={})
    attempt_at(store.url, "k1", "dead").put("x", [b"1"])
    attempt_at(store.url, "k2", "dead").put("x", [b"1"])
    data = Store(name="data", site="ams", url=(tmp_path / "data").as_uri(), purpose="data")
    attempt_at(data.url, "k3", "not-ours").put("x", [b"1"])
    source = StoreSource(replica=replica_of(made, "ams", "results"), manifest=made)
    for key in ("old", "new"):
        asyncio.run(
            copy(
                source,
                root=cache.as_uri(),
                key=key,
                attempt="fetched",
                provenance={},
                kind="array",
                format="zarr",
                extent=made.extent,
            )
        )
    now = time.time() + ATTEMPT_SECONDS + 60
    commit = cache / "copies" / "ol" / "old" / "COMMIT.json"
    os.utime(commit, (now - COPY_SECONDS - 60,) * 2)
    away = Store(name="away", site="ams", url="s3://nobody/x", credentials="no-such-name")
    tidy([store, data, away], cache, now)
    assert not (root / "results" / "k1" / "k1" / "dead").exists()
    assert not (root / "results" / "k2" / "k2" / "dead").exists()
    assert find_result(store.url, "k1") is not None
    assert (tmp_path / "data" / "results" / "k3" / "k3" / "not-ours" / "x").exists()
    assert find_result(cache.as_uri(), "old", area="copies") is None
    assert find_result(cache.as_uri(), "new", area="copies") is not None


def test_a_site_that_has_only_begun(tmp_path: Path) -> None:
    store = Store(name="results", site="ams", url=(tmp_path / "results").as_uri())
    tidy([store], tmp_path / "cache", time.time())

"""Results and reading through Dask's own scheduler, in worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dataflow.storage.manifest import replica_of
from dataflow.storage.read import open_data
from dataflow.storage.results import verify_result, write_result

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0", memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as opened,
    ):
        yield opened


@pytest.fixture(params=["local", pytest.param("rgw", marks=pytest.mark.bed)])
def place(request: Any) -> Any:
    return request.getfixturevalue(f"{request.param}_place")


def through(client: Any) -> Any:
    return lambda *tasks: client.gather(client.compute(list(tasks)))


def test_array(client: Any, place: Any) -> None:
    x = da.arange(400_000, chunks=50_000, dtype="f8").reshape(400, 1000)
    value = xr.DataArray(x, dims=("x", "y"), name="v", coords={"x": np.arange(400)})
    manifest = write_result(
        value * 2,
        root=place.root,
        key="k",
        attempt="a",
        provenance={},
        chunk_nbytes=100_000,
        compute=through(client),
        **place.opening,
    )
    verify_result(manifest, deep=True, **place.opening)
    found = open_data(
        replica_of(manifest, "s", "s"), kind="array", chunk_nbytes=200_000, **place.opening
    )
    assert client.compute(found.sum()).result().item() == 2 * np.arange(400_000).sum()
    xr.testing.assert_identical(client.compute(found).result(), (value * 2).compute())


def test_table(client: Any, place: Any) -> None:
    import dask.dataframe as dd

    frame = pd.DataFrame({"n": range(100), "g": ["a", "b"] * 50})
    manifest = write_result(
        dd.from_pandas(frame, npartitions=5),
        root=place.root,
        key="k",
        attempt="a",
        provenance={},
        compute=through(client),
        **place.opening,
    )
    assert len(manifest.files) == 5
    found = open_data(replica_of(manifest, "s", "s"), kind="table", **place.opening)
    assert client.compute(found.groupby("g").n.sum()).result().to_dict() == {"a": 2450, "b": 2500}

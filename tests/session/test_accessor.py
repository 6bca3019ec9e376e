"""``.flow``, and xarray's own ``open_dataset``: where data come from, until they are computed with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dataflow as flow
from dataflow.errors import UnknownDataset


@flow.operation(kind="opaque", lazy=False)
def tripled(x: Any) -> Any:
    return 3 * x


def test_what_is_known_of_a_result(session: flow.Session, tmp_path: Path) -> None:
    graph = tripled(session["run"])
    result = session.submit(graph).result()
    assert result.flow.key == graph.key
    assert result.flow.where == ("local",)
    assert result.flow.bytes == 8000
    made = result.flow.provenance
    assert made is not None
    assert (made.operation, made.inputs) == ("tripled", (session["run"].key,))
    assert session.open("run").flow.provenance is None
    computed = result + 1
    with pytest.raises(UnknownDataset, match="computed here"):
        computed.flow.where
    kept = computed.flow.register(tmp_path / "kept.zarr", name="kept", tags={"a": "b"})
    assert kept.tags == {"a": "b"}
    np.testing.assert_array_equal(session.open("kept"), 3 * np.arange(1000) + 1)
    with pytest.raises(FileExistsError):
        computed.flow.register(tmp_path / "kept.zarr")


def test_xarray_opens_by_name(session: flow.Session) -> None:
    engine = "dataflow.integrations.xarray_engine"
    entrypoint = __import__(engine, fromlist=["x"]).DataflowEntrypoint
    opened = xr.open_dataset("dataflow://local/run", engine=entrypoint)
    (name,) = opened.data_vars
    np.testing.assert_array_equal(opened[name], np.arange(1000))
    assert opened.flow.where == ("local",)
    assert not xr.open_dataset("dataflow://run", engine=entrypoint, drop_variables=name).data_vars
    assert entrypoint().guess_can_open("dataflow://run")
    assert not entrypoint().guess_can_open("run.nc")
    with pytest.raises(UnknownDataset):
        xr.open_dataset("dataflow://none", engine=entrypoint)

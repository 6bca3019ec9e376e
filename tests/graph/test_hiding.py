"""Hiding columns of whatever an operation may get."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dataflow.datasets import Dataset, Extent
from dataflow.graph.graph import of_dataset
from dataflow.graph.hiding import parameters_of, service_of, without_columns, word_of

FRAME = pd.DataFrame({"name": ["a"], "scale": [1]})


@pytest.mark.parametrize(
    "table",
    [
        FRAME,
        dd.from_pandas(FRAME, npartitions=1),
        xr.Dataset({"name": ("row", ["a"]), "scale": ("row", [1])}),
    ],
)
def test_columns_are_gone_and_others_are_not(table: Any) -> None:
    left = without_columns.function(table, columns=["name", "there is no such one"])
    assert list(getattr(left, "data_vars", None) or left.columns) == ["scale"]


def test_fields_of_records_are_columns() -> None:
    records = np.array([(1, 2)], dtype=[("name", "i4"), ("scale", "i4")])
    assert without_columns.function(records, columns=["name"]).dtype.names == ("scale",)
    array = xr.DataArray(records, dims=["row"])
    assert without_columns.function(array, columns=["name"]).dtype.names == ("scale",)


def test_what_has_no_columns_is_refused() -> None:
    for value in (np.arange(3), ["a path"]):
        with pytest.raises(TypeError, match="no columns that could be left out"):
            without_columns.function(value, columns=["name"])


def test_only_the_same_columns_are_the_same_service() -> None:
    data = Dataset(id="d", name="d", key="d", kind="table", extent=Extent(nbytes=1), site="vu")
    graph = without_columns(of_dataset(data), columns=["b", "a"])
    (step,) = graph.steps.values()
    assert service_of(step) == word_of(["a", "b"]) == word_of(["b", "a", "a"])
    assert service_of(replace(step, parameters={})) not in (word_of(["a", "b"]), word_of([]))
    assert service_of(replace(step, parameters=parameters_of(["a"]))) == word_of(["a"])

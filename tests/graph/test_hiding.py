"""Hiding columns of whatever an operation may get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dataflow.datasets import Dataset, Extent
from dataflow.graph.anonymity import common_rows
from dataflow.graph.graph import of_dataset
from dataflow.graph.hiding import parameters_of, service_of, without_columns, word_of
from dataflow.graph.keys import encode

FRAME = pd.DataFrame({"name": ["a"], "scale": [1]})


@pytest.mark.parametrize(
    "table",
    [
        FRAME,
        dd.from_pandas(FRAME, npartitions=1),
        FRAME.set_index("name"),
        FRAME.set_index("name", append=True),
        dd.from_pandas(FRAME.set_index("name"), npartitions=1),
        xr.Dataset({"name": ("row", ["a"]), "scale": ("row", [1])}),
    ],
)
def test_columns_are_gone_and_others_are_not(table: Any) -> None:
    left = without_columns.function(table, columns=["name", "there is no such one"])
    assert list(getattr(left, "data_vars", None) or left.columns) == ["scale"]
    index = getattr(left, "index", None)
    assert "name" not in (getattr(index, "names", None) or [getattr(index, "name", None)])


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


@pytest.mark.parametrize(
    "columns",
    [
        ["a, b"],
        ["a,b"],
        [Path("a"), Path("b")],
        "ab",
        ["a\\", " b"],
        {"a": 1, "b": 2},
        [["a"], "b"],
    ],
)
def test_what_hides_nothing_is_nobodys_word(columns: Any) -> None:
    data = Dataset(id="d", name="d", key="d", kind="table", extent=Extent(nbytes=1), site="vu")
    (step,) = without_columns(of_dataset(data), columns=["a", "b"]).steps.values()
    other = replace(step, parameters={"columns": encode(columns)})
    assert service_of(other) != word_of(["a", "b"])
    more = replace(step, parameters={**step.parameters, "deep": False})
    assert service_of(more) != word_of(["a", "b"])


def test_other_code_under_our_name_is_nobodys_word() -> None:
    data = Dataset(id="d", name="d", key="d", kind="table", extent=Extent(nbytes=1), site="vu")
    for own in (without_columns, common_rows):
        (step,) = (
            own(of_dataset(data)).steps.values()
            if own is without_columns
            else (own(of_dataset(data), k=5, among=["a"]).steps.values())
        )
        for forged in (
            replace(step.operation, version="2"),
            replace(step.operation, code="0" * 64),
        ):
            assert "(" not in service_of(replace(step, operation=forged))

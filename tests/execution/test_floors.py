"""Rows that are really there, of whatever a function may get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

from dataflow.errors import NotGranted
from dataflow.execution.floors import check_floors, rows_of
from dataflow.storage.tabular import tabular

FRAME = pd.DataFrame({"scale": range(7)})


def compute(*collections: Any) -> Sequence[Any]:
    found: Sequence[Any] = dask.compute(*collections, scheduler="sync")  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    "value",
    [
        FRAME,
        FRAME["scale"],
        dd.from_pandas(FRAME, npartitions=3),
        tabular(pa.Table.from_pandas(FRAME)),
        np.arange(7),
        xr.DataArray(np.zeros((7, 2))),
        xr.Dataset({"scale": ("row", np.arange(7))}),
    ],
)
def test_rows_are_counted(value: Any) -> None:
    assert rows_of(value, compute) == 7
    check_floors([value, value], [7, 0], "vu", compute)
    with pytest.raises(NotGranted, match="fewer than 8 rows"):
        check_floors([value, value], [0, 8], "vu", compute)


def test_what_cannot_be_counted_is_refused() -> None:
    for value in (3.0, ["a path"], xr.Dataset(), np.float64(1)):
        with pytest.raises(NotGranted):
            check_floors([value], [1], "vu", compute)
    check_floors([3.0], [0], "vu", compute)
    check_floors([3.0], [], "vu", compute)

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
from dataflow.execution.floors import check_floors, row_set, rows_of
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
        pa.Table.from_pandas(FRAME),
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


MIXED = pd.DataFrame({"b": ["x", None, "y", "x"], "a": [1, 2, 3, 1]})


def test_the_same_rows_have_the_same_digest_in_any_order_and_any_form() -> None:
    shuffled = MIXED.iloc[[3, 1, 2, 0]][["a", "b"]].reset_index(drop=True)
    forms = [
        MIXED,
        shuffled,
        dd.from_pandas(shuffled, npartitions=3),
        tabular(pa.Table.from_pandas(MIXED)),
        pa.Table.from_pandas(shuffled, preserve_index=False),
    ]
    found = {row_set(form, compute) for form in forms}
    assert len(found) == 1
    (one,) = found
    assert one is not None
    assert (one.rows, bool(one.digest)) == (4, True)


def test_other_rows_have_another_digest() -> None:
    same = row_set(MIXED, compute)
    changed = MIXED.assign(a=[1, 2, 3, 2])
    swapped = MIXED.assign(a=[2, 1, 3, 1])
    renamed = MIXED.rename(columns={"a": "c"})
    for other in (changed, swapped, renamed, MIXED[["a"]], MIXED.iloc[:3]):
        assert row_set(other, compute) != same


def test_what_cannot_be_told_from_others_has_no_digest() -> None:
    found = row_set(np.arange(7), compute)
    assert found is not None
    assert (found.rows, found.digest) == (7, "")
    lists = row_set(pd.DataFrame({"a": [[1], [2]]}), compute)
    assert lists is not None
    assert (lists.rows, lists.digest) == (2, "")
    assert row_set(3.0, compute) is None

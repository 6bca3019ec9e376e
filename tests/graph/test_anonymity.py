"""Rows that too few others look like are left out, whatever else a table holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent
from dataflow.graph.anonymity import NAME, common_rows, parameters_of, word_of
from dataflow.graph.graph import of_dataset
from dataflow.graph.hiding import service_of
from dataflow.graph.keys import encode

VALUES = st.sampled_from(["x", "y", None])
ROWS = st.lists(st.tuples(VALUES, st.integers(0, 2), st.integers(0, 99)), max_size=20)


@given(ROWS, st.integers(2, 5))
def test_every_row_that_is_left_has_company(rows: list[tuple[str, int, int]], k: int) -> None:
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    table["a"] = table["a"].astype("category")
    left = common_rows.function(table, k=k, among=["a", "b"])
    counts = Counter((a, b) for a, b, _ in rows)
    expected = [row for row in rows if counts[row[:2]] >= k]
    found = left.astype(object).where(left.notna(), None)
    assert list(found.itertuples(index=False, name=None)) == expected
    assert list(left.dtypes) == list(table.dtypes)


def test_without_columns_all_of_them_count() -> None:
    table = pd.DataFrame({"a": [1, 1, 1], "b": [1, 1, 2]})
    assert len(common_rows.function(table, k=2, among=[])) == 2
    told = table.assign(id=[7, 8, 9]).set_index("id")
    assert len(common_rows.function(told, k=2, among=[])) == 0, "its index tells them apart"
    assert list(common_rows.function(told, k=2, among=["a", "b"]).columns) == ["id", "a", "b"]


def test_what_hides_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no column 'c'"):
        common_rows.function(pd.DataFrame({"a": [1]}), k=2, among=["c"])
    for value in (np.arange(3), ["a path"]):
        with pytest.raises(TypeError, match="no table"):
            common_rows.function(value, k=2, among=["a"])


def test_only_the_same_terms_are_the_same_service() -> None:
    data = Dataset(id="d", name="d", key="d", kind="table", extent=Extent(nbytes=1), site="vu")
    (step,) = common_rows(of_dataset(data), k=5, among=["b", "a"]).steps.values()
    assert service_of(step) == word_of(5, ["a", "b"]) == word_of(5, ["b", "a", "a"])
    assert NAME in service_of(replace(step, parameters={}))
    for wrong in (float("inf"), True, "5", 5.0):
        odd = replace(step, parameters={**step.parameters, "k": encode(wrong)})
        assert "(" not in service_of(odd)
    for k, among in ((4, ["a", "b"]), (5, ["a"])):
        other = replace(step, parameters=parameters_of(k, among))
        assert service_of(other) == word_of(k, among) != service_of(step)

"""Datasets: what an extent says of itself."""

from __future__ import annotations

import dataclasses

import pytest

from dataflow.datasets import Dataset, Extent, Lineage, Replica, Variable
from dataflow.testing.strategies import dataset

X = Variable(name="x", dims=("t", "c"), shape=(4, 3), dtype="float32", nbytes=48)
Y = Variable(name="y", dims=("t",), shape=(4,), dtype="int64", nbytes=32)


def test_one_variable() -> None:
    extent = Extent(nbytes=48, variables=(X,))
    assert (extent.shape, extent.dims, extent.dtype) == ((4, 3), ("t", "c"), "float32")
    assert (extent.rows, extent.elements) == (4, 12)
    assert extent.guessed == ""


def test_several_variables() -> None:
    extent = Extent(nbytes=80, variables=(X, Y))
    assert extent.shape is extent.dims is extent.dtype is None
    assert (extent.rows, extent.elements) == (4, 16)


def test_nothing_known() -> None:
    extent = Extent(nbytes=8)
    assert extent.shape is extent.dims is extent.dtype is extent.rows is None
    assert extent.elements == 0


def test_a_scalar() -> None:
    number = Variable(name="n", dims=(), shape=(), dtype="float64", nbytes=8)
    extent = Extent(nbytes=8, variables=(number,))
    assert (extent.shape, extent.dims, extent.rows, extent.elements) == ((), (), None, 1)


def test_records_do_not_change() -> None:
    lineage = Lineage(operation="f", version="1", kind="opaque", inputs=("a",))
    copy = Replica(key="k", site="ams", store="s", url="file:///a", format="npy", nbytes=1)
    for record in (X, Extent(nbytes=8), dataset("run1"), lineage, copy):
        first = dataclasses.fields(record)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, first, "other")
        assert dataclasses.replace(record) == record


def test_defaults_are_not_shared() -> None:
    one, other = (
        Dataset(id=i, name=i, key=i, kind="files", extent=Extent(nbytes=0), site="ams")
        for i in "ab"
    )
    assert one.tags == other.tags == {}
    assert one.tags is not other.tags

"""Operations that stewards install: the same module at every site, by its own name."""

from __future__ import annotations

import os
import time
from typing import Any

import pandas as pd

import dataflow as flow


@flow.operation(role="dataProvider", name="sql-query", version="1", lazy=False)
def query(table: pd.DataFrame) -> Any:
    """Rows that count: the unknown scale is left out."""
    return table[table["Salschal"] != 99]


@flow.operation(role="dataProvider", name="sql-anonymize", version="1", lazy=False)
def anonymize(table: pd.DataFrame) -> Any:
    """Dates as years."""
    years = table["Gebdat"].astype("str").str.slice(0, 4)
    return table.assign(Gebdat=years)


@flow.operation(role="dataProvider", name="all-but", version="1", lazy=False)
def all_but(table: pd.DataFrame, *, count: int) -> Any:
    """The rows without the first ones."""
    return table.iloc[count:]


@flow.operation(role="computeProvider", name="sql-algorithm", version="1", lazy=False)
def average(table: pd.DataFrame, *, seconds: float = 0.0, tag: str = "") -> Any:
    """Mean scale and number of rows for each gender."""
    time.sleep(seconds)
    return _average(table)


@flow.operation(role="computeProvider", name="sql-aggregate", version="1", lazy=False)
def average_of_all(one: pd.DataFrame, other: pd.DataFrame, *, tag: str = "") -> Any:
    """The same over the rows of two owners."""
    return _average(pd.concat([one, other], ignore_index=True))


@flow.operation(role="computeProvider", name="median", version="1", lazy=False)
def median_of_three(
    one: pd.DataFrame, two: pd.DataFrame, three: pd.DataFrame, *, tag: str = ""
) -> Any:
    """The median scale over the rows of three owners: no sum of parts."""
    whole = pd.concat([one, two, three], ignore_index=True)
    return whole[["Salschal"]].median().to_frame("median")


@flow.operation(role="computeProvider", name="rows", version="1", lazy=False)
def rows(table: pd.DataFrame, *, tag: str = "") -> Any:
    """All rows, given out as a result."""
    return table


@flow.operation(role="computeProvider", name="drawn", version="1", lazy=False)
def drawn(table: pd.DataFrame, *, tag: str = "") -> Any:
    """A mean of rows that are drawn anew each time, as nobody should do it."""
    return table.sample(frac=0.5, random_state=os.getpid())[["Salschal"]].agg(["mean"])


def _average(table: pd.DataFrame) -> pd.DataFrame:
    found = table.groupby("Geslacht")["Salschal"].agg(["mean", "count"]).reset_index()
    return pd.DataFrame(found)

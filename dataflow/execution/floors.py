"""Floors: how many rows a step really gets, where an owner does not let few be computed with.

What a plan or an order says of a dataset does not tell it: a query before may have left one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dataflow.errors import NotGranted
from dataflow.graph.keys import digest
from dataflow.policy.differencing import RowSet

if TYPE_CHECKING:
    import pandas as pd

#: What the sums of a set of rows are taken by.
_MODULUS = 2**64


def check_floors(
    values: Sequence[Any],
    floors: Sequence[int],
    site: str,
    compute: Callable[..., Sequence[Any]],
) -> None:
    """Refuse to go on with too few rows.

    Parameters
    ----------
    values
        What the function would get.
    floors
        The least number of rows of each; 0 is no floor.
    compute
        Makes values of Dask collections.

    Raises
    ------
    NotGranted
        If one has fewer, or nobody can tell how many it has.
    """
    for value, floor in zip(values, floors, strict=False):
        if not floor:
            continue
        count = rows_of(value, compute)
        if count is None or count < floor:
            raise NotGranted({site: f"fewer than {floor} rows are not computed with"})


def rows_of(value: Any, compute: Callable[..., Sequence[Any]]) -> int | None:
    """Rows of a table or array; ``None`` if it has none to count."""
    from dataflow.storage.tabular import StoredTable, Tabular, tables_of

    if hasattr(value, "map_partitions") and hasattr(value, "npartitions"):
        counted = value.map_partitions(len, meta=("rows", "i8"))
        return int(sum(compute(counted)[0]))
    if isinstance(value, StoredTable | Tabular):
        tables = tables_of(value).values()
        return min((sum(batch.num_rows for batch in t.batches()) for t in tables), default=None)
    if hasattr(value, "data_vars"):
        variables = list(value.data_vars.values())
        return int(variables[0].shape[0]) if variables and variables[0].shape else None
    shape = getattr(value, "shape", None)
    return int(shape[0]) if shape else None


def row_set(value: Any, compute: Callable[..., Sequence[Any]]) -> RowSet | None:
    """Rows of a table or array with a digest of their values; ``None`` if it has none to count.

    The digest does not depend on the order of rows or columns. What is no table, and tables of
    values that cannot be hashed, have none.
    """
    count = rows_of(value, compute)
    if count is None:
        return None
    try:
        parts = _sums(value, compute)
    except TypeError:  # lists in a column, say
        parts = None
    if parts is None:
        return RowSet(count)
    names, sums = parts
    return RowSet(count, digest([*names, *sums]))


def _sums(
    value: Any, compute: Callable[..., Sequence[Any]]
) -> tuple[list[str], tuple[str, ...]] | None:
    """Columns, and two sums over all rows that are the same in any order."""
    import pyarrow as pa

    from dataflow.storage.tabular import StoredTable, Tabular, tables_of

    if isinstance(value, StoredTable | Tabular | pa.Table):
        tables = list(tables_of(value).values())
        if len(tables) != 1:
            return None
        frames = [_row_sums(batch.to_pandas()) for batch in tables[0].batches()]
        return sorted(tables[0].schema.names), _added(frames)
    if not hasattr(value, "columns") or not hasattr(value, "dtypes"):
        return None
    names = sorted(str(name) for name in value.columns)
    if hasattr(value, "map_partitions"):
        meta = {"one": "u8", "two": "u8"}
        return names, _added([compute(value.map_partitions(_row_sums, meta=meta))[0]])
    return names, _added([_row_sums(value)])


def _row_sums(frame: pd.DataFrame) -> pd.DataFrame:
    """The sums of one table, as a table of one row."""
    import numpy as np
    import pandas as pd

    if not isinstance(frame.index, pd.RangeIndex) or frame.index.name is not None:
        frame = frame.reset_index()  # it may say as much of a row as its columns do
    order = sorted(range(len(frame.columns)), key=lambda at: str(frame.columns[at]))
    rows = pd.util.hash_pandas_object(frame.iloc[:, order], index=False).to_numpy()
    with np.errstate(over="ignore"):
        one, two = rows.sum(dtype=np.uint64), (rows * rows).sum(dtype=np.uint64)
    return pd.DataFrame({"one": [one], "two": [two]}, dtype="u8")


def _added(frames: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    columns = ("one", "two")
    return tuple(
        str(sum(int(n) for frame in frames for n in frame[column]) % _MODULUS) for column in columns
    )

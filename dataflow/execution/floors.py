"""Floors: how many rows a step really gets, where an owner does not let few be computed with.

What a plan or an order says of a dataset does not tell it: a query before may have left one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dataflow.errors import NotGranted


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

"""Anonymity: a table without the rows that too few others look like, as an operation of every site.

Owners whose agreement asks for anonymity force it on whoever reads their rows, after the services that
make columns coarser: no operation sees a row whose values, in the columns that could single somebody
out, fewer than k rows have (k-anonymity by leaving out).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataflow.agreements import DATA_PROVIDER
from dataflow.graph.keys import decode, encode
from dataflow.graph.operation import Step, operation

NAME = "common-rows"


@operation(role=DATA_PROVIDER, name=NAME, version="1", lazy=False)
def common_rows(table: Any, *, k: int, among: Sequence[str]) -> Any:
    """The rows whose values in the columns ``among`` at least ``k`` rows have, in their order.

    An empty ``among`` stands for all columns. A missing value is a value like any other. The whole table has to fit into a worker's memory.

    Raises
    ------
    ValueError
        If a column of ``among`` is not there: without it nothing would be hidden.
    TypeError
        If it is no table.
    """
    if not (hasattr(table, "groupby") and hasattr(table, "columns")):
        raise TypeError(f"a {type(table).__name__} is no table whose rows could be compared")
    if any(name is not None for name in table.index.names):
        table = table.reset_index()  # what serves as the index tells rows apart, too
    columns = list(among) or list(table.columns)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{NAME}: there is no column {missing[0]!r} by which rows could be told")
    if len(table) == 0:
        return table
    groups = table.groupby(columns, dropna=False, observed=True, sort=False).ngroup()
    return table[groups.map(groups.value_counts()).to_numpy() >= k]


def without_index(table: Any, names: Sequence[str]) -> Any:
    """The table without those levels of its index that have one of these names."""
    index = getattr(table, "index", None)
    levels = list(getattr(index, "names", None) or [getattr(index, "name", None)])
    unwanted = [level for level in levels if level is not None and level in names]
    if not unwanted:
        return table
    if hasattr(table, "map_partitions"):  # Dask's tables have one level
        return table.reset_index(drop=True)
    return table.reset_index(level=unwanted, drop=True)


def all_words(names: Any) -> bool:
    """Whether these are names of columns: what only looks like one hides nothing."""
    return isinstance(names, list | tuple) and all(type(name) is str for name in names)


def listed(names: Sequence[str]) -> str:
    """Names as one text that no other names have."""
    escaped = (name.replace("\\", "\\\\").replace(",", "\\,") for name in sorted(set(names)))
    return ", ".join(escaped)


def word_of(k: int, among: Sequence[str]) -> str:
    """What an owner calls the service that leaves out just these rows."""
    return f"{NAME}({k}: {listed(among)})"


def parameters_of(k: int, among: Sequence[str]) -> dict[str, Any]:
    """The parameters of the step that does it, as a step has them."""
    return {"k": encode(k), "among": encode(sorted(set(among)))}


def said_by(step: Step) -> str:
    """The word of a step of this operation; empty if its parameters are those of no owner."""
    try:
        k, among = decode(step.parameters["k"]), decode(step.parameters["among"])
    except (KeyError, TypeError, ValueError):
        return ""
    whole = type(k) is int and all_words(among) and set(step.parameters) == {"k", "among"}
    return word_of(k, among) if whole else ""

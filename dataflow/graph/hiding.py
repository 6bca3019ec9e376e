"""Hiding: a table without some of its columns, as an operation that every site knows.

Owners whose agreement hides columns force it on whoever reads their rows: nobody else's operation,
not at their own site either, sees these columns, and results that were made with and without them
have different keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataflow.agreements import DATA_PROVIDER
from dataflow.graph.keys import decode, encode
from dataflow.graph.operation import Step, operation

NAME = "without-columns"


@operation(role=DATA_PROVIDER, name=NAME, version="1")
def without_columns(table: Any, *, columns: Sequence[str] = ()) -> Any:
    """The table without these columns; those that it does not have are no error.

    Raises
    ------
    TypeError
        If it has no columns that could be left out: files, or one array.
    """
    if hasattr(table, "data_vars"):
        return table.drop_vars([name for name in columns if name in table.variables])
    if hasattr(table, "columns"):
        return table.drop(columns=[name for name in columns if name in table.columns])
    fields = getattr(getattr(table, "dtype", None), "names", None)
    if fields:
        left = [name for name in fields if name not in columns]
        return table.copy(data=table.data[left]) if hasattr(table, "dims") else table[left]
    raise TypeError(f"a {type(table).__name__} has no columns that could be left out")


#: What every site runs for every owner and none lists, by ``name@version``.
SERVICES = {f"{NAME}@{without_columns.operation.version}": without_columns.operation}


def word_of(columns: Sequence[str]) -> str:
    """What an owner calls the service that hides just these columns."""
    return f"{NAME}({', '.join(sorted(set(columns)))})"


def parameters_of(columns: Sequence[str]) -> dict[str, Any]:
    """The parameters of the step that hides these columns, as a step has them."""
    return {"columns": encode(sorted(set(columns)))}


def service_of(step: Step) -> str:
    """What owners call the service that a step is: its operation's name, and what it hides."""
    if step.operation.name != NAME:
        return step.operation.name
    try:
        return word_of([str(name) for name in decode(step.parameters["columns"])])
    except (KeyError, TypeError, ValueError):
        return NAME

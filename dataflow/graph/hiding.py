"""Hiding: a table without some of its columns, as an operation that every site knows.

Owners whose agreement hides columns force it on whoever reads their rows: nobody else's operation,
not at their own site either, sees these columns, and results that were made with and without them
have different keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow.agreements import DATA_PROVIDER, Relation
from dataflow.graph import anonymity
from dataflow.graph.keys import decode, encode
from dataflow.graph.operation import OperationFunction, Step, operation

NAME = "without-columns"


@operation(role=DATA_PROVIDER, name=NAME, version="1")
def without_columns(table: Any, *, columns: Sequence[str] = ()) -> Any:
    """The table without these columns; those that it does not have are no error.

    A column that serves as the index, as files of pandas may have it, is a column too.

    Raises
    ------
    TypeError
        If it has no columns that could be left out: files, or one array.
    """
    if hasattr(table, "data_vars"):
        return table.drop_vars([name for name in columns if name in table.variables])
    if hasattr(table, "columns"):
        table = anonymity.without_index(table, columns)
        return table.drop(columns=[name for name in columns if name in table.columns])
    fields = getattr(getattr(table, "dtype", None), "names", None)
    if fields:
        left = [name for name in fields if name not in columns]
        return table.copy(data=table.data[left]) if hasattr(table, "dims") else table[left]
    raise TypeError(f"a {type(table).__name__} has no columns that could be left out")


#: What every site runs for every owner and none lists.
OWN: tuple[OperationFunction[..., Any], ...] = (without_columns, anonymity.common_rows)
#: The same by ``name@version``.
SERVICES = {f"{own.operation.name}@{own.operation.version}": own.operation for own in OWN}


def word_of(columns: Sequence[str]) -> str:
    """What an owner calls the service that hides just these columns."""
    return f"{NAME}({anonymity.listed(columns)})"


def parameters_of(columns: Sequence[str]) -> dict[str, Any]:
    """The parameters of the step that hides these columns, as a step has them."""
    return {"columns": encode(sorted(set(columns)))}


def service_of(step: Step) -> str:
    """What owners call the service that a step is: its operation's name, and what it hides.

    A step that only has the name of one of our own services, with other code or with parameters that
    no owner's word has, is called what nobody forces.
    """
    name = step.operation.name
    if name not in (NAME, anonymity.NAME):
        return name
    version = step.operation.version
    if step.operation == SERVICES.get(f"{name}@{version}"):
        word = anonymity.said_by(step) if name == anonymity.NAME else _said_by(step)
        if word:
            return word
    return f"{name}@{version}, of another kind"


def _said_by(step: Step) -> str:
    try:
        names = decode(step.parameters["columns"])
    except (KeyError, TypeError, ValueError):
        return ""
    whole = anonymity.all_words(names) and set(step.parameters) == {"columns"}
    return word_of(names) if whole else ""


@dataclass(frozen=True, slots=True)
class Forced:
    """One of our own services, as a relation forces it."""

    word: str
    function: OperationFunction[..., Any]
    parameters: Mapping[str, Any]


def first_of(relation: Relation) -> Forced | None:
    """What comes before everything else, because of hidden columns."""
    if not relation.hidden:
        return None
    return Forced(word_of(relation.hidden), without_columns, parameters_of(relation.hidden))


def last_of(relation: Relation) -> Forced | None:
    """What comes after all other forced services, because of anonymity."""
    if relation.anonymity <= 1:
        return None
    told = relation.anonymity, relation.among
    return Forced(anonymity.word_of(*told), anonymity.common_rows, anonymity.parameters_of(*told))

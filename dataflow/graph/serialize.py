"""Graphs as JSON documents: everything but the functions, which travel by the digest of their code.

The document is a list of tables, steps in the order in which they can run, so that reading it back
needs no sorting and gives an equal graph: same keys, labels, order and extents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataflow import documents
from dataflow.datasets import Dataset, Extent
from dataflow.errors import GraphError
from dataflow.graph.graph import Graph
from dataflow.graph.operation import Functions, Step

#: Changes when an older program could not read the document any more.
FORMAT = "dataflow-graph/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRecord:
    """A graph as plain tables."""

    sources: Mapping[str, Dataset]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    extents: Mapping[str, Extent]
    format: str = FORMAT


def record_of(graph: Graph) -> GraphRecord:
    """The tables of a graph."""
    return GraphRecord(
        sources=dict(graph.sources),
        steps=tuple(graph.steps.values()),
        outputs=graph.outputs,
        extents=dict(graph.extents),
    )


def graph_of(record: GraphRecord, functions: Mapping[str, Functions] | None = None) -> Graph:
    """The graph of tables.

    Parameters
    ----------
    record
        As :func:`record_of` made it.
    functions
        The callables by code digest, where they are needed; a graph without them can be planned
        and looked at, and run by whoever has the code.

    Raises
    ------
    GraphError
        If the tables do not fit together.
    """
    if record.format != FORMAT:
        raise GraphError(f"graph format {record.format!r} is not known here, only {FORMAT!r} is")
    steps = {step.key: step for step in record.steps}
    unmeasured = [key for key in (*record.sources, *steps) if key not in record.extents]
    if unmeasured:
        raise GraphError(f"the graph says nothing of the extent of {unmeasured[0]!r}")
    return Graph.assemble(record.sources, steps, record.outputs, record.extents, functions)


def to_document(graph: Graph) -> Any:
    """A JSON-ready value of a graph.

    Examples
    --------
    >>> to_document(Graph([]))["outputs"]
    []
    """
    return documents.to_document(record_of(graph))


def from_document(document: Any, functions: Mapping[str, Functions] | None = None) -> Graph:
    """The graph that :func:`to_document` described.

    Raises
    ------
    GraphError
        If the document's tables do not fit together.
    pydantic.ValidationError
        If it is no such document at all; the message has the path of each wrong field.
    """
    return graph_of(documents.from_document(GraphRecord, document), functions)

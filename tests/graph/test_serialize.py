"""Graphs as documents."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from dataflow.errors import GraphError
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.serialize import from_document, graph_of, record_of, to_document
from dataflow.graph.split import split
from dataflow.testing.strategies import dataset, graphs, total


@given(graphs())
def test_what_comes_back_is_the_same_graph(graph: Graph) -> None:
    homes = {key: frozenset({key}) for key in graph.sources}
    for given_graph in (graph, split(graph, homes)):
        text = json.dumps(to_document(given_graph))
        back = from_document(json.loads(text), given_graph.functions)
        assert dict(back.steps) == dict(given_graph.steps)
        assert list(back.steps) == list(given_graph.steps)
        assert dict(back.sources) == dict(given_graph.sources)
        assert dict(back.extents) == dict(given_graph.extents)
        assert back.outputs == given_graph.outputs
        assert back.functions == given_graph.functions
        assert json.dumps(to_document(back)) == text


def test_functions_stay_here() -> None:
    graph = total(of_dataset(dataset("run1")))
    back = from_document(to_document(graph))
    assert not back.functions
    assert back.key == graph.key


def test_tables_that_do_not_fit() -> None:
    document = to_document(total(of_dataset(dataset("run1"))))
    with pytest.raises(GraphError, match="which is not before it"):
        from_document({**document, "sources": {}})
    with pytest.raises(GraphError, match="extent"):
        from_document({**document, "extents": {}})
    with pytest.raises(GraphError, match="no result 'x'"):
        from_document({**document, "outputs": ["x"]})
    with pytest.raises(GraphError, match="dataflow-graph/9"):
        from_document({**document, "format": "dataflow-graph/9"})


def test_records_are_plain() -> None:
    graph = total(of_dataset(dataset("run1")))
    assert graph_of(record_of(graph)).label(graph.key) == "total"

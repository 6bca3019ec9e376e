"""Graphs: lazy, immutable, linear to build; equal steps are one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from dataflow.datasets import Dataset, Extent
from dataflow.errors import GraphError, ShapeMismatch
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.testing.strategies import dataset, graphs, product, square, total, weighted

a, b, c = (of_dataset(dataset(name)) for name in ("run1", "run2", "run3"))


def labels(graph: Graph) -> list[str]:
    return [step.label for step in graph.steps.values()]


def test_a_dataset_is_a_graph() -> None:
    assert a.dataset == dataset("run1")
    assert (a.key, a.shape, a.outputs, dict(a.steps)) == ("run1", (12,), ("run1",), {})
    assert repr(a) == "<Graph: dataset 'run1' (12,) float64>"
    table = Dataset(id="t", name="t", key="t", kind="table", extent=Extent(nbytes=8), site="ams")
    assert repr(of_dataset(table)) == "<Graph: dataset 't' table>"


def test_building_runs_nothing() -> None:
    @operation
    def never(x: Any) -> Any:
        raise AssertionError(x)

    graph = never(never(a) + 1)
    assert labels(graph) == ["never", "shift", "never-2"]
    assert graph.dataset is None
    assert repr(graph) == "<Graph 3 operations over 1 datasets → never-2>"
    assert graph


def test_nested() -> None:
    """``f(a + g(b + c))``."""
    graph = total(a + square(b + c))
    assert labels(graph) == ["add", "square", "add-2", "total"]
    assert list(graph.sources) == ["run1", "run2", "run3"]
    inner, squared, outer, last = graph.steps.values()
    assert inner.inputs == ("run2", "run3")
    assert squared.inputs == (inner.key,)
    assert outer.inputs == ("run1", squared.key)
    assert last.inputs == (outer.key,)
    assert graph.outputs == (last.key,) == (graph.key,)
    assert graph.users == {
        "run1": (outer.key,),
        "run2": (inner.key,),
        "run3": (inner.key,),
        inner.key: (squared.key,),
        squared.key: (outer.key,),
        outer.key: (last.key,),
        last.key: (),
    }


def test_long_chains_and_wide_graphs() -> None:
    began = time.process_time()
    long = a
    for _ in range(1_000):
        long = square(long)
    assert len(long.steps) == 1_000
    assert labels(long)[-1] == "square-1000"
    wide = total(*[n * a for n in range(1_000)])
    assert len(wide.steps) == 1_001
    doubling = a
    for _ in range(1_000):  # 2 ** 1000 ways through, 1000 steps
        doubling = doubling + doubling
    assert len(doubling.steps) == 1_000
    assert len(doubling.users["run1"]) == 1
    assert len(merge([long, wide, doubling]).steps) == 3_001
    assert time.process_time() - began < 20


def test_equal_steps_are_one() -> None:
    graph = product(square(a), square(a))
    assert labels(graph) == ["square", "product"]
    assert graph.steps[graph.key].inputs == (square(a).key,) * 2
    both = merge([square(a), square(b), square(a)])
    assert both.outputs == (square(a).key, square(b).key)
    assert labels(both) == ["square", "square-2"]


def test_labels_are_distinct() -> None:
    named = operation(name="square-2", version="1")(lambda x: x)
    graph = merge([square(a), square(b), named(a), named(b), square(c)])
    assert len(set(labels(graph))) == 5
    assert labels(graph)[:2] == ["square", "square-2"]
    assert [graph.label(key) for key in graph.outputs] == labels(graph)
    assert graph.label("run1") == "run1"
    with pytest.raises(KeyError):
        graph.label("nothing")


@given(graphs())
def test_what_holds_for_all(graph: Graph) -> None:
    assert len(set(labels(graph))) == len(graph.steps)
    before = set(graph.sources)
    for key, step in graph.steps.items():
        assert step.key == key
        assert before.issuperset(step.inputs), "inputs come before users"
        before.add(key)
    assert set(graph.extents) == before
    assert len(graph) == len(graph.outputs) == len(list(graph))
    assert {step.operation.code for step in graph.steps.values()} == set(graph.functions)
    assert merge([graph, *graph]).outputs == graph.outputs
    for key, one in zip(graph.outputs, graph, strict=True):
        assert one.key == key
        assert set(one.steps) <= set(graph.steps)
    again = Graph.assemble(
        graph.sources, graph.steps, graph.outputs, graph.extents, graph.functions
    )
    assert again.steps == graph.steps
    assert list(again.steps) == list(graph.steps)
    assert again.functions == graph.functions
    assert repr(again) == repr(graph)


def test_indexing_keeps_what_leads_there() -> None:
    both = merge([total(a), square(square(b))])
    assert len(both) == 2
    assert (list(both[0].sources), labels(both[0])) == (["run1"], ["total"])
    assert labels(both[-1]) == ["square", "square-2"]
    assert [one.key for one in both] == list(both.outputs)
    with pytest.raises(IndexError):
        both[2]


def test_one_result_is_needed_to_ask_for_it() -> None:
    both = merge([a, square(a)])
    for wanted in ("key", "extent", "shape", "dataset"):
        with pytest.raises(GraphError, match=r"this graph has 2 results; choose one.*graph\[0\]"):
            getattr(both, wanted)
    assert repr(both) == "<Graph 1 operations over 1 datasets → run1, square>"
    assert merge([a]).dataset == dataset("run1")


def test_nothing() -> None:
    for nothing in (Graph([]), merge([]), Graph.assemble({}, {}, [], {})):
        assert (len(nothing), list(nothing), nothing.outputs) == (0, [], ())
        assert repr(nothing) == "<Graph 0 operations over 0 datasets → >"


def test_merging_leaves_the_parts_alone() -> None:
    one, other = square(a), square(b)
    assert labels(merge([one, other])) == ["square", "square-2"]
    assert labels(other) == ["square"]


def test_tables_that_do_not_fit() -> None:
    graph = total(square(a), square(b))
    given = (graph.sources, graph.steps, graph.outputs, graph.extents)
    assert Graph.assemble(*given).functions == {}
    assert Graph.assemble(given[0], given[1], given[2] * 2, given[3]).outputs == graph.outputs
    assert len(Graph.assemble(given[0], given[1], given[2] * 2, given[3])) == 1
    with pytest.raises(GraphError, match="step 'square' reads 'run1', which is not before it"):
        Graph.assemble({}, *given[1:])
    backwards = dict(reversed(graph.steps.items()))
    with pytest.raises(GraphError, match=r"step 'total' reads '.*', which is not before it"):
        Graph.assemble(given[0], backwards, *given[2:])
    with pytest.raises(GraphError, match="the graph has no result 'gone'"):
        Graph.assemble(given[0], given[1], ["gone"], given[3])


def test_shapes_are_checked_when_it_is_built() -> None:
    other = of_dataset(dataset("other", 5))
    for build in (lambda: a + other, lambda: a * other, lambda: product(square(a), other)):
        with pytest.raises(ShapeMismatch) as caught:
            build()
        assert "(12,)" in str(caught.value)
        assert "other has (5,)" in str(caught.value)
        assert "elementwise operation" in str(caught.value)
    same = of_dataset(replace(dataset("run1", 5), key="another"))
    with pytest.raises(ShapeMismatch, match=r"run1 has \(12,\), run1 \(2\) has \(5,\)"):
        a - same
    assert weighted(a, other).shape == (), "only where one shape is needed"
    assert (a + total(other)).shape == (12,), "one number fits everywhere"


def test_extents_of_results() -> None:
    assert square(a).extent == replace(a.extent, guessed="same shape as its input")
    assert total(a).extent.guessed == "declared scalar"
    assert total(a).shape == ()


@pytest.mark.parametrize("index", [slice(0, 2), "run1", None, (0, 1)])
def test_only_results_are_indexed(index: Any) -> None:
    with pytest.raises(GraphError, match="indexed by the number of a result"):
        merge([a, b])[index]


def test_there_are_only_so_many_results() -> None:
    with pytest.raises(IndexError, match=r"graph\[2\]: this graph has 2 results"):
        merge([a, b])[2]
    assert [one.key for one in merge([a, b])] == ["run1", "run2"]

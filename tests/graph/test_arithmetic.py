"""Arithmetic on graphs: the same numbers as on arrays, and linear where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import GraphError
from dataflow.graph.arithmetic import add, is_arithmetic, multiply
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.keys import decode
from dataflow.graph.operation import operation
from dataflow.testing.strategies import dataset, square, total

a, b = (of_dataset(dataset(name)) for name in ("run1", "run2"))


def run(graph: Graph, data: dict[str, Any]) -> Any:
    """The graph's value, every step by its own function."""
    values = dict(data)
    for key, step in graph.steps.items():
        function = graph.functions[step.operation.code].function
        assert function is not None
        parameters = {name: decode(value) for name, value in step.parameters.items()}
        inputs = [values[i] for i in step.inputs]
        named = {s: v for s, v in zip(step.slots, inputs, strict=True) if s != "*"}
        starred = [v for s, v in zip(step.slots, inputs, strict=True) if s == "*"]
        values[key] = function(*starred, **named, **parameters)
    return values[graph.key]


def kinds(graph: Graph) -> list[tuple[str, str]]:
    return [(step.operation.name, step.operation.kind) for step in graph.steps.values()]


def test_two_graphs() -> None:
    assert kinds(a + b) == [("add", "linear")]
    assert kinds(a - b) == [("subtract", "linear")]
    assert kinds(a * b) == [("multiply", "elementwise")]
    assert kinds(a / b) == [("divide", "elementwise")]
    assert kinds(a**b) == [("power", "elementwise")]


def test_a_graph_and_a_number() -> None:
    assert kinds(2 * a) == kinds(a * 2) == kinds(a / 2) == kinds(-a) == [("scale", "linear")]
    assert kinds(a + 2) == kinds(2 + a) == [("shift", "elementwise")]
    assert kinds(a - 2) == kinds(2 - a) == [("difference", "elementwise")]
    assert kinds(2 / a) == [("divide", "elementwise")]
    assert kinds(a**2) == [("power", "elementwise")]


def test_numbers_are_parameters() -> None:
    (step,) = (2 - a).steps.values()
    assert (step.parameters, step.slots, step.inputs) == ({"left": 2}, ("right",), ("run1",))
    (step,) = (a / 4).steps.values()
    assert step.parameters == {"factor": 0.25}
    assert (2 * a).key == (a * 2).key != (2.0 * a).key
    assert (2 + a).key == (a + 2).key
    assert (2 - a).key != (a - 2).key
    assert (a + b).key != (b + a).key, "the order of floating-point terms may show"


@pytest.mark.parametrize("number", [2, 0.5, np.float64(2), np.int64(2), np.float32(0.5)])
def test_numbers_of_any_make(number: Any) -> None:
    x = np.arange(1.0, 5.0)
    pairs: list[tuple[Any, Any]] = [
        (a + number, x + number),
        (number + a, number + x),
        (a - number, x - number),
        (number - a, number - x),
        (a * number, x * number),
        (number * a, number * x),
        (a / number, x / number),
        (number / a, number / x),
        (a**number, x**number),
        (-a, -x),
    ]
    for graph, expected in pairs:
        assert isinstance(graph, Graph)
        np.testing.assert_allclose(run(graph, {"run1": x}), expected, rtol=1e-15)


def test_unsigned_numbers_do_not_wrap_sooner_than_numpys() -> None:
    x = np.array([5, 7], dtype="uint8")
    for graph, expected in ((a - 3, x - 3), (9 - a, 9 - x), (a - np.uint8(3), x - np.uint8(3))):
        found = run(graph, {"run1": x})
        assert found.dtype == "uint8"
        np.testing.assert_array_equal(found, expected)


NUMBERS = st.sampled_from([2, -1, 0.5, 3])
EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(NUMBERS, st.sampled_from("+-*"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(inner, st.sampled_from("+-*/"), NUMBERS).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        inner.map(lambda x: f"(-{x})"),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_expressions_mean_what_they_mean_on_arrays(text: str) -> None:
    data = {"a": np.arange(12.0), "b": np.arange(12.0)[::-1] - 3}
    graph = eval(text, {"a": a, "b": b})
    found = run(graph, {"run1": data["a"], "run2": data["b"]})
    np.testing.assert_allclose(found, eval(text, dict(data)), rtol=1e-9, atol=1e-9)
    assert graph.shape == (12,)


def test_what_is_no_number() -> None:
    for wrong in (object(), print):
        with pytest.raises(GraphError, match="shift: parameter 'by'"):
            a + wrong
    with pytest.raises(ZeroDivisionError):
        a / 0
    with pytest.raises(TypeError):
        2**a  # not offered


def test_sum_of_python() -> None:
    x, y = np.arange(12.0), np.ones(12)
    np.testing.assert_array_equal(run(sum([a, b]), {"run1": x, "run2": y}), x + y)  # type: ignore[arg-type]


def test_any_number_of_terms() -> None:
    graph = add(a, b, a)
    (step,) = graph.steps.values()
    assert (step.inputs, step.slots) == (("run1", "run2", "run1"), ("*", "*", "*"))
    assert run(graph, {"run1": 1, "run2": 10}) == 12


def test_arithmetic_is_told_by_more_than_its_name() -> None:
    @operation(kind="linear", name="add")
    def own(x: Any) -> Any:
        return x

    assert is_arithmetic(add.operation)
    assert is_arithmetic(multiply.operation)
    assert all(is_arithmetic(s.operation) for s in (2 - a * b / 3).steps.values())
    assert not any(is_arithmetic(f.operation) for f in (own, square, total))


def test_codes_are_distinct() -> None:
    graph = (a - b) + 2 * a * b / (b**2) - 1 + 3
    codes = {step.operation.code for step in graph.steps.values()}
    assert len(codes) == len({step.operation.name for step in graph.steps.values()}) == 8

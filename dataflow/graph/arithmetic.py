"""The operators of Python on graphs: ``a + b``, ``2 * a``, ``a / b``.

Ordinary operations of ordinary functions; ``add`` takes any number of terms, since it is also how
the parts of a split linear operation come together.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from dataflow.graph.graph import Graph
from dataflow.graph.operation import Operation, OperationFunction, operation


@operation(kind="linear", same_shape=True, output="same", version="1")
def add(*terms: Any) -> Any:
    """Sum of all terms, in the order given."""
    return functools.reduce(operator.add, terms)


@operation(kind="linear", same_shape=True, output="same", version="1")
def subtract(left: Any, right: Any) -> Any:
    """Difference, element by element."""
    return left - right


@operation(kind="elementwise", version="1")
def multiply(left: Any, right: Any) -> Any:
    """Product, element by element."""
    return left * right


@operation(kind="linear", same_shape=True, output="same", version="1")
def scale(x: Any, *, factor: Any) -> Any:
    """Every element times one number."""
    return x * factor


@operation(kind="elementwise", version="1")
def divide(left: Any, right: Any) -> Any:
    """Quotient, element by element."""
    return left / right


@operation(kind="elementwise", version="1")
def power(left: Any, right: Any) -> Any:
    """Power, element by element."""
    return left**right


@operation(kind="elementwise", version="1")
def shift(x: Any, *, by: Any) -> Any:
    """Every element plus one number."""
    return x + by


@operation(kind="elementwise", version="1")
def difference(left: Any, right: Any) -> Any:
    """What is left of every element less a number, or of a number less every element."""
    return left - right


_BINARY: dict[str, OperationFunction[..., Any]] = {
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "divide": divide,
    "power": power,
}


def binary(name: str, left: Any, right: Any) -> Graph:
    """The graph of ``left ∘ right`` where at least one is a graph.

    Numbers become parameters, so that ``2 * a`` stays one step and, where it is, linear.
    """
    if isinstance(left, Graph) and isinstance(right, Graph):
        return _BINARY[name](left, right)
    number, graph = (right, left) if isinstance(left, Graph) else (left, right)
    if name == "multiply":
        return scale(graph, factor=number)
    if name == "divide" and graph is left:
        return scale(graph, factor=1 / number)
    if name == "add":
        return shift(graph, by=number)
    if name == "subtract":  # of unsigned numbers there is no negative to add
        return difference(left, right)
    return _BINARY[name](left, right)


def is_arithmetic(operation: Operation) -> bool:
    """Whether an operation is one of this module's; a name alone does not say."""
    return operation.reference.startswith(f"{__name__}:")

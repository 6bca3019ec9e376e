"""Extents: what is known of a result's size before it exists."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.datasets import Extent, Variable
from dataflow.errors import ShapeMismatch
from dataflow.graph.extents import UNKNOWN, check_shapes, estimate, form, is_array
from dataflow.graph.operation import Operation


def array(*shape: int, dims: str = "xyz", name: str = "v", nbytes: int = 80) -> Extent:
    variable = Variable(
        name=name, dims=tuple(dims[: len(shape)]), shape=shape, dtype="float64", nbytes=nbytes
    )
    return Extent(nbytes=nbytes, variables=(variable,))


def op(**given: Any) -> Operation:
    return Operation(**({"name": "f", "version": "1", "kind": "opaque", "code": "c"} | given))


BLANK = Extent(nbytes=8)
PAIR = Extent(nbytes=160, variables=array(2).variables + array(3, name="w").variables)
OPEN = array(-1, 3)


def test_shapes_that_fit() -> None:
    names = ["a", "b"]
    need = op(same_shape=True)
    for fitting in ([array(2, 3), array(2, 3)], [array(2, 3), array(1)], [array(2), array()]):
        check_shapes(need, fitting, names)
    for unknown in (BLANK, PAIR, OPEN):
        check_shapes(need, [array(2, 3), unknown], names)
    check_shapes(need, [array(2)], ["a"])
    check_shapes(need, [], [])
    check_shapes(op(), [array(2), array(3)], names)


def test_shapes_that_do_not() -> None:
    extents = [array(2, 3), BLANK, array(3, 2), array()]
    with pytest.raises(ShapeMismatch, match=r"'f' .*: a has \(2, 3\), c has \(3, 2\)") as caught:
        check_shapes(op(same_shape=True), extents, "abcd")
    assert caught.value.shapes == {"a": (2, 3), "c": (3, 2)}
    with pytest.raises(ShapeMismatch):
        check_shapes(op(same_shape=True), [array(6), array(2, 3)], "ab")


def test_estimates() -> None:
    small, large = array(10), array(20, nbytes=160)
    scalar = estimate(op(output="scalar"), [large])
    assert (scalar.nbytes, scalar.shape, scalar.guessed) == (8, (), "declared scalar")
    assert estimate(op(output="100"), [large]) == Extent(nbytes=100, guessed="declared size")
    assert estimate(op(output="0", same_shape=True), [large]).nbytes == 0
    for same in (op(output="same"), op(same_shape=True)):
        found = estimate(same, [small, large])
        assert (found.nbytes, found.shape) == (160, (20,))
        assert found.guessed == "same shape as its input"
    unknown = estimate(op(), [small, large])
    assert (unknown.nbytes, unknown.variables) == (160, ())
    assert unknown.guessed.startswith(UNKNOWN)


def test_estimates_without_inputs() -> None:
    assert estimate(op(), []).nbytes == 8
    assert estimate(op(output="same"), []).variables == ()


def test_form() -> None:
    assert form(BLANK) is form(OPEN) is None
    assert form(array(2, 3)) == (("x", "y"), (2, 3))
    assert form(array(2, 3)) == form(array(2, 3, name="w", nbytes=1))
    assert form(array(2, 3)) != form(array(2, 3, dims="yx"))
    assert form(PAIR) == (("v", ("x",), (2,)), ("w", ("x",), (3,)))


def test_arrays() -> None:
    assert is_array(array(2, 3))
    assert is_array(array())
    assert not any(is_array(extent) for extent in (BLANK, PAIR, OPEN))

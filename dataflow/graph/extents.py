"""What is known of a result's shape and size before it exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from dataflow.datasets import Extent, Variable
from dataflow.errors import ShapeMismatch
from dataflow.graph.operation import Operation

#: How ``Extent.guessed`` begins where nobody has said anything about a result's size.
UNKNOWN = "unknown"


def check_shapes(operation: Operation, extents: Sequence[Extent], names: Sequence[str]) -> None:
    """Refuse inputs of different shapes where the operation needs one shape.

    Scalars (size 1) fit everything, as they do in xarray; unknown shapes pass.

    Raises
    ------
    ShapeMismatch
        Naming each input and its shape.
    """
    if not operation.same_shape or len(extents) < 2:
        return
    shapes = {
        name: extent.shape
        for name, extent in zip(names, extents, strict=True)
        if extent.shape is not None and -1 not in extent.shape and prod(extent.shape) != 1
    }
    if len(set(shapes.values())) > 1:
        raise ShapeMismatch(operation.name, {n: s for n, s in shapes.items() if s is not None})


def estimate(operation: Operation, inputs: Sequence[Extent]) -> Extent:
    """Extent of the result from the operation's own word and its inputs.

    ``guessed`` of the answer says on what it rests. Without any hint the result is taken to be
    as large as the largest input: rather too dear than too cheap to move.
    """
    hint = operation.output
    if hint == "scalar":
        scalar = Variable(name="", dims=(), shape=(), dtype="float64", nbytes=8)
        return Extent(nbytes=8, variables=(scalar,), guessed="declared scalar")
    if hint.isdigit():
        return Extent(nbytes=int(hint), guessed="declared size")
    largest = max(inputs, key=lambda extent: extent.nbytes, default=Extent(nbytes=8))
    if hint == "same" or operation.same_shape:
        return replace(largest, guessed="same shape as its input")
    return Extent(nbytes=largest.nbytes, guessed=f"{UNKNOWN}, taken as its largest input")


def form(extent: Extent) -> tuple[object, ...] | None:
    """Dimensions and shape of an extent, to be compared; ``None`` where they are not known."""
    if not extent.variables or any(-1 in variable.shape for variable in extent.variables):
        return None
    if len(extent.variables) == 1:
        return (extent.variables[0].dims, extent.variables[0].shape)
    return tuple((v.name, v.dims, v.shape) for v in extent.variables)


def is_array(extent: Extent) -> bool:
    """Whether this is one array of known shape, so that zeros like it can be made."""
    return len(extent.variables) == 1 and form(extent) is not None

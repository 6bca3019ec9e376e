"""What runs at each stage of a step, on values; the stages are in :mod:`dataflow.graph.split`.

A partial result is given to ``combine``, and a value to a later step, in the form in which it
would come back from a store. So it makes no difference to a function which of its inputs travelled.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from dataflow.datasets import Extent
from dataflow.errors import GraphError, StorageError
from dataflow.graph.arithmetic import is_arithmetic
from dataflow.graph.keys import decode
from dataflow.graph.operation import Functions, Step
from dataflow.storage.results import normalised


def evaluate(
    step: Step, functions: Functions, values: Sequence[Any], extents: Mapping[str, Extent]
) -> Any:
    """The result of a step.

    Parameters
    ----------
    values
        Of the inputs, in their order.
    extents
        Of the arguments that are absent.
    """
    function = functions.function
    if function is None:
        raise GraphError(f"{step.label!r} has no function")
    kind, stage = step.operation.kind, step.stage
    if stage == "merge" or stage == "combine":
        partial = added(values) if kind == "linear" else _folded(functions, values)
        finish = functions.finish if stage == "combine" else None
        return partial if finish is None else finish(carried(partial))
    parameters = {name: decode(value) for name, value in step.parameters.items()}
    if step.pieces:
        partials = [
            carried(call(function, [(slot, value)], parameters))
            for slot, value in zip(step.slots, values, strict=True)
        ]
        if kind != "reduction":
            return added(partials)
        return _finished(functions, _folded(functions, partials))
    if is_arithmetic(step.operation):
        values = _together(values)
    result = call(function, _arguments(step, values, extents), parameters)
    if kind == "reduction" and stage == "whole":
        return _finished(functions, carried(result))
    return result


def call(
    function: Callable[..., Any],
    arguments: Sequence[tuple[str, Any]],
    parameters: Mapping[str, Any],
) -> Any:
    """Call with named arguments; those of the slot ``"*"`` go where the function has ``*args``."""
    rest = [value for slot, value in arguments if slot == "*"]
    named = {slot: value for slot, value in arguments if slot != "*"} | dict(parameters)
    positional: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        before_rest = parameter.kind is parameter.POSITIONAL_OR_KEYWORD and rest
        if parameter.kind is not parameter.POSITIONAL_ONLY and not before_rest:
            break
        if parameter.name not in named:
            break
        positional.append(named.pop(parameter.name))
    return function(*positional, *rest, **named)


def added(values: Sequence[Any]) -> Any:
    """The sum, from the left; coordinates must be equal, or an inner join would drop elements."""
    return functools.reduce(operator.add, _together(values))


def carried(value: Any) -> Any:
    """A value as it would come back from a store; itself, if it has no stored form."""
    try:
        return normalised(value)
    except StorageError:
        return value


def is_lazy(value: Any) -> bool:
    """Whether a value is, or directly holds, something that Dask is yet to compute."""
    if isinstance(value, Mapping) and not hasattr(value, "__dask_graph__"):
        return any(is_lazy(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_lazy(item) for item in value)
    graph = getattr(value, "__dask_graph__", None)
    return graph is not None and not isinstance(value, type) and graph() is not None


def zeros_of(extent: Extent, *, lazy: bool) -> xr.DataArray:
    """Zeros in place of an argument that lies elsewhere."""
    variable = extent.variables[0]
    dtype = np.dtype(variable.dtype)
    if not lazy:
        return xr.DataArray(np.zeros(variable.shape, dtype), dims=variable.dims)
    import dask.array

    return xr.DataArray(
        dask.array.zeros(variable.shape, dtype=dtype),
        dims=variable.dims,
    )


def _arguments(
    step: Step, values: Sequence[Any], extents: Mapping[str, Extent]
) -> list[tuple[str, Any]]:
    """Slots and values in the order of the function's arguments, zeros where one is absent."""
    given = list(zip(step.slots, values, strict=True))
    if not step.absent:
        return given
    lazy = step.operation.lazy
    absent = iter([(slot, zeros_of(extents[key], lazy=lazy)) for slot, key in step.absent])
    at = dict(zip(step.parts, given, strict=True))
    count = len(given) + len(step.absent)
    return [at[position] if position in at else next(absent) for position in range(count)]


def _folded(functions: Functions, values: Sequence[Any]) -> Any:
    combine = functions.combine
    if combine is None:
        raise GraphError("a reduction without combine")
    return functools.reduce(lambda left, right: carried(combine(left, right)), values)


def _finished(functions: Functions, partial: Any) -> Any:
    return partial if functions.finish is None else functions.finish(partial)


def _together(values: Sequence[Any]) -> Sequence[Any]:
    """The values, after making sure that their coordinates are equal.

    Done by aligning them rather than by xarray's option ``arithmetic_join``, which would hold for
    all threads of the worker.
    """
    if len(values) < 2 or not all(isinstance(v, xr.DataArray | xr.Dataset) for v in values):
        return values
    names = {frozenset(v.data_vars) for v in values if isinstance(v, xr.Dataset)}
    if len(names) > 1:
        raise ValueError("the terms of a sum are datasets of different variables")
    return xr.align(*values, join="exact", copy=False)

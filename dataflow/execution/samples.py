"""Small random data of the same form as a dataset, to try a function on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from dataflow.datasets import Extent, Variable

#: What the first dimension is cut to, and the most elements that a cut sample has.
FIRST = 12
ELEMENTS = 200_000
#: The most elements of a sample that is not cut.
WHOLE_ELEMENTS = 2_000_000
#: Length that stands for one that is not known.
UNKNOWN_LENGTH = 8
#: What stands for data of which nothing is known.
ANYTHING = Variable(
    name="", dims=("dim_0", "dim_1"), shape=(8, 6), dtype="float64", nbytes=8 * 6 * 8
)

Data = xr.DataArray | xr.Dataset
Lengths = Mapping[tuple[str, int], int]


class NoSample(Exception):
    """There cannot be random data of this form; the text says why."""


@dataclass(frozen=True)
class Form:
    """What a function's data arguments look like: variables per argument."""

    arguments: tuple[tuple[Variable, ...], ...]

    @property
    def elements(self) -> int:
        """Elements of one sample, over all arguments."""
        return sum(prod(v.shape) for variables in self.arguments for v in variables)

    @property
    def summable(self) -> bool:
        """Whether all values are numbers, so that samples can be added."""
        kinds = {np.dtype(v.dtype).kind for variables in self.arguments for v in variables}
        return kinds <= set("iufc")

    @property
    def unsigned(self) -> bool:
        """Whether there are values that cannot be negative."""
        return any(np.dtype(v.dtype).kind == "u" for vs in self.arguments for v in vs)

    def draw(self, rng: np.random.Generator) -> tuple[Data, ...]:
        """One sample: an xarray object in memory for each argument."""
        return tuple(_data(variables, rng) for variables in self.arguments)

    def cut(self) -> Form:
        """The same with shorter dimensions.

        The first dimension of each argument gets 12 at most; if the sample still has more than
        200,000 elements, the longest dimension is halved until it has not. A dimension of the same
        name and length is cut alike in all arguments, so that they still fit each other.
        """
        lengths = {
            pair: pair[1]
            for variables in self.arguments
            for variable in variables
            for pair in zip(variable.dims, variable.shape, strict=True)
        }
        for first, *_ in self.arguments:
            if first.dims:
                pair = (first.dims[0], first.shape[0])
                lengths[pair] = min(FIRST, pair[1])
        form = self._with(lengths)
        while form.elements > ELEMENTS and max(lengths.values()) > 1:
            longest = max(lengths, key=lambda pair: lengths[pair])
            lengths[longest] = lengths[longest] // 2
            form = self._with(lengths)
        return form

    def _with(self, lengths: Lengths) -> Form:
        return Form(
            tuple(
                tuple(
                    replace(v, shape=tuple(lengths[p] for p in zip(v.dims, v.shape, strict=True)))
                    for v in variables
                )
                for variables in self.arguments
            )
        )

    def __str__(self) -> str:
        shapes = (
            f"{' × '.join(str(n) for n in v.shape) or 'one'} {v.dtype}"
            for variables in self.arguments
            for v in variables
        )
        return f"random values ({', '.join(shapes)})"


def form_of(extents: Sequence[Extent | None]) -> Form:
    """The form of arguments with these extents; what is not known is made up.

    Raises
    ------
    NoSample
        For tables, and types that are neither numbers, times nor booleans.
    """
    return Form(tuple(_variables(extent) for extent in extents))


def _variables(extent: Extent | None) -> tuple[Variable, ...]:
    if extent is None or not extent.variables:
        return (ANYTHING,)
    if all(variable.dims == ("row",) for variable in extent.variables):
        raise NoSample("its input is a table")
    for variable in extent.variables:
        if _kind(variable.dtype) not in set("biufcmM"):
            raise NoSample(f"its input has values of type {variable.dtype}")
    return tuple(
        replace(v, shape=tuple(UNKNOWN_LENGTH if n < 0 else n for n in v.shape))
        for v in extent.variables
    )


def _kind(dtype: str) -> str:
    try:
        return np.dtype(dtype).kind
    except TypeError:  # of pandas, not of NumPy
        return ""


def _data(variables: tuple[Variable, ...], rng: np.random.Generator) -> Data:
    arrays = [
        xr.DataArray(_values(v.shape, np.dtype(v.dtype), rng), dims=v.dims, name=v.name or None)
        for v in variables
    ]
    if len(arrays) == 1:
        return arrays[0]
    return xr.Dataset({v.name: array for v, array in zip(variables, arrays, strict=True)})


def _values(
    shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Numbers small enough that twice one plus another is still in the range of the type."""
    drawn: Any
    match dtype.kind:
        case "b":
            drawn = rng.integers(0, 2, shape)
        case "u":
            drawn = rng.integers(0, 80 if dtype.itemsize == 1 else 100, shape, endpoint=True)
        case "i":
            most = 40 if dtype.itemsize == 1 else 100
            drawn = rng.integers(-most, most, shape, endpoint=True)
        case "c":
            drawn = 10 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
        case "m" | "M":
            seconds = np.asarray(rng.integers(0, 10**9, shape))
            return seconds.astype(f"{dtype.kind}8[s]").astype(dtype)
        case _:
            drawn = 10 * rng.standard_normal(shape)
    return np.asarray(drawn).astype(dtype)

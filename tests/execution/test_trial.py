"""True promises are believed, false ones are found out, and what cannot be tried is said."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from dataflow.datasets import Dataset, Extent, Variable
from dataflow.errors import NotLinear, to_document
from dataflow.execution.trial import try_promise
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.operation import Functions, OperationFunction, operation


def variable(dtype: str = "float64", name: str = "x", **dims: int) -> Variable:
    shape = tuple(dims.values())
    nbytes = 8 * int(np.prod(shape))
    return Variable(name=name, dims=tuple(dims), shape=shape, dtype=dtype, nbytes=nbytes)


def extent(*variables: Variable) -> Extent:
    return Extent(nbytes=sum(v.nbytes for v in variables), variables=variables)


SERIES = extent(variable(time=5000, x=6))


def data(name: str, known: Extent = SERIES) -> Graph:
    return of_dataset(Dataset(id=name, name=name, key=name, kind="array", extent=known, site="ams"))


def tried(graph: Graph, **options: Any) -> str:
    step = graph.steps[graph.outputs[0]]
    return try_promise(step, graph.functions[step.operation.code], graph.extents, **options)


def linear(function: Callable[..., Any], *extents: Extent, **parameters: Any) -> str:
    """What a trial says of a function that is declared linear, on data with these extents."""
    inputs = [data(f"run{n}", known) for n, known in enumerate(extents or [SERIES])]
    return tried(operation(function, kind="linear", name="f")(*inputs, **parameters))


def reduction(
    function: Callable[..., Any],
    combine: Callable[..., Any],
    finish: Callable[..., Any] | None = None,
    known: Extent = SERIES,
) -> str:
    reduce = operation(function, kind="reduction", name="r", combine=combine, finish=finish)
    return tried(reduce(data("run1", known), data("run2", known)))


# --- linear -----------------------------------------------------------------------------------------


def weighted_mean(x: Any) -> Any:
    weights = np.linspace(1, 2, x.shape[0])
    return x.weighted(xr.DataArray(weights, dims=x.dims[:1])).mean(x.dims[0])


TRUE = {
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean("time"),
    "weighted mean": weighted_mean,
    "differences": lambda x: x.diff("time"),
    "fourier": lambda x: np.fft.rfft(x.values, axis=0),
    "cancels": lambda x: (x - x.mean("time")).sum("time"),
    "python number": lambda x: float(x.sum()),
    "as list": lambda x: [float(x.sum()), float(x.mean())],
    "as mapping": lambda x: {"total": x.sum(), "mean": x.mean("time")},
    "as table": lambda x: pd.DataFrame(x.values, columns=list("abcdef")),
    "as column": lambda x: pd.Series(x.values.sum(1)),
    "as dataset": lambda x: xr.Dataset({"m": x.mean("time"), "s": x.sum()}),
}

FALSE = {
    "median": lambda x: x.median("time"),
    "parity": lambda x: x % 2,
    "abs": lambda x: abs(x),
    "affine": lambda x: x + 1,
    "slightly affine": lambda x: x.sum() + 1e-3,
    "count": lambda x: (x != 0).sum(),
    "count as number": lambda x: int((x > 0).sum()),
    "argmax": lambda x: x.argmax("time"),
    "square": lambda x: (x * x).sum(),
    "minmax": lambda x: x.max() - x.min(),
    "one": lambda x: 1.0,
    "text": lambda x: f"{float(x.sum())}",
    "shape of the values": lambda x: x.values[x.values > 0],
    "coordinates of the values": lambda x: x.isel(time=[0]).assign_coords(time=[float(x.max())]),
}


@pytest.mark.parametrize("name", TRUE)
def test_true_promises_hold(name: str) -> None:
    assert linear(TRUE[name]) == ""


@pytest.mark.parametrize("name", FALSE)
def test_false_promises_are_found_out(name: str) -> None:
    with pytest.raises(NotLinear) as caught:
        linear(FALSE[name])
    assert caught.value.operation == "f"
    assert caught.value.declared == "linear"
    assert 0 < caught.value.difference <= sys.float_info.max
    assert caught.value.sample == "random values (12 × 6 float64)"
    assert json.loads(json.dumps(to_document(caught.value), allow_nan=False))


def test_results_that_cannot_be_put_together_are_as_far_apart_as_can_be() -> None:
    with pytest.raises(NotLinear) as caught:
        linear(FALSE["shape of the values"])
    assert caught.value.difference == sys.float_info.max


@pytest.mark.parametrize("dtype", ["int8", "int16", "int64", "uint8", "uint32", ">i4"])
def test_whole_numbers(dtype: str) -> None:
    known = extent(variable(dtype, time=300, x=4))
    assert linear(lambda x: x.sum("time"), known) == ""
    assert linear(lambda x: x * 3, known) == ""
    assert linear(lambda x: x.mean(), known) == ""
    for false in (lambda x: x % 2, lambda x: (x != 0).sum(), lambda x: x.sum() + 1):
        with pytest.raises(NotLinear):
            linear(false, known)


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "complex64", "complex128"])
def test_floats(dtype: str) -> None:
    known = extent(variable(dtype, time=300, x=4))
    assert linear(lambda x: x.sum("time"), known) == ""
    assert linear(lambda x: x.mean().astype("complex128"), known) == ""
    with pytest.raises(NotLinear):
        linear(lambda x: abs(x).sum("time"), known)


def test_float32_is_computed_in_float32() -> None:
    seen: list[np.dtype[Any]] = []

    def total(x: Any) -> float:
        seen.append(x.dtype)
        return float(x.sum())

    assert linear(total, extent(variable("float32", time=12, x=10_000))) == ""
    assert set(seen) == {np.dtype("float32")}


def test_what_cancels_leaves_the_rounding_of_the_input() -> None:
    def residue(x: Any) -> float:
        wide = x.astype("float64")
        return float((wide - x.mean("time")).sum())

    known = extent(variable("float32", time=12, x=10_000))
    assert linear(residue, known) == ""
    with pytest.raises(NotLinear):
        linear(lambda x: residue(x) + 0.01, known)


def test_several_arguments() -> None:
    two = (SERIES, SERIES)
    assert linear(lambda a, b: (a + b) / 2, *two) == ""
    assert linear(lambda *runs: sum(runs) / len(runs), *two, SERIES) == ""
    for false in (
        lambda a, b: a * b,
        lambda a, b: a + b + 1,
        lambda a, b: np.maximum(a, b),
        lambda a, b: xr.where(abs(a) > abs(b), a, b),
    ):
        with pytest.raises(NotLinear):
            linear(false, *two)


def test_arguments_that_share_a_dimension_still_fit_each_other() -> None:
    weights = extent(variable(x=300))
    seen = []

    def f(a: Any, b: Any) -> Any:
        seen.append((a.shape, b.shape))
        return a.sum() + b.sum() + (0 * a).dot(0 * b).sum()

    assert linear(f, extent(variable(time=900, x=300)), weights) == ""
    assert set(seen) == {((12, 12), (12,))}


def test_pieces_are_one_argument() -> None:
    f = operation(lambda x, *, axis: x.sum(axis), kind="linear", name="f")
    assert tried(f(data("a"), data("b"), data("c"), axis="time")) == ""


def test_parameters_are_as_the_user_gave_them() -> None:
    def f(x: Any, *, weights: Any, window: tuple[int, int]) -> Any:
        assert isinstance(weights, np.ndarray)
        assert isinstance(window, tuple)
        return (x * weights).isel(time=slice(*window)).sum()

    assert linear(f, weights=np.arange(6.0), window=(1, 4)) == ""


def test_datasets_of_several_variables() -> None:
    known = extent(variable(name="t", time=100, x=5), variable("float32", name="p", time=100))
    assert linear(lambda d: d.t.mean("x") + d.p, known) == ""
    with pytest.raises(NotLinear):
        linear(lambda d: d.t * d.p, known)


# --- samples ----------------------------------------------------------------------------------------


def shapes(*variables: Variable) -> set[tuple[int, ...]]:
    seen = []
    linear(lambda x: seen.append(x.shape) or x.sum(), extent(*variables))
    return set(seen)


def test_samples_are_small() -> None:
    assert shapes(variable(time=10**9, x=7)) == {(12, 7)}
    assert shapes(variable(a=3, b=10_000)) == {(3, 10_000)}
    ((a, b, c),) = shapes(variable(a=500, b=1000, c=3000))
    assert a == 12
    assert a * b * c <= 200_000
    assert min(b, c) >= 90


def test_scalars_and_unknown_shapes() -> None:
    assert shapes(variable()) == {()}
    assert shapes(variable(time=-1, x=3)) == {(8, 3)}
    assert shapes() == {(8, 6)}
    assert linear(lambda x: x.sum("dim_0"), Extent(nbytes=10**9)) == ""


def test_fixed_places_are_looked_for_in_the_whole_shape() -> None:
    assert linear(lambda x: x.isel(time=4000)) == ""
    assert linear(lambda x: x.isel(time=slice(100, 200)).mean()) == ""
    with pytest.raises(NotLinear, match="5000 × 6"):
        linear(lambda x: abs(x.isel(time=4000)))
    with pytest.raises(NotLinear, match="5000 × 6"):
        linear(lambda x: abs(x.isel(time=slice(100, 200)).mean()))


def test_a_shape_that_is_too_large_is_not_tried_whole() -> None:
    known = extent(variable(time=10**6, x=6))
    said = linear(lambda x: x.values[20], known)
    assert said.startswith("could not be tried on a sample: IndexError: index 20 is out of bounds")


def test_functions_that_need_chunks_get_them() -> None:
    assert linear(lambda x: x.data.map_blocks(np.cumsum, axis=0, dtype=float)) == ""
    with pytest.raises(NotLinear):
        linear(lambda x: x.data.map_blocks(np.abs))
    loaded = operation(lambda x: x.data.map_blocks(abs), kind="linear", name="f", lazy=False)
    assert "has no attribute 'map_blocks'" in tried(loaded(data("a"), data("b")))


def test_what_the_function_does_to_its_input_stays_there() -> None:
    def f(x: Any) -> Any:
        x.values[:] *= 2
        return x.sum()

    assert linear(f) == ""


# --- what cannot be tried ---------------------------------------------------------------------------


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("of no\nuse"), "ValueError: of no use"),
        (KeyError("time"), "KeyError: 'time'"),
        (SystemExit(3), "SystemExit: 3"),
        (RecursionError(), "RecursionError"),
        (NoText(), "NoText"),
    ],
)
def test_a_function_that_always_raises(error: BaseException, words: str) -> None:
    def f(x: Any) -> Any:
        raise error

    assert linear(f) == f"could not be tried on a sample: {words}"


def test_a_long_reason_is_shortened() -> None:
    def f(x: Any) -> Any:
        raise ValueError("no " * 1000)

    assert len(linear(f)) < 300


@pytest.mark.parametrize(
    "dtype", ["bool", "datetime64[ns]", "timedelta64[s]", "object", "<U5", "string"]
)
def test_values_that_cannot_be_added(dtype: str) -> None:
    said = linear(lambda x: x, extent(variable(dtype, time=9)))
    assert said.startswith("could not be tried on a sample: ")


def test_tables() -> None:
    table = extent(variable(name="a", row=9), variable("object", name="b", row=9))
    assert linear(len, table) == "could not be tried on a sample: its input is a table"


def test_results_that_say_nothing() -> None:
    for f in (lambda x: x.where(x > 1e9), lambda x: x[:0], lambda x: (x > 1e9).sum()):
        assert "empty, NaN or 0" in linear(f)


def test_results_that_cannot_be_added() -> None:
    assert "its results cannot be added (TypeError" in linear(lambda x: object())


def test_no_function() -> None:
    f = operation(TRUE["sum"], kind="linear", name="f")
    graph = f(data("a"), data("b"))
    step = graph.steps[graph.outputs[0]]
    assert try_promise(step, Functions(None), graph.extents) != ""


def test_other_kinds_promise_nothing_that_is_tried() -> None:
    f: OperationFunction[..., Any] = operation(FALSE["affine"], kind="elementwise", name="f")
    assert tried(f(data("a"))) == ""


def test_warnings_are_not_shown() -> None:
    def f(x: Any) -> Any:
        warnings.warn("you should know", stacklevel=1)
        return (x / 0 * 0).fillna(0) + x

    assert linear(f) == ""


def test_the_same_seed_is_the_same_trial() -> None:
    seen: list[float] = []
    f = operation(lambda x: seen.append(float(x.sum())) or x.sum(), kind="linear", name="f")
    graph = f(data("a"), data("b"))
    for seed in (1, 1, 2):
        tried(graph, seed=seed)
    third = len(seen) // 3
    assert seen[:third] == seen[third : 2 * third] != seen[2 * third :]


# --- reductions -------------------------------------------------------------------------------------


@dataclass
class Moments:
    count: int
    total: float
    squares: float


def moments(x: Any) -> Moments:
    return Moments(int(x.size), float(x.sum()), float((x**2).sum()))


def both(p: Moments, q: Moments) -> Moments:
    return Moments(p.count + q.count, p.total + q.total, p.squares + q.squares)


def into_the_first(p: dict[str, Any], q: dict[str, Any]) -> dict[str, Any]:
    p["total"] += q["total"]
    return p


@pytest.mark.parametrize(
    ("function", "combine", "finish"),
    [
        (lambda x: x.max(), np.maximum, np.negative),
        (lambda x: x.min("time"), np.minimum, None),
        (moments, both, None),
        (moments, both, lambda p: p.squares / p.count - (p.total / p.count) ** 2),
        (lambda x: (x.size, float(x.sum())), lambda p, q: (p[0] + q[0], p[1] + q[1]), None),
        (lambda x: {"total": x.sum("time")}, into_the_first, lambda p: p["total"]),
        (lambda x: x, lambda p, q: xr.concat([p, q], "time"), None),
        (lambda x: [float(x.max())], lambda p, q: p + q, sorted),
        (lambda x: (x > 1e9).any(), np.logical_or, None),
    ],
)
def test_true_reductions_hold(function: Any, combine: Any, finish: Any) -> None:
    assert reduction(function, combine, finish) == ""


@pytest.mark.parametrize(
    ("function", "combine"),
    [
        (lambda x: x.sum(), lambda p, q: p - q),
        (lambda x: x.mean(), lambda p, q: (p + q) / 2),
        (lambda x: x.mean("time"), lambda p, q: (p**2 + q**2) ** 0.5 + 1),
        (lambda x: {"m": x.mean()}, lambda p, q: {"m": (p["m"] + q["m"]) / 2}),
        (lambda x: f"{float(x.mean()):.0f}", lambda p, q: f"({p}{q})"),
        (lambda x: [0], lambda p, q: [*p, q]),
    ],
)
def test_false_reductions_are_found_out(function: Any, combine: Any) -> None:
    with pytest.raises(NotLinear, match="declared 'reduction' but is not"):
        reduction(function, combine)


@pytest.mark.parametrize("dtype", ["bool", "datetime64[ns]", "timedelta64[s]", "uint8"])
def test_reductions_of_what_cannot_be_added(dtype: str) -> None:
    known = extent(variable(dtype, time=50))
    assert reduction(lambda x: x.max(), np.maximum, None, known) == ""


def test_reductions_of_results_that_nobody_can_compare() -> None:
    class Sketch:
        pass

    said = reduction(lambda x: Sketch(), lambda p, q: Sketch())
    assert said.endswith("results of type Sketch cannot be compared")


def test_combining_may_raise_too() -> None:
    assert "KeyError: " in reduction(lambda x: {"m": 1}, lambda p, q: {"m": p["n"]})


def test_combine_gets_what_would_come_back_from_a_store() -> None:
    seen = set()

    def combine(p: Any, q: Any) -> Any:
        seen.update(type(x) for x in (p, q))
        return p + q

    assert reduction(lambda x: x.values.sum(axis=0), combine) == ""
    assert reduction(lambda x: (x.size, float(x.sum())), combine, lambda p: p[1] / p[0]) == ""
    assert seen == {xr.DataArray}


# --- any matrix -------------------------------------------------------------------------------------

MATRICES = st_np.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.just(6)),
    elements=st.floats(-1e3, 1e3, allow_subnormal=False),
).filter(np.any)


def times(matrix: Any) -> Callable[[Any], Any]:
    return lambda x: matrix @ x.values.mean(axis=0)


@given(MATRICES)
@example(np.ones((1, 6)))
def test_every_matrix_is_linear(matrix: Any) -> None:
    assert linear(times(matrix)) == ""


@given(MATRICES, st.floats(1e-3, 1e3), st.sampled_from([-1, 1]))
@example(np.ones((1, 6)), 1e-3, 1)
def test_no_matrix_with_a_constant_is_linear(matrix: Any, constant: float, sign: int) -> None:
    with pytest.raises(NotLinear):
        linear(lambda x: times(matrix)(x) + sign * constant)

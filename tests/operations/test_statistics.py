"""Aggregate and algorithm: the whole and its parts agree to the last bit, and with NumPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.graph.operation import Functions
from dataflow.operations import aggregate, algorithm
from dataflow.operations.exact import code_of, number_of, pieces, products, value_of
from dataflow.operations.statistics import added
from dataflow.testing.wage_gap import COUNTED_TWICE, TOGETHER, UNIVERSITIES, tables


def asked(operation: Any, frames: Sequence[pd.DataFrame], **how: Any) -> pd.DataFrame:
    """What comes of a table that lies in these parts."""
    functions: Functions = operation.functions
    assert functions.function is not None
    assert functions.combine is not None
    assert functions.finish is not None
    partial = functions.function(frames[0], **how)
    for frame in frames[1:]:
        partial = functions.combine(partial, functions.function(frame, **how))
    found: pd.DataFrame = functions.finish(partial)
    return found


def cut(frame: pd.DataFrame, places: Sequence[int]) -> list[pd.DataFrame]:
    ends = [0, *sorted(place % (len(frame) + 1) for place in places), len(frame)]
    return [frame.iloc[a:b] for a, b in itertools.pairwise(ends)]


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
groups = st.sampled_from(["M", "V", "", None])
rows = st.lists(st.tuples(groups, numbers, st.integers(-(2**62), 2**62)), min_size=1, max_size=40)


@settings(max_examples=25, deadline=None)
@given(rows, st.lists(st.integers(0, 100), max_size=4), st.randoms())
def test_parts_in_any_order_are_the_whole(rows: Any, places: list[int], random: Any) -> None:
    frame = pd.DataFrame(rows, columns=["group", "x", "i"])
    frame["group"] = frame["group"].astype("str").where(frame["group"].notna(), None)
    values = {
        "x": ["mean", "sum", "variance", "std", "min", "max", "count"],
        "i": ["sum", "variance"],
    }
    parts = cut(frame, places)
    random.shuffle(parts)
    for by in ([], ["group"]):
        whole = asked(aggregate, [frame], values=values, by=by)
        pd.testing.assert_frame_equal(
            asked(aggregate, parts, values=values, by=by), whole, check_exact=True
        )
        how = {"name": "quantiles", "column": "x", "by": by, "quantiles": [0, 0.1, 0.5, 1]}
        whole = asked(algorithm, [frame], **how)
        pd.testing.assert_frame_equal(asked(algorithm, parts, **how), whole, check_exact=True)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.floats(-1, 1)),
        min_size=3,
        max_size=30,
    ),
    st.lists(st.integers(0, 100), max_size=3),
)
def test_a_regression_of_parts_is_that_of_the_whole(rows: Any, places: list[int]) -> None:
    frame = pd.DataFrame(rows, columns=["y", "i", "x"])
    how: dict[str, Any] = {"name": "regression", "column": "y", "on": ["i", "x"]}
    whole = asked(algorithm, [frame], **how)
    parts = asked(algorithm, cut(frame, places), **how)
    pd.testing.assert_frame_equal(parts, whole, check_exact=True)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_sums_are_rounded_once(values: list[float]) -> None:
    array = np.array(values, dtype=float)
    digits = [
        (int(e), int(d))
        for exponents, some in pieces(array)
        for e, d in zip(np.broadcast_to(exponents, some.shape), some, strict=True)
    ]
    assert number_of(digits) == sum(map(Fraction, values), Fraction(0))
    squares = [
        (int(e), int(d))
        for exponents, some in products(array, array)
        for e, d in zip(np.broadcast_to(exponents, some.shape), some, strict=True)
    ]
    assert number_of(squares) == sum((Fraction(v) ** 2 for v in values), Fraction(0))


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20))
def test_codes_have_the_order_of_the_values(values: list[float]) -> None:
    codes = code_of(np.array(values))
    assert [value_of(int(code)) for code in codes] == values
    assert [value_of(int(code)) for code in sorted(codes)] == sorted(values)


def test_against_other_libraries() -> None:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {"g": rng.choice(["a", "b"], 500), "x": rng.normal(3, 2, 500), "z": rng.random(500)}
    )
    frame["y"] = 2.0 + 3.0 * frame["x"] - frame["z"] + rng.normal(0, 0.1, 500)
    parts = cut(frame, [100, 350])
    values = {"x": ["mean", "sum", "variance", "std", "min", "max", "count"]}
    found = asked(aggregate, parts, values=values, by=["g"])
    words = ["mean", "sum", "var", "std", "min", "max", "count"]
    expected = frame.groupby("g")["x"].agg(words).reset_index()
    assert list(found["g"]) == list(expected["g"])
    np.testing.assert_allclose(found.iloc[:, 1:], expected[words], rtol=1e-12)
    found = asked(algorithm, parts, name="quantiles", column="x", quantiles=[0.1, 0.5, 0.9])
    np.testing.assert_allclose(found.iloc[0, :3], np.quantile(frame["x"], [0.1, 0.5, 0.9]))
    found = asked(algorithm, parts, name="regression", column="y", on=["x", "z"])
    matrix = np.column_stack([np.ones(500), frame["x"], frame["z"]])
    betas, rest, *_ = np.linalg.lstsq(matrix, frame["y"], rcond=None)
    np.testing.assert_allclose(found.iloc[0, :3], betas, rtol=1e-9)
    spread = ((frame["y"] - frame["y"].mean()) ** 2).sum()
    assert found["r2"][0] == pytest.approx(1 - rest[0] / spread)
    assert found["count"][0] == 500


def test_the_wage_gap() -> None:
    """The check values of the original: each university, both together, and not the double count."""
    joined = {}
    for site, about in UNIVERSITIES.items():
        personen, aanstellingen = tables(site)
        joined[site] = personen.merge(aanstellingen, on=["Unieknr", "Peildat"])
        found = asked(algorithm, [joined[site]], name="mean", column="Salschal", by=["Geslacht"])
        assert dict(zip(found["Geslacht"], found["mean"].round(3), strict=True)) == about.means
    assert UNIVERSITIES["uva"].means == {"M": 12.253, "V": 10.505}
    assert UNIVERSITIES["vu"].means == {"M": 10.856, "V": 9.657}
    how: dict[str, Any] = {"name": "mean", "column": "Salschal", "by": ["Geslacht"]}
    both = asked(algorithm, list(joined.values()), **how)
    lines = zip(both["Geslacht"], both["mean"].round(3), both["count"], strict=True)
    assert {g: (mean, count) for g, mean, count in lines} == TOGETHER
    assert TOGETHER == {"M": (11.559, 16_123), "V": (10.123, 19_141)}
    twice = asked(algorithm, [joined["uva"], joined["uva"], joined["vu"]], **how)
    assert dict(zip(twice["Geslacht"], twice["mean"].round(3), strict=True)) == pytest.approx(
        COUNTED_TWICE, abs=0.001
    )


def test_small_groups_are_left_out() -> None:
    frame = pd.DataFrame({"g": ["a"] * 5 + ["b"] * 4, "x": range(9)})
    found = asked(algorithm, cut(frame, [2, 7]), name="sum", column="x", by=["g"], least=5)
    assert found.to_dict("list") == {"g": ["a"], "sum": [10.0], "count": [5]}


def test_nothing_at_all() -> None:
    frame = pd.DataFrame({"g": pd.Series([], dtype="str"), "x": pd.Series([], dtype="float64")})
    found = asked(algorithm, [frame, frame], name="mean", column="x")
    assert found["count"].tolist() == [0]
    assert math.isnan(found["mean"][0])
    assert len(asked(algorithm, [frame], name="mean", column="x", by=["g"])) == 0


def test_a_partial_result_says_what_was_asked() -> None:
    """Two questions are not mixed up, and the order of two partial results does not matter."""
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    other = pd.DataFrame({"x": [4]})
    p, q = (algorithm.function(f, name="sum", column="x") for f in (frame, other))
    finish = algorithm.functions.finish
    assert finish is not None
    assert finish(added(p, q)).equals(finish(added(q, p)))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"name": "mode", "column": "x"}, "'mode' is none of mean, sum"),
        ({"name": "mean", "column": "y"}, "no column 'y'; it has g, x"),
        ({"name": "mean", "column": "g"}, "column 'g' is"),
        ({"name": "regression", "column": "x"}, "needs on="),
        ({"name": "quantiles", "column": "x", "quantiles": [2]}, "between 0 and 1"),
    ],
)
def test_wrong_questions(how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        algorithm.function(pd.DataFrame({"g": ["a"], "x": [1]}), **how)


def test_wrong_aggregates() -> None:
    with pytest.raises(ValueError, match="aggregate: median is none of"):
        aggregate.function(pd.DataFrame({"x": [1]}), values={"x": ["median"]})

"""Lines through runs: right where the runs agree, unmoved by a few that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.execution.series import HALF_AFTER, Point, line, quantile, weights

VALUES = st.floats(0, 1e9)


def test_the_last_runs_count_most() -> None:
    counts = weights(HALF_AFTER + 1)
    assert counts[-1] == 1.0
    assert counts[0] == pytest.approx(0.5)
    assert counts == sorted(counts)


@given(st.lists(st.tuples(VALUES, st.floats(0.01, 1)), min_size=1, max_size=30), st.floats(0, 1))
def test_a_quantile_is_among_the_values(pairs: list[tuple[float, float]], share: float) -> None:
    values = [value for value, _ in pairs]
    counts = [count for _, count in pairs]
    found = quantile(values, counts, share)
    assert min(values) <= found <= max(values)
    assert quantile(values, counts, min(1.0, share + 0.1)) >= found * (1 - 1e-12)


def test_equal_weights_give_the_median() -> None:
    assert quantile([3.0, 1.0, 2.0], [1, 1, 1], 0.5) == 2.0
    with pytest.raises(ValueError, match="no values"):
        quantile([], [], 0.5)


@given(
    st.lists(st.integers(1, 10**6), min_size=7, max_size=20, unique=True),
    st.floats(0.1, 100),
    st.floats(1e-6, 1),
    st.floats(10, 1000),
)
def test_one_wild_run_in_seven_does_not_move_the_line(
    sizes: list[int], fixed: float, slope: float, wild: float
) -> None:
    runs = [Point(x, fixed + slope * x) for x in sizes]
    runs[2] = Point(runs[2].x, runs[2].y * wild)
    found = line(runs, through_origin=False)
    for run in runs[:2] + runs[3:]:
        assert 0.3 * run.y <= found.at(run.x) <= 3 * run.y


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=24), st.booleans())
def test_whatever_was_seen_a_line_is_possible(
    seen: list[tuple[float, float]], through_origin: bool
) -> None:
    found = line([Point(x, y) for x, y in seen], through_origin=through_origin)
    assert found.fixed >= 0
    assert found.slope >= 0
    assert found.band.low <= 1 <= found.band.high


def test_many_equal_runs_leave_little_doubt() -> None:
    one = line([Point(10, 1.0)], through_origin=False).band
    many = line([Point(10, 1.0 + n % 3 / 100) for n in range(24)], through_origin=False).band
    assert (one.low, one.high) == (0.5, 2.0)
    assert many.low > 0.95
    assert many.high < 1.05

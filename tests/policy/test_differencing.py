"""No two sets of rows of which both results would tell of a few rows are ever let through."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dataflow.policy.differencing import RowSet, too_close

ROWS = st.frozensets(st.integers(0, 12), max_size=13)


def set_of(rows: frozenset[int]) -> RowSet:
    """As a table is counted: the same digest for the same rows only."""
    return RowSet(len(rows), f"of {sorted(rows)}")


@given(st.lists(ROWS, max_size=8), st.integers(0, 5))
def test_what_is_let_through_is_equal_or_far_apart(asked: list[frozenset[int]], floor: int) -> None:
    let: list[frozenset[int]] = []
    for rows in asked:
        if not too_close(set_of(rows), map(set_of, let), floor):
            let.append(rows)
    for one, other in itertools.combinations(let, 2):
        assert one == other or len(one ^ other) >= floor


def test_only_what_is_known_to_be_the_same_is() -> None:
    assert not too_close(RowSet(5, "a"), [RowSet(5, "a")], 3)
    assert too_close(RowSet(5, "a"), [RowSet(5, "b")], 3)
    assert too_close(RowSet(5), [RowSet(5)], 3)
    assert too_close(RowSet(5, "a"), [RowSet(3, "a")], 3)
    assert not too_close(RowSet(5, "a"), [RowSet(2, "b"), RowSet(8, "c")], 3)
    assert not too_close(RowSet(5), [], 3)

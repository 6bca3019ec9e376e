"""How a job does beside its plan."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dataflow.execution.pace import Pace
from dataflow.testing import staged

PLAN = staged.plan(8, 4)
EVENTS = staged.journal(PLAN, progress=40)


def test_a_whole_journal() -> None:
    pace = Pace()
    assert pace.take(EVENTS)
    assert pace.state is not None
    assert pace.state.status == "done"
    assert pace.left(2_000.0) is None
    assert set(pace.ended) == set(pace.state.units)
    assert all(abs((pace.took(unit, 0.0) or 0) - 1.0) < 1e-6 for unit in pace.ended)
    assert not pace.take([])


@given(st.lists(st.integers(0, len(EVENTS)), max_size=6))
def test_in_whatever_portions_it_is_heard(cuts: list[int]) -> None:
    pieces = sorted({0, *cuts, len(EVENTS)})
    pace, whole = Pace(), Pace()
    whole.take(EVENTS)
    for first, last in pairwise(pieces):
        pace.take(EVENTS[first:last])
        left = pace.left(1_000.0)
        if left is not None:
            assert 0 <= left.low <= left.seconds <= left.high
    assert pace.state == whole.state
    assert (pace.began, pace.ended, pace.heard) == (whole.began, whole.ended, whole.heard)


def test_what_is_left_gets_less_and_follows_the_pace() -> None:
    """Units take a second each where the plan said less: the rest takes longer than planned."""
    pace = Pace()
    pace.take(staged.journal(PLAN, until=0.0))
    before = pace.left(1_000.0)
    assert before is not None
    assert before.high > before.seconds > before.low
    half = Pace()
    half.take(staged.journal(PLAN, until=0.5))
    left = half.left(1_000.0)
    assert left is not None
    assert left.seconds > 0
    slow = sum(part.seconds for part in (*PLAN.segments, *PLAN.transfers)) / len(half.state.units)  # type: ignore[union-attr]
    assert slow < 1.0
    assert left.seconds > PLAN.seconds * 0.2

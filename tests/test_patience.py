"""How long to wait follows what was seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataflow.patience import LATELY, LONGEST, ROUND_TRIPS, Patience


def test_a_fast_road_changes_nothing_and_a_slow_one_stretches() -> None:
    patience = Patience()
    assert patience.stretched(2.0) == 2.0
    assert patience.shortest is None
    patience.answered(4.0)
    assert patience.more == ROUND_TRIPS * 4.0
    assert patience.stretched(2.0) == 22.0
    for _ in range(9):
        patience.answered(0.001)
    assert patience.stretched(2.0) < 2.01, "what is long ago is forgotten"
    patience.answered(9.0)
    assert patience.more < 0.01, "one late answer is no slow road"
    assert patience.shortest == 0.001


def test_some_tries_are_long_and_most_are_short() -> None:
    patience = Patience()
    limits = []
    for _ in range(8):
        patience.failed()
        limits.append(patience.stretched(2.0))
    assert limits == [2.0, 6.0, 2.0, 18.0, 2.0, 6.0, 2.0, 54.0]
    patience.answered(0.01)
    assert patience.stretched(2.0) < 3, "an answer begins anew"


def test_what_was_held_back_tells_if_it_took_longer_than_the_usual() -> None:
    patience = Patience()
    patience.answered(1.0)
    patience.took(0.2)
    assert patience.round_trip == 1.0, "it may have been on the way for longer"
    patience.took(4.0)
    assert patience.round_trip == 2.5


@given(
    st.lists(st.floats(0, 1e3) | st.none(), max_size=40),
    st.floats(0.1, 1e3),
)
def test_limits_are_bounded_and_never_shorter_than_usual(
    seen: list[float | None], usual: float
) -> None:
    patience = Patience()
    for seconds in seen:
        if seconds is None:
            patience.failed()
        else:
            patience.answered(seconds)
    assert usual <= patience.stretched(usual) <= max(usual, LONGEST)
    assert 0 <= patience.more <= LONGEST


def test_a_road_is_known_before_anything_is_answered() -> None:
    patience = Patience()
    patience.connected(2.0)
    assert patience.round_trip == 2.0
    assert patience.more == ROUND_TRIPS * 2.0
    assert patience.shortest is None, "nothing was answered"
    patience.answered(0.1)
    assert patience.round_trip == 0.1, "no answer comes in less than the road takes"
    patience.connected(0.001)
    assert patience.round_trip == 0.1, "who is near may be slow"


def test_who_is_heard_is_there_for_a_while_and_longer_on_slow_roads() -> None:
    patience = Patience()
    assert not patience.is_there(0.0)
    assert patience.is_there(0.0, silent=LATELY - 1)
    patience.heard(10.0)
    patience.heard(3.0)
    assert patience.is_there(9.0 + LATELY)
    assert not patience.is_there(10.0 + LATELY)
    patience.connected(2.0)
    assert patience.is_there(19.0 + LATELY)
    assert not patience.is_there(20.0 + LATELY, silent=100.0)

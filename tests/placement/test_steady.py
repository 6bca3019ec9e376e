"""Placements that are kept: noise never flips them, a real gain does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.placement.aim import Aim, Figures, aim_of
from dataflow.placement.plan import Plan
from dataflow.placement.steady import LEAST_GAIN, Standing, standing, wins

AIMS = st.sampled_from(
    [aim_of(word) for word in ("balanced", "time", "bytes")] + [aim_of(["bytes", "time"])]
)
SECONDS = st.floats(0.001, 1e5)
BYTES = st.floats(0, 1e12)
#: One is as far from the other as the least gain at most, either way.
NOISE = st.floats(1 - 0.99 * LEAST_GAIN, 1 / (1 - 0.99 * LEAST_GAIN))


def times(figures: Figures, slower: float, more: float) -> Figures:
    return replace(figures, seconds=figures.seconds * slower, nbytes=figures.nbytes * more)


def around(middle: Figures, wide: float) -> Standing:
    return Standing(middle, (times(middle, 1 / wide, 1.0), times(middle, wide, 1.0)))


@given(AIMS, SECONDS, BYTES, NOISE, NOISE, st.floats(1, 20), st.booleans())
def test_noise_never_flips_a_placement(
    aim: Aim, seconds: float, nbytes: float, slower: float, more: float, wide: float, known: bool
) -> None:
    present = Figures(seconds=seconds, nbytes=nbytes)
    new = times(present, slower, more)
    if known:
        assert not wins(around(new, wide), around(present, wide), aim)
        assert not wins(around(present, wide), around(new, wide), aim)
    else:
        assert not wins(Standing(new), Standing(present), aim)


@given(AIMS, SECONDS, st.floats(1, 1e12), st.floats(0.01, 0.99 * (1 - LEAST_GAIN)), st.floats(1, 9))
def test_a_real_gain_does(
    aim: Aim, seconds: float, nbytes: float, gain: float, wide: float
) -> None:
    present = Figures(seconds=seconds, nbytes=nbytes)
    new = times(present, gain, gain)
    assert wins(around(new, wide), around(present, wide), aim)
    assert not wins(around(present, wide), around(new, wide), aim)


@given(AIMS, SECONDS, SECONDS, BYTES, BYTES)
def test_two_placements_do_not_take_turns(
    aim: Aim, one: float, other: float, few: float, many: float
) -> None:
    a, b = Standing(Figures(seconds=one, nbytes=few)), Standing(Figures(seconds=other, nbytes=many))
    assert not (wins(a, b, aim) and wins(b, a, aim))


def test_what_may_be_worse_on_a_slow_day_does_not_win() -> None:
    present = around(Figures(seconds=10, nbytes=0), 1.1)
    wild = around(Figures(seconds=7, nbytes=0), 4.0)
    assert not wins(wild, present, Aim())
    assert wins(around(Figures(seconds=7, nbytes=0), 1.1), present, Aim())


@pytest.mark.parametrize(("seconds", "expected"), [(9.95, True), (10.5, False)])
def test_a_deadline_comes_first(seconds: float, expected: bool) -> None:
    aim = aim_of(deadline=10.0)
    present = Standing(Figures(seconds=10.2, nbytes=0))
    assert wins(Standing(Figures(seconds=seconds, nbytes=0)), present, aim) is expected


def test_a_plan_stands_where_its_figures_are(plan: Plan) -> None:
    found = standing(plan)
    assert found.middle.seconds == plan.seconds
    assert found.ends is not None
    assert found.ends[0].seconds <= plan.seconds <= found.ends[1].seconds
    assert standing(replace(plan, likely=None)).ends is None


@pytest.fixture
def plan() -> Plan:
    from tests.placement.test_explain import A, B, total
    from tests.placement.test_explain import plan as made

    found: Plan = made(total(A, B))
    return found

"""How many workers demands justify, and when a worker has to stop before its wall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.backends.base import Demand
from dataflow.backends.wanted import Wall, refusal, workers_wanted


def demand(order: str = "o", **facts: float) -> Demand:
    return Demand(order=order, job="j", **facts)  # type: ignore[arg-type]


demands = st.lists(
    st.builds(
        Demand,
        order=st.text("abc", min_size=1, max_size=3),
        job=st.just("j"),
        tasks=st.integers(0, 1000),
        seconds=st.one_of(st.just(0.0), st.floats(1e-3, 1e6)),
        longest=st.floats(0, 1e5),
    ),
    max_size=6,
)
most = st.integers(0, 100)
threads = st.integers(1, 16)
worth = st.floats(0.1, 3600)


def test_as_many_as_the_planned_seconds_justify() -> None:
    def wanted(*given: Demand, most: int = 8, threads: int = 1) -> int:
        return workers_wanted(given, most=most, threads=threads, worth=60.0)

    assert wanted() == 0
    assert wanted(demand(tasks=400, seconds=10.0)) == 1
    assert wanted(demand(seconds=61.0)) == 2
    assert wanted(demand(seconds=180.0), demand(seconds=60.0)) == 4
    assert wanted(demand(seconds=1e6)) == 8
    assert wanted(demand(seconds=1e6), most=0) == 0
    # Nobody knows how long it takes: a thread for each step.
    assert wanted(demand(tasks=5)) == 5
    assert wanted(demand(tasks=5), threads=2) == 3
    assert wanted(demand(tasks=0)) == 1


@given(demands, most, threads, worth)
def test_never_above_the_limit_and_somebody_for_everybody(
    some: list[Demand], most: int, threads: int, worth: float
) -> None:
    wanted = workers_wanted(some, most=most, threads=threads, worth=worth)
    assert 0 <= wanted <= most
    assert (wanted > 0) == bool(some and most)


@given(demands, demands, most, threads, worth)
def test_more_demands_never_want_fewer(
    some: list[Demand], more: list[Demand], most: int, threads: int, worth: float
) -> None:
    def wanted(given: list[Demand]) -> int:
        return workers_wanted(given, most=most, threads=threads, worth=worth)

    assert wanted(some) <= wanted(some + more) <= wanted(some) + wanted(more)
    assert wanted(some + more) == wanted(more + some)


@given(demands, threads, worth)
def test_none_has_less_work_than_it_is_worth(
    some: list[Demand], threads: int, worth: float
) -> None:
    known = [one for one in some if one.seconds > 0]
    wanted = workers_wanted(known, most=10**9, threads=threads, worth=worth)
    work = sum(one.seconds for one in known)
    assert (wanted - 1) * worth <= work * (1 + 1e-6)
    assert work <= wanted * worth * (1 + 1e-6)


@given(st.floats(30, 1e7), demands)
def test_what_is_not_refused_fits_before_the_wall(seconds: float, some: list[Demand]) -> None:
    wall = Wall(seconds=seconds)
    taken = [one for one in some if not refusal(one, most=1, memory=1, wall=wall)]
    drain = wall.drain_after(taken)
    assert drain >= wall.margin > 0
    for one in taken:
        assert drain + one.longest <= seconds - wall.margin + 1e-6


def test_refused_is_what_can_never_be_served() -> None:
    wall = Wall(seconds=3600.0)
    assert refusal(demand(longest=3480.0), most=1, memory=10**9, wall=wall) == ""
    assert refusal(demand(longest=1e9, memory=10**9), most=1, memory=10**9, wall=None) == ""
    assert "workers: 0" in refusal(demand(), most=0, memory=10**9, wall=None)
    said = refusal(demand(memory=2 * 10**9), most=1, memory=10**9, wall=None)
    assert said == "a step needs 2 GB of memory and a worker of this site has 1 GB"
    said = refusal(demand(longest=7200.0), most=1, memory=10**9, wall=wall)
    assert "planned to take 2 h" in said
    assert "ends after 1 h" in said
    assert "shorter than 58 min" in said


@pytest.mark.parametrize(
    ("seconds", "margin"), [(24.0, 8.0), (30.0, 10.0), (60.0, 10.0), (300.0, 30.0), (86400.0, 60.0)]
)
def test_the_margin_is_a_tenth_and_ten_seconds_to_a_minute(seconds: float, margin: float) -> None:
    assert Wall(seconds=seconds).margin == pytest.approx(margin)

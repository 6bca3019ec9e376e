"""The search: legal, never worse than the simple planners, equal for equal seeds; bounds hold."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.placement.engine.bounds import bounds
from dataflow.placement.engine.cuts import least_bytes
from dataflow.placement.engine.exact import proven
from dataflow.placement.engine.instance import Instance
from dataflow.placement.engine.race import exchange_rate
from dataflow.placement.engine.rivals import Lists, simple
from dataflow.placement.engine.search import place
from dataflow.placement.engine.simulate import Choice, copies, simulate
from dataflow.placement.engine.warm import example
from dataflow.testing.problems import SHAPES, problem


@st.composite
def problems(draw: Any, most: int = 40) -> Instance:
    return problem(
        draw(st.sampled_from(SHAPES)),
        draw(st.integers(3, most)),
        draw(st.integers(0, 10**6)),
        data=draw(st.sampled_from([1.0, 3.0, 30.0])),
        skew=draw(st.sampled_from(["uniform", "zipf", "smallest"])),
        policy=draw(st.sampled_from(["open", "strict"])),
        sites=draw(st.integers(1, 9)),
    )


def every_choice(instance: Instance) -> Any:
    legal = [np.flatnonzero(np.isfinite(row)) for row in instance.seconds]
    order = Lists(instance).ranked()[1]
    for site in itertools.product(*legal):
        yield Choice(site=np.array(site), order=order)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(["makespan", "bytes", 0.0, 0.5, 1.0]), st.integers(0, 99))
def test_any_problem(instance: Instance, objective: Any, seed: int) -> None:
    placed = place(instance, objective, seed=seed, budget=0.004)
    again = place(instance, objective, seed=seed, budget=0.004)
    np.testing.assert_array_equal(placed.choice.site, again.choice.site)
    np.testing.assert_array_equal(placed.choice.order, again.choice.order)
    outcome = simulate(instance, placed.choice)
    assert outcome.makespan == placed.outcome.makespan
    assert not (copies(instance, outcome) & ~instance.allowed).any(), "a copy where none may be"
    assert instance.allowed[instance.deliver, instance.client].all()
    exchange = exchange_rate(objective)
    for makespan, nbytes in placed.rivals.values():
        if np.isinf(exchange):
            assert outcome.nbytes <= nbytes * (1 + 1e-9) + 1e-9
        elif objective == "makespan":
            assert outcome.makespan <= makespan * 1.011
        else:
            total = 0.01 * instance.total_bytes
            rival = np.log(makespan) + exchange * np.log(nbytes + total)
            assert placed.score <= rival + 1e-9
    assert {"heft", "locality", "collector"} <= set(placed.rivals)
    assert placed.bounds.makespan <= outcome.makespan * (1 + 1e-9)
    assert placed.bounds.nbytes <= outcome.nbytes * (1 + 1e-9)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(3, 7), st.integers(0, 10**6), st.floats(1, 30))
def test_bounds_and_cuts_against_all_choices(
    shape: Any, steps: int, seed: int, data: float
) -> None:
    instance = problem(shape, steps, seed, data=data, policy="strict", sites=2)
    if instance.steps > 9:
        return
    outcomes = [simulate(instance, choice) for choice in every_choice(instance)]
    least = bounds(instance)
    fewest = min(outcome.nbytes for outcome in outcomes)
    assert least.makespan <= min(outcome.makespan for outcome in outcomes) * (1 + 1e-9)
    assert least.nbytes <= fewest * (1 + 1e-9)
    start = Lists(instance).local()
    found = least_bytes(instance, start).site
    outcome = simulate(instance, Choice(site=found, order=Lists(instance).ranked()[1]))
    assert outcome.nbytes == pytest.approx(fewest, rel=1e-9), "with two sites a cut is the optimum"


@settings(max_examples=15, deadline=None)
@given(problems(most=25))
def test_small_problems_come_near_the_best_of_many_random_choices(instance: Instance) -> None:
    chance = np.random.default_rng(0)
    legal = [np.flatnonzero(np.isfinite(row)) for row in instance.seconds]
    order = Lists(instance).ranked()[1]
    best = min(
        simulate(
            instance, Choice(site=np.array([chance.choice(row) for row in legal]), order=order)
        ).makespan
        for _ in range(50)
    )
    assert place(instance, 0.0, budget=0.02).outcome.makespan <= best * 1.05


@settings(max_examples=40, deadline=None)
@given(problems(), st.sampled_from(["free", "fair", "any"]), st.sampled_from(["makespan", 0.5]))
def test_any_network(instance: Instance, network: Any, objective: Any) -> None:
    placed = place(instance, objective, budget=0.004, network=network)
    again = place(instance, objective, budget=0.004, network=network)
    np.testing.assert_array_equal(placed.choice.site, again.choice.site)
    played = "serial" if network == "any" else network
    outcome = simulate(instance, placed.choice, played)
    assert (outcome.makespan, outcome.nbytes) == (placed.outcome.makespan, placed.outcome.nbytes)
    assert not (copies(instance, outcome) & ~instance.allowed).any(), "a copy where none may be"
    assert placed.bounds.makespan <= outcome.makespan * (1 + 1e-9)

    def measure(choice: Choice) -> tuple[float, float]:
        found = simulate(instance, choice, played)
        span = found.makespan
        if network == "any":
            span = span**0.2 * simulate(instance, choice, "free").makespan ** 0.8
        worth = exchange_rate(objective) * np.log(found.nbytes + 0.01 * instance.total_bytes)
        return span, np.log(span) + worth

    span, score = measure(placed.choice)
    for name, rival in simple(Lists(instance)).items():
        if name in placed.rivals:
            least, other = measure(rival())
            assert span <= least * 1.011 if objective == "makespan" else score <= other + 1e-9


def test_a_plan_for_the_network_that_is_there() -> None:
    instance = problem("layered", 80, 3, data=30.0)
    plans = {n: place(instance, network=n).choice for n in ("serial", "free", "any")}  # type: ignore[arg-type]
    free = {n: simulate(instance, plan, "free").makespan for n, plan in plans.items()}
    serial = {n: simulate(instance, plan).makespan for n, plan in plans.items()}
    assert free["free"] < free["serial"]
    assert serial["serial"] < serial["free"]
    assert free["any"] < free["serial"]
    assert serial["any"] < serial["free"]


def test_networks_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="a network is serial"):
        place(example(), network="slow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not of free ones"):
        place(example(), network="free", prove=1.0)


def test_rivals_are_legal() -> None:
    instance = problem("montage", 60, 3, policy="strict")
    lists = Lists(instance)
    found = simple(lists) | {"peft": lists.peft, "earliest": lists.earliest}
    for name, plan in found.items():
        assert simulate(instance, plan()).makespan > 0, name
    assert {f"site:{name}" for name in instance.sites} < set(found)


def test_a_clock_ends_the_search() -> None:
    ticks = itertools.count()
    placed = place(problem("layered", 60, 1), budget=5.0, clock=lambda: float(next(ticks)))
    assert placed.plans < 1000
    assert placed.outcome.makespan <= placed.rivals["heft"][0] * 1.011


@pytest.mark.parametrize("objective", [-0.1, 1.1, float("nan")])
def test_weights_out_of_range(objective: float) -> None:
    with pytest.raises(ValueError, match="a weight is from 0"):
        place(example(), objective)


def test_a_budget_of_nothing() -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        place(example(), budget=0.0)


def test_weights_lie_between() -> None:
    rates = [exchange_rate(w) for w in ("makespan", 0.0, 0.3, 0.5, 0.9, 1.0, "bytes")]
    assert rates == sorted(rates)


@pytest.mark.parametrize("share", ["0.0", "0.8"])
def test_without_a_compiler_the_plans_are_the_same(share: str) -> None:
    pytest.importorskip("numba")
    program = """
import os, sys
import numpy as np
from dataflow.placement.engine import compiled
compiled.PLAIN = sys.argv[1] == "plain"
share = float(sys.argv[2])
from dataflow.testing.problems import problem
from dataflow.placement.engine.climb import climb
from dataflow.placement.engine.rivals import Lists
from dataflow.placement.engine.cuts import least_bytes
from dataflow.placement.engine.loads import refine
assert "numba" not in sys.modules
p = problem("montage", 24, 5, data=30.0)
start = Lists(p).heft()
found = climb(*p.graph, p.home_at, p.homes, p.allowed, start.site, start.order, start.transfers, 60,
              0.02, 0.001, 0.1, p.total_bytes, 0.3, 0, share, np.array([5]))
fewest = least_bytes(p, start.site).site
assert ("numba" in sys.modules) != compiled.PLAIN
print(found[0].tolist(), found[2] > 0, fewest.tolist())
"""
    results = [
        subprocess.run(
            [sys.executable, "-c", program, mode, share], capture_output=True, text=True, check=True
        ).stdout
        for mode in ("plain", "compiled")
    ]
    assert results[0] == results[1]


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(3, 6), st.integers(0, 10**6), st.floats(1, 30))
def test_proven_bounds_against_all_choices(shape: Any, steps: int, seed: int, data: float) -> None:
    instance = problem(shape, steps, seed, data=data, policy="strict", sites=3)
    if instance.steps > 7:
        return
    outcomes = [simulate(instance, choice) for choice in every_choice(instance)]
    simple_ones = bounds(instance)
    better = proven(instance, simple_ones, 4.0)
    assert better.makespan >= simple_ones.makespan
    assert better.makespan <= min(outcome.makespan for outcome in outcomes) * (1 + 1e-9)
    fewest = min(outcome.nbytes for outcome in outcomes)
    assert better.nbytes <= fewest * (1 + 1e-9)
    # prices below 1e-7 are nothing to the solver, of every variable
    blur = max(3e-6, 1.1e-7 * instance.items * instance.width) * float(instance.size.max())
    assert better.nbytes == pytest.approx(fewest, rel=1e-6, abs=blur), "the fewest bytes are exact"

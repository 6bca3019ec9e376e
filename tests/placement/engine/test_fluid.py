"""What is proven to be impossible is so: no plan is faster, with or without other ways for its copies."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.placement.engine import fluid
from dataflow.placement.engine.bounds import bounds
from dataflow.placement.engine.fluid import slowest_impossible
from dataflow.placement.engine.instance import Instance, make, offsets
from dataflow.placement.engine.rivals import Lists
from dataflow.placement.engine.routes import routed
from dataflow.placement.engine.search import place
from dataflow.placement.engine.simulate import Choice, simulate
from dataflow.testing.problems import SHAPES, problem

pytest.importorskip("scipy")


def fastest(instance: Instance) -> float:
    """The least makespan over all sites, two orders, and ways for copies."""
    lists = Lists(instance)
    legal = [np.flatnonzero(np.isfinite(row)) for row in instance.seconds]
    best = place(instance, 0.0, budget=0.05).outcome.makespan
    for choice in itertools.product(*legal):
        site = np.array(choice)
        for order in (lists.ranked()[1], lists.place):
            found = simulate(instance, Choice(site=site, order=order)).makespan
            round_ = routed(
                *instance.graph, instance.home_at, instance.homes, instance.allowed, site, order,
                0.0, 2, 0,
            )[0]  # fmt: skip
            best = min(best, found, float(round_))
    return best


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(SHAPES), st.integers(3, 6), st.integers(0, 10**6),
    st.sampled_from([1.0, 5.0, 30.0]), st.sampled_from(["uniform", "zipf", "smallest"]),
    st.booleans(),
)  # fmt: skip
def test_no_plan_is_faster(
    shape: Any, steps: int, seed: int, data: float, skew: Any, together: bool
) -> None:
    instance = problem(shape, steps, seed, data=data, skew=skew, policy="strict", sites=3)
    if instance.steps > 7:
        return
    best, known = fastest(instance), bounds(instance).makespan
    with pytest.MonkeyPatch.context() as patch:
        if together:  # but for the largest, items travel with their kind
            patch.setattr(fluid, "_ALONE", 0)
        assert known <= slowest_impossible(instance, known, 5.0) <= best * (1 + 1e-6)
        found = slowest_impossible(instance, known, 5.0, makespan=best)
    assert known <= found <= best * (1 + 1e-6)


def test_a_link_that_everything_has_to_cross() -> None:
    """Ten datasets of 100 bytes may be at a and b only; whoever reads them is at b: 10 bytes/s."""
    allowed = np.ones((20, 3), bool)
    allowed[:10, 2] = False
    seconds = np.full((10, 3), np.inf)
    seconds[:, 1] = 1.0
    instance = make(
        sites=["a", "b", "c"], workers=[1, 10, 1], bandwidth=np.full((3, 3), 10.0),
        latency=np.zeros((3, 3)), size=[100.0] * 10 + [1.0] * 10,
        producer=np.array([-1] * 10 + list(range(10))), homes=offsets([[0]] * 10 + [[]] * 10),
        allowed=allowed, seconds=seconds, inputs=offsets([[n] for n in range(10)]),
        deliver=[], client=1,
    )  # fmt: skip
    known = bounds(instance).makespan
    assert known == pytest.approx(11.0), "one alone"
    best = place(instance).outcome.makespan
    assert best == pytest.approx(101.0)
    assert slowest_impossible(instance, known, 5.0, makespan=best) >= best * 0.99


def test_nothing_to_do() -> None:
    instance = problem("chain", 5, 1)
    assert slowest_impossible(instance, 0.0, 1.0) == 0.0
    known = bounds(instance).makespan
    assert slowest_impossible(instance, known, 0.0) == known, "no time, nothing new"

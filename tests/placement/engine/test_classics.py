"""The baselines of the literature: legal on any problem, and what their definitions say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dataflow.placement.engine.classics import classics, min_min
from dataflow.placement.engine.instance import make, offsets
from dataflow.placement.engine.rivals import Lists
from dataflow.placement.engine.simulate import copies, simulate
from dataflow.testing.problems import SHAPES, problem
from dataflow.testing.workflows import RECIPES, available, workflow


@pytest.mark.parametrize("shape", SHAPES)
def test_twelve_legal_plans(shape: Any) -> None:
    instance = problem(shape, 30, 5, skew="zipf", policy="strict")
    found = classics(Lists(instance), seed=3)
    assert len(found) == 12
    for name, plan in found.items():
        outcome = simulate(instance, plan())
        assert not (copies(instance, outcome) & ~instance.allowed).any(), name


def test_min_min_takes_the_shortest_first() -> None:
    """Two sites, three steps without data: 1 s and 2 s at the fast one, then 4 s where it ends first."""
    instance = make(
        sites=["fast", "slow"], workers=[1, 1], bandwidth=np.ones((2, 2)), latency=np.zeros((2, 2)),
        size=[0.0, 0.0, 0.0], producer=[0, 1, 2], homes=offsets([[], [], []]),
        allowed=np.ones((3, 2), bool), seconds=np.array([[4.0, 6.0], [2.0, 4.0], [1.0, 3.5]]),
        inputs=offsets([[], [], []]), deliver=[], client=0,
    )  # fmt: skip
    plan = min_min(Lists(instance))
    assert plan.site.tolist() == [1, 0, 0]
    assert plan.order.tolist() == [2, 1, 0]


@pytest.mark.skipif(not available(), reason="wfcommons is not installed")
@pytest.mark.parametrize("recipe", RECIPES[:4])
def test_workflows_are_drawn_again_from_their_seed(recipe: str) -> None:
    first, second = (workflow(recipe, 60, 7) for _ in range(2))
    assert (first.inputs, first.size, first.work) == (second.inputs, second.size, second.work)
    assert len(first.work) == len(first.inputs) >= 40
    assert len(first.size) == len(first.producer)
    for step, items in enumerate(first.inputs):
        assert all(first.producer[item] < step for item in items), "steps come after what they need"
    assert sum(first.size) > 0

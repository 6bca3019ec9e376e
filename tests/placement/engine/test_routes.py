"""Routes: copies take another way where that is faster, and never one that no copy may take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.placement.engine.instance import Instance, make, offsets
from dataflow.placement.engine.rivals import Lists
from dataflow.placement.engine.routes import routed
from dataflow.placement.engine.search import place
from dataflow.placement.engine.simulate import Choice, copies, simulate
from dataflow.testing.problems import SHAPES, problem


def thin_link(*, through: bool) -> Instance:
    """Eight datasets of 100 bytes at a, their steps at b: 1 byte/s straight, 10 bytes/s through c."""
    bandwidth = np.full((3, 3), 10.0)
    bandwidth[0, 1] = 1.0
    allowed = np.ones((16, 3), bool)
    allowed[:8, 2] = through
    seconds = np.full((8, 3), np.inf)
    seconds[:, 1] = 1.0
    return make(
        sites=["a", "b", "c"], workers=[1, 8, 1], bandwidth=bandwidth, latency=np.zeros((3, 3)),
        size=[100.0] * 8 + [0.0] * 8, producer=np.array([-1] * 8 + list(range(8))),
        homes=offsets([[0]] * 8 + [[]] * 8), allowed=allowed, seconds=seconds,
        inputs=offsets([[n] for n in range(8)]), deliver=[], client=1,
    )  # fmt: skip


def test_what_a_thin_link_would_carry_goes_round() -> None:
    placed = place(thin_link(through=True), "makespan")
    # all through c: 8 times 10 s on the first link, 10 s on the second, 1 s of work
    assert placed.outcome.makespan == pytest.approx(91.0)
    assert placed.outcome.nbytes == 1600.0
    assert place(thin_link(through=True), "bytes").outcome.nbytes == 800.0
    assert place(thin_link(through=True), relays=False).outcome.makespan == pytest.approx(801.0)


def test_nothing_goes_where_no_copy_may_be() -> None:
    assert place(thin_link(through=False)).outcome.makespan == pytest.approx(801.0)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SHAPES), st.integers(3, 60), st.integers(0, 10**6), st.sampled_from([0.0, 1.0]),
    st.sampled_from(["open", "strict"]),
)  # fmt: skip
def test_never_slower_and_always_legal(
    shape: Any, steps: int, seed: int, toll: float, policy: Any
) -> None:
    instance = problem(shape, steps, seed, data=30.0, policy=policy, sites=4, skew="zipf")
    chance = np.random.default_rng(seed)
    site = np.array([chance.choice(np.flatnonzero(np.isfinite(row))) for row in instance.seconds])
    plan = Choice(site=site, order=Lists(instance).ranked()[1])
    span, nbytes, own, _ = routed(
        *instance.graph, instance.home_at, instance.homes, instance.allowed, plan.site, plan.order,
        toll, 2, 0,
    )  # fmt: skip
    outcome = simulate(instance, Choice(site=site, order=plan.order, transfers=own))
    assert (outcome.makespan, outcome.nbytes) == (span, nbytes)
    assert outcome.makespan <= simulate(instance, plan).makespan
    assert not (copies(instance, outcome) & ~instance.allowed).any()

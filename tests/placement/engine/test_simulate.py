"""The execution model: cases counted by hand, and agreement with the plainest possible reading."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.errors import PlacementError
from dataflow.placement.engine.instance import Instance, make, offsets
from dataflow.placement.engine.simulate import Choice, simulate
from dataflow.testing.problems import SHAPES, problem

_SPEC = importlib.util.spec_from_file_location(
    "reference", Path(__file__).with_name("reference.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)


def small(**changed: Any) -> Instance:
    """Two sites a and b (1 worker each), 10 bytes/s and 1 s between them.

    Dataset 0 (50 bytes, at a) → step 0 → item 1 (20 bytes) → step 1 → item 2 (0 bytes), delivered
    to b; every step takes 3 s.
    """
    given: dict[str, Any] = {
        "sites": ["a", "b"],
        "workers": [1, 1],
        "bandwidth": np.full((2, 2), 10.0),
        "latency": np.ones((2, 2)),
        "size": [50.0, 20.0, 0.0],
        "producer": [-1, 0, 1],
        "homes": offsets([[0], [], []]),
        "allowed": np.ones((3, 2), bool),
        "seconds": np.full((2, 2), 3.0),
        "inputs": offsets([[0], [1]]),
        "deliver": [2],
        "client": 1,
    }
    return make(**given | changed)


def choice(*site: int, order: Any = None, **more: Any) -> Choice:
    ranks = np.arange(len(site), dtype=float) if order is None else np.array(order, float)
    return Choice(site=np.array(site, np.int64), order=ranks, **more)


def test_everything_at_the_data() -> None:
    outcome = simulate(small(), choice(0, 0))
    assert outcome.makespan == 3 + 3 + 1  # a delivery of no bytes pays latency
    assert outcome.nbytes == 0
    assert outcome.start.tolist() == [0, 3]


def test_everything_at_the_client() -> None:
    outcome = simulate(small(), choice(1, 1))
    assert outcome.makespan == 5 + 1 + 3 + 3
    assert outcome.nbytes == 50


def test_the_result_of_the_first_step_moves() -> None:
    outcome = simulate(small(), choice(0, 1))
    assert outcome.makespan == 3 + 2 + 1 + 3
    assert outcome.moves.tolist() == [[1, 0, 1]]
    assert outcome.arrival.tolist() == [6]


def fan(network: str, *, order: Any = (0, 1), transfers: Any = ()) -> Any:
    """Two datasets of 50 bytes go from a to b, where two workers wait for one each."""
    instance = small(
        workers=[1, 2],
        size=[50.0, 50.0, 0.0, 0.0],
        producer=[-1, -1, 0, 1],
        homes=offsets([[0], [0], [], []]),
        allowed=np.ones((4, 2), bool),
        inputs=offsets([[0], [1]]),
        deliver=[],
    )
    rows = np.array(transfers, float).reshape(-1, 5)
    return simulate(instance, choice(1, 1, order=order, transfers=rows), network)  # type: ignore[arg-type]


def test_a_link_carries_one_after_the_other() -> None:
    assert fan("serial").start.tolist() == [6, 11]
    assert fan("serial", order=(1, 0)).start.tolist() == [11, 6], "the more urgent reader first"
    assert fan("free").start.tolist() == [6, 6]
    assert fan("fair").start.tolist() == [11, 11]


def test_a_planned_transfer_waits_and_is_shared_from_then_on() -> None:
    later = fan("serial", transfers=[[0, 0, 1, 0, 2]])
    assert later.start.tolist() == [11, 6], "the link was free: the other went first"
    shared = fan("fair", transfers=[[0, 0, 1, 0, 2]])
    # item 1 alone for 2 s (20 bytes), then half each: 6 s for its 30 bytes; then 20 bytes alone
    assert shared.start.tolist() == [2 + 6 + 2 + 1, 2 + 6 + 1]


def test_a_relay_pays_each_hop() -> None:
    wide = small(
        sites=["a", "b", "c"],
        workers=[1, 1, 1],
        bandwidth=[[0, 1, 50], [1, 0, 1], [1, 25, 0]],
        latency=np.ones((3, 3)),
        allowed=np.ones((3, 3), bool),
        seconds=np.full((2, 3), 3.0),
    )
    direct = simulate(wide, choice(1, 1))
    assert direct.makespan == 50 + 1 + 3 + 3
    relayed = simulate(
        wide, choice(1, 1, transfers=np.array([[0, 0, 2, 0, 0], [0, 2, 1, 0, 0]], float))
    )
    assert relayed.makespan == (1 + 1) + (2 + 1) + 3 + 3
    assert relayed.nbytes == 100


def test_order_decides_among_ready_steps_and_start_holds_one_back() -> None:
    pair = small(inputs=offsets([[0], [0]]), producer=[-1, 0, 1], deliver=[])
    assert simulate(pair, choice(0, 0)).start.tolist() == [0, 3]
    assert simulate(pair, choice(0, 0, order=[1, 0])).start.tolist() == [3, 0]
    held = simulate(pair, choice(0, 0, start=np.array([4.0, 0.0])))
    assert held.start.tolist() == [4, 0]


def test_events_of_one_moment_come_before_new_starts() -> None:
    """A worker and a more urgent step come free at the same time: the urgent one gets it."""
    instance = small(
        workers=[1, 1],
        size=[0.0, 10.0, 0.0, 0.0, 0.0],
        producer=[-1, 0, 1, 2, 3],
        homes=offsets([[0], [], [], [], []]),
        allowed=np.ones((5, 2), bool),
        latency=np.zeros((2, 2)),
        seconds=np.array([[2.0] * 2, [3.0] * 2, [3.0] * 2, [3.0] * 2]),
        inputs=offsets([[0], [0], [0], [1]]),
        deliver=[],
    )
    # step 3, at b and most urgent, gets what step 0 made at a at the moment at which step 1 ends
    outcome = simulate(instance, choice(0, 1, 1, 1, order=[0, 1, 2, 0]))
    assert outcome.start.tolist() == [0, 0, 6, 3]


def test_a_graph_of_nothing() -> None:
    nothing = small(
        size=[], producer=[], homes=offsets([]), allowed=np.ones((0, 2), bool),
        seconds=np.zeros((0, 2)), inputs=offsets([]), deliver=[],
    )  # fmt: skip
    assert simulate(nothing, choice()).makespan == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (choice(0), "for 1 steps, the problem has 2"),
        (choice(0, 2), "step 1: there is no site 2"),
        (choice(1, 1), "step 0 may not run at 'b'"),
        (choice(0, 0, order=[np.nan, 0]), "not a number"),
        (choice(0, 0, start=np.array([-1.0, 0.0])), "a start is not a time"),
        (choice(0, 0, transfers=np.array([[0, 0, 1, 0, 0.0]])), "no copy may be at 'b'"),
        (choice(0, 0, transfers=np.array([[9, 0, 1, 0, 0.0]])), "no such item"),
        (choice(0, 0, transfers=np.array([[1, 0, 7, 0, 0.0]])), "no such site"),
        (choice(0, 0, transfers=np.array([[1, 0, 1, 0, 0.0]] * 2)), "comes twice"),
        (choice(0, 0, transfers=np.array([[1, 1, 0, 0, 0.0]])), "never is"),
    ],
)
def test_plans_that_are_not_legal(wrong: Choice, said: str) -> None:
    allowed = np.ones((3, 2), bool)
    allowed[0, 1] = False
    with pytest.raises(PlacementError, match=said):
        simulate(small(allowed=allowed), wrong)


def test_problems_without_a_solution_are_named() -> None:
    nowhere = np.array([[True, False], [False, True], [True, True]])
    with pytest.raises(PlacementError, match=r"step 0: item 0 may be at a; item 1 may be at b"):
        small(allowed=nowhere)
    undeliverable = np.array([[True, True], [True, True], [True, False]])
    with pytest.raises(PlacementError, match="item 2 must be delivered to 'b'"):
        small(allowed=undeliverable)
    with pytest.raises(PlacementError, match="cycle"):
        small(inputs=offsets([[2], [1]]))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    steps=st.integers(3, 25),
    seed=st.integers(0, 10**6),
    network=st.sampled_from(["serial", "free", "fair"]),
    held=st.booleans(),
)
def test_agrees_with_the_plainest_reading(
    shape: Any, steps: int, seed: int, network: Any, held: bool
) -> None:
    instance = problem(shape, steps, seed, data=10.0, policy="strict", sites=4)
    chance = np.random.default_rng(seed)
    site = np.array([chance.choice(np.flatnonzero(np.isfinite(row))) for row in instance.seconds])
    start = chance.uniform(0, 20, instance.steps) if held else None
    plan = Choice(site=site, order=chance.permutation(instance.steps).astype(float), start=start)
    outcome = simulate(instance, plan, network)
    makespan, nbytes = reference.play(instance, plan, network)
    assert outcome.makespan == pytest.approx(makespan, rel=1e-9)
    assert outcome.nbytes == pytest.approx(nbytes)

"""The clever ways against the obvious ones, on arrays."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import PlacementError
from dataflow.placement.aim import BALANCED, PRICE, better
from dataflow.placement.cost import Tally, bytes_moved, simulate, transfers
from dataflow.placement.figures import Prices
from dataflow.placement.greedy import baselines, by_run, by_sum, greedy, program
from dataflow.placement.problem import Problem
from dataflow.placement.segments import cut, duration
from dataflow.placement.solve import solve


def problem(
    inputs: list[list[int]],
    *,
    held: list[list[int]],
    sizes: list[float] | None = None,
    results: list[float] | None = None,
    seconds: object = 1.0,
    bandwidth: object = 100.0,
    latency: object = 0.0,
    sites: int = 2,
    workers: tuple[int, ...] | None = None,
    allowed: object = True,
    deliver: tuple[int, ...] = (),
    client: int = -1,
) -> Problem:
    """A problem by its numbers; each held item is given by the sites that have it."""
    steps = len(inputs)
    roads = np.broadcast_to(np.array(bandwidth, dtype=float), (sites, sites)).copy()
    np.fill_diagonal(roads, np.inf)
    waits = np.broadcast_to(np.array(latency, dtype=float), (sites, sites)).copy()
    np.fill_diagonal(waits, 0.0)
    source = np.array(
        [
            [
                s if s in homes else min(homes, key=lambda h: (waits[h, s] + 1 / roads[h, s], h))
                for s in range(sites)
            ]
            for homes in held
        ],
        dtype=np.intp,
    ).reshape(len(held), sites)
    size = np.array(sizes or [100.0] * len(held))
    may = np.broadcast_to(np.array(allowed, dtype=bool), (steps, sites)).copy()
    return Problem(
        sites=tuple(f"p{n}" for n in range(sites)),
        workers=workers or (1,) * sites,
        bandwidth=roads,
        latency=waits,
        held=tuple(f"d{n}" for n in range(len(held))),
        tasks=tuple(f"t{n}" for n in range(steps)),
        inputs=tuple(map(tuple, inputs)),
        held_source=source,
        held_bytes=np.where(source == np.arange(sites), 0.0, size[:, None]),
        nbytes=np.array(results or [100.0] * steps),
        seconds=np.broadcast_to(np.array(seconds, dtype=float), (steps, sites)).copy(),
        allowed=may,
        within=may,
        deliver=deliver,
        client=client,
    )


@st.composite
def problems(draw: st.DrawFn, *, tree: bool = False, max_steps: int = 5) -> Problem:
    sites = draw(st.integers(1, 3))
    steps = draw(st.integers(1, max_steps))
    held = draw(st.integers(1, 3)) if not tree else steps
    inputs: list[list[int]] = []
    unread: list[int] = []
    for task in range(steps):
        if tree:
            mine = [task] + [i for i in unread if draw(st.booleans())]
            unread = [i for i in unread if i not in mine]
        else:
            mine = draw(
                st.lists(st.integers(0, held + task - 1), min_size=1, max_size=3, unique=True)
            )
        inputs.append(mine)
        unread.append(held + task)
    number = st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0])
    size = st.sampled_from([0.0, 1.0, 100.0, 5000.0])
    some = st.lists(st.integers(0, sites - 1), min_size=1, unique=True)
    pairs = [
        [draw(st.sampled_from([10.0, 100.0, 1e4])) for _ in range(sites)] for _ in range(sites)
    ]
    waits = [[draw(number) for _ in range(sites)] for _ in range(sites)]
    may = [[s in row for s in range(sites)] for row in (draw(some) for _ in range(steps))]
    deliver = draw(st.booleans())
    return problem(
        inputs,
        held=[draw(some) for _ in range(held)],
        sizes=[draw(size) for _ in range(held)],
        results=[draw(size) for _ in range(steps)],
        seconds=[[draw(number) for _ in range(sites)] for _ in range(steps)],
        bandwidth=pairs,
        latency=waits,
        sites=sites,
        workers=tuple(draw(st.integers(1, 2)) for _ in range(sites)),
        allowed=may,
        deliver=(held + steps - 1,) if deliver else (),
        client=0 if deliver else -1,
    )


def every_choice(given_problem: Problem) -> list[tuple[int, ...]]:
    options = [np.flatnonzero(row).tolist() for row in given_problem.within]
    return list(itertools.product(*options))


def total_by_hand(given_problem: Problem, sites: tuple[int, ...], price: float) -> float:
    seconds = sum(given_problem.seconds[t, s] for t, s in enumerate(sites))
    for item, target in transfers(given_problem, sites):
        source, nbytes, busy = given_problem.arrival(item, sites, target)
        seconds += busy + given_problem.latency[source, target] + price * nbytes
    return float(seconds)


@given(problems(tree=True))
def test_program_is_optimal_for_trees(given_problem: Problem) -> None:
    found = tuple(program(Prices(given_problem, BALANCED.guide)).tolist())
    best = min(total_by_hand(given_problem, c, PRICE) for c in every_choice(given_problem))
    assert total_by_hand(given_problem, found, PRICE) == pytest.approx(best)


@given(problems(), st.randoms(use_true_random=False))
def test_single_moves_are_priced_as_if_computed_anew(
    given_problem: Problem, chance: object
) -> None:
    sites = chance.choice(every_choice(given_problem))  # type: ignore[attr-defined]
    tally = Tally(given_problem, np.array(sites, dtype=np.intp))
    held = given_problem.held_seconds + PRICE * given_problem.held_bytes
    moves = given_problem.move_seconds + PRICE * given_problem.move_bytes
    before = total_by_hand(given_problem, sites, PRICE)
    assert tally.work() + tally.total(held, moves) == pytest.approx(before)
    more = tally.changes(held, moves) + tally.work_changes()
    nbytes = tally.changes(given_problem.held_bytes, given_problem.move_bytes)
    for task, site in itertools.product(range(len(sites)), range(len(given_problem.sites))):
        moved = (*sites[:task], site, *sites[task + 1 :])
        after = total_by_hand(given_problem, moved, PRICE)
        assert before + more[task, site] == pytest.approx(after)
        difference = bytes_moved(given_problem, moved) - bytes_moved(given_problem, sites)
        assert nbytes[task, site] == pytest.approx(difference)


@given(problems(max_steps=6))
def test_never_worse_than_the_simple_choices_and_never_illegal(given_problem: Problem) -> None:
    found = solve(given_problem)
    assert all(given_problem.within[task, site] for task, site in enumerate(found.sites))
    score = by_run(given_problem, BALANCED)
    simple = baselines(given_problem)
    assert set(simple) == set(found.baselines)
    for name, sites in simple.items():
        assert not better(score(sites), score(np.array(found.sites))), name
        assert found.baselines[name] == score(sites)
    assert solve(given_problem) == found


@given(problems(max_steps=4))
def test_the_best_of_all_choices_where_it_says_so(given_problem: Problem) -> None:
    score = by_run(given_problem, BALANCED)
    best = min(score(np.array(choice)) for choice in every_choice(given_problem))
    found = solve(given_problem)
    assert found.least is not None
    assert found.least.optimal
    assert not better(best, score(np.array(found.sites)))


@given(problems(max_steps=6))
def test_never_worse_than_greedy_and_never_below_the_bounds(given_problem: Problem) -> None:
    found = solve(given_problem)
    score = by_run(given_problem, BALANCED)
    assert not better(score(greedy(given_problem, BALANCED).sites), score(np.array(found.sites)))
    assert found.least is not None
    for choice in every_choice(given_problem)[:200]:
        assert found.least.seconds <= simulate(given_problem, choice).seconds
        assert found.least.nbytes <= bytes_moved(given_problem, choice)


@given(problems())
def test_segments_wait_for_earlier_ones_only(given_problem: Problem) -> None:
    held = len(given_problem.held)
    for sites in every_choice(given_problem)[:20]:
        parts = cut(given_problem, sites, set())
        part_of = {task: n for n, part in enumerate(parts) for task in part.tasks}
        assert len(part_of) == len(sites)
        for number, part in enumerate(parts):
            assert {sites[task] for task in part.tasks} == {part.site}
            for item in part.inputs:
                assert item < held or part_of[item - held] < number
                assert item < held or item - held in parts[part_of[item - held]].outputs
            longest = max(given_problem.seconds[t, part.site] for t in part.tasks)
            everything = sum(given_problem.seconds[t, part.site] for t in part.tasks)
            assert longest - 1e-9 <= duration(given_problem, part) <= everything + 1e-9


# --- by hand --------------------------------------------------------------------------------------


def test_one_worker_runs_one_step_at_a_time() -> None:
    three = problem([[0], [0], [0]], held=[[0]])
    assert simulate(three, [0, 0, 0]).seconds == 3.0
    wide = problem([[0], [0], [0]], held=[[0]], workers=(2, 1))
    run = simulate(wide, [0, 0, 0])
    assert (run.seconds, run.start) == (2.0, (0.0, 0.0, 1.0))


def test_a_link_carries_one_transfer_at_a_time_and_latency_does_not_occupy_it() -> None:
    two = problem([[0], [1]], held=[[0], [0]], latency=0.5, workers=(1, 2))
    run = simulate(two, [1, 1])
    assert run.start == (1.5, 2.5)
    assert run.seconds == 3.5


def test_what_is_wanted_first_moves_first() -> None:
    two = problem([[1], [0]], held=[[0], [0]], sizes=[1000.0, 100.0], workers=(1, 2))
    assert simulate(two, [1, 1]).start == (1.0, 11.0)


def test_an_item_moves_once_to_each_site() -> None:
    shared = problem([[0], [0], [0]], held=[[0]], sites=3)
    assert bytes_moved(shared, [1, 1, 2]) == 200.0


def test_deliveries_count() -> None:
    one = problem([[0]], held=[[0]], deliver=(1,), client=1, latency=0.25)
    assert simulate(one, [0]).seconds == 1.0 + 1.0 + 0.25
    assert bytes_moved(one, [0]) == 100.0
    assert bytes_moved(one, [1]) == 100.0
    source = problem([[0]], held=[[0]], deliver=(0,), client=1)
    assert simulate(source, [0]).seconds == 1.0


def test_a_copy_already_there_is_free() -> None:
    two_homes = problem([[0]], held=[[0, 1]])
    assert bytes_moved(two_homes, [1]) == 0.0


def test_ties_go_to_the_first_site() -> None:
    assert solve(problem([[0]], held=[[0, 1]])).sites == (0,)


def test_parallel_work_is_spread_when_data_is_small() -> None:
    tiny = problem([[0], [0]], held=[[0]], sizes=[1.0], seconds=10.0)
    assert set(solve(tiny).sites) == {0, 1}


def test_pinned_and_impossible() -> None:
    one = problem([[0]], held=[[0]])
    assert solve(one, pinned={0: 1}).sites == (1,)
    never = problem([[0]], held=[[0]], allowed=[[True, False]])
    with pytest.raises(PlacementError, match="t0 may run nowhere"):
        solve(never, pinned={0: 1})


def test_nothing_to_do() -> None:
    empty = problem([], held=[[0]], deliver=(0,), client=1)
    found = solve(empty)
    assert (found.sites, found.seconds, found.nbytes) == ((), 1.0, 100.0)


def test_a_small_plan_loads_no_compiler() -> None:
    program = """
import sys
from tests.placement.test_solve import problem, solve
found = solve(problem([[0, 1], [0, 1], [2, 3]], held=[[0], [1]], seconds=[[5, 1], [1, 5], [1, 1]]))
assert found.least is not None
assert "numba" not in sys.modules and "scipy.optimize" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)


def test_large_problems_descend_on_the_sum() -> None:
    chance = np.random.default_rng(1)
    steps, held = 400, 6
    inputs = [
        sorted({int(chance.integers(0, held + task)) for _ in range(3)}) for task in range(steps)
    ]
    large = problem(
        inputs,
        held=[[int(chance.integers(0, 3))] for _ in range(held)],
        results=chance.uniform(1, 1e3, steps).tolist(),
        sites=3,
    )
    found = greedy(large, BALANCED)
    score = by_sum(Prices(large, BALANCED.guide))
    assert not any(better(score(sites), score(found.sites)) for sites in baselines(large).values())

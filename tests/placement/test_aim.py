"""What a plan is to be good at, and the limits that it keeps; against all choices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import NoAllowedSite, PlacementError
from dataflow.graph.graph import of_dataset
from dataflow.placement.aim import BALANCED, PRICE, aim_of, better
from dataflow.placement.cost import bytes_moved, simulate
from dataflow.placement.figures import figures
from dataflow.placement.limits import keep_limits
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import Measurements, Pace, identity
from dataflow.placement.plan import Plan
from dataflow.placement.problem import Problem
from dataflow.placement.solve import solve
from dataflow.policy.check import check
from dataflow.sites import Link, Site, Topology
from dataflow.testing.strategies import centre, dataset, replica
from tests.placement.test_solve import every_choice, problems

OBJECTIVES: list[Any] = [
    "balanced",
    "time",
    "bytes",
    "money",
    "energy",
    ["money", "time"],
    ["energy", "balanced"],
    {"time": 1.0, "money": 3.0, "energy": 0.1},
]


@st.composite
def priced(draw: st.DrawFn) -> Problem:
    found = draw(problems(max_steps=4))
    width = len(found.sites)
    price = st.sampled_from([0.0, 1e-3, 0.5])
    egress = np.array(
        [[0.0 if a == b else draw(price) for b in range(width)] for a in range(width)]
    )
    watts = np.array([draw(st.sampled_from([0.0, 10.0, 300.0])) for _ in range(width)])
    return replace(found, egress=egress, watts=watts)


@given(priced(), st.sampled_from(OBJECTIVES), st.sampled_from([None, 2.0, 50.0]))
def test_best_of_all_choices_by_every_objective(
    problem: Problem, objective: Any, deadline: float | None
) -> None:
    aim = aim_of(objective, deadline=deadline)
    found = solve(problem, aim=aim)
    assert all(problem.within[task, site] for task, site in enumerate(found.sites))
    assert found.figures == figures(problem, found.sites)
    scores = [aim.score(figures(problem, choice)) for choice in every_choice(problem)]
    best = min(scores)
    mine = aim.score(found.figures)
    assert found.least is not None
    if found.least.optimal:
        assert not better(best[:2], mine[:2])
    kept = [score for score in scores if score[0] == 0.0]
    assert mine[0] == 0.0 or not kept, "a deadline that can be kept is kept"


@given(priced())
def test_figures_add_up(problem: Problem) -> None:
    for choice in every_choice(problem)[:20]:
        found = figures(problem, choice)
        assert found.seconds == simulate(problem, choice).seconds
        assert found.nbytes == bytes_moved(problem, choice)
        assert problem.watts is not None
        spent = sum(problem.seconds[t, s] * problem.watts[s] for t, s in enumerate(choice))
        assert found.energy == pytest.approx(spent)


def test_words() -> None:
    assert aim_of("balanced") == aim_of() == BALANCED
    assert aim_of("time").stages == ((("seconds", 1.0),), (("bytes", 1.0),))
    assert aim_of("money").stages == ((("money", 1.0),), (("seconds", 1.0), ("bytes", PRICE)))
    assert aim_of({"time": 2, "energy": 1}).stages == ((("seconds", 2.0), ("energy", 1.0)),)
    for wrong in ("speed", [], {"time": -1}, {"time": 0}, {"speed": 1}, {"time": float("nan")}):
        with pytest.raises(PlacementError, match="objective"):
            aim_of(wrong)  # type: ignore[arg-type]
    with pytest.raises(PlacementError, match="deadline: nothing is done in 0 seconds"):
        aim_of(deadline=0)
    with pytest.raises(PlacementError, match="budget: -1"):
        aim_of(budget=-1)


# --- a plan: 8 GB at a cloud that is slow and asks for every byte that leaves ---------------------


def plan(aim: Any = BALANCED, **cloud: Any) -> Plan:
    graph = centre(of_dataset(dataset("run1", 10**9)))
    settings = {"watts": 100.0, "egress": 0.1 / 1e9, **cloud}
    world = Topology(
        sites=(Site(name="cloud", **settings), Site(name="uva", watts=300.0)),
        links=(Link(source="cloud", target="uva", bandwidth=1e9, latency=0.0),),
    )
    pace = {"cloud": Pace(fixed=0.0, per_byte=1e-8), "uva": Pace(fixed=0.0, per_byte=1e-9)}
    return make_plan(
        graph,
        topology=world,
        replicas={"run1": [replica("run1", "cloud", 8 * 10**9)]},
        verdicts=check(graph, world),
        measurements=Measurements(paces={identity(centre.operation): pace}),
        aim=aim,
    )


def test_time_and_money_by_hand() -> None:
    fast, cheap = plan(aim_of("time")), plan(aim_of("money"))
    assert (fast.why("centre").site, cheap.why("centre").site) == ("uva", "cloud")
    assert (fast.seconds, fast.money) == (pytest.approx(16.0), pytest.approx(0.8))
    assert (cheap.seconds, cheap.money) == (pytest.approx(80.0), 0.0)
    assert (fast.energy, cheap.energy) == (pytest.approx(8 * 300), pytest.approx(80 * 100))
    assert repr(fast).endswith("8 GB moved, 16 s, costs 0.8, 0.000667 kWh>")
    assert plan(aim_of("energy")).why("centre").site == "uva"
    assert plan(aim_of(["money", "time"]), egress_to=(("uva", 0.0),)).why("centre").site == "uva"
    assert plan(aim_of({"time": 1.0, "money": 100.0})).why("centre").site == "cloud"
    assert plan(aim_of({"time": 1.0, "money": 50.0})).why("centre").site == "uva"


def test_limits_are_kept_before_all_else_or_named() -> None:
    soon = aim_of("money", deadline=20.0)
    assert keep_limits(plan(soon), soon).why("centre").site == "uva"
    saving = aim_of("time", budget=0.5)
    assert keep_limits(plan(saving), saving).why("centre").site == "cloud"
    never = aim_of("time", deadline=10.0)
    with pytest.raises(PlacementError, match=r"no plan ends within 10 s: .* at least 16 s"):
        keep_limits(plan(never), never)
    both = aim_of("time", deadline=20.0, budget=0.5)
    with pytest.raises(PlacementError, match=r"deadline=80 or more|budget=0.8 or more"):
        keep_limits(plan(both), both)


def test_a_worker_that_does_not_live_long_enough_is_no_candidate() -> None:
    found = plan(aim_of("money"), walltime=60.0)
    why = found.why("centre")
    assert why.site == "uva"
    (refused,) = [c for c in why.candidates if not c.allowed]
    assert (refused.site, refused.rule) == ("cloud", "walltime")
    assert refused.because == "it takes 1 min 20 s, and workers there live 1 min"
    graph = centre(of_dataset(dataset("run1", 10**9)))
    short = Topology(sites=(Site(name="cloud", walltime=60.0),))
    slow = Measurements(
        paces={identity(centre.operation): {"cloud": Pace(fixed=80.0, per_byte=0.0)}}
    )
    with pytest.raises(NoAllowedSite, match="workers there live 1 min"):
        make_plan(
            graph,
            topology=short,
            replicas={"run1": [replica("run1", "cloud", 8)]},
            verdicts=check(graph, short),
            measurements=slow,
        )

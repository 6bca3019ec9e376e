"""Why a step is where it is: what is said against what trying it out gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import documents
from dataflow.graph.graph import of_dataset
from dataflow.placement.aim import Figures, aim_of, better
from dataflow.placement.figures import figures
from dataflow.placement.flip import MOST_FACTOR, Flip, flips, value, wins
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import Measurements, Pace, identity
from dataflow.placement.model import Fact, Model
from dataflow.placement.plan import Plan
from dataflow.placement.solve import solve
from dataflow.placement.why import chosen, in_words
from dataflow.policy.check import Verdict, check
from dataflow.sites import Link, Site, Topology
from dataflow.testing.strategies import World, centre, dataset, replica, worlds


def of_world(world: World, result_at: str = "") -> Plan:
    return make_plan(
        world.graph,
        topology=world.topology,
        replicas=world.replicas,
        verdicts=world.verdicts,
        measurements=world.measurements,
        result_at=result_at,
    )


def one_step(
    *, gigabytes: float = 8.0, rate: float = 10e6, fast: float = 8.0, aim: str = "time"
) -> Plan:
    """8 GB at p1 and one step of 100 ns a byte there, so many times faster at p2."""
    graph = centre(of_dataset(dataset("run1", round(gigabytes * 1e9 / 8))))
    world = Topology(
        sites=(Site(name="p1"), Site(name="p2")),
        links=(
            Link(source="p1", target="p2", bandwidth=rate, latency=0.0),
            Link(source="p2", target="p1", bandwidth=rate, latency=0.0),
        ),
    )
    slow = Pace(fixed=0.0, per_byte=1e-8)
    paces = {identity(centre.operation): {"p1": slow, "p2": slow.times(1 / fast)}}
    return make_plan(
        graph,
        topology=world,
        replicas={"run1": [replica("run1", "p1", round(gigabytes * 1e9))]},
        verdicts=check(graph, world),
        measurements=Measurements(paces=paces),
        aim=aim_of(aim),
    )


def where_of(model: Model, flip: Flip, task: int) -> tuple[int, int]:
    if flip.fact == "bandwidth":
        return model.sites.index(flip.about[0]), model.sites.index(flip.about[1])
    if flip.fact == "size":
        return (*model.held, *model.tasks).index(flip.about[0]), 0
    return task, model.sites.index(flip.about[0])


# --- by hand --------------------------------------------------------------------------------------


def test_flip_points_of_one_step_by_hand() -> None:
    found = one_step()
    why = found.why("centre")
    assert (why.site, why.seconds) == ("p1", pytest.approx(80.0))
    assert why.margin is not None
    assert (why.margin.site, why.margin.nbytes) == ("p2", 8 * 10**9)
    assert why.margin.seconds == pytest.approx(800 + 10 - 80)
    by_fact = {flip.fact: flip for flip in why.flips if flip.about != ("p2",)}
    assert by_fact["bandwidth"].about == ("p1", "p2")
    assert by_fact["bandwidth"].at == pytest.approx(8e9 / 70, rel=1e-6), "8 GB in 80 s less 10 s"
    assert by_fact["work"].at == pytest.approx(810.0, rel=1e-6)
    assert "size" not in by_fact, "both sides grow with the bytes"
    text = repr(why)
    assert "p2 would win if the link p1 → p2 carried more than 114 MB/s (now 10 MB/s)" in text
    assert "p2 would win if it took at p1 more than 13 min 30 s (now 1 min 20 s)" in text
    assert "<li>" in why._repr_html_()


@pytest.mark.parametrize(("share", "site"), [(0.999, "p1"), (1.001, "p2")])
def test_the_planner_itself_turns_there(share: float, site: str) -> None:
    (flip,) = [f for f in one_step().why("centre").flips if f.fact == "bandwidth"]
    assert one_step(rate=flip.at * share).why("centre").site == site


def test_a_refusal_names_its_rule() -> None:
    graph = centre(of_dataset(dataset("run1", 1000)))
    world = Topology(sites=(Site(name="p1"), Site(name="p2")))
    no = Verdict(False, "agreement", "the owner keeps it at p1")
    verdicts = {key: {**row, "p2": no} for key, row in check(graph, world).items()}
    found = make_plan(
        graph, topology=world, replicas={"run1": [replica("run1", "p1", 8000)]}, verdicts=verdicts
    )
    why = found.why("centre")
    assert [(c.site, c.rule) for c in why.candidates if not c.allowed] == [("p2", "agreement")]
    assert "not allowed (agreement): the owner keeps it at p1" in repr(why)
    assert (why.margin, why.flips) == (None, ())


def test_plans_of_before_have_no_numbers_and_say_the_rest() -> None:
    old = documents.to_document(one_step())
    for name in ("model", "least", "money", "energy"):
        del old[name]
    for assignment in old["assignments"]:
        for candidate in assignment["candidates"]:
            del candidate["rule"]
    plan = documents.from_document(Plan, old)
    assert (plan.least, plan.gap, plan.model) == (None, None, None)
    why = plan.why("centre")
    assert why.margin is not None
    assert why.flips == ()


# --- against trying -------------------------------------------------------------------------------


@given(worlds(), st.booleans())
def test_a_saved_plan_is_chosen_again(world: World, deliver: bool) -> None:
    plan = of_world(world, world.topology.sites[0].name if deliver else "")
    again = documents.from_json(Plan, documents.to_json(plan))
    assert again == plan
    assert again.model is not None
    problem = again.model.problem()
    found = solve(problem, aim=again.model.aim)
    assert found.sites == chosen(again)
    comes_to = figures(problem, chosen(again))
    assert comes_to.seconds == pytest.approx(plan.seconds, abs=1e-9)
    assert round(comes_to.nbytes) == pytest.approx(plan.nbytes, abs=len(plan.transfers))


@settings(max_examples=40, deadline=None)
@given(worlds(max_sites=4, max_steps=6), st.booleans())
def test_every_candidate_is_what_trying_it_gives(world: World, deliver: bool) -> None:
    """Its seconds and bytes, or the verdict against it; and the margin is that of the next best."""
    plan = of_world(world, world.topology.sites[0].name if deliver else "")
    model = plan.model
    assert model is not None
    problem, sites = model.problem(), chosen(plan)
    for task, key in enumerate(model.tasks):
        why = plan.why(key)
        assert [one.site for one in why.candidates if one.site == why.site] == [why.site]
        assert {one.site for one in why.candidates} == {one.name for one in world.topology.sites}
        comes_to = {}
        for one in why.candidates:
            if key in world.verdicts:  # not a share of a step that was split
                verdict = world.verdicts[key][one.site]
                assert one.allowed == verdict.allowed
                assert one.allowed or (one.rule, one.because) == (verdict.rule, verdict.because)
            if not one.allowed:
                assert one.rule
                assert one.because
                continue
            moved = (*sites[:task], model.sites.index(one.site), *sites[task + 1 :])
            tried = figures(problem, moved)
            assert one.seconds == pytest.approx(tried.seconds, rel=1e-9, abs=1e-9)
            assert one.nbytes == pytest.approx(tried.nbytes, abs=len(plan.transfers) + 2)
            comes_to[one.site] = tried
        others = {name: at for name, at in comes_to.items() if name != why.site}
        if why.margin is None:
            assert not others
            continue
        scores = {name: _score(at, model.aim.stages[0]) for name, at in others.items()}
        next_best = others[why.margin.site]
        assert scores[why.margin.site] <= min(scores.values()) * (1 + 1e-6) + 1e-6
        assert why.margin.seconds == pytest.approx(next_best.seconds - plan.seconds, abs=1e-9)
        assert why.margin.nbytes == pytest.approx(
            next_best.nbytes - plan.nbytes, abs=len(plan.transfers) + 2
        )


def _score(found: Figures, stage: Any) -> float:
    return float(sum(weight * found.of(measure) for measure, weight in stage))


@settings(max_examples=25, deadline=None)
@given(worlds(max_sites=3, max_steps=5), st.data())
def test_every_flip_turns_the_choice_on_either_side(world: World, data: st.DataObject) -> None:
    plan = of_world(world)
    model = plan.model
    assert model is not None
    if not model.tasks:
        return
    sites = chosen(plan)
    task = data.draw(st.integers(0, len(model.tasks) - 1))
    others = [s for s, may in enumerate(model.allowed[task]) if may and s != sites[task]]
    for to in others[:1]:
        moved = (*sites[:task], to, *sites[task + 1 :])
        turns = flips(model, sites, task, to)
        for flip in turns[:3]:
            where = where_of(model, flip, task)
            now = value(model, flip.fact, where)
            assert flip.now == now
            factor = flip.at / now
            nearer = 1 + (factor - 1) * (1 - 1e-5)
            assert wins(model.changed(flip.fact, where, factor), sites, moved)
            assert not wins(model.changed(flip.fact, where, nearer), sites, moved)
        if not wins(model, sites, moved):
            _nothing_nearer(model, sites, moved, task, turns)


def _nothing_nearer(
    model: Model, sites: tuple[int, ...], moved: tuple[int, ...], task: int, turns: tuple[Flip, ...]
) -> None:
    """By trying: the step's own time turns the choice where the flip says, and not much before."""
    facts: list[tuple[Fact, tuple[int, int], float]] = [
        ("work", (task, sites[task]), MOST_FACTOR),
        ("work", (task, moved[task]), 1 / MOST_FACTOR),
    ]
    for fact, where, most in facts:
        if value(model, fact, where) == 0:
            continue
        told = [f for f in turns if f.fact == fact and f.about == (model.sites[where[1]],)]
        tried = [most ** (step / 12) for step in range(1, 13)]
        winning = [f for f in tried if wins(model.changed(fact, where, f), sites, moved)]
        if winning and abs(winning[0] / most - 1) > 1e-12:
            assert told, "trying finds a turn that is not told"
            assert told[0].factor <= max(winning[0], 1 / winning[0]) * (1 + 1e-6)


def test_scores_are_compared_with_a_margin_for_rounding() -> None:
    assert not better((0.0, 1.0), (0.0, 1.0 + 1e-12))
    assert better((0.0, 5.0), (0.1, 1.0))
    assert replace(aim_of("time"), deadline=1.0).deadline == 1.0


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (0.0102, "2 % more than now (10 ms)"),
        (0.00999, "0.1 % less than now (10 ms)"),
        (0.01 * (1 + 1e-7), "the least bit more than now (10 ms)"),
        (0.02, "more than 20 ms (now 10 ms)"),
    ],
)
def test_a_flip_point_that_is_near_is_told_as_a_share(at: float, said: str) -> None:
    flip = Flip(site="delft", fact="work", about=("amsterdam",), now=0.01, at=at)
    assert in_words(flip, str) == f"delft would win if it took at amsterdam {said}"

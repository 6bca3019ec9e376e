"""The interchange documents: there and back, and what is wrong is named by its path."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.errors import ConfigError, PlacementError
from dataflow.placement.engine.interchange import read_plan, read_problem, write_plan, write_problem
from dataflow.placement.engine.simulate import simulate
from dataflow.testing.problems import SHAPES, problem

PROBLEM: dict[str, Any] = {
    "format": "placement-bench/1",
    "name": "two",
    "origin": "by hand",
    "sites": [
        {"name": "a", "workers": 1, "speed": 1.0, "archetype": "client"},
        {"name": "b", "workers": 2, "speed": 2.0, "archetype": "lab"},
    ],
    "bandwidth": [[0, 10.0], [20, 0]],
    "latency": [[0, 1.0], [2, 0]],
    "client": 0,
    "items": {
        "bytes": [100, 10, 1.5],
        "producer": [-1, 0, 1],
        "home": [[1], None, None],
        "allowed": [[1], None, None],
    },
    "tasks": {"work": [4, 6], "inputs": [[0, 0], [1]], "allowed": None},
    "deliver": [2],
}
PLAN: dict[str, Any] = {
    "format": "placement-plan/1",
    "problem": "two",
    "site": [1, 0],
    "order": [0, 1],
    "start": [0, 0],
    "transfers": [[1, 1, 0, 0, 0]],
    "engine_seconds": 0.1,
}


def changed(document: Any, path: str, value: Any) -> Any:
    document = copy.deepcopy(document)
    inside, *steps = document, *path.split(".")
    for step in steps[:-1]:
        inside = inside[int(step) if step.isdigit() else step]
    last: Any = int(steps[-1]) if steps[-1].isdigit() else steps[-1]
    if value is KeyError:
        del inside[last]
    else:
        inside[last] = value
    return document


def test_a_problem_and_a_plan() -> None:
    instance = read_problem(PROBLEM)
    assert instance.seconds.tolist() == [[np.inf, 2.0], [6.0, 3.0]]
    assert instance.inputs.tolist() == [0, 1], "an input counts once"
    outcome = simulate(instance, read_plan(PLAN, instance))
    assert outcome.makespan == 2 + 10 / 20 + 2 + 6
    assert outcome.nbytes == 10


def test_what_a_plan_may_leave_out() -> None:
    instance = read_problem(PROBLEM)
    choice = read_plan({"format": "placement-plan/1", "site": [1, 1]}, instance)
    assert simulate(instance, choice).makespan == 2 + 3 + 1.5 / 20 + 2


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", "placement-bench/2", "format: is 'placement-bench/2'"),
        ("client", 2, r"client\[0\]: there is no number 2"),
        ("sites", [], "sites: is empty"),
        ("sites.0.workers", 0, r"sites\[0\].workers"),
        ("sites.1.speed", 0, r"sites\[1\].speed"),
        ("bandwidth.0.1", 0, r"bandwidth\[0\]\[1\]: must be more than 0"),
        ("bandwidth.1", [1], r"bandwidth\[1\]: has 1 entries, not 2"),
        ("latency.0.1", "x", r"latency\[0\]\[1\]: 'x' is not a number"),
        ("items.bytes.1", -1, r"items.bytes\[1\]: -1 is not a number from 0"),
        ("items.bytes.1", float("nan"), r"items.bytes\[1\]"),
        ("items.bytes.1", True, r"items.bytes\[1\]: True is not a number"),
        ("items.producer.2", 7, r"items.producer\[2\]: there is no number 7"),
        ("items.producer.2", -1, r"items.home\[2\]: has no producer and no home"),
        ("items.home.1", [0], r"items.home\[1\]: is made by a task and has a home"),
        ("items.home.0", [5], r"items.home\[0\]: there is no number 5"),
        ("items.allowed.0", [0], r"items.allowed\[0\]: leaves out a site that holds"),
        ("items.home", KeyError, "items.home: is missing"),
        ("tasks.inputs.0", [0, 9], r"tasks.inputs\[0\]: there is no number 9"),
        ("tasks.inputs.0", "ab", r"tasks.inputs\[0\]: must be a list"),
        ("tasks.work", None, "tasks.work: must be a list"),
        ("deliver", [3], r"deliver\[0\]: there is no number 3"),
        ("tasks", KeyError, "tasks: is missing"),
    ],
)
def test_wrong_problems(path: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_problem(changed(PROBLEM, path, value))


def test_a_problem_without_a_solution() -> None:
    with pytest.raises(PlacementError, match="step 0"):
        read_problem(changed(PROBLEM, "tasks.allowed", [[0], None]))


@pytest.mark.parametrize("document", [None, [], 3, "x", {}])
def test_what_is_no_document(document: Any) -> None:
    with pytest.raises(ConfigError):
        read_problem(document)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", "x", "format"),
        ("site", [1], "site: has 1 entries, not 2"),
        ("site.0", 2, r"site\[0\]: there is no number 2"),
        ("order.1", None, r"order\[1\]"),
        ("start.1", -1, r"start\[1\]"),
        ("transfers.0", [1, 1], r"transfers\[0\]: has 2 entries, not 5"),
    ],
)
def test_wrong_plans(path: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_plan(changed(PLAN, path, value), read_problem(PROBLEM))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(3, 60), st.integers(0, 10**6))
def test_there_and_back(shape: Any, steps: int, seed: int) -> None:
    instance = problem(shape, steps, seed, policy="strict")
    speed = np.ones(instance.width)
    work = np.where(np.isfinite(instance.seconds), instance.seconds, np.inf).min(axis=1)
    document = write_problem(instance, speed=speed, work=work, origin="drawn")
    again = read_problem(json.loads(json.dumps(document)))
    for name in ("producer", "homes", "inputs", "deliver", "allowed", "sequence", "size"):
        np.testing.assert_array_equal(getattr(again, name), getattr(instance, name), err_msg=name)
    np.testing.assert_array_equal(np.isfinite(again.seconds), np.isfinite(instance.seconds))
    np.testing.assert_allclose(again.pace, instance.pace)
    choice = read_plan(
        {"format": "placement-plan/1", "site": again.seconds.argmin(1).tolist()}, again
    )
    plan = json.loads(json.dumps(write_plan(again, choice, 0.5)))
    outcome = simulate(again, read_plan(plan, again))
    assert outcome.makespan == simulate(again, choice).makespan

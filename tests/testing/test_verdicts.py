"""No solver breaks a verdict; and one that did would be told of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from dataflow.placement.problem import Problem
from dataflow.testing import verdicts
from dataflow.testing.verdicts import broken, choices, table
from tests.placement.test_solve import problem, problems


@settings(max_examples=60, deadline=None)
@given(problems(max_steps=6))
def test_no_solver_breaks_a_verdict(given_problem: Problem) -> None:
    assert broken(given_problem) == []


def test_every_solver_is_asked() -> None:
    names = {name for name, _ in choices(problem([[0], [1], [0, 2]], held=[[0]]))}
    assert {"greedy, random", "solve, money", "trial, time", "proposal, heft"} <= names
    assert {"engine, locality", "engine, place bytes", "solve, quick"} <= names


def test_a_break_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = problem([[0]], held=[[0]], allowed=[[True, False]])
    careless = replace(closed, allowed=np.ones((1, 2), bool), within=np.array([[False, True]]))
    original = verdicts.choices
    monkeypatch.setattr(verdicts, "choices", lambda _: original(careless))
    assert "greedy, cheapest: step 0 at p1" in broken(closed)


def test_tables_leave_every_step_a_site() -> None:
    chance = np.random.default_rng(1)
    for steps, sites in ((1, 1), (7, 3), (40, 9)):
        made = table(steps, sites, chance)
        assert made.shape == (steps, sites)
        assert made.any(axis=1).all()

"""Verdicts: whether anything that chooses sites ever breaks a table of them.

One problem is given to every solver that there is; what comes back is held against the table, which the
solvers have only as zeros and ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np

from dataflow.placement.aim import BALANCED, aim_of
from dataflow.placement.engine import compiled
from dataflow.placement.engine.bridge import instance_of, proposals
from dataflow.placement.engine.rivals import Lists, simple
from dataflow.placement.engine.search import place
from dataflow.placement.greedy import greedy
from dataflow.placement.problem import Problem
from dataflow.placement.proof import prove
from dataflow.placement.solve import Rule, solve

OBJECTIVES = ("balanced", "time", "bytes", "money", "energy")


def choices(problem: Problem) -> Iterator[tuple[str, Sequence[int]]]:
    """What every solver answers: its name and a site for each step."""
    for rule in get_args(Rule):
        yield f"greedy, {rule}", greedy(problem, BALANCED, rule=rule).sites.tolist()
    for objective in OBJECTIVES:
        found = solve(problem, aim=aim_of(objective, deadline=1.0, budget=1.0))
        yield f"solve, {objective}", found.sites
        yield f"trial, {objective}", prove(problem, aim_of(objective), found.sites)[0]
    yield "solve, quick", solve(problem, quick=True).sites
    for name, sites in proposals(problem, exchange=0.02, per_byte=1e-8):
        yield f"proposal, {name}", sites.tolist()
    if not problem.tasks:
        return
    with compiled.plainly():
        instance = instance_of(problem)
        for name, make in simple(Lists(instance)).items():
            yield f"engine, {name}", make().site.tolist()
        for aim in ("makespan", "bytes", 0.5):
            placed = place(instance, aim, budget=0.002)
            yield f"engine, place {aim}", placed.choice.site.tolist()


def broken(problem: Problem) -> list[str]:
    """Who put which step where it may not be."""
    return [
        f"{name}: step {task} at {problem.sites[site]}"
        for name, sites in choices(problem)
        for task, site in enumerate(sites)
        if not (problem.allowed[task, site] and problem.within[task, site])
    ]


def table(steps: int, sites: int, chance: np.random.Generator) -> Any:
    """A random table of verdicts: some steps may run anywhere, some at one site only."""
    share = chance.choice([0.15, 0.4, 0.8], (steps, 1))
    allowed = chance.random((steps, sites)) < share
    allowed[np.arange(steps), chance.integers(0, sites, steps)] = True
    return allowed

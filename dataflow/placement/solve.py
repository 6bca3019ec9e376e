"""Solve: one site for every step, within the verdicts, as good as can be found quickly.

A greedy choice comes first (:mod:`~dataflow.placement.greedy`); the engine's list passes, and for
graphs of many steps its search, make proposals beside it; small graphs are tried out until nothing
better is left. All are judged by the same measure, the figures that the plan shows, and the best
is taken; between equals the one that moves fewer bytes, then the greedy one, then the one that
prefers the sites that the problem names first.

Pure and deterministic: equal problems have equal solutions. (Of more than 300 steps, if the
engine's loops are compiled on both machines; see :mod:`dataflow.placement.engine.compiled`.)
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from dataflow.errors import PlacementError
from dataflow.placement.aim import BALANCED, PRICE, Aim, Figures, better
from dataflow.placement.cost import simulate
from dataflow.placement.figures import Prices, figures_of_run
from dataflow.placement.greedy import (
    SIMULATED_STEPS,
    Found,
    Rule,
    Score,
    by_run,
    collect,
    greedy,
    improve,
)
from dataflow.placement.plan import Least
from dataflow.placement.problem import Numbers, Problem
from dataflow.placement.proof import PROVEN_STEPS, least, prove

__all__ = ["Rule", "Solution", "solve"]

#: Runs that are simulated to improve a proposal that is better than the greedy choice.
_IMPROVING_RUNS = 60


@dataclass(frozen=True, slots=True)
class Solution:
    """The chosen site (number) of each step.

    ``seconds`` and ``nbytes`` are the simulated makespan and the bytes over all links, ``money``
    and ``energy`` what the transfers cost and the work takes (joules); ``start`` and ``end`` when
    each step runs in that simulation; ``method`` says how it was found and ``baselines`` what the
    simple choices score. ``least`` is what no choice
    can beat; nothing is known of it after a quick look.
    """

    sites: tuple[int, ...]
    seconds: float
    nbytes: float
    start: tuple[float, ...]
    end: tuple[float, ...]
    method: str
    baselines: Mapping[str, Score]
    money: float = 0.0
    energy: float = 0.0
    least: Least | None = None

    @property
    def figures(self) -> Figures:
        """What it comes to."""
        return Figures(
            seconds=self.seconds, nbytes=self.nbytes, money=self.money, energy=self.energy
        )


def solve(
    problem: Problem,
    *,
    rule: Rule = "cheapest",
    pinned: Mapping[int, int] | None = None,
    aim: Aim = BALANCED,
    seed: int = 0,
    quick: bool = False,
) -> Solution:
    """Choose a site for every step.

    Parameters
    ----------
    problem
        Every step must have at least one site in ``problem.within``.
    rule
        Where parts of a split step are combined: ``"cheapest"`` moves the least bytes in and out
        (between equals: the site that holds more of the inputs); ``"largest-input"`` and
        ``"largest-intermediate"`` the site with most bytes of inputs or of partial results;
        ``"random"`` any site that holds a partial result.
    pinned
        Step number → site number, for what is decided already.
    aim
        What is to be least, and the limits that are kept if any choice that was met keeps them.
    seed
        For the rule ``"random"``.
    quick
        Take the best of the first choices as it is; enough to compare two ways of splitting.

    Raises
    ------
    PlacementError
        If a step is left without a site, or the rule is unknown.
    """
    if rule not in get_args(Rule):
        raise PlacementError(f"no collector rule {rule!r}; there are {', '.join(get_args(Rule))}")
    if pinned:
        mask = problem.within.copy()
        for task, site in pinned.items():
            mask[task] = False
            mask[task, site] = problem.allowed[task, site]
        problem = replace(problem, within=mask)
    stuck = np.flatnonzero(~problem.within.any(axis=1))
    if len(stuck):
        raise PlacementError(f"step {problem.tasks[stuck[0]]} may run nowhere")
    found = greedy(problem, aim, rule=rule, seed=seed, quick=quick)
    if quick:
        return _solution(problem, found, found.method, None)
    chosen, method = tuple(found.sites.tolist()), found.method
    fixed = {task: chosen[task] for task in problem.collectors}  # where the rule wants them
    chosen, proven = prove(problem, aim, chosen, fixed=fixed, tries=0)
    if not proven:
        sites, method = _best(problem, aim, rule, seed, found)
        known = tuple(sites.tolist())
        fixed = {task: known[task] for task in problem.collectors}
        chosen, proven = prove(problem, aim, known, fixed=fixed)
        method = method if chosen == known else "trial of all"
    seconds, nbytes = least(problem)
    bound = Least(
        seconds=seconds,
        nbytes=max(0, int(nbytes)),
        optimal=proven and not problem.collectors and len(problem.tasks) <= PROVEN_STEPS,
    )
    return _solution(problem, replace(found, sites=np.array(chosen, dtype=np.intp)), method, bound)


def _solution(problem: Problem, found: Found, method: str, bound: Least | None) -> Solution:
    final = tuple(found.sites.tolist())
    run = simulate(problem, final)
    comes_to = figures_of_run(problem, final, run.seconds)
    return Solution(
        sites=final,
        seconds=run.seconds,
        nbytes=comes_to.nbytes,
        start=run.start,
        end=run.end,
        method=method,
        baselines=found.baselines,
        money=comes_to.money,
        energy=comes_to.energy,
        least=bound,
    )


def _best(problem: Problem, aim: Aim, rule: Rule, seed: int, found: Found) -> tuple[Numbers, str]:
    """The greedy choice, or a proposal of the engine that is better."""
    from dataflow.placement.engine.bridge import proposals

    guide = aim.guide
    seconds = guide.get("seconds", 0.0)
    worth = guide.get("bytes", 0.0) / seconds if seconds else 1e6 * PRICE
    free = np.ones(len(problem.tasks), dtype=bool)
    free[list(problem.collectors)] = False
    measure = by_run(problem, aim)

    def key(sites: Numbers) -> Score:
        return (*measure(sites), figures_of_run(problem, sites.tolist(), 0.0).nbytes)

    best, method, least_key = found.sites, found.method, key(found.sites)
    met = {found.sites.tobytes()}
    for name, proposed in proposals(problem, exchange=min(1.0, worth * 1e6), per_byte=worth):
        sites = proposed.astype(np.intp)
        if problem.collectors:
            sites = collect(problem, sites, rule, random.Random(seed))
        if sites.tobytes() in met:
            continue
        met.add(sites.tobytes())
        mine = key(sites)
        if better(mine, least_key):
            best, method, least_key = sites, name, mine
    if best is not found.sites and len(problem.tasks) <= SIMULATED_STEPS:
        best = improve(Prices(problem, guide), best, free, measure, _IMPROVING_RUNS)
    return best, method

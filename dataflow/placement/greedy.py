"""Greedy: quick choices of sites, and single moves that make them better.

First the whole graph from its inputs to its results by dynamic programming: for each step and site
the least sum of work and transfers with which its result can be there (exact where every result
has one reader). The simple choices stand beside it: everything at one site, and each step where
most of its input lies. From the best of these single moves are made as long as they pay, on the
simulated run for small graphs, on the sum of everything for large ones; so the answer is never
worse than the simple choices are. Last, the steps that combine parts go where the collector's rule
says, whatever that costs.

Pure and deterministic: ties go to the site that the problem names first.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataflow.placement.aim import Aim, better
from dataflow.placement.cost import Tally
from dataflow.placement.figures import Prices, figures
from dataflow.placement.problem import Bools, Floats, Numbers, Problem

Rule = Literal["cheapest", "largest-input", "largest-intermediate", "random"]
Score = tuple[float, ...]
Measuring = Callable[[Numbers], Score]

#: Up to this many steps, first choices are compared by simulated runs; beyond, by their sums.
COMPARED_STEPS = 300
#: Up to this many steps, single moves are as well.
SIMULATED_STEPS = 60
#: At most so many runs are simulated to improve a choice.
SIMULATED_RUNS = 150
#: The same in steps: long runs can be afforded less often.
SIMULATED_WORK = 3_000

_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class Found:
    """A choice of one site per step, and which first choice it was improved from.

    ``baselines`` are the scores of the simple choices.
    """

    sites: Numbers
    method: str
    baselines: dict[str, Score]


def greedy(
    problem: Problem, aim: Aim, *, rule: Rule = "cheapest", seed: int = 0, quick: bool = False
) -> Found:
    """A choice that is at least as good as the simple ones.

    Parameters
    ----------
    quick
        Take the best of the first choices as it is.
    """
    prices = Prices(problem, aim.guide)
    simple = baselines(problem)
    choices = {"dynamic programming": program(prices), **simple}
    steps = len(problem.tasks)
    measure = by_run(problem, aim) if steps <= COMPARED_STEPS else by_sum(prices)
    scores = {name: measure(sites) for name, sites in choices.items()}
    method = next(iter(choices))
    for name in choices:
        if better(scores[name], scores[method]) or (
            name in simple and method not in simple and not better(scores[method], scores[name])
        ):
            method = name

    def improved(sites: Numbers, free: Bools) -> Numbers:
        if quick:
            return sites
        if steps <= SIMULATED_STEPS:
            return improve(prices, sites, free, measure)
        found = _descend(prices, sites, free)
        return sites if better(measure(sites), measure(found)) else found

    free = np.ones(steps, dtype=bool)
    sites = improved(choices[method], free)
    if problem.collectors:
        sites = collect(problem, sites, rule, random.Random(seed))
        free[list(problem.collectors)] = False
        sites = improved(sites, free)
    return Found(sites, method, {name: scores[name] for name in simple})


# --- first choices --------------------------------------------------------------------------------


def program(prices: Prices) -> Numbers:
    """Least sum of work and priced transfers, from the inputs up, then sites from the results down.

    What several steps read is shared out among them, so that it is not counted once for each.
    """
    problem, moves = prices.problem, prices.moves
    held, count = len(problem.held), len(problem.tasks)
    width = len(problem.sites)
    share = np.array([max(1, len(users)) for users in problem.users], dtype=float)
    arrive = np.empty((held + count, width))
    arrive[:held] = prices.held / share[:held, None]
    produce = np.where(problem.within, prices.run, np.inf)
    for task, items in enumerate(problem.inputs):
        if len(items) == 1:
            produce[task] += arrive[items[0]]
        elif items:
            produce[task] += arrive[list(items)].sum(axis=0)
        arrive[held + task] = (moves[task] + produce[task][:, None]).min(axis=0) / share[
            held + task
        ]
    sites = np.zeros(count, dtype=np.intp)
    delivered = {item - held for item in problem.deliver if item >= held and problem.client >= 0}
    for task in range(count - 1, -1, -1):
        users = problem.users[held + task]
        targets = {int(sites[user]) for user in users}
        if task in delivered:
            targets.add(problem.client)
        cost = produce[task]
        if targets:
            cost = cost + moves[task][:, sorted(targets)].sum(axis=1)
        sites[task] = _first_least(cost)
    return sites


def _first_least(cost: Floats) -> int:
    """Position of the least value; nearly equal ones count as equal, the first wins."""
    values = cost.tolist()
    least = min(values)
    bound = least + _NEGLIGIBLE * (1 + abs(least))
    return next(site for site, value in enumerate(values) if value <= bound)


def baselines(problem: Problem) -> dict[str, Numbers]:
    """The simple choices: everything at one site as far as allowed, and greedy locality."""
    locality = _locality(problem)
    found = {"greedy locality": locality}
    for site, name in enumerate(problem.sites):
        allowed = problem.within[:, site]
        if allowed.any():
            found[f"everything at {name}"] = np.where(allowed, site, locality)
    return found


def _locality(problem: Problem) -> Numbers:
    """Each step at the allowed site where most bytes of its input lie."""
    held = len(problem.held)
    width = len(problem.sites)
    largest = problem.held_bytes.max(axis=1, initial=0.0)
    there = np.where(problem.held_source == np.arange(width), largest[:, None] + 1.0, 0.0)
    sites = np.zeros(len(problem.tasks), dtype=np.intp)
    for task, items in enumerate(problem.inputs):
        bytes_at = np.zeros(width)
        for item in items:
            if item < held:
                bytes_at += there[item]
            else:
                bytes_at[sites[item - held]] += problem.nbytes[item - held] + 1.0
        sites[task] = _first_least(np.where(problem.within[task], -bytes_at, np.inf))
    return sites


# --- improvement ----------------------------------------------------------------------------------


def by_run(problem: Problem, aim: Aim) -> Measuring:
    """Choices by what a simulated run of each comes to."""

    def score(sites: Numbers) -> Score:
        return aim.score(figures(problem, sites.tolist()))

    return score


def by_sum(prices: Prices) -> Measuring:
    """Choices by the sum of all work and transfers, as if nothing went on at the same time."""

    def score(sites: Numbers) -> Score:
        tally = Tally(prices.problem, sites)
        return (tally.work(prices.run) + tally.total(prices.held, prices.moves),)

    return score


def _moves(prices: Prices, sites: Numbers, free: Bools) -> Floats:
    """What each single move changes about the sum; endless where it may not be made."""
    tally = Tally(prices.problem, sites)
    changes = tally.work_changes(prices.run) + tally.changes(prices.held, prices.moves)
    changes[~prices.problem.within] = np.inf
    changes[~free] = np.inf
    changes[np.arange(len(sites)), sites] = np.inf
    return changes


def _descend(prices: Prices, sites: Numbers, free: Bools) -> Numbers:
    """Best single moves on the sum, several at once where they do not touch; few rounds."""
    sites = sites.copy()
    score = by_sum(prices)
    (best,) = score(sites)
    for _ in range(12):
        changes = _moves(prices, sites, free)
        to = changes.argmin(axis=1)
        gain = changes[np.arange(len(sites)), to]
        order = [int(t) for t in np.argsort(gain, kind="stable") if gain[t] < -_NEGLIGIBLE]
        if not order:
            break
        trial, touched = sites.copy(), set[int]()
        for task in order:
            near = _neighbours(prices.problem, task)
            if touched.isdisjoint(near):
                trial[task] = to[task]
                touched |= near
        (value,) = score(trial)
        if value >= best - _NEGLIGIBLE:  # moves met at a shared item: the best one alone
            trial = sites.copy()
            trial[order[0]] = to[order[0]]
            (value,) = score(trial)
            if value >= best - _NEGLIGIBLE:
                break
        sites, best = trial, value
    return sites


def _neighbours(problem: Problem, task: int) -> set[int]:
    """Items whose movement depends on where a step is."""
    return {*problem.inputs[task], len(problem.held) + task}


def improve(
    prices: Prices,
    sites: Numbers,
    free: Bools,
    score: Measuring,
    runs: int = SIMULATED_RUNS,
) -> Numbers:
    """Single moves on the simulated run, the most promising first, as long as the budget lasts."""
    sites, best = sites.copy(), score(sites)
    runs = min(runs, SIMULATED_WORK // max(1, len(sites)))
    improved = True
    while improved and runs > 0:
        improved = False
        changes = _moves(prices, sites, free)
        for flat in np.argsort(changes, axis=None, kind="stable"):
            task, site = divmod(int(flat), len(prices.problem.sites))
            if runs <= 0 or not np.isfinite(changes[task, site]):
                break
            trial = sites.copy()
            trial[task] = site
            runs -= 1
            value = score(trial)
            if better(value, best):
                sites, best, improved = trial, value, True
                break
    return sites


# --- collectors -----------------------------------------------------------------------------------


def collect(problem: Problem, sites: Numbers, rule: Rule, chance: random.Random) -> Numbers:
    """Each combining step where the rule wants it, among the sites that it may run at."""
    sites = sites.copy()
    held = len(problem.held)
    for task in problem.collectors:
        width = len(problem.sites)
        partial = np.zeros(width)
        for item in problem.inputs[task]:
            if item >= held:
                partial[sites[item - held]] += problem.nbytes[item - held]
            else:
                partial += np.where(
                    problem.held_bytes[item] == 0, problem.held_bytes[item].max(), 0
                )
        inputs = (problem.input_bytes or {}).get(task, np.zeros(width))
        allowed = [int(site) for site in np.flatnonzero(problem.within[task])]
        if rule == "random":
            holders = [site for site in allowed if partial[site] > 0] or allowed
            sites[task] = chance.choice(sorted(holders, key=lambda site: problem.sites[site]))
            continue
        if rule == "largest-input":
            order = [(-inputs[site], -partial[site]) for site in range(width)]
        elif rule == "largest-intermediate":
            order = [(-partial[site], -inputs[site]) for site in range(width)]
        else:
            order = [
                (_in_and_out(problem, sites, task, site), -inputs[site]) for site in range(width)
            ]
        sites[task] = min(allowed, key=lambda site: (*order[site], site))
    return sites


def _in_and_out(problem: Problem, sites: Numbers, task: int, site: int) -> float:
    """Bytes that move if a step is at ``site``: its inputs, and its result to where it must go.

    A reader of nothing but this result comes along for free and is not counted.
    """
    held = len(problem.held)
    chosen = sites.tolist()
    chosen[task] = site
    nbytes = sum(problem.arrival(item, chosen, site)[1] for item in problem.inputs[task])
    targets = {
        chosen[user]
        for user in problem.users[held + task]
        if len(problem.inputs[user]) > 1 or not problem.within[user, site]
    }
    if held + task in problem.deliver and problem.client >= 0:
        targets.add(problem.client)
    return nbytes + float(problem.nbytes[task]) * len(targets - {site})
